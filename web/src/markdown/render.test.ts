// What the components write, by rendering on the server: a model's text is text.

import { render } from "svelte/server";
import { describe, expect, test } from "vitest";
import Markdown from "./Markdown.svelte";
import { samples } from "./samples";

/** The markup of `text`, without Svelte's own comments. */
function html(text: string, streaming = false): string {
  return render(Markdown, { props: { text, streaming } }).body.replace(/<!--.*?-->/g, "");
}

/** The names of the elements in `markup`. */
function tags(markup: string): Set<string> {
  return new Set([...markup.matchAll(/<([a-z][\w-]*)/gi)].map((found) => found[1] ?? ""));
}

const BLOCKS = "div p h3 h4 h5 h6 ul ol li input blockquote pre table thead tbody tr th td hr button";
const OURS = new Set(`${BLOCKS} code span strong em del a br`.split(" "));

const hostile = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "<div onclick='x'>\n\n**a**\n\n</div>",
  "a <b>b</b> <svg/onload=alert(1)> c",
  "[a](javascript:alert(1)) <javascript:alert(1)>",
  '[a](https://e.com/"onmouseover="alert(1) "t\\" onclick=x")',
  "![<img src=x>](https://e.com/<b>)",
  "`<b>` and ```<i>```",
  "```html\n<script>alert(1)</script>\n```",
  '```"><script>alert(1)</script>\ncode\n```',
  "$<img src=x onerror=alert(1)>$ and \\(\"><script>x</script>\\)",
  "| <b> | <script> |\n|---|---|\n| </td><script> | x |",
  "<!-- --><script>alert(1)</script>",
  "&lt;script&gt;alert(1)&lt;/script&gt;",
  "- [ ] <input onfocus=x autofocus>",
  "# <h1>x</h1>",
  "<style>*{display:none}</style>",
  "<iframe src=https://e.com></iframe>",
  "[x]: javascript:alert(1)\n\n[x]",
];

describe("no markup of the model's", () => {
  test.each([...hostile, ...Object.values(samples)])("%#", (text) => {
    for (const streaming of [false, true]) {
      const markup = html(text, streaming);
      for (const tag of tags(markup)) expect(OURS, tag).toContain(tag);
      expect(markup.replace(/data-tex="[^"]*"|title="[^"]*"/g, "")).not.toMatch(/<[^>]*\s(?:on\w+|style|src|srcdoc)=/i);
      expect(markup).not.toMatch(/href="(?!https?:|mailto:)/);
    }
  });

  test("raw HTML is shown as it was written", () => {
    expect(html("a <b>b</b>")).toContain("a &lt;b>b&lt;/b>");
    expect(html("<div>\n<i>x</i>\n</div>")).toContain("&lt;div>\n&lt;i>x&lt;/i>\n&lt;/div>");
  });
});

describe("blocks and spans", () => {
  const cases: [string, string][] = [
    ["# A", '<h3 class="md-heading md-h1" dir="auto">A</h3>'],
    ["###### A", '<h6 class="md-heading md-h6" dir="auto">A</h6>'],
    ["a **b** *c* ~~d~~ `e`", '<p dir="auto">a <strong>b</strong> <em>c</em> <del>d</del> <code dir="ltr">e</code></p>'],
    ["a  \nb", '<p dir="auto">a<br/>b</p>'],
    ["3. a\n4. b", '<ol start="3"><li dir="auto"> a</li><li dir="auto"> b</li></ol>'],
    ["---", "<hr/>"],
    ["> a", '<blockquote dir="auto"><p dir="auto">a</p></blockquote>'],
    ["$x$", '<span class="formula" dir="ltr" data-tex="x"></span>'],
    ["a $$x$$", '<span class="formula formula-display" dir="ltr" data-tex="x"></span>'],
    ["$$\nx\n$$", '<div class="formula formula-display" dir="ltr" data-tex="x"></div>'],
    [
      "[a](https://e.com/ \"t\")",
      '<a href="https://e.com/" title="t" target="_blank" ' +
        'rel="noopener noreferrer nofollow" referrerpolicy="no-referrer">a</a>',
    ],
    ["![cat](https://e.com/c.png)", ">cat</a>"],
    ["| a |\n|--:|\n| b |", '<td dir="auto" class="md-right">b</td>'],
    ["| a |\n|--|", '<div class="md-table" tabindex="0" role="region" aria-label="Table">'],
    ["```py\nx\n```", '<span class="md-code-lang">py</span>'],
    ["```py\nx <y>\n```", '<code class="hljs"><span class="md-lines">x &lt;y></span></code>'],
    ["- [x] a", '<input type="checkbox" disabled="" checked="" aria-label="Done"/>'],
  ];
  test.each(cases)("%#", (text, expected) => expect(html(text)).toContain(expected));

  test("an open formula is a mark, and nothing of it is shown", () => {
    expect(html("Then $x_", true)).toContain('Then <span class="formula-pending" aria-hidden="true">…</span></p>');
    expect(html("Then $x_", false)).toContain('<p dir="auto">Then $x_</p>');
  });
});

// The small parts: pieces of long text, highlighting, colours, plain text, fonts.

import { describe, expect, test } from "vitest";
import { withoutOldFonts } from "../../vite-katex";
import { GrowingChunks } from "./chunks";
import { highlightCode } from "./grammars";
import { classNames, toDom } from "./hast";
import type { HastNode } from "./hast";
import { mayHighlight } from "./highlight";
import { share } from "./nodes";
import { plainText } from "./plain";

/** The text of a file beside this one; an import would give what the bundler makes of it. */
async function read(path: string): Promise<string> {
  const name = "node:fs/promises";
  const files = (await import(/* @vite-ignore */ name)) as { readFile(path: URL, encoding: "utf8"): Promise<string> };
  return files.readFile(new URL(path, import.meta.url), "utf8");
}

const css = await read("./markdown.css");
const katexCss = await read("../../node_modules/katex/dist/katex.min.css");

describe("long text in pieces", () => {
  test("pieces add up to the text, and finished ones stay", () => {
    const growing = new GrowingChunks();
    let text = "";
    let before = growing.split(text);
    for (let i = 0; i < 3_000; i++) {
      text += i % 7 === 0 ? "word ".repeat(9) : "a line of code\n";
      const now = growing.split(text);
      expect(now.length).toBeLessThan(text.length / 7_000 + 2);
      before.slice(0, -1).forEach((chunk, k) => expect(now[k]).toBe(chunk));
      before = now;
    }
    expect(before.map((chunk) => chunk.text).join("")).toBe(text);
    expect(before.every((chunk) => chunk.lines)).toBe(true);
  });

  test("a line that is cut stays one line", () => {
    const chunks = new GrowingChunks().split(`${"x".repeat(40_000)}\n${"y\n".repeat(20_000)}`);
    expect(chunks[0]).toMatchObject({ lines: false });
    expect(chunks.filter((chunk) => chunk.lines).every((chunk) => !chunk.text.includes("x"))).toBe(true);
  });
});

interface FakeNode {
  className: string;
  text: string;
  inside: FakeNode[];
}

/** As much of a document as `toDom` needs. */
function fakePage(): Document {
  const node = (text = "") => {
    const inside: FakeNode[] = [];
    return { className: "", text, inside, appendChild: (child: FakeNode) => inside.push(child) };
  };
  const page = { createElement: () => node(), createTextNode: node, createDocumentFragment: () => node() };
  return page as unknown as Document;
}

function drawn(tree: HastNode): FakeNode {
  return toDom(tree, fakePage()) as unknown as FakeNode;
}

function allText(node: FakeNode): string {
  return node.text + node.inside.map(allText).join("");
}

describe("highlighting", () => {
  const names =
    "bash sh c cpp css diff go html xml java javascript js json kotlin latex tex lua markdown php python py r ruby rust " +
    "rs sql swift toml ini typescript ts tsx yaml yml csharp dockerfile makefile shell console";

  test("known languages and their other names give a tree, others none", () => {
    for (const name of names.split(" ")) expect(highlightCode(name, "a = 1"), name).not.toBeNull();
    expect(highlightCode("nothing", "a = 1")).toBeNull();
  });

  test("code becomes spans and text, with nothing lost", () => {
    const code = '<script>alert("&amp;")</script>\n';
    const root = drawn(highlightCode("html", code) ?? { type: "root" });
    expect(allText(root)).toBe(code);
    expect(root.inside[0]?.className).toBe("hljs-tag");
  });

  test("other elements, attributes and odd classes are not taken over", () => {
    const root = drawn({
      type: "root",
      children: [
        {
          type: "element",
          properties: { className: ["hljs-a", "b c", '"x'] },
          children: [{ type: "text", value: "t" }],
        },
        { type: "comment", value: "c" },
      ],
    });
    expect(root.inside.map((node) => [node.className, allText(node)])).toEqual([["hljs-a", "t"], ["", "c"]]);
    expect(classNames({ type: "element" })).toEqual([]);
  });

  test("long code and plain text are not highlighted", () => {
    expect(mayHighlight("python", "x".repeat(50_000))).toBe(true);
    expect(mayHighlight("python", "x".repeat(50_001))).toBe(false);
    expect(mayHighlight("", "x")).toBe(false);
    expect(mayHighlight("text", "x")).toBe(false);
  });
});

describe("colours", () => {
  const colours = (selector: string): Map<string, string> => {
    const block = css.slice(css.indexOf(`${selector} {`)).split("}")[0] ?? "";
    const pairs = [...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)];
    return new Map(pairs.map(([, name = "", colour = ""]) => [name, colour]));
  };
  const light = (colour: string): number => {
    const [r = 0, g = 0, b = 0] = [1, 3, 5].map((i) => {
      const part = Number.parseInt(colour.slice(i, i + 2), 16) / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a = "", b = ""): number => {
    const [dark = 0, bright = 0] = [light(a), light(b)].sort((x, y) => x - y);
    return (bright + 0.05) / (dark + 0.05);
  };

  test.each([":root", ':root[data-theme="dark"]'])("can be read: %s", (selector) => {
    const all = colours(selector);
    expect(all.size).toBeGreaterThan(20);
    for (const [name, colour] of all) {
      if (!name.startsWith("hl-") || name.endsWith("-back")) continue;
      const back = all.get(`${name}-back`) ?? all.get("md-code-back");
      expect(contrast(colour, back), name).toBeGreaterThan(4.5);
    }
    expect(contrast(all.get("md-code-front"), all.get("md-code-back"))).toBeGreaterThan(4.5);
    expect(contrast(all.get("md-code-front"), all.get("md-mark-back"))).toBeGreaterThan(4.5);
    expect(contrast(all.get("md-quiet"), all.get("md-code-head"))).toBeGreaterThan(4.5);
  });
});

test("KaTeX's stylesheet keeps its woff2 fonts only", () => {
  const short = withoutOldFonts(katexCss);
  expect(short).not.toMatch(/\.ttf|\.woff\b|truetype/);
  expect(short.match(/\.woff2\)/g)?.length).toBe(katexCss.match(/\.woff2\)/g)?.length);
  expect(short.match(/\.woff2\)/g)?.length).toBeGreaterThan(10);
  const sources = "src: url(a.woff2) format('woff2'), url(a.woff) format('woff'), url('a.ttf') format('truetype');";
  expect(withoutOldFonts(sources)).toBe("src: url(a.woff2) format('woff2');");
});

test("equal parts of two trees are shared", () => {
  const old = { a: [{ b: 1 }, { c: [2] }], d: "x" };
  const next = share(old, { a: [{ b: 1 }, { c: [3] }], d: "x" });
  expect(next.a[0]).toBe(old.a[0]);
  expect(next.a[1]).toEqual({ c: [3] });
  expect(share(old, structuredClone(old))).toBe(old);
  expect(share([1, 2], [1])).toEqual([1]);
  expect(share({ a: 1, b: 2 }, { a: 1 })).toEqual({ a: 1 });
});

test("Markdown as plain text", () => {
  const blocks: [string, string][] = [
    ["# A **b**", "A b"],
    ["- [x] c\n- `d`\n  1. e", "- [x] c\n- d\n  1. e"],
    ["[f](https://g.h/) $x$ &amp;", "f (https://g.h/) x &"],
    ["| a | b |\n|---|---|\n| 1 | 2 |", "a\tb\n1\t2"],
    ["```js\nlet i;\n```", "let i;"],
    ["> q\n\n---", "q\n\n---"],
  ];
  const [markdown, text] = [0, 1].map((i) => blocks.map((pair) => pair[i]).join("\n\n"));
  expect(plainText(markdown ?? "")).toBe(text);
  expect(plainText("https://a.b")).toBe("https://a.b");
});

import { describe, expect, test } from "vitest";
import { samples } from "./samples";
import { MarkdownStream, parseMarkdown } from "./stream";
import type { BlockNode } from "./nodes";

const still = () => 0;

/** What the last update gives when the text came in pieces; without reading it again as a whole. */
function streamed(text: string, ends: readonly number[]): readonly BlockNode[] {
  const stream = new MarkdownStream(still, 0);
  for (const end of ends) stream.update(text.slice(0, end), true);
  return stream.update(text, false);
}

function everyEnd(text: string, step: number): number[] {
  return Array.from({ length: Math.floor(text.length / step) }, (_, i) => (i + 1) * step);
}

describe("text in pieces gives the nodes of the whole text", () => {
  const all = Object.values(samples).join("\n\n");
  test.each(Object.entries({ ...samples, all }))("%s", (_name, text) => {
    const whole = parseMarkdown(text);
    for (const step of [1, 2, 3, 5, 17]) expect(streamed(text, everyEnd(text, step))).toEqual(whole);
  });

  test.each(Object.entries(samples))("%s, split at every place", (_name, text) => {
    const whole = parseMarkdown(text);
    for (let end = 0; end <= text.length; end++) expect(streamed(text, [end])).toEqual(whole);
  });

  test("every pair of samples", () => {
    const texts = Object.values(samples);
    for (const first of texts) {
      for (const second of texts) {
        const text = `${first}\n${second}`;
        expect(streamed(text, everyEnd(text, 7))).toEqual(parseMarkdown(text));
      }
    }
  });
});

test("a reference that is defined late is a link at the end, and before where it was defined already", () => {
  const late = "See [a].\n\nMore [a].\n\n[a]: https://example.com/\n";
  expect(streamed(late, everyEnd(late, 3))).toEqual(parseMarkdown(late));
  const early = "[a]: https://example.com/\n\nSee [a]";
  const stream = new MarkdownStream(still);
  let shown: readonly BlockNode[] = [];
  for (const end of everyEnd(early, 1)) shown = stream.update(early.slice(0, end), true);
  expect(JSON.stringify(shown)).toContain('"href":"https://example.com/"');
});

test("what is finished keeps its identity", () => {
  const text = Object.values(samples).join("\n\n");
  const stream = new MarkdownStream(still);
  let before: readonly BlockNode[] = [];
  for (const end of everyEnd(text, 5)) {
    const now = stream.update(text.slice(0, end), true);
    // All but the last two blocks: the last grows, and the one before may still turn out to be part of it.
    before.slice(0, -2).forEach((node, i) => expect(now[i]).toBe(node));
    before = now;
  }
  const end = stream.update(text, false);
  before.slice(0, -2).forEach((node, i) => expect(end[i]).toBe(node));
});

test("within the last block, what did not change keeps its identity", () => {
  const stream = new MarkdownStream(still);
  const list = (text: string) => {
    const node = stream.update(text, true)[0];
    return node?.type === "list" ? node : undefined;
  };
  const before = list("- a $x$ b\n- c");
  const after = list("- a $x$ b\n- c and d");
  expect(after).not.toBe(before);
  expect(after?.items[0]).toBe(before?.items[0]);
});

test("a formula appears when it is closed, with a mark in its place before", () => {
  const stream = new MarkdownStream(still);
  const text = "Then $a+b$ and \\[\nc\n\\]";
  const seen = everyEnd(text, 1).map((end) => JSON.stringify(stream.update(text.slice(0, end), true)));
  for (const nodes of seen) expect(nodes).not.toMatch(/"text":"[^"]*(?:[$[]|\\\\)/);
  expect(seen[6]).toContain('"type":"pending"');
  expect(seen.at(-1)).not.toContain("pending");
});

test("an unclosed formula is raw text when the text is complete", () => {
  const stream = new MarkdownStream(still);
  expect(JSON.stringify(stream.update("Then $a+b", true))).toContain("pending");
  expect(stream.update("Then $a+b", false)).toEqual([
    { type: "paragraph", children: [{ type: "text", text: "Then $a+b" }] },
  ]);
});

test("code is open until its fence is closed", () => {
  const stream = new MarkdownStream(still);
  const open = (text: string) =>
    stream.update(text, true).map((node) => (node.type === "code" ? [node.text, node.open] : []));
  expect(open("```js\nlet a")).toEqual([["let a", true]]);
  expect(open("```js\nlet a;\n``")).toEqual([["let a;", true]]);
  expect(open("```js\nlet a;\n```\n")).toEqual([["let a;", false]]);
  expect(open("```js\nlet a;\n```\n\n```\nb")).toEqual([["let a;", false], ["b", true]]);
});

test("a long open fence grows without being read again", () => {
  const stream = new MarkdownStream(still);
  const text = "Intro\n\n```py\n" + "    x = compute(value, 12345)  # comment\n".repeat(8_000);
  for (const end of everyEnd(text, 200).slice(1)) expect(stream.update(text.slice(0, end), true).length).toBe(2);
  expect(stream.update(text + "```\n", true).at(-1)).toMatchObject({ type: "code", lang: "py", open: false });
  expect(stream.update(text + "```\n\nend", false).length).toBe(3);
});

test("another text starts anew", () => {
  const stream = new MarkdownStream(still);
  stream.update("# One\n\ntext\n\nmore", true);
  expect(stream.update("Two", true)).toEqual(parseMarkdown("Two"));
  expect(stream.update("", false)).toEqual([]);
});

test("a text that goes on after its end is read on", () => {
  const stream = new MarkdownStream(still);
  stream.update("a\n\nb", true);
  stream.update("a\n\nb", false);
  expect(stream.update("a\n\nb and\n\nc", true)).toEqual(parseMarkdown("a\n\nb and\n\nc"));
});

test("after a costly update there is a pause, and the last text is never lost", () => {
  let now = 0;
  const stream = new MarkdownStream(() => (now += 10));
  stream.update("one", true);
  expect(stream.update("one two", true)).toEqual(parseMarkdown("one"));
  expect(stream.retryIn).toBeGreaterThan(0);
  now += 100;
  expect(stream.update("one two", true)).toEqual(parseMarkdown("one two"));
  expect(stream.retryIn).toBeNull();
  stream.update("one two three", true);
  expect(stream.update("one two three", false)).toEqual(parseMarkdown("one two three"));
});

// Texts that are made to cost much: reading them ends, and gives not much more
// than was put in.

import { describe, expect, test } from "vitest";
import { MAX_DEPTH } from "./lexer";
import { MarkdownStream, parseMarkdown } from "./stream";

const many = (text: string, times: number) => text.repeat(times);

const bombs: Record<string, string> = {
  quotes: many(">", 10_000) + "x",
  spacedQuotes: many("> ", 10_000) + "x",
  lazyQuotes: many("> - > ", 300) + "x" + many("\nlazy", 300),
  brackets: many("[", 10_000),
  bracketPairs: many("[", 5_000) + "a" + many("]", 5_000),
  openLinks: many("[a](b", 5_000),
  nestedLinks: many("[a](", 5_000) + many(")", 5_000),
  images: many("![", 10_000),
  stars: many("**", 10_000),
  openStars: many("*a **b ", 5_000),
  nestedStars: many("*a ", 5_000) + many("a* ", 5_000),
  underscores: many("_a ", 5_000) + many("a_ ", 5_000),
  tildes: many("~~a ", 10_000),
  bullets: many("- ", 5_000) + "x",
  numbers: many("1. ", 5_000) + "x",
  bulletsInQuotes: many("- > ", 3_000) + "x",
  indentedLists: Array.from({ length: 200 }, (_, i) => many("  ", i) + "- a").join("\n"),
  backticks: Array.from({ length: 200 }, (_, i) => many("`", i) + "a").join(" "),
  dollars: many("$", 10_000),
  openDollars: many("$a ", 10_000),
  parentheses: many("\\(", 10_000) + "\\\\)",
  displays: many("\\[\n", 5_000),
  boxes: many("\\boxed{", 5_000),
  nestedBoxes: many("\\boxed{", 5_000) + many("}", 5_000),
  tags: many("<a ", 10_000),
  comments: many("<!--", 5_000),
  addresses: many("http://", 5_000),
  mails: many("a@", 10_000),
  blankLines: many("\n", 100_000),
  spaces: many(" ", 100_000) + "x",
  references: many("[a][", 5_000),
  backslashes: many("\\", 20_000),
  longWord: many("a", 250_000),
  longParagraph: many("*word* ", 40_000),
};

describe("every bomb ends", () => {
  test.each(Object.entries(bombs))("%s", { timeout: 60_000 }, (_name, text) => {
    expect(JSON.stringify(parseMarkdown(text)).length).toBeLessThan(20 * text.length + 1_000);
    const stream = new MarkdownStream();
    stream.update(text.slice(0, text.length / 2), true);
    stream.update(text, true);
    stream.update(text, false);
  });
});

function depth(node: unknown): number {
  if (typeof node !== "object" || node === null) return 0;
  const inner = Math.max(0, ...Object.values(node).map(depth));
  return Array.isArray(node) ? inner : inner + 1;
}

test("nesting is bounded, and what is deeper is shown as it was written", () => {
  const quotes = parseMarkdown(many("> ", 100) + "end");
  expect(depth(quotes)).toBeLessThanOrEqual(MAX_DEPTH + 1);
  expect(JSON.stringify(quotes)).toContain("> > > end");
  expect(depth(parseMarkdown(many("- ", 100) + "end"))).toBeLessThanOrEqual(2 * MAX_DEPTH + 2);
  expect(depth(parseMarkdown(bombs["nestedStars"] ?? ""))).toBeLessThanOrEqual(MAX_DEPTH + 3);
});

test("a block of more than 200 kB that is no code is plain text", () => {
  expect(parseMarkdown(many("a *b* ", 40_000)).map((node) => node.type)).toEqual(["plain"]);
  expect(parseMarkdown("```\n" + many("a\n", 150_000) + "```").map((node) => node.type)).toEqual(["code"]);
  const stream = new MarkdownStream();
  expect(stream.update(many("a *b* ", 40_000), true).map((node) => node.type)).toEqual(["plain"]);
});

test("a part that is too hard does not spoil the others", () => {
  // marked fails on a quotation that holds a list's number and goes on without `>`.
  const text = "# Title\n\n- a\n  b\n      > 2. c\n  d *e*\n\n**end**";
  const nodes = parseMarkdown(text);
  expect(nodes.map((node) => node.type)).toEqual(["heading", "list", "paragraph"]);
});

import { describe, expect, test } from "vitest";
import type { BlockNode, InlineNode } from "./nodes";
import { parseMarkdown } from "./stream";

/** Every formula in the nodes, display ones in `[]`. */
function formulas(nodes: readonly (BlockNode | InlineNode)[]): string[] {
  return nodes.flatMap((node) => {
    if (node.type === "math") return [node.display ? `[${node.tex}]` : node.tex];
    if (node.type === "list") return node.items.flatMap((item) => formulas(item.children));
    if (node.type === "table") return [node.header, ...node.rows].flat().flatMap((cell) => formulas(cell));
    return "children" in node ? formulas(node.children) : [];
  });
}

const found = (text: string) => formulas(parseMarkdown(text));

describe("formulas are found", () => {
  const cases: [string, string[]][] = [
    ["$x$", ["x"]],
    ["a $x_1$ b $y*z*w$ c", ["x_1", "y*z*w"]],
    ["\\(a\\) and \\( b \\)", ["a", "b"]],
    ["$$a$$ in text", ["[a]"]],
    ["text \\[a\\] text", ["[a]"]],
    ["$$\na\n= b\n$$", ["[a\n= b]"]],
    ["\\[\na\n- b\n+ c\n\\]", ["[a\n- b\n+ c]"]],
    ["text\n$$\na\n$$\ntext", ["[a]"]],
    ["text\n\\[ a \\]\ntext", ["[a]"]],
    ["$$\na\n\nb\n$$", ["[a\n\nb]"]],
    ["\\boxed{\\frac{1}{\\sqrt{2}}}", ["\\boxed{\\frac{1}{\\sqrt{2}}}"]],
    ["The answer is \\boxed{\\{1\\}}.", ["\\boxed{\\{1\\}}"]],
    ["$\\boxed{42}$", ["\\boxed{42}"]],
    ["**bold $a$ and \\(b\\)**", ["a", "b"]],
    ["*a $b*c$ d*", ["b*c"]],
    ["- $a$\n- $$\n  b\n  $$", ["a", "[b]"]],
    ["> \\[\n> a\n> \\]", ["[a]"]],
    ["| $a$ | \\(b\\) |\n|---|---|\n| $c$ | d |", ["a", "b", "c"]],
    ["# The $x$ of it", ["x"]],
    ["snake_case $x$ ~ $y$", ["x", "y"]],
    ["$a \\$ b$", ["a \\$ b"]],
    ["\\(a \\\\) b\\)", ["a \\\\) b"]],
    ["$\\text{a}$,$b$.", ["\\text{a}", "b"]],
    ["[see $x$](https://example.com/)", ["x"]],
  ];
  test.each(cases)("%#", (text, expected) => expect(found(text), text).toEqual(expected));
});

describe("what is no formula stays text", () => {
  const cases = [
    "$5 and $10",
    "it costs $5, $6 or $7.",
    "US$5 to US$6",
    "$ x$ and $x $",
    "\\$x$ and $x\\$",
    "`$x$` and ``\\(y\\)``",
    "```\n$x$ \\[y\\]\n```",
    "    $x$",
    "$x and `y$`",
    "$$x$",
    "\\\\(x\\\\)",
    "$a\n\nb$",
    "\\(a\n\nb\\)",
    "\\boxed{a",
    "$$\n# a\n$$",
    "\\[\n\n```\na\n```\n\\]",
    "$$$$",
    "<b title='$x$'>",
    "set $HOME and $PATH",
  ];
  test.each(cases)("%#", (text) => expect(found(text), text).toEqual([]));
});

test("an escaped dollar is a dollar, and escapes beside formulas stay what they are", () => {
  expect(parseMarkdown("\\$5 \\*a\\* $x$")).toEqual([
    { type: "paragraph", children: [{ type: "text", text: "$5 *a* " }, { type: "math", tex: "x", display: false }] },
  ]);
});

test("an underlined heading does not reach over a block formula", () => {
  const nodes = parseMarkdown("a\n$$\nx\n=\ny\n$$\nb\n---\n");
  expect(nodes.map((node) => node.type)).toEqual(["paragraph", "math", "heading"]);
});

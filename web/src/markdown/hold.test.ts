import { describe, expect, test } from "vitest";
import { holdBack } from "./hold";

describe("a formula that is open is held back", () => {
  const cases: [string, string][] = [
    ["The root $x_", "The root "],
    ["The root $", "The root "],
    ["The root $5", "The root "],
    ["The root $5 ", "The root "],
    ["A sum $$a +", "A sum "],
    ["So \\", "So "],
    ["So \\(a + b", "So "],
    ["So \\(a\\) and \\(b", "So \\(a\\) and "],
    ["So \\(a \\", "So "],
    ["So \\[a", "So "],
    ["So \\[\n", "So "],
    ["So \\[\na\n", "So "],
    ["It costs $5 and $10", "It costs $5 and "],
    ["text\n\\[\na\n", "text\n"],
    ["text\n\n\\[\na\n\nb", "text\n\n"],
    ["$$\na = b\n", ""],
    ["- item\n- $$\n  a", "- item\n- "],
    ["The answer: \\boxed{\\frac{1}", "The answer: "],
    ["The answer: \\bo", "The answer: "],
    ["**Answer: $x", "**Answer: "],
    ["$a$ and $b$ and $c", "$a$ and $b$ and "],
    ["$5/$", ""],
    ["`code $x` and $y", "`code $x` and "],
    ["```\n$x\n```\n$y", "```\n$x\n```\n"],
    ["$$\na\n$$\n$b", "$$\na\n$$\n"],
    ["| a | $b", "| a | "],
    ["$\\text{the number of things}", ""],
  ];
  test.each(cases)("%#", (text, shown) => expect(holdBack(text), text).toEqual({ text: shown, pending: true }));
});

describe("what is not a formula is shown", () => {
  const cases = [
    "It costs $5 and",
    "It costs $5, ",
    "It costs $5) ",
    "It costs $20.50 a month",
    "It costs $5 and $10 or",
    "a $ b",
    "costs \\$5",
    "done $x$",
    "done \\(x\\).",
    "done \\boxed{1}.",
    "`$x",
    "```\n$x",
    "1. a\n   ```sh\n   echo $HOME",
    "a $b\n\nnew",
    "a $b\n- item",
    "a \\(b\n\nnew",
    "set $HOME to the place where files are",
    "a \\* b \\_",
    "$$x = 1\n\nnew paragraph",
    "\\[\n\n# heading\n",
    "in a regex \\( opens a group and then it goes on and on",
    `\\[\n\n${"a\n\n".repeat(2_000)}`,
    `$${"a".repeat(2_000)}`,
  ];
  test.each(cases)("%#", (text) => expect(holdBack(text), text).toEqual({ text, pending: false }));
});

describe("a last line that may become a block's marker is not shown yet", () => {
  const cases: [string, string][] = [
    ["text\n-", "text\n"],
    ["text\n=", "text\n"],
    ["text\n- ", "text\n"],
    ["text\n**", "text\n**"],
    ["1. a\n2", "1. a\n"],
    ["1. a\n2.", "1. a\n"],
    ["text\n##", "text\n"],
    ["text\n``", "text\n"],
    ["text\n```pyth", "text\n"],
    ["```\ncode\n``", "```\ncode\n"],
    ["```\ncode\n```", "```\ncode\n```"],
    ["> a\n> -", "> a\n"],
    ["- a\n  - b", "- a\n  - b"],
  ];
  test.each(cases)("%#", (text, shown) => expect(holdBack(text), text).toEqual({ text: shown, pending: false }));
});

// Documents for the tests: answers as models write them, and awkward ones.

export const samples: Record<string, string> = {
  prose: "# Title\n\nA *first* paragraph with **bold**, `code` and a [link](https://example.com/a?b=1&amp;c=2).\nIts second line.  \nAfter a break.\n\nAnother one &mdash; with an entity.\n",
  lists:
    "Intro:\n\n1. First\n2. Second\n   - nested\n   - more\n\n     with a paragraph\n3. Third\n\n- [x] done\n- [ ] open\n\nAfter.\n",
  looseList: "1. One\n\n2. Two\n\n   Still two.\n\n3. Three\n",
  listAfterText: "Steps:\n- one\n- two\n* other\n",
  code: "Here:\n```python\ndef f(x):\n    return x  # $not$ math\n\n\nprint(1)\n```\nDone.\n\n~~~\nplain ``` text\n~~~\n",
  codeInList: "1. Do this:\n   ```sh\n   ls -l\n\n   pwd\n   ```\n2. Then that.\n",
  indented: "Text\n\n    code\n    more\n\nText\n",
  table: "Before\n\n| a | b |\n|:--|--:|\n| `x` | $y$ |\n| 1 | 2 |\n\nAfter\n",
  tableAfterText: "Before:\na | b\n--|--\n1 | 2\n\nAfter\n",
  quotes: "> quote\nlazy\n> > deeper\n>\n> - list\n\nend\n",
  rules: "a\n\n---\n\nb\n***\nc\n\nHeading\n===\n\nOther\n---\n",
  mathBlocks: "So\n$$\nx = \\frac{1}{2}\n$$\nand\n\\[\na\n= b\n\\]\nthen $$c^2$$ and\n\n\\[ d \\]\n\nend\n",
  mathInline: "With $a_b$ and \\(c*d*e\\), **$f$**, \\boxed{\\frac{1}{2}} and `$g$`; it costs $5 and $10, or \\$3.\n",
  mathInList: "1. Take\n   $$\n   x\n   $$\n2. Then \\(y\\)\n\n   \\[\n   z\n   \\]\n3. End\n",
  mathWithBlank: "a\n\n\\[\nb\n\n= c\n\\]\n\nd\n",
  html: "<div>\n<b>hi</b>\n\n</div>\n\ntext <br> <script>alert(1)</script>\n\n<!-- a\n\ncomment -->\n\nend\n",
  unclosed: "a **b `c\n\n[d](e\n\n$f\n\n\\(g\n\n\\boxed{h\n\n```\ni\n",
  windows: "a\r\nb\r\n\r\n- c\r\n- d\r\n",
  rightToLeft: "# مرحبا\n\nهذا نص **عربي** مع `code`.\n",
  emphasisOrRule: "a\n***b*** c\n\nd\n***\ne\n",
  numbers: "It was in\n2024. Then\n\n1. one\n2. two\n",
  hardBreaks: "a\\\nb  \nc\n",
  headings: "# a\n## b #\n###### c\ntext\n# d\n",
};

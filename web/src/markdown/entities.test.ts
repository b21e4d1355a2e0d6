import { expect, test } from "vitest";
import { decodeEntities } from "./entities";
import { parseMarkdown } from "./stream";

test("names, decimal and hexadecimal references are decoded", () => {
  expect(decodeEntities("&lt;a&gt; &amp; &quot;&apos;")).toBe("<a> & \"'");
  expect(decodeEntities("&nbsp;&eacute;&Omega;&rarr;&hellip;")).toBe("\u00a0éΩ→…");
  expect(decodeEntities("&#65;&#x1F600;")).toBe("A😀");
});

test("a reference is decoded once only", () => {
  expect(decodeEntities("&amp;lt;")).toBe("&lt;");
  expect(decodeEntities("&#38;amp;")).toBe("&amp;");
});

test("what names no character stays, or is the replacement character", () => {
  expect(decodeEntities("&nothing; &amp a&b; R&D &;")).toBe("&nothing; &amp a&b; R&D &;");
  expect(decodeEntities("&#0;&#xD800;&#x110000;")).toBe("\ufffd\ufffd\ufffd");
});

test("in Markdown, text and addresses are decoded, code and escapes are not", () => {
  expect(parseMarkdown("&amp;lt; &#38; a & b \\&amp; `&amp;` &#36;x$")).toEqual([
    {
      type: "paragraph",
      children: [
        { type: "text", text: "&lt; & a & b &amp; " },
        { type: "codespan", text: "&amp;" },
        { type: "text", text: " $x$" },
      ],
    },
  ]);
  expect(parseMarkdown("```\n&amp;\n```")).toEqual([{ type: "code", lang: "", text: "&amp;", open: false }]);
});

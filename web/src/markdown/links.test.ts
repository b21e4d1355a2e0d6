import { expect, test } from "vitest";
import { safeHref } from "./links";
import { parseMarkdown } from "./stream";

test("web and mail addresses may be links", () => {
  expect(safeHref("https://example.com/a?b=c#d")).toBe("https://example.com/a?b=c#d");
  expect(safeHref(" HTTP://Example.com ")).toBe("http://example.com/");
  expect(safeHref("mailto:a@example.com")).toBe("mailto:a@example.com");
});

test("nothing else may", () => {
  const addresses = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\nscript:alert(1)",
    "\u0001javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "file:///etc/passwd",
    "blob:https://example.com/x",
    "ftp://example.com",
    "//example.com",
    "/api/tags",
    "a.html",
    "#top",
    "",
    "https://",
    `https://example.com/${"a".repeat(10_000)}`,
  ];
  for (const address of addresses) expect(safeHref(address), address).toBeUndefined();
});

const paragraph = (text: string) => {
  const [node] = parseMarkdown(text);
  return node?.type === "paragraph" ? node.children : undefined;
};

test("an address that may not be a link is shown", () => {
  expect(paragraph("[go](javascript:alert(1))")).toEqual([{ type: "text", text: "go (javascript:alert(1))" }]);
  expect(paragraph("<ftp://example.com>")).toEqual([{ type: "text", text: "ftp://example.com" }]);
  expect(paragraph("[**b**](/x)")).toEqual([
    { type: "strong", children: [{ type: "text", text: "b" }] },
    { type: "text", text: " (/x)" },
  ]);
});

test("a picture is a link with its text, also within a link", () => {
  const href = "https://example.com/a.png";
  expect(paragraph(`![cat](${href} "t")`)).toEqual([
    { type: "link", href, title: "t", children: [{ type: "text", text: "cat" }] },
  ]);
  expect(paragraph(`![](${href})`)).toEqual([
    { type: "link", href, title: "", children: [{ type: "text", text: href }] },
  ]);
  expect(paragraph(`[![cat](${href})](https://example.com/)`)).toEqual([
    { type: "link", href: "https://example.com/", title: "", children: [{ type: "text", text: "cat" }] },
  ]);
  expect(paragraph("![cat](data:image/png;base64,AA)")).toEqual([
    { type: "text", text: "cat (data:image/png;base64,AA)" },
  ]);
});

test("bare addresses are links", () => {
  expect(paragraph("see https://example.com/a_b_c, or www.example.com.")).toEqual([
    { type: "text", text: "see " },
    {
      type: "link",
      href: "https://example.com/a_b_c",
      title: "",
      children: [{ type: "text", text: "https://example.com/a_b_c" }],
    },
    { type: "text", text: ", or " },
    { type: "link", href: "http://www.example.com/", title: "", children: [{ type: "text", text: "www.example.com" }] },
    { type: "text", text: "." },
  ]);
});

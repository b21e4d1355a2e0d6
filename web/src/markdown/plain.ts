// Markdown as plain text, for a title or to be copied: without its marks, with
// addresses after their links and formulas as TeX. It is not what the page shows.

import type { BlockNode, InlineNode, ListNode } from "./nodes";
import { parseMarkdown } from "./stream";

function linkText(label: string, href: string): string {
  const bare = (text: string) => text.replace(/^mailto:/, "").replace(/\/$/, "");
  return bare(label) === bare(href) ? label : `${label} (${href})`;
}

function inlineText(nodes: readonly InlineNode[]): string {
  return nodes.map(nodeText).join("");
}

function nodeText(node: InlineNode): string {
  switch (node.type) {
    case "text":
    case "codespan":
      return node.text;
    case "br":
      return "\n";
    case "pending":
      return "";
    case "math":
      return node.tex;
    case "link":
      return linkText(inlineText(node.children), node.href);
    default:
      return inlineText(node.children);
  }
}

function indented(text: string, by: string): string {
  return text.replace(/\n(?=[^\n])/g, "\n" + by);
}

function listText(list: ListNode): string {
  const items = list.items.map((item, i) => {
    const marker = list.ordered ? `${list.start + i}. ` : "- ";
    const box = item.checked === null ? "" : item.checked ? "[x] " : "[ ] ";
    return marker + indented(box + blocksText(item.children, "\n"), " ".repeat(marker.length));
  });
  return items.join("\n");
}

function blockText(node: BlockNode): string {
  switch (node.type) {
    case "code":
    case "html":
    case "plain":
      return node.text;
    case "quote":
      return blocksText(node.children, "\n\n");
    case "list":
      return listText(node);
    case "table":
      return [node.header, ...node.rows].map((row) => row.map(inlineText).join("\t")).join("\n");
    case "rule":
      return "---";
    case "math":
      return node.tex;
    default:
      return inlineText(node.children);
  }
}

function blocksText(nodes: readonly BlockNode[], between: string): string {
  return nodes.map(blockText).join(between);
}

/** The text that a reader of `markdown` sees. */
export function plainText(markdown: string): string {
  return blocksText(parseMarkdown(markdown), "\n\n");
}

// marked's tokens to the tree of nodes.ts: decodes character references (once),
// checks addresses, and forgets what is not shown. It decides nothing about when
// text is read (stream.ts) and how nodes look (the components).

import type { Tokens } from "marked";
import { decodeEntities } from "./entities";
import type { AnyToken } from "./lexer";
import { safeHref } from "./links";
import type { BlockNode, CodeNode, InlineNode, LinkNode, ListItem, TableNode } from "./nodes";

/**
 * Put at the end of a text where a half-written formula was held back. A
 * noncharacter: no text has a use for it, and where one has it, it only shows the
 * pending mark.
 */
export const PENDING = "\ufdd0";

/** A top-level block with a longer source is shown as plain text, except code. */
const LONGEST_BLOCK = 200_000;

function withoutMark(text: string): string {
  return text.includes(PENDING) ? text.replaceAll(PENDING, "") : text;
}

function appendText(nodes: InlineNode[], text: string): void {
  if (text === "") return;
  const last = nodes.at(-1);
  if (last?.type === "text") last.text += text;
  else nodes.push({ type: "text", text });
}

/** Adds text that is shown as it is, with the pending marks in it. */
function addText(nodes: InlineNode[], text: string): void {
  if (!text.includes(PENDING)) return appendText(nodes, text);
  text.split(PENDING).forEach((part, i) => {
    if (i > 0) nodes.push({ type: "pending" });
    appendText(nodes, part);
  });
}

function addLink(nodes: InlineNode[], address: string, title: string, children: InlineNode[], inLink: boolean): void {
  const href = safeHref(address);
  const label = children.length > 0 ? children : [{ type: "text" as const, text: address }];
  if (href !== undefined && !inLink) {
    nodes.push({ type: "link", href, title, children: label } satisfies LinkNode);
    return;
  }
  const only = label.length === 1 ? label[0] : undefined;
  const shown = only?.type === "text" && only.text === address;
  for (const child of label) {
    if (child.type === "text") appendText(nodes, child.text);
    else nodes.push(child);
  }
  if (!shown && !inLink) appendText(nodes, ` (${address})`);
}

function addLinkToken(nodes: InlineNode[], token: Tokens.Link, inLink: boolean): void {
  if (token.autolink) {
    addLink(nodes, withoutMark(token.href), "", inlineText(token.text), inLink);
    return;
  }
  const children = inlineNodes(token.tokens as AnyToken[], true);
  addLink(nodes, decodeEntities(withoutMark(token.href)), decodeEntities(token.title ?? ""), children, inLink);
}

/** A picture is never loaded: it is a link with its alternative text. */
function addImage(nodes: InlineNode[], token: Tokens.Image, inLink: boolean): void {
  const children = inlineNodes(token.tokens as AnyToken[], true);
  addLink(nodes, decodeEntities(withoutMark(token.href)), decodeEntities(token.title ?? ""), children, inLink);
}

function inlineText(text: string): InlineNode[] {
  const nodes: InlineNode[] = [];
  addText(nodes, text);
  return nodes;
}

function addInline(nodes: InlineNode[], token: AnyToken, inLink: boolean): void {
  switch (token.type) {
    case "text":
      // `raw`, not `text`: marked decodes some references in `text`.
      return addText(nodes, decodeEntities(token.raw));
    case "escape":
      return appendText(nodes, token.text);
    case "html":
      return addText(nodes, token.raw);
    case "strong":
    case "em":
    case "del":
      nodes.push({ type: token.type, children: inlineNodes(token.tokens as AnyToken[], inLink) });
      return;
    case "codespan":
      nodes.push({ type: "codespan", text: withoutMark(token.text) });
      return;
    case "br":
      nodes.push({ type: "br" });
      return;
    case "link":
      return addLinkToken(nodes, token, inLink);
    case "image":
      return addImage(nodes, token, inLink);
    case "math":
      nodes.push({ type: "math", tex: token.tex, display: token.display });
      return;
    case "checkbox":
      return; // The list item knows.
    default:
      return addText(nodes, token.raw);
  }
}

function inlineNodes(tokens: readonly AnyToken[], inLink: boolean): InlineNode[] {
  const nodes: InlineNode[] = [];
  for (const token of tokens) addInline(nodes, token, inLink);
  return nodes;
}

function inline(tokens: Tokens.Generic[] | undefined): InlineNode[] {
  return inlineNodes((tokens ?? []) as AnyToken[], false);
}

/** The language's name: the first word after the fence. */
export function codeLanguage(info: string | undefined): string {
  return /^[^\s{,:]*/.exec((info ?? "").trim())?.[0].slice(0, 40) ?? "";
}

/** Whether the fence that opens `raw` is closed in it. */
function fenceClosed(raw: string): boolean {
  const fence = /^ *(`{3,}|~{3,})/.exec(raw)?.[1];
  if (fence === undefined) return true;
  const last = raw.trimEnd().slice(raw.trimEnd().lastIndexOf("\n") + 1).trim();
  return raw.trimEnd().includes("\n") && last.startsWith(fence) && /^(?:`+|~+)$/.test(last);
}

function codeNode(token: Tokens.Code, growing: boolean): CodeNode {
  const open = growing && token.codeBlockStyle !== "indented" && !fenceClosed(token.raw);
  return { type: "code", lang: codeLanguage(token.lang), text: withoutMark(token.text), open };
}

function listItem(item: Tokens.ListItem, growing: boolean): ListItem {
  return {
    checked: item.task ? item.checked === true : null,
    children: blockNodes(item.tokens as AnyToken[], growing),
  };
}

function tableNode(token: Tokens.Table): TableNode {
  return {
    type: "table",
    align: [...token.align],
    header: token.header.map((cell) => inline(cell.tokens)),
    rows: token.rows.map((row) => row.map((cell) => inline(cell.tokens))),
  };
}

function blockNode(token: AnyToken, growing: boolean): BlockNode | undefined {
  switch (token.type) {
    case "paragraph":
      return { type: "paragraph", children: inline(token.tokens) };
    case "text":
      return { type: "tight", children: inline(token.tokens) };
    case "heading":
      return { type: "heading", depth: token.depth, children: inline(token.tokens) };
    case "code":
      return codeNode(token, growing);
    case "blockquote":
      return { type: "quote", children: blockNodes(token.tokens as AnyToken[], growing) };
    case "list":
      return {
        type: "list",
        ordered: token.ordered,
        start: token.start === "" ? 1 : token.start,
        items: token.items.map((item) => listItem(item, growing)),
      };
    case "table":
      return tableNode(token);
    case "hr":
      return { type: "rule" };
    case "math":
    case "mathBlock":
      return { type: "math", tex: token.tex, display: token.display };
    case "html":
      return { type: "html", text: withoutMark(token.raw).replace(/\n+$/, "") };
    case "plain":
      return { type: "plain", text: withoutMark(token.raw).replace(/\n+$/, "") };
    case "space":
    case "def":
    case "checkbox":
      return undefined;
    default:
      return { type: "plain", text: withoutMark(token.raw) };
  }
}

/** The nodes of block tokens; `growing` where more text may follow the last of them. */
export function blockNodes(tokens: readonly AnyToken[], growing: boolean): BlockNode[] {
  const nodes: BlockNode[] = [];
  for (const token of tokens) {
    const node = blockNode(token, growing);
    if (node) nodes.push(node);
  }
  return nodes;
}

/** The same for top-level tokens, of which one that is too long is plain text. */
export function topNodes(tokens: readonly AnyToken[], growing: boolean): BlockNode[] {
  const bounded = tokens.map((token): AnyToken => {
    const tooLong = token.raw.length > LONGEST_BLOCK && token.type !== "code";
    return tooLong ? { type: "plain", raw: token.raw, text: token.raw } : token;
  });
  return blockNodes(bounded, growing);
}

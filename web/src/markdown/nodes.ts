// The tree that the components draw: plain data, made by tree.ts from marked's
// tokens. No HTML is in it: every string is text to be shown as it is.

export type Align = "left" | "center" | "right" | null;

export interface TextNode {
  type: "text";
  text: string;
}

export interface SpanNode {
  type: "strong" | "em" | "del";
  children: InlineNode[];
}

export interface CodeSpanNode {
  type: "codespan";
  text: string;
}

export interface BreakNode {
  type: "br";
}

/** A formula that is still being written: a small mark stands in its place. */
export interface PendingNode {
  type: "pending";
}

/** `href` is one of http:, https: or mailto: (see links.ts). */
export interface LinkNode {
  type: "link";
  href: string;
  title: string;
  children: InlineNode[];
}

export interface MathNode {
  type: "math";
  tex: string;
  display: boolean;
}

export type InlineNode =
  | TextNode
  | SpanNode
  | CodeSpanNode
  | BreakNode
  | PendingNode
  | LinkNode
  | MathNode;

/** `tight` is a list item's text that is not a paragraph of its own. */
export interface ParagraphNode {
  type: "paragraph" | "tight";
  children: InlineNode[];
}

export interface HeadingNode {
  type: "heading";
  depth: number;
  children: InlineNode[];
}

/** `open`: more of this block may still come. */
export interface CodeNode {
  type: "code";
  lang: string;
  text: string;
  open: boolean;
}

export interface QuoteNode {
  type: "quote";
  children: BlockNode[];
}

/** `checked` is null where the item is not a task. */
export interface ListItem {
  checked: boolean | null;
  children: BlockNode[];
}

export interface ListNode {
  type: "list";
  ordered: boolean;
  start: number;
  items: ListItem[];
}

export interface TableNode {
  type: "table";
  align: Align[];
  header: InlineNode[][];
  rows: InlineNode[][][];
}

export interface RuleNode {
  type: "rule";
}

/** Raw HTML (`html`), or text that is too much to be read as Markdown (`plain`). */
export interface SourceNode {
  type: "html" | "plain";
  text: string;
}

export type BlockNode =
  | ParagraphNode
  | HeadingNode
  | CodeNode
  | QuoteNode
  | ListNode
  | TableNode
  | RuleNode
  | MathNode
  | SourceNode;

type Fields = Record<string, unknown>;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shareItems(old: readonly unknown[], next: unknown[]): unknown {
  let same = old.length === next.length;
  for (let i = 0; i < next.length; i++) {
    if (i < old.length) next[i] = share(old[i], next[i]);
    if (next[i] !== old[i]) same = false;
  }
  return same ? old : next;
}

function shareFields(old: Fields, next: Fields): unknown {
  const names = Object.keys(next);
  let same = names.length === Object.keys(old).length;
  for (const name of names) {
    next[name] = share(old[name], next[name]);
    if (next[name] !== old[name]) same = false;
  }
  return same ? old : next;
}

/**
 * `next`, with every part that equals the part of `old` at the same place
 * replaced by it, so that what did not change keeps its identity and its DOM is
 * left alone. Changes `next` in place; its parts must not be in use elsewhere.
 */
export function share<T>(old: unknown, next: T): T;
export function share(old: unknown, next: unknown): unknown {
  if (old === next) return old;
  if (Array.isArray(old) && Array.isArray(next)) return shareItems(old, next);
  if (isFields(old) && isFields(next)) return shareFields(old, next);
  return next;
}

// Markdown that grows: keeps the nodes of finished blocks and reads only the
// tail again. The components draw what `update` returns; equal parts of two
// results are the same objects.

import { beginsWith } from "./chunks";
import { holdBack } from "./hold";
import { lex, lexInParts } from "./lexer";
import type { AnyToken, Links } from "./lexer";
import { share } from "./nodes";
import type { BlockNode, CodeNode } from "./nodes";
import { PENDING, codeLanguage, topNodes } from "./tree";

/** A tail that grows longer than this, and is no fence, is shown as plain text until the text is complete. */
const TAIL_LIMIT = 200_000;
const WHOLE_LIMIT = 100_000;
/** An update that costs more milliseconds than this is followed by a pause. */
const COSTLY = 6;
/** How many times the cost of an update the pause after it lasts. */
const PAUSE = 4;

const FENCE = /^( {0,3})(`{3,}(?=[^`\n]*\n)|~{3,})([^\n]*)\n/;

function unixLines(text: string): string {
  return text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
}

function readTokens(source: string, links: Links = {}): AnyToken[] {
  return lex(source, links) ?? lexInParts(source);
}

/** The nodes of a complete text. */
export function parseMarkdown(text: string): BlockNode[] {
  return topNodes(readTokens(unixLines(text)), false);
}

/** Whether the line before the one at `at` is blank. */
function blankBefore(source: string, at: number): boolean {
  const line = source.lastIndexOf("\n", at - 2) + 1;
  return source.slice(line, at).trim() === "";
}

/**
 * How many of the top-level tokens of `source` no further text can change: all
 * before the last block, once its first line is complete, since an incomplete line
 * may turn out to belong to the block before. Where no blank line stands between
 * the two, what the last block is can hang on its second line (a table's), or on
 * the rest of a formula's last.
 */
function settledCount(tokens: readonly AnyToken[], source: string): number {
  let last = tokens.length - 1;
  while (tokens[last]?.type === "space") last--;
  if (last <= 0) return 0;
  let at = 0;
  for (const token of tokens.slice(0, last)) at += token.raw.length;
  const line = source.indexOf("\n", at);
  if (line < 0) return 0;
  if (blankBefore(source, at)) return last;
  // What begins with a tag is read otherwise after a paragraph than at the start of a text.
  if (source.slice(at, line).trimStart().startsWith("<")) return 0;
  const token = tokens[last];
  if (token?.type === "mathBlock" && at + token.raw.length >= source.length && !token.raw.endsWith("\n")) return 0;
  return source.indexOf("\n", line + 1) < 0 ? 0 : last;
}

function lengthOf(tokens: readonly AnyToken[]): number {
  let length = 0;
  for (const token of tokens) length += token.raw.length;
  return length;
}

/** A code fence at the start of the tail that is not closed yet. */
interface OpenFence {
  /** Where its code begins in the whole text. */
  from: number;
  /** Where the first line begins that was not yet seen complete. */
  line: number;
  indent: number;
  lang: string;
  closing: RegExp;
  partOfClosing: RegExp;
}

function openFence(tail: string, offset: number): OpenFence | undefined {
  const found = FENCE.exec(tail);
  if (!found) return undefined;
  const [whole, indent = "", mark = "", info = ""] = found;
  const sign = mark.charAt(0);
  return {
    from: offset + whole.length,
    line: offset + whole.length,
    indent: indent.length,
    lang: codeLanguage(info),
    closing: new RegExp(`^ {0,3}${sign}{${mark.length},} *$`),
    partOfClosing: new RegExp(`^ {0,3}${sign}+ *$`),
  };
}

/** The code of an open fence so far, less a last line that may be its end. */
function openCode(source: string, fence: OpenFence): CodeNode {
  const hidden = fence.partOfClosing.test(source.slice(fence.line));
  let text = source.slice(fence.from, hidden ? fence.line : source.length);
  if (text.endsWith("\n")) text = text.slice(0, -1);
  if (fence.indent > 0) text = text.replace(new RegExp(`^ {1,${fence.indent}}`, "gm"), "");
  return { type: "code", lang: fence.lang, text, open: true };
}

/** One answer as it grows. A text that does not begin with the one before starts it anew. */
export class MarkdownStream {
  private source = "";
  private streaming = false;
  private nodes: BlockNode[] = [];
  private settled: BlockNode[] = [];
  private offset = 0;
  private links: Links = {};
  private fence: OpenFence | undefined;
  private quietUntil = 0;
  private late = false;

  /** `wholeLimit`: up to which length a complete text is read once more as a whole. */
  constructor(
    private readonly clock: () => number = () => performance.now(),
    private readonly wholeLimit = WHOLE_LIMIT,
  ) {}

  /** The nodes of `text`, of which more is to come while `streaming`. */
  update(text: string, streaming: boolean): readonly BlockNode[] {
    const source = unixLines(text);
    if (!beginsWith(source, this.source)) this.reset();
    if (source === this.source && streaming === this.streaming && !this.late) return this.nodes;
    const start = this.clock();
    this.late = streaming && start < this.quietUntil;
    if (this.late) return this.nodes;
    this.source = source;
    this.streaming = streaming;
    if (streaming) this.showGrown();
    else this.nodes = share(this.nodes, this.complete());
    const end = this.clock();
    this.quietUntil = end - start > COSTLY ? end + PAUSE * (end - start) : 0;
    return this.nodes;
  }

  /** Milliseconds until a text that `update` put off should be given to it again, or null. */
  get retryIn(): number | null {
    return this.late ? Math.max(1, Math.ceil(this.quietUntil - this.clock())) : null;
  }

  private reset(): void {
    this.source = "";
    this.settled = [];
    this.offset = 0;
    this.links = {};
    this.fence = undefined;
  }

  private showGrown(): void {
    this.nodes = share(this.nodes, this.grown());
    this.settled = this.nodes.slice(0, this.settled.length);
  }

  /** Reads the complete text: as a whole where that is cheap or a reference may be defined late. */
  private complete(): BlockNode[] {
    const asWhole = this.source.length <= this.wholeLimit || this.source.includes("]:");
    if (asWhole) return topNodes(readTokens(this.source), false);
    return [...this.settled, ...topNodes(readTokens(this.source.slice(this.offset), this.links), false)];
  }

  /** Reads the tail, and moves what is finished of it to `settled`. */
  private grown(): BlockNode[] {
    for (;;) {
      this.fence ??= openFence(this.source.slice(this.offset), this.offset);
      if (!this.fence) {
        const tail = this.tail();
        return [...this.settled, ...tail];
      }
      const end = this.fenceEnd(this.fence);
      if (end < 0) return [...this.settled, openCode(this.source, this.fence)];
      this.settle(readTokens(this.source.slice(this.offset, end)));
      this.offset = end + 1;
      this.fence = undefined;
    }
  }

  /** Where the line that closes the fence ends, or -1. */
  private fenceEnd(fence: OpenFence): number {
    for (let end = this.source.indexOf("\n", fence.line); end >= 0; end = this.source.indexOf("\n", fence.line)) {
      if (fence.closing.test(this.source.slice(fence.line, end))) return end;
      fence.line = end + 1;
    }
    return -1;
  }

  private tail(): BlockNode[] {
    const source = this.source.slice(this.offset);
    if (source.length > TAIL_LIMIT) return [{ type: "plain", text: source }];
    const held = holdBack(source);
    const shown = held.pending ? held.text + PENDING : held.text;
    const tokens = lex(shown, this.links);
    if (!tokens) return topNodes(lexInParts(shown), true);
    if (lengthOf(tokens) !== shown.length) return topNodes(tokens, true);
    const count = settledCount(tokens, held.text);
    this.settle(tokens.slice(0, count));
    return topNodes(tokens.slice(count), true);
  }

  private settle(tokens: readonly AnyToken[]): void {
    for (const token of tokens) {
      if (token.type === "def") this.links[token.tag] ??= { href: token.href, title: token.title };
    }
    this.offset += lengthOf(tokens);
    this.settled = [...this.settled, ...topNodes(tokens, false)];
  }
}

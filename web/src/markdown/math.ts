// Where formulas are in Markdown: `$…$`, `$$…$$`, `\(…\)`, `\[…\]` and a bare
// `\boxed{…}`, as scanners over text and as extensions of marked. It does not
// typeset them (typeset.ts) and does not judge half-written ones (hold.ts).

import type { TokenizerExtension, Tokens } from "marked";

/** A formula's longest source, its delimiters left out. */
export const MATH_LIMIT = 20_000;
/** The longest source of a formula with blank lines in it. */
export const BLANK_LIMIT = 2_000;

/** A formula found in a text: it ends before `end`. */
export interface MathSpan {
  end: number;
  tex: string;
  display: boolean;
}

const BACKSLASH = 92;
const DOLLAR = 36;
const BACKTICK = 96;
const OPEN_BRACE = 123;
const CLOSE_BRACE = 125;

export const BOXED = "\\boxed{";

const BLOCK_OPEN = / {0,3}(\$\$|\\\[)/y;
const LINE_END = /[ \t]*(?=\n|$)/y;
const BLANK_LINE = /\n[ \t]*\n/;
const OTHER_BLOCK = /\n {0,3}(?:#{1,6}[ \t]|`{3}|~{3})/;
const MARK = /[\\$`]/g;
const TEXT_END = /[$\\<!\[`*~_]/;
/** A line that opens a block formula, or one that ends a paragraph. */
const BLOCK_START = /\n(?= {0,3}(?:\$\$|\\\[)|[ \t]*(?:\n|#{1,6}\s|>|`{3}|~{3}|=+\s|-+\s|[*+]\s))/g;
/** After so many marks that open nothing, the rest of a paragraph is not masked. */
const MOST_MISSES = 500;

function isSpace(code: number): boolean {
  return code === 32 || code === 10 || code === 9;
}

function isDigit(code: number): boolean {
  return code >= 48 && code <= 57;
}

/** Where `close` (`$$`, `\)` or `\]`) stands first at or after `from`, or -1. TeX's `\\` hides no `\)`. */
export function closeOf(src: string, from: number, close: string): number {
  if (!src.includes(close, from)) return -1;
  const limit = Math.min(src.length, from + MATH_LIMIT);
  for (let i = from; i < limit; i++) {
    const code = src.charCodeAt(i);
    if (code === BACKSLASH) {
      if (src.startsWith(close, i)) return i;
      i++;
    } else if (code === DOLLAR && close === "$$" && src.charCodeAt(i + 1) === DOLLAR) {
      return i;
    }
  }
  return -1;
}

/** Where the brace that opens before `from` is closed, or -1. */
function braceEnd(src: string, from: number): number {
  const limit = Math.min(src.length, from + MATH_LIMIT);
  let depth = 1;
  for (let i = from; i < limit; i++) {
    const code = src.charCodeAt(i);
    if (code === BACKSLASH) i++;
    else if (code === OPEN_BRACE) depth++;
    else if (code === CLOSE_BRACE && --depth === 0) return i;
  }
  return -1;
}

function delimited(src: string, at: number, close: string, display: boolean): MathSpan | undefined {
  const end = closeOf(src, at + 2, close);
  if (end < 0) return undefined;
  const tex = src.slice(at + 2, end).trim();
  return tex === "" ? undefined : { end: end + 2, tex, display };
}

function boxed(src: string, at: number): MathSpan | undefined {
  const end = braceEnd(src, at + BOXED.length);
  return end < 0 ? undefined : { end: end + 1, tex: src.slice(at, end + 1), display: false };
}

/** The first `$` after the one at `at` that no backslash escapes, or -1; -1 too where a code span begins before it. */
export function nextDollar(src: string, at: number): number {
  const limit = Math.min(src.length, at + MATH_LIMIT);
  for (let i = at + 1; i < limit; i++) {
    const code = src.charCodeAt(i);
    if (code === BACKSLASH) i++;
    else if (code === BACKTICK) return -1;
    else if (code === DOLLAR) return i;
  }
  return -1;
}

/** Whether a `$` at `at` may open a formula by what follows it. */
export function dollarOpens(src: string, at: number): boolean {
  const next = src.charCodeAt(at + 1);
  return !Number.isNaN(next) && next !== DOLLAR && !isSpace(next);
}

/** Pandoc's rule: no space after the first `$` nor before the second, and no digit after that. */
function dollars(src: string, at: number): MathSpan | undefined {
  if (!dollarOpens(src, at)) return undefined;
  const close = nextDollar(src, at);
  if (close < 0 || isSpace(src.charCodeAt(close - 1)) || isDigit(src.charCodeAt(close + 1))) return undefined;
  return { end: close + 1, tex: src.slice(at + 1, close), display: false };
}

/** The formula that begins at `at` in the text of one paragraph, if one does. */
export function inlineMathAt(src: string, at: number): MathSpan | undefined {
  const next = src.charCodeAt(at + 1);
  if (src.charCodeAt(at) === DOLLAR) {
    return next === DOLLAR ? delimited(src, at, "$$", true) : dollars(src, at);
  }
  if (src.charCodeAt(at) !== BACKSLASH) return undefined;
  if (next === 40) return delimited(src, at, "\\)", false);
  if (next === 91) return delimited(src, at, "\\]", true);
  return src.startsWith(BOXED, at) ? boxed(src, at) : undefined;
}

/**
 * Whether a block formula may hold this text: no fence and no heading, and blank
 * lines only in a short one whose delimiters stand alone.
 */
export function mayBeBlockMath(content: string): boolean {
  if (OTHER_BLOCK.test(content)) return false;
  return !BLANK_LINE.test(content) || (content.length <= BLANK_LIMIT && /^[ \t]*\n/.test(content));
}

/** The block formula that begins with the line at `at`, if one does; nothing else may stand on its lines. */
export function blockMathAt(src: string, at: number): MathSpan | undefined {
  BLOCK_OPEN.lastIndex = at;
  const open = BLOCK_OPEN.exec(src);
  if (!open) return undefined;
  const from = BLOCK_OPEN.lastIndex;
  const end = closeOf(src, from, open[1] === "$$" ? "$$" : "\\]");
  if (end < 0) return undefined;
  const content = src.slice(from, end);
  if (content.trim() === "" || !mayBeBlockMath(content)) return undefined;
  LINE_END.lastIndex = end + 2;
  if (!LINE_END.test(src)) return undefined;
  return { end: LINE_END.lastIndex, tex: content.trim(), display: true };
}

/** Where the code span that begins at `at` ends, or -1 where its backticks are never closed. */
export function codeSpanEnd(src: string, at: number): number {
  let size = 1;
  while (src.charCodeAt(at + size) === BACKTICK) size++;
  for (let i = src.indexOf("`", at + size); i >= 0; ) {
    let run = 1;
    while (src.charCodeAt(i + run) === BACKTICK) run++;
    if (run === size) return i + run;
    i = src.indexOf("`", i + run);
  }
  return -1;
}

/** The next `\`, `$` or backtick at or after `from`, or -1. */
export function nextMark(src: string, from: number): number {
  MARK.lastIndex = from;
  return MARK.exec(src)?.index ?? -1;
}

/** How far to go on past a mark at `at` that begins neither a formula nor a code span. */
export function markLength(src: string, at: number): number {
  const code = src.charCodeAt(at);
  if (code === BACKSLASH) return 2;
  const next = src.charCodeAt(at + 1);
  if (code === DOLLAR) return next === DOLLAR ? 2 : 1;
  let size = 1;
  while (src.charCodeAt(at + size) === BACKTICK) size++;
  return size;
}

/** `masked` (as long as `src`) with every formula of `src` covered, so that no `*` or `_` in one is emphasis. */
export function maskMath(src: string, masked: string): string {
  if (!src.includes("$") && !src.includes("\\")) return masked;
  let result = "";
  let last = 0;
  let misses = 0;
  for (let i = nextMark(src, 0); i >= 0 && misses < MOST_MISSES; ) {
    const code = src.charCodeAt(i) === BACKTICK ? codeSpanEnd(src, i) : -1;
    const math = code < 0 ? inlineMathAt(src, i) : undefined;
    if (math) {
      result += masked.slice(last, i) + "[" + "a".repeat(math.end - i - 2) + "]";
      last = math.end;
    }
    if (!math && code < 0) misses++;
    i = nextMark(src, math?.end ?? (code < 0 ? i + markLength(src, i) : code));
  }
  return result + masked.slice(last);
}

/** A formula as marked's token. */
export type MathToken = {
  type: "math" | "mathBlock";
  raw: string;
  tex: string;
  display: boolean;
};

function token(type: MathToken["type"], src: string, span: MathSpan): MathToken {
  return { type, raw: src.slice(0, span.end), tex: span.tex, display: span.display };
}

function inlineToken(src: string): MathToken | Tokens.Text | undefined {
  const span = inlineMathAt(src, 0);
  if (span) return token("math", src, span);
  // Neither dollar of an unclosed `$$` opens a formula of its own.
  if (src.startsWith("$$")) return { type: "text", raw: "$$", text: "$$" };
  return undefined;
}

/** Only `$` needs a stop of its own: marked's text ends at each of the other marks. */
function inlineStart(src: string): number | undefined {
  const at = src.search(TEXT_END);
  return at >= 0 && src.charCodeAt(at) === DOLLAR ? at : undefined;
}

function blockToken(src: string): MathToken | undefined {
  const span = blockMathAt(src, 0);
  return span && token("mathBlock", src, span);
}

/** Where a block formula cuts the paragraph that `src` begins with, if one does before `limit`. */
function cutAt(src: string, limit: number): number | undefined {
  if (!src.includes("$$") && !src.includes("\\[")) return undefined;
  BLOCK_START.lastIndex = 0;
  for (let found = BLOCK_START.exec(src); found && found.index < limit; found = BLOCK_START.exec(src)) {
    const line = found.index + 1;
    if (blockMathAt(src, line)) return line;
    BLOCK_OPEN.lastIndex = line;
    if (!BLOCK_OPEN.test(src)) return undefined;
  }
  return undefined;
}

/** marked asks with the text less its first character. */
function blockStart(src: string): number | undefined {
  return cutAt(src, src.length);
}

/** `src` up to the block formula that cuts its first `length` characters, or undefined if none does. */
export function cutByBlockMath(src: string, length: number): string | undefined {
  const cut = cutAt(src, length);
  return cut === undefined ? undefined : src.slice(0, cut);
}

export const mathExtensions: TokenizerExtension[] = [
  { name: "mathBlock", level: "block", start: blockStart, tokenizer: blockToken },
  { name: "math", level: "inline", start: inlineStart, tokenizer: inlineToken },
];

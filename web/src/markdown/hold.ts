// Which part of a text that is still being written may be shown: a formula that
// is opened and not yet closed is held back, and so is a last line that is so far
// only a block's marker. It reads no Markdown beyond what that takes.

import {
  BOXED,
  MATH_LIMIT,
  blockMathAt,
  closeOf,
  codeSpanEnd,
  dollarOpens,
  inlineMathAt,
  markLength,
  mayBeBlockMath,
  nextDollar,
  nextMark,
} from "./math";

/** The text to show, and whether a formula was held back after it. */
export interface Held {
  text: string;
  pending: boolean;
}

/** No more than this is held back behind a single `$`. */
const DOLLAR_LIMIT = 1_000;

const CONTAINERS = /(?:[ \t>]|[-*+](?=[ \t])|\d{1,9}[.)](?=[ \t]))*/y;
const FENCE = /^(`{3,}(?=[^`]*$)|~{3,})/;
const FENCE_END = /^[\s>]*(`{3,}|~{3,})[ \t]*$/;
const PART_OF_FENCE_END = /^[\s>]*(?:`+|~+)[ \t]*$/;
const RUN_START = /^[ \t]*(?:[-*+][ \t]|\d{1,9}[.)][ \t]|#{1,6}[ \t]|>|\|)/;
const MARKER_ONLY = /^[ \t>]*(?:-+|=+|[*+]|#{1,6}|\d{1,9}[.)]?|`{1,2}|~{1,2})[ \t]*$/;
const CURRENCY = /^\d[\d,.]*(?:[ \t]+(?:[A-Za-z]{2,}|[AaI][ \t])|[;:?)\]"']|[,.][ \t])/;

interface Fence {
  mark: string;
  size: number;
}

function opensFence(body: string): Fence | undefined {
  const mark = FENCE.exec(body)?.[1];
  return mark === undefined ? undefined : { mark: mark.charAt(0), size: mark.length };
}

function closesFence(line: string, fence: Fence): boolean {
  const mark = FENCE_END.exec(line)?.[1];
  return mark !== undefined && mark.startsWith(fence.mark) && mark.length >= fence.size;
}

/** Whether `count` plain words follow each other in `content`: then it is prose, not a formula. */
function isProse(content: string, count: number): boolean {
  const words = content.replace(/\\[A-Za-z]+(?:\{[^{}]*\}?)?/g, "\\");
  return new RegExp(`(?:^|\\s)(?:[A-Za-z']{2,}[,;:.]?\\s+){${count}}`).test(words);
}

/** Whether the `$` at `at` may yet be closed as a formula. */
function dollarMayClose(run: string, at: number): boolean {
  if (!dollarOpens(run, at)) return false;
  const content = run.slice(at + 1);
  if (content.length > DOLLAR_LIMIT || content.includes("`") || nextDollar(run, at) >= 0) return false;
  return !CURRENCY.test(content) && !isProse(content, 3);
}

/** Whether a formula opens at the backslash or `$$` at `at`, and may yet be closed. */
function longMayClose(run: string, at: number): boolean {
  const rest = run.slice(at);
  const opens = /^(?:\\[([]|\$\$)/.test(rest) || rest.startsWith(BOXED) || BOXED.startsWith(rest);
  return opens && rest.length < MATH_LIMIT && !isProse(rest.slice(2), 6);
}

/** A number's closing `$` at the very end may be the next price's: `$5/$` before `6`. */
function isPriceSoFar(run: string, at: number, end: number): boolean {
  return end === run.length && /^\$\d[^$]*\$$/.test(run.slice(at));
}

/** Where a formula opens in `run`, the text of one paragraph so far, and is not closed, or -1. */
function openFormula(run: string): number {
  for (let i = nextMark(run, 0); i >= 0; ) {
    const mark = run.charAt(i);
    let end = i + markLength(run, i);
    if (mark === "`") {
      end = codeSpanEnd(run, i);
      if (end < 0) return -1;
    } else {
      if (i + 1 === run.length) return i;
      const math = inlineMathAt(run, i);
      if (math && mark === "$" && isPriceSoFar(run, i, math.end)) return i;
      if (math) end = math.end;
      else if (mark === "$" && run.charAt(i + 1) !== "$" ? dollarMayClose(run, i) : longMayClose(run, i)) return i;
    }
    i = nextMark(run, end);
  }
  return -1;
}

interface LastRun {
  /** Where the last paragraph begins. */
  start: number;
  /** Where a block formula opens that is not closed, or -1. */
  open: number;
  /** Where the last line begins. */
  line: number;
  /** Whether the last line is code, or opens a fence. */
  fenced: boolean;
  /** Whether the last line opens a fence and is not complete. */
  opening: boolean;
}

interface BlockMath {
  /** Where the source goes on after the formula, or -1 where it is not closed. */
  after: number;
  /** Whether it is open, and may yet be closed. */
  open: boolean;
}

const NO_BLOCK: BlockMath = { after: -1, open: false };

/** The block formula that opens at `body` in the line at `line`. */
function blockMath(source: string, line: number, body: number): BlockMath {
  const close = closeOf(source, body + 2, source.startsWith("$$", body) ? "$$" : "\\]");
  const content = source.slice(body + 2, close < 0 ? source.length : close);
  if (content.length >= MATH_LIMIT || !mayBeBlockMath(content)) return NO_BLOCK;
  if (close < 0) return { after: -1, open: true };
  const several = content.trim() !== "" && content.includes("\n");
  return several || blockMathAt(source, line) ? { after: close + 2, open: false } : NO_BLOCK;
}

function opensBlockMath(source: string, at: number): boolean {
  return source.startsWith("$$", at) || source.startsWith("\\[", at);
}

/** Goes through the lines to the last paragraph, past fences and block formulas. */
function lastRun(source: string): LastRun {
  let fence: Fence | undefined;
  let start = 0;
  let line = 0;
  let end = 0;
  for (let at = 0; at <= source.length; at = end + 1) {
    line = at;
    end = source.indexOf("\n", at);
    const complete = end >= 0;
    if (!complete) end = source.length;
    const text = source.slice(at, end);
    if (fence) {
      if (closesFence(text, fence)) fence = undefined;
      start = end + 1;
      continue;
    }
    if (text.trim() === "") {
      if (complete) start = end + 1;
      continue;
    }
    CONTAINERS.lastIndex = at;
    const body = at + (CONTAINERS.exec(source)?.[0].length ?? 0);
    fence = opensFence(source.slice(body, end));
    if (fence || RUN_START.test(text)) start = at;
    if (fence && !complete) return { start, open: -1, line, fenced: true, opening: true };
    if (!opensBlockMath(source, body)) continue;
    const math = blockMath(source, at, body);
    if (math.open) return { start, open: body, line, fenced: false, opening: false };
    if (math.after < 0) continue;
    start = math.after;
    end = source.indexOf("\n", start);
    if (end < 0) end = source.length;
  }
  return { start: Math.min(start, source.length), open: -1, line, fenced: fence !== undefined, opening: false };
}

/** The part of `source`, which more text will follow, that is shown now. */
export function holdBack(source: string): Held {
  const run = lastRun(source);
  if (run.open >= 0) return { text: source.slice(0, run.open), pending: true };
  const lastLine = source.slice(run.line);
  if (run.fenced) {
    const hidden = run.opening || PART_OF_FENCE_END.test(lastLine);
    const text = hidden ? source.slice(0, run.line) : source;
    return { text, pending: false };
  }
  if (MARKER_ONLY.test(lastLine)) return { text: source.slice(0, run.line), pending: false };
  const open = openFormula(source.slice(run.start));
  if (open < 0) return { text: source, pending: false };
  return { text: source.slice(0, run.start + open), pending: true };
}

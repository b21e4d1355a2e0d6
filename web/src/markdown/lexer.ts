// marked's lexer with bounds: how deep blocks and spans may nest and how much
// work one text may cost. It finds tokens only; marked's HTML is never made.

import { Hooks, Lexer, Marked, Tokenizer } from "marked";
import type { Links, MarkedOptions, MarkedToken, Token, TokenizerExtension, Tokens, TokensList } from "marked";
import { cutByBlockMath, maskMath, mathExtensions } from "./math";
import type { MathToken } from "./math";

/** Deeper blocks, and deeper spans in one paragraph, are shown as they were written. */
export const MAX_DEPTH = 24;
/** A longer paragraph is not searched for spans. */
const SPAN_LIMIT = 100_000;
/** Characters that one paragraph's search for spans may look at. */
const SPAN_BUDGET = 10_000_000;
/** Characters that the search of one text for blocks may look at. */
const BLOCK_BUDGET = 20_000_000;

/** Text that is not read as Markdown. */
export type PlainToken = {
  type: "plain";
  raw: string;
  text: string;
};

export type AnyToken = MarkedToken | MathToken | PlainToken;

/** Link reference definitions by their label. */
export type { Links };

class TooMuchWork extends Error {}

/** Where marked's own searches for blocks need help. */
class PatchedTokenizer extends Tokenizer {
  /** marked fails on some quotations that hold a list and go on without `>`: then their lines are text. */
  override blockquote(src: string): Tokens.Blockquote | undefined {
    const { state } = this.lexer;
    const top = state.top;
    try {
      return super.blockquote(src);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      state.top = top;
      return undefined;
    }
  }

  /** marked cuts a paragraph before a block formula, but not a heading that is underlined. */
  override lheading(src: string): Tokens.Heading | undefined {
    const heading = super.lheading(src);
    const cut = heading && cutByBlockMath(src, heading.raw.length);
    return cut === undefined ? heading : super.lheading(cut);
  }
}

class BoundedLexer extends Lexer {
  private blockDepth = 0;
  private blockWork = 0;
  private spanDepth = 0;
  private spanWork = 0;
  private run = "";

  constructor(
    options: MarkedOptions,
    private readonly budget: number,
  ) {
    super({ ...options, tokenizer: new PatchedTokenizer() });
    const hooks = new Hooks();
    // Hides formulas from marked's search for emphasis.
    hooks.emStrongMask = (masked) => maskMath(this.run, masked);
    this.options.hooks = hooks;
  }

  override blockTokens(src: string, tokens?: Token[], lastParagraphClipped?: boolean): Token[];
  override blockTokens(src: string, tokens?: TokensList, lastParagraphClipped?: boolean): TokensList;
  override blockTokens(src: string, tokens: Token[] = [], lastParagraphClipped = false): Token[] {
    this.blockWork += src.length;
    if (this.blockWork > this.budget) throw new TooMuchWork();
    if (this.blockDepth >= MAX_DEPTH) {
      this.state.top = true;
      tokens.push({ type: "plain", raw: src, text: src });
      return tokens;
    }
    this.blockDepth++;
    try {
      return super.blockTokens(src, tokens, lastParagraphClipped);
    } finally {
      this.blockDepth--;
    }
  }

  override inlineTokens(src: string, tokens: Token[] = []): Token[] {
    if (this.spanDepth === 0) this.spanWork = 0;
    if (this.spanDepth >= MAX_DEPTH || src.length > SPAN_LIMIT) {
      tokens.push({ type: "text", raw: src, text: src, escaped: false });
      return tokens;
    }
    const outer = this.run;
    this.run = src;
    this.spanDepth++;
    try {
      return super.inlineTokens(src, tokens);
    } finally {
      this.spanDepth--;
      this.run = outer;
    }
  }

  /** Counts a look at `length` characters; false when the paragraph has had its share. */
  maySpend(length: number): boolean {
    this.spanWork += length;
    return this.spanWork <= SPAN_BUDGET;
  }
}

/** Called at each token's start before every other search: takes the rest as text when the budget is spent. */
const budgetExtension: TokenizerExtension = {
  name: "budget",
  level: "inline",
  tokenizer(src): Tokens.Text | undefined {
    if (!(this.lexer instanceof BoundedLexer) || this.lexer.maySpend(src.length)) return undefined;
    return { type: "text", raw: src, text: src };
  },
};

// marked asks the extension that was registered last first.
const options = new Marked({ gfm: true, extensions: [...mathExtensions, budgetExtension] }).defaults;

function lexBounded(source: string, links: Links, budget: number): AnyToken[] | undefined {
  try {
    const lexer = new BoundedLexer(options, budget);
    Object.assign(lexer.tokens.links, links);
    return lexer.lex(source) as AnyToken[];
  } catch {
    // Too much work, a stack overflow or marked's guard against endless loops.
    return undefined;
  }
}

/**
 * The top-level tokens of `source`, whose lines end in `\n` alone, or undefined
 * where it is too hard to read.
 */
export function lex(source: string, links: Links = {}): AnyToken[] | undefined {
  return lexBounded(source, links, BLOCK_BUDGET);
}

/** `source` cut after its blank lines, but not within fences. */
function paragraphs(source: string): string[] {
  const parts: string[] = [];
  let part = "";
  let fenced = false;
  for (const line of source.split("\n")) {
    if (/^ {0,3}(?:`{3}|~{3})/.test(line)) fenced = !fenced;
    part += line + "\n";
    if (!fenced && line.trim() === "") {
      parts.push(part);
      part = "";
    }
  }
  return part === "" ? parts : [...parts, part];
}

/** The tokens of a text that `lex` gave up on: each part that is still too hard is plain text. */
export function lexInParts(source: string): AnyToken[] {
  const tokens: AnyToken[] = [];
  let left = BLOCK_BUDGET;
  for (const part of paragraphs(source)) {
    const budget = Math.min(left, 100 * part.length);
    left -= budget;
    const found = lexBounded(part, {}, budget) ?? [{ type: "plain" as const, raw: part, text: part }];
    for (const token of found) tokens.push(token);
  }
  return tokens;
}

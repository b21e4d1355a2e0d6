// Cuts long preformatted text that grows at its end into pieces, so that each
// update touches one small text node and the browser lays out one small box.

/** `lines`: the piece is whole lines, and may be a box of its own. */
export interface Chunk {
  text: string;
  lines: boolean;
}

const SIZE = 8_000;
const LONGEST = 2 * SIZE;

/** As `startsWith`, which compares long texts far slower. */
export function beginsWith(text: string, start: string): boolean {
  return text.slice(0, start.length) === start;
}

/** Where a piece that begins at `from` ends, or -1 where it may still grow. */
function chunkEnd(text: string, from: number): number {
  if (text.length - from <= SIZE) return -1;
  const newline = text.indexOf("\n", from + SIZE);
  if (newline >= 0 && newline < from + LONGEST) return newline + 1;
  return text.length - from > LONGEST ? from + LONGEST : -1;
}

/** The pieces of one text as it grows: finished ones stay the same objects. */
export class GrowingChunks {
  private text = "";
  private done: Chunk[] = [];
  private offset = 0;
  private atLineStart = true;

  split(text: string): readonly Chunk[] {
    if (!beginsWith(text, this.text)) this.reset();
    this.text = text;
    for (let end = chunkEnd(text, this.offset); end >= 0; end = chunkEnd(text, this.offset)) {
      this.finish(text.slice(this.offset, end));
      this.offset = end;
    }
    return [...this.done, { text: text.slice(this.offset), lines: this.atLineStart }];
  }

  private finish(text: string): void {
    const whole = text.endsWith("\n");
    this.done.push({ text, lines: this.atLineStart && whole });
    this.atLineStart = whole;
  }

  private reset(): void {
    this.done = [];
    this.offset = 0;
    this.atLineStart = true;
  }
}

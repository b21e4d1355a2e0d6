// Writes a copy of a GGUF file with another chat template: the same weights, so that a small model without thinking of its
// own answers behind a template that opens a thinking block. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
import { readFileSync, writeFileSync } from "node:fs";

const KEY = "tokenizer.chat_template";
const ALIGNMENT = 32;
const STRING = 8;
const ARRAY = 9;
/** Bytes of each fixed-size value type, by its number in the format. */
const SIZES = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };

class Cursor {
  at = 24;
  constructor(bytes) {
    this.bytes = bytes;
  }
  u32() {
    this.at += 4;
    return this.bytes.readUInt32LE(this.at - 4);
  }
  u64() {
    this.at += 8;
    return Number(this.bytes.readBigUInt64LE(this.at - 8));
  }
  string() {
    const length = this.u64();
    this.at += length;
    return this.bytes.toString("utf8", this.at - length, this.at);
  }
  skip(type) {
    if (type === STRING) this.string();
    else if (type === ARRAY) {
      const [of, count] = [this.u32(), this.u64()];
      if (of in SIZES) this.at += SIZES[of] * count;
      else for (let index = 0; index < count; index++) this.skip(of);
    } else this.at += SIZES[type];
  }
}

function padded(length) {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

export function withTemplate(source, target, template) {
  const bytes = readFileSync(source);
  const tensors = Number(bytes.readBigUInt64LE(8));
  const cursor = new Cursor(bytes);
  let value;
  for (let left = Number(bytes.readBigUInt64LE(16)); left > 0; left--) {
    const [key, type, start] = [cursor.string(), cursor.u32(), cursor.at];
    cursor.skip(type);
    if (key === KEY) value = { start, end: cursor.at };
  }
  if (!value) throw new Error(`${source} has no chat template`);
  for (let left = tensors; left > 0; left--) {
    cursor.string();
    const dimensions = cursor.u32();
    cursor.at += 8 * dimensions + 4 + 8;
  }
  const text = Buffer.from(template);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const header = Buffer.concat([bytes.subarray(0, value.start), length, text, bytes.subarray(value.end, cursor.at)]);
  const padding = Buffer.alloc(padded(header.length) - header.length);
  writeFileSync(target, Buffer.concat([header, padding, bytes.subarray(padded(cursor.at))]));
}

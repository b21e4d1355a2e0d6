// Text that is attached to a message: files and long pastes. Only text goes to the model, so only text is taken.
import { bytes } from "./format";
import type { Attachment } from "./types";

/** One file; beyond this no small model's context would hold it. */
export const FILE_BYTES_MAX = 1024 * 1024;
/** All files of one message. */
export const FILES_BYTES_MAX = 3 * 1024 * 1024;
/** A paste of more characters than this becomes an attachment. */
export const PASTE_CHARS_MAX = 4000;

/** Reads a file as UTF-8 text, or says in words why not. */
export async function readText(file: File): Promise<Attachment> {
  if (file.size > FILE_BYTES_MAX) throw new Error(`${file.name} is ${bytes(file.size)}; a file can have ${bytes(FILE_BYTES_MAX)}`);
  const data = new Uint8Array(await file.arrayBuffer());
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(data);
  } catch {
    throw new Error(`${file.name} is not a text file (UTF-8)`);
  }
  if (text.includes("\0")) throw new Error(`${file.name} is not a text file`);
  if (text.trim() === "") throw new Error(`${file.name} is empty`);
  return { name: file.name, text };
}

export function totalBytes(attachments: Attachment[]): number {
  return attachments.reduce((sum, { text }) => sum + new Blob([text]).size, 0);
}

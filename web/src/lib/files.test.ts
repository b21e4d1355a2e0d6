import { expect, test } from "vitest";
import { FILE_BYTES_MAX, readText, totalBytes } from "./files";

const file = (content: BlobPart, name = "a.txt") => new File([content], name);

test("text is taken as it is, also beyond ASCII", async () => {
  expect(await readText(file("héllo 👋\n"))).toEqual({ name: "a.txt", text: "héllo 👋\n" });
  expect(totalBytes([{ name: "a", text: "é" }, { name: "b", text: "ab" }])).toBe(4);
});

test("what is no text, empty or too large is refused by name", async () => {
  await expect(readText(file(new Uint8Array([0xff, 0xfe, 0x00]), "x.bin"))).rejects.toThrow("x.bin is not a text file");
  await expect(readText(file("a\0b", "nul"))).rejects.toThrow("nul is not a text file");
  await expect(readText(file(" \n", "blank"))).rejects.toThrow("blank is empty");
  await expect(readText(file("a".repeat(FILE_BYTES_MAX + 1), "big"))).rejects.toThrow("big is 1 MB");
});

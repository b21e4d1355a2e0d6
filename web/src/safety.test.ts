// The page never makes markup of text: no source of it uses what could.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const DANGEROUS = /\{@html|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|setAttribute\("style"|\sstyle="/;

test("no source makes markup of text or writes inline styles", () => {
  const root = import.meta.dirname;
  const sources = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((name) => /\.(svelte|ts)$/.test(name) && !name.endsWith(".test.ts"));
  expect(sources.length).toBeGreaterThan(20);
  const found = sources.filter((name) => DANGEROUS.test(code(readFileSync(join(root, name), "utf8"))));
  expect(found).toEqual([]);
});

/** Without comments, which may speak of such things. */
function code(source: string): string {
  return source.replaceAll(/<!--[^]*?-->|\/\*[^]*?\*\//g, "").replaceAll(/^\s*\/\/.*$/gm, "");
}

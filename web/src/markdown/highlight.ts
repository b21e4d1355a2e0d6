// Highlights code when the browser is idle, one block after the other; loads the
// grammars with the first. It does not draw (hast.ts).

import type { HastNode } from "./hast";

/** Longer code is never highlighted. */
export const HIGHLIGHT_LIMIT = 50_000;
/** Names of plain text: no grammar is loaded for them. */
const PLAIN = new Set(["", "text", "txt", "plain", "plaintext", "output", "console-output", "none"]);

type Grammars = typeof import("./grammars");

let grammars: Promise<Grammars> | undefined;
let queue: Promise<void> = Promise.resolve();

function loadGrammars(): Promise<Grammars> {
  grammars ??= import("./grammars").catch((error: unknown) => {
    grammars = undefined;
    throw error;
  });
  return grammars;
}

function idle(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof requestIdleCallback === "function") requestIdleCallback(() => resolve(), { timeout: 500 });
    else setTimeout(resolve, 20);
  });
}

/** Whether code of this language and length is to be highlighted. */
export function mayHighlight(language: string, code: string): boolean {
  return code.length <= HIGHLIGHT_LIMIT && !PLAIN.has(language.toLowerCase());
}

/** Calls `done` with the highlighted code, unless the returned function was called before. */
export function highlightLater(language: string, code: string, done: (tree: HastNode) => void): () => void {
  let wanted = true;
  const work = async () => {
    const { highlightCode } = await loadGrammars();
    await idle();
    const tree = wanted ? highlightCode(language.toLowerCase(), code) : null;
    if (tree && wanted) done(tree);
  };
  // Where the grammars cannot be loaded, or one fails, the code stays plain.
  queue = queue.then(() => (wanted ? work() : undefined)).catch(() => undefined);
  return () => {
    wanted = false;
  };
}

// KaTeX and its stylesheet: a chunk of its own, loaded by katex.ts with the first
// formula. Formulas become DOM nodes without one inline style attribute, which
// the page's content security policy forbids.

import katex from "katex";
import type { KatexOptions } from "katex";
import "katex/dist/katex.min.css";

/** What is used of KaTeX's own tree, which it turns into DOM nodes. */
interface KatexNode {
  classes?: readonly string[];
  attributes?: Record<string, string>;
  children?: readonly KatexNode[];
}

interface KatexRoot extends KatexNode {
  toNode(): Node;
}

/** KaTeX exports this function, but not its type. */
type TreeMaker = { __renderToDomTree(tex: string, options: KatexOptions): KatexRoot };

const { __renderToDomTree: renderToTree } = katex as unknown as TreeMaker;

const OPTIONS: KatexOptions = {
  throwOnError: false,
  trust: false,
  strict: "ignore",
  errorColor: "var(--md-error)",
  maxSize: 50,
  maxExpand: 500,
  output: "htmlAndMathml",
};

const CSS = "data-css";

/** Moves each `style` attribute, which KaTeX sets on some nodes, to another name. */
function renameStyles(root: KatexNode): void {
  const rest = [root];
  for (let node = rest.pop(); node; node = rest.pop()) {
    const style = node.attributes?.["style"];
    if (node.attributes && style !== undefined) {
      delete node.attributes["style"];
      node.attributes[CSS] = style;
    }
    if (node.children) rest.push(...node.children);
  }
}

/** Sets the moved styles by the object model, which the policy allows. */
function applyStyles(parent: ParentNode): void {
  for (const element of parent.querySelectorAll<HTMLElement>(`[${CSS}]`)) {
    element.style.cssText = element.getAttribute(CSS) ?? "";
    element.removeAttribute(CSS);
  }
}

/** Puts the formula in `element` in place of what is there; throws where it cannot be read. */
export function typeset(tex: string, display: boolean, element: HTMLElement): void {
  const tree = renderToTree(tex, { ...OPTIONS, displayMode: display });
  if (tree.classes?.includes("katex-error")) throw new Error(tree.attributes?.["title"] ?? "not a formula");
  renameStyles(tree);
  const box = document.createDocumentFragment();
  box.appendChild(tree.toNode());
  applyStyles(box);
  element.replaceChildren(box);
}

// A highlighter's tree to DOM nodes, by createElement and text only: spans with
// classes, whatever else the tree may say.

/** What is used of a hast node. */
export interface HastNode {
  type: string;
  value?: string;
  properties?: { className?: unknown };
  children?: readonly HastNode[];
}

const DEEPEST = 64;
const CLASS_NAME = /^[\w-]+$/;

function textOf(node: HastNode): string {
  return (node.value ?? "") + (node.children ?? []).map(textOf).join("");
}

/** The names of the node's classes that are plain words. */
export function classNames(node: HastNode): string[] {
  const names: unknown = node.properties?.className;
  if (!Array.isArray(names)) return [];
  return names.filter((name): name is string => typeof name === "string" && CLASS_NAME.test(name));
}

function append(parent: Node, nodes: readonly HastNode[], page: Document, depth: number): void {
  for (const node of nodes) {
    if (node.children === undefined || depth >= DEEPEST) {
      parent.appendChild(page.createTextNode(textOf(node)));
      continue;
    }
    const span = page.createElement("span");
    span.className = classNames(node).join(" ");
    append(span, node.children, page, depth + 1);
    parent.appendChild(span);
  }
}

/** The children of `root` as DOM nodes of `page`. */
export function toDom(root: HastNode, page: Document): DocumentFragment {
  const fragment = page.createDocumentFragment();
  append(fragment, root.children ?? [], page, 0);
  return fragment;
}

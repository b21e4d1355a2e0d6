// A chat's messages are a tree; what is shown is one way through it, from a first message to a leaf. Pure.

interface Node {
  id: string;
  parent_id: string | null;
}

/** Each message's children in the order in which they were added; first messages under `null`. */
export function childrenOf<T extends Node>(messages: Iterable<T>): Map<string | null, T[]> {
  const children = new Map<string | null, T[]>();
  for (const message of messages) {
    const siblings = children.get(message.parent_id);
    if (siblings) siblings.push(message);
    else children.set(message.parent_id, [message]);
  }
  return children;
}

/** From the first message to the leaf. A leaf that is not there gives nothing. */
export function pathTo<T extends Node>(byId: ReadonlyMap<string, T>, leafId: string | null): T[] {
  const path: T[] = [];
  const seen = new Set<string>();
  let next = leafId === null ? undefined : byId.get(leafId);
  while (next && !seen.has(next.id)) {
    seen.add(next.id);
    path.push(next);
    next = next.parent_id === null ? undefined : byId.get(next.parent_id);
  }
  return path.reverse();
}

/** The end of the newest branch under a message. */
export function newestLeaf<T extends Node>(children: ReadonlyMap<string | null, T[]>, from: T): T {
  let leaf = from;
  for (let below = children.get(leaf.id); below?.length; below = children.get(leaf.id)) leaf = below.at(-1) as T;
  return leaf;
}

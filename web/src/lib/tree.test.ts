import { describe, expect, test } from "vitest";
import { childrenOf, newestLeaf, pathTo } from "./tree";

const node = (id: string, parent_id: string | null) => ({ id, parent_id });
const nodes = [node("a", null), node("b", "a"), node("c", "a"), node("d", "c"), node("e", null)];
const byId = new Map(nodes.map((one) => [one.id, one]));
const ids = (list: { id: string }[]) => list.map(({ id }) => id).join("");

describe("a chat's messages as a tree", () => {
  test("the path leads from the first message to the leaf", () => {
    expect(ids(pathTo(byId, "d"))).toBe("acd");
    expect(ids(pathTo(byId, "e"))).toBe("e");
    expect(ids(pathTo(byId, null))).toBe("");
    expect(ids(pathTo(byId, "gone"))).toBe("");
  });

  test("a parent that leads back to its child ends the path", () => {
    const loop = new Map([node("x", "y"), node("y", "x")].map((one) => [one.id, one]));
    expect(ids(pathTo(loop, "x"))).toBe("yx");
  });

  test("siblings are in the order in which they came, and the newest leaf is under the last of each", () => {
    const children = childrenOf(nodes);
    expect(ids(children.get("a") ?? [])).toBe("bc");
    expect(ids(children.get(null) ?? [])).toBe("ae");
    expect(newestLeaf(children, node("a", null)).id).toBe("d");
  });
});

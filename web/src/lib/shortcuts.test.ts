import { expect, test } from "vitest";
import { commandOf } from "./shortcuts";

const press = (key: string, code: string, modifiers: Partial<KeyboardEvent> = {}) =>
  commandOf({ key, code, ctrlKey: false, metaKey: false, shiftKey: false, altKey: false, ...modifiers });

test("each combination is its command, and plain typing is none", () => {
  expect(press("Escape", "Escape")).toBe("stop");
  expect(press("Escape", "Escape", { shiftKey: true })).toBe("focus");
  expect(press("O", "KeyO", { ctrlKey: true, shiftKey: true })).toBe("new");
  expect(press("k", "KeyK", { metaKey: true })).toBe("search");
  expect(press("/", "Slash", { ctrlKey: true })).toBe("help");
  expect(press(":", "Semicolon", { ctrlKey: true, shiftKey: true })).toBe("copyCode");
  expect([press("k", "KeyK"), press("c", "KeyC", { ctrlKey: true }), press("k", "KeyK", { ctrlKey: true, altKey: true })]).toEqual([null, null, null]);
});

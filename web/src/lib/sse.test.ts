import { expect, test } from "vitest";
import { EventParser } from "./sse";

const TEXT = 'event: hello\ndata: {"a":1}\n\n: still here\n\nevent: delta\ndata: {"b":"line\\nbreak"}\n\n';

test("events are the same wherever the text is cut", () => {
  const whole = new EventParser().push(TEXT);
  expect(whole).toEqual([
    { name: "hello", data: '{"a":1}' },
    { name: "delta", data: '{"b":"line\\nbreak"}' },
  ]);
  for (let cut = 0; cut <= TEXT.length; cut++) {
    const parser = new EventParser();
    expect([...parser.push(TEXT.slice(0, cut)), ...parser.push(TEXT.slice(cut))]).toEqual(whole);
  }
});

test("an event that is not whole is none yet", () => {
  const parser = new EventParser();
  expect(parser.push("event: a\ndata: {}\n")).toEqual([]);
  expect(parser.push("\n")).toEqual([{ name: "a", data: "{}" }]);
});

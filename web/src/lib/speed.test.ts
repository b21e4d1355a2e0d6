import { expect, test } from "vitest";
import { Speed, timeLeft } from "./speed";

test("a speed is that of the last seconds, and nothing before enough was seen", () => {
  const speed = new Speed();
  expect(speed.perSecond(0)).toBeNull();
  speed.saw(1000, 0);
  expect(speed.perSecond(500)).toBeNull();
  speed.saw(3000, 1000);
  expect(speed.perSecond(1000)).toBe(2000);
  for (let second = 2; second <= 20; second++) speed.saw(3000 + 100 * (second - 1), second * 1000);
  expect(speed.perSecond(20_000)).toBe(100);
});

test("what was here before is no speed", () => {
  const speed = new Speed();
  speed.saw(4_000_000_000, 0);
  speed.saw(4_000_001_000, 1000);
  expect(speed.perSecond(1000)).toBe(1000);
});

test("a speed falls while nothing comes, and begins anew when less is there than before", () => {
  const speed = new Speed();
  speed.saw(0, 0);
  speed.saw(1000, 1000);
  expect(speed.perSecond(4000)).toBe(250);
  speed.saw(10, 5000);
  expect(speed.perSecond(5500)).toBeNull();
});

test("the time that is left is told only where it can be", () => {
  expect(timeLeft(500, 1500, 100)).toBe(10_000);
  expect([timeLeft(500, null, 100), timeLeft(500, 1500, null), timeLeft(500, 1500, 0)]).toEqual([null, null, null]);
  expect(timeLeft(1500, 1500, 100)).toBe(0);
});

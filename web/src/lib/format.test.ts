import { describe, expect, test } from "vitest";
import { bytes, dayHeading, decodeRate, duration, liveWords, prefillRate, pullWords, sessionWords, statsParts } from "./format";

describe("numbers in words", () => {
  test("sizes and durations have units", () => {
    expect([bytes(98_400_000), bytes(4_683_000_000), bytes(12)]).toEqual(["98 MB", "4.7 GB", "1 kB"]);
    expect([duration(310.4), duration(2345), duration(61_000), duration(3_700_000)]).toEqual(["310 ms", "2.3 s", "1 min 1 s", "1 h 1 min"]);
  });

  test("what is left of a session is told with who says so, or why it is not known", () => {
    const session = { ends_at: "2026-11-28T21:00:00Z", left_s: 3700, source: "--deadline", unknown: null, closing: false };
    expect(sessionWords(session)).toBe("1 h 1 min left (--deadline)");
    expect(sessionWords({ ...session, left_s: null, source: null, unknown: "nobody said it" })).toBe("nobody said it");
    expect(sessionWords(undefined)).toBe("not known");
  });

  test("the decode rate leaves the first token out, and is nothing where it cannot be told", () => {
    expect(decodeRate(101, 1000)).toBe("100 tokens/s");
    expect([decodeRate(1, 1000), decodeRate(undefined, 1000), decodeRate(5, 0)]).toEqual([null, null, null]);
  });

  test("the prefill rate counts computed tokens only", () => {
    expect(prefillRate({ prompt_tokens: 110, cached_tokens: 10, prefill_ms: 1000 })).toBe("100 tokens/s");
    expect(prefillRate({ prompt_tokens: 10, cached_tokens: 10, prefill_ms: 5 })).toBeNull();
  });

  test("what is not known of an answer is left out", () => {
    expect(statsParts({ finish: "error" })).toEqual([]);
    const words = statsParts({ finish: "stop", prompt_tokens: 1200, cached_tokens: 1000, completion_tokens: 3, ttft_ms: 80 }).map(({ text }) => text);
    expect(words).toEqual(["TTFT 80 ms", "3 tokens", "prompt 1,200 (1,000 cached)"]);
  });

  test("a running answer says what it does", () => {
    const live = { id: "x", tokens: 0, decode_ms: 0 };
    expect(liveWords({ ...live, state: "loading", permille: 437 })).toBe("Loading the model: 43 %");
    expect(liveWords({ ...live, state: "prefill", prompt_tokens: 2000 })).toBe("Reading 2,000 tokens");
    expect(liveWords({ ...live, state: "prefill", prompt_tokens: 2000, cached_tokens: 1900 })).toBe("Reading 100 tokens, 1,900 cached");
    const decoding = { ...live, state: "decode", tokens: 51, decode_ms: 1000, ttft_ms: 90 } as const;
    expect(liveWords(decoding)).toBe("50 tokens/s · TTFT 90 ms · 51 tokens");
    expect(liveWords({ ...decoding, prompt_tokens: 110, cached_tokens: 10, prefill_ms: 500 })).toBe(
      "50 tokens/s · TTFT 90 ms · 51 tokens · prompt 110 (10 cached) at 200 tokens/s",
    );
  });

  test("chats stand under their day", () => {
    const now = new Date(2026, 10, 23, 0, 30);
    const heading = (...time: [number, number, number, number]) => dayHeading(new Date(...time), now);
    expect(heading(2026, 10, 23, 0)).toBe("Today");
    expect(heading(2026, 10, 22, 23)).toBe("Yesterday");
    expect(heading(2026, 10, 16, 1)).toBe("Last 7 days");
    expect(heading(2026, 10, 1, 1)).toBe("Last 30 days");
    expect(heading(2026, 7, 1, 1)).toBe("August 2026");
  });
});

describe("pulls in words", () => {
  const pull = { id: "1", model: "m", phase: "files" as const, files: 1, total_bytes: 4_000_000_000, done_bytes: 1_000_000_000, kept: true };

  test("a download says how much, how fast and how long, as far as it is known", () => {
    expect(pullWords(pull, 25_000_000, 120_000)).toBe("1.0 GB of 4.0 GB · 25 MB/s · about 2 min left");
    expect(pullWords(pull, null, null)).toBe("1.0 GB of 4.0 GB");
    expect(pullWords({ ...pull, total_bytes: null }, 0, null)).toBe("1.0 GB · no data is coming");
  });

  test("every other step has its words", () => {
    const words = (["manifest", "verifying", "writing"] as const).map((phase) => pullWords({ ...pull, phase }, null, null));
    expect(words).toEqual(["Asking for it", "Comparing digests", "Giving it its name"]);
  });
});

// Numbers and times in words. Units stand beside every number; what is not known is left out by the caller.
import type { Live, Pull, Session, Stats } from "./types";

const MS_PER_DAY = 86_400_000;

export function bytes(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)} GB`;
  if (count >= 1e6) return `${Math.round(count / 1e6)} MB`;
  return `${Math.max(1, Math.round(count / 1e3))} kB`;
}

export function count(value: number): string {
  return value.toLocaleString("en");
}

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 60) return `${minutes} min ${Math.round((ms % 60_000) / 1000)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** What is left of a session, in words; why it is not known. */
export function sessionWords(session: Session | undefined): string {
  if (!session || session.left_s === null) return session?.unknown ?? "not known";
  const left = `${duration(session.left_s * 1000)} left`;
  return session.source ? `${left} (${session.source})` : left;
}

export function rate(tokens: number, ms: number): string {
  const perSecond = tokens / (ms / 1000);
  return `${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond)} tokens/s`;
}

/** Tokens after the first over the time since the first: 1 / TPOT. */
export function decodeRate(tokens: number | undefined, decodeMs: number | undefined): string | null {
  return tokens && decodeMs && tokens > 1 && decodeMs > 0 ? rate(tokens - 1, decodeMs) : null;
}

/** Prompt tokens that were computed, over the time that took. */
export function prefillRate(stats: Pick<Stats, "prompt_tokens" | "cached_tokens" | "prefill_ms">): string | null {
  if (stats.prompt_tokens === undefined || !stats.prefill_ms) return null;
  const computed = stats.prompt_tokens - (stats.cached_tokens ?? 0);
  return computed > 0 ? rate(computed, stats.prefill_ms) : null;
}

/** What an answer that has ended can tell of itself: short words, and what each means. */
export function statsParts(stats: Stats): { text: string; title: string }[] {
  const parts: { text: string; title: string }[] = [];
  const add = (text: string | null | undefined | false, title: string) => text && parts.push({ text, title });
  add(decodeRate(stats.completion_tokens, stats.decode_ms), "Decode rate: tokens after the first, over the time since the first");
  add(stats.ttft_ms !== undefined && `TTFT ${duration(stats.ttft_ms)}`, "From the question's arrival at the server to the first token");
  add(stats.completion_tokens !== undefined && `${count(stats.completion_tokens)} tokens`, "Emitted tokens, thinking included");
  add(stats.prompt_tokens !== undefined && promptWords(stats), "Tokens that the model read; those from the cache were not computed again");
  add(stats.load_ms !== undefined && stats.load_ms >= 1 && `load ${duration(stats.load_ms)}`, "Waiting while the model was loading");
  add(stats.rss_bytes !== undefined && `runner ${bytes(stats.rss_bytes)}`, "Resident memory of the runner at the end of the answer, measured");
  return parts;
}

function promptWords(stats: Pick<Stats, "prompt_tokens" | "cached_tokens" | "prefill_ms">): string {
  const cached = stats.cached_tokens ? ` (${count(stats.cached_tokens)} cached)` : "";
  const speed = prefillRate(stats);
  return `prompt ${count(stats.prompt_tokens ?? 0)}${cached}${speed ? ` at ${speed}` : ""}`;
}

/** What a running answer is doing, in words. */
export function liveWords(live: Live): string {
  switch (live.state) {
    case "queued":
      return "Waiting for its turn";
    case "planning":
      return "Planning the load";
    case "loading":
      return live.permille === undefined ? "Loading the model" : `Loading the model: ${Math.floor(live.permille / 10)} %`;
    case "prefill":
      return live.prompt_tokens === undefined ? "Reading" : `Reading ${count(live.prompt_tokens - (live.cached_tokens ?? 0))} tokens${live.cached_tokens ? `, ${count(live.cached_tokens)} cached` : ""}`;
    case "decode":
      return [
        decodeRate(live.tokens, live.decode_ms),
        live.ttft_ms === undefined ? null : `TTFT ${duration(live.ttft_ms)}`,
        `${count(live.tokens)} tokens`,
        live.prompt_tokens === undefined ? null : promptWords(live),
      ]
        .filter(Boolean)
        .join(" · ");
  }
}

/** What a running pull is doing, in words; speed in bytes per second, the time that is left in milliseconds. */
export function pullWords(pull: Pull, perSecond: number | null, leftMs: number | null): string {
  switch (pull.phase) {
    case "manifest":
      return "Asking for it";
    case "verifying":
      return "Comparing digests";
    case "writing":
      return "Giving it its name";
    case "files": {
      const done = pull.total_bytes === null ? bytes(pull.done_bytes) : `${bytes(pull.done_bytes)} of ${bytes(pull.total_bytes)}`;
      const speed = perSecond === null ? null : perSecond < 1 ? "no data is coming" : `${bytes(perSecond)}/s`;
      return [done, speed, leftMs === null ? null : `about ${roughly(leftMs)} left`].filter(Boolean).join(" · ");
    }
  }
}

/** A time that is only guessed: no more digits than it deserves. */
function roughly(ms: number): string {
  if (ms < 60_000) return `${Math.max(1, Math.round(ms / 1000))} s`;
  const minutes = Math.round(ms / 60_000);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** The heading under which a chat stands in the list. */
export function dayHeading(time: Date, now: Date): string {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  const days = Math.ceil((midnight - time.getTime()) / MS_PER_DAY);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days <= 7) return "Last 7 days";
  if (days <= 30) return "Last 30 days";
  return time.toLocaleDateString("en", { month: "long", year: "numeric" });
}

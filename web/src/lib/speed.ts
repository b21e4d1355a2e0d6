// How fast something grows, by what was seen of it in the last seconds, and how long the rest takes at that speed.

const WINDOW_MS = 6000;
/** Less than this says nothing about a speed. */
const LEAST_MS = 900;

interface Sample {
  at: number;
  bytes: number;
}

/** Watches one number of bytes. Times are in milliseconds of any one clock. */
export class Speed {
  #samples: Sample[] = [];

  /** So many bytes are here now. */
  saw(bytes: number, at: number): void {
    // What is verified anew, or begun again, begins anew here too.
    if (bytes < (this.#samples.at(-1)?.bytes ?? 0)) this.#samples = [];
    this.#samples.push({ at, bytes });
    while (this.#samples.length > 2 && (this.#samples[1]?.at ?? at) < at - WINDOW_MS) this.#samples.shift();
  }

  /** Bytes per second until `now`; `null` while too little was seen. Without news it falls. */
  perSecond(now: number): number | null {
    const [first] = this.#samples;
    const last = this.#samples.at(-1);
    if (!first || !last || now - first.at < LEAST_MS) return null;
    return ((last.bytes - first.bytes) / (now - first.at)) * 1000;
  }
}

/** Milliseconds that the rest takes at this speed; `null` when that cannot be told. */
export function timeLeft(doneBytes: number, totalBytes: number | null, perSecond: number | null): number | null {
  if (totalBytes === null || perSecond === null || perSecond < 1) return null;
  return (Math.max(0, totalBytes - doneBytes) / perSecond) * 1000;
}

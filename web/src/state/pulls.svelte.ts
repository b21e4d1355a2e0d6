// Models that are on their way: what the server says of them, and how fast they come as seen from here.
import { Speed } from "../lib/speed";
import type { Pull } from "../lib/types";

class Pulls {
  all = $state.raw<Pull[]>([]);
  readonly running = $derived(this.all.filter(({ error }) => !error));

  #speeds = new Map<string, Speed>();

  /** All pulls as they are at a moment of `performance.now()`. */
  replace(all: Pull[], at: number): void {
    const known = new Set(all.map(({ id }) => id));
    for (const id of this.#speeds.keys()) if (!known.has(id)) this.#speeds.delete(id);
    for (const pull of all) if (pull.phase === "files") this.#speed(pull.id).saw(pull.done_bytes, at);
    this.all = all;
  }

  /** One that has just begun. */
  put(pull: Pull, at: number): void {
    if (!this.all.some(({ id }) => id === pull.id)) this.replace([...this.all, pull], at);
  }

  drop(id: string): void {
    this.all = this.all.filter((pull) => pull.id !== id);
  }

  /** Bytes per second until `now`; `null` while it cannot be told. */
  perSecond(id: string, now: number): number | null {
    return this.#speeds.get(id)?.perSecond(now) ?? null;
  }

  #speed(id: string): Speed {
    const speed = this.#speeds.get(id) ?? new Speed();
    this.#speeds.set(id, speed);
    return speed;
  }
}

export const pulls = new Pulls();

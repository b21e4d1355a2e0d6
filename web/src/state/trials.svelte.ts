// Trials of this home: the list as it was asked for, and the one that runs, of which the events tell.
import * as api from "../lib/api";
import type { Trial } from "../lib/types";
import { toasts } from "./toasts.svelte";

class Trials {
  listed = $state.raw<Trial[]>([]);
  running = $state.raw<Trial | null>(null);

  /** All, the newest first, with what is known of the one that runs. */
  readonly all = $derived.by(() => {
    const running = this.running;
    if (running === null) return this.listed;
    const others = this.listed.filter(({ id }) => id !== running.id);
    return [running, ...others];
  });

  async refresh(): Promise<void> {
    try {
      this.listed = await api.listTrials();
    } catch (error) {
      toasts.failed(error);
    }
  }

  /** What the events tell of the one that runs. One that has ended is in the list in another state. */
  tell(running: Trial | null): void {
    const ended = this.running !== null && running?.id !== this.running.id;
    this.running = running;
    if (ended) void this.refresh();
  }
}

export const trials = new Trials();

// Short messages at the edge of the page: what failed, and what can be undone.
import { RequestError } from "../lib/api";

export interface Toast {
  id: number;
  text: string;
  kind: "info" | "error";
  action?: { label: string; run: () => void };
}

const STAYS_MS = { info: 8000, error: 12_000 };
const TOASTS_MAX = 4;

class Toasts {
  list = $state.raw<Toast[]>([]);
  #next = 1;

  show(text: string, kind: Toast["kind"] = "info", action?: Toast["action"]): void {
    const toast: Toast = { id: this.#next++, text, kind, ...(action && { action }) };
    this.list = [...this.list.slice(1 - TOASTS_MAX), toast];
    setTimeout(() => this.dismiss(toast.id), STAYS_MS[kind]);
  }

  dismiss(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }

  /** Tells what went wrong. */
  failed(error: unknown): void {
    this.show(error instanceof RequestError ? error.full : error instanceof Error ? error.message : String(error), "error");
  }
}

export const toasts = new Toasts();

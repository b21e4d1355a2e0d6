// The stream of server-sent events: opened, kept, and opened again after it broke. What the events mean is told to the
// handlers; the first events after each opening are a whole picture, so nothing has to be remembered over a gap.
//
// A page that nobody sees holds no connection: browsers allow six for all tabs together.
import type { ChatFull, Delta, Live, Message, Chat, Pull, Runners, Trial } from "./types";

export interface EventMap {
  hello: { server: string; version: string };
  chat: ChatFull;
  gone: { id: string };
  chats: { chat: Chat } | { removed: string };
  runners: Runners;
  pulls: { pulls: Pull[] };
  models: object;
  trials: { running: Trial | null };
  message: { message: Message; leaf_id: string | null };
  messages_removed: { ids: string[]; leaf_id: string | null };
  progress: Live;
  delta: Delta;
}

export type Handlers = { [Name in keyof EventMap]: (data: EventMap[Name]) => void };
export type Connection = "open" | "lost";

const FIRST_RETRY_MS = 300;
const LAST_RETRY_MS = 5000;
/** How long a hidden page keeps its connection. */
const HIDDEN_MS = 10_000;

export class EventStream {
  #source: EventSource | null = null;
  #address: string | null = null;
  #retryMs = FIRST_RETRY_MS;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #hide: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly handlers: Handlers,
    private readonly changed: (connection: Connection) => void,
  ) {
    document.addEventListener("visibilitychange", () => this.#visibility());
    // A machine that wakes up or gets its network back need not wait for the next try.
    window.addEventListener("online", () => this.#address !== null && this.#connect());
  }

  /** Listens at another address from now on. */
  open(address: string): void {
    this.#address = address;
    this.#retryMs = FIRST_RETRY_MS;
    this.#connect();
  }

  #connect(): void {
    clearTimeout(this.#retry);
    this.#source?.close();
    if (this.#address === null) return;
    const source = new EventSource(this.#address);
    this.#source = source;
    source.onerror = () => source === this.#source && this.#broken();
    for (const name of Object.keys(this.handlers) as (keyof EventMap)[]) {
      source.addEventListener(name, (event: MessageEvent<string>) => {
        if (source !== this.#source) return;
        if (name === "hello") this.#alive();
        (this.handlers[name] as (data: unknown) => void)(JSON.parse(event.data));
      });
    }
  }

  #alive(): void {
    this.#retryMs = FIRST_RETRY_MS;
    this.changed("open");
  }

  #broken(): void {
    this.#source?.close();
    this.#source = null;
    this.changed("lost");
    this.#retry = setTimeout(() => this.#connect(), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
  }

  #visibility(): void {
    clearTimeout(this.#hide);
    if (document.hidden) {
      this.#hide = setTimeout(() => {
        clearTimeout(this.#retry);
        this.#source?.close();
        this.#source = null;
      }, HIDDEN_MS);
    } else if (this.#source === null && this.#address !== null) {
      this.#connect();
    }
  }
}

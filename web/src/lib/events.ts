// The stream of server-sent events: opened, kept, and opened again after it broke. What the events mean is told to the
// handlers; the first events after each opening are a whole picture, so nothing has to be remembered over a gap.
//
// It is asked for by POST and not by an `EventSource`: some tunnels hold back what a GET streams until it is over. A tunnel
// that dies need not close the connection, so silence ends it too.
//
// A page that nobody sees holds no connection: browsers allow six for all tabs together.
import { EventParser } from "./sse";
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
/** `locked`: the server asks for a login. */
export type Connection = "open" | "lost" | "locked";

const FIRST_RETRY_MS = 300;
const LAST_RETRY_MS = 5000;
/** How long a hidden page keeps its connection. */
const HIDDEN_MS = 10_000;
/** The server says something at least every five seconds. */
const SILENCE_MS = 20_000;

export class EventStream {
  #current: AbortController | null = null;
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

  #close(): void {
    clearTimeout(this.#retry);
    this.#current?.abort();
    this.#current = null;
  }

  #connect(): void {
    this.#close();
    if (this.#address === null) return;
    const connection = new AbortController();
    this.#current = connection;
    const over = () => connection === this.#current && this.#broken();
    this.#read(this.#address, connection).then(over, over);
  }

  async #read(address: string, connection: AbortController): Promise<void> {
    const response = await fetch(address, { method: "POST", signal: connection.signal });
    if (response.status === 401 && connection === this.#current) {
      this.#close();
      this.changed("locked");
    }
    if (!response.ok || !response.body) return;
    const pieces = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser();
    for (;;) {
      const silence = setTimeout(() => connection.abort(), SILENCE_MS);
      const { done, value } = await pieces.read().finally(() => clearTimeout(silence));
      if (done || connection !== this.#current) return;
      for (const { name, data } of parser.push(value)) this.#tell(name, data, connection);
    }
  }

  #tell(name: string, data: string, connection: AbortController): void {
    const handler = this.handlers[name as keyof EventMap] as ((data: unknown) => void) | undefined;
    if (connection !== this.#current || !handler) return;
    if (name === "hello") this.#alive();
    handler(JSON.parse(data));
  }

  #alive(): void {
    this.#retryMs = FIRST_RETRY_MS;
    this.changed("open");
  }

  #broken(): void {
    this.#close();
    this.changed("lost");
    this.#retry = setTimeout(() => this.#connect(), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
  }

  #visibility(): void {
    clearTimeout(this.#hide);
    if (document.hidden) {
      this.#hide = setTimeout(() => this.#close(), HIDDEN_MS);
    } else if (this.#current === null && this.#address !== null) {
      this.#connect();
    }
  }
}

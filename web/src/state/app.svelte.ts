// What the page knows: the list of chats, the models, the runners, the connection, and the chat that is open.
// The server's events change it; what the user does is in `actions`.
import * as api from "../lib/api";
import { EventStream, type Connection } from "../lib/events";
import { recall } from "../lib/storage";
import type { Chat, Model, Runner, Runners, Settings } from "../lib/types";
import { OpenChat } from "./chat.svelte";
import { pulls } from "./pulls.svelte";
import { toasts } from "./toasts.svelte";
import { trials } from "./trials.svelte";

export type Panel = "settings" | "stack" | "keys" | "trials" | null;
export type DialogName = "search" | "help" | null;

/** A server that is silent for less than this is not worth a banner. */
const LOST_AFTER_MS = 800;

class App {
  chats = $state.raw<Chat[]>([]);
  moreChats = $state<string | null>(null);
  models = $state.raw<Model[]>([]);
  modelsKnown = $state(false);
  runners = $state.raw<Runners | null>(null);
  version = $state("");
  lost = $state(false);
  /** The server asks for a login. */
  locked = $state(false);
  open = $state.raw(new OpenChat(null, null, {}));
  panel = $state<Panel>(null);
  dialog = $state<DialogName>(null);
  /** The message that is being edited. */
  editing = $state<string | null>(null);
  sidebar = $state(recall("sidebar") !== "closed" && window.innerWidth > 800);

  #server = "";
  #lostTimer: ReturnType<typeof setTimeout> | undefined;
  #stream = new EventStream(
    {
      hello: (hello) => this.#hello(hello),
      chat: (chat) => chat.id === this.open.id && this.open.replace(chat),
      gone: ({ id }) => id === this.open.id && this.#gone(),
      chats: (change) => ("chat" in change ? this.putChat(change.chat) : this.dropChat(change.removed)),
      runners: (runners) => (this.runners = runners),
      pulls: (now) => pulls.replace(now.pulls, performance.now()),
      trials: ({ running }) => trials.tell(running),
      models: () => void this.refreshModels().catch(() => undefined),
      message: ({ message, leaf_id }) => this.open.put([message], leaf_id),
      messages_removed: ({ ids, leaf_id }) => this.open.remove(ids, leaf_id),
      progress: (live) => this.open.progress(live),
      delta: (delta) => this.open.append(delta),
    },
    (connection) => this.#connection(connection),
  );

  /** The runner of the open chat's model, if there is one. */
  readonly runner = $derived<Runner | undefined>(this.runners?.runners.find(({ model }) => model === this.open.model));
  readonly model = $derived<Model | undefined>(this.models.find(({ name }) => name === this.open.model));

  start(): void {
    // Of a login link: the page of it shows only the login.
    if (location.pathname === "/login") {
      this.locked = true;
      return;
    }
    window.addEventListener("hashchange", () => this.#route());
    this.#route();
    void this.#refresh();
  }

  /** Shows another chat; `null` begins a new one. */
  show(id: string | null, model: string | null = null, settings: Settings = {}): void {
    this.open = new OpenChat(id, model ?? this.#defaultModel(), settings);
    this.editing = null;
    const path = id ? `#/c/${id}` : "#/";
    if ((location.hash || "#/") !== path) history.pushState(null, "", path);
    this.#stream.open(api.eventsAddress(id));
  }

  /** The new chat exists now. */
  adopt(chat: Chat): void {
    this.open.id = chat.id;
    history.replaceState(null, "", `#/c/${chat.id}`);
    this.putChat(chat);
    this.#stream.open(api.eventsAddress(chat.id));
  }

  putChat(chat: Chat): void {
    const others = this.chats.filter(({ id }) => id !== chat.id);
    this.chats = [...others, chat].sort(newestFirst);
    if (chat.id === this.open.id) this.open.title = chat.title;
  }

  dropChat(id: string): void {
    this.chats = this.chats.filter((chat) => chat.id !== id);
  }

  async loadMoreChats(): Promise<void> {
    if (this.moreChats === null) return;
    const page = await api.listChats(this.moreChats);
    const known = new Set(this.chats.map(({ id }) => id));
    this.chats = [...this.chats, ...page.chats.filter(({ id }) => !known.has(id))];
    this.moreChats = page.next;
  }

  async refreshModels(): Promise<void> {
    this.models = await api.listModels();
    this.modelsKnown = true;
    if (this.open.id === null && this.open.model === null) this.open.model = this.#defaultModel();
  }

  #route(): void {
    const id = /^#\/c\/([0-9a-f-]{36})$/.exec(location.hash)?.[1] ?? null;
    if (id !== this.open.id || id === null) this.show(id);
  }

  async #refresh(): Promise<void> {
    try {
      const [page] = await Promise.all([api.listChats(), this.refreshModels()]);
      this.chats = page.chats;
      this.moreChats = page.next;
    } catch (error) {
      if (error instanceof api.RequestError && error.status === 401) this.locked = true;
      else if (!(error instanceof api.RequestError && error.status === 0)) toasts.failed(error);
    }
  }

  #hello({ server, version }: { server: string; version: string }): void {
    const first = this.#server === "";
    this.#server = server;
    this.version = version;
    // Whatever happened to other chats since the last event is in their list. The first list is on its way already.
    if (!first || !this.modelsKnown) void this.#refresh();
  }

  #gone(): void {
    toasts.show("This chat is not there any more.");
    this.show(null);
  }

  #connection(connection: Connection): void {
    clearTimeout(this.#lostTimer);
    if (connection === "locked") this.locked = true;
    else if (connection === "open") this.lost = false;
    else this.#lostTimer = setTimeout(() => (this.lost = true), LOST_AFTER_MS);
  }

  /** The model used last, else one that is loaded, else the first. */
  #defaultModel(): string | null {
    const last = recall("model");
    if (this.models.some(({ name }) => name === last)) return last;
    const loaded = this.runners?.runners.find(({ state }) => state === "ready")?.model;
    return loaded ?? this.models[0]?.name ?? null;
  }
}

function newestFirst(a: Chat, b: Chat): number {
  return Number(b.pinned) - Number(a.pinned) || b.updated_at.localeCompare(a.updated_at);
}

export const app = new App();

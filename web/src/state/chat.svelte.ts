// The chat that is open: its messages as a tree, the branch that is shown, and the answer that is being made.
// It changes by what the server says; asking the server is done in `actions`.
import { childrenOf, newestLeaf, pathTo } from "../lib/tree";
import type { ChatFull, Delta, Live, Message, Settings } from "../lib/types";
import { MessageView } from "./message.svelte";

/** A growing answer is drawn at most this often: fast enough to read along, and a fraction of the work of every frame. */
const SHOW_EVERY_MS = 75;

interface Pending {
  content: string;
  thinking: string;
  delta: Delta | null;
}

export class OpenChat {
  /** `null` for a chat that does not exist before its first message is sent. */
  id = $state<string | null>(null);
  title = $state("");
  model = $state<string | null>(null);
  settings = $state.raw<Settings>({});
  loading = $state(false);
  leafId = $state<string | null>(null);
  live = $state.raw<Live | null>(null);
  #messages = $state.raw<ReadonlyMap<string, MessageView>>(new Map());

  readonly children = $derived(childrenOf(this.#messages.values()));
  readonly path = $derived(pathTo(this.#messages, this.leafId));

  #pending: Pending = { content: "", thinking: "", delta: null };
  #shownAt = 0;
  #timer = 0;

  constructor(id: string | null, model: string | null, settings: Settings) {
    this.id = id;
    this.model = model;
    this.settings = settings;
    this.loading = id !== null;
  }

  /** Everything, as the server has it now. */
  replace(chat: ChatFull): void {
    this.#forgetPending();
    this.title = chat.title;
    this.model = chat.model;
    this.settings = chat.settings;
    this.#messages = new Map(chat.messages.map((message) => [message.id, this.#view(message)]));
    this.leafId = chat.leaf_id;
    this.live = chat.live;
    this.loading = false;
  }

  /** Messages that are new or have changed. */
  put(messages: Message[], leafId: string | null): void {
    this.#flush();
    const isNew = messages.some(({ id }) => !this.#messages.has(id));
    const views = messages.map((message) => [message.id, this.#view(message)] as const);
    if (isNew) this.#messages = new Map([...this.#messages, ...views]);
    this.leafId = leafId;
    const ended = messages.find(({ id, stats }) => id === this.live?.id && stats !== null);
    if (ended) this.live = null;
    this.loading = false;
  }

  /** The reply to a question of this page. What the events have told since is newer. */
  asked(messages: Message[], leafId: string): void {
    const news = messages.filter(({ id }) => id !== this.live?.id);
    this.put(news, leafId);
    const answer = messages.find(({ role, stats }) => role === "assistant" && stats === null);
    if (answer && this.live === null) this.live = { id: answer.id, state: "queued", tokens: 0, decode_ms: 0 };
  }

  remove(ids: string[], leafId: string | null): void {
    const gone = new Set(ids);
    if (this.live && gone.has(this.live.id)) this.live = null;
    this.#messages = new Map([...this.#messages].filter(([id]) => !gone.has(id)));
    this.leafId = leafId;
  }

  progress(live: Live): void {
    if (this.#messages.has(live.id)) this.live = live;
  }

  /** Text to append. It is shown a little later, with what has come until then. */
  append(delta: Delta): void {
    if (this.live?.id !== delta.id) return;
    this.#pending.content += delta.content ?? "";
    this.#pending.thinking += delta.thinking ?? "";
    this.#pending.delta = delta;
    if (this.#timer === 0) this.#timer = window.setTimeout(() => this.#flush(), this.#shownAt + SHOW_EVERY_MS - performance.now());
  }

  message(id: string): MessageView | undefined {
    return this.#messages.get(id);
  }

  /** The branches at a message: its siblings with itself. */
  siblings(message: MessageView): MessageView[] {
    return this.children.get(message.parent_id) ?? [message];
  }

  newestLeaf(from: MessageView): MessageView {
    return newestLeaf(this.children, from);
  }

  /** An answer without numbers that nobody is making: the server ended while it was written. */
  isCutOff(message: MessageView): boolean {
    return message.role === "assistant" && message.state === "partial" && message.stats === null && message.id !== this.live?.id;
  }

  #view(message: Message): MessageView {
    const known = this.#messages.get(message.id);
    if (!known) return new MessageView(message);
    known.update(message);
    return known;
  }

  #flush(): void {
    const { content, thinking, delta } = this.#pending;
    this.#forgetPending();
    const message = this.live && this.#messages.get(this.live.id);
    if (!this.live || !message || !delta) return;
    this.#shownAt = performance.now();
    const { tokens, decode_ms, thinking_ms } = delta;
    this.live = { ...this.live, state: "decode", tokens, decode_ms, ...(thinking_ms !== undefined && { thinking_ms }) };
    if (content) message.content += content;
    if (thinking) message.thinking += thinking;
  }

  #forgetPending(): void {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#pending = { content: "", thinking: "", delta: null };
  }
}

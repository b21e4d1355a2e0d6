// What the user can do. Each asks the server; the events bring the result to every tab. A failure becomes a toast and
// changes nothing, and gives back `false` where the caller keeps a draft.
import * as api from "../lib/api";
import { remember } from "../lib/storage";
import type { Attachment, Chat, Pull, Settings } from "../lib/types";
import { app } from "./app.svelte";
import type { MessageView } from "./message.svelte";
import { pulls } from "./pulls.svelte";
import { toasts } from "./toasts.svelte";

async function attempt(work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    toasts.failed(error);
    return false;
  }
}

/** Sends a message; `parent` is where an edited one stood. */
export function send(content: string, attachments: Attachment[], parent?: string | null): Promise<boolean> {
  return attempt(async () => {
    const chat = app.open;
    if (chat.id === null) {
      // Some are quicker than the list of models.
      if (!app.modelsKnown) await app.refreshModels();
      if (chat.model === null) throw new Error("There is no model to ask. Pull one in the list of models, or with: firepot pull NAME");
      const created = await api.createChat({ model: chat.model, settings: chat.settings });
      if (app.open !== chat) return;
      app.adopt(created);
    }
    await put({ kind: "send", content, ...(attachments.length > 0 && { attachments }), ...(parent !== undefined && { parent_id: parent }) });
  });
}

export const regenerate = (message: MessageView) => attempt(() => put({ kind: "regenerate", message_id: message.id }));
export const continueAnswer = (message: MessageView) => attempt(() => put({ kind: "continue", message_id: message.id }));

async function put(body: api.Ask): Promise<void> {
  const chat = app.open;
  if (chat.id === null) return;
  const { messages, leaf_id } = await api.ask(chat.id, body);
  chat.asked(messages, leaf_id);
}

export function stop(): void {
  const { id, live } = app.open;
  if (id && live) void attempt(() => api.stop(id));
}

export function removeMessage(message: MessageView): void {
  const chat = app.open;
  const id = chat.id;
  if (id === null) return;
  void attempt(async () => {
    const { removed, leaf_id } = await api.deleteMessage(id, message.id);
    chat.remove(removed, leaf_id);
  });
}

/** Shows another branch, down to its newest leaf. */
export function showBranch(message: MessageView): void {
  const chat = app.open;
  const id = chat.id;
  if (id === null) return;
  const leaf = chat.newestLeaf(message).id;
  chat.leafId = leaf;
  void attempt(() => api.changeChat(id, { leaf_id: leaf }));
}

export function chooseModel(name: string): void {
  const chat = app.open;
  chat.model = name;
  remember("model", name);
  const id = chat.id;
  if (id !== null) void attempt(() => api.changeChat(id, { model: name }));
}

export function saveSettings(settings: Settings): Promise<boolean> {
  const chat = app.open;
  chat.settings = settings;
  const id = chat.id;
  return id === null ? Promise.resolve(true) : attempt(() => api.changeChat(id, { settings }));
}

export const rename = (chat: Chat, title: string) => attempt(async () => app.putChat(await api.changeChat(chat.id, { title })));
export const pin = (chat: Chat) => attempt(async () => app.putChat(await api.changeChat(chat.id, { pinned: !chat.pinned })));

export function removeChat(chat: Chat): void {
  void attempt(async () => {
    await api.deleteChat(chat.id);
    app.dropChat(chat.id);
    if (app.open.id === chat.id) app.show(null);
    const undo = () => void attempt(async () => app.putChat(await api.restoreChat(chat.id)));
    toasts.show(`Deleted “${chat.title || "New chat"}”`, "info", { label: "Undo", run: undo });
  });
}

export function importFile(file: File): void {
  void attempt(async () => {
    const { chats, skipped } = await api.importChats(file);
    for (const chat of chats) app.putChat(chat);
    toasts.show(`Imported ${chats.length === 1 ? "1 chat" : `${chats.length} chats`}`);
    const [first] = skipped;
    if (first) toasts.show(`${skipped.length} not imported: “${first.title}” ${first.reason}${skipped.length > 1 ? ", …" : ""}`, "error");
  });
}

/** Begins to pull a model. A refusal is thrown: the field that was filled shows it. */
export async function pull(model: string): Promise<void> {
  pulls.put(await api.beginPull(model), performance.now());
}

/** Cancels a pull, or dismisses one that failed. What was downloaded stays on the server. */
export const endPull = (pull: Pull) =>
  attempt(async () => {
    await api.endPull(pull.id).catch((error: unknown) => {
      // It has just ended by itself.
      if (!(error instanceof api.RequestError && error.status === 404)) throw error;
    });
    pulls.drop(pull.id);
  });

export const load = (model: string) => attempt(() => api.loadModel(model, app.open.settings.ctx));
export const unload = (model: string) => attempt(() => api.unloadModel(model));

// The server's routes that the page uses, as functions. No state is kept here.
import type { Access, Attachment, Chat, Credential, Message, Model, Preset, Pull, SearchHit, Settings, Trial } from "./types";

const BASE = "/firepot/v1";

/** What went wrong with a request, in words for the user. `status` is 0 when the server could not be reached. */
export class RequestError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly hint?: string,
  ) {
    super(message);
  }

  /** The message and, where there is one, what to do. */
  get full(): string {
    return this.hint ? `${this.message} (${this.hint})` : this.message;
  }
}

async function request(method: string, path: string, body?: unknown): Promise<Response> {
  const init: RequestInit = { method };
  if (body !== undefined) {
    init.headers = { "content-type": "application/json" };
    init.body = typeof body === "string" || body instanceof Blob ? body : JSON.stringify(body);
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new RequestError("The server cannot be reached", 0);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response: Response): Promise<RequestError> {
  const text = await response.text().catch(() => "");
  try {
    const { error, hint } = JSON.parse(text) as { error: string; hint?: string };
    return new RequestError(String(error), response.status, hint);
  } catch {
    return new RequestError(text.slice(0, 200) || `The server answered ${response.status}`, response.status);
  }
}

async function json<T>(method: string, path: string, body?: unknown): Promise<T> {
  return (await request(method, path, body)).json() as Promise<T>;
}

export interface ChatChange {
  title?: string;
  model?: string | null;
  pinned?: boolean;
  settings?: Settings;
  leaf_id?: string;
}

export type Ask =
  | { kind: "send"; parent_id?: string | null; content: string; attachments?: Attachment[] }
  | { kind: "regenerate"; message_id: string }
  | { kind: "continue"; message_id: string };

export interface Asked {
  messages: Message[];
  leaf_id: string;
}

export const listChats = (after?: string) =>
  json<{ chats: Chat[]; next: string | null }>("GET", `${BASE}/chats?limit=100${after ? `&after=${encodeURIComponent(after)}` : ""}`);
export const searchChats = (query: string) =>
  json<{ hits: SearchHit[] }>("GET", `${BASE}/chats/search?q=${encodeURIComponent(query)}`);
export const createChat = (chat: { model: string | null; settings: Settings }) => json<Chat>("POST", `${BASE}/chats`, chat);
export const changeChat = (id: string, change: ChatChange) => json<Chat>("PATCH", `${BASE}/chats/${id}`, change);
export const deleteChat = (id: string) => request("DELETE", `${BASE}/chats/${id}`);
export const restoreChat = (id: string) => json<Chat>("POST", `${BASE}/chats/${id}/restore`);
export const ask = (id: string, body: Ask) => json<Asked>("POST", `${BASE}/chats/${id}/answer`, body);
export const stop = (id: string) => request("POST", `${BASE}/chats/${id}/stop`);
export const deleteMessage = (chat: string, id: string) =>
  json<{ removed: string[]; leaf_id: string | null }>("DELETE", `${BASE}/chats/${chat}/messages/${id}`);
export const exportAddress = (id: string, format: "json" | "markdown") => `${BASE}/chats/${id}/export?format=${format}`;
export const exportAllAddress = `${BASE}/chats/export`;
export const importChats = (file: Blob) =>
  json<{ chats: Chat[]; skipped: { title: string; reason: string }[] }>("POST", `${BASE}/chats/import`, file);

export const listModels = async () => (await json<{ models: Model[] }>("GET", "/api/tags")).models;
export const getMachine = () => json<Record<string, unknown>>("GET", `${BASE}/machine`);
export const unloadModel = (model: string) => request("POST", `${BASE}/models/unload`, { model });

/** Begins to pull a model; how far it is comes with the events. */
export const beginPull = (model: string) => json<Pull>("POST", `${BASE}/pulls`, { model });
/** Ends a pull, or forgets one that failed. */
export const endPull = (id: string) => request("DELETE", `${BASE}/pulls/${encodeURIComponent(id)}`);

export const listTrials = async () => (await json<{ trials: Trial[] }>("GET", `${BASE}/trials`)).trials;
/** Begins a trial; how far it is comes with the events. */
export const beginTrial = (model: string, suite: string) => json<{ id: string }>("POST", `${BASE}/trials`, { model, suite });
export const resumeTrial = (id: string) => request("POST", `${BASE}/trials/${encodeURIComponent(id)}/resume`);
/** Ends a trial that runs; it can be taken up again. */
export const stopTrial = (id: string) => request("DELETE", `${BASE}/trials/${encodeURIComponent(id)}`);
export const reportAddress = (id: string) => `${BASE}/trials/${encodeURIComponent(id)}/report`;

export const listPresets = async () => (await json<{ presets: Preset[] }>("GET", `${BASE}/presets`)).presets;
export const savePreset = (name: string, settings: Settings) => request("PUT", `${BASE}/presets/${encodeURIComponent(name)}`, settings);
export const deletePreset = (name: string) => request("DELETE", `${BASE}/presets/${encodeURIComponent(name)}`);

/** Logs in with a link's secret or a key; the server sets a cookie that no script can read. */
export const logIn = (secret: string) => request("POST", `${BASE}/login`, { secret });
export const logOut = () => request("POST", `${BASE}/logout`);
export const getAccess = () => json<Access>("GET", `${BASE}/access`);
export const listKeys = () => json<{ keys: Credential[]; sessions: Credential[]; own: string | null }>("GET", `${BASE}/keys`);
export const createKey = (name: string, scopes: string[]) => json<Credential & { key: string }>("POST", `${BASE}/keys`, { name, scopes });
export const createLogin = (name: string, scopes: string[]) => json<Credential & { path: string }>("POST", `${BASE}/logins`, { name, scopes });
export const revokeKey = (id: string) => request("DELETE", `${BASE}/keys/${id}`);

/** Loads a model; resolves when it is ready. How far it is comes with the events. */
export async function loadModel(model: string, ctx?: number): Promise<void> {
  const response = await request("POST", `${BASE}/models/load`, { model, options: ctx ? { num_ctx: ctx } : {} });
  const last = (await response.text()).trim().split("\n").at(-1) ?? "{}";
  const { error, hint } = JSON.parse(last) as { error?: string; hint?: string };
  if (error) throw new RequestError(error, 500, hint);
}

export const eventsAddress = (chat: string | null) => `${BASE}/events${chat ? `?chat=${encodeURIComponent(chat)}` : ""}`;

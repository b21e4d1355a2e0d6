// What the server says, as the page reads it. The routes are described in `crates/server/src/routes`.

export type Role = "system" | "user" | "assistant" | "tool";
export type MessageState = "complete" | "partial" | "failed";

export interface Attachment {
  name: string;
  text: string;
}

/** Numbers of an answer that has ended. What is not known is absent. */
export interface Stats {
  finish: "stop" | "length" | "stopped" | "error" | "tool_calls";
  error?: string;
  hint?: string;
  prompt_tokens?: number;
  cached_tokens?: number;
  completion_tokens?: number;
  thinking_tokens?: number;
  load_ms?: number;
  queued_ms?: number;
  ttft_ms?: number;
  prefill_ms?: number;
  decode_ms?: number;
  thinking_ms?: number;
  context_length?: number;
  rss_bytes?: number;
  seed?: number;
  dropped_messages?: number;
}

export interface Message {
  id: string;
  parent_id: string | null;
  created_at: string;
  role: Role;
  content: string;
  thinking: string | null;
  model: string | null;
  stats: Stats | null;
  state: MessageState;
  attachments?: Attachment[];
}

export type Think = "auto" | "on" | "off";

/** How a chat's answers are made; what is absent is left to the model or the server. */
export interface Settings {
  system?: string;
  temperature?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  repeat_penalty?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  seed?: number;
  max_tokens?: number;
  think?: Think;
  think_budget?: number;
  ctx?: number;
}

export interface Chat {
  id: string;
  title: string;
  model: string | null;
  created_at: string;
  updated_at: string;
  message_count: number;
  pinned: boolean;
}

/** An answer that is being made. */
export interface Live {
  id: string;
  state: "queued" | "planning" | "loading" | "prefill" | "decode";
  permille?: number;
  prompt_tokens?: number;
  cached_tokens?: number;
  context_length?: number;
  ttft_ms?: number;
  prefill_ms?: number;
  tokens: number;
  decode_ms: number;
  thinking_ms?: number;
  /** What is to be known before it goes on. */
  warning?: string;
}

export interface ChatFull extends Chat {
  settings: Settings;
  leaf_id: string | null;
  messages: Message[];
  live: Live | null;
}

export interface SearchHit {
  chat: Chat;
  message_id: string | null;
  snippet: { text: string; hit: boolean }[];
}

export interface Model {
  name: string;
  size: number;
  details: { family: string; parameter_size: string; quantization_level: string; context_length?: number };
  capabilities: string[];
  /** Whose files they are, when the model lies in another program's store. */
  origin?: string;
}

/** A model that is on its way, or one whose pull failed. */
export interface Pull {
  id: string;
  model: string;
  phase: "manifest" | "files" | "verifying" | "writing";
  files: number;
  total_bytes: number | null;
  done_bytes: number;
  kept: boolean;
  error?: { message: string; hint?: string };
}

/** A trial of this home. */
export interface Trial {
  id: string;
  model: string | null;
  suite: "smoke" | "standard" | "full" | null;
  created_unix_s: number | null;
  state: "running" | "finished" | "unfinished";
  progress: { case: string; number: number; cases: number; samples: number; most: number } | null;
  error: string | null;
}

export interface Runner {
  model: string;
  /** 0 for the first runner of a model; those on further GPUs count from 1. */
  replica: number;
  state: "queued" | "planning" | "loading" | "ready" | "stopping" | "resting" | "failed";
  permille?: number;
  waiting: number;
  in_use: number;
  error?: string;
  predicted_memory_bytes?: number;
  plan?: string[];
  context_length?: number;
  kv_cells?: number;
  restarts?: number;
  last_death?: { reason: string; ago_ms: number } | null;
  stats?: {
    running: number;
    queued: number;
    kv_cells_used: number;
    parked_bytes: number;
    rss_bytes: number;
  };
}

/** What is left of the session that this server runs in. */
export interface Session {
  ends_at: string | null;
  left_s: number | null;
  source: string | null;
  /** Why the end is not known. */
  unknown: string | null;
  closing: boolean;
}

export interface Runners {
  runners: Runner[];
  warnings: string[];
  session: Session;
  in_flight: number;
  max_in_flight: number;
}

export interface Preset {
  name: string;
  settings: Settings;
}

export interface Delta {
  id: string;
  thinking?: string;
  content?: string;
  tokens: number;
  decode_ms: number;
  thinking_ms?: number;
}

/** Whether the server asks for keys, and what this browser may do. */
export interface Access {
  required: boolean;
  id: string | null;
  name: string;
  scopes: string[];
  public_url: string | null;
}

/** A key or session, without its secret. */
export interface Credential {
  id: string;
  kind: "key" | "session" | "login";
  name: string;
  scopes: string[];
  created_at: string;
  expires_at: string | null;
  last_used_at: string | null;
}

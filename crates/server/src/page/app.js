// The page: pick a model, ask, watch the answer come, stop it. Text of a model or a person only ever becomes
// `textContent`, never markup.
"use strict";

const element = (id) => document.getElementById(id);
const [model, chat, empty, form, prompt, send, stop, status] =
  ["model", "chat", "empty", "form", "prompt", "send", "stop", "status"].map(element);

/** Turns of the conversation, as `/api/chat` takes them. */
let messages = [];

/** Ends the answer that is being made; null when there is none. */
let running = null;

function make(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** Keeps the end in view, unless the reader has scrolled away from it. */
function keepEndInView(change) {
  const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 60;
  change();
  if (atEnd) chat.scrollTop = chat.scrollHeight;
}

function addMessage(role, text) {
  const message = make("article", `message ${role}`);
  message.setAttribute("aria-label", role === "user" ? "You" : "Model");
  message.content = make("div", "content", text);
  message.append(message.content);
  empty.hidden = true;
  keepEndInView(() => chat.append(message));
  return message;
}

/** The folded block of what the model thinks, made when there is some. */
function thinkingOf(message) {
  if (!message.thinking) {
    const details = make("details", "");
    message.summary = make("summary", "", "Thinking…");
    message.thinking = make("div", "thinking");
    details.append(message.summary, message.thinking);
    message.prepend(details);
  }
  return message.thinking;
}

function show(message, line) {
  const { thinking = "", content = "" } = line.message ?? {};
  keepEndInView(() => {
    if (thinking) thinkingOf(message).append(thinking);
    if (content) {
      if (message.summary) message.summary.textContent = "Thought";
      message.content.append(content);
    }
    if (thinking || content) message.classList.remove("waiting");
    if (line.done) message.append(make("p", "stats", statsOf(line)));
  });
}

/** Durations are in nanoseconds; the first token is not in the decode rate. */
function statsOf(line) {
  const parts = [`${line.eval_count} tokens`];
  if (line.eval_count > 1 && line.eval_duration > 0) {
    parts.push(`${(((line.eval_count - 1) * 1e9) / line.eval_duration).toFixed(1)} tokens/s`);
  } else {
    parts.push("– tokens/s");
  }
  if (line.ttft != null) parts.push(`first token after ${(line.ttft / 1e9).toFixed(2)} s`);
  if (line.prompt_eval_cached_count) parts.push(`${line.prompt_eval_cached_count} from cache`);
  if (line.dropped_messages) parts.push(`${line.dropped_messages} oldest messages left out`);
  if (line.done_reason === "length") parts.push("cut at the token limit");
  return parts.join(" · ");
}

/** The lines of a body of newline-delimited JSON, as they come. */
async function* linesOf(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of readAll(body.getReader())) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
}

async function* readAll(reader) {
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

async function request(path, options) {
  const response = await fetch(path, options);
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Error(body.error ?? `the server answered ${response.status}`);
}

async function stream(message, signal) {
  const body = JSON.stringify({ model: model.value, messages });
  const headers = { "content-type": "application/json" };
  const response = await request("api/chat", { method: "POST", headers, body, signal });
  for await (const line of linesOf(response.body)) {
    if (line.error) throw new Error(line.error);
    show(message, line);
    if (line.done) return;
  }
  throw new Error("the server ended the answer without saying so");
}

async function ask(question) {
  // "New chat" replaces the list; what comes after belongs to the old one.
  const turns = messages;
  addMessage("user", question);
  turns.push({ role: "user", content: question });
  const answer = addMessage("assistant", "");
  answer.classList.add("waiting");
  setRunning(new AbortController());
  try {
    await stream(answer, running.signal);
  } catch (error) {
    const text = error.name === "AbortError" ? "Stopped." : error.message;
    keepEndInView(() => answer.append(make("p", "error", text)));
  } finally {
    answer.classList.remove("waiting");
    setRunning(null);
  }
  const said = answer.content.textContent;
  if (said) turns.push({ role: "assistant", content: said });
  else turns.pop();
}

function setRunning(controller) {
  running = controller;
  send.hidden = running !== null;
  stop.hidden = running === null;
  status.textContent = running ? "Answering…" : "";
  if (!running) prompt.focus();
}

async function listModels() {
  const { models } = await (await request("api/tags")).json();
  const chosen = model.value;
  model.replaceChildren(...models.map(({ name }) => new Option(name, name)));
  if (models.some(({ name }) => name === chosen)) model.value = chosen;
  send.disabled = models.length === 0;
  if (models.length === 0) status.textContent = "There is no model yet: firepot import FILE NAME";
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = prompt.value.trim();
  if (!question || running || send.disabled) return;
  prompt.value = "";
  ask(question);
});

prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});

stop.addEventListener("click", () => running?.abort());

element("clear").addEventListener("click", () => {
  running?.abort();
  messages = [];
  chat.querySelectorAll(".message").forEach((message) => message.remove());
  empty.hidden = false;
  prompt.focus();
});

listModels().catch((error) => {
  status.textContent = error.message;
});

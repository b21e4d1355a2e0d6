// The real server with the real model in a home of its own, and Debian's Chromium.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { withTemplate } from "./gguf.mjs";

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
export const MODEL = "smollm2:135m";
export const THINKER = "thinker:135m";
const FIREPOT = join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "release", "firepot");
export const MODEL_FILE = join(ROOT, "target", "test-model", "SmolLM2-135M-Instruct.Q4_1.gguf");
const THINKING_TEMPLATE =
  "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}" +
  "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}";
export const CHROMIUM_ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
/** Bound of every wait for the model, far beyond what a healthy machine needs. */
export const PATIENCE = { timeout: 60_000 };

export async function startStack({ thinker = false, args = [] } = {}) {
  const home = mkdtempSync(join(tmpdir(), "firepot-page-"));
  const load = (file, name) => execFileSync(FIREPOT, ["--home", home, "import", file, name], { stdio: "ignore" });
  load(MODEL_FILE, MODEL);
  if (thinker) {
    const file = join(home, "thinker.gguf");
    withTemplate(MODEL_FILE, file, THINKING_TEMPLATE);
    load(file, THINKER);
    rmSync(file);
  }
  const stack = new Stack(home, args);
  await stack.start("0");
  stack.browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: CHROMIUM_ARGS });
  return stack;
}

class Stack {
  #server;
  #port;

  constructor(home, args) {
    this.home = home;
    this.args = args;
  }

  async start(port = this.#port) {
    const record = join(this.home, "run", "server.json");
    rmSync(record, { force: true });
    // Models of other programs on this machine are none of the tests' business, but for those of a test.
    const env = { ...process.env, OLLAMA_MODELS: join(this.home, "ollama"), HF_HUB_CACHE: join(this.home, "none") };
    const server = spawn(FIREPOT, ["--home", this.home, "--port", port, "serve", ...this.args], { stdio: "ignore", env });
    for (let tries = 0; !existsSync(record); tries++) {
      assert.ok(tries < 500 && server.exitCode === null, "the server did not listen");
      await sleep(20);
    }
    const { address } = JSON.parse(readFileSync(record, "utf8"));
    this.#server = server;
    this.#port = address.split(":").at(-1);
    this.address = `http://${address}`;
  }

  /** Ends the server at once, as `kill -9` does. */
  async kill() {
    await this.#end("SIGKILL");
  }

  /** Ends the runner at once; `false` when there is none. */
  killRunner() {
    const threads = `/proc/${this.#server.pid}/task`;
    const children = readdirSync(threads).map((thread) => readFileSync(join(threads, thread, "children"), "utf8"));
    const pids = children.flatMap((line) => line.split(" ").filter(Boolean).map(Number));
    for (const pid of pids) process.kill(pid, "SIGKILL");
    return pids.length > 0;
  }

  async #end(signal) {
    const ended = new Promise((resolve) => this.#server.once("exit", resolve));
    this.#server.kill(signal);
    await ended;
  }

  async stop() {
    await this.browser?.close();
    await this.#end("SIGTERM");
    rmSync(this.home, { recursive: true, force: true });
  }

  async call(method, path, body) {
    const response = await fetch(this.address + path, {
      method,
      headers: { "content-type": "application/json" },
      body: body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body),
    });
    const text = await response.text();
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${text.slice(0, 300)}`);
    return text === "" ? null : JSON.parse(text);
  }

  /** What a command of the program prints. */
  run(...args) {
    return execFileSync(FIREPOT, ["--home", this.home, ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  }

  /** A stored chat with these turns, questions and answers in turn. */
  async chat(turns, title) {
    const chat = await this.call("POST", "/firepot/v1/chats", { model: MODEL, ...(title && { title }) });
    const messages = turns.map((content, index) => ({ role: index % 2 ? "assistant" : "user", content }));
    for (let at = 0; at < messages.length; at += 100) {
      await this.call("POST", `/firepot/v1/chats/${chat.id}/messages`, messages.slice(at, at + 100));
    }
    return chat.id;
  }

  /** A page in a browser profile of its own, and what must not happen in it. */
  async page({ path = "/", storage, ...options } = {}) {
    const context = await this.browser.newContext(options);
    if (storage) await context.addInitScript(storage);
    const page = await context.newPage();
    const foreign = [];
    const problems = [];
    page.on("request", (request) => request.url().startsWith(this.address) || request.url().startsWith("blob:") || foreign.push(request.url()));
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
    page.on("pageerror", (error) => problems.push(String(error)));
    await page.route("**/firepot/v1/chats", bounded);
    await page.goto(this.address + path);
    await page.locator("#prompt").waitFor();
    await page.locator("#model", { hasText: ":" }).waitFor();
    const close = () => context.close();
    return { page, foreign, problems, context, close };
  }
}

/** A new chat without settings gets some: a small model can talk for minutes. */
function bounded(route) {
  const request = route.request();
  if (request.method() !== "POST") return route.continue();
  const body = request.postDataJSON();
  if (Object.keys(body.settings).length === 0) body.settings = { temperature: 0, max_tokens: 60 };
  return route.continue({ postData: JSON.stringify(body) });
}

export const answers = (page) => page.getByRole("article", { name: "Answer" });
export const questions = (page) => page.getByRole("article", { name: "Question" });

/** Asks and waits until the answer has its numbers. */
export async function ask(page, question) {
  const before = await answers(page).count();
  await begin(page, question);
  const answer = answers(page).nth(before);
  await answer.locator(".stats").waitFor(PATIENCE);
  return answer;
}

export async function begin(page, question) {
  await page.locator("#prompt").fill(question);
  await page.locator("#prompt").press("Enter");
}

/** Changes the open chat's settings, so that an answer is short, or long, and always the same. */
export async function settings(stack, page, settings) {
  const id = /c\/(.+)$/.exec(page.url())?.[1];
  await stack.call("PATCH", `/firepot/v1/chats/${id}`, { settings });
}

// Measures the page in Debian's Chromium against the real server and writes docs/page.md and docs/page.json:
// how soon a cold page is usable, what a fast answer costs the browser, how a chat of 400 turns scrolls and types.
//
// The fast answer is played by a proxy before the server: 2,000 tokens at exactly 60 in a second, which no real model on a
// shared machine can hold. Everything else is the real server's.
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { cpus } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { answers, MODEL, ROOT, startStack } from "./stack.mjs";

const READY_RUNS = 11;
const STREAM_RUNS = 3;
const STOP_RUNS = 20;
const TOKENS = 2000;
const TOKENS_PER_SECOND = 60;
const TURNS = 400;
const TICKS_PER_SECOND = 100;
/** Shorter frames are not reported by the browser (Long Animation Frames API). */
const LONG_FRAME_MS = 50;

const PIECE =
  "The length of a vector $v$ is $\\sqrt{\\sum_i v_i^2}$, which **follows** from Pythagoras. A list:\n\n- first item with `code`\n- second item\n\n" +
  "| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\ndef length(v):\n    return sum(x * x for x in v) ** 0.5\n```\n\n\\[ \\int_0^1 x\\,dx = \\tfrac{1}{2} \\]\n\n";

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** Time from the start of the navigation until the chat box can be used and the model is known, with an empty cache. */
async function ready(stack) {
  const context = await stack.browser.newContext();
  const page = await context.newPage();
  let requests = 0;
  page.on("request", () => requests++);
  const session = await context.newCDPSession(page);
  await session.send("Network.enable");
  let bytes = 0;
  session.on("Network.loadingFinished", ({ encodedDataLength }) => (bytes += encodedDataLength));
  const start = performance.now();
  await page.goto(stack.address, { waitUntil: "commit" });
  await page.locator("#prompt:enabled").waitFor();
  const boxMs = performance.now() - start;
  await page.locator("#model", { hasText: MODEL }).waitFor();
  const modelMs = performance.now() - start;
  await context.close();
  return { box_ms: boxMs, model_ms: modelMs, requests, bytes };
}

/** Passes everything on to the real server, but plays the answer to a question itself. */
function player(upstream) {
  const listeners = new Set();
  const event = (name, data) => listeners.forEach((response) => response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`));
  let done = () => {};
  const finished = new Promise((resolve) => (done = resolve));

  async function play(id, parent) {
    const start = performance.now();
    event("progress", { id, state: "decode", prompt_tokens: 100, context_length: 8192, ttft_ms: 50, tokens: 0, decode_ms: 0 });
    const source = PIECE.repeat(Math.ceil((TOKENS * 4) / PIECE.length));
    for (let token = 0; token < TOKENS; token++) {
      await sleep(Math.max(0, start + (token * 1000) / TOKENS_PER_SECOND - performance.now()));
      event("delta", { id, content: source.slice(token * 4, token * 4 + 4), tokens: token + 1, decode_ms: performance.now() - start });
    }
    const content = source.slice(0, TOKENS * 4);
    const stats = { finish: "stop", prompt_tokens: 100, completion_tokens: TOKENS, decode_ms: performance.now() - start };
    event("message", { message: message(id, parent, "assistant", content, stats), leaf_id: id });
    done();
  }

  const message = (id, parent, role, content, stats = null) => ({
    id, parent_id: parent, created_at: new Date().toISOString(), role, content, thinking: null, model: MODEL, stats, state: stats || role === "user" ? "complete" : "partial",
  });

  const server = createServer((asked, response) => {
    if (asked.url.endsWith("/answer")) {
      const [question, answer] = [randomUUID(), randomUUID()];
      const messages = [message(question, null, "user", "Go"), message(answer, question, "assistant", "")];
      response.writeHead(202, { "content-type": "application/json" }).end(JSON.stringify({ messages, leaf_id: answer }));
      for (const one of messages) event("message", { message: one, leaf_id: answer });
      void play(answer, question);
      return;
    }
    const headers = { ...asked.headers, host: new URL(upstream).host };
    delete headers.origin;
    const forward = request(upstream + asked.url, { method: asked.method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      if (asked.url.includes("/events")) {
        listeners.add(response);
        response.on("close", () => {
          listeners.delete(response);
          forward.destroy();
        });
      }
      answer.pipe(response);
    });
    forward.on("error", () => response.destroy());
    asked.pipe(forward);
  });
  return { server, finished };
}

/** CPU time of every process under this one whose command line holds `needle`, in seconds. */
function cpuSeconds(needle) {
  let ticks = 0;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (!readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(needle)) continue;
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ");
      ticks += Number(fields[11]) + Number(fields[12]);
    } catch {
      // It ended meanwhile.
    }
  }
  return ticks / TICKS_PER_SECOND;
}

/** Notes frames that took longer than the browser calls long; costs nothing while there are none. */
const watchLongFrames = (page) =>
  page.evaluate(() => {
    window.longFrames = [];
    new PerformanceObserver((list) => window.longFrames.push(...list.getEntries().map((entry) => entry.duration))).observe({ type: "long-animation-frame" });
  });

/** Records the gaps between frames in the page until asked for. */
const watchFrames = (page) =>
  page.evaluate(() => {
    const gaps = [];
    let last = performance.now();
    const frame = (now) => {
      gaps.push(now - last);
      last = now;
      window.frameWatch = requestAnimationFrame(frame);
    };
    window.frameWatch = requestAnimationFrame(frame);
    window.frameGaps = gaps;
  });
const frameGaps = (page) =>
  page.evaluate(() => {
    cancelAnimationFrame(window.frameWatch);
    return window.frameGaps.slice(1);
  });

async function stream(stack) {
  const { server, finished } = player(stack.address);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const chat = await stack.call("POST", "/firepot/v1/chats", { model: MODEL });
  const context = await stack.browser.newContext();
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${server.address().port}/#/c/${chat.id}`);
  await page.locator("#model", { hasText: MODEL }).waitFor();
  const session = await context.newCDPSession(page);
  await session.send("Performance.enable");
  const metric = async (name) => (await session.send("Performance.getMetrics")).metrics.find((metric) => metric.name === name).value;
  await watchLongFrames(page);
  const [start, before, tasks] = [performance.now(), cpuSeconds("chromium"), await metric("TaskDuration")];
  await page.locator("#prompt").fill("Go");
  await page.locator("#prompt").press("Enter");
  await finished;
  await page.locator(".stats").waitFor();
  const seconds = (performance.now() - start) / 1000;
  const result = {
    seconds,
    cpu_all_processes: (cpuSeconds("chromium") - before) / seconds,
    cpu_main_thread: ((await metric("TaskDuration")) - tasks) / seconds,
  };
  const frames = await page.evaluate(() => window.longFrames);
  await session.send("HeapProfiler.collectGarbage");
  result.longest_frame_ms = Math.max(LONG_FRAME_MS, ...frames);
  result.frames_over_100_ms = frames.filter((frame) => frame > 100).length;
  result.heap_bytes = await metric("JSHeapUsedSize");
  await context.close();
  server.closeAllConnections();
  server.close();
  return result;
}

async function longChat(stack) {
  const turns = Array.from({ length: TURNS }, (_, index) => (index % 2 ? PIECE : `Question ${index}: how is the length of a vector computed?`));
  const id = await stack.chat(turns);
  const context = await stack.browser.newContext({ viewport: { width: 1200, height: 800 } });
  const page = await context.newPage();
  const start = performance.now();
  await page.goto(`${stack.address}/#/c/${id}`);
  await answers(page).last().locator(".katex").first().waitFor();
  const openMs = performance.now() - start;
  await page.waitForFunction((turns) => document.querySelectorAll("article").length === turns, TURNS);
  await watchFrames(page);
  await page.locator("main").hover();
  for (let step = 0; step < 100; step++) {
    await page.mouse.wheel(0, -600);
    await sleep(16);
  }
  const scroll = await frameGaps(page);
  await page.evaluate(() => {
    window.delays = [];
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => entry.name === "keydown" && window.delays.push(entry.duration))).observe({ type: "event", durationThreshold: 16 });
  });
  await page.locator("#prompt").pressSequentially("A question that is typed at the speed of a quick typist.", { delay: 40 });
  await sleep(500);
  const delays = await page.evaluate(() => window.delays);
  await context.close();
  return { open_ms: openMs, scroll_largest_gap_ms: Math.max(...scroll), scroll_median_gap_ms: median(scroll), typing_largest_ms: Math.max(16, ...delays) };
}

/** From a click on Stop to the answer's final form on the screen: the engine has ended it by then. */
async function stopping(stack) {
  const chat = await stack.call("POST", "/firepot/v1/chats", { model: MODEL, settings: { temperature: 1 } });
  const context = await stack.browser.newContext();
  const page = await context.newPage();
  await page.goto(`${stack.address}/#/c/${chat.id}`);
  await page.locator("#model", { hasText: MODEL }).waitFor();
  const times = [];
  for (let run = 0; times.length < STOP_RUNS && run < 3 * STOP_RUNS; run++) {
    await page.locator("#prompt").fill("Tell me a very long story about a river and all of its fish.");
    await page.locator("#prompt").press("Enter");
    await answers(page).last().locator(".live", { hasText: "tokens/s" }).waitFor();
    const ms = await page.evaluate(async () => {
      const stop = document.getElementById("stop");
      if (!stop) return null;
      const start = performance.now();
      stop.click();
      while (document.getElementById("stop")) await new Promise((resolve) => requestAnimationFrame(resolve));
      return performance.now() - start;
    });
    await page.locator("#send").waitFor();
    if (ms !== null && (await answers(page).last().innerText()).includes("Stopped.")) times.push({ ms });
  }
  await context.close();
  return times;
}

function bundle() {
  const dist = join(ROOT, "web", "dist");
  const files = readdirSync(dist, { recursive: true }).filter((name) => statSync(join(dist, name)).isFile());
  const sum = (names) => names.reduce((total, name) => total + statSync(join(dist, name)).size, 0);
  const sent = files.filter((name) => name.endsWith(".gz") || !files.includes(`${name}.gz`));
  return { all_bytes: sum(sent), script_and_style_bytes: sum(sent.filter((name) => /\.(js|css|html)\.gz$/.test(name))) };
}

const stack = await startStack();
try {
  const samples = { day: new Date().toISOString().slice(0, 10), machine: `${cpus()[0].model}, ${cpus().length} cores`, browser: stack.browser.version(), bundle: bundle(), ready: [], stream: [], long_chat: [], stop: [] };
  for (let run = 0; run < READY_RUNS; run++) samples.ready.push(await ready(stack));
  for (let run = 0; run < STREAM_RUNS; run++) samples.stream.push(await stream(stack));
  for (let run = 0; run < STREAM_RUNS; run++) samples.long_chat.push(await longChat(stack));
  samples.stop = await stopping(stack);
  writeFileSync(join(ROOT, "docs", "page.json"), `${JSON.stringify(samples, null, 1)}\n`);
  writeFileSync(join(ROOT, "docs", "page.md"), report(samples));
  console.log(report(samples));
} finally {
  await stack.stop();
}

function report({ day, machine, browser, bundle, ready, stream, long_chat, stop }) {
  const of = (list, name) => list.map((sample) => sample[name]);
  const spread = (list, name, digits = 0, factor = 1) => {
    const values = of(list, name).map((value) => value * factor);
    return `${median(values).toFixed(digits)} (${Math.min(...values).toFixed(digits)} to ${Math.max(...values).toFixed(digits)})`;
  };
  const row = (what, value, reach) => `| ${what} | ${value} | ${reach} |`;
  return `# What the chat page costs

\`cargo xtask bench-page\` wrote this; the samples are in [page.json](page.json). Median and range of ${ready.length} cold starts and ${stream.length} runs of the
rest, ${day}, ${machine}, Chromium ${browser} without a GPU: it paints on the same cores.

| what | measured | to reach |
|---|---|---|
${row("cold page: chat box usable", `${spread(ready, "box_ms")} ms`, "≤ 500 ms")}
${row("cold page: model known", `${spread(ready, "model_ms")} ms`, "")}
${row("cold page: requests", spread(ready, "requests"), "≤ 12")}
${row("cold page: received", `${spread(ready, "bytes", 0, 1e-3)} kB`, "")}
${row("everything that the server can send, compressed", `${(bundle.all_bytes / 1e3).toFixed(0)} kB, of it scripts and styles ${(bundle.script_and_style_bytes / 1e3).toFixed(0)} kB`, "≤ 600 kB")}
${row("60 tokens/s for 2,000 tokens: all of the browser's processes", `${spread(stream, "cpu_all_processes", 0, 100)} % of a core`, "≤ 50 %")}
${row("the same, the page's main thread", `${spread(stream, "cpu_main_thread", 0, 100)} % of a core`, "")}
${row("the same, longest frame (shorter ones count as 50 ms)", `${spread(stream, "longest_frame_ms")} ms`, "≤ 100 ms")}
${row("the same, JavaScript heap afterwards", `${spread(stream, "heap_bytes", 1, 1e-6)} MB`, "≤ 25 MB")}
${row("Stop: from the click until the engine has ended the answer and the page shows it, SmolLM2 (20 times)", `${spread(stop, "ms")} ms`, "≤ 100 ms")}
${row("chat of 400 turns: opened, last formula set", `${spread(long_chat, "open_ms")} ms`, "")}
${row("chat of 400 turns: largest gap between frames while scrolling", `${spread(long_chat, "scroll_largest_gap_ms")} ms`, "")}
${row("chat of 400 turns: slowest key press until painted", `${spread(long_chat, "typing_largest_ms")} ms`, "")}
`;
}

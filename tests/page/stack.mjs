// The real server with the real model in a home of its own, and Debian's Chromium.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const FIREPOT = join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "release", "firepot");
const MODEL_FILE = join(ROOT, "target", "test-model", "SmolLM2-135M-Instruct.Q4_1.gguf");
const CHROMIUM_ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export async function startStack() {
  const home = mkdtempSync(join(tmpdir(), "firepot-page-"));
  execFileSync(FIREPOT, ["--home", home, "import", MODEL_FILE, "smollm2:135m"], { stdio: "ignore" });
  const server = spawn(FIREPOT, ["--home", home, "--port", "0", "serve"], { stdio: "ignore" });
  const record = join(home, "run", "server.json");
  for (let tries = 0; !existsSync(record); tries++) {
    assert.ok(tries < 500 && server.exitCode === null, "the server did not listen");
    await sleep(20);
  }
  const address = `http://${JSON.parse(readFileSync(record, "utf8")).address}`;
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: CHROMIUM_ARGS });
  const stop = async () => {
    await browser.close();
    const ended = new Promise((resolve) => server.once("exit", resolve));
    server.kill("SIGTERM");
    await ended;
    rmSync(home, { recursive: true, force: true });
  };
  return { address, browser, stop };
}

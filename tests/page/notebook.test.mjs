// The chat in a notebook: JupyterLab in Chromium, the wheel in its Python, the real model behind it.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";
import { CHROMIUM_ARGS, MODEL, MODEL_FILE, PATIENCE, ROOT } from "./stack.mjs";

const TARGET = process.env.CARGO_TARGET_DIR ?? join(ROOT, "target");
const TOKEN = "a-test";
const folder = mkdtempSync(join(tmpdir(), "firepot-notebook-"));
const home = join(folder, "home");
const bin = join(folder, "venv", "bin");
let jupyter, browser, address;

function cell(source) {
  return { cell_type: "code", execution_count: null, id: `c${Math.random().toString(36).slice(2)}`, metadata: {}, outputs: [], source };
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

before(async () => {
  const wheel = readdirSync(join(TARGET, "dist")).find((name) => /^firepot-.*\.whl$/.test(name));
  assert.ok(wheel, "there is no wheel: make wheel");
  execFileSync(join(ROOT, "tests", "notebooks", "venv.sh"), [join(folder, "venv")]);
  execFileSync(join(bin, "python"), ["-m", "pip", "install", "-q", "--no-index", join(TARGET, "dist", wheel)]);
  execFileSync(join(bin, "firepot"), ["--home", home, "import", MODEL_FILE, MODEL], { stdio: "ignore" });
  const cells = [
    cell(`import firepot\nfirepot.up("${MODEL}", home=${JSON.stringify(home)}, port=0, extra=["--no-calibration"])`),
    cell(`firepot.chat(home=${JSON.stringify(home)})`),
  ];
  const notebook = { cells, metadata: { kernelspec: { display_name: "Fresh", language: "python", name: "fresh" } }, nbformat: 4, nbformat_minor: 5 };
  writeFileSync(join(folder, "chat.ipynb"), JSON.stringify(notebook));
  // JupyterLab is the lender's; the kernel is that of the environment with the wheel.
  const kernels = join(folder, "data", "kernels", "fresh");
  mkdirSync(kernels, { recursive: true });
  const argv = [join(bin, "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"];
  writeFileSync(join(kernels, "kernel.json"), JSON.stringify({ argv, display_name: "Fresh", language: "python" }));
  const port = await freePort();
  const args = ["-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", `--port=${port}`, `--IdentityProvider.token=${TOKEN}`, `--ServerApp.root_dir=${folder}`];
  jupyter = spawn(join(TARGET, "notebook-venv", "bin", "python"), args, { stdio: "ignore", env: { ...process.env, JUPYTER_CONFIG_DIR: join(folder, "config"), JUPYTER_DATA_DIR: join(folder, "data") } });
  address = `http://127.0.0.1:${port}`;
  for (let tries = 0; ; tries++) {
    if (await fetch(`${address}/api?token=${TOKEN}`).then((answer) => answer.ok, () => false)) break;
    assert.ok(tries < 300 && jupyter.exitCode === null, "JupyterLab did not listen");
    await sleep(200);
  }
  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: CHROMIUM_ARGS });
});

after(async () => {
  await browser?.close();
  try {
    execFileSync(join(bin, "firepot"), ["--home", home, "down"], { stdio: "ignore" });
  } catch {
    // It never ran.
  }
  if (jupyter && jupyter.exitCode === null) {
    const ended = new Promise((resolve) => jupyter.once("exit", resolve));
    jupyter.kill("SIGTERM");
    await ended;
  }
  rmSync(folder, { recursive: true, force: true });
});

test("a chat in a cell answers, and a restarted kernel shows it again", async () => {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  await page.goto(`${address}/lab/tree/chat.ipynb?token=${TOKEN}`);
  const runAll = async () => {
    await page.getByRole("menuitem", { name: "Run", exact: true }).click();
    await page.getByRole("menuitem", { name: "Run All Cells", exact: true }).click();
  };
  await page.locator(".jp-Notebook").waitFor(PATIENCE);
  // Before the kernel is there, running a cell does nothing.
  await page.getByText("Fresh | Idle").waitFor(PATIENCE);
  await runAll();
  const chat = page.locator(".firepot-chat");
  await chat.waitFor(PATIENCE);
  await chat.getByLabel("Question").fill("Say hello in one short sentence.");
  await chat.getByLabel("Question").press("Enter");
  const answer = chat.locator(".firepot-assistant .firepot-text");
  await page.waitForFunction(() => document.querySelector(".firepot-assistant .firepot-text")?.textContent.length > 3, null, PATIENCE);
  await chat.getByRole("button", { name: "Send" }).waitFor(PATIENCE);
  const said = await answer.first().textContent();
  if (process.env.FIREPOT_NOTEBOOK_PICTURE) await page.screenshot({ path: process.env.FIREPOT_NOTEBOOK_PICTURE });

  // The kernel restarts; the server does not, and the chat is its own.
  await page.getByRole("menuitem", { name: "Kernel", exact: true }).click();
  await page.getByRole("menuitem", { name: /^Restart Kernel and Run All Cells/ }).click();
  await page.getByRole("button", { name: "Confirm Kernel Restart" }).click();
  await page.waitForFunction(
    (said) => [...document.querySelectorAll(".firepot-assistant .firepot-text")].some((part) => part.textContent === said),
    said,
    PATIENCE,
  );
  await chat.getByRole("button", { name: "New chat" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".firepot-chat .firepot-message").length === 0, null, PATIENCE);
});

// The page as a whole: models, settings, files, panels, keyboard, sizes, and who may read it.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { answers, ask, begin, MODEL, PATIENCE, questions, startStack } from "./stack.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let stack;

before(async () => {
  stack = await startStack();
});

after(() => stack?.stop());

test("a cold page is usable after few requests, all of its own origin, with a strict policy", async () => {
  const context = await stack.browser.newContext();
  const page = await context.newPage();
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  const response = await page.goto(stack.address);
  await page.locator("#prompt").waitFor();
  await page.locator("#model", { hasText: MODEL }).waitFor();
  assert.ok(requests.length <= 12, requests.join("\n"));
  assert.ok(requests.every((url) => url.startsWith(stack.address)), requests.join("\n"));
  const policy = response.headers()["content-security-policy"];
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe|https?:|\*/);
  await context.close();
});

test("a model is loaded and unloaded from the switcher, with its size and quantization", async () => {
  const { page, close } = await stack.page();
  await page.locator("#model").click();
  const menu = page.getByRole("group", { name: "Models" });
  assert.match(await menu.innerText(), /Q4_1[^]*98 MB[^]*completion/);
  await menu.getByRole("button", { name: `Load ${MODEL}` }).click();
  await menu.getByText("loaded").waitFor(PATIENCE);
  await menu.getByRole("button", { name: `Unload ${MODEL}` }).click();
  await menu.getByRole("button", { name: `Load ${MODEL}` }).waitFor(PATIENCE);
  await page.keyboard.press("Escape");
  await menu.waitFor({ state: "hidden" });
  await close();
});

test("settings hold for their chat and can be kept as a preset", async () => {
  const { page, close } = await stack.page();
  await page.getByRole("button", { name: "Chat settings" }).click();
  await page.getByRole("spinbutton", { name: "Longest answer" }).fill("3");
  await page.getByRole("textbox", { name: "System prompt" }).fill("Answer briefly.");
  await page.getByRole("spinbutton", { name: "Temperature" }).fill("0");
  await page.getByRole("textbox", { name: "Name of the preset" }).fill("brief");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByRole("combobox", { name: "Preset" }).locator("option", { hasText: "brief" }).waitFor({ state: "attached" });
  const answer = await ask(page, "Tell me about rivers.");
  assert.match(await answer.locator(".stats").innerText(), /3 tokens/);
  assert.match(await answer.innerText(), /limit of tokens/);
  const id = /c\/(.+)$/.exec(page.url())[1];
  const { settings } = await stack.call("GET", `/firepot/v1/chats/${id}`);
  assert.deepEqual(settings, { max_tokens: 3, system: "Answer briefly.", temperature: 0 });
  await page.getByRole("button", { name: "New chat" }).click();
  assert.equal(await page.getByRole("spinbutton", { name: "Longest answer" }).inputValue(), "");
  await page.getByRole("combobox", { name: "Preset" }).selectOption("brief");
  assert.equal(await page.getByRole("spinbutton", { name: "Longest answer" }).inputValue(), "3");
  await page.getByRole("button", { name: "Delete preset brief" }).click();
  await page.getByText("None saved yet").waitFor({ state: "attached" });
  await close();
});

test("text files and long pastes go with the question, other files are refused by name", async () => {
  const { page, close } = await stack.page();
  const files = page.locator('form input[type="file"]');
  await files.setInputFiles({ name: "picture.png", mimeType: "image/png", buffer: Buffer.from([137, 80, 78, 71, 0, 255, 254]) });
  await page.locator(".toast", { hasText: "picture.png is not a text file" }).waitFor();
  await files.setInputFiles({ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("The secret word is heron.") });
  await page.locator("form li", { hasText: "notes.txt" }).waitFor();
  await page.locator("#prompt").evaluate((area, text) => {
    const data = new DataTransfer();
    data.setData("text/plain", text);
    area.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
  }, "long paste ".repeat(500));
  await page.locator("form li", { hasText: "Pasted text.txt" }).waitFor();
  await page.getByRole("button", { name: "Remove Pasted text.txt" }).click();
  await ask(page, "What is the secret word?");
  await questions(page).last().locator("summary", { hasText: "notes.txt" }).click();
  await questions(page).last().locator("pre", { hasText: "heron" }).waitFor();
  const id = /c\/(.+)$/.exec(page.url())[1];
  const [question, answer] = (await stack.call("GET", `/firepot/v1/chats/${id}`)).messages;
  assert.equal(question.content, "What is the secret word?");
  assert.ok(answer.stats.prompt_tokens > 20, "the model read the file");
  await close();
});

test("the stack panel tells of machine, runner and queue, and why a runner was restarted", async () => {
  const { page, close } = await stack.page();
  await ask(page, "Say hi.");
  await page.getByRole("button", { name: "State of the stack" }).click();
  const panel = page.getByRole("complementary", { name: "State of the stack" });
  await panel.getByText("Memory, measured").waitFor(PATIENCE);
  await panel.getByText(/cores/).first().waitFor(PATIENCE);
  const words = await panel.innerText();
  for (const part of [/cores/, /answers wait or run/, /ready/, /Restarts\s+0/, /KV cells/]) assert.match(words, part);
  await panel.getByText("Why it was loaded like this").click();
  await panel.locator("li").first().waitFor();
  const killed = await stack.killRunner();
  assert.ok(killed);
  await begin(page, "Say hi again.");
  await panel.getByText(/Restarts\s*/).waitFor();
  await page.waitForFunction(() => /Restarts\s+1;[^]*ended/.test(document.querySelector("aside")?.innerText ?? ""), null, PATIENCE);
  await answers(page).last().locator(".stats, .failed").first().waitFor(PATIENCE);
  await close();
});

test("the keyboard does what the help says", async () => {
  const { page, close } = await stack.page();
  await page.keyboard.press("Control+/");
  await page.getByRole("dialog", { name: "Help" }).getByText("Search chats").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await page.keyboard.press("Control+b");
  await page.getByRole("navigation", { name: "Chats" }).waitFor({ state: "hidden" });
  await page.keyboard.press("Control+b");
  await ask(page, "Say hello.");
  await page.keyboard.press("Control+Shift+O");
  await page.getByText("What would you like to know?").waitFor();
  await page.getByRole("button", { name: "Help" }).focus();
  await page.keyboard.press("Shift+Escape");
  assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
  await close();
});

test("the theme is kept, and a draft is kept for its chat", async () => {
  const { page, close } = await stack.page({ colorScheme: "dark" });
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  assert.equal(await theme(), "dark");
  await page.getByRole("button", { name: "Theme: system" }).click();
  assert.equal(await theme(), "light");
  await page.locator("#prompt").fill("half a question");
  await page.reload();
  await page.locator("#prompt").waitFor();
  assert.equal(await theme(), "light");
  assert.equal(await page.locator("#prompt").inputValue(), "half a question");
  await close();
});

for (const [what, storage] of [
  ["denied", () => Object.defineProperty(window, "localStorage", { get: () => { throw new DOMException("denied", "SecurityError"); } })],
  ["full", () => { Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); }; }],
]) {
  test(`the page works when localStorage is ${what}`, async () => {
    const { page, problems, close } = await stack.page({ storage });
    await ask(page, "Say yes.");
    await page.getByRole("button", { name: /^Theme/ }).click();
    assert.deepEqual(problems, []);
    await close();
  });
}

for (const [what, options] of [
  ["desktop", { viewport: { width: 1280, height: 800 } }],
  ["phone", { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }],
]) {
  test(`labels and contrast satisfy axe: ${what}, light and dark`, async () => {
    const id = await stack.chat(["What is $x$?", "# A\n\n`code` and $x^2$ and [a](https://example.org)\n\n```python\n# comment\ndef f(x): return 'text' + 1\n```\n\n| a | b |\n|--|--|\n| 1 | 2 |"]);
    for (const colorScheme of ["light", "dark"]) {
      const { page, close } = await stack.page({ ...options, colorScheme, path: `/#/c/${id}` });
      await answers(page).first().locator(".hljs-keyword").first().waitFor();
      await answers(page).first().locator(".katex").first().waitFor();
      const views = {
        chat: async () => undefined,
        models: () => page.locator("#model").click(),
        settings: async () => {
          await page.keyboard.press("Escape");
          await page.getByRole("button", { name: "Chat settings" }).click();
          await page.getByRole("complementary").waitFor();
        },
        stack: async () => {
          await page.getByRole("complementary").getByRole("button", { name: "Close" }).click();
          await page.getByRole("button", { name: "State of the stack" }).click();
          await page.getByRole("complementary").waitFor();
        },
        search: async () => {
          await page.getByRole("complementary").getByRole("button", { name: "Close" }).click();
          await page.keyboard.press("Control+k");
          await page.getByRole("dialog").waitFor();
        },
      };
      for (const [view, go] of Object.entries(views)) {
        await go();
        assert.deepEqual(await violations(page), [], `${view}, ${colorScheme}`);
      }
      await close();
    }
  });
}

async function violations(page) {
  // Run by the debugger, which the page's policy does not bind.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 150)).join(" | ")}`);
}

test("on a phone nothing is too wide and the list of chats opens over the page", async () => {
  const { page, close } = await stack.page({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok((await overflow()) <= 0);
  assert.equal(await page.getByRole("navigation", { name: "Chats" }).count(), 0);
  await page.getByRole("button", { name: "Chats", exact: true }).click();
  await page.getByRole("navigation", { name: "Chats" }).waitFor();
  await page.getByRole("button", { name: "Close the list of chats" }).click({ position: { x: 340, y: 400 } });
  await page.getByRole("navigation", { name: "Chats" }).waitFor({ state: "hidden" });
  await ask(page, "Say hello.");
  assert.ok((await overflow()) <= 0);
  await close();
});

test("a chat of 400 turns opens at its end, shows all of them, and keeps its place", async () => {
  const turns = Array.from({ length: 400 }, (_, index) => `Turn ${index}: **text** with \`code\` and a list\n\n- one\n- two`);
  const id = await stack.chat(turns);
  const { page, close } = await stack.page({ path: `/#/c/${id}` });
  await answers(page).last().filter({ hasText: "Turn 399" }).waitFor();
  await page.waitForFunction(() => document.querySelectorAll("article").length === 400, null, PATIENCE);
  const fromEnd = await page.locator("main").evaluate((main) => main.scrollHeight - main.scrollTop - main.clientHeight);
  assert.ok(fromEnd < 100, `${fromEnd} px from the end`);
  await page.locator("main").evaluate((main) => (main.scrollTop = 0));
  await questions(page).first().filter({ hasText: "Turn 0" }).waitFor();
  await close();
});

// The page of a server that asks for keys: by a link, by a key, and what it shows of keys.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { ask, MODEL, PATIENCE, startStack } from "./stack.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let stack;

before(async () => {
  stack = await startStack({ args: ["--require-key"] });
});

after(() => stack?.stop());

/** A browser profile of its own. */
async function browser() {
  const context = await stack.browser.newContext();
  const page = await context.newPage();
  return { context, page, close: () => context.close() };
}

const link = (...more) => /http\S+\/login#\S+/.exec(stack.run("key", "link", "phone", ...more))[0];

async function enter(page, ...more) {
  await page.goto(link(...more));
  await page.locator("#prompt").waitFor(PATIENCE);
  await page.locator("#model", { hasText: MODEL }).waitFor(PATIENCE);
}

test("a login link opens the page once, and leaves no secret in address, history or scripts' reach", async () => {
  const one = await browser();
  const address = link();
  await one.page.goto(address);
  await one.page.locator("#prompt").waitFor(PATIENCE);
  await one.page.locator("#model", { hasText: MODEL }).waitFor(PATIENCE);
  assert.equal(new URL(one.page.url()).pathname, "/");
  const seen = await one.page.evaluate(() => document.cookie + location.href + JSON.stringify(localStorage) + JSON.stringify(performance.getEntries()));
  assert.doesNotMatch(seen, /fp[lsk]_/);
  const answer = await ask(one.page, "Name the capital of France.");
  assert.match(await answer.locator(".stats").innerText(), /tokens/);
  await one.page.goBack().catch(() => null);
  assert.doesNotMatch(one.page.url(), /fpl_/);

  const two = await browser();
  await two.page.goto(address);
  await two.page.getByText("This link was used already").waitFor(PATIENCE);
  assert.equal(await two.page.locator("#prompt").count(), 0);
  await Promise.all([one.close(), two.close()]);
});

test("without a session the page asks for a key, takes a right one, and shows nothing before", async () => {
  const { page, close } = await browser();
  await page.goto(`${stack.address}/#/c/0192f0c1-2b3c-7d4e-8f50-000000000000`);
  const field = page.getByLabel("Key", { exact: true });
  await field.waitFor(PATIENCE);
  assert.equal(await page.getByRole("button", { name: "New chat" }).count(), 0);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(({ id }) => id), []);
  await field.fill("fpk_wrong");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("wrong, revoked or expired").waitFor();
  await field.fill(stack.run("key", "create", "typed"));
  await page.getByRole("button", { name: "Log in" }).click();
  await page.locator("#prompt").waitFor(PATIENCE);
  await close();
});

test("keys are made, shown once, listed and revoked on the page, and a revoked session is out at once", async () => {
  const [admin, phone] = [await browser(), await browser()];
  await enter(admin.page, "--scopes", "admin");
  await admin.page.getByRole("button", { name: "Keys", exact: true }).click();
  const panel = admin.page.getByRole("complementary", { name: "Keys" });
  await panel.getByRole("textbox", { name: "New key or link" }).fill("script");
  await panel.getByRole("button", { name: "Make a key" }).click();
  const shown = panel.getByRole("region", { name: "New secret" });
  const key = await shown.locator("code").innerText();
  assert.match(key, /^fpk_[0-9a-f]{16}_[0-9a-f]{64}$/);
  const status = async () => (await fetch(`${stack.address}/api/tags`, { headers: { authorization: `Bearer ${key}` } })).status;
  assert.equal(await status(), 200);
  await admin.page.evaluate(AXE);
  const { violations } = await admin.page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(({ id }) => id), []);
  await panel.getByRole("button", { name: "Revoke script" }).click();
  await panel.getByRole("button", { name: "Revoke script" }).waitFor({ state: "detached" });
  assert.equal(await status(), 401);

  await panel.getByRole("textbox", { name: "New key or link" }).fill("tablet");
  await panel.getByRole("button", { name: "Make a login link" }).click();
  await shown.getByText("Link for tablet").waitFor();
  await phone.page.goto(await shown.locator("code").innerText());
  await phone.page.locator("#prompt").waitFor(PATIENCE);
  await admin.page.reload();
  await admin.page.getByRole("button", { name: "Keys", exact: true }).click();
  await panel.getByRole("button", { name: "Revoke tablet" }).click();
  // Its stream of events breaks off, and the next one is refused.
  await phone.page.getByLabel("Key", { exact: true }).waitFor(PATIENCE);

  await panel.getByRole("button", { name: "Log out" }).click();
  await admin.page.getByLabel("Key", { exact: true }).waitFor(PATIENCE);
  await Promise.all([admin.close(), phone.close()]);
});

test("a page of another origin can neither read nor send anything, session or not", async () => {
  const { page, context, close } = await browser();
  await enter(page, "--scopes", "admin");
  const key = stack.run("key", "create", "look", "--scopes", "admin");
  const chats = async () => (await (await fetch(`${stack.address}/firepot/v1/chats`, { headers: { authorization: `Bearer ${key}` } })).json()).chats.length;
  const before = await chats();
  const other = await context.newPage();
  const port = new URL(stack.address).port;
  // Another origin of the same site: the cookie goes along, as it would from a page on another port.
  await other.route(`http://127.0.0.1:1/**`, (route) => route.fulfill({ contentType: "text/html", body: "<p>evil</p>" }));
  await other.goto("http://127.0.0.1:1/");
  const tried = await other.evaluate(async (base) => {
    const read = await fetch(`${base}/api/tags`, { credentials: "include" }).then(() => "read", () => "refused");
    // What becomes of it the page cannot see.
    await fetch(`${base}/firepot/v1/chats`, { method: "POST", mode: "no-cors", credentials: "include", body: "{}" }).catch(() => null);
    const socket = await new Promise((resolve) => {
      const one = new WebSocket(base.replace("http", "ws") + "/firepot/v1/events");
      one.onopen = () => resolve("open");
      one.onerror = () => resolve("refused");
    });
    return { read, socket };
  }, `http://127.0.0.1:${port}`);
  assert.deepEqual(tried, { read: "refused", socket: "refused" });
  assert.equal(await chats(), before);
  await close();
});

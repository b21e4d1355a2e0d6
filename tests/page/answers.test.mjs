// Asking, watching, stopping, going on, going back: turns and their numbers, in the real page on the real model.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { answers, ask, begin, MODEL, PATIENCE, questions, startStack, THINKER } from "./stack.mjs";

let stack;

before(async () => {
  stack = await startStack({ thinker: true });
  await stack.call("POST", "/api/generate", { model: MODEL, prompt: "hi", stream: false, options: { num_predict: 1 } });
});

after(() => stack?.stop());

/** A chat with settings of its own, opened in a new page. */
async function open(settings = {}, model = MODEL) {
  const chat = await stack.call("POST", "/firepot/v1/chats", { model, settings });
  const opened = await stack.page({ path: `/#/c/${chat.id}` });
  return { ...opened, id: chat.id };
}

const withoutSpaces = (text) => text.replaceAll(/\s+/g, "");

const SHORT = { temperature: 0, max_tokens: 12 };
const LONG = { temperature: 0, max_tokens: 600, system: "You tell very long stories and never stop." };
const STORY = "Tell me a very long story about a river and all of its fish.";

test("a question is answered, streamed, with its numbers, and nothing leaves the origin", async () => {
  const { page, foreign, problems, close } = await stack.page();
  await page.locator("#model").click();
  await page.getByRole("group", { name: "Models" }).getByText(MODEL, { exact: true }).click();
  const answer = await ask(page, "What is the capital of France? Answer in one word.");
  assert.match(await answer.locator(".content").innerText(), /\S/);
  const stats = await answer.locator(".stats").innerText();
  for (const part of [/tokens\/s/, /TTFT/, /prompt \d+/, /\d tokens/]) assert.match(stats, part);
  assert.match(page.url(), /#\/c\/[0-9a-f-]{36}$/);
  await page.locator("meter").waitFor();
  assert.match(await page.locator(".memory").innerText(), /MB|GB/);
  assert.match(await page.title(), /capital of France/);
  assert.deepEqual([foreign, problems], [[], []]);
  await close();
});

test("numbers are shown while an answer runs, and Stop reaches the engine at once", async () => {
  const { page, id, close } = await open(LONG);
  await begin(page, STORY);
  const answer = answers(page).last();
  await answer.locator(".live", { hasText: "tokens/s" }).waitFor(PATIENCE);
  assert.match(await answer.locator(".live").innerText(), /TTFT/);
  await page.locator("#stop").click();
  await answer.locator(".stats").waitFor(PATIENCE);
  const text = await answer.locator(".content").innerText();
  assert.match(await answer.innerText(), /Stopped\./);
  const { runners } = await stack.call("GET", "/firepot/v1/runners");
  assert.equal(runners.find(({ model }) => model === MODEL).in_use, 0);
  await sleep(300);
  assert.equal(await answer.locator(".content").innerText(), text);

  const before = (await stack.call("GET", `/firepot/v1/chats/${id}`)).messages.at(-1);
  await answer.getByRole("button", { name: "Continue" }).click();
  await page.locator("#stop").waitFor(PATIENCE);
  await sleep(400);
  await page.keyboard.press("Escape");
  await page.locator("#send").waitFor(PATIENCE);
  const now = (await stack.call("GET", `/firepot/v1/chats/${id}`)).messages.at(-1);
  assert.equal(now.id, before.id);
  assert.ok(now.content.startsWith(before.content) && now.content.length > before.content.length, "it goes on from its text");
  await close();
});

test("answering again and editing make branches, and going between them keeps them all", async () => {
  const { page, id, close } = await open({ temperature: 1.2, max_tokens: 12 });
  await ask(page, "Name a colour.");
  const first = await answers(page).last().locator(".content").innerText();
  await answers(page).last().getByRole("button", { name: "Answer again" }).click();
  await page.getByText("2/2").waitFor(PATIENCE);
  await answers(page).last().locator(".stats").waitFor(PATIENCE);
  await page.getByRole("button", { name: "Previous branch" }).click();
  await page.getByText("1/2").waitFor();
  assert.equal(await answers(page).last().locator(".content").innerText(), first);

  await questions(page).last().getByRole("button", { name: "Edit" }).click();
  const editor = page.getByRole("textbox", { name: "Edited question" });
  assert.equal(await editor.inputValue(), "Name a colour.");
  await editor.fill("Name an animal.");
  await editor.press("Enter");
  await questions(page).last().getByText("2/2").waitFor(PATIENCE);
  await answers(page).last().locator(".stats").waitFor(PATIENCE);
  assert.equal(await questions(page).last().locator(".content").innerText(), "Name an animal.");
  await questions(page).last().getByRole("button", { name: "Previous branch" }).click();
  await page.locator(".content", { hasText: "Name a colour." }).waitFor();
  // The branch that is shown is stored, so that a reload shows the same.
  await page.reload();
  await page.locator(".content", { hasText: "Name a colour." }).waitFor();
  assert.equal((await stack.call("GET", `/firepot/v1/chats/${id}`)).messages.length, 5);
  await close();
});

test("an empty box and ArrowUp edit the last question, and Escape gives up", async () => {
  const { page, close } = await open(SHORT);
  await ask(page, "Say hello.");
  await page.locator("#prompt").press("ArrowUp");
  await page.getByRole("textbox", { name: "Edited question" }).press("Escape");
  assert.equal(await page.getByRole("textbox", { name: "Edited question" }).count(), 0);
  assert.equal(await questions(page).count(), 1);
  await close();
});

test("copy gives the answer's source, delete takes the turn and what follows", async () => {
  const id = await stack.chat(["One?", "**bold** answer", "Two?", "second"]);
  const { page, context, close } = await stack.page({ path: `/#/c/${id}` });
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await answers(page).first().getByRole("button", { name: "Copy", exact: true }).first().click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "**bold** answer");
  await questions(page).nth(1).getByRole("button", { name: "Delete from here" }).click();
  await page.waitForFunction(() => document.querySelectorAll("article").length === 2);
  assert.equal((await stack.call("GET", `/firepot/v1/chats/${id}`)).messages.length, 2);
  await close();
});

test("thinking is folded with its duration, opens while it runs, and stays out of the answer", async () => {
  const { page, id, close } = await open({ temperature: 0, think_budget: 120, max_tokens: 160 }, THINKER);
  await begin(page, "Tell me a story about a river.");
  const summary = answers(page).last().locator("summary");
  await summary.filter({ hasText: /^Thinking/ }).waitFor(PATIENCE);
  await summary.click();
  await answers(page).last().locator("details .text").filter({ hasText: /\w/ }).waitFor(PATIENCE);
  await answers(page).last().locator(".stats").waitFor(PATIENCE);
  assert.match(await summary.innerText(), /^Thought for [\d.]+ (ms|s)$/);
  const thinking = await answers(page).last().locator("details .text").innerText();
  const content = await answers(page).last().locator(".content").last().innerText();
  // Each is what is stored, to the word.
  const stored = (await stack.call("GET", `/firepot/v1/chats/${id}`)).messages.at(-1);
  const words = (text) => text.replaceAll(/[^\p{L}\p{N}]+/gu, "");
  assert.equal(words(thinking), words(stored.thinking));
  assert.equal(words(content), words(stored.content));
  assert.ok(content.length > 0 && !content.includes(thinking) && !content.includes("think>"), content);
  // The switch in the composer is there for a model that thinks.
  await page.getByRole("button", { name: "Thinking: auto" }).click();
  await page.getByRole("button", { name: "Thinking: on" }).click();
  await page.getByRole("button", { name: "Thinking: off" }).waitFor();
  await page.waitForTimeout(300);
  await begin(page, "And grass?");
  await answers(page).last().locator(".stats").waitFor(PATIENCE);
  assert.equal(await answers(page).last().locator("summary").count(), 0);
  await close();
});

test("two chats are answered at once and never mix", async () => {
  const [one, two] = await Promise.all([open(LONG), open(LONG)]);
  await begin(one.page, "Tell a long story about a blue whale.");
  await begin(two.page, "Tell a long story about a red car.");
  for (const { page } of [one, two]) await answers(page).last().locator(".live", { hasText: "tokens/s" }).waitFor(PATIENCE);
  for (const { page } of [one, two]) await answers(page).last().locator(".stats").waitFor({ timeout: 120_000 });
  for (const { page, id, close } of [one, two]) {
    const shown = await answers(page).last().locator(".content").innerText();
    const { content } = (await stack.call("GET", `/firepot/v1/chats/${id}`)).messages.at(-1);
    assert.equal(withoutSpaces(shown), withoutSpaces(content));
    await close();
  }
});

test("two tabs on one chat stay in step, and one that comes later sees the whole answer", async () => {
  const first = await open(LONG);
  const second = await stack.page({ path: `/#/c/${first.id}` });
  await begin(first.page, STORY);
  await answers(second.page).last().locator(".live", { hasText: "tokens/s" }).waitFor(PATIENCE);
  const third = await stack.page({ path: `/#/c/${first.id}` });
  await answers(third.page).last().locator(".live").waitFor(PATIENCE);
  await second.page.locator("#stop").click();
  const texts = [];
  for (const { page } of [first, second, third]) {
    await answers(page).last().locator(".stats").waitFor(PATIENCE);
    texts.push(await answers(page).last().locator(".content").innerText());
  }
  assert.equal(new Set(texts).size, 1);
  for (const { close } of [first, second, third]) await close();
});

test("an answer goes on when its page is closed", async () => {
  const { page, id, close } = await open(SHORT);
  await begin(page, "Count to three.");
  await answers(page).last().waitFor();
  await close();
  for (let tries = 0; ; tries++) {
    const answer = (await stack.call("GET", `/firepot/v1/chats/${id}`)).messages.at(-1);
    if (answer.stats) break;
    assert.ok(tries < 300, "the answer ended nowhere");
    await sleep(100);
  }
});

test("a server that is killed mid-answer: a banner, a reconnection, and the whole answer by itself", async () => {
  const { page, id, close } = await open({ ...LONG, max_tokens: 400 });
  const stored = async () => (await stack.call("GET", `/firepot/v1/chats/${id}`)).messages.at(-1);
  await begin(page, STORY);
  const answer = answers(page).last();
  await answer.locator(".live", { hasText: "tokens/s" }).waitFor(PATIENCE);
  await sleep(700);
  const seen = withoutSpaces(await answer.locator(".content").innerText());
  assert.ok(seen.length > 0 && !(await stored()).stats, "it runs when the server dies");
  await stack.kill();
  await page.getByRole("alert").filter({ hasText: "does not answer" }).waitFor(PATIENCE);
  await stack.start();
  await page.getByRole("alert").filter({ hasText: "does not answer" }).waitFor({ state: "hidden" });
  await answer.locator(".stats").waitFor(PATIENCE);
  const { content, stats } = await stored();
  assert.deepEqual([stats.finish, stats.completion_tokens], ["length", 400]);
  const shown = withoutSpaces(await answer.locator(".content").innerText());
  assert.equal(shown, withoutSpaces(content));
  assert.ok(shown.startsWith(seen), "what was seen before stays");
  assert.equal(await answers(page).count(), 1);
  await close();
});

test("a runner that is killed mid-answer is a pause, and the answer is whole", async () => {
  const { page, id, close } = await open({ ...LONG, max_tokens: 200 });
  await begin(page, STORY);
  const answer = answers(page).last();
  await answer.locator(".live", { hasText: "tokens/s" }).waitFor(PATIENCE);
  assert.ok(stack.killRunner());
  await answer.locator(".stats").waitFor(PATIENCE);
  const { content, stats } = (await stack.call("GET", `/firepot/v1/chats/${id}`)).messages.at(-1);
  assert.equal(stats.completion_tokens, 200);
  assert.equal(withoutSpaces(await answer.locator(".content").innerText()), withoutSpaces(content));
  await close();
});

test("who asks before the list of models has come is answered all the same", async () => {
  const { page, close } = await stack.page();
  await page.route("**/api/tags", async (route) => {
    await sleep(1500);
    await route.continue();
  });
  await page.reload({ waitUntil: "domcontentloaded" });
  await begin(page, "Are you there?");
  await answers(page).first().waitFor(PATIENCE);
  await page.locator("#stop").click();
  await close();
});

test("a model that vanishes: the error says so, and the question is not lost", async () => {
  const chat = await stack.call("POST", "/firepot/v1/chats", { model: "gone:1b" });
  const { page, close } = await stack.page({ path: `/#/c/${chat.id}` });
  await begin(page, "Are you there?");
  await page.locator(".toast", { hasText: "gone:1b" }).waitFor(PATIENCE);
  assert.equal(await page.locator("#prompt").inputValue(), "Are you there?");
  await close();
});

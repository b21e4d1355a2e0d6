// The page in Debian's Chromium against the real server and the real model.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startStack } from "./stack.mjs";

let stack;

before(async () => {
  stack = await startStack();
});

after(() => stack?.stop());

async function openPage(options = {}) {
  const page = await stack.browser.newPage(options);
  const foreign = [];
  const problems = [];
  page.on("request", (request) => request.url().startsWith(stack.address) || foreign.push(request.url()));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(stack.address);
  await page.locator("#model option").first().waitFor({ state: "attached" });
  return { page, foreign, problems };
}

test("a question is answered, streamed, with its numbers", async () => {
  const { page, foreign, problems } = await openPage();
  assert.equal(await page.locator("#model").inputValue(), "smollm2:135m");
  await page.locator("#prompt").fill("What is the capital of France? Answer in one word.");
  await page.locator("#prompt").press("Enter");
  const answer = page.locator(".message.assistant").last();
  await answer.locator(".stats").waitFor({ timeout: 60_000 });
  assert.match(await answer.locator(".content").innerText(), /\S/);
  assert.match(await answer.locator(".stats").innerText(), /tokens\/s/);
  assert.deepEqual(foreign, []);
  assert.deepEqual(problems, []);
  await page.close();
});

test("stop ends a long answer and the next question works", async () => {
  const { page } = await openPage();
  // Greedy, so that the story is as long each time.
  await page.route("**/api/chat", (route) => {
    const body = { ...route.request().postDataJSON(), options: { temperature: 0 } };
    return route.continue({ postData: JSON.stringify(body) });
  });
  await page.locator("#prompt").fill("Write a very long story about a river.");
  await page.locator("#send").click();
  const answer = page.locator(".message.assistant").last();
  await answer.locator(".content").filter({ hasText: /\w+ \w+/ }).waitFor({ timeout: 60_000 });
  await page.locator("#stop").click();
  await page.locator("#stop").waitFor({ state: "hidden" });
  const text = await answer.locator(".content").innerText();
  await sleep(300);
  assert.equal(await answer.locator(".content").innerText(), text);
  await page.locator("#prompt").fill("Say hello.");
  await page.locator("#send").click();
  await page.locator(".message.assistant").nth(1).locator(".stats").waitFor({ timeout: 60_000 });
  await page.close();
});

test("markup in a question is shown as text", async () => {
  const { page } = await openPage();
  const hostile = '<img src=x onerror="document.title=1"><b>bold</b>';
  await page.locator("#prompt").fill(hostile);
  await page.locator("#send").click();
  const question = page.locator(".message.user .content").last();
  assert.equal(await question.innerText(), hostile);
  assert.equal(await question.locator("img, b").count(), 0);
  await page.close();
});

test("the page fits a phone", async () => {
  const { page } = await openPage({ viewport: { width: 360, height: 740 } });
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `the page is ${overflow} px too wide`);
  assert.ok(await page.locator("#prompt").isVisible());
  await page.close();
});

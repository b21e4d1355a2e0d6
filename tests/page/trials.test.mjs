// Trials: begun on the page, watched by another one while they run, stopped, and ready to be taken up again.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { MODEL, PATIENCE, startStack } from "./stack.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let stack;

before(async () => {
  stack = await startStack();
});

after(() => stack?.stop());

async function panelOf(page) {
  await page.getByRole("button", { name: "Trials" }).click();
  return page.getByRole("complementary", { name: "Trials" });
}

test("a trial is begun, seen by every page, stopped, and can go on", async () => {
  const [one, two] = await Promise.all([stack.page(), stack.page()]);
  const [panel, other] = [await panelOf(one.page), await panelOf(two.page)];
  await panel.getByText("No trial was made yet").waitFor(PATIENCE);
  await panel.getByLabel("Measure a model").selectOption(MODEL);
  await panel.getByRole("button", { name: "Begin" }).click();
  for (const each of [panel, other]) {
    await each.getByText(/of at most \d+ samples/).waitFor(PATIENCE);
    assert.ok(await each.getByRole("button", { name: "Begin" }).isDisabled());
  }
  await one.page.evaluate(AXE);
  const { violations } = await one.page.evaluate(() => window.axe.run("aside"));
  assert.deepEqual(violations.map(({ id }) => id), []);
  await other.getByRole("button", { name: "Stop" }).click();
  for (const each of [panel, other]) await each.getByRole("button", { name: "Go on" }).waitFor(PATIENCE);
  assert.deepEqual([...one.problems, ...one.foreign], []);
  await Promise.all([one.close(), two.close()]);
});

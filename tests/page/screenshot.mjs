// Writes docs/page.png, the picture in the README: the real page with answers of the test model.
import { join } from "node:path";
import { ROOT, startStack } from "./stack.mjs";

const QUESTIONS = ["Write two sentences about how rivers shape valleys.", "Give one tip for better sleep."];

const stack = await startStack();
try {
  const page = await stack.browser.newPage({ viewport: { width: 960, height: 640 }, deviceScaleFactor: 2 });
  await page.goto(stack.address);
  await page.locator("#model option").first().waitFor({ state: "attached" });
  for (const [index, question] of QUESTIONS.entries()) {
    await page.locator("#prompt").fill(question);
    await page.locator("#prompt").press("Enter");
    await page.locator(".message.assistant").nth(index).locator(".stats").waitFor({ timeout: 60_000 });
  }
  await page.screenshot({ path: join(ROOT, "docs", "page.png") });
} finally {
  await stack.stop();
}

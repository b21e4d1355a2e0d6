// Writes the README's pictures: the real page with answers of the test model, on a desktop and on a phone.
import { join } from "node:path";
import { answers, ask, MODEL, ROOT, startStack } from "./stack.mjs";

const OLDER = [
  ["Which rivers end in no sea?", "Rivers such as the **Okavango** end in an inland delta."],
  ["Plan a week of cheap meals", "1. Lentils\n2. Rice and beans"],
  ["Explain KV cache in one paragraph", "It keeps keys and values of earlier tokens."],
];
const QUESTION = "How is the length of a vector computed, and how in Python?";
const ANSWER =
  "The length of a vector $v = (v_1, \\dots, v_n)$ is\n\n$$\\lVert v \\rVert = \\sqrt{\\sum_{i=1}^{n} v_i^2}.$$\n\nIn Python:\n\n" +
  "```python\nimport math\n\ndef length(v):\n    return math.sqrt(sum(x * x for x in v))\n```\n";

const stack = await startStack();
try {
  for (const turns of OLDER) await stack.chat(turns);
  // Formulas and code are beyond a model of 135 million parameters, so this turn is a stored one; the next is the model's own.
  const id = await stack.chat([QUESTION, ANSWER]);
  const { page } = await stack.page({ path: `/#/c/${id}`, viewport: { width: 1200, height: 840 }, deviceScaleFactor: 2 });
  await answers(page).first().locator(".hljs-keyword").first().waitFor();
  await answers(page).first().locator(".katex").first().waitFor();
  await stack.call("PATCH", `/firepot/v1/chats/${id}`, { settings: { temperature: 0, max_tokens: 60 } });
  await ask(page, "Write one sentence about why rivers meander.");
  await page.waitForTimeout(1500);
  await page.screenshot({ path: join(ROOT, "docs", "page.png") });
  const phone = await stack.page({ path: `/#/c/${id}`, viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, colorScheme: "dark", isMobile: true, hasTouch: true });
  await answers(phone.page).last().locator(".stats").waitFor();
  await answers(phone.page).first().locator(".katex").first().waitFor();
  await phone.page.waitForTimeout(500);
  await phone.page.screenshot({ path: join(ROOT, "docs", "page-phone.png") });
  await stack.call("POST", "/firepot/v1/models/unload", { model: MODEL });
} finally {
  await stack.stop();
}

// What a model can write, as it is shown: Markdown, formulas, code, and everything hostile. The texts are stored chats of the
// real server.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { answers, questions, startStack } from "./stack.mjs";

let stack;

before(async () => {
  stack = await startStack();
});

after(() => stack?.stop());

async function show(...turns) {
  const id = await stack.chat(turns);
  const opened = await stack.page({ path: `/#/c/${id}` });
  await answers(opened.page).last().locator(".content").waitFor();
  return opened;
}

test("tables, lists, quotes and highlighted code look like what they are", async () => {
  const { page, problems, close } = await show(
    "?",
    "# Head\n\n| a | b |\n|--:|:--|\n| 1 | **2** |\n\n1. one\n   - [x] done\n2. two\n\n> quoted\n\n```rust\nfn main() { let x = 1; }\n```\n\n`code` ~~gone~~ [site](https://example.org)",
  );
  const answer = answers(page).last();
  await answer.locator(".hljs-keyword").first().waitFor();
  for (const part of ["table td strong", "ol li ul input[type=checkbox]", "blockquote", "del", "pre code"]) {
    assert.ok((await answer.locator(part).count()) > 0, part);
  }
  const link = answer.locator("a");
  assert.match(await link.getAttribute("href"), /^https:\/\/example\.org\/?$/);
  assert.match(await link.getAttribute("rel"), /noopener/);
  assert.deepEqual(problems, []);
  await close();
});

test("formulas of every spelling are set, and money stays money", async () => {
  const { page, problems, foreign, close } = await show(
    "?",
    "Inline $a^2$, \\(b_1\\), block:\n\n$$\\frac{1}{2}$$\n\n\\[\n\\int_0^1 x\\,dx\n\\]\n\nso \\boxed{42}. It costs $5 and then $10. Broken: $\\frac{1$",
  );
  const answer = answers(page).last();
  await answer.locator(".katex").nth(4).waitFor();
  assert.equal(await answer.locator(".katex").count(), 5);
  const text = await answer.innerText();
  assert.ok(text.includes("$5 and then $10"), text);
  assert.ok(!text.includes("\\boxed") || (await answer.locator("annotation").count()) > 0);
  assert.deepEqual([problems, foreign], [[], []]);
  await close();
});

test("markup, scripts and bad links of a model are text", async () => {
  const hostile =
    '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>\n\n<b>bold</b> [click](javascript:alert(1)) ' +
    "[data](data:text/html,x) ![pixel](https://evil.example/p.png) <https://ok.example> &lt;i&gt;";
  const { page, foreign, problems, close } = await show(hostile, hostile);
  const answer = answers(page).last();
  assert.equal(await answer.locator(".content img, .content script, .content b, .content i").count(), 0);
  for (const href of await answer.locator(".content a").evaluateAll((links) => links.map((link) => link.protocol))) {
    assert.match(href, /^https?:$/);
  }
  assert.ok((await answer.innerText()).includes("<b>bold</b>"));
  assert.equal(await questions(page).last().locator(".content").innerText(), hostile);
  assert.notEqual(await page.title(), "owned");
  assert.deepEqual([foreign, problems], [[], []]);
  await close();
});

test("a title full of markup is text everywhere", async () => {
  const title = "<img src=x onerror=alert(1)> & <b>x</b>";
  await stack.chat(["hello"], title);
  const { page, problems, close } = await stack.page();
  await page.getByRole("button", { name: title, exact: true }).waitFor();
  assert.equal(await page.locator("nav img").count(), 0);
  assert.deepEqual(problems, []);
  await close();
});

test("one long word, 200 kB of code, right-to-left text and emoji fit a phone", async () => {
  const code = "```text\n" + "let value = compute(1, 2, 3); // a line of code\n".repeat(4200) + "```";
  const id = await stack.chat(["a".repeat(20_000), "b".repeat(20_000), "قل مرحبا 👩‍👩‍👧‍👦", "مرحبا بالعالم 👩🏽‍🚀🏳️‍🌈", "code?", code]);
  const { page, problems, close } = await stack.page({ path: `/#/c/${id}`, viewport: { width: 360, height: 740 } });
  await answers(page).nth(2).locator("pre").waitFor();
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `the page is ${overflow} px too wide`);
  const direction = await answers(page).nth(1).locator("p").first().evaluate((p) => getComputedStyle(p).direction);
  assert.equal(direction, "rtl");
  assert.deepEqual(problems, []);
  await close();
});

test("broken and endless Markdown is shown and does not hang the page", async () => {
  const bombs = ["> ".repeat(3000) + "deep", "[".repeat(5000), "**a ".repeat(3000), "- ".repeat(2000) + "x", "$".repeat(3001), "| a |\n|--|\n".repeat(500)];
  const { page, problems, close } = await show(...bombs.flatMap((bomb) => ["?", bomb]));
  assert.equal(await answers(page).count(), bombs.length);
  await page.locator("#prompt").fill("still alive");
  assert.deepEqual(problems, []);
  await close();
});

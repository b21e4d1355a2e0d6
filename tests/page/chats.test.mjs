// Chats as things that are kept: found, renamed, pinned, deleted and brought back, taken out and brought in.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { answers, questions, startStack } from "./stack.mjs";

let stack;
let folder;

before(async () => {
  stack = await startStack();
  folder = mkdtempSync(join(tmpdir(), "firepot-files-"));
});

after(async () => {
  await stack?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const row = (page, title) => page.locator("nav li", { hasText: title });

async function menu(page, title, action) {
  await row(page, title).hover();
  await page.getByRole("button", { name: `Actions for ${title}` }).click();
  await page.locator(".menu").getByText(action).click();
}

function file(name, content) {
  const path = join(folder, name);
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

async function importFile(page, path) {
  await page.locator('nav input[type="file"]').setInputFiles(path);
}

test("a chat is found by a word of its text, and opened from the keyboard", async () => {
  const id = await stack.chat(["Tell me of zebrafish", "They have stripes."]);
  const { page, close } = await stack.page();
  await page.keyboard.press("Control+k");
  await page.getByRole("searchbox").fill("strip");
  await page.locator("mark", { hasText: "stripes" }).waitFor();
  await page.getByRole("searchbox").press("Enter");
  await questions(page).first().waitFor();
  assert.ok(page.url().endsWith(id));
  await page.keyboard.press("Control+k");
  await page.getByRole("searchbox").fill('nothing "has* OR this');
  await page.getByText("Nothing has these words.").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await close();
});

test("a chat is renamed, pinned to the top, and listed by day", async () => {
  await stack.chat(["older chat", "a"]);
  await stack.chat(["newer chat", "b"]);
  const { page, close } = await stack.page();
  const other = await stack.page();
  await menu(page, "older chat", "Rename");
  await page.getByRole("textbox", { name: "Title" }).fill("kept chat");
  await page.getByRole("textbox", { name: "Title" }).press("Enter");
  await row(other.page, "kept chat").waitFor();
  await menu(page, "kept chat", "Pin");
  await other.page.getByRole("heading", { name: "Pinned" }).waitFor();
  assert.match(await other.page.locator("nav li").first().innerText(), /kept chat/);
  await other.page.getByRole("heading", { name: "Today" }).waitFor();
  await other.close();
  await close();
});

test("a deleted chat comes back with Undo, and a tab that shows it is told", async () => {
  const id = await stack.chat(["to be deleted", "gone?"]);
  const { page, close } = await stack.page();
  const other = await stack.page({ path: `/#/c/${id}` });
  await answers(other.page).first().waitFor();
  await menu(page, "to be deleted", "Delete");
  await row(page, "to be deleted").waitFor({ state: "hidden" });
  await other.page.getByText("not there any more").waitFor();
  await page.getByRole("button", { name: "Undo" }).click();
  await row(page, "to be deleted").waitFor();
  assert.equal((await stack.call("GET", `/firepot/v1/chats/${id}`)).messages.length, 2);
  await other.close();
  await close();
});

test("a chat taken out as Markdown and JSON says all, and comes in again as JSON", async () => {
  await stack.chat(["export me", "with **bold**"]);
  const { page, close } = await stack.page();
  const download = async (what) => {
    const [download] = await Promise.all([page.waitForEvent("download"), menu(page, "export me", what)]);
    return { name: download.suggestedFilename(), text: readFileSync(await download.path(), "utf8") };
  };
  const markdown = await download("Markdown");
  assert.match(markdown.name, /export me.*\.md$/);
  assert.match(markdown.text, /with \*\*bold\*\*/);
  const json = await download("JSON");
  await menu(page, "export me", "Delete");
  await row(page, "export me").waitFor({ state: "hidden" });
  await importFile(page, file("chat.json", json.text));
  await page.getByText("Imported 1 chat").waitFor();
  await row(page, "export me").locator(".title").click();
  await answers(page).locator("strong", { hasText: "bold" }).waitFor();
  await close();
});

test("exports of Open WebUI and ChatGPT come in with their branches", async () => {
  const openWebUi = [
    {
      id: "1",
      title: "from open webui",
      chat: {
        title: "from open webui",
        models: ["smollm2:135m"],
        history: {
          currentId: "c",
          messages: {
            a: { id: "a", parentId: null, childrenIds: ["b", "c"], role: "user", content: "owui question", timestamp: 1760000000 },
            b: { id: "b", parentId: "a", childrenIds: [], role: "assistant", content: "owui first", timestamp: 1760000001 },
            c: { id: "c", parentId: "a", childrenIds: [], role: "assistant", content: "owui second", timestamp: 1760000002 },
          },
        },
      },
    },
  ];
  const node = (id, parent, children, role, text) => ({
    id,
    parent,
    children,
    message: role && { id, author: { role }, create_time: 1760000000, content: { content_type: "text", parts: [text] } },
  });
  const chatGpt = [
    {
      title: "from chatgpt",
      create_time: 1760000000,
      current_node: "d",
      mapping: {
        a: node("a", null, ["b"], null),
        b: node("b", "a", ["c"], "system", ""),
        c: node("c", "b", ["d"], "user", "gpt question"),
        d: node("d", "c", [], "assistant", "gpt answer"),
      },
    },
  ];
  const { page, close } = await stack.page();
  await importFile(page, file("owui.json", openWebUi));
  await row(page, "from open webui").locator(".title").click();
  await answers(page).filter({ hasText: "owui second" }).waitFor();
  await answers(page).getByText("2/2").waitFor();
  await importFile(page, file("chatgpt.json", chatGpt));
  await row(page, "from chatgpt").locator(".title").click();
  await answers(page).filter({ hasText: "gpt answer" }).waitFor();
  assert.equal(await questions(page).count(), 1);
  await close();
});

test("a broken or hostile import says why and changes nothing", async () => {
  const { page, problems, close } = await stack.page();
  const count = (await stack.call("GET", "/firepot/v1/chats?limit=200")).chats.length;
  const loop = [{ title: "loop", chat: { history: { currentId: "a", messages: { a: { id: "a", parentId: "b", role: "user", content: "x" }, b: { id: "b", parentId: "a", role: "user", content: "y" } } } } }];
  for (const content of ["not json", "[]]", '{"a": 1}', "[".repeat(5000), loop]) {
    await importFile(page, file("bad.json", content));
    await page.locator(".toast.error").first().waitFor();
    for (const dismiss of await page.getByRole("button", { name: "Dismiss" }).all()) await dismiss.click().catch(() => undefined);
    await page.locator(".toast").first().waitFor({ state: "hidden" });
  }
  assert.equal((await stack.call("GET", "/firepot/v1/chats?limit=200")).chats.length, count);
  assert.deepEqual(problems.filter((problem) => !problem.includes("status of 400")), []);
  await close();
});

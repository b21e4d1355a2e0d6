// Models that arrive: pulled from a real registry, cancelled, refused; and those of another program, read in place.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startRegistry, startStalling } from "./registry.mjs";
import { MODEL, MODEL_FILE, PATIENCE, startStack } from "./stack.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let stack;
let registry;
let endless;

before(async () => {
  [stack, registry, endless] = await Promise.all([startStack(), startRegistry(), startStalling()]);
});

after(async () => {
  await stack?.stop();
  await Promise.all([registry?.stop(), endless?.stop()]);
});

async function menuOf(page) {
  await page.locator("#model").click();
  return page.getByRole("group", { name: "Models" });
}

async function pull(menu, model) {
  await menu.getByRole("textbox", { name: "Pull a model" }).fill(model);
  await menu.getByRole("textbox", { name: "Pull a model" }).press("Enter");
}

test("a model is pulled from a registry and appears in the list of every page by itself", async () => {
  const name = await registry.push("library/arrives", "135m", [
    ["model", readFileSync(MODEL_FILE)],
    ["params", Buffer.from(JSON.stringify({ temperature: 0, num_predict: 4 }))],
  ]);
  const [one, two] = await Promise.all([stack.page(), stack.page()]);
  const [menu, other] = [await menuOf(one.page), await menuOf(two.page)];
  await pull(menu, name);
  for (const each of [menu, other]) {
    await each.getByRole("button", { name: `Load ${name}` }).waitFor(PATIENCE);
    await each.getByRole("progressbar").waitFor({ state: "detached" });
  }
  assert.equal(await menu.getByRole("textbox", { name: "Pull a model" }).inputValue(), "");
  assert.deepEqual(one.problems, []);
  assert.deepEqual(one.foreign, []);
  await Promise.all([one.close(), two.close()]);
});

test("a running pull shows how far it is to whoever comes, and is cancelled for all", async () => {
  const { page, problems, close } = await stack.page();
  const menu = await menuOf(page);
  await pull(menu, endless.name);
  const bar = menu.getByRole("progressbar", { name: `Pull of ${endless.name}` });
  await bar.waitFor(PATIENCE);
  await menu.getByText(/MB of 40 MB/).waitFor(PATIENCE);
  const later = await stack.page();
  const same = await menuOf(later.page);
  await same.getByText(/MB of 40 MB/).waitFor(PATIENCE);
  await same.getByRole("button", { name: `Cancel the pull of ${endless.name}` }).click();
  await bar.waitFor({ state: "detached", ...PATIENCE });
  assert.deepEqual((await stack.call("GET", "/firepot/v1/pulls")).pulls, []);
  assert.deepEqual(problems, []);
  await Promise.all([close(), later.close()]);
});

test("what cannot be pulled is said at the field, and what fails on the way beside the pull", async () => {
  const { page, close } = await stack.page();
  const menu = await menuOf(page);
  await pull(menu, "/etc/passwd");
  await menu.getByText("must be a model's name or a web address").waitFor();
  const absent = `${registry.host}/library/nothing:latest`;
  await pull(menu, absent);
  await menu.getByRole("button", { name: "Try again" }).waitFor(PATIENCE);
  assert.match(await menu.getByRole("alert").first().innerText(), /\S/);
  await menu.getByRole("button", { name: "Try again" }).click();
  await menu.getByRole("button", { name: "Try again" }).waitFor(PATIENCE);
  await menu.getByRole("button", { name: `Dismiss the pull of ${absent}` }).click();
  await menu.getByRole("button", { name: "Try again" }).waitFor({ state: "detached" });
  await close();
});

test("a model in another program's store is used where it lies and marked so", async () => {
  const weights = readFileSync(MODEL_FILE);
  const config = Buffer.from("{}");
  const store = join(stack.home, "ollama");
  const layer = (mediaType, content) => {
    const hex = createHash("sha256").update(content).digest("hex");
    mkdirSync(join(store, "blobs"), { recursive: true });
    writeFileSync(join(store, "blobs", `sha256-${hex}`), content);
    return { mediaType, digest: `sha256:${hex}`, size: content.length };
  };
  const manifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.docker.distribution.manifest.v2+json",
    config: layer("application/vnd.docker.container.image.v1+json", config),
    layers: [layer("application/vnd.ollama.image.model", weights)],
  };
  const place = join(store, "manifests", "registry.ollama.ai", "library", "theirs");
  mkdirSync(place, { recursive: true });
  writeFileSync(join(place, "latest"), JSON.stringify(manifest));
  const { page, close } = await stack.page();
  const menu = await menuOf(page);
  await menu.getByRole("button", { name: "Load theirs:latest" }).waitFor(PATIENCE);
  await menu.getByText("in Ollama's store").waitFor();
  await close();
});

for (const [what, options] of [
  ["desktop", { viewport: { width: 1280, height: 800 } }],
  ["phone", { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }],
]) {
  test(`pulls that run and pulls that failed satisfy axe and fit: ${what}, light and dark`, async () => {
    await stack.call("POST", "/firepot/v1/pulls", { model: endless.name });
    await stack.call("POST", "/firepot/v1/pulls", { model: `${registry.host}/library/nothing:latest` });
    for (const colorScheme of ["light", "dark"]) {
      const { page, close } = await stack.page({ ...options, colorScheme });
      const menu = await menuOf(page);
      await menu.getByRole("progressbar").first().waitFor(PATIENCE);
      await menu.getByRole("button", { name: "Try again" }).waitFor(PATIENCE);
      await page.evaluate(AXE);
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), []);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${overflow} px too wide`);
      await close();
    }
    for (const { id } of (await stack.call("GET", "/firepot/v1/pulls")).pulls) await stack.call("DELETE", `/firepot/v1/pulls/${id}`);
  });
}

test("the model that was here first is untouched by all of this", async () => {
  const { models } = await stack.call("GET", "/api/tags");
  assert.ok(models.some(({ name }) => name === MODEL));
});

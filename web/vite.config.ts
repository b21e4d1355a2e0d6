// How the page is built. `npm run dev` serves it with hot reload and sends the API's requests to a running server
// (FIREPOT_URL, by default the usual address).
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";
import { woff2Only } from "./vite-katex";

const server = process.env.FIREPOT_URL ?? "http://127.0.0.1:11434";
const proxied = { target: server, changeOrigin: true, headers: { origin: server } };

/** Puts a `.gz` beside what compresses; the server sends it to browsers that take it. */
function gzipped(): Plugin {
  let folder = "";
  return {
    name: "gzipped",
    apply: "build",
    configResolved: (config) => void (folder = join(config.root, config.build.outDir)),
    async closeBundle() {
      for (const name of await readdir(folder, { recursive: true })) {
        if (!/\.(js|css|html|svg)$/.test(name)) continue;
        const file = join(folder, name);
        await writeFile(`${file}.gz`, gzipSync(await readFile(file), { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  plugins: [woff2Only(), svelte(), gzipped()],
  build: {
    target: "es2022",
    // Nothing becomes a data: address, which the page's policy would refuse, and no polyfill is written inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: Object.fromEntries(["/api", "/v1", "/firepot", "/metrics"].map((path) => [path, proxied])) },
  test: { include: ["src/**/*.test.ts"] },
});

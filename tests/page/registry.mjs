// Hubs on loopback: Debian's docker-registry with a model in it, and one that stops in the middle of a file.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ROOT } from "./stack.mjs";

const MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG = "application/vnd.docker.container.image.v1+json";
const KEPT = join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "tools", "usr", "bin", "docker-registry");

const digestOf = (content) => `sha256:${createHash("sha256").update(content).digest("hex")}`;

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A registry that runs until `stop`. */
export async function startRegistry() {
  const directory = mkdtempSync(join(tmpdir(), "firepot-hub-"));
  const host = `127.0.0.1:${await freePort()}`;
  const config = join(directory, "registry.json");
  // YAML is a superset of JSON.
  const settings = {
    version: 0.1,
    log: { level: "error", accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(directory, "registry") } },
    http: { addr: host },
  };
  writeFileSync(config, JSON.stringify(settings));
  const process_ = spawn(existsSync(KEPT) ? KEPT : "docker-registry", ["serve", config], { stdio: "ignore" });
  const answers = () => fetch(`http://${host}/v2/`).then(({ ok }) => ok, () => false);
  for (let tries = 0; !(await answers()); tries++) {
    assert.ok(tries < 500 && process_.exitCode === null, "the registry did not listen");
    await sleep(20);
  }
  const stop = async () => {
    const ended = new Promise((resolve) => process_.once("exit", resolve));
    process_.kill("SIGTERM");
    await ended;
    rmSync(directory, { recursive: true, force: true });
  };
  return { host, push: (repository, tag, layers) => push(host, repository, tag, layers), stop };
}

/** Puts a model there; `layers` are kinds with their bytes. Gives its full name. */
async function push(host, repository, tag, layers) {
  const blob = async (content, mediaType) => {
    const digest = digestOf(content);
    const begun = await fetch(`http://${host}/v2/${repository}/blobs/uploads/`, { method: "POST" });
    assert.equal(begun.status, 202);
    const place = new URL(begun.headers.get("location"), `http://${host}`);
    place.searchParams.set("digest", digest);
    const headers = { "content-type": "application/octet-stream" };
    assert.equal((await fetch(place, { method: "PUT", headers, body: content })).status, 201);
    return { mediaType, digest, size: content.length };
  };
  const config = await blob(Buffer.from("{}"), CONFIG);
  const described = [];
  for (const [kind, content] of layers) described.push(await blob(content, `application/vnd.ollama.image.${kind}`));
  const body = JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers: described });
  const path = `http://${host}/v2/${repository}/manifests/${tag}`;
  const named = await fetch(path, { method: "PUT", headers: { "content-type": MANIFEST }, body });
  assert.equal(named.status, 201, await named.text());
  return `${host}/${repository}:${tag}`;
}

/** A hub whose only model never comes to its end: of each part that is asked for, half a megabyte comes. */
export async function startStalling() {
  const sizeBytes = 40_000_000;
  const config = Buffer.from("{}");
  const weights = `sha256:${randomBytes(32).toString("hex")}`;
  const layers = [{ mediaType: "application/vnd.ollama.image.model", digest: weights, size: sizeBytes }];
  const manifest = {
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: { mediaType: CONFIG, digest: digestOf(config), size: config.length },
    layers,
  };
  const server = createServer((request, response) => {
    if (request.url === "/v2/") return response.end("{}");
    if (request.url.includes("/manifests/")) {
      response.setHeader("content-type", MANIFEST);
      return response.end(JSON.stringify(manifest));
    }
    const content = request.url.endsWith(weights) ? null : config;
    const total = content?.length ?? sizeBytes;
    const range = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? "");
    const [start, end] = range ? [Number(range[1]), range[2] ? Number(range[2]) : total - 1] : [0, total - 1];
    const headers = { "content-length": end - start + 1, "accept-ranges": "bytes" };
    if (range) headers["content-range"] = `bytes ${start}-${end}/${total}`;
    response.writeHead(range ? 206 : 200, headers);
    if (request.method === "HEAD") return response.end();
    if (content) return response.end(content.subarray(start, end + 1));
    response.write(Buffer.alloc(Math.min(500_000, end - start)));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { name: `127.0.0.1:${server.address().port}/library/endless:latest`, stop };
}

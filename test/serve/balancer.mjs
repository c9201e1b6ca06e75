// The configurations of docs/guides/serving.md, tried: two servers behind nginx and, where it is
// installed, Caddy, as the guide has them but for the ports. Requests, a stream, a process that
// ends, a full queue. Closes with "N passed, N failed". No part of `npm test`, since both come with
// the system (Debian: apt-get install nginx-light caddy).
//
//   node test/serve/balancer.mjs
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { blocks } from "../guides/blocks.mjs";
import { startServer } from "./started.mjs";

const path = (name) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const guide = blocks(readFileSync(path("docs/guides/serving.md"), "utf8"));
const headers = { "content-type": "application/json" };
const PROMPT = "Returns the number of";
const PATIENCE_MS = 30_000;

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

/** What a server of the guide's two has: room for few texts. */
const FEW = ["--parallel", "1", "--queue", "1"];

const BALANCERS = {
  nginx: { file: "nginx.conf", args: (file, folder) => ["-c", file, "-p", folder, "-g", "daemon off; pid nginx.pid; error_log stderr;"] },
  caddy: { file: "Caddyfile", args: (file) => ["run", "--adapter", "caddyfile", "--config", file] },
};

/** The guide's configuration with other ports. */
function configuration(file, ports) {
  const block = guide.find(({ title }) => title === file);
  assert(block, `the guide has no ${file}`);
  return [8080, 8081, 8082].reduce((text, port, i) => text.replaceAll(String(port), String(ports[i])), block.code);
}

async function until(what, body) {
  const begin = Date.now();
  while (!(await body())) {
    if (Date.now() - begin > PATIENCE_MS) throw new Error(`${what}: it did not come`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const complete = (address, more) =>
  fetch(`${address}/v1/completions`, { method: "POST", headers, body: JSON.stringify({ prompt: PROMPT, temperature: 0, ...more }) });

async function textOf(response) {
  assert.equal(response.status, 200);
  return (await response.json()).choices[0].text;
}

/** What every balancer must do, one after the other. */
const checks = {
  async "a completion is that of a server alone"({ address, servers }) {
    const direct = await textOf(await complete(`http://127.0.0.1:${servers[0].port}`, { max_tokens: 12 }));
    assert.equal(await textOf(await complete(address, { max_tokens: 12 })), direct);
  },
  async "pieces of a stream come one by one"({ address }) {
    const response = await complete(address, { max_tokens: 200, stream: true, logit_bias: { 0: -100 } });
    const times = [];
    for await (const piece of response.body) if (piece.length > 0) times.push(performance.now());
    assert(times.length > 20, `${times.length} pieces`);
  },
  async "who hangs up frees the place behind it"({ address, servers }) {
    const stop = new AbortController();
    const body = JSON.stringify({ prompt: PROMPT, max_tokens: 400, stream: true, n: 2, logit_bias: { 0: -100 } });
    const response = await fetch(`${address}/v1/completions`, { method: "POST", headers, body, signal: stop.signal });
    await response.body.getReader().read();
    stop.abort();
    const isFree = async ({ port }) => (await (await fetch(`http://127.0.0.1:${port}/health`)).json()).running === 0;
    await until("a free place", async () => (await Promise.all(servers.map(isFree))).every(Boolean));
  },
  async "a process that ends is no reason to fail"({ address, servers }) {
    const [{ child }] = servers;
    child.kill("SIGTERM");
    await once(child, "close");
    for (let i = 0; i < 5; i++) await textOf(await complete(address, { max_tokens: 4 }));
  },
};

async function tryOut(name) {
  const { file, args } = BALANCERS[name];
  const folder = mkdtempSync(join(tmpdir(), "diffattn-balancer-"));
  const ports = [await freePort(), await freePort(), await freePort()];
  writeFileSync(join(folder, file), configuration(file, ports));
  const servers = [];
  for (const port of ports.slice(1)) servers.push({ port, child: (await startServer(path("examples/model"), FEW, port)).child });
  const balancer = spawn(name, args(join(folder, file), folder), { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  balancer.stderr.on("data", (piece) => (said += piece));
  const address = `http://127.0.0.1:${ports[0]}`;
  const results = [];
  try {
    await until(`${name}: ${said}`, () =>
      fetch(`${address}/health`).then(
        ({ ok }) => ok,
        () => false,
      ),
    );
    for (const [what, body] of Object.entries(checks)) {
      const error = await body({ address, servers }).catch((error) => error);
      console.log(`${error ? "FAILED" : "ok    "} ${name}: ${what}${error ? `: ${error.message}` : ""}`);
      results.push(!error);
    }
  } finally {
    balancer.kill();
    for (const { child } of servers) child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
  return results;
}

const results = [];
for (const name of Object.keys(BALANCERS)) {
  if (spawnSync(name, [name === "caddy" ? "version" : "-v"]).error) {
    console.log(`${name}: not installed`);
    continue;
  }
  results.push(...(await tryOut(name)));
}
const passed = results.filter(Boolean).length;
// Without either nothing was tried.
const failed = results.length - passed || Number(results.length === 0);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;

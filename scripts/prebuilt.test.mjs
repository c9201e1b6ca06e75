// The fetching of compiled tools against a server of this machine that is slow, lies, breaks off or
// is not there. Nothing but the very archive may put a program into its place. Asks no other
// machine: that a release's own archives are what is said of them is not looked at.
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { afterEach, beforeEach, expect, test } from "vitest";
import { fetchTool } from "./prebuilt.mjs";
import { ask, executable, run } from "./tools.mjs";

const VERSION = "1.2.3";
const name = (target) => `tool-${target}`;
const processor = process.arch === "arm64" && process.platform !== "win32" ? "aarch64" : "x86_64";
const target = `${processor}-${{ linux: "unknown-linux-musl", darwin: "apple-darwin", win32: "pc-windows-msvc" }[process.platform]}`;
/** Long enough for a machine that has much else to do; a test of a limit has a short one. */
const limits = { silence: 30_000, whole: 30_000, size: 1 << 20 };
const impatient = { limits: { ...limits, silence: 300 } };

let folder;
let server;
let answers;
let asked;

/** An archive as a release has it, around a program of Node that says a version. */
function archive({ version = VERSION, program = "wasm-pack", fill = "" } = {}) {
  const inside = name(target);
  const stage = mkdtempSync(join(folder, "stage-"));
  mkdirSync(join(stage, inside));
  const file = join(stage, inside, executable(program));
  writeFileSync(file, `#!/usr/bin/env node\nconsole.log("tool ${version}");\n//${fill}\n`, { mode: 0o755 });
  run("tar", ["-czf", "archive.tar.gz", inside], { cwd: stage, quiet: true });
  const bytes = readFileSync(join(stage, "archive.tar.gz"));
  return { bytes, path: `/${inside}.tar.gz`, sum: createHash("sha256").update(bytes).digest("hex") };
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "diffattn-prebuilt-"));
  answers = {};
  asked = [];
  server = createServer((request, response) => {
    asked.push(request.url);
    const answer = answers[request.url];
    if (typeof answer === "function") answer(request, response);
    else response.writeHead(answer === undefined ? 404 : 200).end(answer);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true, force: true });
});

const place = () => join(folder, "bin", executable("wasm-pack"));
const from = () => `http://127.0.0.1:${server.address().port}`;
const fetched = (more) =>
  fetchTool("wasm-pack", { version: VERSION, folder: from(), name, sums: undefined, limits, destination: place(), ...more });

/** An archive and its sum, as the server has them. */
function offer({ bytes, path, sum }) {
  answers[path] = bytes;
  answers[`${path}.sha256sum`] = `${sum}  folder/archive.tar.gz\n`;
}

/** That nothing was taken: no program, or the one of before, and nothing beside it. */
async function refuses(sentence, more) {
  mkdirSync(join(folder, "bin"), { recursive: true });
  for (const before of [[], [executable("wasm-pack")]]) {
    for (const file of before) writeFileSync(join(folder, "bin", file), "as it was");
    await expect(fetched(more)).rejects.toThrow(sentence);
    expect(readdirSync(join(folder, "bin"))).toEqual(before);
    for (const file of before) expect(readFileSync(join(folder, "bin", file), "utf8")).toBe("as it was");
  }
}

test("the archive whose sum is published beside it gives its program", async () => {
  const good = archive();
  offer(good);
  await fetched();
  expect(ask(place(), ["--version"])).toBe(`tool ${VERSION}`);
  expect(readdirSync(join(folder, "bin"))).toEqual([executable("wasm-pack")]);
  expect(asked).toEqual([`${good.path}.sha256sum`, good.path]);
});

test("a sum that is known is not asked for, and an older program gives way", async () => {
  const good = archive();
  answers[good.path] = good.bytes;
  mkdirSync(join(folder, "bin"));
  writeFileSync(place(), "old");
  await fetched({ sums: { [target]: good.sum } });
  expect(ask(place(), ["--version"])).toBe(`tool ${VERSION}`);
  expect(asked).toEqual([good.path]);
});

test("a redirection, as releases have it, is followed", async () => {
  const good = archive();
  offer(good);
  answers["/elsewhere"] = good.bytes;
  answers[good.path] = (_, response) => response.writeHead(302, { Location: "/elsewhere" }).end();
  await fetched();
  expect(ask(place(), ["--version"])).toBe(`tool ${VERSION}`);
});

test("what is not there is said with its status", () => refuses(/\.sha256sum: status 404$/));

test("a server that is not there is named", () => refuses(/127\.0\.0\.1:1.*: .*(ECONNREFUSED|bad port)/, { folder: "http://127.0.0.1:1" }));

test("another archive than the one of the sum is not opened", async () => {
  const good = archive();
  offer({ ...archive({ fill: "else" }), sum: good.sum });
  await refuses(new RegExp(`its SHA-256 is [0-9a-f]{64}, expected ${good.sum}$`));
});

test("a sum that is none is refused before anything else is asked for", async () => {
  const good = archive();
  offer(good);
  answers[`${good.path}.sha256sum`] = "<html>sign in</html>";
  await refuses(/holds no SHA-256$/);
  expect(asked).not.toContain(good.path);
});

test("a server that says nothing is given up", async () => {
  answers[`${archive().path}.sha256sum`] = () => {};
  const begun = performance.now();
  await refuses(/was silent for 0\.3 s$/, impatient);
  expect(performance.now() - begun).toBeLessThan(20_000);
});

test("one that falls silent within the archive, too", async () => {
  const good = archive();
  offer(good);
  answers[good.path] = (_, response) => response.writeHead(200, { "Content-Length": good.bytes.length }).write(good.bytes.subarray(0, 100));
  await refuses(/was silent for 0\.3 s$/, impatient);
});

test("and one that sends a byte now and then", async () => {
  const good = archive();
  offer(good);
  answers[good.path] = (_, response) => {
    response.writeHead(200);
    const timer = setInterval(() => response.write("a"), 100);
    response.on("close", () => clearInterval(timer));
  };
  const begun = performance.now();
  await refuses(/took longer than 1\.5 s$/, { limits: { ...limits, whole: 1500 } });
  expect(performance.now() - begun).toBeLessThan(20_000);
});

test("a connection that breaks off leaves nothing", async () => {
  const good = archive();
  offer(good);
  answers[good.path] = (_, response) => {
    response.writeHead(200, { "Content-Length": good.bytes.length });
    response.write(good.bytes.subarray(0, good.bytes.length / 2), () => response.destroy());
  };
  await refuses(/tool-.*: (other side closed|terminated|.*aborted)/);
});

test("half an archive that says it is whole has another sum", async () => {
  const good = archive();
  offer({ ...good, bytes: good.bytes.subarray(0, good.bytes.length / 2) });
  await refuses(/its SHA-256 is/);
});

test("more than a tool can be is not kept", async () => {
  const good = archive();
  offer({ ...good, bytes: Buffer.alloc(2 << 20) });
  await refuses(/longer than 1048576 bytes$/);
});

test("an archive without the program is refused", async () => {
  offer(archive({ program: "another" }));
  await refuses(/^tar /);
});

test("and so is what is no archive, whatever its sum", async () => {
  const bytes = Buffer.from("no archive");
  offer({ ...archive(), bytes, sum: createHash("sha256").update(bytes).digest("hex") });
  await refuses(/^tar /);
});

test("a program of another version is refused", async () => {
  offer(archive({ version: "1.2.4" }));
  await refuses(/its wasm-pack says "tool 1\.2\.4", expected version 1\.2\.3$/);
});

// An imitation of the Hugging Face Hub for tests: repositories of models with revisions, its list of
// files, plain files with Git's names as ETags, large files behind a redirect to a store of another
// origin, private and gated repositories, and whatever may go wrong on the way. Knows no test.
//
//   node test/hub/hub.mjs FOLDER      serves every folder org/name below it; prints the address
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const LARGE = /\.(safetensors|gguf|bin)$/;

const known = new WeakMap();
/** (Once of each: models are asked for again and again.) */
function sha256(bytes) {
  if (!known.has(bytes)) known.set(bytes, createHash("sha256").update(bytes).digest("hex"));
  return known.get(bytes);
}
/** Git's name of a content. */
const sha1 = (bytes) => createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

/** The files of a folder, by their paths from it. */
export function filesOf(folder, below = "") {
  const found = {};
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) Object.assign(found, filesOf(path, `${below}${name}/`));
    else found[`${below}${name}`] = readFileSync(path);
  }
  return found;
}

/** A commit of files: `{ sha, files }`. */
export function commitOf(files) {
  const bytes = Object.fromEntries(Object.entries(files).map(([name, content]) => [name, Buffer.from(content)]));
  const all = Object.entries(bytes).map(([name, content]) => `${name} ${sha256(content)}`);
  return { sha: createHash("sha1").update(all.join("\n")).digest("hex"), files: bytes };
}

const listen = async (server) => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${server.address().port}`;
};

/** Sends bytes, or the part of them that a range asks for; `cut`: how many before it breaks off. */
function send(request, response, bytes, headers, cut) {
  const [, first] = /^bytes=(\d+)-/.exec(request.headers.range ?? "") ?? [];
  const [, last] = /^bytes=\d+-(\d+)$/.exec(request.headers.range ?? "") ?? [];
  const from = Number(first ?? 0);
  if (first !== undefined && from >= bytes.length) {
    response.writeHead(416, headers).end();
    return;
  }
  const to = Math.min(bytes.length, last === undefined ? bytes.length : Number(last) + 1);
  const range = first === undefined ? {} : { "Content-Range": `bytes ${from}-${to - 1}/${bytes.length}` };
  response.writeHead(first === undefined ? 200 : 206, { "Content-Length": to - from, "Accept-Ranges": "bytes", ...headers, ...range });
  if (request.method === "HEAD") response.end();
  else if (cut === undefined || cut >= to - from) response.end(bytes.subarray(from, to));
  else response.write(bytes.subarray(from, from + cut), () => setTimeout(() => response.destroy(), 20));
}

/**
 * Serves repositories, `{ [name]: { revisions: { [name]: commit }, token?, isGated? } }`. What it
 * gives is changed between calls by who has it:
 *
 * - `requests`: what was asked, `{ origin: "hub" | "store", method, path, range, token }`
 * - `cuts`: by name of a file, how many bytes come before the connection breaks, a list per try
 * - `answers`: by path of a request to the hub, what answers instead, `(request, response) => void`
 * - `contents`: by the store's name of a content, other bytes in its place
 */
export async function serveHub(repos) {
  const hub = { repos, requests: [], cuts: {}, answers: {}, contents: {}, moved: {}, delay: 0 };
  /** What lies in the store, by its name. */
  const stored = (name) => {
    for (const { revisions } of Object.values(hub.repos))
      for (const { files } of Object.values(revisions))
        for (const [path, bytes] of Object.entries(files)) if (sha256(bytes) === name) return { path, bytes };
    return undefined;
  };
  const log = (origin, { method, url, headers }) =>
    hub.requests.push({ origin, method, path: decodeURIComponent(url), range: headers.range, token: headers.authorization });

  const store = createServer((request, response) => {
    log("store", request);
    const name = new URL(request.url, "http://store").pathname.slice(1);
    const found = stored(name);
    // As a signed address is: for one method, and for nobody who brings a key of his own.
    if (!found || request.method !== "GET" || request.headers.authorization) return void response.writeHead(400).end();
    const cut = hub.cuts[found.path]?.shift();
    setTimeout(() => send(request, response, hub.contents[name] ?? found.bytes, { ETag: `"${name.slice(0, 32)}"` }, cut), hub.delay);
  });
  const storeAddress = await listen(store);

  const refusal = (response, status, code) => response.writeHead(status, code ? { "X-Error-Code": code } : {}).end("{}");

  /** A commit of a repository, or why there is none. */
  function found(request, response, name, revision) {
    const repo = Object.hasOwn(hub.repos, name) ? hub.repos[name] : undefined;
    const token = request.headers.authorization;
    if (token !== undefined && token !== "Bearer hf_good") return void refusal(response, 401);
    // Without a token a private repository is as good as none.
    if (!repo || (repo.isPrivate && token === undefined)) return void refusal(response, token ? 404 : 401, "RepoNotFound");
    const commit = Object.entries(repo.revisions).find(([key, { sha }]) => key === revision || sha === revision)?.[1];
    return commit ?? void refusal(response, 404, "RevisionNotFound");
  }

  function resolve(request, response, [, name, revision, path]) {
    const commit = found(request, response, name, decodeURIComponent(revision));
    if (!commit) return;
    if (hub.repos[name].isGated && !hub.repos[name].isGranted)
      return refusal(response, request.headers.authorization ? 403 : 401, "GatedRepo");
    const file = path.split("/").map(decodeURIComponent).join("/");
    const bytes = Object.hasOwn(commit.files, file) ? commit.files[file] : undefined;
    if (!bytes) return refusal(response, 404, "EntryNotFound");
    const common = { "X-Repo-Commit": commit.sha };
    if (!LARGE.test(file))
      return send(
        request,
        response,
        bytes,
        { ...common, ETag: `"${sha1(bytes)}"` },
        request.method === "GET" ? hub.cuts[file]?.shift() : undefined,
      );
    const linked = { "X-Linked-Size": bytes.length, "X-Linked-ETag": `"${sha256(bytes)}"`, ETag: '"0123456789abcdef"' };
    response.writeHead(302, { ...common, ...linked, Location: `${storeAddress}/${sha256(bytes)}?X-Key=secret` }).end();
  }

  function list(request, response, [, name, revision = "main"]) {
    const commit = found(request, response, name, decodeURIComponent(revision));
    if (!commit) return;
    const siblings = Object.keys(commit.files).map((rfilename) => ({ rfilename }));
    response.writeHead(200, { "Content-Type": "application/json" });
    response.end(JSON.stringify({ id: name, modelId: name, sha: commit.sha, private: false, gated: false, siblings }));
  }

  /** As `huggingface_hub` asks for it. */
  function tree(request, response, [, name, revision]) {
    const commit = found(request, response, name, decodeURIComponent(revision));
    if (!commit) return;
    const entries = Object.entries(commit.files).map(([path, bytes]) => ({
      type: "file",
      path,
      size: bytes.length,
      oid: sha1(bytes),
      ...(LARGE.test(path) && { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 130 } }),
    }));
    response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(entries));
  }

  const server = createServer((request, response) => {
    log("hub", request);
    const { pathname: path } = new URL(request.url, "http://hub");
    const own = hub.answers[path] ?? hub.answers[path.split("/").at(-1)];
    if (own) return void own(request, response);
    for (const [from, to] of Object.entries(hub.moved))
      if (path.includes(`/${from}/`)) return void response.writeHead(307, { Location: request.url.replace(from, to) }).end();
    const routes = [
      [/^\/api\/models\/([^/]+\/[^/]+)\/tree\/([^/]+)$/, tree],
      [/^\/api\/models\/([^/]+\/[^/]+)(?:\/revision\/([^/]+))?$/, list],
      [/^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/, resolve],
    ];
    for (const [route, body] of routes) {
      const parts = route.exec(path);
      if (parts) return void body(request, response, parts);
    }
    refusal(response, 404);
  });
  const address = await listen(server);
  const close = async () => {
    for (const one of [server, store]) {
      one.closeAllConnections();
      one.close();
    }
  };
  return Object.assign(hub, { address, storeAddress, close });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [folder = "."] = process.argv.slice(2);
  const repos = {};
  for (const org of readdirSync(folder))
    for (const name of readdirSync(join(folder, org))) {
      const commit = commitOf(filesOf(join(folder, org, name)));
      repos[`${org}/${name}`] = { revisions: { main: commit, "v1.0": commit } };
    }
  console.log((await serveHub(repos)).address);
}

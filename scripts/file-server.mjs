// Serves files of this machine to this machine: the page, its tests, measurements. Ranges,
// conditional requests and types are those of `send`, ranges read as RFC 9110 has them. Nothing
// that a request holds ends it. Knows nothing of what it serves, and writes no file.
import { createServer, STATUS_CODES } from "node:http";
import send from "send";

/** Headers that isolate a page, without which memory is not shared. */
export const ISOLATION = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

/**
 * The names that this machine has for itself. A page of elsewhere whose own name was made to
 * resolve to here comes with that name.
 */
const HERE = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d*)?$/i;

/** What a request asks for: a path, or an address whose host then counts as the Host field does. */
const TARGET = /^(?:https?:\/\/([^/?#]*))?(\/[^?#]*|(?=[?#]|$))/i;

/** The decoded path; undefined for one that is none, or that leaves its folder. */
function pathOf(encoded) {
  try {
    const path = decodeURIComponent(encoded || "/");
    return /[\0\\]/.test(path) || path.split("/").some((part) => part === "." || part === "..") ? undefined : path;
  } catch {
    return undefined;
  }
}

/**
 * Leaves of a Range field what `send` answers as RFC 9110 (14.2) has it: one range, for GET. More
 * than one, and one whose If-Range does not hold, may be ignored and are.
 */
function plainRange({ method, headers }, { size, mtime }) {
  const { range, "if-range": validator } = headers;
  if (range === undefined) return;
  // The ETags are weak, and no If-Range matches a weak one; of dates it is the very same.
  const holds = validator === undefined || validator === mtime.toUTCString();
  const [, last] = /^ *bytes= *-(\d+) *$/i.exec(range) ?? [];
  if (method !== "GET" || !holds || range.includes(",")) delete headers.range;
  // The last bytes of a file that has no more are the whole; of an empty one there is no range to
  // name.
  else if (last > 0 && size === 0) delete headers.range;
  else if (last > size) headers.range = "bytes=0-";
}

/** What is left of a response that cannot be given: a status and its name. */
function refuse(response, status, more = {}) {
  if (response.headersSent) return void response.destroy();
  for (const name of response.getHeaderNames())
    if (/^(?:content-(?:type|length|range)|etag|last-modified)$/.test(name)) response.removeHeader(name);
  response.writeHead(status, { "Content-Type": "text/plain; charset=utf-8", ...more }).end(`${STATUS_CODES[status].toLowerCase()}\n`);
}

/**
 * Starts a server that only this machine reaches, under the names localhost, 127.0.0.1 and [::1].
 *
 * `find` is asked with a decoded path (from "/" on, without `.` and `..`) and gives a file's path,
 * an answer `{ status, type, body }`, or undefined for what is not there; it may be async.
 * `first(request, response, path)` may answer by itself whatever its method is, and then says true.
 * `headers` are sent with every answer. `port`: any free one by default.
 *
 * Returns `{ address, close }`. An error of listening (a port that is taken) rejects.
 */
export async function serveFiles({ find, first = () => false, headers = {}, port = 0 }) {
  async function answer(request, response) {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    const [target, authority, encoded] = TARGET.exec(request.url) ?? [];
    const hosts = request.headersDistinct.host ?? [];
    if (target === undefined || hosts.length !== 1) return refuse(response, 400, { Connection: "close" });
    if (![...hosts, authority ?? "localhost"].every((host) => HERE.test(host))) return refuse(response, 421, { Connection: "close" });
    const path = pathOf(encoded);
    if (path && first(request, response, path)) return;
    if (!["GET", "HEAD"].includes(request.method)) return refuse(response, 405, { Allow: "GET, HEAD", Connection: "close" });
    const found = path && (await find(path));
    if (!found) return refuse(response, 404);
    if (typeof found !== "string") return void response.writeHead(found.status ?? 200, { "Content-Type": found.type }).end(found.body);
    send(request, encodeURIComponent(found), { dotfiles: "allow", index: false, cacheControl: false })
      .on("file", (_, stat) => plainRange(request, stat))
      .on("directory", () => refuse(response, 404))
      .on("error", ({ status, headers: more }) => refuse(response, status, more))
      .pipe(response);
  }

  const server = createServer((request, response) => {
    answer(request, response).catch((error) => {
      console.error(error);
      refuse(response, 500);
    });
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "localhost", () => {
      server.off("error", reject);
      // A connection that cannot be taken (no descriptors are left) is lost, the server is not.
      server.on("error", (error) => console.error(error.message));
      resolve();
    });
  });
  return {
    address: `http://localhost:${server.address().port}/`,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(resolve);
      }),
  };
}

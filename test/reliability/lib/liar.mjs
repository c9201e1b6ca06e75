// A server that lies, as a process of its own, so that its memory is not counted for whoever reads
// it. The path says the lie: /LIE/FILE. Tells its port by a message.

import { createServer } from "node:http";
import { gzipSync } from "node:zlib";
import { filesOf, LLAMA } from "./models.mjs";

const files = filesOf(LLAMA);
const megabyte = Buffer.alloc(2 ** 20, " ");

/** The bytes that a request asks for, by its range. */
function ranged(request, body) {
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
  if (first === undefined) return { status: 200, part: body, headers: {} };
  const [from, end] = [Number(first), Math.min(Number(last) + 1, body.length)];
  if (from >= end) return { status: 416, part: Buffer.alloc(0), headers: {} };
  return { status: 206, part: body.subarray(from, end), headers: { "content-range": `bytes ${from}-${end - 1}/${body.length}` } };
}

function honest(request, response, body, change = {}) {
  const { status, part, headers } = ranged(request, body);
  response.writeHead(change.status ?? status, { "content-length": part.length, ...headers, ...change.headers });
  response.end(part);
}

/** Writes pieces until whoever reads goes away. */
function endless(response, piece) {
  const more = () => {
    while (!response.destroyed && response.write(piece));
  };
  response.on("drain", more);
  more();
}

/** A little of JSON, or of a header, that never ends. */
const opening = (name) => (name.endsWith(".json") ? Buffer.from('{"a":"') : Buffer.from([255, 255, 255, 3, 0, 0, 0, 0, 0x7b]));

let turn = 0;
const bomb = () => gzipSync(Buffer.alloc(2 ** 28, " "), { level: 1 });
let packed;

/** What each lie answers for a file. */
export const lies = {
  "length too large": (request, response, body) => {
    const { status, part, headers } = ranged(request, body);
    response.writeHead(status, { ...headers, "content-length": part.length + 1000 });
    response.write(part);
    setTimeout(() => response.destroy(), 20);
  },
  "length too small": (request, response, body) => {
    const { status, part, headers } = ranged(request, body);
    request.socket.write(
      `HTTP/1.1 ${status} OK\r\ncontent-length: ${Math.floor(part.length / 2)}\r\n${headers["content-range"] ? `content-range: ${headers["content-range"]}\r\n` : ""}\r\n`,
    );
    request.socket.end(part);
  },
  "no ranges": (_, response, body) => response.end(body),
  "a part of what was asked for": (request, response, body) => {
    const { status, part, headers } = ranged(request, body);
    response.writeHead(status, headers);
    response.end(part.subarray(0, Math.floor(part.length / 2)));
  },
  "another range": (request, response, body) =>
    honest(request, response, body, { headers: { "content-range": `bytes 5-9/${body.length}` } }),
  "a range of 10^23 bytes": (request, response, body) =>
    honest(request, response, body, { headers: { "content-range": "bytes 0-9/100000000000000000000000" } }),
  "a total of 2^53": (request, response, body) => {
    const { part } = ranged(request, body);
    honest(request, response, body, { headers: { "content-range": `bytes 0-${part.length - 1}/9007199254740992` } });
  },
  "a total of nothing": (request, response, body) => honest(request, response, body, { headers: { "content-range": "bytes 0-99/0" } }),
  "a range of words": (request, response, body) => honest(request, response, body, { headers: { "content-range": "bytes lots-more/all" } }),
  "206 without a range": (request, response, body) => {
    response.writeHead(206);
    response.end(ranged(request, body).part);
  },
  "another file each time": (request, response, body) =>
    honest(request, response, Buffer.from(body).fill(++turn % 256, 9), { headers: { etag: `"${turn}"` } }),
  "a file that grows": (request, response, body) => honest(request, response, Buffer.concat([body, Buffer.alloc(++turn % 999)])),
  html: (_, response) => response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>gone</title>"),
  "html without saying so": (_, response) => response.writeHead(200).end("<!doctype html><title>gone</title>"),
  empty: (_, response) => response.end(),
  noise: (request, response, body) =>
    honest(
      request,
      response,
      Buffer.from(body).map((byte, at) => (byte + at * 7) & 255),
    ),
  "no gzip": (_, response, body) => response.writeHead(200, { "content-encoding": "gzip" }).end(body),
  "half a gzip": (_, response, body) => response.writeHead(200, { "content-encoding": "gzip" }).end(gzipSync(body).subarray(0, 60)),
  "an unknown encoding": (_, response, body) => response.writeHead(200, { "content-encoding": "wat" }).end(body),
  bomb: (_, response) => {
    packed ??= bomb();
    response.writeHead(200, { "content-encoding": "gzip" });
    const more = () => {
      while (!response.destroyed && response.write(packed));
    };
    response.on("drain", more);
    more();
  },
  endless: (_, response, __, name) => {
    response.writeHead(200);
    response.write(opening(name));
    endless(response, megabyte);
  },
  "endless range": (request, response, body, name) => {
    const { status, headers } = ranged(request, body);
    response.writeHead(status, headers);
    response.write(opening(name));
    endless(response, megabyte);
  },
  "an error's status": (_, response) => response.writeHead([500, 503, 403, 204, 304, 301][turn++ % 6]).end(),
  "redirects for ever": (_, response, __, name) => response.writeHead(302, { location: `/redirects%20for%20ever/${name}` }).end(),
  "a redirect to nowhere": (_, response) => response.writeHead(302, { location: "http://localhost:1/x" }).end(),
  "a redirect to a file": (_, response) => response.writeHead(302, { location: "file:///no/such/file" }).end(),
  "closed at once": (request) => request.socket.destroy(),
  "closed in the headers": (request) => request.socket.end("HTTP/1.1 200 OK\r\ncontent-le"),
  "no HTTP": (request) => request.socket.end("SSH-2.0-OpenSSH_9.9\r\n"),
  "headers without end": (request) => {
    request.socket.write("HTTP/1.1 200 OK\r\n");
    const more = () => {
      while (!request.socket.destroyed && request.socket.write("x-a: b\r\n".repeat(1000)));
    };
    request.socket.on("drain", more);
    more();
  },
  // Those that wait for the signal.
  "hangs before the headers": () => {},
  "hangs after the headers": (_, response) => response.writeHead(200, { "content-length": 1e6 }).flushHeaders(),
  "hangs in the body": (request, response, body) => {
    const { status, part, headers } = ranged(request, body);
    response.writeHead(status, { ...headers, "content-length": part.length });
    response.write(part.subarray(0, 100));
  },
};

if (process.send) {
  const server = createServer((request, response) => {
    const [, lie, name] = decodeURIComponent(request.url).split("/");
    response.on("error", () => {});
    const body = files[name];
    if (lie === "honest") return body ? honest(request, response, Buffer.from(body)) : response.writeHead(404).end();
    // A lie may be about one of the files only.
    const [about, which] = lie.split("@");
    if (which && which !== name) return body ? honest(request, response, Buffer.from(body)) : response.writeHead(404).end();
    if (!body && !which) return response.writeHead(404).end();
    lies[about](request, response, Buffer.from(body ?? "{}"), name);
  });
  server.on("connection", (socket) => socket.on("error", () => {}));
  server.on("clientError", (_, socket) => socket.destroy());
  server.listen(0, "127.0.0.1", () => process.send(server.address().port));
  process.on("disconnect", () => process.exit());
}

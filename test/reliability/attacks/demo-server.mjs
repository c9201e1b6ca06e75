// Raw bytes for the server of `npm start`: requests with odd methods, paths, ranges, hosts and
// headers, halves of requests, and what is none. It outlives all of them and answers the next right
// one.

import { fork } from "node:child_process";
import { connect } from "node:net";
import { fileURLToPath } from "node:url";
import { Random } from "../lib/random.mjs";

const METHODS = ["GET", "GET", "GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE", "CONNECT", "get", "", "G\u0000T", "PRI"];
const PATHS = [
  "/",
  "/index.html",
  "/app.js",
  "/style.css",
  "/nothing",
  "/..",
  "/../../package.json",
  "/%2e%2e/%2e%2e/package.json",
  "//",
  "//x",
  "/%",
  "/%00",
  "/%ff",
  "/%E0%A4%A",
  "/\u0000",
  "*",
  "",
  "http://[",
  "http://localhost/",
  "/?",
  "/#",
  "/index.html/",
  "/.",
  "/index.html?__proto__",
  "/constructor",
  "/a".repeat(4000),
  "/\u00e9",
  "\\",
  "/index.html%20",
  "/ index.html",
];
const RANGES = [
  "bytes=0-5",
  "bytes=-5",
  "bytes=-0",
  "bytes=5-2",
  "bytes=5-",
  "bytes=-",
  "bytes=",
  "bytes",
  "bytes=0-99999999999999999999",
  "bytes=99999999999999999999-",
  "bytes=-99999999999999999999",
  "bytes=0-0,5-9",
  "bytes=a-b",
  "bytes=1e3-2e3",
  "bytes=0x1-0x9",
  "bytes= 0 - 5",
  "items=0-5",
  "bytes=--5",
  "bytes=NaN-NaN",
  "bytes=0-5;q=1",
  "bytes=9007199254740993-",
  "bytes=0.5-2",
  "bytes=\u0660-\u0665",
];
const HOSTS = [
  "localhost",
  "localhost:8788",
  "127.0.0.1",
  "[::1]",
  "[::1]:80",
  "example.com",
  "localhost.example.com",
  "",
  ":",
  "[",
  "localhost:99999",
  "LOCALHOST",
  "a b",
  "localhost,example.com",
  "user@localhost",
  "\u00e9",
];
const HEADERS = [
  'If-None-Match: W/"x"',
  "If-Modified-Since: never",
  "Accept-Encoding: br;q=nan, gzip;q=9",
  "Accept-Encoding: *",
  "Content-Length: 99999999999",
  "Content-Length: -1",
  "Content-Length: 5\r\nContent-Length: 6",
  "Transfer-Encoding: chunked",
  "Transfer-Encoding: identity, chunked",
  "Expect: 100-continue",
  "Expect: x",
  "Connection: Upgrade\r\nUpgrade: websocket",
  "Upgrade: h2c",
  "If-Range: x",
  "Range: bytes=0-1",
  "X: \u0000",
  ": x",
  "no header",
  "Cookie: " + "a".repeat(20_000),
  "__proto__: x",
  "constructor: x",
];

/** A request, or what is none. */
function request(random) {
  if (random.oneIn(12)) return Buffer.from(Array.from({ length: random.integer(0, 300) }, () => random.integer(0, 255)));
  const line = `${random.pick(METHODS)} ${random.pick(PATHS)} ${random.oneIn(8) ? random.pick(["HTTP/9.9", "HTTP/1.0", "", "HTTP/2.0"]) : "HTTP/1.1"}`;
  const headers = random.oneIn(15) ? [] : [`Host: ${random.oneIn(3) ? random.pick(HOSTS) : "localhost"}`];
  if (!random.oneIn(3)) headers.push(`Range: ${random.pick(RANGES)}`);
  for (let more = random.integer(0, 2); more > 0; more--) headers.push(random.pick(HEADERS));
  const end = random.oneIn(6) ? "" : "\r\n\r\n";
  const text = [line, ...headers].join("\r\n") + end + (random.oneIn(6) ? "5\r\nhello\r\nffffffffff\r\n" : "");
  const bytes = Buffer.from(random.oneIn(3) ? `${text}${text}` : text, random.oneIn(2) ? "utf8" : "latin1");
  return random.oneIn(10) ? bytes.subarray(0, random.integer(0, bytes.length)) : bytes;
}

/** Sends bytes and waits a moment for what comes; hangs up. */
const send = (port, bytes, ms) =>
  new Promise((resolve) => {
    const socket = connect(port, "localhost");
    let answer = "";
    const end = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(end, ms);
    socket.on("error", end).on("close", end);
    socket.on("data", (piece) => {
      answer += piece.toString("latin1", 0, 200);
      end();
    });
    socket.on("connect", () => socket.write(bytes));
  });

const right = Buffer.from("GET /index.html HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-8\r\nConnection: close\r\n\r\n");

export default {
  title: "requests for the server of npm start",
  properties: {
    "ends of the server": { limit: 0 },
    "right requests without an answer": { limit: 0 },
  },
  counts: { short: 1000, full: 20_000 },
  minutes: { short: 2, full: 5 },

  async run({ count, seed, trace, miss }) {
    let [ends, unanswered] = [0, 0];
    let server;
    let port;
    const start = async () => {
      server = fork(fileURLToPath(new URL("../lib/demo-host.mjs", import.meta.url)), { stdio: ["ignore", "ignore", "pipe", "ipc"] });
      let said = "";
      server.stderr.setEncoding("utf8").on("data", (text) => (said = (said + text).slice(-2000)));
      server.said = () => /^\w*(Error|TypeError|RangeError).*$/m.exec(said)?.[0] ?? said.slice(0, 200);
      server.once("exit", () => (server.ended = true));
      port = await new Promise((resolve, reject) => {
        server.once("message", resolve);
        server.once("exit", () => reject(new Error(`the server does not start: ${said}`)));
      });
    };
    await start();
    const batch = 10;
    for (let index = 0; index < count; index += batch) {
      const sent = Array.from({ length: batch }, (_, i) => request(new Random(seed, index + i)));
      trace(index, JSON.stringify(sent[0].toString("latin1").slice(0, 60)));
      await Promise.all(sent.map((bytes) => send(port, bytes, 100)));
      const answer = server.ended ? "" : await send(port, right, 10_000);
      // (That it ended is told later than that nobody answers.)
      if (answer === "") await new Promise((resolve) => setTimeout(resolve, 500));
      if (server.ended) {
        ends++;
        miss(
          index,
          `the server ended: ${server.said()}; sent: ${sent.map((bytes) => JSON.stringify(bytes.toString("latin1").slice(0, 120))).join(" ")}`.slice(
            0,
            600,
          ),
        );
        if (ends === 20) break;
        await start();
      } else if (!/^HTTP\/1\.1 (206|200)/.test(answer)) {
        unanswered++;
        miss(index, `after it a right request gets ${JSON.stringify(answer.slice(0, 60))}`);
      }
    }
    server.disconnect();
    return { "ends of the server": ends, "right requests without an answer": unanswered };
  },
};

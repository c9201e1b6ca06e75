// A service that writes text: POST /generate streams what a model adds to a prompt, GET /health says whether it takes requests. Bounds
// what a request may ask for and how many run at once, stops when a reader goes away, and ends by SIGTERM without cutting a text off.
// Knows no users and no TLS: put a proxy before it.
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { DiffLlama } from "diffattn/models";

const { MODEL = "model", HOST = "0.0.0.0", PORT = "8080", GRACE_SECONDS = "8" } = process.env;

const LIMITS = {
  bodyBytes: 64 * 1024,
  promptTokens: 1024,
  newTokens: 4096,
  /** Texts that are written at once; more are told to come back. Each takes memory for its tokens, and all share the same threads. */
  running: 4,
  /** How long texts may go on once the service is to end. Docker kills after 10 s unless it is told otherwise. */
  graceSeconds: Number(GRACE_SECONDS),
};

/** What is wrong with a request: its sender is told, with the status. */
class Refused extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const model = await DiffLlama.load(MODEL);
let running = 0;
/** Written since the service began. */
let tokens = 0;
let isEnding = false;
/** Ends the texts that outlast the grace. */
const killed = new AbortController();

async function readJson(request: IncomingMessage): Promise<unknown> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > LIMITS.bodyBytes) throw new Refused(413, `body: expected ${LIMITS.bodyBytes} bytes at most`);
    pieces.push(piece);
  }
  try {
    return JSON.parse(Buffer.concat(pieces).toString());
  } catch {
    throw new Refused(400, "body: expected JSON");
  }
}

/** What a request asks for, checked. Lengths are counted in tokens, which is what they cost. */
function readOrder(body: unknown): { ids: number[]; maxNewTokens: number } {
  const { prompt, maxNewTokens = 64 } = (body ?? {}) as { prompt?: unknown; maxNewTokens?: unknown };
  if (typeof prompt !== "string" || prompt === "") throw new Refused(400, "prompt: expected a text");
  if (!Number.isInteger(maxNewTokens) || Number(maxNewTokens) < 1 || Number(maxNewTokens) > LIMITS.newTokens)
    throw new Refused(400, `maxNewTokens: expected an integer from 1 to ${LIMITS.newTokens}`);
  const ids = model.encode(prompt);
  if (ids.length > LIMITS.promptTokens) throw new Refused(413, `prompt: expected ${LIMITS.promptTokens} tokens at most, got ${ids.length}`);
  return { ids, maxNewTokens: Number(maxNewTokens) };
}

async function generate(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { ids, maxNewTokens } = readOrder(await readJson(request));
  if (isEnding || running >= LIMITS.running) throw new Refused(503, "busy: try again later");
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  const signal = AbortSignal.any([gone.signal, killed.signal]);
  running += 1;
  try {
    response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store" });
    for await (const { text } of model.generate(ids, { maxNewTokens, signal })) {
      tokens += 1;
      // Nothing is computed while nobody reads.
      if (!response.write(text)) await once(response, "drain", { signal });
    }
    response.end();
  } finally {
    running -= 1;
  }
}

function health(response: ServerResponse): void {
  response.writeHead(isEnding ? 503 : 200, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ status: isEnding ? "ending" : "ok", running, tokens }));
}

const server = createServer((request, response) => {
  const answer = async () => {
    const path = request.url?.split("?")[0];
    if (path === "/health" && request.method === "GET") health(response);
    else if (path === "/generate" && request.method === "POST") await generate(request, response);
    else throw new Refused(404, "expected POST /generate or GET /health");
  };
  answer().catch((error: unknown) => {
    if (response.destroyed) return;
    // A text that is under way cannot say that it failed but by ending early.
    if (response.headersSent) return void response.destroy();
    if (!(error instanceof Refused)) console.error(error);
    const { status, message } = error instanceof Refused ? error : { status: 500, message: "it failed" };
    // What is left of the request is not read.
    response.writeHead(status, {
      "Content-Type": "text/plain; charset=utf-8",
      Connection: "close",
      ...(status === 503 && { "Retry-After": "1" }),
    });
    response.end(`${message}\n`);
  });
});
server.requestTimeout = 30_000;
server.headersTimeout = 10_000;
// Of a connection on which nothing moves: whoever asks for a text and does not read it.
server.timeout = 60_000;
server.maxConnections = 256;

async function end(): Promise<void> {
  if (isEnding) return;
  isEnding = true;
  // No new connections; `running` texts end first, connections that wait for a next request at once.
  const closed = new Promise((resolve) => server.close(resolve));
  await Promise.race([closed, sleep(1000 * LIMITS.graceSeconds, undefined, { ref: false })]);
  killed.abort();
  server.closeAllConnections();
  await closed;
  model.dispose();
}
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => void end());

server.listen(Number(PORT), HOST);
await once(server, "listening");
const address = server.address();
console.log(`listening on port ${typeof address === "object" ? address?.port : address}`);

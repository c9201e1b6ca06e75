// diffattn serve: a model behind an HTTP interface that clients of OpenAI's talk to. Listens, and
// stops as it should; what is answered is decided in serve/.

import type { AddressInfo } from "node:net";
import { basename } from "node:path";
import { createAdaptorServer } from "@hono/node-server";
import type { Server } from "node:http";
import { Failure, sentence } from "./failure.js";
import { type BackendOptions, loadLanguageModel, start } from "./library.js";
import { appOf } from "./serve/app.js";
import { Engine } from "./serve/engine.js";
import type { Terminal } from "./terminal.js";

export interface ServeOptions extends BackendOptions {
  host: string;
  port: number;
  apiKey?: string;
  cors?: string[];
  name?: string;
  parallel: number;
  queue: number;
  prefixMemory: number;
  maxBody: number;
  grace: number;
}

const MEGABYTE = 2 ** 20;
/** Milliseconds within which a request is to arrive, and its headers. */
const ARRIVAL = 60_000;

/** The name of a model: the last part of where it lies. */
const nameOf = (source: string): string =>
  basename(source.replace(/[/\\]+$/, "").replace(/[?#].*$/, "")).replace(/\.gguf$/i, "") || "model";

const HOST = /^\[?([^\]]*)\]?$/;

/** Listens; rejects where it cannot. */
function listening(server: Server, host: string, port: number): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const known: Record<string, string> = {
        EADDRINUSE: "another program has that port",
        EACCES: "that port is not for everyone",
        EADDRNOTAVAIL: "this machine has no such address",
        ENOTFOUND: "there is no such host",
      };
      reject(new Failure(`${host}:${port}: ${(error.code && known[error.code]) ?? sentence(error)}`, { cause: error }));
    });
    server.listen(port, HOST.exec(host)?.[1] ?? host, () => resolve(server.address() as AddressInfo));
  });
}

/** Resolves when the server is told to stop. */
function stopped(terminal: Terminal): Promise<void> {
  return new Promise((resolve) => {
    const stop = (): void => resolve();
    terminal.signal.addEventListener("abort", stop, { once: true });
    if (terminal.signal.aborted) stop();
    process.once("SIGTERM", () => {
      // Who asks again does not wait.
      process.once("SIGTERM", () => process.exit(1));
      stop();
    });
  });
}

/** Takes no further connections, and waits for those that are open, so long as it may. */
async function closed(server: Server, seconds: number): Promise<void> {
  const end = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  // (Connections that are kept alive are idle once their answer is there.)
  const idle = setInterval(() => server.closeIdleConnections(), 100);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, seconds * 1000)));
  await Promise.race([end, late]);
  clearInterval(idle);
  clearTimeout(timer);
  server.closeAllConnections();
}

export async function serve(terminal: Terminal, source: string, options: ServeOptions): Promise<void> {
  const { backend, isa, threads, host, port, parallel, queue, grace } = options;
  await start({ ...(backend && { backend }), ...(isa && { isa }), ...(threads && { threads }) });
  using model = await loadLanguageModel(terminal, source);
  using batch = await model.createBatch({ size: parallel, prefixBytes: Math.floor(options.prefixMemory * MEGABYTE) });
  const engine = new Engine(options.name ?? nameOf(source), model, batch, { parallel, queue });
  const apiKey = options.apiKey ?? (process.env["DIFFATTN_API_KEY"] || undefined);
  const app = appOf(engine, { apiKey, origins: options.cors ?? [], maxBody: Math.floor(options.maxBody * MEGABYTE) });
  const server = createAdaptorServer({ fetch: app.fetch, serverOptions: { requestTimeout: ARRIVAL, headersTimeout: ARRIVAL } }) as Server;
  const stop = stopped(terminal);
  const { address, family, port: own } = await listening(server, host, port);
  await terminal.line(`http://${family === "IPv6" ? `[${address}]` : address}:${own} serves ${engine.name}`);
  if (apiKey === undefined && !/^(127\.|::1$)/.test(address))
    terminal.complain("note: anyone who reaches this machine may use it: --api-key asks for a key");
  await stop;
  engine.isStopping = true;
  terminal.note("stopping: what is being written is finished first");
  await closed(server, grace);
}

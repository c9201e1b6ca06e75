// The routes: who may call, what is too large, and what each answers. Hono's Request and Response
// are the web's; nothing here listens.

import { createHash, timingSafeEqual } from "node:crypto";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { routePath } from "hono/route";
import { ApiError, apiError } from "./api-error.js";
import { pieces, Usage, whole } from "./answers.js";
import type { Engine } from "./engine.js";
import { type Asked, chat, completion, embeddings, tokenize } from "./requests.js";
import { events } from "./stream.js";

export interface AppOptions {
  /** What callers must name. */
  readonly apiKey: string | undefined;
  /** Origins whose pages may call; "*" all. */
  readonly origins: readonly string[];
  /** Bytes of a body. */
  readonly maxBody: number;
}

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

/** A body in JSON. */
async function bodyOf(c: Context): Promise<unknown> {
  // Pages may send other types anywhere without asking.
  if (!/^application\/json *(;|$)/i.test(c.req.header("content-type") ?? ""))
    throw new ApiError(415, "expected a body of application/json", null, "unsupported_media_type");
  const text = await c.req.text();
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new ApiError(400, "the body: expected JSON", null, "invalid_json");
  }
}

/** Writes what was asked for, as a whole or in pieces. */
async function written(c: Context, engine: Engine, asked: Asked): Promise<Response> {
  const leave = engine.enter(asked.texts);
  const stop = new AbortController();
  const { signal } = c.req.raw;
  let isOver = false;
  const over = (isGone: boolean): void => {
    if (isOver) return;
    isOver = true;
    if (isGone) engine.metrics.closed++;
    signal.removeEventListener("abort", gone);
    stop.abort();
    leave();
  };
  const gone = (): void => over(true);
  signal.addEventListener("abort", gone);
  if (signal.aborted) gone();
  const tokens = engine.write(asked.prompt, { ...asked.options, signal: stop.signal });
  const answering = { model: engine.name, texts: asked.texts, usage: new Usage(asked.perPrompt), includeUsage: asked.includeUsage };
  if (asked.isStream) return events(pieces(asked.form, tokens, answering), over);
  try {
    return c.json(await whole(asked.form, tokens, answering));
  } finally {
    over(false);
  }
}

/** Vectors of texts, one after the other, so that texts that are written go on between two. */
async function vectors(c: Context, engine: Engine, json: unknown): Promise<Response> {
  const { inputs, isBase64 } = embeddings(json, engine);
  const leave = engine.enter(1);
  try {
    const data: object[] = [];
    for (const [index, ids] of inputs.entries()) {
      const { data: values } = await engine.model.embed([ids], { signal: c.req.raw.signal });
      const numbers = values as Float32Array;
      const bytes = Buffer.from(numbers.buffer, numbers.byteOffset, numbers.byteLength);
      data.push({ object: "embedding", index, embedding: isBase64 ? bytes.toString("base64") : [...numbers] });
    }
    const tokens = inputs.reduce((sum, { length }) => sum + length, 0);
    engine.metrics.promptTokens += tokens;
    return c.json({ object: "list", data, model: engine.name, usage: { prompt_tokens: tokens, total_tokens: tokens } });
  } finally {
    leave();
  }
}

/** Who may call. */
function guard(app: Hono, { apiKey, origins, maxBody }: AppOptions): void {
  const isAll = origins.includes("*");
  if (origins.length > 0)
    app.use(cors({ origin: isAll ? "*" : [...origins], allowHeaders: ["authorization", "content-type"], maxAge: 600 }));
  app.use(async (c, next) => {
    // A page of any site can reach a server on its reader's machine; programs name no origin.
    const origin = c.req.header("origin");
    if (origin !== undefined && !isAll && !origins.includes(origin))
      throw new ApiError(403, "requests of web pages are refused unless --cors names their origin", null, "origin_refused");
    await next();
  });
  if (apiKey !== undefined) {
    const wanted = digest(apiKey);
    app.use(async (c, next) => {
      const [, key] = /^Bearer +(.+)$/i.exec(c.req.header("authorization") ?? "") ?? [];
      if (c.req.path !== "/health" && !(key !== undefined && timingSafeEqual(digest(key), wanted))) {
        c.header("www-authenticate", "Bearer");
        throw new ApiError(
          401,
          key === undefined ? "expected an API key (Authorization: Bearer KEY)" : "the API key is another",
          null,
          "invalid_api_key",
        );
      }
      await next();
    });
  }
  const onError = (): never => {
    throw new ApiError(413, `the body: expected at most ${maxBody} bytes`, null, "body_too_large");
  };
  app.use(bodyLimit({ maxSize: maxBody, onError }));
}

export function appOf(engine: Engine, options: AppOptions): Hono {
  const app = new Hono();
  app.use(async (c, next) => {
    await next();
    // (A path that no route has is the caller's own word.)
    const path = routePath(c, -1);
    engine.metrics.request(/\*/.test(path) ? "other" : path, c.res.status);
  });
  /** What is not read of a body ends its connection, so that no further request is sent on it. */
  const refusal = (c: Context, error: ApiError): Response => {
    if (c.req.raw.body && !c.req.raw.bodyUsed) c.header("connection", "close");
    return c.json(error.json, error.status);
  };
  app.onError((thrown, c) => {
    const error = apiError(thrown);
    if (error.status === 429) c.header("retry-after", "1");
    return refusal(c, error);
  });
  app.notFound((c) => refusal(c, new ApiError(404, `there is no ${c.req.method} ${c.req.path.slice(0, 200)}`, null, "not_found")));
  guard(app, options);

  const model = { id: engine.name, object: "model", created: engine.created, owned_by: "diffattn" };
  app.get("/health", (c) => c.json({ status: engine.isStopping ? "stopping" : "ok", ...engine.load }, engine.isStopping ? 503 : 200));
  app.get("/metrics", (c) => {
    const { running, waiting } = engine.load;
    return c.text(engine.metrics.text(running, waiting), 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
  });
  app.get("/v1/models", (c) => c.json({ object: "list", data: [model] }));
  app.get("/v1/models/:id{.+}", (c) => {
    engine.check(c.req.param("id"));
    return c.json(model);
  });
  app.post("/v1/completions", async (c) => written(c, engine, completion(await bodyOf(c), engine)));
  app.post("/v1/chat/completions", async (c) => written(c, engine, await chat(await bodyOf(c), engine)));
  app.post("/v1/embeddings", async (c) => vectors(c, engine, await bodyOf(c)));
  app.post("/tokenize", async (c) => c.json({ tokens: tokenize(await bodyOf(c), engine) }));
  return app;
}

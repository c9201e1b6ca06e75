// POST /api/generate: streams what the model adds to a prompt, in Node, by the native binary. A token is computed when its reader has room
// for it, and none once it went away.
import { join } from "node:path";
import { DiffLlama, type GeneratedToken } from "diffattn/models";

const NEW_TOKENS = 4096;
const PROMPT_TOKENS = 1024;

let loading: Promise<DiffLlama> | undefined;

/** Loaded by the first request and kept; tried again by the next one where that fails. */
function load(): Promise<DiffLlama> {
  loading ??= DiffLlama.load(process.env.MODEL ?? join(process.cwd(), "public/model")).catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

/** The text's pieces as bytes; says how many there were, however it ended. */
async function* write(tokens: AsyncIterable<GeneratedToken>): AsyncGenerator<Uint8Array, void, undefined> {
  const encoder = new TextEncoder();
  let count = 0;
  try {
    for await (const { text } of tokens) {
      count += 1;
      yield encoder.encode(text);
    }
  } finally {
    console.log(`generated ${count} tokens`);
  }
}

const refused = (message: string) => new Response(message, { status: 400 });

export async function POST(request: Request): Promise<Response> {
  const body: unknown = await request.json().catch(() => null);
  const { prompt, maxNewTokens = 64 } = (body ?? {}) as { prompt?: unknown; maxNewTokens?: unknown };
  if (typeof prompt !== "string" || prompt === "") return refused("prompt: expected a text");
  if (!Number.isInteger(maxNewTokens) || Number(maxNewTokens) < 1 || Number(maxNewTokens) > NEW_TOKENS)
    return refused(`maxNewTokens: expected an integer from 1 to ${NEW_TOKENS}`);
  const model = await load();
  const ids = model.encode(prompt);
  if (ids.length > PROMPT_TOKENS) return refused(`prompt: expected ${PROMPT_TOKENS} tokens at most, got ${ids.length}`);

  const pieces = write(model.generate(ids, { maxNewTokens: Number(maxNewTokens), signal: request.signal }));
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await pieces.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel() {
        await pieces.return();
      },
    },
    // Nothing in advance.
    { highWaterMark: 0 },
  );
  return new Response(stream, { headers: { "Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store" } });
}

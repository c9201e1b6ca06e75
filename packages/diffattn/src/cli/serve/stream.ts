// Server-sent events. Knows no interface.

import { apiError } from "./api-error.js";

const HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache",
  // nginx sends what it gets at once.
  "x-accel-buffering": "no",
};

/**
 * A response of events, each of an object, with "[DONE]" at the end. What fails before the first is
 * thrown, so that it can be answered; later it is an event. `over` is called at the end: with true
 * where the reader went away.
 */
export async function events(objects: AsyncGenerator<object, void, undefined>, over: (isGone: boolean) => void): Promise<Response> {
  const encoder = new TextEncoder();
  const event = (data: string): Uint8Array => encoder.encode(`data: ${data}\n\n`);
  let first: IteratorResult<object, void> | undefined;
  try {
    first = await objects.next();
  } catch (error) {
    over(false);
    throw error;
  }
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = first ?? (await objects.next());
          first = undefined;
          controller.enqueue(event(done ? "[DONE]" : JSON.stringify(value)));
          if (!done) return;
        } catch (error) {
          controller.enqueue(event(JSON.stringify(apiError(error).json)));
        }
        over(false);
        controller.close();
      },
      async cancel() {
        over(true);
        await objects.return();
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, { headers: HEADERS });
}

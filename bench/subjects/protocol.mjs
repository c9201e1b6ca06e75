// The protocol of the JavaScript subjects on standard input and output. It knows no library and no
// case; bench/README.md describes all of it.
import { createInterface } from "node:readline";
import { sentence } from "./measuring.mjs";

// A line on standard output is a reply, so whatever a library logs goes to standard error.
console.log = console.info = console.debug = console.error;

/**
 * Answers each request of standard input by `handlers[request.do](request)`; whatever that throws
 * becomes its error.
 */
export async function serve(handlers) {
  for await (const line of createInterface({ input: process.stdin })) {
    if (!line.trim()) continue;
    let reply;
    try {
      const request = JSON.parse(line);
      if (!Object.hasOwn(handlers, request.do)) throw new Error(`no answer to ${JSON.stringify(request.do)}`);
      reply = (await handlers[request.do](request)) ?? {};
    } catch (error) {
      reply = { error: sentence(error) };
    }
    // An answer can be larger than a pipe: it is gone when the callback comes.
    await new Promise((done) => process.stdout.write(`${JSON.stringify(reply)}\n`, done));
  }
  // Worker threads of a library must not keep a finished subject alive.
  process.exit(0);
}

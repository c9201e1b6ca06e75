// How a page answers requests that page.mjs hands over: `answer(request)` is global.
import { sentence } from "./measuring.mjs";

/** Answers each request by `handlers[request.do](request)`; what that throws becomes its error. */
export function answering(handlers) {
  globalThis.answer = async (request) => {
    try {
      if (!Object.hasOwn(handlers, request.do)) throw new Error(`no answer to ${JSON.stringify(request.do)}`);
      return (await handlers[request.do](request)) ?? {};
    } catch (error) {
      return { error: sentence(error) };
    }
  };
}

/** The browser, for `info`. */
export const runtime = () => /(Chrome|Firefox)\/[\d.]+/.exec(navigator.userAgent)?.[0] ?? navigator.userAgent;

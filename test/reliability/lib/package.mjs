// The built package, and what its errors may be. Attacks nothing.

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const dist = (file) => fileURLToPath(new URL(`../../../packages/diffattn/dist/${file}`, import.meta.url));

export const api = require(dist("node.js"));
export const models = require(dist("models-node.js"));

/** Every code but INTERNAL, which is a bug by its own word. */
const CODES = ["SHAPE", "DTYPE", "OPTION", "OUT_OF_MEMORY", "ABORTED", "DISPOSED", "FILE", "UNAVAILABLE"];

/** What a sentence may hold of what was given, and the words around it. */
const SENTENCE = 2100;

/** What callers' own getters and callbacks throw: that it reaches the caller is right. */
export class Theirs extends Error {}

/** What a class without a name throws that is called as a callback: no class of ours is without. */
const CLASS_CALLED = "Class constructors cannot be invoked without 'new'";

/** Why something thrown is none of the package's errors; undefined where it is one. */
export function notOurs(error) {
  if (error instanceof Theirs || error?.cause instanceof Theirs) return undefined;
  if (error instanceof TypeError && error.message === CLASS_CALLED) return undefined;
  const said = String(error?.message ?? error)
    .split("\n")[0]
    .slice(0, 160);
  if (!(error instanceof api.DiffAttnError)) return `${error?.name ?? typeof error}: ${said}`;
  if (!CODES.includes(error.code)) return `${error.code}: ${said}`;
  if (error.message.length > SENTENCE) return `a sentence of ${error.message.length} characters: ${said}`;
  return undefined;
}

/** `promise`, or a failure after `ms`. */
export async function within(ms, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no end after ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

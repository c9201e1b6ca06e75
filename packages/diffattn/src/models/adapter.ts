// Low-rank adapters, written: the two files that hold one, in PEFT's names. What tensors are called
// and what the configuration says is Rust's (request 93). Trains none.

import { checkOptions, has, isAbsent, show, unreadable } from "../check.js";
import { encode } from "../encode.js";
import { fail, internal } from "../errors.js";
import { checkSignal } from "../run.js";
import { throwIfAborted } from "./abort.js";
import { run } from "./backend.js";
import { outputOf, writeFile } from "./folder-output.js";
import { ADAPTER } from "./load.js";
import { bufferOf, jsonOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import { entriesOf, piecesOf, storedOf, type Written, writePieces } from "./safetensors.js";
import type * as types from "./types.js";

const OPTIONS = ["alpha", "conversion", "baseModel", "target", "signal"];
const CONVERSION = ["to", "heads", "start"];
/** What PEFT's own files say of themselves. */
const METADATA = { format: "pt" };

/** A weight's tensors, in the order of the request: A and B, or the whole. */
function tensorsOf(name: string, given: unknown): { argument: string; tensor: Written }[] {
  const argument = `weights.${name}`;
  try {
    if (!has(given, "a") && !has(given, "b")) return [{ argument, tensor: storedOf(argument, given) }];
    const { a, b } = given as { a?: unknown; b?: unknown };
    return Object.entries({ a, b }).map(([part, one]) => ({
      argument: `${argument}.${part}`,
      tensor: storedOf(`${argument}.${part}`, one),
    }));
  } catch (thrown) {
    return unreadable("DTYPE", argument, thrown);
  }
}

/** The options that the configuration is made of; what they may say is Rust's to check. */
function described(given: Partial<types.SaveAdapterOptions>): Record<string, unknown> {
  const { alpha, baseModel } = given;
  if (!isAbsent(alpha) && !(typeof alpha === "number" && Number.isFinite(alpha))) fail("OPTION", "alpha", "a finite number", show(alpha));
  if (!isAbsent(baseModel) && typeof baseModel !== "string") fail("OPTION", "baseModel", "a text", show(baseModel));
  const conversion = isAbsent(given.conversion) ? undefined : checkOptions("conversion", given.conversion, CONVERSION);
  return { alpha, baseModel, conversion: conversion && { heads: "all", ...conversion } };
}

export async function saveAdapter(
  weights: Readonly<Record<string, types.AdapterWeight>>,
  options?: types.SaveAdapterOptions,
): Promise<Readonly<Record<string, Uint8Array<ArrayBuffer>>> | undefined> {
  const given = checkOptions("options", options, OPTIONS);
  const { signal } = given;
  checkSignal(signal);
  const about = described(given);
  const list = entriesOf("weights", "tensors", weights).map(([name, weight]) => ({ name, tensors: tensorsOf(name, weight) }));
  const elements = ({ tensor: { dtype, shape } }: { tensor: Written }): object => ({ dtype, shape });
  const specs = list.map(({ name, tensors: [a, b] }) => [name, a && b ? { a: elements(a), b: elements(b) } : a && elements(a)]);
  const request = encode(requests.adapterFiles, { spec: JSON.stringify({ weights: specs, ...about }) });
  const [config, told] = await run(request, { signal });
  const named = jsonOf(told) as { name: string }[];
  const tensors = list.flatMap(({ tensors }) => tensors);
  const written = tensors.map(({ argument, tensor }, at) => {
    const { name } = named[at] ?? {};
    if (name === undefined) throw internal("a tensor without a name");
    return { ...tensor, name, argument };
  });
  const { pieces, length } = await piecesOf(written, METADATA);
  const output = await outputOf(given.target);
  const sink = await output.begin(ADAPTER.weights, length);
  try {
    for (const piece of pieces) {
      throwIfAborted(signal);
      await writePieces(sink, piece);
    }
    await writeFile(output, ADAPTER.config, new Uint8Array(bufferOf(config)));
  } catch (error) {
    await sink.abort(error);
    throw error;
  }
  // (The weights get their name last: it stands for a whole adapter.)
  await sink.end();
  return output.files;
}

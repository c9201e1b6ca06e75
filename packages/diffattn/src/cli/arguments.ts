// What commands' arguments have in common: numbers within bounds, lists, options of every command
// that computes. Knows no command.

import { Argument, type Command, InvalidArgumentError, Option } from "commander";
import type * as operators from "../types.js";

const ISAS: readonly operators.Isa[] = ["avx512", "avx2", "neon", "scalar", "relaxed-simd+threads", "relaxed-simd", "simd128"];

/** A parser of numbers within bounds. */
export function number(least: number, most = Infinity, { whole = true, open = false } = {}): (text: string) => number {
  const noun = whole ? "an integer" : "a number";
  const from = least === -Infinity ? "" : open ? `above ${least}` : most === Infinity ? `of ${least} or more` : `from ${least}`;
  const wanted = `${noun}${from && " "}${from}${most === Infinity ? "" : ` ${open ? "and at most" : "to"} ${most}`}`;
  return (text) => {
    const value = text.trim() === "" ? NaN : Number(text);
    if (Number.isFinite(value) && (!whole || Number.isInteger(value)) && value <= most && (open ? value > least : value >= least))
      return value;
    throw new InvalidArgumentError(`Expected ${wanted}.`);
  };
}

export const listed = (text: string, before: string[] | undefined): string[] => [...(before ?? []), text];

export const modelArgument = (what: string): Argument =>
  new Argument("<model>", `${what}: a folder, an address that ends with "/", or a model of the hub (org/name)`);
export const textModelArgument = (what: string): Argument =>
  new Argument(
    "<model>",
    `${what}: a folder or a GGUF file, an address of either (a folder's ends with "/"), or a model of the hub (org/name, hf:org/name@revision/file.gguf)`,
  );

/** As what weights are written. */
export const WRITTEN = ["f32", "f16", "bf16", "float32", "float16", "bfloat16", "q8", "q4"];

/** Options of every command that computes. */
export function computes(command: Command): Command {
  return command
    .addOption(new Option("--backend <name>", "what computes; by default native where its binary loads").choices(["native", "wasm"]))
    .addOption(new Option("--isa <name>", "instruction set; by default the fastest to be had").choices(ISAS))
    .option("--threads <count>", "threads; by default what the machine allows", number(1));
}

export const examples = (...lines: readonly string[]): string => `\nExamples:\n${lines.map((line) => `  ${line}`).join("\n")}`;

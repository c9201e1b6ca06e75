// Checkpoints whose weights are, or become, quantised: MLX's layout in safetensors. Which tensor
// becomes what is planned in Rust (request 84), and so is each made (85); read, made and written here
// one after the other.

import { encode } from "../encode.js";
import { fail, internal } from "../errors.js";
import { run } from "./backend.js";
import type { Checkpoint } from "./checkpoint.js";
import { bufferOf, jsonOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import { layoutOf, openTarget, writePieces } from "./safetensors.js";
import type * as types from "./types.js";

type Signal = AbortSignal | undefined;

/** What is asked for, checked. */
interface Recoding {
  readonly dtype: "F32" | "F16" | "BF16" | "q8" | "q4" | undefined;
  readonly head: types.WeightFormat | undefined;
  readonly target: types.ConvertOptions["target"];
  readonly signal: Signal;
}

interface Planned {
  readonly from: readonly string[];
  readonly shape: readonly number[];
  readonly to: types.WeightFormat | "kept" | "codes";
  readonly outputs: readonly { readonly name: string; readonly dtype: string; readonly shape: readonly number[] }[];
}

interface Plan {
  readonly tensors: readonly Planned[];
  readonly quantization: Readonly<Record<string, unknown>> | null;
  readonly notes: readonly string[];
}

const FORMATS = { F32: "float32", F16: "float16", BF16: "bfloat16", q8: "q8", q4: "q4" } as const;

/** The configuration as an object; what is none is Rust's to refuse. */
function objectOf(config: Uint8Array | undefined): Record<string, unknown> | undefined {
  try {
    const read: unknown = JSON.parse(new TextDecoder().decode(config));
    return typeof read === "object" && read !== null ? (read as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** What a configuration says of quantised weights, where it says anything. */
export const quantizationOf = (config: Uint8Array | undefined): unknown => objectOf(config)?.["quantization"] ?? undefined;

/** The configuration of the new file. */
function configOf(config: Uint8Array, plan: Plan, dtype: Recoding["dtype"]): Uint8Array<ArrayBuffer> {
  const { quantization: _, quantization_config: __, ...rest } = objectOf(config) ?? {};
  const now: Record<string, unknown> = { ...rest, ...(plan.quantization && { quantization: plan.quantization }) };
  if (dtype && dtype !== "q8" && dtype !== "q4") for (const key of ["dtype", "torch_dtype"]) if (key in now) now[key] = FORMATS[dtype];
  return new TextEncoder().encode(`${JSON.stringify(now, null, 2)}\n`);
}

/** What a planned tensor becomes, each output's bytes. */
async function madeOf(checkpoint: Checkpoint, planned: Planned, signal: Signal): Promise<Uint8Array[]> {
  const { from, shape, to } = planned;
  const [first = ""] = from;
  const { bytes, owned } = await checkpoint.read(from, { signal });
  // (Rows of a GGUF file's q and k lie in an order of their own.)
  if (to === "kept" && checkpoint.entry(first).turnedHeads === undefined) return [bytes.get(first) ?? new Uint8Array()];
  const tensors = from.map((name) => checkpoint.stored(name, bytes));
  const format = to === "kept" || to === "codes" ? undefined : to;
  const request = encode(requests.recodeTensor, { shape, to: format, tensors });
  const made = await run(request, { signal, transfer: owned });
  return made.map((output) => new Uint8Array(bufferOf(output)));
}

/**
 * Writes the weights as they are asked for. Held are one tensor, and of those behind it in the file
 * what was made with it: scales and biases.
 */
export async function recode(checkpoint: Checkpoint, config: Uint8Array | undefined, recoding: Recoding): Promise<types.Conversion> {
  const { dtype, head, target, signal } = recoding;
  if (!config) return fail("FILE", "config.json", "a configuration, which tells the weights to be quantised", "none");
  const entries = JSON.stringify(checkpoint.entries);
  const request = encode(requests.recodePlan, { config, entries, dtype: dtype && FORMATS[dtype], head });
  const [planned] = await run(request, { signal });
  const plan = jsonOf(planned) as Plan;
  const outputs = plan.tensors.flatMap((tensor) => tensor.outputs.map((output, at) => ({ tensor, output, at })));
  const layout = await layoutOf(
    outputs.map(({ output }) => output),
    checkpoint.metadata,
  );
  const { sink, file } = await openTarget(target, layout.length);
  const held = new Map<string, Uint8Array>();
  try {
    await writePieces(sink, layout.header);
    for (const index of layout.order) {
      const { tensor, output, at } =
        outputs[index] ??
        (() => {
          throw internal("a tensor that is not planned");
        })();
      let bytes = held.get(output.name);
      if (!bytes) {
        const made = await madeOf(checkpoint, tensor, signal);
        tensor.outputs.forEach(({ name }, i) => {
          if (i !== at && made[i]) held.set(name, made[i]);
        });
        bytes = made[at] ?? new Uint8Array();
      }
      held.delete(output.name);
      await writePieces(sink, bytes);
    }
  } catch (error) {
    await sink.abort(error);
    throw error;
  }
  await sink.end();
  const files: Record<string, Uint8Array<ArrayBuffer>> = { "config.json": configOf(config, plan, dtype) };
  const { own } = checkpoint;
  if (own) {
    files["generation_config.json"] = own.generation;
    const tokenizer = await own.tokenizer(signal);
    if (tokenizer) {
      files["tokenizer.json"] = new Uint8Array(tokenizer.json);
      if (tokenizer.config) files["tokenizer_config.json"] = new Uint8Array(tokenizer.config);
    }
  }
  return { file: file(), files, notes: plan.notes };
}

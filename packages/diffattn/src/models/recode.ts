// Checkpoints whose weights are, or become, quantised: MLX's layout in safetensors. Which tensor
// becomes what is planned in Rust (request 84), and so is each made (85); read, made and written
// here one after the other.

import { encode } from "../encode.js";
import { fail, internal } from "../errors.js";
import { run } from "./backend.js";
import type { Reading } from "./byte-source.js";
import type { Weights } from "./checkpoint.js";
import { bufferOf, jsonOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import { layoutOf, openTarget, writePieces } from "./safetensors.js";
import type * as types from "./types.js";

type Signal = AbortSignal | undefined;

/** What is asked for, checked. */
interface Recoding {
  readonly dtype: "F32" | "F16" | "BF16" | "q8" | "q4" | undefined;
  readonly head: types.WeightFormat | undefined;
  readonly groupSize: types.ConvertOptions["groupSize"];
  readonly target: types.ConvertOptions["target"];
  readonly signal: Signal;
}

interface Planned {
  readonly from: readonly string[];
  readonly shape: readonly number[];
  readonly to: types.WeightFormat | "kept" | "codes";
  readonly groupSize: number;
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
  const now = { ...objectOf(config) };
  delete now["quantization"];
  delete now["quantization_config"];
  if (plan.quantization) now["quantization"] = plan.quantization;
  if (dtype && dtype !== "q8" && dtype !== "q4") for (const key of ["dtype", "torch_dtype"]) if (key in now) now[key] = FORMATS[dtype];
  return new TextEncoder().encode(`${JSON.stringify(now, null, 2)}\n`);
}

/** What a planned tensor becomes, each output's bytes. */
async function madeOf(weights: Weights, planned: Planned, reading: Reading): Promise<Uint8Array[]> {
  const { from, shape, to, groupSize } = planned;
  const [first = ""] = from;
  const { bytes, owned } = await weights.read(from, reading);
  const tensors = from.map((name) => weights.stored(name, bytes));
  // (Rows of a GGUF file's q and k lie in an order of their own.)
  if (to === "kept" && tensors[0]?.turnedHeads === undefined) return [bytes.get(first) ?? new Uint8Array()];
  const format = to === "kept" || to === "codes" ? undefined : to;
  const request = encode(requests.recodeTensor, { shape, to: format, groupSize, tensors });
  const made = await run(request, { signal: reading.signal, transfer: owned });
  return made.map((output) => new Uint8Array(bufferOf(output)));
}

/** Weights as they are to be written, planned: tensor by tensor. */
export class Recoded {
  readonly #outputs: readonly { readonly tensor: Planned; readonly output: Planned["outputs"][number]; readonly at: number }[];
  /** Of tensors that were made, what is yet to be written: scales and biases. */
  readonly #held = new Map<string, Uint8Array>();

  private constructor(
    private readonly weights: Weights,
    private readonly plan: Plan,
    /** The bytes of `config.json`. */
    readonly config: Uint8Array<ArrayBuffer>,
  ) {
    this.#outputs = plan.tensors.flatMap((tensor) => tensor.outputs.map((output, at) => ({ tensor, output, at })));
  }

  static async of(
    weights: Weights,
    config: Uint8Array | undefined,
    { dtype, head, groupSize }: Pick<Recoding, "dtype" | "head" | "groupSize">,
    signal: Signal,
  ): Promise<Recoded> {
    if (!config) return fail("FILE", "config.json", "a configuration, which tells the weights to be quantised", "none");
    const entries = JSON.stringify(weights.entries);
    const request = encode(requests.recodePlan, { config, entries, dtype: dtype && FORMATS[dtype], head, groupSize });
    const [planned] = await run(request, { signal });
    const plan = jsonOf(planned) as Plan;
    return new Recoded(weights, plan, configOf(config, plan, dtype));
  }

  get tensors(): readonly Planned["outputs"][number][] {
    return this.#outputs.map(({ output }) => output);
  }

  get notes(): readonly string[] {
    return this.plan.notes;
  }

  /** The bytes of the tensor of that index; each is asked for once. */
  async tensor(index: number, reading: Reading): Promise<Uint8Array> {
    const planned = this.#outputs[index];
    if (!planned) throw internal("a tensor that is not planned");
    const { tensor, output, at } = planned;
    let bytes = this.#held.get(output.name);
    if (!bytes) {
      const made = await madeOf(this.weights, tensor, reading);
      tensor.outputs.forEach(({ name }, i) => {
        if (i !== at && made[i]) this.#held.set(name, made[i]);
      });
      bytes = made[at] ?? new Uint8Array();
    }
    this.#held.delete(output.name);
    return bytes;
  }
}

/** What a GGUF file has of a folder's other files, by name. */
export async function filesOf({ own }: Weights, signal: Signal): Promise<Record<string, Uint8Array<ArrayBuffer>>> {
  if (!own) return {};
  const files: Record<string, Uint8Array<ArrayBuffer>> = { "generation_config.json": own.generation };
  const tokenizer = await own.tokenizer(signal);
  if (tokenizer) {
    files["tokenizer.json"] = new Uint8Array(tokenizer.json);
    if (tokenizer.config) files["tokenizer_config.json"] = new Uint8Array(tokenizer.config);
  }
  return files;
}

/**
 * Writes the weights as they are asked for. Held are one tensor, and of those behind it in the file
 * what was made with it: scales and biases.
 */
export async function recode(weights: Weights, config: Uint8Array | undefined, recoding: Recoding): Promise<types.Conversion> {
  const { target, signal } = recoding;
  const recoded = await Recoded.of(weights, config, recoding, signal);
  const layout = await layoutOf(recoded.tensors, weights.metadata);
  const { sink, file } = await openTarget(target, layout.length);
  try {
    await writePieces(sink, layout.header);
    for (const index of layout.order) await writePieces(sink, await recoded.tensor(index, { signal }));
  } catch (error) {
    await sink.abort(error);
    throw error;
  }
  await sink.end();
  const files = { "config.json": recoded.config, ...(await filesOf(weights, signal)) };
  return { file: file(), files, notes: recoded.notes };
}

// A checkpoint that another becomes, tensor by tensor as they are read: with a low-rank adapter,
// converted first where that was trained over a conversion. What each tensor is made of is Rust's
// (requests 105, 76, 77). Writes nothing.

import type { Handle } from "../backend.js";
import { encode } from "../encode.js";
import { internal } from "../errors.js";
import { create, drop, run } from "./backend.js";
import type { Entry, Reading } from "./byte-source.js";
import type { Stored, Weights } from "./checkpoint.js";
import { jsonOf, bufferOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import type * as types from "./types.js";

/** What stands before the names of a model's modules in an adapter. */
const PREFIX = "base_model.model.";

/** A conversion as it is planned. */
export interface Plan extends Omit<types.ModelConversion, "files"> {
  /** The text of `config.json`. */
  readonly config: string;
  readonly tensors: readonly {
    readonly name: string;
    readonly dtype: Entry["dtype"];
    readonly shape: readonly number[];
    readonly from: readonly string[];
    readonly copied: boolean;
  }[];
}

/** An adapter, open: the bytes of its `adapter_config.json`, and its tensors. */
export interface OpenAdapter {
  readonly config: Uint8Array;
  readonly tensors: Weights;
}

/** What a checkpoint is to become. */
export interface Target {
  /** The bytes of its `config.json`. */
  readonly config: Uint8Array;
  /** As request 105 takes it; without it and `adapter`, DEX is folded. */
  readonly target?: string | undefined;
  readonly adapter?: OpenAdapter | undefined;
  /**
   * What weights that an adapter changes are made in; unless given, floats in what they are, and
   * codes stay, with the difference beside them.
   */
  readonly dtype?: "F32" | "F16" | "BF16" | undefined;
}

export class Derived implements Weights {
  readonly #index: ReadonlyMap<string, number>;

  private constructor(
    readonly plan: Plan,
    private readonly conversion: Handle,
    private readonly base: Weights,
    private readonly adapter: Weights | undefined,
  ) {
    this.#index = new Map(plan.tensors.map(({ name }, index) => [name, index]));
  }

  /**
   * Plans what a checkpoint becomes: both it and the adapter are closed with that. Where it becomes
   * nothing, the adapter is closed now.
   */
  static async of(base: Weights, { config, target, adapter, dtype }: Target, reading: Pick<Reading, "signal">): Promise<Derived> {
    let conversion: Handle | undefined;
    try {
      const request = encode(requests.createConversion, {
        config,
        entries: JSON.stringify(base.entries),
        target,
        adapter: adapter && { config: adapter.config, entries: JSON.stringify(adapter.tensors.entries), dtype },
      });
      conversion = await create("conversion", request);
      const [about] = await run(encode(requests.conversionInfo, { conversion }), reading);
      return new Derived(jsonOf(about) as Plan, conversion, base, adapter?.tensors);
    } catch (error) {
      if (conversion) drop(conversion);
      adapter?.tensors.close();
      throw error;
    }
  }

  get metadata(): Weights["metadata"] {
    return this.base.metadata;
  }

  get own(): Weights["own"] {
    return this.base.own;
  }

  get entries(): readonly Pick<Entry, "name" | "dtype" | "shape" | "file" | "range">[] {
    // (Their bytes lie in no file.)
    return this.plan.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape, file: "", range: [0, 0] }));
  }

  /** Where a tensor stands in the plan. */
  #planned(name: string): { readonly index: number; readonly tensor: Plan["tensors"][number] } {
    const index = this.#index.get(name) ?? -1;
    const tensor = this.plan.tensors[index];
    if (!tensor) throw internal(`a tensor that was not planned: ${name}`);
    return { index, tensor };
  }

  /** The checkpoint that a tensor is of. */
  #home(name: string): Weights {
    return this.adapter && name.startsWith(PREFIX) ? this.adapter : this.base;
  }

  async read(names: readonly string[], reading: Reading): Promise<{ bytes: Map<string, Uint8Array<ArrayBuffer>>; owned: boolean }> {
    const wanted = new Set(names.flatMap((name) => this.#planned(name).tensor.from));
    const sources = new Map<string, Uint8Array<ArrayBuffer>>();
    let owned = true;
    for (const home of [this.base, this.adapter]) {
      const own = [...wanted].filter((name) => this.#home(name) === home);
      if (!home || own.length === 0) continue;
      const read = await home.read(own, reading);
      for (const [name, bytes] of read.bytes) sources.set(name, bytes);
      owned &&= read.owned;
    }
    const bytes = new Map<string, Uint8Array<ArrayBuffer>>();
    const given = new Set<string>();
    for (const name of names) {
      const { index, tensor } = this.#planned(name);
      const [first] = tensor.from;
      if (tensor.copied && first !== undefined) {
        bytes.set(name, sources.get(first) ?? new Uint8Array());
        // (What two are made of is given away once at most.)
        if (given.has(first)) owned = false;
        given.add(first);
        continue;
      }
      const tensors = tensor.from.map((from) => this.#home(from).stored(from, sources));
      const request = encode(requests.convertTensor, { conversion: this.conversion, index, tensors });
      const [made] = await run(request, { signal: reading.signal });
      bytes.set(name, new Uint8Array(bufferOf(made)));
    }
    return { bytes, owned };
  }

  stored(name: string, bytes: ReadonlyMap<string, Uint8Array>): Stored {
    const { tensor } = this.#planned(name);
    const [first] = tensor.from;
    const data = bytes.get(name) ?? new Uint8Array();
    if (tensor.copied && first !== undefined) return { ...this.#home(first).stored(first, new Map([[first, data]])), name };
    return { name, dtype: tensor.dtype, shape: tensor.shape, data };
  }

  close(): void {
    drop(this.conversion);
    this.base.close();
    this.adapter?.close();
  }

  async forget(): Promise<void> {
    await this.base.forget();
    await this.adapter?.forget();
  }
}

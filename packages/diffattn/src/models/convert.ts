// Checkpoints with other element types or head layouts. What becomes of a layer's weights is Rust's
// (request 69); the rest is copied, or cast tensor by tensor. (Quantised weights: recode.ts.)

import { checkOptions, oneOf, show } from "../check.js";
import { encode } from "../encode.js";
import { fail, internal } from "../errors.js";
import { checkSignal } from "../run.js";
import { accessOf, LOAD_OPTIONS } from "./access.js";
import { run } from "./backend.js";
import { Checkpoint, Progress, storedType } from "./checkpoint.js";
import { folderOf, readOptionalText } from "./folder.js";
import { fileType, FORMATS, formatOf, groupSizeOf } from "./formats.js";
import { mayBeGguf } from "./gguf.js";
import { bufferOf, jsonOf } from "./outputs.js";
import * as requests from "./requests.generated.js";
import { quantizationOf, recode } from "./recode.js";
import { saveSafetensors } from "./safetensors.js";
import type * as types from "./types.js";

const OPTIONS = ["dtype", "head", "groupSize", "layout", "target", ...LOAD_OPTIONS];
const DTYPES = ["F32", "F16", "BF16", ...FORMATS] as const;
const LAYOUTS = ["diffllama", "unilm"] as const;
/** What is cast; integers and masks stay as they are. */
const FLOATS = ["F64", "F32", "F16", "BF16", "F8_E5M2", "F8_E4M3"];

/** A layer of an inspection, as far as it is looked at here. */
interface Layer {
  readonly prefix: string;
  readonly weights: Readonly<Record<string, { readonly tensor: string }>>;
}

interface Converted {
  readonly tensors: readonly { readonly name: string; readonly dtype: types.StoredDType; readonly shape: readonly number[] }[];
  readonly notes: readonly string[];
}

export async function convertCheckpoint(
  source: types.FileSource | types.CheckpointSource,
  options: types.ConvertOptions,
): Promise<types.Conversion> {
  const given = checkOptions("options", options, OPTIONS);
  const { layout, target, signal, onProgress, maxTensors } = given;
  if (given.dtype !== undefined && !DTYPES.includes(given.dtype)) fail("OPTION", "dtype", oneOf(DTYPES), show(given.dtype));
  const dtype = given.dtype && fileType(given.dtype);
  const head = formatOf("head", given.head);
  const groupSize = groupSizeOf(given.groupSize, [dtype, head]);
  if (layout !== undefined && !LAYOUTS.includes(layout)) fail("OPTION", "layout", oneOf(LAYOUTS), show(layout));
  if (dtype === undefined && layout === undefined) fail("OPTION", "options", "dtype, layout or both", "neither");
  checkSignal(signal);
  const folder = await folderOf(source, accessOf(given));
  const beside = mayBeGguf(folder) ? undefined : await readOptionalText(folder, "config.json", { signal });
  const checkpoint = await Checkpoint.open(folder, { signal, maxTensors, all: true, gguf: layout === undefined }, new Progress(onProgress));
  const config = beside ?? checkpoint.own?.config ?? (await readOptionalText(folder, "config.json", { signal }));
  try {
    const isQuantized = checkpoint.own !== undefined || (await quantizationOf(config)) !== undefined;
    if (dtype === "q8" || dtype === "q4" || head !== undefined || (isQuantized && layout === undefined)) {
      if (layout !== undefined) fail("OPTION", "layout", "none with quantised weights", show(layout));
      return await recode(checkpoint, config, { dtype, head, groupSize, target, signal });
    }
    if (isQuantized) fail("OPTION", "layout", "none for a checkpoint of quantised weights", show(layout));
    // (Of no prototype: a tensor may have any name.)
    const tensors = Object.create(null) as Record<string, types.StoredTensor>;
    const notes = new Map<string, string[]>();
    const done = new Set<string>();
    const layers = layout === undefined ? [] : await layersOf(checkpoint, config, signal);
    for (const layer of layers) {
      const names = [...new Set(Object.values(layer.weights).map(({ tensor }) => tensor))];
      const { bytes, owned } = await checkpoint.read(names, { signal });
      const request = encode(requests.convertLayer, {
        layer: JSON.stringify(layer),
        target: JSON.stringify({ like: layout, ...(dtype && { dtype }) }),
        tensors: names.map((name) => checkpoint.stored(name, bytes)),
      });
      const [about, ...made] = await run(request, { signal, transfer: owned });
      const converted = jsonOf(about) as Converted;
      converted.tensors.forEach(({ name, dtype, shape }, i) => {
        tensors[`${layer.prefix}${name}`] = { dtype, shape, data: new Uint8Array(bufferOf(made[i])) };
      });
      for (const note of converted.notes) notes.set(note, [...(notes.get(note) ?? []), layer.prefix]);
      for (const name of names) done.add(name);
    }
    for (const { name } of checkpoint.entries) if (!done.has(name)) tensors[name] = await castOf(checkpoint, name, dtype, signal);
    const file = await saveSafetensors(tensors, { metadata: checkpoint.metadata, target });
    return {
      file,
      files: {},
      notes: [...notes].map(
        ([note, [first = "", ...more]]) => `${note} (${first}${more.length > 0 ? ` and ${more.length} other layers` : ""})`,
      ),
    };
  } finally {
    checkpoint.close();
  }
}

/** The layers with differential attention, as requests take them. */
async function layersOf(checkpoint: Checkpoint, config: Uint8Array | undefined, signal: AbortSignal | undefined): Promise<Layer[]> {
  const request = encode(requests.inspectCheckpoint, { entries: JSON.stringify(checkpoint.entries), config });
  const [found] = await run(request, { signal });
  const { layers } = jsonOf(found) as { layers: Layer[] };
  if (layers.length === 0) fail("FILE", "source", "a checkpoint with layers of differential attention", "one in which none is known");
  return layers;
}

/** A tensor as it is, or cast. */
async function castOf(
  checkpoint: Checkpoint,
  name: string,
  to: "F32" | "F16" | "BF16" | undefined,
  signal: AbortSignal | undefined,
): Promise<types.StoredTensor> {
  const { shape, ...entry } = checkpoint.entry(name);
  const dtype = storedType(entry.dtype);
  const { bytes, owned } = await checkpoint.read([name], { signal });
  const data = bytes.get(name);
  if (!data) throw internal(`a tensor that was not read: ${name}`);
  if (to === undefined || dtype === to || !FLOATS.includes(dtype)) return { dtype, shape, data: owned ? data : data.slice() };
  const request = encode(requests.castTensor, { name, from: dtype, to, shape, data });
  const [cast] = await run(request, { signal, transfer: owned });
  return { dtype: to, shape, data: new Uint8Array(bufferOf(cast)) };
}

// diffattn inspect: what a checkpoint is. Reads no weights.

import type { Inspection } from "../models/types.js";
import { bytes, columns, count, counted } from "./format.js";
import { inspected } from "./library.js";
import { oneLine } from "./plain.js";
import type { Terminal } from "./terminal.js";

export interface InspectOptions {
  json?: boolean;
  tensors?: boolean;
}

/** What an inspection says of a layer; all of it may be absent. */
interface Layer {
  prefix?: string;
  depth?: number | null;
  version?: number;
  lambdaForm?: string | null;
  pairing?: string;
  kvRepeat?: string | null;
  ratio?: number | null;
  numHeads?: number | null;
  numKvHeads?: number | null;
  headDim?: number | null;
  headWidth?: number;
  rope?: { interleaved: boolean; theta: number | null } | null;
  isCausal?: boolean;
  eps?: number;
  normWeight?: boolean;
  kind?: string;
  lambda?: string | null;
  differentialHeads?: "all" | readonly number[] | null;
}

const aboutRope = (rope: Layer["rope"]): string =>
  rope ? `rope ${rope.interleaved ? "interleaved" : "half-split"}, θ ${rope.theta === null ? "not said" : count(rope.theta)}` : "no rope";

/** A plain layer's heads and what else layers differ in, on one line. */
const aboutPlainLayer = ({ numHeads, numKvHeads, headDim, rope, isCausal }: Layer): string =>
  [
    typeof numHeads === "number" ? `${counted(numHeads, "head")} of ${headDim}` : "heads not said",
    numKvHeads && counted(numKvHeads, "k/v head"),
    aboutRope(rope),
    isCausal ? "causal" : "not causal",
  ]
    .filter(Boolean)
    .join("; ");

/** The same of a layer some of whose heads are differential, with these. */
function aboutConvertedLayer(layer: Layer): string {
  const { kind = "", lambda, differentialHeads: heads } = layer;
  const which = heads === "all" ? heads : heads ? ranges(heads.map(String)) : "not said which";
  const how = [kind.toUpperCase(), lambda && `λ by ${lambda}`].filter(Boolean).join(", ");
  return `${aboutPlainLayer(layer)}; differential (${how}): ${which}`;
}

/** A layer's heads and what else layers differ in, on one line. */
function aboutLayer(layer: Layer): string {
  const { version, lambdaForm, pairing, kvRepeat, ratio, numHeads, numKvHeads, headDim, headWidth, rope, isCausal, eps, normWeight } =
    layer;
  return [
    version === undefined ? undefined : `V${version}`,
    lambdaForm && `λ by ${lambdaForm}`,
    [pairing, kvRepeat && `k heads repeated ${kvRepeat}`, ratio && `ratio ${ratio}`].filter(Boolean).join(", "),
    `${counted(numHeads ?? 0, "head")} of ${headDim} (${headWidth} of v)`,
    numKvHeads && counted(numKvHeads, "k/v head"),
    aboutRope(rope),
    isCausal ? "causal" : "not causal",
    `norm ${normWeight ? "with" : "without"} weight, eps ${Number((eps ?? 0).toPrecision(6))}`,
  ]
    .filter(Boolean)
    .join("; ");
}

/** The sentences of a report, without its lists of names. */
export function report(inspection: Inspection): string[] {
  const { architecture, parameters, dtypes, quantized, layers, plainLayers, convertedLayers, missing, unexpected, warnings } = inspection;
  const lists = [
    { list: layers, what: "differential attention", about: aboutLayer },
    { list: convertedLayers, what: "differential heads", about: aboutConvertedLayer },
    { list: plainLayers, what: "plain attention", about: aboutPlainLayer },
  ];
  const kinds = lists.filter(({ list }) => list.length > 0).map(({ list, what }) => `${list.length} with ${what}`);
  const rows = [
    ["architecture", architecture ?? "unknown"],
    ["parameters", count(parameters)],
    ...dtypes.map(({ dtype, tensors, parameters, bytes: size }, i) => [
      i === 0 ? "element types" : "",
      `${dtype}: ${counted(tensors, "tensor")}, ${counted(parameters, "parameter")}, ${bytes(size)}`,
    ]),
    ...quantized.map(({ bits, groupSize, weights, parameters, bytes: size }, i) => [
      i === 0 ? "quantised" : "",
      `MLX, ${bits} bits in groups of ${groupSize}: ${counted(weights, "weight")}, ${counted(parameters, "parameter")}, ${bytes(size)}`,
    ]),
    ["layers", kinds.join(", ") || (architecture === "same_s" ? "blocks with differential attention" : "none with differential attention")],
  ];
  const lines = columns(rows);

  // Layers that are alike are said once.
  const groups = new Map<string, string[]>();
  for (const { list, about: aboutOne } of lists)
    list.forEach((layer: Layer, i) => {
      const about = aboutOne(layer);
      const name = typeof layer.depth === "number" ? String(layer.depth) : (layer.prefix ?? `number ${i}`);
      groups.set(about, [...(groups.get(about) ?? []), name]);
    });
  for (const [about, names] of groups) lines.push(`  ${ranges(names)}: ${about}`);

  for (const [what, names] of [
    ["missing", missing],
    ["unexpected", unexpected],
  ] as const)
    lines.push(...(names.length === 0 ? [`${what}: none`] : [`${what}: ${names.length}`, ...names.map((name) => `  ${name}`)]));
  lines.push(...warnings.map((warning) => `warning: ${warning}`));
  return lines.map(oneLine);
}

/** "0–7" instead of eight numbers. */
export function ranges(names: readonly string[]): string {
  const parts: string[] = [];
  let first = 0;
  for (let i = 1; i <= names.length; i += 1) {
    if (i < names.length && Number(names[i]) === Number(names[i - 1]) + 1) continue;
    parts.push(first === i - 1 ? (names[first] ?? "") : `${names[first]}–${names[i - 1]}`);
    first = i;
  }
  return parts.join(", ");
}

export async function inspect(terminal: Terminal, source: string, options: InspectOptions): Promise<void> {
  const found = await inspected(terminal, source, options.tensors);
  const { tensors } = found;
  if (options.json) return terminal.json(found, 2);
  for (const line of report(found)) await terminal.line(line);
  if (!tensors) return;
  await terminal.line();
  const rows = tensors.map(({ name, dtype, shape, byteLength, file }) => [name, dtype, `[${shape.join(", ")}]`, bytes(byteLength), file]);
  for (const line of columns(rows, [3])) await terminal.line(line);
}

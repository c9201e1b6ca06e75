// Uses the public types as a TypeScript program without the DOM library does.
import { diffAttention, diffAttentionBackward, info, MultiheadDiffAttn, type DiffAttentionOptions, type Tensor } from "diffattn";
import { DiffLlama, type GenerateOptions, LanguageModel, openSafetensors, saveSafetensors } from "diffattn/models";
import { drawMaps, type DrawMapsOptions } from "diffattn/viz";

const options: DiffAttentionOptions = { lambda: 0.35, isCausal: true, pairing: "halves" };
const q = { data: new Float32Array(8), shape: [1, 2, 2, 2] };
export const y: Tensor<Float32Array<ArrayBuffer>> = await diffAttention(q, q, q, options);
export const half: Uint16Array = (await diffAttention({ data: new Uint16Array(8), shape: [1, 2, 2, 2], dtype: "bfloat16" }, q, q, options))
  .data;
export const lse: Tensor = (await diffAttention(q, q, q, { ...options, returnLse: true })).lse;
export const backend: "native" | "wasm" = info().backend;
// What the run time reads: shared memory, masks of either kind of bytes, lists of numbers, an
// ndarray's fields.
export const taken: DiffAttentionOptions = {
  lambda: { data: new Float32Array(1), shape: [1], stride: [1], offset: 0 },
  attnMask: { data: new Uint8ClampedArray(4), shape: [1, 1, 2, 2], strides: [4, 4, 2, 1] },
  keyLengths: [2],
  queryOffset: Int32Array.of(0),
  cuSeqlensQ: [0, 2],
  cuSeqlensK: Int32Array.of(0, 2),
};
export const gradients: Tensor[] = Object.values(await diffAttentionBackward(q, q, q, q, { lambda: 0.35 }));
export const dq: Tensor = (await diffAttentionBackward(q, q, q, q, { lambda: 0.35 })).dq;
export const dk: Tensor | undefined = (await diffAttentionBackward(q, q, q, q, { lambda: 0.35, needs: ["k"] })).dk;
export const preNorm: Tensor = (await diffAttention(q, q, q, { ...options, norm: {}, returnPreNorm: true })).preNorm;
// @ts-expect-error there is no such pairing
export const wrong: DiffAttentionOptions = { pairing: "thirds" };

const layer = new MultiheadDiffAttn({ embedDim: 4, depth: 0, numHeads: 1, weights: {} });
const picture: DrawMapsOptions = { tokens: ["a", "b"] };
export const svg: string = drawMaps(await layer.maps({ data: new Float32Array(8), shape: [1, 2, 4] }), picture);

const model: DiffLlama = await DiffLlama.load("folder", { onProgress: ({ done, total }) => void (done / total) });
const sampling: GenerateOptions = { temperature: 0.7, topP: 0.9, stop: ["\n"] };
for await (const { id, text, finish } of model.generate("Once", sampling)) {
  const seen: [number, string, "stop" | "length" | null] = [id, text, finish];
  void seen;
}
export const logits: Tensor = await model.forward([1, 2], { cache: await model.createCache() });
export const file: Uint8Array | undefined = await saveSafetensors({ a: await (await openSafetensors("model.safetensors")).read("a") });
export const batch: Tensor = await model.forward({ data: Int32Array.of(1, 2), dims: [1, 2] });
await saveSafetensors(
  { a: { data: new Float32Array(1), shape: [1] }, b: { dtype: "F64", dims: [1], data: new Uint8Array(8) } },
  { target: null },
);
export const plain: LanguageModel = model;
export const family: string = (await LanguageModel.load("folder")).family;
// @ts-expect-error a model is made by load
export const unmade = new DiffLlama();

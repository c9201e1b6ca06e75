// Values that nobody means: shapes without end, arrays that hold themselves, falsy words where an
// object belongs, proxies that were revoked, getters that throw. Each is refused at once by an
// error of the package, whose sentence has an end.

import { constants } from "node:buffer";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import type * as modelTypes from "../../packages/diffattn/src/models/types.js";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, backend, isas, models } from "./backends.js";
import { sameBits } from "./compare.js";
import { normal, qkv } from "./random.js";

const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));
/**
 * As long as a sentence may be, and as a refusal may take on a machine that does other things too.
 */
const [LONGEST, SLOWEST] = [2100, 2000];

const revoked = (): object => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};
const thrown = new Error("the caller's own");
const throwing = (...names: string[]): object =>
  Object.defineProperties(
    {},
    Object.fromEntries(
      names.map((name) => [
        name,
        {
          enumerable: true,
          get(): never {
            throw thrown;
          },
        },
      ]),
    ),
  );

const self: unknown[] = [1];
self.push(self);
let deep: unknown = [1];
for (let i = 0; i < 20_000; i++) deep = [deep];
let wide: unknown = [1];
for (let i = 0; i < 6; i++) wide = Array<unknown>(8).fill(wide);

const LONG = "x".repeat(1e6);
/** Where a text is meant, and may be as long as it likes. */
const TEXTS = ["prompt", "a prompt of several", "encode", "the tokenizer's encode"];

const values: [string, unknown][] = [
  ["an array that holds itself", self],
  ["20000 arrays in each other", deep],
  ["8 wide, 6 deep", wide],
  ["a BigInt", 2n],
  ["a very large BigInt", 2n ** 200_000n],
  ["BigInts", [1n, 2n]],
  ["a symbol", Symbol("s".repeat(1e5))],
  ["a function", () => 0],
  ["a long text", LONG],
  ["a revoked proxy", revoked()],
  ["a proxy of an array that was revoked", [revoked()]],
  ["an object without a prototype", Object.create(null)],
  ["a Date", new Date(0)],
  ["a Map", new Map([["data", 1]])],
  ["a promise", Promise.resolve(1)],
  ["a getter that throws", throwing("data", "shape", "length", "q_proj.weight", "signal", "config.json")],
  ["0", 0],
  ["an empty text", ""],
  ["false", false],
  ["null", null],
  ["undefined", undefined],
  ["holes", Array(3)],
  ["holes without end", Array(2 ** 32 - 1)],
];

/** What is wrong with how a value was met; undefined where nothing is. */
async function wrong(body: () => unknown): Promise<string | undefined> {
  const start = performance.now();
  try {
    await body();
    return undefined;
  } catch (error) {
    const { name, code, message } = error as types.DiffAttnError;
    if (!(error instanceof api.DiffAttnError)) return `${name} ${message.slice(0, 100)}`;
    if (!["SHAPE", "DTYPE", "OPTION", "FILE"].includes(code)) return `${code} ${message.slice(0, 200)}`;
    if (message.length > LONGEST) return `a sentence of ${message.length} characters`;
    const took = performance.now() - start;
    return took > SLOWEST ? `${took} ms` : undefined;
  }
}

const [q, k, v] = qkv(1, { Lq: 4 });
const x = normal(1, 1, 4, 4, 4);
const good = { lambda: 0.3 };
const asOptions = (value: unknown): never => value as never;
const one = Float32Array.of(1);
const lambdas = { q1: one, k1: one, q2: one, k2: one };
const gradients = (options: never): unknown => api.diffAttentionBackwardSync(normal(2, 1, 2, 4, 32), q, k, v, options);

let llama: modelTypes.DiffLlama;
let vit: modelTypes.DiffViT;
let file: modelTypes.Safetensors;
const layer = (): types.MultiheadDiffAttnV2 =>
  new api.MultiheadDiffAttnV2({
    embedDim: 16,
    numHeads: 2,
    headDim: 8,
    weights: {
      "q_proj.weight": normal(1, 32, 16),
      "k_proj.weight": normal(2, 16, 16),
      "v_proj.weight": normal(3, 16, 16),
      "o_proj.weight": normal(4, 16, 16),
      "lambda_proj.weight": normal(5, 2, 16),
    },
  });

beforeAll(async () => {
  await api.init({ backend, isa: isas[0] });
  llama = await models.DiffLlama.load({
    ...Object.fromEntries(
      ["config.json", "model.safetensors"].map((name) => [name, new Uint8Array(readFileSync(path(`test/models/diffllama_gqa/${name}`)))]),
    ),
    "tokenizer.json": new Uint8Array(readFileSync(path("examples/model/tokenizer.json"))),
  });
  vit = await models.DiffViT.load(path("test/models/diff_vit"));
  file = await models.openSafetensors(path("test/models/diffllama_gqa/model.safetensors"));
});
afterAll(() => {
  for (const object of [llama, vit, file]) object.dispose();
  api.dispose();
});

const names = [
  "lambda coefficients pairing heads ratio kvRepeat layout scale isCausal softcap window attnMask attnBias keyLengths queryOffset",
  "cuSeqlensQ cuSeqlensK norm returnLse returnPreNorm deterministic out transfer signal onProgress",
].flatMap((line) => line.split(" "));

/** Every place for a value: what is called with it. */
const places: Record<string, (value: unknown) => unknown> = {
  x: (value) => api.rmsNormSync(asOptions(value)),
  "x's data": (value) => api.rmsNormSync(asOptions({ data: value, shape: [1] })),
  "x's shape": (value) => api.rmsNormSync(asOptions({ data: x.data, shape: value })),
  "x's dims": (value) => api.groupNormSync(asOptions({ data: x.data, dims: value }), { numGroups: 1 }),
  "x's dtype": (value) => api.applyRopeSync(asOptions({ ...x, dtype: value })),
  "x's stride": (value) => api.applyRopeSync(asOptions({ ...x, stride: value })),
  "x's offset": (value) => api.applyRopeSync(asOptions({ ...x, offset: value })),
  k: (value) => api.diffAttention(q, asOptions(value), v, good),
  v: (value) => api.diffAttentionSync(q, k, asOptions(value), good),
  options: (value) => api.diffAttention(q, k, v, asOptions(value)),
  ...Object.fromEntries(
    names.flatMap((name): [string, (value: unknown) => unknown][] => [
      [name, (value) => api.diffAttention(q, k, v, asOptions({ ...good, [name]: value }))],
      [`${name}, sync`, (value) => api.diffAttentionSync(q, k, v, asOptions({ ...good, [name]: value }))],
    ]),
  ),
  "a head's q": (value) => api.diffAttentionSync(q, k, v, asOptions({ heads: [{ q: value, k: [0], v: [0] }] })),
  "norm.weight": (value) => api.diffAttentionSync(q, k, v, asOptions({ ...good, norm: { weight: value } })),
  rows: (value) => api.diffAttentionMapsSync(q, k, asOptions({ ...good, rows: value })),
  positions: (value) => api.applyRopeSync(x, asOptions({ positions: value })),
  "positions' data": (value) => api.applyRopeSync(x, asOptions({ positions: { data: value, shape: [4] } })),
  "positions' shape": (value) => api.applyRopeSync(x, asOptions({ positions: { data: [0, 1, 2, 3], shape: value } })),
  scaling: (value) => api.applyRopeSync(x, asOptions({ scaling: value })),
  "createTensor's shape": (value) => api.createTensor(asOptions(value)).dispose(),
  "createTensor's dtype": (value) => api.createTensor([1], asOptions(value)).dispose(),
  ...Object.fromEntries(
    ["result", "needs", "norm", "lambda", "signal"].map((name) => [
      `the gradients' ${name}`,
      (value: unknown) => gradients(asOptions({ ...good, norm: {}, [name]: value })),
    ]),
  ),
  "one of needs": (value) => gradients(asOptions({ ...good, needs: [value] })),
  "the gradients' options": (value) => gradients(asOptions(value)),
  dy: (value) => api.rmsNormBackwardSync(asOptions(value), x),
  "dy's shape": (value) => api.groupNormBackwardSync(asOptions({ data: x.data, shape: value }), x, { numGroups: 1 }),
  "a turned dy": (value) => api.applyRopeBackward(asOptions(value)),
  "an order": (value) => api.sequenceDifferenceBackwardSync(x, asOptions({ order: value })),
  dlambda: (value) => api.lambdaFullBackwardSync(asOptions(value), lambdas),
  "vectors of λ": (value) => api.lambdaFullBackwardSync(1, asOptions(value)),
  "a vector of λ": (value) => api.lambdaFullBackward(1, asOptions({ ...lambdas, q2: value })),
  lambdaInit: (value) => api.lambdaInit(asOptions(value)),
  lambdaFull: (value) => api.lambdaFull(asOptions(value)),
  KvCache: (value) => {
    new api.KvCache(asOptions(value)).dispose();
  },
  "KvCache's groups": (value) => {
    new api.KvCache(asOptions({ groups: value, headDim: 4, valueDim: 4 })).dispose();
  },
  "append's k": (value) => {
    const cache = new api.KvCache({ groups: 2, headDim: 16, valueDim: 32 });
    try {
      cache.append(asOptions(value), v);
    } finally {
      cache.dispose();
    }
  },
  rewind: (value) => {
    const cache = new api.KvCache({ groups: 2, headDim: 16, valueDim: 32 });
    try {
      cache.rewind(asOptions(value));
    } finally {
      cache.dispose();
    }
  },
  "a layer's options": (value) => {
    new api.MultiheadDiffAttn(asOptions(value)).dispose();
  },
  "a layer's weights": (value) => {
    new api.MultiheadDiffAttnV2(asOptions({ embedDim: 16, numHeads: 2, headDim: 8, weights: value })).dispose();
  },
  "a layer's weight": (value) => {
    new api.MultiheadDiffAttnV2(asOptions({ embedDim: 16, numHeads: 2, headDim: 8, weights: { "q_proj.weight": value } })).dispose();
  },
  "the options of a layer's call": async (value) => {
    const own = layer();
    try {
      await own.forward(normal(1, 1, 2, 16), asOptions(value));
      own.forwardSync(normal(1, 1, 2, 16), asOptions(value));
      await own.maps(normal(1, 1, 2, 16), asOptions(value));
    } finally {
      own.dispose();
    }
  },
  ...Object.fromEntries(
    ["x", "options", "attnMask", "dy", "the options of dy", "weights", "a weight"].map((name) => [
      `a kept pass's ${name}`,
      async (value: unknown) => {
        const own = layer();
        try {
          if (name === "weights" || name === "a weight") own.setWeights(asOptions(name === "weights" ? value : { "q_proj.weight": value }));
          const [x, dy] = [name, name].map((of, i) => (of === ["x", "dy"][i] ? value : normal(1, 1, 2, 16)));
          const options = name === "options" ? value : name === "attnMask" ? { attnMask: value } : undefined;
          const ofBackward = name === "the options of dy" ? value : undefined;
          own.vjpSync(asOptions(x), asOptions(options)).backward(asOptions(dy), asOptions(ofBackward));
          const { backward } = await own.vjp(asOptions(x), asOptions(options));
          await backward(asOptions(dy), asOptions(ofBackward));
        } finally {
          own.dispose();
        }
      },
    ]),
  ),
  "a layer's cache": async (value) => {
    const own = layer();
    try {
      await own.forward(normal(1, 1, 2, 16), asOptions({ cache: value }));
    } finally {
      own.dispose();
    }
  },
  setThreads: (value) => api.setThreads(asOptions(value)),
  ids: (value) => llama.forward(asOptions(value)),
  "ids' data": (value) => llama.forward(asOptions({ data: value, shape: [1, 1] })),
  "ids' shape": (value) => llama.forward(asOptions({ data: Int32Array.of(1), shape: value })),
  "an id": (value) => llama.forward(asOptions([value])),
  "forward's options": (value) => llama.forward([1], asOptions(value)),
  ...Object.fromEntries(
    ["cache", "hiddenStates", "logits", "window", "deterministic", "signal", "onProgress"].map((name) => [
      `forward's ${name}`,
      (value: unknown) => llama.forward([1], asOptions({ [name]: value })),
    ]),
  ),
  prompt: (value) => llama.generate(asOptions(value), { maxNewTokens: 1 }).next(),
  "a prompt of several": (value) => llama.generate(asOptions([[1], value]), { maxNewTokens: 1 }).next(),
  "generate's options": (value) => llama.generate([1], asOptions(value)).next(),
  ...Object.fromEntries(
    ["temperature", "topK", "topP", "repetitionPenalty", "seed", "maxNewTokens", "stop", "stopIds", "window", "cache", "signal"].map(
      (name) => [`generate's ${name}`, (value: unknown) => llama.generate([1], asOptions({ maxNewTokens: 1, [name]: value })).next()],
    ),
  ),
  encode: (value) => llama.encode(asOptions(value)),
  "the tokenizer's encode": (value) => llama.tokenizer?.encode(asOptions(value)),
  decode: (value) => llama.decode(asOptions(value)),
  "the tokenizer's decode": (value) => llama.tokenizer?.decode(asOptions(value)),
  "a layer's number": (value) => llama.maps([1], asOptions(value)),
  createCache: (value) => llama.createCache(asOptions(value)),
  importCache: (value) => llama.importCache(asOptions(value)),
  "an imported cache's keys": async (value) => {
    const cache = await llama.createCache();
    const state = await cache.export();
    cache.dispose();
    return llama.importCache(asOptions({ ...state, keys: value }));
  },
  "a classified image": (value) => vit.classify(asOptions(value)),
  "an image of maps": (value) => vit.maps(asOptions(value), 0),
  image: (value) => vit.forward(asOptions(value)),
  "an image's data": (value) => vit.classify(asOptions({ data: value, width: 2, height: 2 })),
  "an image's width": (value) => vit.classify(asOptions({ data: new Uint8Array(12), width: value, height: 2 })),
  top: (value) => vit.classify({ data: new Uint8Array(12), width: 2, height: 2 }, asOptions({ top: value })),
  source: (value) => models.openSafetensors(asOptions(value)),
  "a file by name": (value) => models.openSafetensors(asOptions({ "model.safetensors": value })),
  "load's source": (value) => models.DiffLlama.load(asOptions(value)),
  "load's config": (value) => models.DiffViT.load(asOptions({ "config.json": value })),
  "load's options": (value) => models.DiffLlama.load({}, asOptions(value)),
  "load's tokenizer": (value) => models.DiffLlama.load({}, asOptions({ tokenizer: value })),
  "inspect's source": (value) => models.inspectCheckpoint(asOptions(value)),
  "convert's dtype": (value) => models.convertCheckpoint({}, asOptions({ dtype: value })),
  "a stored tensor's name": (value) => file.read(asOptions(value)),
  "what is saved": (value) => models.saveSafetensors(asOptions(value)),
  "a saved tensor": (value) => models.saveSafetensors(asOptions({ a: value })),
  "a saved tensor's dtype": (value) => models.saveSafetensors(asOptions({ a: { data: new Uint8Array(4), shape: [1], dtype: value } })),
  "a saved tensor's shape": (value) => models.saveSafetensors(asOptions({ a: { data: new Float32Array(1), shape: value } })),
  metadata: (value) => models.saveSafetensors({}, asOptions({ metadata: value })),
  "metadata's text": (value) => models.saveSafetensors({}, asOptions({ metadata: { a: value } })),
};

test.each(values)("%s is refused, or taken, wherever it is given", { timeout: 120_000 }, async (_, value) => {
  const found: string[] = [];
  for (const [place, call] of Object.entries(places)) {
    if (value === LONG && TEXTS.includes(place)) continue;
    const complaint = await wrong(() => call(value));
    if (complaint !== undefined) found.push(`as ${place}: ${complaint}`);
  }
  expect(found).toEqual([]);
});

test("after all that a call works", async () => {
  sameBits(await api.diffAttention(q, k, v, good), api.diffAttentionSync(q, k, v, good));
  expect((await llama.forward([1, 2])).shape).toEqual([1, 2, 97]);
});

const sentenceOf = async (body: () => unknown): Promise<string> => {
  try {
    await body();
  } catch (error) {
    expect(error).toBeInstanceOf(api.DiffAttnError);
    const { code, message } = error as types.DiffAttnError;
    return `${code} ${message}`;
  }
  return "no error";
};

test("a rank of 300000", async () => {
  const shape = Array<number>(3e5).fill(1);
  for (const call of [
    () => api.groupNormSync({ data: x.data, shape }, { numGroups: 1 }),
    () => api.rmsNorm({ data: x.data, shape }),
    () => api.applyRopeSync({ data: x.data, shape }),
    () => api.diffAttentionSync({ data: x.data, shape }, k, v, good),
    () => vit.forward({ data: x.data, shape }),
    () => models.saveSafetensors({ a: { data: x.data, shape } }),
  ]) {
    expect(await sentenceOf(call)).toMatch(/^SHAPE /);
    expect(await wrong(call)).toBeUndefined();
  }
  expect(await sentenceOf(() => api.rmsNormSync({ data: x.data, shape: shape.slice(0, 9) }))).toBe(
    "SHAPE x: expected 1 elements for shape [1, 1, 1, 1, 1, 1, 1, 1, …] (9 axes), got 64",
  );
});

test.each<[string, string, () => unknown]>([
  [
    "a BigInt in a shape",
    "SHAPE x: expected a shape (or dims) of numbers, got [1, 2n]",
    () => api.rmsNormSync({ data: x.data, shape: [1, 2n] as never }),
  ],
  ["a BigInt as an id", "OPTION ids[1]: expected a token id, got 2n", () => llama.forward([1, 2n as never])],
  // eslint-disable-next-line no-sparse-arrays
  ["a hole among ids", "OPTION ids[1]: expected a token id, got undefined", () => llama.forward([1, , 2] as never)],
  ["a signal of 0", "OPTION signal: expected an AbortSignal, got 0", () => api.rmsNorm(x, { signal: 0 as never })],
  ["an empty signal", 'OPTION signal: expected an AbortSignal, got ""', () => api.rmsNormSync(x, { signal: "" as never })],
  ["a false signal", "OPTION signal: expected an AbortSignal, got false", () => llama.forward([1], { signal: false as never })],
  [
    "a false signal of load",
    "OPTION signal: expected an AbortSignal, got false",
    () => models.DiffLlama.load({}, { signal: false as never }),
  ],
  ["a cache of 0", "OPTION cache: expected a ModelCache of this model, got 0", () => llama.generate([1], { cache: 0 as never }).next()],
  [
    "decode(null)",
    "DTYPE ids: expected token ids (an array, an Int32Array or { data, shape }), got null",
    () => llama.decode(null as never),
  ],
  ["encode(5)", "OPTION text: expected a text, got 5", () => llama.encode(5 as never)],
  [
    "a tokenizer of 0",
    "OPTION tokenizer: expected an object with encode and decode, a function that makes one, or null, got 0",
    () => models.DiffLlama.load({}, { tokenizer: 0 as never }),
  ],
  [
    "a target of 5",
    "OPTION target: expected a path, the URL of a file, or a WritableStream, got 5",
    () => models.saveSafetensors({}, { target: 5 as never }),
  ],
  [
    "a target that is no stream",
    "OPTION target: expected a path, the URL of a file, or a WritableStream, got an object",
    () => models.saveSafetensors({}, { target: {} as never }),
  ],
  [
    "an empty target",
    'OPTION target: expected a path, the URL of a file, or a WritableStream, got ""',
    () => models.saveSafetensors({}, { target: "" }),
  ],
  [
    "a target elsewhere",
    "OPTION path: expected the address of a file of this machine, got http://localhost/a",
    () => models.saveSafetensors({}, { target: new URL("http://localhost/a") }),
  ],
  [
    "metadata that is a Map",
    "OPTION metadata: expected texts by name, got a Map",
    () => models.saveSafetensors({}, { metadata: new Map([["a", "b"]]) as never }),
  ],
  [
    "metadata of a BigInt",
    "OPTION metadata.a: expected a text, got 1n",
    () => models.saveSafetensors({}, { metadata: { a: 1n as never } }),
  ],
  ["tensors in a Map", "OPTION tensors: expected tensors by name, got a Map", () => models.saveSafetensors(new Map() as never)],
  ["options in a Map", "OPTION options: expected an object, got a Map", () => api.rmsNormSync(x, new Map([["eps", 1]]) as never)],
  ["a name of another spelling", "max_new_tokens", () => llama.generate([1], { max_new_tokens: 1 } as never).next()],
])("%s", async (_, sentence, call) => {
  if (sentence === "max_new_tokens")
    expect(await sentenceOf(call)).toMatch(/^OPTION options: expected only .*, got "max_new_tokens" \(did you mean maxNewTokens\?\)$/);
  else expect(await sentenceOf(call)).toBe(sentence);
});

test("what a caller's getter threw is the cause", async () => {
  for (const call of [
    () => api.rmsNormSync(throwing("data") as never),
    () =>
      api.rmsNormSync({
        ...x,
        get shape(): never[] {
          throw thrown;
        },
      }),
    () => api.rmsNorm(x, throwing("eps")),
    () => models.saveSafetensors({ a: throwing("data", "shape") as never }),
  ]) {
    let error: unknown;
    try {
      await call();
    } catch (caught) {
      error = caught;
    }
    expect(error).toMatchObject({ name: "DiffAttnError", cause: thrown, message: expect.stringContaining("the caller's own") as unknown });
  }
});

test("names of Object's prototype are names like others", async () => {
  const one = { data: Float32Array.of(1), shape: [1], dtype: "float32" };
  const odd = ["__proto__", "constructor", "toString"];
  const own = (entries: [string, unknown][]): never => Object.fromEntries(entries) as never;
  const saved = await models.saveSafetensors(own(odd.map((name) => [name, one])), { metadata: own(odd.map((name) => [name, name])) });
  const open = await models.openSafetensors(saved as Uint8Array);
  expect([...open.names].sort()).toEqual([...odd].sort());
  expect(Object.entries(open.metadata).sort()).toEqual(odd.map((name) => [name, name]).sort());
  const { file: converted } = await models.convertCheckpoint(saved as Uint8Array, { dtype: "BF16" });
  expect([...(await models.openSafetensors(converted as Uint8Array)).names].sort()).toEqual([...odd].sort());
});

test("a stream that somebody else writes to", async () => {
  const stream = new WritableStream<Uint8Array>();
  stream.getWriter();
  expect(await sentenceOf(() => models.saveSafetensors({}, { target: stream }))).toBe(
    "OPTION target: expected a WritableStream that nobody has a writer of, got one that is locked",
  );
});

test("strides: taken where elements lie side by side, else refused, wherever a tensor is read", async () => {
  const strided = { stride: [1, 99] };
  const refusedAs = /^SHAPE .*: expected (elements side by side|a stride per axis)/;
  const ids = { data: Int32Array.of(9, 1, 5), shape: [1, 2], stride: [2, 1], offset: 1 };
  sameBits(await llama.forward(ids), await llama.forward([1, 5]));
  const view = { data: Float32Array.from([7, ...x.data]), shape: x.shape, stride: [64, 16, 4, 1], offset: 1 };
  sameBits(api.applyRopeSync(view), api.applyRopeSync(x));
  sameBits(await api.applyRope(view), api.applyRopeSync(x));
  for (const call of [
    () => api.rmsNormSync({ data: x.data, shape: [8, 8], ...strided }),
    () => api.rmsNorm({ data: x.data, shape: [8, 8], strides: [1, 8] }),
    () => api.rmsNormSync(x, { weight: { data: new Float32Array(4), shape: [4], stride: [2] } as never }),
    () => api.diffAttention(q, { ...k, ...strided }, v, good),
    () => api.diffAttention(q, k, v, { lambda: { data: new Float32Array(2), shape: [2], stride: [-1] } }),
    () => api.diffAttention(q, k, v, { ...good, attnMask: { data: new Uint8Array(16), shape: [1, 1, 4, 4], stride: [16, 16, 1, 4] } }),
    () =>
      api.diffAttention(q, k, v, {
        ...good,
        attnBias: { data: new Float32Array(16), shape: [1, 1, 4, 4], stride: [16, 16, 1, 4] },
      }),
    () => api.applyRopeSync(x, { positions: { data: Int32Array.of(0, 1, 2, 3), shape: [1, 4], stride: [4, -1] } as never }),
    () => new api.KvCache({ groups: 2, headDim: 16, valueDim: 32 }).append({ ...k, ...strided }, v),
    () => layer().forwardSync({ data: new Float32Array(32), shape: [1, 2, 16], strides: [32, 1, 2] }),
    () => llama.forward({ data: Int32Array.of(1, 2, 3, 4), shape: [2, 2], stride: [1, 2] }),
    () => vit.forward({ data: new Float32Array(12), shape: [1, 3, 2, 2], stride: [12, 1, 6, 3] }),
    () => models.saveSafetensors({ a: { data: new Float32Array(4), shape: [2, 2], stride: [1, 2] } }),
    () => models.saveSafetensors({ a: { data: new Uint8Array(16), dtype: "F32", shape: [2, 2], stride: [1, 2] } as never }),
  ])
    expect(await sentenceOf(call)).toMatch(refusedAs);
});

test("a tensor larger than a runtime hands over is refused at once", async () => {
  const most = Math.min(constants.MAX_LENGTH, 2 ** 50);
  const start = performance.now();
  expect(await sentenceOf(() => api.createTensor([most / 4 + 1]))).toBe(
    `OUT_OF_MEMORY memory: expected ${most + 4} more bytes, got a refusal`,
  );
  expect(performance.now() - start).toBeLessThan(1000);
});

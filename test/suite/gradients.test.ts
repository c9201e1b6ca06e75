// Gradients beyond their reference cases (fixtures.test.ts): which come, in which form, the same
// bits everywhere, aborts, refusals.

import { expect, test } from "vitest";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, backend, LONG, onEachIsa, refused } from "./backends.js";
import { sameBits, values, within } from "./compare.js";
import { bitsBetweenIsas } from "./isa-bits.js";
import { normal, part, qkv } from "./random.js";

type Named = Record<string, types.Tensor | undefined>;
type Qkv = ReturnType<typeof qkv>;
/** dy, q, k and v. */
type Four = [Qkv[0], Qkv[0], Qkv[0], Qkv[0]];

/** The tensors of a call's gradients, in order. */
const all = (gradients: object): types.Tensor[] => Object.values(gradients as Named).filter((x) => x !== undefined);
const names = (gradients: object): string[] => Object.keys(gradients);

function sameGradients(a: object, b: object): void {
  expect(names(a)).toEqual(names(b));
  for (const name of names(a)) sameBits((a as Named)[name] as types.Tensor, (b as Named)[name] as types.Tensor);
}

const [q, k, v] = qkv(1, { B: 2, H: 4, G: 2, Lq: 70, Lk: 90, d: 12 });
const dy = normal(9, 2, 4, 70, 24);
const weight = normal(10, 24).data;
const options = { lambda: 0.4, isCausal: true, norm: { weight, scale: 0.8 } };
const call = (more?: object): types.AttentionGradients => api.diffAttentionBackwardSync(dy, q, k, v, { ...options, ...more });

const x = normal(11, 2, 12, 5, 7);
const dx = normal(12, 2, 12, 5, 7);
const vectors = { q1: normal(13, 8).data, k1: normal(14, 8).data, q2: normal(15, 8).data, k2: normal(16, 8).data };
const group = { numGroups: 3, weight: normal(17, 12).data, bias: normal(18, 12).data, activation: "silu" } as const;
const rms = { weight: normal(19, 7).data, scale: 0.5 };
const rope = { firstPosition: 3, rotaryDim: 6 };

/** Every function of gradients in both forms, as an object of tensors each. */
const forms: Record<string, [run: () => Promise<object>, runSync: () => object]> = {
  diffAttentionBackward: [() => api.diffAttentionBackward(dy, q, k, v, options), () => api.diffAttentionBackwardSync(dy, q, k, v, options)],
  rmsNormBackward: [() => api.rmsNormBackward(dx, x, rms), () => api.rmsNormBackwardSync(dx, x, rms)],
  groupNormBackward: [() => api.groupNormBackward(dx, x, group), () => api.groupNormBackwardSync(dx, x, group)],
  applyRopeBackward: [async () => ({ dx: await api.applyRopeBackward(dx, rope) }), () => ({ dx: api.applyRopeBackwardSync(dx, rope) })],
  sequenceDifferenceBackward: [
    async () => ({ dx: await api.sequenceDifferenceBackward(dx, { order: 2 }) }),
    () => ({ dx: api.sequenceDifferenceBackwardSync(dx, { order: 2 }) }),
  ],
  lambdaFullBackward: [() => api.lambdaFullBackward(0.3, vectors), () => api.lambdaFullBackwardSync(0.3, vectors)],
};

/** A fixed set of calls that meets every function of gradients. */
function fixedSet(deterministic: boolean): types.Tensor[] {
  const results = Object.entries(forms).flatMap(([name, [, runSync]]) => (name === "diffAttentionBackward" ? [] : all(runSync())));
  for (const [seed, sizes] of [
    [100, { B: 2, H: 4, G: 2, Lq: 70, Lk: 300, d: 33 }],
    [200, { Lq: 150, d: 64 }],
    [300, { Lq: 1, Lk: 520, d: 16 }],
    [400, { Lq: 50, d: 7, dv: 3 }],
  ] as const) {
    const [q, k, v] = qkv(seed, sizes);
    const { data, shape } = api.diffAttentionSync(q, k, v, { lambda: 0.35, deterministic: true });
    const dy = { data: data.map((x) => 1 - x), shape };
    const said = { lambda: 0.35, isCausal: true, deterministic };
    results.push(...all(api.diffAttentionBackwardSync(dy, q, k, v, said)));
    results.push(...all(api.diffAttentionBackwardSync(dy, q, k, v, { ...said, norm: {}, softcap: 3, window: [40, 0] })));
  }
  return results;
}

bitsBetweenIsas(fixedSet);

onEachIsa((isa) => {
  test.each(Object.entries(forms))("%s: float32 in both forms, with the same bits", async (_, [run, runSync]) => {
    const sync = runSync();
    expect(all(sync).every(({ dtype }) => dtype === "float32")).toBe(true);
    sameGradients(await run(), sync);
  });

  test("of all that was given but a bias, or what is named; the bits of one do not depend on the others", () => {
    const attnBias = normal(20, 1, 1, 70, 90);
    const sinks = normal(21, 4).data;
    const more = { attnBias, sinks };
    const given = call(more);
    expect(names(given)).toEqual(["dq", "dk", "dv", "dlambda", "dnormWeight", "dsinks"]);
    expect(given.dlambda?.shape).toEqual([]);
    expect(given.dlambda?.data.length).toBe(1);
    for (const [name, of] of Object.entries({ dq: q, dk: k, dv: v })) expect((given as Named)[name]?.shape).toEqual(of.shape);
    const some = call({ ...more, needs: ["sinks", "attnBias", "k"] });
    expect(names(some)).toEqual(["dk", "dattnBias", "dsinks"]);
    expect(some.dattnBias?.shape).toEqual(attnBias.shape);
    sameBits(some.dk as types.Tensor, given.dk as types.Tensor);
    sameBits(some.dsinks as types.Tensor, given.dsinks as types.Tensor);
    expect(names(call({ needs: [] }))).toEqual([]);
    const { dlambda } = call({ lambda: normal(22, 4).data });
    expect(dlambda?.shape).toEqual([4]);
    const terms = call({ lambda: undefined, coefficients: [1, -0.5] });
    expect(names(terms)).toEqual(["dq", "dk", "dv", "dcoefficients", "dnormWeight"]);
    expect(names(api.rmsNormBackwardSync(dx, x))).toEqual(["dx"]);
    expect(names(api.rmsNormBackwardSync(dx, x, rms))).toEqual(["dx", "dweight"]);
    expect(names(api.groupNormBackwardSync(dx, x, group))).toEqual(["dx", "dweight", "dbias"]);
    expect(names(api.groupNormBackwardSync(dx, x, { ...group, weight: undefined }))).toEqual(["dx", "dbias"]);
  });

  test("the rows before the norm are those of the call without it, and spare their computation", async () => {
    const y = api.diffAttentionSync(q, k, v, { ...options, returnPreNorm: true });
    sameBits(y.preNorm, api.diffAttentionSync(q, k, v, { ...options, norm: null }));
    sameBits(y, api.diffAttentionSync(q, k, v, options));
    expect(y.preNorm.shape).toEqual(y.shape);
    const both = await api.diffAttention(q, k, v, { ...options, returnLse: true, returnPreNorm: true });
    sameBits(both.preNorm, y.preNorm);
    expect(both.lse.shape).toEqual([2, 4, 2, 70]);
    sameGradients(call({ result: y.preNorm }), call());
  });

  test("layout bshd has the bits of bhsd", () => {
    const turned = ({ data, shape: [B = 0, H = 0, L = 0, W = 0] }: Qkv[0]): Qkv[0] => {
      const out = new Float32Array(data.length);
      for (let at = 0; at < data.length; at++) {
        const [w, l, h, b] = [at % W, Math.floor(at / W) % L, Math.floor(at / W / L) % H, Math.floor(at / W / L / H)];
        out[((b * L + l) * H + h) * W + w] = data[at] ?? NaN;
      }
      return { data: out, shape: [B, L, H, W] };
    };
    const expected = call() as Named;
    const got = api.diffAttentionBackwardSync(turned(dy), turned(q), turned(k), turned(v), {
      ...options,
      layout: "bshd",
    }) as unknown as Named;
    for (const name of ["dq", "dk", "dv"]) sameBits(got[name] as types.Tensor, { ...turned(expected[name] as never), dtype: "float32" });
    sameBits(got["dlambda"] as types.Tensor, expected["dlambda"] as types.Tensor);
  });

  test("thread count, batch and packing change no bit", async () => {
    const expected = call();
    for (const threads of [1, 2, 3]) {
      await api.init({ backend, isa, threads });
      sameGradients(await api.diffAttentionBackward(dy, q, k, v, options), expected);
    }
    await api.init({ backend, isa, threads: 2 });
    const alone = [dy, q, k, v].map((x) => part(x, [1, 2], [0, x.shape[2] ?? 0])) as Four;
    const one = api.diffAttentionBackwardSync(...alone, options) as unknown as Named;
    for (const name of ["dq", "dk", "dv"]) {
      const { data } = (expected as Named)[name] as types.Tensor;
      sameBits(one[name] as types.Tensor, { data: data.slice(data.length / 2), dtype: "float32" });
    }
    const [cuSeqlensQ, cuSeqlensK] = [Int32Array.of(0, 40, 70), Int32Array.of(0, 50, 90)];
    const packed = api.diffAttentionBackwardSync(...alone, { ...options, cuSeqlensQ, cuSeqlensK }) as unknown as Named;
    const first = [40, 40, 50, 50].map((rows, i) => part(alone[i] as Qkv[0], [0, 1], [0, rows])) as Four;
    const sequence = api.diffAttentionBackwardSync(...first, options) as unknown as Named;
    for (const [name, rows] of Object.entries({ dq: 40, dk: 50, dv: 50 })) {
      const { data } = part(packed[name] as never, [0, 1], [0, rows]);
      sameBits({ data, dtype: "float32" }, sequence[name] as types.Tensor);
    }
  });

  test("halves are widened: the bits of the same numbers in float32", () => {
    // A bfloat16 is the upper half of a float32.
    const halves = ({ data, shape }: Qkv[0]): [types.TensorLike, Qkv[0]] => {
      const upper = Uint16Array.from(new Uint32Array(data.slice().buffer), (bits) => bits >>> 16);
      const wide = new Float32Array(Uint32Array.from(upper, (bits) => bits << 16).buffer);
      return [
        { data: upper, shape, dtype: "bfloat16" },
        { data: wide, shape },
      ];
    };
    const both = [dy, q, k, v].map(halves);
    const [narrow, wide] = [0, 1].map((i) => both.map((pair) => pair[i])) as [Four, Four];
    sameGradients(api.diffAttentionBackwardSync(...narrow, options), api.diffAttentionBackwardSync(...wide, options));
    const [xs, dxs] = [halves(x), halves(dx)];
    sameGradients(api.rmsNormBackwardSync(dxs[0], xs[0], rms), api.rmsNormBackwardSync(dxs[1], xs[1], rms));
    sameGradients(api.groupNormBackwardSync(dxs[0], xs[0], group), api.groupNormBackwardSync(dxs[1], xs[1], group));
    sameBits(api.applyRopeBackwardSync(dxs[0], rope), api.applyRopeBackwardSync(dxs[1], rope));
    sameBits(api.sequenceDifferenceBackwardSync(dxs[0]), api.sequenceDifferenceBackwardSync(dxs[1]));
  });

  test("a step along the gradient is what the result changes by", () => {
    // (By differences of results in float32, so only roughly: that signs and factors are right.)
    const gradients = call() as Named;
    const loss = (q: Qkv[0], k: Qkv[0], v: Qkv[0]): number =>
      api.diffAttentionSync(q, k, v, options).data.reduce((sum, y, i) => sum + y * (dy.data[i] ?? NaN), 0);
    for (const [name, at] of Object.entries({ dq: 0, dk: 1, dv: 2 })) {
      const step = (size: number): Qkv => {
        const moved: Qkv = [q, k, v];
        const of = moved[at] as Qkv[0];
        const along = gradients[name] as types.Tensor;
        moved[at] = { ...of, data: of.data.map((x, i) => x + size * (along.data[i] ?? NaN)) };
        return moved;
      };
      const square = (gradients[name] as types.Tensor).data.reduce((sum, x) => sum + x * x, 0);
      const size = 1e-3 / Math.sqrt(square);
      const slope = (loss(...step(size)) - loss(...step(-size))) / (2 * size);
      expect(Math.abs(slope / square - 1)).toBeLessThan(0.02);
    }
  });

  test("λ: its gradient goes on as it is; a tensor of one element is a number", async () => {
    const { dlambda } = call();
    const number = dlambda?.data[0] ?? NaN;
    const expected = api.lambdaFullBackwardSync(number, vectors);
    sameGradients(await api.lambdaFullBackward(dlambda as types.Tensor, vectors), expected);
    sameGradients(api.lambdaFullBackwardSync(Float32Array.of(number), vectors), expected);
    const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, x, i) => sum + x * (b[i] ?? NaN), 0);
    const factor = number * Math.exp(dot(vectors.q1, vectors.k1));
    within(
      values(expected.dq1),
      Float64Array.from(vectors.k1, (x) => x * factor),
      (want) => 1e-6 * Math.abs(want),
    );
  });

  test("a gradient alone goes where the caller says, in the backend's memory, too", async () => {
    const expected = api.applyRopeBackwardSync(dx, rope);
    const out = new Float32Array(expected.data.length);
    expect(api.applyRopeBackwardSync(dx, { ...rope, out }).data).toBe(out);
    sameBits({ data: out, dtype: "float32" }, expected);
    const place = api.createTensor(dx.shape);
    await api.applyRopeBackward(dx, { ...rope, out: place.data });
    sameBits(place, expected);
    place.data.fill(NaN);
    api.sequenceDifferenceBackwardSync(dx, { out: place.data });
    sameBits(place, api.sequenceDifferenceBackwardSync(dx));
    const held = api.createTensor(dx.shape);
    held.data.set(dx.data);
    sameBits(await api.applyRopeBackward(held, rope), expected);
    sameBits(api.applyRopeBackwardSync(held, rope), expected);
    for (const tensor of [place, held]) tensor.dispose();
  });

  test("gradients go where the caller says, those that it names; in the backend's memory, too", async () => {
    const arrays = {
      dq: new Float32Array(q.data.length),
      dv: new Float32Array(v.data.length + 3).subarray(3),
      dlambda: new Float32Array(1),
    };
    const got = call({ out: arrays });
    sameGradients(got, call());
    for (const [name, array] of Object.entries(arrays)) expect((got as Named)[name]?.data).toBe(array);
    expect(got.dk?.data).toBeInstanceOf(Float32Array);
    sameGradients(call({ needs: ["v"], out: { dv: arrays.dv } }), { dv: got.dv as types.Tensor });
    const place = api.createTensor(x.shape);
    for (const out of [{ dx: place.data }, { dx: place.data, dweight: null, dbias: new Float32Array(12) }]) {
      place.data.fill(NaN);
      const got = await api.groupNormBackward(dx, x, { ...group, out });
      expect(got.dx.data).toBe(out.dx);
      sameGradients(got, api.groupNormBackwardSync(dx, x, group));
      place.data.fill(NaN);
      sameGradients(api.groupNormBackwardSync(dx, x, { ...group, out }), got);
    }
    sameGradients(await api.rmsNormBackward(dx, x, { ...rms, out: null }), api.rmsNormBackwardSync(dx, x, { ...rms, out: {} }));
    place.dispose();
  });

  test("abort: by the signal, while it is at work; the next call works", async () => {
    const long = qkv(99, LONG);
    const dyOfLong = normal(98, 1, LONG.H, LONG.Lq, 2 * LONG.d);
    const controller = new AbortController();
    const reason = new Error("enough");
    let seen = 0;
    const open = api.diffAttentionBackward(dyOfLong, ...long, {
      lambda: 0.3,
      signal: controller.signal,
      onProgress: () => ++seen === 2 && controller.abort(reason),
    });
    const error = await refused(() => open);
    expect(error).toMatchObject({ code: "ABORTED", name: "AbortError", message: "signal: the call was aborted" });
    expect(error.cause).toBe(reason);
    const signal = AbortSignal.abort(reason);
    expect((await refused(() => api.rmsNormBackwardSync(dx, x, { signal }))).code).toBe("ABORTED");
    sameGradients(await api.diffAttentionBackward(dy, q, k, v, options), call());
  });

  const anything = (x: unknown): never => x as never;
  const into = (out: unknown): unknown => api.rmsNormBackwardSync(dx, x, { out: anything(out) });
  const place = new Float32Array(q.data.length);
  test.each<[string, types.ErrorCode, string | RegExp, () => unknown]>([
    [
      "dy of another shape",
      "SHAPE",
      "dy: expected the result's shape [2, 4, 70, 24], got [2, 4, 70, 23]",
      () => api.diffAttentionBackwardSync(normal(1, 2, 4, 70, 23), q, k, v, options),
    ],
    ["an unknown gradient", "OPTION", /^needs\[1\]: expected "q", "k", .* or "sinks", got "x"$/, () => call({ needs: ["q", "x"] })],
    ["no list", "OPTION", 'needs: expected an array, got "q"', () => call({ needs: "q" })],
    [
      "a gradient of nothing",
      "OPTION",
      "needs: expected nothing of what the call has not (sinks), got sinks",
      () => call({ needs: ["sinks"] }),
    ],
    ["a result without a norm", "OPTION", "result: expected none without a norm, got one", () => call({ norm: null, result: dy })],
    ["a result of another shape", "SHAPE", /^result: expected the result's shape .*, got \[2, 12, 5, 7\]$/, () => call({ result: x })],
    [
      "rows before no norm",
      "OPTION",
      "returnPreNorm: expected false without a norm, got true",
      () => api.diffAttentionSync(q, k, v, { lambda: 0.3, returnPreNorm: true }),
    ],
    ["returnLse", "OPTION", /^options: expected only .*, got "returnLse"/, () => call({ returnLse: true })],
    ["a misspelt option", "OPTION", /got "need" \(did you mean needs\?\)$/, () => call({ need: ["q"] })],
    ["a place for what no call gives", "OPTION", /^out: expected only dx, dweight, got "dy"/, () => into({ dy: new Float32Array(1) })],
    ["places that are none", "OPTION", "out: expected an object, got 5", () => into(5)],
    [
      "a place of halves",
      "DTYPE",
      "out.dx: expected a Float32Array for a float32 result, got a Uint16Array",
      () => into({ dx: new Uint16Array(8) }),
    ],
    [
      "a place that is too short",
      "SHAPE",
      /^dx: expected \d+ bytes for float32 \[2, 12, 5, 7\], got 12$/,
      () => into({ dx: new Float32Array(3) }),
    ],
    [
      "a place for a gradient of nothing",
      "OPTION",
      "dweight: expected none, as the call has no such result, got an array",
      () => into({ dweight: new Float32Array(7) }),
    ],
    ["a place in an input", "OPTION", "out.dx: expected memory that does not overlap an input, got an overlap", () => into({ dx: x.data })],
    [
      "a place for two",
      "OPTION",
      "out.dk: expected memory that no other result has, got an overlap",
      () => call({ out: { dq: place, dk: place } }),
    ],
    ["no tensor", "DTYPE", "dy: expected a tensor { data, shape }, got 5", () => api.rmsNormBackwardSync(anything(5), x)],
    ["norms of different shapes", "SHAPE", /^dy: expected .*, got .*/, () => api.rmsNormBackwardSync(normal(1, 2, 12, 5, 6), x)],
    ["groups that do not divide", "SHAPE", /expected .*, got .*/, () => api.groupNormBackwardSync(dx, x, { numGroups: 5 })],
    ["a rotaryDim that is odd", "SHAPE", /^rotaryDim: expected .*, got 5$/, () => api.applyRopeBackwardSync(dx, { rotaryDim: 5 })],
    ["an order that is no count", "OPTION", /^order: expected .*, got -1$/, () => api.sequenceDifferenceBackwardSync(dx, { order: -1 })],
    [
      "vectors that differ in length",
      "SHAPE",
      /^k2: expected .*, got 7$/,
      () => api.lambdaFullBackwardSync(1, { ...vectors, k2: new Float32Array(7) }),
    ],
    ["many λ at once", "SHAPE", /^dlambda: expected .*, got .*/, () => api.lambdaFullBackwardSync(new Float32Array(2), vectors)],
    ["no λ", "OPTION", /^dlambda: expected .*, got .*/, () => api.lambdaFullBackwardSync(anything(undefined), vectors)],
  ])("%s", async (_, code, sentence, body) => {
    const error = await refused(body);
    expect(error.code).toBe(code);
    if (typeof sentence === "string") expect(error.message).toBe(sentence);
    else expect(error.message).toMatch(sentence);
    sameGradients(await api.rmsNormBackward(dx, x), api.rmsNormBackwardSync(dx, x));
  });
});

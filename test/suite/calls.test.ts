// Async calls: order, many at once, inputs that change, aborts, progress, results in the caller's
// memory; objects and their end; panics and traps; worker threads that end in the middle of a call.

import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import type * as types from "../../packages/diffattn/src/types.js";
import { api, backend, LONG, onEachIsa, refused } from "./backends.js";
import { sameBits } from "./compare.js";
import { qkv } from "./random.js";

const options = { lambda: 0.3, isCausal: true };
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
/**
 * Replaces a call by a request that panics: in its preparation (240) or in its first step (241).
 */
const testOp = (op: number): Record<symbol, number> => ({ [Symbol.for("diffattn.testOp")]: op });
const long = qkv(99, LONG);

onEachIsa((isa) => {
  const [q, k, v] = qkv(1, { Lq: 90, d: 32 });
  const expected = (): types.Tensor => api.diffAttentionSync(q, k, v, options);
  const works = async (): Promise<void> => {
    sameBits(await api.diffAttention(q, k, v, options), expected());
  };

  test("32 calls open at once settle in order, each with its own result", async () => {
    const settled: number[] = [];
    const calls = Array.from({ length: 32 }, (_, i) => {
      const inputs = qkv(i, { Lq: 10 + i });
      return { inputs, result: api.diffAttention(...inputs, options).finally(() => settled.push(i)) };
    });
    for (const { inputs, result } of calls) sameBits(await result, api.diffAttentionSync(...inputs, options));
    expect(settled).toEqual(Array.from({ length: 32 }, (_, i) => i));
  });

  test("calls that take the buffers of earlier ones' inputs, of other sizes, one after the other and at once", async () => {
    const inputs = [300, 500, 400].map((Lq, i) => qkv(i, { H: 4, Lq, d: 32 }));
    const calls = inputs.map((tensors) => ({ tensors, want: api.diffAttentionSync(...tensors, options) }));
    const agrees = async ({ tensors, want }: (typeof calls)[number]): Promise<void> => {
      sameBits(await api.diffAttention(...tensors, options), want);
    };
    for (let round = 0; round < 3; round++) {
      for (const call of calls) await agrees(call);
      await Promise.all(calls.map(agrees));
    }
  });

  test("inputs changed, transferred or resized right after the call do not change its result", async () => {
    const want = expected();
    const copies = (): typeof long => [q, k, v].map((x) => ({ ...x, data: x.data.slice() })) as typeof long;
    const changed = copies();
    const first = api.diffAttention(...changed, options);
    for (const x of changed) x.data.fill(NaN);
    sameBits(await first, want);

    const moved = copies();
    const second = api.diffAttention(...moved, options);
    for (const x of moved) structuredClone(x.data, { transfer: [x.data.buffer] });
    sameBits(await second, want);

    const resizable = copies().map((x) => {
      const Resizable = ArrayBuffer as unknown as new (
        bytes: number,
        options: { maxByteLength: number },
      ) => ArrayBuffer & { resize(bytes: number): void };
      const buffer = new Resizable(x.data.byteLength, { maxByteLength: 2 * x.data.byteLength });
      const data = new Float32Array(buffer, 0, x.data.length);
      data.set(x.data);
      return { data, shape: x.shape, buffer };
    });
    const [rq, rk, rv] = resizable as [(typeof resizable)[0], (typeof resizable)[0], (typeof resizable)[0]];
    const third = api.diffAttention(rq, rk, rv, options);
    for (const x of resizable) x.buffer.resize(0);
    sameBits(await third, want);
  });

  test("transfer detaches the inputs and gives the same bits", async () => {
    const want = expected();
    const moved = [q, k, v].map((x) => ({ ...x, data: x.data.slice() })) as typeof long;
    const call = api.diffAttention(...moved, { ...options, transfer: true });
    for (const x of moved) expect(x.data.byteLength).toBe(0);
    sameBits(await call, want);
    const error = await refused(() => api.diffAttention(...moved, options));
    expect(error.code).toBe("SHAPE");
    expect(error.message).toContain("detached");
  });

  describe("abort", () => {
    const check = (error: types.DiffAttnError, reason: unknown): void => {
      expect(error).toMatchObject({ code: "ABORTED", name: "AbortError", message: "signal: the call was aborted" });
      expect(error.cause).toBe(reason);
    };
    test("before", async () => {
      const reason = { why: "before" };
      check(await refused(() => api.diffAttention(q, k, v, { ...options, signal: AbortSignal.abort(reason) })), reason);
      check(await refused(() => api.diffAttentionSync(q, k, v, { ...options, signal: AbortSignal.abort(reason) })), reason);
      await works();
    });
    test("during", async () => {
      const controller = new AbortController();
      const reason = new Error("during");
      let seen = 0;
      const call = api.diffAttention(...long, {
        lambda: 0.3,
        signal: controller.signal,
        onProgress: () => ++seen === 2 && controller.abort(reason),
      });
      check(await refused(() => call), reason);
      expect(seen).toBe(2);
      await works();
    });
    test("while it waits for another", async () => {
      const controller = new AbortController();
      const other = api.diffAttention(q, k, v, options);
      const call = api.diffAttention(...long, { lambda: 0.3, signal: controller.signal });
      controller.abort("waiting");
      check(await refused(() => call), "waiting");
      sameBits(await other, expected());
    });
    test("while another is at work, which goes on", async () => {
      const [first, second] = [new AbortController(), new AbortController()];
      let seen = 0;
      const other = api.diffAttention(...long, {
        lambda: 0.3,
        signal: first.signal,
        onProgress() {
          seen++;
          if (seen === 2) second.abort("second");
          if (seen === 4) first.abort("first");
        },
      });
      const call = api.diffAttention(q, k, v, { ...options, signal: second.signal });
      const errors = await Promise.all([refused(() => other), refused(() => call)]);
      check(errors[0], "first");
      check(errors[1], "second");
      expect(seen).toBe(4);
      await works();
    });
    test("after: the result stays", async () => {
      const controller = new AbortController();
      const y = await api.diffAttention(q, k, v, { ...options, signal: controller.signal });
      controller.abort();
      sameBits(y, expected());
      await works();
    });
    test("what does not abort: the event loop runs while a long call is at work", async () => {
      const controller = new AbortController();
      let ticks = 0;
      // A loop that stood still would let the call end, however fast the machine.
      const timer = setInterval(() => ++ticks === 4 && controller.abort("ticks"), 5);
      check(await refused(() => api.diffAttention(...long, { lambda: 0.3, signal: controller.signal })), "ticks");
      clearInterval(timer);
    });
  });

  test("progress rises to its total; what it throws rejects the call", async () => {
    const seen: types.Progress[] = [];
    const middle = qkv(2, { H: 4, Lq: 700, d: 32 });
    await api.diffAttention(...middle, { ...options, onProgress: (progress) => seen.push(progress) });
    expect(seen.length).toBeGreaterThan(0);
    seen.forEach(({ done, total }, i) => {
      expect(total).toBe(seen[0]?.total);
      expect(done).toBeLessThanOrEqual(total);
      expect(done).toBeGreaterThanOrEqual(seen[i - 1]?.done ?? 0);
    });
    expect(seen.at(-1)?.done).toBe(seen.at(-1)?.total);
    const thrown = new Error("mine");
    await expect(
      api.diffAttention(...long, {
        lambda: 0.3,
        onProgress() {
          throw thrown;
        },
      }),
    ).rejects.toBe(thrown);
    await works();
  });

  test("out: the caller's array, with an offset, both forms; a wrong length, type or an overlap is refused", async () => {
    const want = expected();
    const n = want.data.length;
    type Run = (...call: Parameters<typeof api.diffAttentionSync>) => Promise<types.Tensor<types.TensorData>>;
    const runs: Run[] = [
      (...call) => api.diffAttention(...call),
      (...call) => Promise.resolve().then(() => api.diffAttentionSync(...call)),
    ];
    for (const run of runs) {
      const memory = new Float32Array(n + 20).fill(7);
      const out = memory.subarray(3, 3 + n);
      const y = await run(q, k, v, { ...options, out });
      expect(y.data).toBe(out);
      sameBits(y, want);
      expect([memory[2], memory[3 + n]]).toEqual([7, 7]);
      expect((await refused(() => run(q, k, v, { ...options, out: memory }))).code).toBe("SHAPE");
      expect((await refused(() => run(q, k, v, { ...options, out: new Uint16Array(n) }))).code).toBe("DTYPE");
      const shared = new Float32Array(q.data.length + n);
      shared.set(q.data);
      const overlap = await refused(() =>
        run({ data: shared.subarray(0, q.data.length), shape: q.shape }, k, v, {
          ...options,
          out: shared.subarray(q.data.length - 1, q.data.length - 1 + n),
        }),
      );
      expect(overlap).toMatchObject({ code: "OPTION", message: "out: expected memory that does not overlap an input, got an overlap" });
      const beside = await run({ data: shared.subarray(0, q.data.length), shape: q.shape }, k, v, {
        ...options,
        out: shared.subarray(q.data.length),
      });
      sameBits(beside, want);
    }
  });

  test("objects: dispose twice, use after it, in the middle of a call", async () => {
    const tensor = api.createTensor([2, 3]);
    expect(Array.from(tensor.data)).toEqual([0, 0, 0, 0, 0, 0]);
    tensor.dispose();
    tensor.dispose();
    const sentence = (name: string) => ({ code: "DISPOSED", message: `${name}: expected a live object, got one that was disposed of` });
    expect(await refused(() => tensor.data)).toMatchObject(sentence("tensor"));
    const cache = new api.KvCache({ groups: 2, headDim: 32, valueDim: 64 });
    cache.append(k, v);
    const call = api.diffAttention(q, cache, null, options);
    cache.dispose();
    cache.dispose();
    sameBits(await call, expected());
    expect(await refused(() => cache.length)).toMatchObject(sentence("cache"));
    expect(await refused(() => cache.append(k, v))).toMatchObject(sentence("cache"));
    expect(await refused(() => api.diffAttention(q, cache, null, options))).toMatchObject(sentence("cache"));
    await works();
  });

  test("dispose of the backend: open calls are aborted, objects are gone, the next call starts anew", async () => {
    const cache = new api.KvCache({ groups: 2, headDim: 32, valueDim: 64 });
    const call = refused(() => api.diffAttention(...long, { lambda: 0.3 }));
    await pause(30);
    api.dispose();
    api.dispose();
    expect(await call).toMatchObject({ code: "ABORTED" });
    expect(await refused(() => cache.length)).toMatchObject({ code: "UNAVAILABLE" });
    await works();
    expect(api.info()).toMatchObject({ backend, isa });
  });

  describe("a panic inside", () => {
    for (const op of [240, 241]) {
      test(`sync, request ${op}`, async () => {
        const error = await refused(() => api.rmsNormSync(q, testOp(op)));
        expect(error.code).toBe("INTERNAL");
        expect(error.message).toMatch(/^internal error \(a bug of diffattn\): .*panic/);
        await works();
      });
      test(`async, request ${op}, with calls open`, async () => {
        const first = api.diffAttention(q, k, v, options);
        const bad = refused(() => api.rmsNorm(q, testOp(op)));
        const others = Promise.allSettled([api.diffAttention(q, k, v, options), api.diffAttention(...long, options)]);
        sameBits(await first, expected());
        expect((await bad).code).toBe("INTERNAL");
        for (const result of await others) {
          // WASM traps end the instance and every call open on it; a native panic ends its own
          // call.
          if (backend === "wasm") expect(result).toMatchObject({ status: "rejected", reason: { code: "INTERNAL" } });
          else expect(result.status).toBe("fulfilled");
        }
        await works();
      });
    }
  });
});

describe("worker threads", () => {
  const script = (body: string): string => `
    const { parentPort } = require("node:worker_threads");
    const api = require(${JSON.stringify(new URL("../../packages/diffattn/dist/node.js", import.meta.url).pathname)});
    const n = ${LONG.H} * ${LONG.Lq} * ${LONG.d};
    const fill = (n) => Float32Array.from({ length: n }, (_, i) => Math.sin(i));
    const tensor = (...shape) => ({ shape, data: fill(shape.reduce((a, b) => a * b)) });
    ${body}`;
  const small = `const run = () => api.diffAttention(tensor(1, 4, 30, 16), tensor(1, 4, 30, 16), tensor(1, 2, 30, 32), { lambda: 0.3 });`;

  test("several at once give one answer, and end on their own", async () => {
    const answers = await Promise.all(
      Array.from(
        { length: 4 },
        () =>
          new Promise<Float32Array>((resolve, reject) => {
            const worker = new Worker(script(`${small} run().then((y) => parentPort.postMessage(y.data));`), { eval: true });
            let answer: Float32Array | undefined;
            worker.on("message", (data: Float32Array) => (answer = data));
            worker.on("error", reject);
            worker.on("exit", (code) => (answer && code === 0 ? resolve(answer) : reject(new Error(`exit ${code} without an answer`))));
          }),
      ),
    );
    for (const answer of answers) expect(answer).toEqual(answers[0]);
    expect(answers[0]?.some((x) => x !== 0)).toBe(true);
  });

  test("one that ends in the middle of a call harms nobody", async () => {
    for (const ms of [0, 20, 60]) {
      const worker = new Worker(
        script(`for (let i = 0; i < 3; i++) api.diffAttention(tensor(1, 16, ${LONG.Lq}, 64), tensor(1, 16, ${LONG.Lq}, 64), tensor(1, 8, ${LONG.Lq}, 128), { lambda: 0.3 }).catch(() => {});
        parentPort.postMessage("at work");`),
        { eval: true },
      );
      await new Promise((resolve) => worker.once("message", resolve));
      await pause(ms);
      await worker.terminate();
    }
    const [q, k, v] = qkv(5);
    sameBits(await api.diffAttention(q, k, v, options), api.diffAttentionSync(q, k, v, options));
    api.dispose();
  });
});

// What runs inside the page: the reference cases on each WASM build, and what only a browser can show. Chooses no browser.
import { sameBits, values, within } from "/suite/compare.js";
import { checksOf } from "/suite/fixture-cases.js";
import { qkv } from "/suite/random.js";
import { readFixture } from "/suite/safetensors.js";

const results = [];

async function test(name, body) {
  try {
    await body();
    results.push({ name, error: null });
  } catch (error) {
    results.push({ name, error: String(error?.message ?? error) });
  }
}

function assert(condition, what) {
  if (!condition) throw new Error(what);
}

async function refused(code, part, body) {
  try {
    await body();
  } catch (error) {
    assert(error.code === code && error.message.includes(part), `expected ${code} with "${part}", got ${error.code}: ${error.message}`);
    return error;
  }
  throw new Error(`expected ${code}, got a result`);
}

const options = { lambda: 0.3, isCausal: true };
const small = qkv(1, { Lq: 60, d: 32 });
/** A call of some seconds: it must not end before a frame was drawn. */
const long = qkv(2, { H: 32, Lq: 2048, d: 64 });
const note = "not cross-origin isolated";

/** The cases of one build. */
async function build(api, isa, files) {
  await test(`${isa}: starts`, async () => {
    const info = await api.init({ isa, threads: 2 });
    const threads = isa === "relaxed-simd+threads" ? 2 : 1;
    assert(info.backend === "wasm" && info.isa === isa && info.threads === threads, JSON.stringify(info));
    assert(api.info().isa === isa, JSON.stringify(api.info()));
  });
  for (const [file, bytes] of files) {
    for (const check of checksOf(readFixture(bytes))) {
      await test(`${isa}: ${file} ${check.name}`, async () => {
        const sync = check.runSync(api);
        within(values(sync), check.expected, check.bound);
        sameBits(await check.run(api), sync);
      });
    }
  }
  await test(`${isa}: the page stays responsive, and an abort ends a long call`, async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const seen = { ticks: 0, frames: 0, reports: 0 };
    let start;
    // A page that stood still would let the call end.
    const timer = setInterval(() => {
      if (++seen.ticks <= 3 || seen.frames === 0 || seen.reports === 0 || controller.signal.aborted) return;
      start = performance.now();
      controller.abort(reason);
    }, 5);
    const frame = () => {
      seen.frames++;
      if (!controller.signal.aborted) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    const call = api.diffAttention(...long, { lambda: 0.3, signal: controller.signal, onProgress: () => seen.reports++ });
    call.catch(() => {}).finally(() => clearInterval(timer));
    const error = await refused("ABORTED", "signal: the call was aborted", () => call);
    const took = performance.now() - start;
    assert(error.cause === reason && error.name === "AbortError", "the cause is the signal's reason");
    // A slice is at most 16 ms; the rest is room for a busy machine. Whole, the call takes longer than this.
    assert(took < 500, `the abort took ${took} ms`);
    sameBits(await api.diffAttention(...small, options), api.diffAttentionSync(...small, options));
  });
  await test(`${isa}: a panic with calls open rejects them, and the next call works`, async () => {
    const bad = { [Symbol.for("diffattn.testOp")]: 241 };
    const calls = [api.rmsNorm(small[0], bad), api.diffAttention(...small, options)];
    for (const call of calls) call.catch(() => {});
    for (const call of calls) await refused("INTERNAL", "internal error", () => call);
    sameBits(await api.diffAttention(...small, options), api.diffAttentionSync(...small, options));
  });
  await test(`${isa}: inputs changed right after the call do not change its result`, async () => {
    const copies = small.map((x) => ({ ...x, data: x.data.slice() }));
    const call = api.diffAttention(...copies, options);
    for (const x of copies) x.data.fill(NaN);
    sameBits(await call, api.diffAttentionSync(...small, options));
  });
}

globalThis.runTests = async (names) => {
  const isolated = globalThis.crossOriginIsolated;
  const files = await Promise.all(
    names.map(async (name) => [name, new Uint8Array(await (await fetch(`/fixtures/${name}`)).arrayBuffer())]),
  );

  await test("HTML in the place of a WASM file is named, and stays so", async () => {
    const api = await import("/html/browser.js");
    await refused("UNAVAILABLE", "HTML page", () => api.init());
    await refused("UNAVAILABLE", "HTML page", () => api.init());
  });
  await test("a failed init can be repeated", async () => {
    const api = await import("/once/browser.js");
    await refused("UNAVAILABLE", "HTML page", () => api.init({ isa: "simd128" }));
    const info = await api.init({ isa: "simd128" });
    assert(info.isa === "simd128", JSON.stringify(info));
    await api.diffAttention(...small, options);
    api.dispose();
  });

  const api = await import("/dist/browser.js");
  await test("before init the main thread has no sync forms", async () => {
    await refused("UNAVAILABLE", "init", () => api.diffAttentionSync(...small, options));
    await refused("UNAVAILABLE", "init", () => api.info());
  });
  await test("an async call needs no init, and threads are on where the page is isolated", async () => {
    const y = await api.diffAttention(...small, options);
    assert(y.data.length === 2 * 60 * 64, "the result has its length");
    const info = api.info();
    const isa = isolated ? "relaxed-simd+threads" : "relaxed-simd";
    assert(info.isa === isa && isolated === info.threads > 1, JSON.stringify(info));
    assert(info.notes.some((text) => text.includes(note)) !== isolated, JSON.stringify(info.notes));
  });
  await test("two init at once", async () => {
    const [a, b] = await Promise.all([api.init(), api.init()]);
    assert(JSON.stringify(a) === JSON.stringify(b), JSON.stringify([a, b]));
  });
  await test("init takes a URL, a Response, bytes and a module; anything else is refused", async () => {
    const url = new URL("/dist/diffattn-simd128.wasm", location.href);
    const bytes = await (await fetch(url)).arrayBuffer();
    for (const wasm of [url, await fetch(url), bytes, new Uint8Array(bytes), await WebAssembly.compile(bytes)]) {
      const info = await api.init({ isa: "simd128", wasm });
      assert(info.isa === "simd128", JSON.stringify(info));
      await api.diffAttention(...small, options);
      api.dispose();
    }
    await refused("OPTION", "wasm", () => api.init({ isa: "simd128", wasm: 5 }));
    await refused("UNAVAILABLE", "404", () => api.init({ isa: "simd128", wasm: new URL("/nothing.wasm", location.href) }));
    await api.init({ isa: "simd128" });
  });
  await test("no native backend here", () => refused("UNAVAILABLE", "native", () => api.init({ backend: "native" })));
  if (!isolated) {
    await test("threads need isolation", () => refused("UNAVAILABLE", "isa", () => api.init({ isa: "relaxed-simd+threads" })));
  }
  for (const isa of ["simd128", "relaxed-simd", ...(isolated ? ["relaxed-simd+threads"] : [])]) await build(api, isa, files);
  await test("dispose, and a new start", async () => {
    api.dispose();
    await api.diffAttention(...small, options);
    api.dispose();
  });
  return results;
};

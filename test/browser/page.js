// What runs inside the page: the reference cases on each WASM build, and what only a browser can
// show. Chooses no browser.
import { largest, sameBits, values, within } from "/suite/compare.js";
import { checksOf } from "/suite/fixture-cases.js";
import { qkv } from "/suite/random.js";
import { float64, float32, integers, readFixture, stored } from "/suite/safetensors.js";

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

const fixture = async (path) => readFixture(new Uint8Array(await (await fetch(path)).arrayBuffer()));

/** Whole models on one build. */
async function wholeModels(models, isa) {
  await test(`${isa}: a language model over the network: logits, maps and text`, async () => {
    const expected = await fixture("/trained/expected.safetensors");
    const told = [];
    const model = await models.DiffLlama.load("/trained/", { onProgress: (progress) => told.push(progress) });
    const { done, total } = told.at(-1);
    assert(told.length > 2 && done === total, JSON.stringify(told.at(-1)));
    const { prompt, continuation } = expected.options[0];
    const ids = integers(stored(expected, "0.input_ids"));
    assert(JSON.stringify(model.encode(prompt)) === JSON.stringify(ids), "the prompt's ids");
    const logits = float64(stored(expected, "0.logits"));
    within((await model.forward(ids)).data, logits, () => 4e-5 * largest(logits));
    let text = "";
    let frames = 0;
    let over = false;
    const frame = () => {
      frames++;
      if (!over) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    for await (const token of model.generate(prompt, { maxNewTokens: 48, stopIds: [] })) text += token.text;
    over = true;
    assert(text === continuation, text);
    assert(frames > 0, "the page draws while it generates");
    const { diff } = await model.maps(ids, 3);
    assert(diff.shape.join() === `1,4,${ids.length},${ids.length}`, diff.shape.join());
    const reason = new Error("enough");
    const controller = new AbortController();
    const error = await refused("ABORTED", "signal", async () => {
      for await (const token of model.generate(prompt, { signal: controller.signal })) if (token.id >= 0) controller.abort(reason);
    });
    assert(error.cause === reason, "the cause is the signal's reason");
    model.dispose();
  });
  await test(`${isa}: a vision model: pixels, and what a page shows`, async () => {
    const expected = await fixture("/models/diff_vit/expected.safetensors");
    const model = await models.DiffViT.load("/models/diff_vit/");
    const { shape } = stored(expected, "image");
    const logits = float64(stored(expected, "expected.logits"));
    within((await model.forward({ data: float32(stored(expected, "image")), shape })).data, logits, () => 4e-5 * largest(logits));
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [80, 60];
    const context = canvas.getContext("2d");
    for (let x = 0; x < 8; x++) {
      context.fillStyle = `rgb(${x * 30}, ${255 - x * 20}, 90)`;
      context.fillRect(x * 10, 0, 10, 60);
    }
    const y = await model.forward(context.getImageData(0, 0, 80, 60));
    const image = new Image();
    image.src = canvas.toDataURL("image/png");
    await image.decode();
    const offscreen = new OffscreenCanvas(80, 60);
    offscreen.getContext("2d").drawImage(canvas, 0, 0);
    for (const source of [canvas, offscreen, await createImageBitmap(canvas), image]) sameBits(await model.forward(source), y);
    const classes = await model.classify(canvas, { top: 3 });
    assert(classes.length === 3 && classes[0].probability >= classes[1].probability, JSON.stringify(classes));
    assert((await model.maps(canvas, 0)).map1.shape.join() === "1,2,17,17", "the maps' shape");
    await refused("OPTION", "loaded", () => model.forward(new Image()));
    model.dispose();
  });
}

/** A model that knows nothing, of a few weights, and ids in which each follows from the one before. */
const nothingYet = {
  config: {
    model_type: "diffllama",
    vocab_size: 61,
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    tie_word_embeddings: true,
  },
};
const chain = [1];
while (chain.length < 6000) chain.push((17 * chain.at(-1) + 3) % 61);

/** Training on one build; gives what its checkpoint is. */
async function trains(training, models, isa) {
  await test(`${isa}: a model is trained on the page, which stays alive; its checkpoint loads, and is gone on from`, async () => {
    const files = {};
    const given = {
      model: nothingYet,
      data: { ids: chain },
      dataset: { context: 32 },
      steps: 60,
      optimizer: { lr: 0.02 },
      out: { write: (name, bytes) => void (files[name] = bytes) },
    };
    const trainer = await training.Trainer.create(given);
    const losses = [];
    let frames = 0;
    let over = false;
    const frame = () => {
      frames++;
      if (!over) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    for await (const { loss } of trainer) losses.push(loss);
    over = true;
    assert(losses.length === 60 && losses.at(-1) < losses[0] - 2.5, losses.join());
    assert(frames > 2, `${frames} frames were drawn`);
    const name = await trainer.save();
    assert(new TextDecoder().decode(files.latest).trim() === name, "the name of the checkpoint");
    const checkpoint = Object.fromEntries(
      Object.entries(files)
        .filter(([path]) => path.startsWith(name))
        .map(([path, bytes]) => [path.slice(name.length + 1), bytes]),
    );
    const model = await models.LanguageModel.load(checkpoint);
    sameBits(await model.forward(chain.slice(0, 40)), await (await trainer.model()).forward(chain.slice(0, 40)));
    const written = [];
    for await (const { id } of model.generate(chain.slice(0, 20), { maxNewTokens: 4, stopIds: [] })) written.push(id);
    assert(written.length === 4, `${written.length} tokens were written`);
    model.dispose();
    trainer.dispose();
    const again = await training.Trainer.create({ ...given, resume: checkpoint });
    assert(again.step === 60 && (await again.advance()) === undefined, "all steps are made");
    again.dispose();
  });
}

/** Where models come from, on a page. */
async function sources(models) {
  const names = ["config.json", "model.safetensors"];
  const files = await Promise.all(names.map(async (name) => new File([await (await fetch(`/models/diffllama_gqa/${name}`)).blob()], name)));
  const logits = async (source, options) => {
    const model = await models.DiffLlama.load(source, options);
    const y = await model.forward([1, 2, 3]);
    model.dispose();
    return y;
  };
  await test("files that were chosen, and Cache Storage", async () => {
    const expected = await logits("/models/diffllama_gqa/");
    sameBits(await logits(files), expected);
    for (let time = 0; time < 2; time++) {
      const told = [];
      sameBits(await logits("/models/diffllama_gqa/", { cache: "diffattn-test", onProgress: (progress) => told.push(progress) }), expected);
      assert(told.at(-1).done === files[1].size, JSON.stringify(told.at(-1)));
    }
    const store = await caches.open("diffattn-test");
    assert(
      (await store.keys()).some(({ url }) => url.endsWith("/models/diffllama_gqa/model.safetensors")),
      "the weights are kept",
    );
    await caches.delete("diffattn-test");
  });
  await test("a page in the place of a model, and none at all", async () => {
    await refused("FILE", "config.json", () => models.DiffLlama.load("/models/nothing/"));
    await refused("FILE", "HTML page", () => models.openSafetensors("/browser/page.html"));
  });
  await test("how files may be reached: headers, a fetch of the page's own, origins, lengths", async () => {
    const path = "/models/diffllama_gqa/model.safetensors";
    const open = async (address, options) => (await models.openSafetensors(address, options)).dispose();
    await open(`/key${path}`, { headers: { "X-Key": "yes" } });
    await refused("FILE", "401", () => open(`/key${path}`));
    const asked = [];
    const own = (address, init) => asked.push([address, init.credentials]) && fetch(address, init);
    await open(path, { fetch: own, credentials: "omit" });
    assert(asked.length > 0 && asked.every(([, credentials]) => credentials === "omit"), JSON.stringify(asked));
    // The browser follows redirects by itself: where they ended is looked at.
    const { url } = await fetch(`/to${path}`, { method: "HEAD" });
    const there = new URL(url).origin;
    assert(there !== location.origin, there);
    await open(`/to${path}`);
    await open(`/to${path}`, { allowedOrigins: [location.origin, there] });
    for (const cache of [undefined, "diffattn-test"])
      await refused("FILE", "allowedOrigins", () => open(`/to${path}`, { allowedOrigins: [location.origin], cache }));
    await refused("FILE", "allowedOrigins", () => open(path, { allowedOrigins: [there] }));
    await refused("OPTION", "allowPrivate", () => open(path, { allowPrivate: false }));
    for (const cache of [undefined, "diffattn-test"])
      await refused("FILE", "maxFileBytes", () => open("/endless/model.safetensors", { maxFileBytes: 2 ** 22, cache }));
    assert((await (await caches.open("diffattn-test")).keys()).length === 0, "nothing is kept of what was refused");
    await caches.delete("diffattn-test");
  });
  await test("a file that is written is read again", async () => {
    const a = { dtype: "F16", shape: [2], data: new Uint8Array([0, 60, 0, 192]) };
    const file = await models.openSafetensors(await models.saveSafetensors({ a }));
    assert((await file.readFloat32("a")).data.join() === "1,-2", "the values");
    file.dispose();
    await refused("OPTION", "target", () => models.saveSafetensors({ a }, { target: "a.safetensors" }));
  });
}

/** The cases of one build. */
async function build(api, isa, files) {
  await test(`${isa}: starts`, async () => {
    const info = await api.init({ isa, threads: 2 });
    const threads = isa === "relaxed-simd+threads" ? 2 : 1;
    assert(info.backend === "wasm" && info.isa === isa && info.threads === threads, JSON.stringify(info));
    assert(api.info().isa === isa, JSON.stringify(api.info()));
  });
  await test(`${isa}: gradients load modules of their own; sync forms on a page want an async one, and an init() after it`, async () => {
    const dy = (await api.diffAttention(...small, options)).data;
    const given = [{ data: dy, shape: [1, 2, 60, 64] }, ...small];
    await refused("UNAVAILABLE", "an async form of gradients", () => api.diffAttentionBackwardSync(...given, options));
    const gradients = await api.diffAttentionBackward(...given, options);
    await api.init({ isa, threads: 2 });
    const sync = api.diffAttentionBackwardSync(...given, options);
    for (const name of ["dq", "dk", "dv", "dlambda"]) sameBits(gradients[name], sync[name]);
    const loaded = performance.getEntriesByType("resource").filter(({ name }) => /diffattn-training-/.test(name));
    assert(loaded.length > 0, "they are files of their own");
    const controller = new AbortController();
    const open = api.diffAttentionBackward({ data: new Float32Array(32 * 2048 * 128), shape: [1, 32, 2048, 128] }, ...long, {
      lambda: 0.3,
      signal: controller.signal,
      onProgress: () => controller.abort(),
    });
    await refused("ABORTED", "signal", () => open);
    sameBits((await api.rmsNormBackward(small[0], small[0])).dx, api.rmsNormBackwardSync(small[0], small[0]).dx);
  });
  for (const [file, bytes] of files) {
    for (const check of checksOf(readFixture(bytes), file)) {
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
    // A slice is at most 16 ms; the rest is room for a busy machine. Whole, the call takes longer
    // than this.
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
  // All that is loaded is looked at, and the cases alone are more than a page remembers by itself.
  performance.setResourceTimingBufferSize(10_000);
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

  await test("a package of another origin, as from a CDN: its worker and its threads start all the same; without workers there are slices", async () => {
    const { url } = await fetch("/to/dist/browser.js", { method: "HEAD" });
    assert(new URL(url).origin !== location.origin, url);
    const api = await import(url);
    const expected = isolated ? "relaxed-simd+threads" : "relaxed-simd";
    const { isa, threads, notes } = await api.init();
    assert(isa === expected && threads > 1 === isolated && !notes.some((text) => text.includes("no worker")), JSON.stringify(notes));
    const y = await api.diffAttention(...small, options);
    sameBits(api.diffAttentionSync(...small, options), y);
    const { DiffLlama } = await import(url.replace("browser.js", "models.js"));
    const logits = async () => {
      const model = await DiffLlama.load(new URL("/models/diffllama_gqa/", location.href));
      return model.forward([1, 2, 3]);
    };
    const z = await logits();
    api.dispose();

    const { Worker } = globalThis;
    globalThis.Worker = undefined;
    try {
      const info = await api.init();
      assert(info.isa === "relaxed-simd" && info.threads === 1, JSON.stringify(info));
      assert(
        info.notes.join().includes("no worker starts here (a runtime that has none), so async calls run in slices"),
        info.notes.join(),
      );
      sameBits(await api.diffAttention(...small, options), y);
      sameBits(await logits(), z);
      // The page draws, and an abort is seen.
      let frames = 0;
      const controller = new AbortController();
      const frame = () => {
        if (++frames === 3) controller.abort();
        else requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
      await refused("ABORTED", "signal", () => api.diffAttention(...long, { lambda: 0.3, signal: controller.signal }));
      assert(frames === 3, `${frames} frames`);
      api.dispose();
    } finally {
      globalThis.Worker = Worker;
    }
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
  const loaded = performance.getEntriesByType("resource").map(({ name }) => name);
  await test("whoever uses operators alone loads nothing of models and gradients, and what a pool needs only where there is one", () => {
    const ours = loaded.filter((name) => name.startsWith(`${location.origin}/dist/`));
    assert(ours.length > 0 && !ours.some((name) => /models|training|tokenizers|in-thread/.test(name)), ours.join());
    assert(ours.some((name) => name.includes("pool")) === isolated, ours.join());
  });
  const models = await import("/dist/models.js");
  const isas = ["simd128", "relaxed-simd", ...(isolated ? ["relaxed-simd+threads"] : [])];
  for (const isa of isas) {
    await build(api, isa, files);
    await wholeModels(models, isa);
  }
  await sources(models);
  const training = await import("/dist/training.js");
  for (const isa of isas) {
    await api.init({ isa });
    await trains(training, models, isa);
  }
  await test("a module of a Service Worker, which imports nothing while it runs, has what stands in a worker's place", async () => {
    const model = new URL("/models/diffllama_gqa/", location.href).href;
    const registration = await navigator.serviceWorker.register("/browser/service-worker.js", { type: "module" });
    try {
      const { active } = await navigator.serviceWorker.ready;
      const { port1, port2 } = new MessageChannel();
      const told = new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)));
      active.postMessage({ inputs: small.map(({ data, shape }) => ({ data, shape })), options, model }, [port2]);
      const { error, info, y, sync, logits } = await told;
      assert(error === undefined, error);
      assert(info.isa === "relaxed-simd" && info.threads === 1, JSON.stringify(info));
      assert(info.notes.join().includes("no worker starts here (a runtime that has none)"), info.notes.join());
      await api.init({ isa: "relaxed-simd" });
      sameBits({ data: y }, await api.diffAttention(...small, options));
      sameBits({ data: sync }, { data: y });
      sameBits({ data: logits }, await (await models.DiffLlama.load(model, { tokenizer: null })).forward([1, 2, 3]));
    } finally {
      await registration.unregister();
    }
  });
  await test("dispose, and a new start", async () => {
    api.dispose();
    await api.diffAttention(...small, options);
    api.dispose();
  });
  return results;
};

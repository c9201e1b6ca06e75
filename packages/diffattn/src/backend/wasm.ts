// The backend over WASM: chooses and compiles the builds, and runs async calls in a worker. Sync
// forms and objects (wasm-local.ts, wasm-object.ts) and what is asked of it as a whole
// (wasm-steering.ts) have sides of their own, which who needs them not does not load.

import type { Backend, Call, Control, Outs, Request, Steering } from "../backend.js";
import { oneOf, show } from "../check.js";
import { DiffAttnError, fail, internal, reasonOf } from "../errors.js";
import { NOT_CARRIED } from "../module.js";
import * as Op from "../ops.generated.js";
import type { OwnFiles } from "../own-files.js";
import type { Platform, Source } from "../platform.js";
import type { Build, Part } from "../port.js";
import { supports } from "../probe.js";
import { type LocalSide, messageOf, type WasmObject } from "./call-message.js";
import { WorkerClient } from "./worker-client.js";

export class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly platform: Platform;
  /** The package's own files, in the folder that the caller names where there is one. */
  readonly files: OwnFiles;
  readonly source: Source | undefined;
  readonly isa: string | undefined;
  /** Builds to try for the worker, best first. */
  readonly builds: readonly [Build, ...Build[]];
  readonly localBuild: Build;
  readonly modules = new Map<Build, WebAssembly.Module>();
  /** What else init has to say. */
  readonly notes: string[];
  /** Why builds did not start. */
  refusals: string[] = [];
  threads: number;
  /** The side of the sync forms, once there is one. */
  local: LocalSide | undefined;
  /** The side that is asked of it as a whole, once there is one. */
  steering: Steering | undefined;
  /** The side of the async forms, once there is one. */
  client: WorkerClient | undefined;
  /** Backends of other modules, which go by the same options and end with this one. */
  readonly companions = new Map<Part | "trainer", WasmBackend>();
  /** Of a companion: the backend that users know, whose memory tensors lie in. */
  owner: WasmBackend | undefined;
  started: Promise<void> = Promise.resolve();
  /** What the worker runs, once it runs. */
  running: { build: Build; pool: number } | undefined;

  constructor(platform: Platform, source: Source | undefined, isa: string | undefined, threads: number | undefined, notes: string[]) {
    this.platform = platform;
    this.source = source;
    this.files = source?.files?.(platform.part) ?? platform.files;
    this.isa = isa;
    this.notes = notes;
    this.threads = threads ?? platform.threads;
    const { builds } = this.files;
    const canPool = platform.noPool === undefined;
    const possible = [...builds].reverse().filter((build) => supports(build) && (build !== "relaxed-simd+threads" || canPool));
    const wanted = possible.filter((build) => (isa === undefined ? build !== "relaxed-simd+threads" || this.threads > 1 : build === isa));
    const [best, ...others] = wanted;
    if (best === undefined) {
      const expected = possible.length > 0 ? `one of ${oneOf(possible)} on WASM here` : "an engine with WASM SIMD";
      fail("UNAVAILABLE", "isa", expected, isa === undefined ? "one without" : show(isa));
    }
    // The caller's module is of one build, so there is nothing to fall back to.
    this.builds = source?.load ? [best] : [best, ...others];
    this.localBuild = best === "relaxed-simd+threads" ? "relaxed-simd" : best;
  }

  // The two sides.

  /** The folder of the caller's, where modules come from one: a companion takes its own from it. */
  get folder(): Source | undefined {
    const files = this.source?.files;
    return files && { files };
  }

  /** How the caller's own module is had, where a build is that one. */
  givenTo(build: Build): Source["load"] {
    return build === this.builds[0] ? this.source?.load : undefined;
  }

  async module(build: Build): Promise<WebAssembly.Module> {
    const known = this.modules.get(build);
    if (known) return known;
    const module = await (this.givenTo(build)?.(this.platform) ?? this.platform.loadModule(this.files.module(build), NOT_CARRIED));
    this.modules.set(build, module);
    return module;
  }

  clientSide(): WorkerClient {
    if (this.client && !this.client.ended) return this.client;
    const client = (this.client = new WorkerClient(this.platform, this.files));
    this.running = undefined;
    this.refusals = [];
    this.started = this.#startClient(client);
    this.started.catch((error: unknown) => client.end(error instanceof DiffAttnError ? error : internal(reasonOf(error), error)));
    return client;
  }

  async #startClient(client: WorkerClient): Promise<void> {
    for (const [index, build] of this.builds.entries()) {
      try {
        await client.start(build, await this.module(build), this.threads);
        this.running = { build, pool: build === "relaxed-simd+threads" ? this.threads : 1 };
        return;
      } catch (error) {
        if (client.ended || index === this.builds.length - 1) throw error;
        // Without a worker there are no threads, which a note of its own says.
        if (client.noWorker === undefined || build !== "relaxed-simd+threads")
          this.refusals.push(`the build ${build} did not start: ${reasonOf(error)}`);
      }
    }
  }

  // Calls.

  callAsync(request: Request, outs: Outs, { transfer, onProgress }: Control): Call {
    const client = this.clientSide();
    // A layer's call, alone of the jobs here, changes a cache.
    const handle = request.op === Op.forward ? request.objects.find(({ handle }) => handle.name === "cache")?.handle : undefined;
    const cache = handle as WasmObject | undefined;
    const message = messageOf(client, request, { kind: "job", key: cache?.keyIn(client), transfer, outs });
    const local = (this.owner ?? this).local?.instance;
    const targets = outs.map((out) => out && { out, length: out.byteLength, address: local?.addressOf(out) });
    const call = client.call(message, onProgress, cache ? cache.changing(undefined) : () => {});
    const outputs = call.outputs.then((outputs) =>
      outputs.map((output, index) => {
        const target = targets[index];
        if (!target || !output.buffer) return output;
        const { out, length, address } = target;
        // Memory of the local instance may have grown since, which detaches the view that the
        // caller gave.
        const place = address === undefined ? out : local?.view(address, length);
        if (!place || place.byteLength < length) fail("SHAPE", "out", "a buffer with its memory", "a detached one");
        place.set(new Uint8Array(output.buffer));
        return { ...output, buffer: null };
      }),
    );
    return { ...call, outputs };
  }
}

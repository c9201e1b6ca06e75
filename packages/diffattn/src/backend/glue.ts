// Starts a build without threads: what wasm-bindgen's own script does for it, which holds one
// instance for ever. The module asks for one function and gives numbers and texts; the build fails
// where it asks for more (tsup.config.ts).

import type { Door } from "./instance.js";

/** Where a module imports from, by wasm-bindgen's name. */
const IMPORTS = "./diffattn_wasm_bg.js";

type Call = (...given: (number | boolean)[]) => number;
type Exports = Record<keyof Door | "__wbindgen_start" | "__wbindgen_free", Call> & {
  readonly memory: WebAssembly.Memory;
  readonly __wbindgen_externrefs: WebAssembly.Table;
};

export function startDoor(module: WebAssembly.Module): { door: Door; memory: WebAssembly.Memory } {
  const imports = {
    __wbindgen_init_externref_table(): void {
      const table = wasm.__wbindgen_externrefs;
      table.set(0, undefined);
      [undefined, null, true, false].forEach((value, index) => table.set(1024 + index, value));
    },
  };
  const wasm = new WebAssembly.Instance(module, { [IMPORTS]: imports }).exports as unknown as Exports;
  const { memory } = wasm;
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  wasm.__wbindgen_start();
  /** Numbers that are none below zero. */
  const unsigned =
    (call: Call): Call =>
    (a, b, c, d, e) =>
      call(a, b, c, d, e) >>> 0;
  const text = (call: Call) => (): string => {
    const [address, bytes] = call() as unknown as [number, number];
    const said = decoder.decode(new Uint8Array(memory.buffer, address >>> 0, bytes));
    wasm.__wbindgen_free(address, bytes, 1);
    return said;
  };
  const { allocate, prepare, outputs, total, done, panicAddress, errorCode, errorMessage, isa } = wasm;
  const door = {
    // (What it gives as true or false is 1 or 0.)
    ...(wasm as unknown as Door),
    allocate: unsigned(allocate),
    prepare: unsigned(prepare),
    outputs: unsigned(outputs),
    total: unsigned(total),
    done: unsigned(done),
    panicAddress: unsigned(panicAddress),
    errorCode: text(errorCode),
    errorMessage: text(errorMessage),
    isa: text(isa),
  };
  return { door, memory };
}

// Starts a build without threads: what wasm-bindgen's own script does for it, which holds one
// instance for ever. The module asks for one function and gives numbers and texts; the build fails
// where it asks for more (tsup.config.ts).

import type { Door } from "./instance.js";

/** Where a module imports from, by wasm-bindgen's name. */
const IMPORTS = "./diffattn_wasm_bg.js";

type Call = (...given: number[]) => unknown;
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
  const text = (call: Call) => (): string => {
    const [address, bytes] = call() as [number, number];
    const said = decoder.decode(new Uint8Array(memory.buffer, address >>> 0, bytes));
    wasm.__wbindgen_free(address, bytes, 1);
    return said;
  };
  const { errorCode, errorMessage, isa } = wasm;
  // (What it gives as true or false is 1 or 0, and a number without a sign may have one.)
  const door = { ...(wasm as unknown as Door), errorCode: text(errorCode), errorMessage: text(errorMessage), isa: text(isa) };
  return { door, memory };
}

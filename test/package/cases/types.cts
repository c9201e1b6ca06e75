// A CommonJS file under nodenext, where `require` of ESM is known.
import diffattn = require("diffattn");

export const backend: "native" | "wasm" = diffattn.info().backend;

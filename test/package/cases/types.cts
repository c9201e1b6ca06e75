// A CommonJS file: under nodenext, where `require` of ESM is known, under node16, where it is not, and under the oldest resolution.
import diffattn = require("diffattn");
import { DiffLlama } from "diffattn/models";
import viz = require("diffattn/viz");

export const backend: "native" | "wasm" = diffattn.info().backend;
export const load: Promise<DiffLlama> = DiffLlama.load("folder");
export const draw: typeof viz.drawMap = viz.drawMap;
// @ts-expect-error there is no such name
export const wrong = diffattn.nothing;

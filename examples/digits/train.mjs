// Trains a DIFF ViT on pictures of digits from nothing, and measures it on those that it never saw.
// Ends with 1 where fewer than 97 of 100 are right. The package must be built (npm start builds it).
//
//   node examples/digits/train.mjs [--backend native|wasm] [--steps 1200] [--out examples/out/digits]
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { DiffViT } from "../../packages/diffattn/dist/models-node.js";
import { init } from "../../packages/diffattn/dist/node.js";
import { Trainer } from "../../packages/diffattn/dist/training-node.js";
import { config, digitsOf, heldOut, options } from "./data.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { values: given } = parseArgs({
  options: { backend: { type: "string" }, steps: { type: "string" }, out: { type: "string", default: here("../out/digits") } },
});

/** The share that is to be right. */
const WANTED = 0.97;

const info = await init(given.backend ? { backend: given.backend } : {});
const data = digitsOf(readFileSync(here("digits.bin")));
const steps = given.steps ? Number(given.steps) : options.steps;
mkdirSync(given.out, { recursive: true });
const start = performance.now();
const trainer = await Trainer.create({ ...options, data, steps, evalEvery: 100, out: given.out });
console.log(`${info.backend}, ${info.isa}, ${info.threads} threads: ${trainer.moving} values learn from ${trainer.windows} pictures`);
for await (const { step, loss, evalLoss, evalAccuracy } of trainer)
  if (evalAccuracy !== undefined)
    console.log(
      `step ${step}/${steps}  loss ${loss.toFixed(3)}  held out ${evalLoss.toFixed(3)}, right ${(100 * evalAccuracy).toFixed(1)} %`,
    );
const measured = await trainer.measure();
const seconds = ((performance.now() - start) / 1000).toFixed(1);
const saved = join(given.out, await trainer.save());
trainer.dispose();

// The checkpoint is a model as any other.
const model = await DiffViT.load(saved);
const pixels = 64;
let right = 0;
for (const index of heldOut) {
  const image = { data: data.images.data.slice(index * pixels, (index + 1) * pixels), shape: [1, 1, 8, 8] };
  const [best] = await model.classify(image, { top: 1 });
  if (best.index === data.labels[index]) right += 1;
}
model.dispose();
const { num_classes: classes } = config;
console.log(
  `${right} of ${heldOut.length} right (${(100 * measured.accuracy).toFixed(2)} %) of ${classes} digits in ${seconds} s: ${saved}`,
);
process.exitCode = measured.accuracy >= WANTED && right === Math.round(measured.accuracy * heldOut.length) ? 0 : 1;

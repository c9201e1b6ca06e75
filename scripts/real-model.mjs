// Runs a public model once, as a person with network does after a change of its family: loads it,
// prints ids, the five best next tokens and how fast it writes, and keeps the record as a section
// of docs/models.md. What a model computes is compared elsewhere; this is what it said.
//
//   node scripts/real-model.mjs NAME|FOLDER|FILE|ADDRESS [--dtype q4] [--prompt TEXT] [--ids 1,2,3] [--tokens 64] [--backend native|wasm] [--dry]
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { performance } from "node:perf_hooks";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { root } from "./tools.mjs";

/** Public models by the names that people give them, and where they lie. */
const PUBLIC = {
  "smollm2-135m": "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
  "diffllama-0.3b": "https://huggingface.co/kajuma/DiffLlama-0.3B-handcut",
  "motif-2.6b": "https://huggingface.co/Motif-Technologies/Motif-2.6B",
  "motif-2-12.7b": "https://huggingface.co/Motif-Technologies/Motif-2-12.7B-Instruct",
  "phi-4-mini-flash": "https://huggingface.co/microsoft/Phi-4-mini-flash-reasoning",
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dtype: { type: "string" },
    prompt: { type: "string", default: "The capital of France is" },
    ids: { type: "string" },
    tokens: { type: "string", default: "64" },
    backend: { type: "string" },
    dry: { type: "boolean", default: false },
  },
});
const [name] = positionals;
if (name === undefined) {
  console.error(`which model? One of ${Object.keys(PUBLIC).join(", ")}, or a folder, a file, an address`);
  process.exit(2);
}
const source = PUBLIC[name] ?? name;

const built = (file) => import(pathToFileURL(join(root, "packages/diffattn/dist", file)).href);
const { dispose, init } = await built("node.js");
const { LanguageModel } = await built("models-node.js");
const { backend, isa, threads } = await init({ ...(values.backend && { backend: values.backend }) });
const began = performance.now();
const notices = [];
const model = await LanguageModel.load(source, {
  ...(values.dtype && { dtype: values.dtype }),
  onNotice: (notice) => notices.push(notice.message ?? String(notice)),
});
const loaded = (performance.now() - began) / 1000;

// (Where there is no tokenizer, ids are all there is.)
let ids = values.ids?.split(",").map(Number);
ids ??= model.encode(values.prompt);
const textOf = (list) => {
  try {
    return JSON.stringify(model.decode(list));
  } catch {
    return list.join(" ");
  }
};

const { data, shape } = await model.forward(ids);
const vocabulary = shape.at(-1);
const last = data.subarray(data.length - vocabulary);
const best = Array.from(last.keys())
  .sort((a, b) => last[b] - last[a])
  .slice(0, 5);

const written = [];
let first;
for await (const { id } of model.generate(ids, { maxNewTokens: Number(values.tokens), temperature: 0 })) {
  first ??= performance.now();
  written.push(id);
}
const rate = ((written.length - 1) * 1000) / (performance.now() - first);

const title = PUBLIC[name] ? name : basename(name);
const section = `## ${title}

Family ${model.family}, ${(model.parameters / 1e6).toFixed(1)} million parameters, weights ${model.dtype}${values.dtype ? ` (made at load)` : ""}; ${backend}, ${isa}, ${threads} ${threads === 1 ? "thread" : "threads"}. Loaded in ${loaded.toFixed(1)} s; ${rate.toFixed(1)} tokens per second.
${notices.length > 0 ? `\nNotices: ${notices.join("; ")}\n` : ""}
| | |
| --- | --- |
| prompt | ${values.ids ? "ids" : `\`${values.prompt}\``} |
| ids | ${ids.join(" ")} |
| five best | ${best.map((id) => `${id} ${textOf([id])} ${last[id].toFixed(4)}`).join("; ")} |
| written | ${textOf(written).replaceAll("|", "\\|")} |
`;
console.log(section);
model.dispose();
dispose();

if (!values.dry) {
  const path = join(root, "docs/models.md");
  const opening = `# Models that were run

Written by \`node scripts/real-model.mjs NAME\`, a section per model, the newest run of each. Ids, logits and text are what came out on that day; they are no
comparison with another implementation.
`;
  const text = existsSync(path) ? readFileSync(path, "utf8") : opening;
  const sections = text.split(/^(?=## )/m).filter((part) => !part.startsWith(`## ${title}\n`));
  writeFileSync(path, `${sections.map((part) => part.trimEnd()).join("\n\n")}\n\n${section}`);
  console.log(`kept in ${path}`);
}

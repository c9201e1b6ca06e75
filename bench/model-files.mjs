// The models that the benchmark runs: the trained one of examples/, SmolLM2 as it is, differential
// and to be trained, and larger ones and an audio codec with random weights, which are written into
// .cache once. Their values are exact products of integers, so every machine writes the same files.
// Runs no model.
//
//   node bench/model-files.mjs NAME      makes one of them
import { existsSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { smollm2File, smollm2Path } from "../scripts/smollm2-file.mjs";
import { cache, ensureFolder, isMain, root, run } from "../scripts/tools.mjs";
import { CODEC, codecTensors } from "./codec.mjs";
import { writeMotif } from "./motif-file.mjs";
import { fill } from "./subjects/measuring.mjs";

/** A DIFF Llama of 0.22 billion parameters: as many layers and as wide as small models are. */
const RANDOM = {
  architectures: ["DiffLlamaForCausalLM"],
  model_type: "diffllama",
  vocab_size: 32000,
  hidden_size: 1024,
  intermediate_size: 2816,
  num_hidden_layers: 16,
  num_attention_heads: 16,
  num_key_value_heads: 8,
  head_dim: 64,
  hidden_act: "silu",
  attention_bias: false,
  lambda_std_dev: 0.1,
  rms_norm_eps: 1e-5,
  rope_parameters: { rope_theta: 10000, rope_type: "default" },
  max_position_embeddings: 2048,
  tie_word_embeddings: true,
  bos_token_id: 1,
  eos_token_id: 2,
};

/**
 * √3 times the standard deviations that models are initialised with, 0.02 and 0.1: the widths of
 * uniform values.
 */
const SPREAD = Math.fround(0.02 * Math.sqrt(3));
const LAMBDA_SPREAD = Math.fround(0.1 * Math.sqrt(3));

/** Names, shapes and spreads of a configuration's tensors; norms are ones. */
function tensorsOf(config) {
  const {
    hidden_size: hidden,
    intermediate_size: inner,
    num_attention_heads: heads,
    num_key_value_heads: groups,
    head_dim: width,
  } = config;
  const layer = (i) => {
    const at = (name) => `model.layers.${i}.${name}`;
    return [
      ...["input_layernorm", "post_attention_layernorm"].map((name) => [at(`${name}.weight`), [hidden]]),
      [at("self_attn.q_proj.weight"), [heads * width, hidden], SPREAD],
      [at("self_attn.k_proj.weight"), [groups * width, hidden], SPREAD],
      [at("self_attn.v_proj.weight"), [groups * width, hidden], SPREAD],
      [at("self_attn.o_proj.weight"), [hidden, heads * width], SPREAD],
      ...["q1", "k1", "q2", "k2"].map((name) => [at(`self_attn.lambda_${name}`), [width], LAMBDA_SPREAD]),
      [at("mlp.gate_proj.weight"), [inner, hidden], SPREAD],
      [at("mlp.up_proj.weight"), [inner, hidden], SPREAD],
      [at("mlp.down_proj.weight"), [hidden, inner], SPREAD],
    ];
  };
  return [
    ["model.embed_tokens.weight", [config.vocab_size, hidden], SPREAD],
    ...Array.from({ length: config.num_hidden_layers }, (_, i) => layer(i)).flat(),
    ["model.norm.weight", [hidden]],
  ];
}

const count = (shape) => shape.reduce((a, b) => a * b, 1);

/** Tensor number `t` of the model, float32. */
export function valuesOf(t, [, shape, spread]) {
  const data = new Float32Array(count(shape));
  if (spread === undefined) return data.fill(1);
  fill(data, t);
  for (let i = 0; i < data.length; i++) data[i] *= spread;
  return data;
}

/** To the nearest bfloat16, ties to even. */
export function toBfloat16(values) {
  const bits = new Uint32Array(values.buffer);
  return Uint16Array.from(bits, (x) => (x + 0x7fff + ((x >>> 16) & 1)) >>> 16);
}

const DTYPES = { F32: (values) => values, BF16: toBfloat16 };

/** The tensors of a random model by name, as safetensors files have them. */
export function randomTensors(dtype, list = tensorsOf(RANDOM)) {
  return Object.fromEntries(
    list.map((tensor, t) => {
      const { buffer } = DTYPES[dtype](valuesOf(t, tensor));
      return [tensor[0], { dtype, shape: tensor[1], data: new Uint8Array(buffer) }];
    }),
  );
}

/**
 * What the package converts SmolLM2 to: in float32, which holds the file's values exactly, so that
 * its adapter is merged before anything is quantised.
 */
const DIFFERENTIAL = { to: "v2", heads: "all", start: "mirror", dtype: "F32" };

/** A model of random weights in float files. */
const randomModel = (name, dtype, config, tensors) => ({
  place: join(cache, "bench-models", name),
  file: "model.safetensors",
  async make(folder, { saveSafetensors }) {
    writeFileSync(join(folder, "config.json"), `${JSON.stringify(config, null, 2)}\n`);
    const part = join(folder, "model.safetensors.part");
    await saveSafetensors(randomTensors(dtype, tensors), { target: part, metadata: { format: "pt" } });
    renameSync(part, join(folder, "model.safetensors"));
  },
});

/** The adapter that a trainer begins with by default: what PEFT's is to begin with, too. */
const ADAPTER = { rank: 16 };

/**
 * SmolLM2 in float32 with the values that q8 has: quantising them again gives the same codes, so
 * that a base in q8 and one in float32 compute the same. In its folder `adapter` lies the adapter
 * that training begins with.
 */
async function makeQuantised(folder, { convertCheckpoint, Trainer }) {
  let files = await smollm2File();
  for (const dtype of ["F32", "q8", "F32"]) {
    const made = await convertCheckpoint(files, { dtype });
    files = { ...(typeof files === "object" && files), ...made.files, "model.safetensors": made.file };
  }
  writeFileSync(join(folder, "model.safetensors"), files["model.safetensors"]);
  const trainer = await Trainer.create({
    model: files,
    load: { tokenizer: null, dtype: "q8" },
    data: { ids: new Int32Array(2) },
    dataset: { context: 2, eval: 0 },
    steps: 1,
    adapter: ADAPTER,
  });
  const place = ensureFolder(join(folder, "adapter"));
  const write = (name, bytes) => void (/adapter_/.test(name) && writeFileSync(join(place, basename(name)), bytes));
  await trainer.save({ write });
  trainer.dispose();
  writeFileSync(join(folder, "config.json"), files["config.json"]);
}

/**
 * The models that are made, by name: `place`, the folder where each lies, of which `file` is there
 * last, and `make(folder, package)`, which puts it there by the functions of `diffattn/models`.
 */
const MADE = {
  "random-f32": randomModel("random-f32", "F32", { ...RANDOM, dtype: "float32" }),
  "random-bf16": randomModel("random-bf16", "BF16", { ...RANDOM, dtype: "bfloat16" }),
  "random-codec": randomModel("random-codec", "F32", CODEC, codecTensors()),
  "smollm2-diff": {
    place: join(cache, "bench-models", "smollm2-diff"),
    file: "config.json",
    async make(folder, { convertModel }) {
      const part = `${folder}.part`;
      rmSync(part, { recursive: true, force: true });
      await convertModel(await smollm2File(), { ...DIFFERENTIAL, target: part });
      rmSync(folder, { recursive: true, force: true });
      renameSync(part, folder);
    },
  },
  "smollm2-q8": {
    place: join(cache, "bench-models", "smollm2-q8"),
    file: "config.json",
    make: makeQuantised,
  },
  motif: { place: join(cache, "bench-models", "motif-q4"), file: "config.json", make: (folder) => writeMotif(folder) },
};

/** Where a case's model lies: a folder, or a GGUF file. */
export function placeOf({ model }) {
  if (model === "smollm2") return smollm2Path;
  return MADE[model]?.place ?? join(root, model);
}

/**
 * Brings a case's model to its place unless it is there, with the functions of `diffattn/models`.
 * Throws where it cannot be had.
 */
export async function ensureModel({ model }, library) {
  if (model === "smollm2") return void (await smollm2File());
  const made = MADE[model];
  if (!made || existsSync(join(made.place, made.file))) return;
  await made.make(ensureFolder(made.place), library);
}

/** The same in a process of its own, whose memory is no part of what is measured here. */
export function makeModel({ model }) {
  if (model in MADE) run(process.execPath, [fileURLToPath(import.meta.url), model], { quiet: true });
}

if (isMain(import.meta)) {
  const built = (name) => import(new URL(`../packages/diffattn/dist/${name}.js`, import.meta.url));
  await ensureModel({ model: process.argv[2] }, { ...(await built("models-node")), ...(await built("training-node")) });
}

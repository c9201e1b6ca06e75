// A Motif of 2.6 billion parameters, quantised as MLX packs it: linears of 4 bits, embeddings of 8,
// in groups of 64. Its codes are random and no float file is made: what is measured is how it is
// read. Written in shards, straight to the disk; every machine writes the same bytes. Runs nothing.
import { closeSync, openSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { hash } from "./subjects/measuring.mjs";

const GROUP = 64;

/** The shapes of Motif-2.6B. */
const CONFIG = {
  architectures: ["MotifForCausalLM"],
  model_type: "motif",
  vocab_size: 219520,
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 32,
  num_attention_heads: 16,
  num_key_value_heads: 16,
  head_dim: 128,
  hidden_act: "poly_norm",
  rms_norm_eps: 1e-6,
  attn_rms_norm_eps: 1e-5,
  rope_theta: 500000,
  max_position_embeddings: 16384,
  tie_word_embeddings: true,
  use_bias: false,
  use_sliding_window: false,
  torch_dtype: "bfloat16",
  quantization: { group_size: GROUP, bits: 4, mode: "affine", "model.embed_tokens": { group_size: GROUP, bits: 8 } },
};

/** Bytes of a shard from which on the next one begins. */
const SHARD = 400e6;

/** A bfloat16 of a number that is one. */
const bfloat16 = (value) => new Uint32Array(Float32Array.of(value).buffer)[0] >>> 16;

/**
 * Random words that the codes of all tensors are made of: stretches from a place of each tensor's
 * own, each with some of its bits turned, so that no two rows are alike.
 */
const POOL = 2 ** 22;

/**
 * Scales that, with biases of so many codes, are exact in bfloat16; with even random codes they
 * make weights whose standard deviation is about 0.02, with which models are initialised.
 */
const SCALES = [16, 17, 18];
const PACKINGS = { 4: { unit: 2 ** -12, bias: -7.5 }, 8: { unit: 2 ** -16, bias: -128 } };

/** A quantised weight as three tensors. */
const coded = (module, [outputs, inputs], bits) => [
  { name: `${module}.weight`, dtype: "U32", shape: [outputs, (inputs * bits) / 32] },
  { name: `${module}.scales`, dtype: "BF16", shape: [outputs, inputs / GROUP], of: { bits, factor: 1 } },
  { name: `${module}.biases`, dtype: "BF16", shape: [outputs, inputs / GROUP], of: { bits, factor: PACKINGS[bits].bias } },
];

/** A small tensor whose elements are all alike. */
const plain = (name, length, value) => ({ name, dtype: "BF16", shape: [length], value });

/** All tensors of the model, in the order of the files. */
export function motifTensors({ hidden_size: hidden, intermediate_size: inner, num_attention_heads: heads, head_dim: width } = CONFIG) {
  const layer = (i) => {
    const at = (name) => `model.layers.${i}.${name}`;
    return [
      plain(at("input_layernorm.weight"), hidden, 1),
      ...["q", "k", "v", "o"].flatMap((name) => coded(at(`self_attn.${name}_proj`), [heads * width, hidden], 4)),
      // λ is then λ_init and a tenth.
      ...["q1", "k1"].map((name) => plain(at(`self_attn.lambda_${name}`), width, 2 ** -5)),
      ...["q2", "k2"].map((name) => plain(at(`self_attn.lambda_${name}`), width, 2 ** -6)),
      plain(at("self_attn.subln.weight"), 2 * width, 1),
      plain(at("post_attention_layernorm.weight"), hidden, 1),
      ...["gate", "up"].flatMap((name) => coded(at(`mlp.${name}_proj`), [inner, hidden], 4)),
      ...coded(at("mlp.down_proj"), [hidden, inner], 4),
      plain(at("mlp.act_fn.weight"), 3, 0.333984375),
      plain(at("mlp.act_fn.bias"), 1, 0),
    ];
  };
  return [
    ...coded("model.embed_tokens", [CONFIG.vocab_size, hidden], 8),
    ...Array.from({ length: CONFIG.num_hidden_layers }, (_, i) => layer(i)).flat(),
    plain("model.norm.weight", hidden, 1),
  ];
}

const count = (shape) => shape.reduce((a, b) => a * b, 1);
export const bytesOf = ({ dtype, shape }) => count(shape) * { U32: 4, BF16: 2 }[dtype];

/** The bytes of tensor number `t`, piece by piece. */
function* piecesOf(tensor, t, pool) {
  const length = count(tensor.shape);
  if (tensor.dtype === "U32") {
    for (let from = 0, at = hash(t) % POOL; from < length; at = 0) {
      const turned = hash(from + t);
      const piece = pool.subarray(at, Math.min(POOL, at + length - from)).map((word) => word ^ turned);
      from += piece.length;
      yield piece;
    }
    return;
  }
  const { value, of } = tensor;
  if (!of) return void (yield new Uint16Array(length).fill(bfloat16(value)));
  const { unit } = PACKINGS[of.bits];
  const kinds = SCALES.map((scale) => bfloat16(scale * unit * of.factor));
  // By a group's place alone: its bias goes with its scale.
  yield Uint16Array.from({ length }, (_, i) => kinds[hash(i) % kinds.length]);
}

/** Tensors by shard: each shard a list of `{ tensor, t }`. */
function shardsOf(tensors) {
  const shards = [];
  let bytes = Infinity;
  for (const [t, tensor] of tensors.entries()) {
    if (bytes >= SHARD) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1).push({ tensor, t });
    bytes += bytesOf(tensor);
  }
  return shards;
}

function writeShard(path, shard, pool) {
  let end = 0;
  const header = { __metadata__: { format: "mlx" } };
  for (const { tensor } of shard)
    header[tensor.name] = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [end, (end += bytesOf(tensor))] };
  const text = JSON.stringify(header);
  const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const file = openSync(path, "w");
  try {
    const write = (bytes) => {
      for (let at = 0; at < bytes.byteLength;) at += writeSync(file, bytes, at);
    };
    write(length);
    write(padded);
    for (const { tensor, t } of shard)
      for (const { buffer, byteOffset, byteLength } of piecesOf(tensor, t, pool)) write(new Uint8Array(buffer, byteOffset, byteLength));
  } finally {
    closeSync(file);
  }
}

/** Writes the model into a folder that is there: 1.7 GB. Its config.json comes last. */
export function writeMotif(folder) {
  const pool = Uint32Array.from({ length: POOL }, (_, i) => hash(i));
  const tensors = motifTensors();
  const shards = shardsOf(tensors);
  const name = (i) => `model-${String(i + 1).padStart(5, "0")}-of-${String(shards.length).padStart(5, "0")}.safetensors`;
  for (const [i, shard] of shards.entries()) writeShard(join(folder, name(i)), shard, pool);
  const weights = shards.flatMap((shard, i) => shard.map(({ tensor }) => [tensor.name, name(i)]));
  const total = tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0);
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(weights) };
  writeFileSync(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
  const config = join(folder, "config.json");
  writeFileSync(`${config}.part`, `${JSON.stringify(CONFIG, null, 2)}\n`);
  renameSync(`${config}.part`, config);
}

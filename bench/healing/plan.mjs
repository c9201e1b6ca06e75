// What is trained, on what, for how long: the healings of docs/healing.md and the small models that
// stand beside them. Trains nothing.

/** The text: the sources of Python's documentation as Debian ships them, under the PSF licence. */
export const text = { package: "python3.11-doc", sources: "usr/share/doc/python3.11/html/_sources", ending: ".rst.txt" };

/** Options of `diffattn train` that all healings share: one seed, one order of the data. */
const healing = {
  rank: 16,
  context: 512,
  batch: 2,
  steps: 147,
  lr: 5e-4,
  warmup: 10,
  seed: 0,
  "end-id": 0,
  eval: 0.01,
  "eval-every": 49,
  "eval-batches": 16,
  "save-every": 21,
  sample: "The capital of France is",
};

/** `convert` is what makes the model of the Llama; null leaves it as it is. */
export const healings = {
  llama: { title: "Llama", convert: null, options: healing },
  half: { title: "differential, half of the heads", convert: { to: "v2", share: 0.5 }, options: healing },
  all: { title: "differential, all heads", convert: { to: "v2", share: 1 }, options: healing },
};

const small = {
  vocab_size: 4096,
  hidden_size: 128,
  intermediate_size: 352,
  num_hidden_layers: 8,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  head_dim: 32,
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  initializer_range: 0.02,
  max_position_embeddings: 512,
  rope_theta: 10000,
  tie_word_embeddings: true,
  bos_token_id: 0,
  eos_token_id: 0,
};

const nothing = {
  context: 256,
  batch: 8,
  steps: 600,
  lr: 2e-3,
  warmup: 50,
  seed: 0,
  "end-id": 0,
  eval: 0.01,
  "eval-every": 100,
  "save-every": 200,
};

const four = [0, 1, 2, 3];
/**
 * From nothing, with the tokenizer of examples/model. V2's second queries and its λ cost 16,896
 * weights a layer, which its MLP has less, so all three have as many but V1's λ and norms.
 */
export const beginnings = {
  "small-llama": { title: "Llama", config: { ...small, model_type: "llama" }, options: nothing },
  "small-v1": { title: "DIFF V1", config: { ...small, model_type: "diffllama", lambda_std_dev: 0.1 }, options: nothing },
  "small-v2": {
    title: "DIFF V2",
    config: {
      ...small,
      model_type: "diffattn_llama",
      intermediate_size: 308,
      diff_attention: { version: 1, kind: "v2", heads: Array(small.num_hidden_layers).fill(four), order: "pairs", lambda: "sigmoid" },
    },
    options: nothing,
  },
};

/** How each is measured; the file of a loss is that of examples/smollm2. */
export const measured = { loss: { context: 1024, limit: 16384 }, needle: { lengths: [512, 1024], draws: 10, seed: 0 } };

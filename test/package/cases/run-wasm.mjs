// What each case that changes how WASM is loaded must still give: operators and gradients, async and
// sync, and a model's text.
import assert from "node:assert/strict";

/** Runs an operator, async and sync. */
export async function runOperators({ diffAttention, diffAttentionSync, diffAttentionBackward, diffAttentionBackwardSync }) {
  const q = { data: Float32Array.of(1, 0, 0, 1, 0, 1, 1, 0), shape: [1, 2, 2, 2] };
  const v = { data: Float32Array.of(1, 2, 3, 4), shape: [1, 1, 2, 2] };
  const options = { lambda: 0.25, isCausal: true };
  const y = await diffAttention(q, q, v, options);
  // The first query sees the first key alone: (1 − λ) v[0].
  assert.deepEqual([...y.data.subarray(0, 2)], [0.75, 1.5]);
  assert.deepEqual(y.data, diffAttentionSync(q, q, v, options).data);
  const gradients = await diffAttentionBackward(v, q, q, v, options);
  // The first query gives nothing to the second value, and the weights of a row add up to 1 − λ.
  const { data } = gradients.dv;
  assert.ok(Math.abs(data[0] + data[2] - 0.75 * (1 + 3)) < 1e-6, data.join());
  assert.deepEqual(gradients, diffAttentionBackwardSync(v, q, q, v, options));
}

/** The same, and the model of a folder, by ids; gives what `info()` says then. */
export async function runWasm(operators, { DiffLlama }, folder) {
  await runOperators(operators);
  const model = await DiffLlama.load(folder);
  const ids = [];
  // "A thread is"
  for await (const { id } of model.generate([33, 784, 305], { maxNewTokens: 4 })) ids.push(id);
  assert.deepEqual(ids, [399, 199, 10, 47]);
  assert.equal(operators.info().backend, "wasm");
  return operators.info();
}

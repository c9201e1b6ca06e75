// Says whether what lib/check.mjs gave, or the text that an example wrote, is right, and makes a
// row's cells of it. Runs nothing.
import assert from "node:assert/strict";
import { availableParallelism } from "node:os";

/** What is expected where the binary of this machine loads. */
export const native = { backend: "native", threads: true };
/** What a note says where it does not. */
export const fallback = /native.*WASM/;

const Y = [0.5, 1, 1.1698, 1.6698];
const TEXT = " bytes.\n\n# Examples";
const IDS = [1138, 14, 199, 199, 3, 645];

/** The README's example, to the digits that it prints. */
function sameValues(values, what) {
  assert.equal(values?.length, Y.length, `${what}: ${JSON.stringify(values)}`);
  for (const [at, value] of values.entries())
    assert.ok(Math.abs(value - Y[at]) < 1e-4, `${what}: expected ${Y.join(" ")}, got ${values.join(" ")}`);
}

/**
 * A place's `report` (of check.mjs) against what it expects: `backend`, optionally `isa` and `says`
 * (what a note has to match, or undefined where there are to be no notes); `threads`: true for all
 * of the machine, or one sentence that says why there is only the one.
 */
export function judge(report, { backend, isa, threads, says }) {
  if (typeof threads !== "string" && threads !== true) throw new Error("a place says its threads: true, or why there are none");
  assert.ok(report, "the program reported nothing");
  if (report.error !== undefined) throw new Error(report.error);
  const { y, sync, ids, text, info } = report;
  sameValues(y, "diffAttention");
  sameValues(sync, "diffAttentionSync");
  assert.deepEqual(ids, IDS, `the model's ids: ${ids}`);
  // Without the tokenizers' package there are ids alone.
  if (text !== undefined) assert.equal(text, TEXT);
  const said = JSON.stringify(info);
  assert.equal(info.backend, backend, said);
  if (isa) assert.equal(info.isa, isa, said);
  assert.equal(info.threads, threads === true ? availableParallelism() : 1, `threads: ${said}`);
  if (says)
    assert.ok(
      info.notes.some((note) => says.test(note)),
      `a note that matches ${says}: ${said}`,
    );
  else assert.deepEqual(info.notes, [], "notes");
  return {
    operators: `${info.backend}, ${info.isa}`,
    model: text === undefined ? "by ids" : "text",
    threads: threads === true ? String(info.threads) : `1: ${threads}`,
  };
}

/**
 * The same of an application that does not run check.mjs, and writes the text alone: for the same
 * prompt, as many tokens.
 */
export function judgeText(text) {
  assert.equal(text, TEXT);
  return { operators: "", model: "text", threads: "" };
}

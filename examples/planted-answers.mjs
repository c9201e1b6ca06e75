// How much of a question's attention falls beside its answer, in the first map and in the difference? A sentence is planted among others
// of documentation, its beginning stands again at the end, as a question; what counts as relevant is the planted sentence, the same for
// both (arXiv 2410.05258 compares models so, in its table of attention to answer and noise). Measures the trained model of examples/model
// over all layers and heads, whatever comes out. Trains and draws nothing.
//
//   node examples/planted-answers.mjs      (needs built outputs: npm run build)
import { fileURLToPath } from "node:url";

/** What is planted: how the question begins, and what answers it. */
const FACTS = [
  ["The size of the buffer is", " 4096 bytes."],
  ["The capacity of the queue is", " 64 elements."],
  ["The name of the thread is", " `worker`."],
  ["The alignment of the header is", " 16 bytes."],
  ["The default timeout of the socket is", " 30 seconds."],
  ["The type of the key is", " `String`."],
  ["The length of the table is", " 128 entries."],
  ["The depth of the stack is", " 32 frames."],
  ["The number of workers is", " eight."],
  ["The error of the parser is", " `UnexpectedEof`."],
  ["The default value of the field is", " `None`."],
  ["The edition of the crate is", " 2021."],
];
/** What it is planted among. */
const OTHERS = [
  "The vector will be able to hold at least this many elements without reallocating.",
  "This function may be called from any thread.",
  "An iterator visits each item once, in order.",
  "If the path does not exist, an error is returned.",
  "The lock is released when the guard is dropped.",
  "A string slice is always valid UTF-8.",
  "Calling this method on a closed channel has no effect.",
  "The closure is called for each entry of the map.",
  "This is useful for types which do not implement the trait.",
  "The compiler checks that all borrows are valid.",
  "Memory is freed when the last reference goes away.",
  "See the module documentation for more information.",
  "The iterator stops as soon as an error occurs.",
  "Most users should use the safe version of this method.",
];
const AMONG = 6;

/** Each fact twice, at every depth in turn, among others in turn: nothing is chosen by what comes out. */
export const prompts = Array.from({ length: 2 * FACTS.length }, (_, i) => {
  const [question, rest] = FACTS[i % FACTS.length];
  const answer = question + rest;
  const sentences = Array.from({ length: AMONG }, (_, j) => OTHERS[(5 * i + j) % OTHERS.length]);
  sentences.splice(i % (AMONG + 1), 0, answer);
  return { text: `# Notes\n\n${sentences.join(" ")}\n\n${question}`, answer, question };
});

/** The tokens of a prompt: its ids, the range of the question's, and those of the answer. */
export function tokensOf(model, { text, answer, question }) {
  const ids = model.encode(text);
  let end = 0;
  const ends = ids.map((id) => (end += model.decode([id]).length));
  /** Tokens that a part of the text lies in. */
  const within = (from, length) => ends.flatMap((end, i) => (end > from && (ends[i - 1] ?? 0) < from + length ? [i] : []));
  const asking = within(text.length - question.length, question.length);
  return { ids, rows: [asking[0], ids.length], relevant: within(text.indexOf(answer), answer.length) };
}

/** The noise of every head of every layer over a prompt's question. */
export async function noisesOf(model, prompt, attentionNoise) {
  const { ids, rows, relevant } = tokensOf(model, prompt);
  const noises = [];
  for (let layer = 0; layer < model.config.num_hidden_layers; layer += 1) {
    const maps = await model.maps(ids, layer);
    for (let head = 0; head < maps.diff.shape[1]; head += 1) noises.push(attentionNoise(maps, { head, rows, relevant }));
  }
  return noises;
}

const percent = ({ mean, sd }) => `${(100 * mean).toFixed(1)} % (± ${(100 * sd).toFixed(1)})`;

async function main() {
  const { DiffLlama } = await import("../packages/diffattn/dist/models-node.js");
  const { attentionNoise, summarizeNoise } = await import("../packages/diffattn/dist/viz.js");
  const model = await DiffLlama.load(fileURLToPath(new URL("model", import.meta.url)));
  const all = [];
  let answered = 0;
  let even = 0;
  for (const prompt of prompts) {
    const noises = await noisesOf(model, prompt, attentionNoise);
    const { terms, diff, change } = summarizeNoise(noises);
    const { ids, relevant } = tokensOf(model, prompt);
    even += 1 - relevant.length / ids.length;
    const wanted = prompt.answer.slice(prompt.question.length);
    let text = "";
    for await (const piece of model.generate(ids, { maxNewTokens: model.encode(wanted).length, temperature: 0 })) text += piece.text;
    answered += text.startsWith(wanted.slice(0, -1)) ? 1 : 0;
    console.log(`map 1 ${percent(terms[0])}, difference ${percent(diff)}, change ${percent(change)}: ${prompt.answer}`);
    all.push(...noises);
  }
  model.dispose();
  const { count, terms, diff, change, lower } = summarizeNoise(all);
  console.log(`
${prompts.length} prompts, every layer and head (${count} in all), attention beside the answer: mean (± standard deviation)
map 1       ${percent(terms[0])}
map 2       ${percent(terms[1])}
difference  ${percent(diff)}; beside map 1 ${percent(change)}, less in ${Math.round((100 * lower) / count)} % of the heads
even attention to all tokens would put ${((100 * even) / prompts.length).toFixed(1)} % there; the model goes on with the answer in ${answered} of ${prompts.length}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();

// Which tokens answer a question and which ask it, by their words; what noise over all heads says,
// in a sentence. Knows no page.

import type { AttentionNoise, NoiseSummary, Spread } from "diffattn/viz";

/** Words of a text: what answers, and what asks ("": all that follows the answer). */
export interface Planted {
  readonly answer: string;
  readonly question: string;
}

/** The tokens of an answer and the half-open range of its question's. */
export interface Spans {
  readonly answer: readonly number[];
  readonly rows: readonly [number, number];
}

/**
 * Where the words stand among the tokens: the answer first, its question after it. A sentence where
 * they do not.
 */
export function spansOf(tokens: readonly string[], { answer, question }: Planted): Spans | string {
  const text = tokens.join("");
  const at = answer === "" ? -1 : text.indexOf(answer);
  if (at < 0) return `“${answer}” is not in the text.`;
  const answerEnd = at + answer.length;
  const from = question === "" ? answerEnd : text.indexOf(question, answerEnd);
  if (from < 0) return `“${question}” does not follow the answer.`;
  const to = question === "" ? text.length : from + question.length;
  let end = 0;
  const ends = tokens.map((token) => (end += token.length));
  const within = (first: number, last: number): number[] => ends.flatMap((e, i) => (e > first && (ends[i - 1] ?? 0) < last ? [i] : []));
  const answers = within(at, answerEnd);
  // A token that ends the answer and begins what follows is the answer's.
  const asks = within(from, to).filter((i) => !answers.includes(i));
  const [first] = asks;
  if (first === undefined) return "Nothing follows the answer.";
  return { answer: answers, rows: [first, first + asks.length] };
}

const points = (value: number): string => (100 * value).toFixed(1).replace("-", "−");
const shown = ({ mean, sd }: Spread): string => `${points(mean)} % (± ${points(sd)})`;

/** What the noise over all heads says, whatever it is. */
export function verdictOf({ count, terms, diff, change }: NoiseSummary): string {
  const [first] = terms;
  if (!first) return "";
  const size = `${points(Math.abs(change.mean))} points (± ${points(change.sd)})`;
  const verdict =
    Math.abs(change.mean) <= change.sd
      ? `no gain to rely on, as the change of ${points(change.mean)} points is less than its spread from head to head (± ${points(change.sd)})`
      : change.mean < 0
        ? `the subtraction takes ${size} away`
        : `the subtraction adds ${size}`;
  return `In the mean over all ${count} heads (± standard deviation) ${shown(first)} of map 1 and ${shown(diff)} of the difference fall on irrelevant tokens: ${verdict}.`;
}

/**
 * The head that is nearest to the means over all, in map 1 and in the difference: a typical one.
 */
export function typicalOf(noises: readonly AttentionNoise[], { terms, diff }: NoiseSummary): number {
  const mean = (values: readonly number[] = []): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
  const distances = noises.map((noise) => Math.hypot(mean(noise.terms[0]) - (terms[0]?.mean ?? 0), mean(noise.diff) - diff.mean));
  return distances.indexOf(Math.min(...distances));
}

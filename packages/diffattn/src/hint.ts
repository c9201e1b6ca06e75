// What a caller may have meant by a name that is not known: another spelling, another library's
// word, a slip. Decides nothing.

/**
 * Names that PyTorch, Hugging Face and others have for the same thing, without case and
 * underscores.
 */
const OTHERS =
  " causal:isCausal mask:attnMask attentionmask:attnMask bias:attnBias " +
  "attentionbias:attnBias softmaxscale:scale logitssoftcap:softcap windowsize:window " +
  "slidingwindow:window epsilon:eps gamma:weight beta:bias ropetheta:theta base:theta " +
  "dmodel:embedDim hiddensize:embedDim layeridx:depth numattentionheads:numHeads " +
  "numkeyvalueheads:numKvHeads numthreads:threads maxtokens:maxNewTokens " +
  "maxlength:maxNewTokens eostokenid:stopIds stopstrings:stop pastkeyvalues:cache " +
  "outputhiddenstates:hiddenStates progresscallback:onProgress ";

/** Longer names are no slips. */
const LONGEST = 40;
/** Letters that a slip changes at most. */
const SLIPS = 2;

const plain = (name: string): string => name.replaceAll(/[_\s-]/g, "").toLowerCase();

/**
 * How many letters differ: put in, left out, taken for another or for their neighbour (Damerau and
 * Levenshtein).
 */
function distance(a: string, b: string): number {
  let [before, last]: number[][] = [[], Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const other = a[i - 1] === b[j - 1] ? 0 : 1;
      let least = Math.min((last?.[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last?.[j - 1] ?? 0) + other);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, (before?.[j - 2] ?? 0) + 1);
      row.push(least);
    }
    [before, last] = [last, row];
  }
  return last?.[b.length] ?? 0;
}

/** ` (did you mean maxNewTokens?)` for max_new_tokens; nothing where no name is near. */
export function hint(name: string, names: readonly string[]): string {
  if (name.length > LONGEST) return "";
  const given = plain(name);
  const same = names.find((known) => plain(known) === given);
  const other = OTHERS.split(` ${given}:`)[1]?.split(" ")[0];
  let meant = same ?? names.find((known) => known === other);
  // A slip leaves most of the letters.
  let least = Math.min(SLIPS, Math.floor((given.length - 1) / 2)) + 1;
  if (meant === undefined) {
    for (const known of names) {
      const letters = distance(given, plain(known));
      if (letters < least) [least, meant] = [letters, known];
    }
  }
  return meant === undefined ? "" : ` (did you mean ${meant}?)`;
}

/** What is expected in the place of a value that only a model can have; undefined of any other. */
export const instead = (value: unknown, names: readonly string[]): string | undefined =>
  // An operator knows no model, and so not the length up to which it is the default.
  value === "dynamic" && names.includes("yarn") ? `"default" up to a model's length and "yarn" or "linear" past it` : undefined;

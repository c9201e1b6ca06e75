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
 * Whether a text becomes another by at most so many slips: a letter put in, left out, taken for
 * another or for its neighbour (Damerau and Levenshtein).
 */
function isNear(a: string, b: string, slips: number): boolean {
  let same = 0;
  while (same < a.length && a[same] === b[same]) same++;
  const [x, y] = [a.slice(same), b.slice(same)];
  if (x === y || slips === 0) return x === y;
  const after = (ofX: number, ofY: number): boolean => isNear(x.slice(ofX), y.slice(ofY), slips - 1);
  const isSwap = x.length > 1 && x[0] === y[1] && x[1] === y[0];
  return after(1, 0) || after(0, 1) || after(1, 1) || (isSwap && after(2, 2));
}

/** ` (did you mean maxNewTokens?)` for max_new_tokens; nothing where no name is near. */
export function hint(name: string, names: readonly string[]): string {
  if (name.length > LONGEST) return "";
  const given = plain(name);
  const other = OTHERS.split(` ${given}:`)[1]?.split(" ")[0];
  let meant = names.find((known) => plain(known) === given) ?? names.find((known) => known === other);
  // A slip leaves most of the letters.
  const most = Math.min(SLIPS, (given.length - 1) >> 1);
  for (let slips = 1; meant === undefined && slips <= most; slips++) meant = names.find((known) => isNear(given, plain(known), slips));
  return meant === undefined ? "" : ` (did you mean ${meant}?)`;
}

/** What is expected in the place of a value that only a model can have; undefined of any other. */
export const instead = (value: unknown, names: readonly string[]): string | undefined =>
  // An operator knows no model, and so not the length up to which it is the default.
  value === "dynamic" && names.includes("yarn") ? `"default" up to a model's length and "yarn" or "linear" past it` : undefined;

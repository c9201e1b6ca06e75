// The tokenizer of a checkpoint. A program installs @huggingface/tokenizers itself; it is part of
// the command line, so that `npx diffattn` needs nothing else.

import { readTokenizer } from "../models/tokenizer.js";
import type { Tokenizer, TokenizerFiles } from "../models/types.js";

/** undefined for what cannot be read: the library says what that means. */
export const tokenizerOf = ({ json, config }: TokenizerFiles): Promise<Tokenizer | undefined> =>
  readTokenizer(json, config).catch(() => undefined);

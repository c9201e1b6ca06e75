// The built library, beside which the command line's answers are held.

import { createRequire } from "node:module";
import type * as models from "../../packages/diffattn/src/models/types.js";

export const { DiffLlama, DiffViT, evaluateNeedle, evaluateText, LanguageModel, openSafetensors } = createRequire(import.meta.url)(
  "../../packages/diffattn/dist/models-node.js",
) as typeof models;

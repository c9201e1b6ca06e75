// diffattn convert: a checkpoint with other element types or head layouts.

import { UsageError } from "./failure.js";
import type { Terminal } from "./terminal.js";

export interface ConvertOptions {
  dtype?: "f32" | "f16" | "bf16";
  layout?: "diffllama" | "unilm";
  force?: boolean;
}

export function convert(terminal: Terminal, source: string, target: string, { dtype, layout }: ConvertOptions): Promise<void> {
  if (!dtype && !layout) return Promise.reject(new UsageError("convert: expected --dtype, --layout or both, got neither"));
  return Promise.reject(new Error(`${source} ${target} ${terminal.isVerbose}`));
}

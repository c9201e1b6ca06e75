// Sync forms: a call on the caller's own thread, from its beginning to its end.

import type { Local } from "./backend.js";
import { isAbsent, show } from "./check.js";
import { fail } from "./errors.js";
import { local } from "./local.js";
import { type Plan, prepare } from "./run.js";

/** `on`: the side that has the request. */
export function runSync<R>(plan: Plan<R>, on: () => Local = local): R {
  const outs = prepare(plan);
  if (!isAbsent(plan.options?.onProgress)) fail("OPTION", "onProgress", "none in a sync form", show(plan.options.onProgress));
  return plan.finish(on().call(plan.request, outs));
}

// Sync forms: a call on the caller's own thread, from its beginning to its end.

import { isAbsent, show } from "./check.js";
import { fail } from "./errors.js";
import { local } from "./local.js";
import { type Plan, prepare } from "./run.js";

export function runSync<R>(plan: Plan<R>): R {
  const outs = prepare(plan);
  if (!isAbsent(plan.options?.onProgress)) fail("OPTION", "onProgress", "none in a sync form", show(plan.options.onProgress));
  return plan.finish(local().call(plan.request, outs));
}

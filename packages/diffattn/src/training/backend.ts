// Where training is computed: the requests of training go to the modules that have them, those
// without an object, too.

import type { Output, Request } from "../backend.js";
import { run as runAt, type RunOptions } from "../models/backend.js";

/** Runs a job of training. */
export const run = (request: Request, options?: RunOptions): Promise<Output[]> => runAt(request, options, "trainer");

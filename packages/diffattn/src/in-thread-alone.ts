// `import "diffattn/in-thread"`: what stands in a worker's place, for scripts that import nothing
// while they run (modules of Service Workers). The entries of browsers take it from here, whatever
// is imported first; elsewhere they load this script themselves, once no worker starts.

import { inThread } from "./in-thread.js";
import { leave } from "./own-files.js";

leave({ inThread });

export { inThread };

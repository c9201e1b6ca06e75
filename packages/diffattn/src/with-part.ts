// How modules that hold more than the operators are run, from how those of the operators are.

import type { OwnFiles } from "./own-files.js";
import type { Platform } from "./platform.js";
import type { Part } from "./port.js";

/** `files`: those of that part. */
export const withPart = (platform: Platform, part: Part, files: () => OwnFiles): Platform =>
  Object.create(platform, { part: { value: part }, files: { get: files } }) as Platform;

// Where this script lies, in Node: what the package's own files and the native package are looked
// for from.

import { pathToFileURL } from "node:url";

// Bundlers that write CommonJS leave `import.meta` empty, and then have this.
declare const __filename: string | undefined;

/** The script's address; where it has none, that of a script in the current folder. */
export function scriptAddress(): string {
  const url = import.meta.url as string | undefined;
  if (url?.startsWith("file:")) return url;
  return pathToFileURL(typeof __filename === "string" ? __filename : "script.js").href;
}

// diffattn download: brings a model of the hub into the cache on this disk. Standard output gets
// its path alone, which every command takes.

import { counted } from "./format.js";
import { fetched } from "./hub.js";
import type { Terminal } from "./terminal.js";

export interface DownloadOptions {
  revision?: string;
  token?: string;
  include?: string[];
  json?: boolean;
}

export async function download(terminal: Terminal, source: string, { json, ...options }: DownloadOptions): Promise<void> {
  const found = await fetched(terminal, source, options);
  if (json) return terminal.json(found);
  await terminal.line(found.path);
  terminal.note(`${counted(found.files.length, "file")} of commit ${found.commit}`);
}

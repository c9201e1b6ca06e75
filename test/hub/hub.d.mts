// What hub.mjs exports, for tests in TypeScript.

import type { IncomingMessage, ServerResponse } from "node:http";

export interface Commit {
  sha: string;
  files: Record<string, Buffer>;
}

export interface Repo {
  revisions: Record<string, Commit>;
  isPrivate?: boolean;
  isGated?: boolean;
  isGranted?: boolean;
}

export interface Asked {
  origin: "hub" | "store";
  method: string;
  path: string;
  range: string | undefined;
  token: string | undefined;
}

export interface Hub {
  repos: Record<string, Repo>;
  requests: Asked[];
  cuts: Record<string, number[]>;
  answers: Record<string, (request: IncomingMessage, response: ServerResponse) => void>;
  contents: Record<string, Buffer>;
  moved: Record<string, string>;
  /** Milliseconds before the store answers. */
  delay: number;
  address: string;
  storeAddress: string;
  close(): Promise<void>;
}

export declare function filesOf(folder: string): Record<string, Buffer>;
export declare function commitOf(files: Record<string, string | Uint8Array>): Commit;
export declare function serveHub(repos: Record<string, Repo>): Promise<Hub>;

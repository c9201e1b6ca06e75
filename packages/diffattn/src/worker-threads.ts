// Node's worker_threads; undefined anywhere else. Asked for by name, so that no bundler for
// browsers sees a module of Node.

const { process } = globalThis as { process?: { getBuiltinModule?: (name: string) => unknown } };

export const workerThreads = process?.getBuiltinModule?.("node:worker_threads") as typeof import("node:worker_threads") | undefined;

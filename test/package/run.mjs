// Tests what is published: packs the tarballs, installs them into empty folders without a registry,
// and uses them there as users do. Closes with "N passed, N failed". Needs built outputs (npm run
// build).
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { targetOf, targets, thisMachine } from "../../packages/native/loader.js";
import { NOTICES, notices } from "../../scripts/notices.mjs";
import { pack } from "../../scripts/pack.mjs";
import { bin, root } from "../../scripts/tools.mjs";
import { run } from "../run-command.mjs";
import { compiledInto } from "./crates.mjs";
import { example } from "./example.mjs";

const folders = [];
/**
 * An empty folder, outside of the project so that nothing of it is found, with tarballs installed.
 */
function install(tarballs, type = "module") {
  const folder = mkdtempSync(join(tmpdir(), "diffattn-package-"));
  folders.push(folder);
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "user", private: true, type }));
  // `--omit=optional` leaves out what is not named here; nothing is asked of a registry.
  run("npm", ["install", "--offline", "--omit=optional", "--no-audit", "--no-fund", ...tarballs], folder);
  return folder;
}

/** Runs a file of this folder in an installed one. */
function runFixture(folder, name, ...args) {
  for (const file of [name, "run-wasm.mjs"])
    writeFileSync(join(folder, file), readFileSync(fileURLToPath(new URL(`cases/${file}`, import.meta.url))));
  return run(process.execPath, [name, ...args], folder);
}

const tarballs = pack();
// (What was built for other targets is packed too, and npm refuses it here.)
const own = `@diffattn/native-${targetOf(thisMachine())}`;
const natives = ["@diffattn/native", own];
assert.ok(
  natives.every((name) => name in tarballs),
  `expected ${natives.join(" and ")}, packed: ${Object.keys(tarballs).join(", ")}`,
);
const whole = install([tarballs.diffattn, ...natives.map((name) => tarballs[name])]);
const withoutNative = install([tarballs.diffattn]);
const manifest = (folder, name) => JSON.parse(readFileSync(join(folder, "node_modules", name, "package.json"), "utf8"));

const tests = {
  "import and require give one module with one state, on native": () => runFixture(whole, "one-state.mjs"),

  "a CommonJS program requires it, also where no module can be required": () => {
    runFixture(whole, "commonjs.cjs");
    run(process.execPath, ["--no-experimental-require-module", "commonjs.cjs"], whole);
  },

  "scripts carry the modules and the worker where the files are missing": () => {
    const folder = install([tarballs.diffattn]);
    const dist = join(folder, "node_modules/diffattn/dist");
    for (const name of readdirSync(dist)) if (/^worker\.js$|\.wasm$/.test(name)) rmSync(join(dist, name));
    runFixture(folder, "inline.mjs", join(root, "examples/model"));
  },

  "without workers calls run in slices on the caller's thread": () =>
    runFixture(withoutNative, "no-worker.mjs", join(root, "examples/model")),

  "a folder of the caller's holds the files": () => runFixture(withoutNative, "folder.mjs", join(root, "examples/model")),

  "without the native package WASM runs, and the notes say so": () => runFixture(withoutNative, "fallback.mjs"),

  "without this machine's binary the notes name its package": () => {
    const folder = install([tarballs.diffattn, tarballs["@diffattn/native"]]);
    const asks = `import { info } from "diffattn"; console.log(info().notes.join("\\n"));`;
    const printed = run(process.execPath, ["--input-type=module", "--eval", asks], folder);
    assert.match(printed, new RegExp(`^the native binary did not load, so WASM runs: the package ${own}, for .*, is not installed: `));
  },

  "importing touches neither a window nor the network, and starts nothing": () => runFixture(whole, "server.mjs"),

  "the command line runs without another package, and who imports the library loads nothing of it": () => {
    for (const [folder, backend] of [
      [whole, "native"],
      [withoutNative, "wasm"],
    ])
      runFixture(folder, "command.mjs", backend, join(root, "examples/model"));
  },

  "pictures are drawn without a backend": () => runFixture(withoutNative, "viz.mjs"),

  "models load on native and on WASM; their texts want one package more, and say which": () => {
    for (const folder of [whole, withoutNative]) runFixture(folder, "models.mjs", join(root, "examples/model"));
  },

  ...Object.fromEntries(
    ["README.md", "packages/diffattn/README.md"].map((path) => [
      `the example of ${path} prints what it says`,
      () => {
        const { code, printed } = example(join(root, path));
        for (const folder of [whole, withoutNative]) {
          writeFileSync(join(folder, "example.mjs"), code);
          assert.equal(run(process.execPath, ["example.mjs"], folder), printed);
        }
      },
    ]),
  ),

  ...Object.fromEntries(
    [
      ["node16", "node16", "types.mts"],
      ["nodenext", "nodenext", "types.mts"],
      ["nodenext", "nodenext", "types.cts"],
      ["node16", "node16", "types.cts"],
      ["node10", "commonjs", "types.cts"],
      ["bundler", "esnext", "types.mts"],
    ].map(([resolution, module, file]) => [
      `types resolve: ${file} under ${resolution}`,
      () => {
        writeFileSync(join(whole, file), readFileSync(fileURLToPath(new URL(`cases/${file}`, import.meta.url))));
        const options = { strict: true, noEmit: true, target: "es2022", lib: ["es2022"], types: [], module, moduleResolution: resolution };
        const config = `tsconfig.${resolution}.${file}.json`;
        writeFileSync(join(whole, config), JSON.stringify({ compilerOptions: options, files: [file] }));
        run(bin("tsc"), ["-p", config], whole);
      },
    ]),
  ),

  ...Object.fromEntries(
    Object.entries(tarballs).map(([name, tarball]) => [`publint: ${name}`, () => run(bin("publint"), ["run", tarball, "--strict"], root)]),
  ),

  "are the types wrong: diffattn": () => {
    const files = Object.keys(manifest(whole, "diffattn").exports).filter((name) => /\.(wasm|js|json)$/.test(name));
    run(bin("attw"), [tarballs.diffattn, "--exclude-entrypoints", ...files.map((name) => name.slice(2))], root);
  },

  "nothing runs at install time and nothing but the native package is depended on": () => {
    for (const name of ["diffattn", ...natives]) {
      const { scripts = {}, dependencies = {}, peerDependencies = {}, peerDependenciesMeta = {} } = manifest(whole, name);
      for (const hook of ["preinstall", "install", "postinstall", "prepare"]) assert.ok(!(hook in scripts), `${name} has ${hook}`);
      assert.deepEqual(dependencies, {}, name);
      // Templates of conversations and a tokenizer for models' texts, which whoever needs them
      // installs.
      const peers = name === "diffattn" ? ["@huggingface/jinja", "@huggingface/tokenizers"] : [];
      assert.deepEqual(Object.keys(peerDependencies), peers, name);
      for (const peer of Object.keys(peerDependencies)) assert.deepEqual(peerDependenciesMeta[peer], { optional: true });
    }
    assert.deepEqual(Object.keys(manifest(whole, "diffattn").optionalDependencies), ["@diffattn/native"]);
    assert.deepEqual(manifest(whole, "diffattn").sideEffects, ["./dist/inline*", "./dist/in-thread*"]);
  },

  "every package carries a README and both licences": () => {
    for (const name of ["diffattn", ...natives])
      for (const file of ["README.md", "LICENSE-MIT", "LICENSE-APACHE"])
        assert.ok(existsSync(join(whole, "node_modules", name, file)), `${name} lacks ${file}`);
  },

  "every package carries the notices of the crates that are compiled into it": () => {
    const wasm = install([tarballs["@diffattn/wasm"]]);
    const carried = (folder, name) => readFileSync(join(folder, "node_modules", name, NOTICES), "utf8");
    const texts = [
      ["diffattn", carried(whole, "diffattn"), compiledInto("wasm")],
      ["@diffattn/wasm", carried(wasm, "@diffattn/wasm"), compiledInto("wasm")],
      // Of targets that were not built here as well.
      ...targets.map(({ name, triple }) => [name, notices("native", triple), compiledInto("native", triple)]),
    ];
    const { triple } = targets.find(({ name }) => own.endsWith(`-${name}`));
    assert.equal(carried(whole, own), notices("native", triple), `${own} carries other notices than its target's`);
    for (const [name, text, crates] of texts) {
      // The list, then blocks: who, an empty line, a licence.
      const [list, ...blocks] = text.split(`${"-".repeat(80)}\n`);
      assert.ok(crates.length > 20, `${name}: ${crates.length} crates`);
      for (const crate of [...crates, "the Rust standard library, with the crates that it is made of"]) {
        assert.ok(list.includes(`\n- ${crate}: `), `${name}: ${NOTICES} does not list ${crate}`);
        const texts = blocks.filter((block) => block.split("\n\n")[0].split("\n").includes(crate));
        const grants =
          /Permission is hereby granted|Permission to use, copy, modify|This software is provided 'as-is'|TERMS AND CONDITIONS/;
        assert.ok(
          texts.some((block) => grants.test(block)),
          `${name}: ${NOTICES} has no licence of ${crate}`,
        );
      }
    }
  },

  "what the addon itself says of its crates is in its notices": () => {
    const folder = join(whole, "node_modules", own);
    const binary = readFileSync(join(folder, manifest(whole, own).main), "latin1");
    // Panics say where they happened: in which version of which crate.
    const named = new Set(
      [...binary.matchAll(/registry[/\\]src[/\\][^/\\]+[/\\]([\w-]+?)-(\d[\w.+-]*)[/\\]/g)].map((found) => `${found[1]} ${found[2]}`),
    );
    assert.ok(named.size > 5, `the addon names ${named.size} crates`);
    const text = readFileSync(join(folder, NOTICES), "utf8");
    for (const crate of named) assert.ok(text.includes(`\n- ${crate}: `), `${NOTICES} does not list ${crate}`);
  },
};

let passed = 0;
let failed = 0;
for (const [name, body] of Object.entries(tests)) {
  try {
    body();
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.error(`FAILED  ${name}\n${error instanceof Error ? error.message : error}`);
  }
}
for (const folder of folders) rmSync(folder, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;

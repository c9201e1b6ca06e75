// Builds what JavaScript loads: the Node addon into packages/native, WebAssembly modules into
// packages/wasm (three of the operators, three with whole models besides, three with gradients
// besides), the TypeScript package, and the page (packages/demo). An output whose inputs (sources, lock file, flags, compiler) did
// not change is kept. Installs nothing: setup.mjs comes first.
//
//   node scripts/build.mjs [native] [[models-|training-]simd] [[…]relaxed] [[…]threads] [typescript] [demo]      (all without a name)
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileOf, targetOf, thisMachine } from "../packages/native/loader.js";
import { main } from "./setup.mjs";
import {
  ask,
  bin,
  cache,
  cargoTool,
  cargoTools,
  CommandFailed,
  crossRust,
  ensureFolder,
  fingerprint,
  isMain,
  pathFirst,
  pnpm,
  root,
  run,
  seconds,
  targetDir,
  versions,
} from "./tools.mjs";

const say = (text) => console.log(`build: ${text}`);

/** What a Rust output is made of, besides its flags. */
/** What builds are made of, this file aside: the manifests, and the crates that are in them. */
const rustSources = [
  "Cargo.toml",
  "Cargo.lock",
  ...["diffattn", "diffattn-files", "diffattn-nn", "diffattn-door", "diffattn-napi", "diffattn-wasm"].map((name) => `crates/${name}`),
];

/**
 * Runs `body` unless `outputs` are there and were made from the same inputs; remembers the hash
 * beside the cache.
 */
function unlessUnchanged(what, inputs, outputs, body) {
  const stamp = join(ensureFolder(join(cache, "stamps")), `${what.replaceAll(/\W/g, "-")}`);
  const unchanged = existsSync(stamp) && readFileSync(stamp, "utf8") === inputs && outputs.every((path) => existsSync(join(root, path)));
  if (unchanged) return say(`${what}: unchanged`);
  const start = Date.now();
  say(`${what}: building`);
  body();
  writeFileSync(stamp, inputs);
  say(`${what}: built in ${seconds(start)}`);
}

/**
 * Makes the addon `file` of packages/native: of this machine, or of what `more` (arguments of napi)
 * and the environment say.
 */
export function buildAddon(file, more = [], environment = process.env) {
  // What loads it is ours (packages/native/loader.js).
  const args = [
    "--release",
    "--platform",
    "--no-js",
    "--manifest-path",
    join(root, "crates/diffattn-napi/Cargo.toml"),
    "--output-dir",
    ".",
  ];
  const env = { ...environment, CARGO_PROFILE_RELEASE_STRIP: "symbols" };
  const inputs = fingerprint([...rustSources, "packages/native/package.json"], args, more, ask("rustc", ["-V"]), env.RUSTFLAGS, [
    versions.zig,
    versions.cargoZigbuild,
  ]);
  unlessUnchanged(`addon ${file}`, inputs, [`packages/native/${file}`], () =>
    run(bin("napi"), ["build", "--target-dir", targetDir, ...args, ...more], { cwd: join(root, "packages/native"), env, quiet: true }),
  );
}

const buildNative = () => buildAddon(fileOf(targetOf(thisMachine())));

const simd = ["+simd128", "+bulk-memory", "+mutable-globals", "+nontrapping-fptoint", "+sign-ext"];
const relaxed = "+relaxed-simd";
/**
 * Kernels are `inline(always)`: what the compiler would inline besides only adds bytes. Nor does a
 * panic say where it happened. (184 KB become 170, gzipped; no operator is slower. wasm-opt -Os and
 * -Oz in the place of -O4: the same size.)
 */
const small = [
  "-C llvm-args=-inline-threshold=10",
  "-Z location-detail=none",
  // Kernels are written in vectors and tiles: loops that the compiler unrolls or makes vectors of
  // besides are those around them. (9 KB of 160 less, gzipped; causal attention takes 1.01 of the
  // time, as far as can be told. Rotations, differences and conversions of halves took 1.2 to 1.9
  // times as long until they were written in vectors or blocks.)
  "-C llvm-args=-unroll-runtime=false",
  "-C no-vectorize-loops",
];
/**
 * Instructions stay in the order of the source: LLVM's own puts a tile's broadcasts first, which
 * need a register each, and sums spill. And addresses as in the source: LLVM's count down from the
 * last, and nothing folds into an offset then. (0.92 of the time with relaxed SIMD, and 3 KB less.)
 */
const inOrder = ["-C llvm-args=-pre-RA-sched=source", "-C llvm-args=-disable-lsr"];
/**
 * What each WebAssembly build is compiled with: `features` all of it, `own` our crates besides. std
 * and the libraries have no use for relaxed SIMD, so they are the same for the first two, and
 * compiled once (which costs the relaxed operators 33 bytes of 169 KB, gzipped). With atomics all
 * is another.
 */
const wasmBuilds = {
  simd: { features: simd },
  relaxed: { features: simd, own: [relaxed] },
  threads: {
    features: [...simd, relaxed, "+atomics"],
    crate: ["threads"],
    // 1 GiB: more is refused on many phones. The page asks for less when this is refused.
    maxMemory: 2 ** 30,
    link: [
      "--shared-memory",
      "--import-memory",
      ...["__heap_base", "__wasm_init_tls", "__tls_size", "__tls_align", "__tls_base"].map((name) => `--export=${name}`),
    ],
  },
};
/**
 * The same with whole models, and with gradients besides. Weights are float32 in memory, so 1 GiB is
 * soon full; below 2 GiB no address has its highest bit set. (Memory without threads needs no limit
 * of its own.)
 */
const operators = Object.entries(wasmBuilds);
for (const part of ["models", "training"])
  for (const [name, build] of operators)
    wasmBuilds[`${part}-${name}`] = {
      ...build,
      crate: [...(build.crate ?? []), part],
      maxMemory: build.maxMemory && 2 ** 31,
    };
/** Binaryen's names where they differ from LLVM's. */
const binaryenNames = { simd128: "simd", "nontrapping-fptoint": "nontrapping-float-to-int", atomics: "threads" };

/** Our crates in WebAssembly. */
const wasmCrates = ["diffattn", "diffattn-files", "diffattn-nn", "diffattn-door", "diffattn-wasm"];

function buildWasm(name) {
  const { features, own = [], crate: crateFeatures = [], link = [], maxMemory } = wasmBuilds[name];
  const rust = crossRust();
  if (!rust) throw new CommandFailed("no Rust that compiles for WebAssembly; run: node scripts/setup.mjs");
  const output = join(root, `packages/wasm/pkg-${name}`);
  const rustflags = [`-C target-feature=${features.join(",")}`, ...small, ...inOrder, ...link.map((arg) => `-C link-arg=${arg}`)].join(" ");
  // One folder for all: Cargo keeps apart what other flags made, and compiles once what the flags
  // do not touch.
  const target = join(targetDir, "wasm");
  const env = { ...pathFirst(join(cargoTools, "bin"), rust.env), RUSTFLAGS: rustflags, CARGO_TARGET_DIR: target };
  // Std and the libraries for size, doors and layers for the least (235 KB become 182, gzipped). For
  // speed the kernels' crate, and the last one, whose level is the linker's: norms take 1.5 times as
  // long without the second, attention three times without both.
  env.CARGO_PROFILE_RELEASE_OPT_LEVEL = "s";
  const args = ["build", join(root, "crates/diffattn-wasm"), "--release", "--mode", "no-install", "--no-pack", "--target", "web"];
  args.push("--out-dir", output, "--", "-Z", "build-std=std,panic_abort", "-Z", "build-std-features=optimize_for_size");
  if (crateFeatures.length > 0) args.push("--features", crateFeatures.join(","));
  args.push("-Z", "profile-rustflags");
  for (const crate of wasmCrates) {
    const level = crate === "diffattn" || crate === "diffattn-wasm" ? "3" : '"z"';
    args.push("--config", `profile.release.package.${crate}.opt-level=${level}`);
    const flags = own.map((feature) => `-Ctarget-feature=${feature}`);
    // Of the last crate alone, so that all else is the same for both sizes.
    if (maxMemory && crate === "diffattn-wasm") flags.push(`-Clink-arg=--max-memory=${maxMemory}`);
    if (flags.length > 0) args.push("--config", `profile.release.package.${crate}.rustflags=${JSON.stringify(flags)}`);
  }
  // Nothing lies in the first kilobyte of memory, so a constant that is added to an address becomes
  // its offset: 3 % faster. What Rust keeps apart stays so (simd128.rs).
  const optimise = [
    "-O4",
    "--low-memory-unused",
    "--one-caller-inline-max-function-size=0",
    ...[...features, ...own].map((feature) => `--enable-${binaryenNames[feature.slice(1)] ?? feature.slice(1)}`),
  ];

  const inputs = fingerprint(rustSources, args, env.CARGO_PROFILE_RELEASE_OPT_LEVEL, rustflags, optimise, rust.version, versions);
  unlessUnchanged(`wasm ${name}`, inputs, [`packages/wasm/pkg-${name}/diffattn_wasm_bg.wasm`], () => {
    rmSync(output, { recursive: true, force: true });
    // Whatever it holds, the module has one name there, and Cargo would take the one for the
    // other.
    for (const made of ["", "deps"]) rmSync(join(target, "wasm32-unknown-unknown/release", made, "diffattn_wasm.wasm"), { force: true });
    run(cargoTool("wasm-pack"), args, { env, quiet: true });
    // wasm-pack ignores its own output, which would keep it out of the package too.
    rmSync(join(output, ".gitignore"), { force: true });
    const module = join(output, "diffattn_wasm_bg.wasm");
    run(bin("wasm-opt"), [module, ...optimise, "-o", `${module}.optimised`], { quiet: true });
    renameSync(`${module}.optimised`, module);
  });
}

function buildTypeScript() {
  if (!existsSync(join(root, "packages/diffattn/package.json"))) return;
  run(pnpm, ["--filter", "diffattn", "run", "build"], { quiet: true });
}

/** After the package, whose files it takes. */
function buildDemo() {
  run(pnpm, ["--filter", "@diffattn/demo", "run", "build"], { quiet: true });
}

const builders = {
  native: buildNative,
  ...Object.fromEntries(Object.keys(wasmBuilds).map((name) => [name, () => buildWasm(name)])),
  typescript: buildTypeScript,
  demo: buildDemo,
};

export const parts = Object.keys(builders);

export function build(names = parts) {
  for (const name of names) {
    if (!(name in builders)) throw new CommandFailed(`there is no part "${name}"; parts: ${parts.join(", ")}`);
    builders[name]();
  }
}

if (isMain(import.meta)) main(() => build(process.argv.length > 2 ? process.argv.slice(2) : undefined));

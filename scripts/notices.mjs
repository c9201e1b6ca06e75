// The notices of what others wrote and is compiled into a binary: of every crate its name, version,
// licence and the licence's text. Refuses a licence that no one has looked at. Reads Cargo's own
// lists and the crates' sources, which are there where the binary was built.
//
//   node scripts/notices.mjs [target]      prints those of the addon (for x86_64-pc-windows-msvc, for instance; else for this machine),
//                                          then those of the WebAssembly modules
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { main } from "./setup.mjs";
import { ask, CommandFailed, isMain, root, run } from "./tools.mjs";

/** The file that each package carries. */
export const NOTICES = "THIRD-PARTY.txt";

/**
 * Licences under which code may be part of ours if its notice comes along, and the files that hold
 * their texts. The first that a crate offers is taken: the shorter ones come first.
 */
export const ALLOWED = {
  MIT: /mit/i,
  ISC: /isc/i,
  Zlib: /zlib/i,
  "0BSD": /0bsd/i,
  "BSD-2-Clause": /bsd/i,
  "BSD-3-Clause": /bsd/i,
  "Unicode-3.0": /unicode/i,
  "Apache-2.0": /apache/i,
};

/** Texts of licences that are not taken. */
const OTHERS = [...Object.values(ALLOWED), /unlicense/i, /gpl/i];

/** What is compiled into each binary; the crates of the addon depend on its target. */
const binaries = {
  native: { crate: "diffattn-napi", features: [], target: () => /^host: (.*)$/m.exec(ask("rustc", ["-vV"]))?.[1] },
  wasm: { crate: "diffattn-wasm", features: ["training", "threads"], target: () => "wasm32-unknown-unknown" },
};

/**
 * The licences taken of an expression: of each part that must hold, the first alternative that may
 * be.
 */
function taken(name, expression) {
  return (expression ?? "").split(/\s+AND\s+/).map((part) => {
    const alternatives = part.split(/\s+OR\s+|\/|[()]/).map((word) => word.trim());
    const found = Object.keys(ALLOWED).find((licence) => alternatives.includes(licence));
    if (!found) throw new CommandFailed(`${name}: its licence is ${expression}, which no one has looked at`);
    return found;
  });
}

const mitOf = (holders) => {
  const text = readFileSync(join(root, "LICENSE-MIT"), "utf8");
  const own = /^Copyright .*$/m;
  if (!own.test(text)) throw new CommandFailed("LICENSE-MIT: it names no holder");
  return text.replace(own, `Copyright (c) ${holders}`);
};

/** The standard text of a licence, for a crate that ships none. */
function standard(name, licence, authors) {
  if (licence === "Apache-2.0") return readFileSync(join(root, "LICENSE-APACHE"), "utf8");
  if (licence === "MIT") return mitOf(authors.join(", ") || `the authors of ${name}`);
  throw new CommandFailed(`${name}: the text of its licence, ${licence}, is missing`);
}

/** The texts that a crate's licences want to be carried. */
function textsOf({ name, license, authors, manifest_path: manifest }) {
  const folder = dirname(manifest);
  const licences = taken(name, license);
  const files = readdirSync(folder).filter(
    (file) =>
      /^(licen[cs]e|copying|copyright|notice|unlicense)/i.test(file) &&
      (licences.some((licence) => ALLOWED[licence].test(file)) || !OTHERS.some((other) => other.test(file))),
  );
  const texts = files.sort().map((file) => readFileSync(join(folder, file), "utf8"));
  // A list of holders alone is no licence.
  if (!files.some((file) => /^licen[cs]e/i.test(file))) texts.push(...licences.map((licence) => standard(name, licence, authors)));
  return texts;
}

/** What is part of every binary, and comes with the compiler. */
const standardLibrary = {
  name: "the Rust standard library, with the crates that it is made of",
  licence: "MIT OR Apache-2.0",
  texts: () => [mitOf("The Rust Project contributors")],
};

/** What zig links into the binaries of Linux (cross.mjs) in the place of the system's libgcc_s. */
const zigLibraries = {
  name: "compiler-rt of Zig and libunwind of LLVM",
  licence: "MIT AND Apache-2.0 WITH LLVM-exception",
  texts: () => [mitOf("Zig contributors"), standard("libunwind", "Apache-2.0", [])],
};

/** The crates of a binary: name, version, licence, texts. Without ours. */
function cratesOf({ crate, features }, platform) {
  const graph = [
    "-p",
    crate,
    "--edges",
    "normal,no-proc-macro",
    "--target",
    platform,
    ...(features.length > 0 ? ["--features", features.join()] : []),
  ];
  const listed = run("cargo", ["tree", "--locked", ...graph, "--prefix", "none", "--format", "{p}"], { quiet: true });
  const wanted = new Set([...listed.matchAll(/^(\S+) v(\S+)/gm)].map(([, name, version]) => `${name} ${version}`));
  const metadata = run("cargo", ["metadata", "--locked", "--format-version", "1", "--filter-platform", platform, "--all-features"], {
    quiet: true,
  });
  const { packages } = JSON.parse(metadata);
  return packages
    .filter(({ name, version, source }) => source !== null && wanted.has(`${name} ${version}`))
    .map((found) => ({ name: `${found.name} ${found.version}`, licence: found.license, texts: () => textsOf(found) }));
}

/** The notices of a binary for a target: first who, then the texts, each once. */
export function notices(binary, target = binaries[binary].target()) {
  const linked = /linux/.test(target) ? [standardLibrary, zigLibraries] : [standardLibrary];
  const parts = [...linked, ...cratesOf(binaries[binary], target)].sort((a, b) => (a.name < b.name ? -1 : 1));
  const texts = new Map();
  for (const { name, texts: of } of parts) {
    for (const text of of()) {
      const key = text.replaceAll(/\s+/g, " ").trim();
      const known = texts.get(key) ?? { text: text.replaceAll("\r", "").trim(), names: [] };
      known.names.push(name);
      texts.set(key, known);
    }
  }
  const rule = "-".repeat(80);
  const list = parts.map(({ name, licence }) => `- ${name}: ${licence}`).join("\n");
  const body = [...texts.values()].map(({ text, names }) => `${rule}\n${names.join("\n")}\n\n${text}\n`).join("\n");
  return `Compiled into ${binary === "wasm" ? "the WebAssembly modules" : "the addon"} are these libraries:\n\n${list}\n\n${body}`;
}

if (isMain(import.meta))
  main(() => {
    console.log(notices("native", process.argv[2]));
    console.log(notices("wasm"));
  });

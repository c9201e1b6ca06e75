// How the pages of places are made: the lines that bring the package's files where a tool does not
// carry them, and the tools' programs. Serves nothing.
import { cpSync, mkdirSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";

/** What a program (`programOf`) has in front where the package's files are part of the script. */
export const INLINE = { imports: `import "diffattn/inline";\nimport "diffattn/inline-models";\n` };

/** What it is given where they lie in a folder (`copyFiles`) beside `base`, an expression. */
export const copied = (base) => ({ init: `{ wasm: new URL("diffattn/", ${base}) }` });

/** Copies what a page loads of the package into a folder. */
export function copyFiles(app, to) {
  const from = app.path("node_modules/diffattn/dist");
  const folder = resolve(app.folder, to);
  mkdirSync(folder, { recursive: true });
  for (const file of readdirSync(from)) if (file.endsWith(".wasm") || file === "worker.js") cpSync(join(from, file), join(folder, file));
}

/**
 * An application with these packages, made once for all places that ask for the same; `files` are
 * added to it each time.
 */
export async function application(context, packages, { files = {}, manifest } = {}) {
  const app = await context.shared(`application of ${packages} ${JSON.stringify(manifest ?? {})}`, async (inner) => {
    await inner.install(packages, { manifest });
    return inner;
  });
  app.write(files);
  return app;
}

/** Runs a program of an installed package: `[package, file]`. */
export const runs = (app, [name, file], args) => app.exec(process.execPath, [app.path("node_modules", name, file), ...args]);

/** Bundles an entry by esbuild into a folder, under its own name. */
export function esbuild(app, entry, to, format) {
  // Its program is a binary or a script, by platform; its function is the same everywhere.
  app.write({
    "esbuild.mjs": `import { build } from "esbuild";
const [entry, outdir, format] = process.argv.slice(2);
await build({ entryPoints: [entry], bundle: true, outdir, format, logLevel: "error" });\n`,
  });
  return app.exec(process.execPath, ["esbuild.mjs", entry, to, format]);
}

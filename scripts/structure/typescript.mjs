// The facts of TypeScript sources, of the form that the Rust tool beside this file has: lengths,
// arguments and comments by TypeScript's parser, imports by dependency-cruiser (which resolves and
// follows them, those of types alone, too).
import { readFileSync, readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { cruise } from "dependency-cruiser";
import ts from "typescript";

/** Columns that a comment may fill: as many as those of the Rust sources. */
const COLUMNS = 100;

const isSource = (path) => /\.(ts|js)$/.test(path) && !/\.test\.ts$|\.d\.ts$/.test(path);

/** The sources below a folder: each by its path from `root`, with slashes. */
export function sources(root, folder) {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && isSource(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).replaceAll("\\", "/"))
    .toSorted();
}

/**
 * What stands before a declaration to name a function: `const f = () => …`, `f: () => …`, a method.
 */
function nameOf(node) {
  const named = node.name ?? (ts.isVariableDeclaration(node.parent) || ts.isPropertyAssignment(node.parent) ? node.parent.name : undefined);
  return ts.isConstructorDeclaration(node) ? "constructor" : (named?.getText() ?? "(unnamed)");
}

/** The functions with a body, and every comment. */
function walk(source) {
  const text = source.text;
  const line = (at) => source.getLineAndCharacterOfPosition(at).line;
  const functions = [];
  const comments = new Map();
  const visit = (node) => {
    if (ts.isFunctionLike(node) && node.body) {
      const start = line(node.getStart());
      const isThis = ({ name }) => name.kind === ts.SyntaxKind.Identifier && name.text === "this";
      functions.push({
        name: nameOf(node),
        line: start + 1,
        lines: line(node.end) - start + 1,
        arguments: node.parameters.filter((parameter) => !isThis(parameter)).length,
      });
    }
    const children = node.getChildren(source);
    // Comments stand between tokens, which have no children.
    if (children.length === 0) {
      const around = [...(ts.getLeadingCommentRanges(text, node.pos) ?? []), ...(ts.getTrailingCommentRanges(text, node.end) ?? [])];
      for (const range of around) comments.set(range.pos, range);
    }
    children.forEach(visit);
  };
  visit(source);
  return { functions, comments: [...comments.values()].map(({ pos, end }) => [line(pos), line(end)]) };
}

/** The facts of one file. */
export function measure(path, text) {
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
  const { functions, comments } = walk(source);
  const lines = text.replace(/\n$/, "").split("\n");
  const isAll = (line) => /^\s*(\/\/|\/\*|\*)/.test(line);
  const commented = new Set(comments.flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, i) => from + i)));
  const only = (index) => commented.has(index) && isAll(lines[index]);
  const count = (test) => lines.filter((line, index) => test(line, index)).length;
  return {
    lines: lines.length,
    test_lines: 0,
    comment_lines: count((_, index) => only(index)),
    code_lines: count((line, index) => line.trim() !== "" && !only(index)),
    unsafe_lines: 0,
    long_comments: lines.flatMap((line, index) => (commented.has(index) && line.length > COLUMNS ? [index + 1] : [])),
    functions,
  };
}

/** A Map from each source of a package to those that it imports, for its types alone or not. */
export async function imports(root, folder) {
  const { output } = await cruise([folder], { baseDir: root, tsPreCompilationDeps: true, exclude: { path: "\\.test\\.ts$|\\.d\\.ts$" } });
  const own = new Set(output.modules.map(({ source }) => source).filter((path) => path.startsWith(folder)));
  const unknown = output.modules.flatMap(({ source, dependencies }) =>
    dependencies
      .filter(({ couldNotResolve, module }) => couldNotResolve && /^\..*\.js$/.test(module))
      .map(({ module }) => `${source}: ${module}`),
  );
  if (unknown.length > 0) throw new Error(`not found: ${unknown.join(", ")}`);
  return new Map(
    output.modules
      .filter(({ source }) => own.has(source))
      .map(({ source, dependencies }) => [source, dependencies.map(({ resolved }) => resolved).filter((path) => own.has(path))]),
  );
}

/** All sources of these folders: facts by path. */
export function facts(root, folders) {
  return Object.fromEntries(
    folders.flatMap((folder) => sources(root, folder)).map((path) => [path, measure(path, readFileSync(join(root, path), "utf8"))]),
  );
}

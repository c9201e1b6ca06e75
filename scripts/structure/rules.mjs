// What the house keeps to, judged on facts: pure, reads no file. A rule gives its findings, one
// line each; `gates` says whether they fail the check or are only reported. What is let through
// stands in `exceptions`, with its reason.
import { circles } from "./circles.mjs";

const FILE_LINES = 500;
const FUNCTION_LINES = 80;
const ARGUMENTS = 5;
const UNSAFE_LINES = 320;

/**
 * The oracle's files read as formulas do, one after the other; generated files are as their
 * generator writes them.
 */
const isExempt = (path) => path.startsWith("crates/diffattn-reference/") || path.includes(".generated.");

/**
 * `rule` and `file`, for a function its `name`, and why. One that lets nothing through is a finding
 * itself.
 */
export const exceptions = [
  {
    rule: "files",
    file: "packages/diffattn/src/types.ts",
    why: "every option of the package with its documentation, in one place: what hovers show and readers search",
  },
  {
    rule: "arguments",
    file: "crates/diffattn-napi/src/lib.rs",
    name: "call_async",
    why: "the arguments of a JavaScript function: an object or an array of them would cost a look-up for each in every call",
  },
  {
    rule: "files",
    file: "packages/diffattn/src/models/types.ts",
    why: "the same of models, checkpoints and texts, the public types of the entry diffattn/models",
  },
];

/**
 * A rule finds something in `{ files, rust, rustWithParents, typescript, exceptions }`: facts by
 * path, and a Map of imports each, all by path from the root; and what is let through.
 */
export const rules = [
  {
    id: "circles",
    what: "import circles (Rust)",
    gates: true,
    find: ({ rust }) => circles(rust).map((group) => `${group.length} files: ${group.join(", ")}`),
  },
  {
    id: "circles with parents",
    what: "import circles, a module's `use` of what lies below it counted (Rust)",
    gates: true,
    find: ({ rustWithParents }) => circles(rustWithParents).map((group) => `${group.length} files: ${group.join(", ")}`),
  },
  {
    id: "circles in TypeScript",
    what: "import circles (TypeScript, types counted)",
    gates: true,
    find: ({ typescript }) => circles(typescript).map((group) => `${group.length} files: ${group.join(", ")}`),
  },
  {
    id: "files",
    what: `files over ${FILE_LINES} lines without tests`,
    gates: true,
    find: ({ files, exceptions }) =>
      each(files, exceptions, "files", (path, { lines, test_lines: tests }) =>
        lines - tests > FILE_LINES ? [[`${path}: ${lines - tests}`]] : [],
      ),
  },
  {
    id: "functions",
    what: `functions over ${FUNCTION_LINES} lines`,
    gates: true,
    find: ({ files, exceptions }) =>
      each(files, exceptions, "functions", (path, { functions }) => over(path, functions, "lines", FUNCTION_LINES)),
  },
  {
    id: "arguments",
    what: `functions with more than ${ARGUMENTS} arguments`,
    gates: true,
    find: ({ files, exceptions }) =>
      each(files, exceptions, "arguments", (path, { functions }) => over(path, functions, "arguments", ARGUMENTS)),
  },
  {
    id: "comments",
    what: "comments beyond column 100 (lines, by file)",
    gates: true,
    find: ({ files, exceptions }) =>
      each(files, exceptions, "comments", (path, { long_comments: at }) =>
        at.length > 0 ? [[`${path}: ${at.length}, the first in line ${at[0]}`]] : [],
      ),
  },
  {
    id: "documentation",
    what: "documentation that cannot be read alone (as above, the same of …)",
    gates: true,
    find: ({ files, exceptions }) =>
      each(files, exceptions, "documentation", (path, { leaning: at }) =>
        at.length > 0 ? [[`${path}: ${at.length}, the first in line ${at[0]}`]] : [],
      ),
  },
  {
    id: "tests",
    what: "tests within product files",
    gates: true,
    find: ({ files, exceptions }) =>
      each(files, exceptions, "tests", (path, { lines, test_lines: tests }) =>
        // A file of nothing but tests is no product file.
        tests > 0 && tests < lines ? [[`${path}: ${tests} lines`]] : [],
      ),
  },
  {
    id: "unsafe",
    what: `lines with \`unsafe {\`, at most ${UNSAFE_LINES}`,
    gates: true,
    find: ({ files }) => {
      const count = unsafeLines(files);
      return count > UNSAFE_LINES ? [`${count} lines`] : [];
    },
  },
];

export const unsafeLines = (files) =>
  Object.entries(files).reduce((sum, [path, file]) => sum + (path.startsWith("crates/") ? file.unsafe_lines : 0), 0);

/** `[text, name]` for each function that has more. */
const over = (path, functions, key, most) =>
  functions.filter((one) => one[key] > most).map((one) => [`${path}:${one.line} ${one.name}: ${one[key]}`, one.name]);

/** The findings of every file, less what is excepted; exceptions of no use are findings, too. */
function each(files, exceptions, rule, find) {
  const unused = new Set(exceptions.filter((exception) => exception.rule === rule));
  const found = Object.entries(files)
    .filter(([path]) => !isExempt(path))
    .flatMap(([path, facts]) =>
      find(path, facts)
        .filter(([, name]) => {
          const exception = [...unused].find((one) => one.file === path && one.name === name);
          if (exception) unused.delete(exception);
          return !exception;
        })
        .map(([text]) => text),
    );
  return [...found, ...[...unused].map(({ file, name = "" }) => `${file} ${name}: an exception of no use`)];
}

/** Each rule with its findings. */
export const judge = (facts, given = exceptions) =>
  rules.map(({ id, what, gates, find }) => ({ id, what, gates, findings: find({ ...facts, exceptions: given }) }));

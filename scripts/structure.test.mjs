// The rules of scripts/structure.mjs on small sources of its own, and that each exception has its
// reason. What the Rust tool finds in Rust sources is tested beside it (scripts/structure/tests).
import { describe, expect, test } from "vitest";
import { circles } from "./structure/circles.mjs";
import { exceptions, judge, rules, unsafeLines } from "./structure/rules.mjs";
import { table } from "./structure/table.mjs";
import { imports, measure } from "./structure/typescript.mjs";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const graph = (edges) => new Map(Object.entries(edges));

describe("circles", () => {
  test("two files, a ring, and what hangs on them", () => {
    const found = circles(graph({ a: ["b"], b: ["a", "c"], c: [], d: ["e"], e: ["f"], f: ["d", "a"], g: ["d"] }));
    expect(found).toEqual([
      ["a", "b"],
      ["d", "e", "f"],
    ]);
  });

  test("files that only share what they import are none, and a file that names itself is none", () => {
    expect(circles(graph({ a: ["c", "a"], b: ["c"], c: ["d"], d: [] }))).toEqual([]);
  });
});

const file = (more = {}) => ({
  lines: 10,
  test_lines: 0,
  comment_lines: 0,
  code_lines: 10,
  unsafe_lines: 0,
  long_comments: [],
  leaning: [],
  functions: [],
  ...more,
});
const facts = (files, edges = {}) => ({ files, rust: graph(edges), rustWithParents: graph(edges), typescript: new Map() });
const found = (id, given, passed = []) => judge(given, passed).find((rule) => rule.id === id).findings;
describe("rules", () => {
  test("lengths of files go without tests; generated files and the oracle are exempt", () => {
    const long = file({ lines: 501 });
    const given = facts({
      "crates/a/src/long.rs": long,
      "crates/a/src/tests.rs": file({ lines: 900, test_lines: 500 }),
      "crates/diffattn-reference/src/lib.rs": long,
      "packages/diffattn/src/requests.generated.ts": long,
    });
    expect(found("files", given)).toEqual(["crates/a/src/long.rs: 501"]);
  });

  test("functions and arguments name the place", () => {
    const functions = [
      { name: "long", line: 3, lines: 81, arguments: 5 },
      { name: "many", line: 90, lines: 80, arguments: 6 },
    ];
    const given = facts({ "crates/a/src/lib.rs": file({ functions }) });
    expect(found("functions", given)).toEqual(["crates/a/src/lib.rs:3 long: 81"]);
    expect(found("arguments", given)).toEqual(["crates/a/src/lib.rs:90 many: 6"]);
  });

  test("an exception lets one thing through, and of no use it is a finding", () => {
    const passed = [
      { rule: "files", file: "crates/a/src/long.rs", why: "" },
      { rule: "arguments", file: "crates/a/src/long.rs", name: "many", why: "" },
    ];
    const functions = ["many", "more"].map((name, line) => ({ name, line, lines: 1, arguments: 6 }));
    const given = facts({ "crates/a/src/long.rs": file({ lines: 501, functions }) });
    expect(found("files", given, passed)).toEqual([]);
    expect(found("arguments", given, passed)).toEqual(["crates/a/src/long.rs:1 more: 6"]);
    expect(found("files", facts({}), passed)).toEqual(["crates/a/src/long.rs : an exception of no use"]);
  });

  test("tests belong into files of their own", () => {
    const given = facts({
      "crates/a/src/mixed.rs": file({ test_lines: 3 }),
      "crates/a/src/tests.rs": file({ test_lines: 10 }),
    });
    expect(found("tests", given)).toEqual(["crates/a/src/mixed.rs: 3 lines"]);
  });

  test("blocks of unsafe code are counted over the crates", () => {
    const given = facts({ "crates/a/src/a.rs": file({ unsafe_lines: 200 }), "crates/b/src/b.rs": file({ unsafe_lines: 121 }) });
    expect(unsafeLines(given.files)).toBe(321);
    expect(found("unsafe", given)).toEqual(["321 lines"]);
  });

  test("each exception belongs to a rule and says why", () => {
    const ids = rules.map(({ id }) => id);
    for (const { rule, why } of exceptions) {
      expect(ids).toContain(rule);
      expect(why.length).toBeGreaterThan(20);
    }
  });

  test("the table has a row for each part and one for all", () => {
    const rows = table(
      facts({ "crates/a/src/a.rs": file(), "crates/a/src/b.rs": file(), "packages/b/src/c.ts": file() }, { "crates/a/src/a.rs": [] }),
    );
    expect(rows.slice(2).map((row) => row.split(" | ").slice(0, 3).join(" "))).toEqual([
      "| crates/a 2 20",
      "| packages/b 1 10",
      "| all 3 30",
    ]);
  });
});

describe("TypeScript", () => {
  const wide = `${"x".repeat(99)} y`;

  test("functions of every kind, arguments without this", () => {
    const text = [
      "export function one(this: void, a: number, b: number): number {",
      "  return a + b;",
      "}",
      "class Two { constructor(private x: number) {} get y() { return this.x; } }",
      "const three = (...rest: number[]) => ({",
      "  four: (a: number) => a,",
      "});",
      "declare function five(): void;",
    ].join("\n");
    expect(measure("a.ts", text).functions.map((one) => [one.name, one.line, one.lines, one.arguments])).toEqual([
      ["one", 1, 3, 2],
      ["constructor", 4, 1, 1],
      ["y", 4, 1, 0],
      ["three", 5, 3, 1],
      ["four", 6, 1, 1],
    ]);
  });

  test("wide comments, wherever they stand, and no wide code", () => {
    const text = [
      `// ${wide}`,
      `const a = "// ${wide}";`,
      `const b = ${"1 + ".repeat(20)} 2; // ${wide}`,
      "/**",
      ` * ${wide}`,
      " */",
      `const c = \`// ${wide}`,
      `// ${wide}\`;`,
      "",
    ].join("\n");
    const { long_comments: at, lines, comment_lines: only } = measure("a.ts", text);
    expect(at).toEqual([1, 3, 5]);
    expect([lines, only]).toEqual([8, 4]);
  });

  test("documentation that leans on what is above", () => {
    const text = [
      "/** The same, elsewhere. */",
      "f();",
      "/**",
      " * As above.",
      " * The same of it.",
      " */",
      "/** The same array twice. */",
    ].join("\n");
    expect(measure("a.ts", text).leaning).toEqual([1, 4]);
  });

  test("imports of types alone count, tests do not", async () => {
    const root = mkdtempSync(join(tmpdir(), "diffattn-structure-"));
    try {
      mkdirSync(join(root, "src"));
      const write = (name, text) => writeFileSync(join(root, "src", name), text);
      write("a.ts", 'import type { B } from "./b.js";\nexport type A = B;\n');
      write("b.ts", 'export * from "./a.js";\nexport type B = 1;\n');
      write("a.test.ts", 'import "./a.js";\n');
      expect(circles(await imports(root, "src"))).toEqual([["src/a.ts", "src/b.ts"]]);
    } finally {
      rmSync(root, { recursive: true });
    }
  });
});

// The workflows, besides what actionlint says of them: actions are pinned, permissions and times
// limited, and whatever they run is there. Runs none of them.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { targets } from "../packages/native/loader.js";
import { runnerOf } from "./runners.mjs";
import { root, run, versions } from "./tools.mjs";

const folder = join(root, ".github/workflows");
const workflows = readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), "utf8")]);
const action = readFileSync(join(root, ".github/actions/setup/action.yml"), "utf8");
const all = [...workflows, ["actions/setup", action]];
const { scripts, engines } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

test("there are workflows", () => expect(workflows.length).toBeGreaterThanOrEqual(4));

describe.each(all)("%s", (name, text) => {
  test("pins every action of others by its commit, and says its version", () => {
    const used = [...text.matchAll(/^\s*(?:- )?uses: (.*)$/gm)].map(([, what]) => what);
    expect(used.length).toBeGreaterThan(0);
    for (const what of used) {
      if (!what.startsWith("./")) expect(what).toMatch(/^[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
      else expect(existsSync(join(root, what)), what).toBe(true);
    }
  });

  test("runs what is there", () => {
    for (const [, script] of text.matchAll(/\bnpm (?:run )?(test|(?<=run )[\w:-]+)/g))
      expect(Object.keys(scripts), script).toContain(script);
    for (const [, file] of text.matchAll(/\bnode ((?:scripts|test)\/[\w./-]+)/g)) expect(existsSync(join(root, file)), file).toBe(true);
  });

  test("takes a Node that the project names", () => {
    const oldest = engines.node.replace(">=", "");
    for (const [, version] of text.matchAll(/(?:node-version|default): "(.*)"/g))
      expect([oldest, versions.node.split(".")[0]]).toContain(version);
  });
});

describe.each(workflows)("%s", (name, text) => {
  test("begins with few permissions, and ends in time", () => {
    expect(text).toMatch(/^permissions:( \{\}$|\n {2}contents: read\n\n)/m);
    expect(text).toMatch(/^concurrency:$/m);
    const jobs = text
      .split(/^jobs:\n/m)[1]
      .split(/^ {2}(?=[\w-]+:\n)/m)
      .filter(Boolean);
    // One that calls another workflow has that one's limits.
    for (const job of jobs) expect(job).toMatch(/^ {4}(timeout-minutes: \d+|uses: \.\/)/m);
  });

  test("leaves no credentials in the checkout", () => {
    const checkouts = text.split("actions/checkout@").slice(1);
    for (const checkout of checkouts) expect(checkout).toMatch(/^.*\n\s+with:\n\s+persist-credentials: false\n/);
  });
});

test("names of suites that workflows ask for are those of the tests", () => {
  const known = readFileSync(join(root, "scripts/test.mjs"), "utf8");
  const asked = workflows.flatMap(([, text]) => [...text.matchAll(/node scripts\/test\.mjs (.*)$/gm)].map(([, names]) => names));
  expect(asked.length).toBeGreaterThan(0);
  for (const names of asked)
    for (const [, quoted, plain] of names.matchAll(/"(.*?)"|(\S+)/g)) expect(known).toMatch(new RegExp(`^  "?${quoted ?? plain}"?: `, "m"));
});

test("every target has a machine to be built on, and no other", () => {
  const printed = JSON.parse(run(process.execPath, [join(root, "scripts/runners.mjs")], { quiet: true }));
  const { napi } = JSON.parse(readFileSync(join(root, "packages/native/package.json"), "utf8"));
  const triples = printed.map(({ target }) => targets.find(({ name }) => name === target).triple);
  expect(triples).toEqual(napi.targets);
  for (const { target, runner } of printed) {
    expect(runner, target).toMatch({ linux: /^ubuntu/, darwin: /^macos/, win32: /^windows/ }[target.split("-")[0]]);
    expect(/arm$|^macos-\d+$/.test(runner), `${target} on ${runner}`).toBe(target.includes("arm64"));
  }
  expect(() => runnerOf({ name: "freebsd-x64", platform: "freebsd", arch: "x64" })).toThrow(
    "freebsd-x64: there is no machine that builds it",
  );
  const [, build] = workflows.find(([name]) => name === "build.yml");
  expect(build).toContain("include: ${{ fromJSON(needs.targets.outputs.targets) }}");
  for (const { name, triple } of targets) for (const word of [name, triple]) expect(build).not.toContain(word);
});

test("only publishing asks for an identity", () => {
  const asking = workflows.filter(([, text]) => text.includes("id-token: write")).map(([name]) => name);
  expect(asking).toEqual(["release.yml"]);
  const [, release] = workflows.find(([name]) => name === "release.yml");
  expect(release.match(/id-token: write/g)).toHaveLength(1);
  const publish = release.split(/^ {2}publish:\n/m)[1].split(/^ {2}(?=[\w-]+:\n)/m)[0];
  expect(publish).toContain("id-token: write");
  // What runs with it brings no packages of others.
  expect(publish).not.toMatch(/actions\/setup\n|npm (ci|install)|pnpm/);
});

// Starts the built server as a user does, in a process of its own, on a port that is free.

import { type ChildProcess, spawn } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import type * as models from "../../packages/diffattn/src/models/types.js";
import { program, trained } from "../cli/run.js";

const { LanguageModel } = createRequire(import.meta.url)("../../packages/diffattn/dist/models-node.js") as typeof models;

/** A template as small as one can be: the ids of its words are those of any text. */
export const TEMPLATE =
  "{% for message in messages %}{% if message.role == 'nobody' %}{{ raise_exception('nobody speaks') }}{% endif %}" +
  "{{ message.role }}: {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

/** What is taken away once the tests of a file have run: a test that runs can register nothing. */
const made: (() => unknown)[] = [];
afterAll(() => made.splice(0).forEach((undo) => undo()));

/** The trained model with a chat template. */
export function chatModel(): string {
  const folder = join(mkdtempSync(join(tmpdir(), "diffattn-serve-")), "tiny");
  cpSync(trained, folder, { recursive: true });
  writeFileSync(join(folder, "chat_template.jinja"), TEMPLATE);
  made.push(() => rmSync(join(folder, ".."), { recursive: true, force: true }));
  return folder;
}

export interface Running {
  readonly address: string;
  readonly child: ChildProcess;
  /** What it said on standard error so far. */
  readonly said: () => string;
  /** Its exit code, once it has ended. */
  readonly ended: Promise<number | null>;
  post(path: string, body: unknown, options?: RequestInit): Promise<Response>;
  get(path: string): Promise<Response>;
  /** A number that /metrics tells. */
  metric(name: string): Promise<number>;
}

/** Serves a model until the tests of a file have run. */
export async function serving(model: string, args: readonly string[] = [], environment: Record<string, string> = {}): Promise<Running> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(DIFFATTN_|NODE_OPTIONS|FORCE_COLOR)/.test(name)));
  const child = spawn(process.execPath, [program, "serve", model, "--port", "0", ...args], {
    env: { ...env, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  child.stderr.on("data", (piece: Buffer) => (err += piece.toString()));
  made.push(() => child.kill("SIGKILL"));
  const address = await new Promise<string>((resolve, reject) => {
    child.stdout.on("data", (piece: Buffer) => {
      out += piece.toString();
      const [, found] = /^(http:\S+) serves .*\n/.exec(out) ?? [];
      if (found) resolve(found);
    });
    void ended.then((code) => reject(new Error(`the server ended with ${code}: ${out}${err}`)));
  });
  const get = (path: string): Promise<Response> => fetch(address + path);
  return {
    address,
    child,
    said: () => err,
    ended,
    get,
    post: (path, body, options) =>
      fetch(address + path, {
        method: "POST",
        body: typeof body === "string" ? body : JSON.stringify(body),
        ...options,
        headers: { "content-type": "application/json", ...(options?.headers as Record<string, string> | undefined) },
      }),
    metric: async (name) => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(await (await get("/metrics")).text())?.[1]),
  };
}

/** What the package itself writes. */
export async function written(
  prompt: string,
  options: models.GenerateOptions = {},
): Promise<{ text: string; ids: number[]; finish: string | null }> {
  const model = await (loaded ??= LanguageModel.load(trained));
  const all = { text: "", ids: [] as number[], finish: null as string | null };
  for await (const token of model.generate(prompt, options)) {
    all.text += token.text;
    all.ids.push(token.id);
    all.finish = token.finish;
  }
  return all;
}

let loaded: Promise<models.LanguageModel> | undefined;
export const library = (): Promise<models.LanguageModel> => (loaded ??= LanguageModel.load(trained));

/** Waits until something is so. */
export async function until(body: () => Promise<boolean>): Promise<void> {
  const begin = Date.now();
  while (!(await body())) {
    if (Date.now() - begin > 20_000) throw new Error("it did not come");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// The fields of a request's body: each is read once, by its name and kind, and what no one read is
// refused. Knows no request.

import { ApiError, invalid, notDone } from "./api-error.js";

type Json = Readonly<Record<string, unknown>>;

export const isRecord = (x: unknown): x is Json => typeof x === "object" && x !== null && !Array.isArray(x);

/** What a value is, as an error says it. */
function kindOf(x: unknown): string {
  if (x === null) return "null";
  if (Array.isArray(x)) return `a list of ${x.length}`;
  if (typeof x === "string") return x.length > 60 ? "a long text" : JSON.stringify(x);
  return typeof x === "number" || typeof x === "boolean" ? String(x) : "an object";
}

/** A body. null stands for what is not there. */
export class Fields {
  readonly #json: Json;
  readonly #read = new Set<string>();

  constructor(json: unknown) {
    if (!isRecord(json)) throw new ApiError(400, `the body: expected an object in JSON, got ${kindOf(json)}`);
    this.#json = json;
  }

  /** Whatever stands there; undefined where nothing does. */
  any(name: string): unknown {
    this.#read.add(name);
    return Object.hasOwn(this.#json, name) ? (this.#json[name] ?? undefined) : undefined;
  }

  #of<T>(name: string, expected: string, is: (x: unknown) => x is T): T | undefined {
    const value = this.any(name);
    if (value === undefined || is(value)) return value;
    throw invalid(name, `expected ${expected}, got ${kindOf(value)}`);
  }

  number(name: string, least: number, most: number): number | undefined {
    const is = (x: unknown): x is number => typeof x === "number" && x >= least && x <= most;
    return this.#of(name, `a number from ${least} to ${most}`, is);
  }

  integer(name: string, least: number, most: number = Number.MAX_SAFE_INTEGER): number | undefined {
    const is = (x: unknown): x is number => Number.isInteger(x) && (x as number) >= least && (x as number) <= most;
    return this.#of(name, `an integer from ${least}${most === Number.MAX_SAFE_INTEGER ? "" : ` to ${most}`}`, is);
  }

  flag(name: string): boolean {
    return this.#of(name, "true or false", (x) => typeof x === "boolean") ?? false;
  }

  text(name: string): string | undefined {
    return this.#of(name, "a text", (x) => typeof x === "string");
  }

  record(name: string): Json | undefined {
    return this.#of(name, "an object", isRecord);
  }

  list(name: string): readonly unknown[] | undefined {
    return this.#of(name, "a list", (x): x is unknown[] => Array.isArray(x));
  }

  /** Fields that change nothing here. */
  ignore(...names: readonly string[]): void {
    for (const name of names) this.#read.add(name);
  }

  /** Refuses what is not done, unless it says what is so anyway. */
  refuse(name: string, isSo: (value: unknown) => boolean = () => false): void {
    const value = this.any(name);
    const isEmpty = value === undefined || value === false || (Array.isArray(value) && value.length === 0);
    if (!isEmpty && !isSo(value)) throw notDone(name);
  }

  /** Refuses what no one read. */
  end(): void {
    const name = Object.keys(this.#json).find((name) => !this.#read.has(name));
    if (name !== undefined)
      throw new ApiError(400, `${name.slice(0, 60)}: this server has no such parameter`, name.slice(0, 60), "unknown_parameter");
  }
}

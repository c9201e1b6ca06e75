// Writes requests by their tables (*.generated.ts): what the package gives itself, then what the
// caller's options say; what no table names is refused. And the types of what a table takes. Knows
// no request.

import type { Stream, Write } from "./atoms.js";
import { checkOptions, unreadable } from "./check.js";

/** Fields by name. Each is an atom, or a combinator and its arguments. */
type Fields = Readonly<Record<string, unknown>>;

/** A request's table. */
export interface Table {
  readonly op: number;
  /** What the package gives itself, in the protocol's order. */
  readonly operands: Fields;
  /** What the caller's options may hold, in tables that several requests may share. */
  readonly options: readonly Fields[];
}

// What a table takes.

/** The name of a combinator. */
type NameOf<C> = C extends { readonly combinator?: infer N } ? Exclude<N, undefined> : never;

/** What a field takes: of an atom its own type, of a combinator what it makes of its arguments. */
export type ValueOf<F> =
  F extends Write<infer T> ? T : F extends readonly [infer C, ...infer A extends readonly unknown[]] ? Combined<NameOf<C>, A> : never;

type Combined<N, A extends readonly unknown[]> = N extends "optional" | "nullable" | "orNone"
  ? ValueOf<A[0]> | null | undefined
  : N extends "or"
    ? ValueOf<A[1]> | null | undefined
    : N extends "choice"
      ? A[number]
      : N extends "list"
        ? ArrayLike<ValueOf<A[0]>>
        : N extends "oneOrMore"
          ? ValueOf<A[0]> | ArrayLike<ValueOf<A[0]>>
          : N extends "pair"
            ? readonly [ValueOf<A[2]>, ValueOf<A[2]>]
            : N extends "record" | "fields"
              ? ValuesOf<A[0]>
              : N extends "variant"
                ? { [K in keyof A[0]]: { readonly [P in K]: ValueOf<A[0][K]> } }[keyof A[0]]
                : N extends "weights"
                  ? object
                  : never;

/** What fields take; one that takes nothing, too, may be left out. */
export type ValuesOf<T> = { readonly [K in keyof T as undefined extends ValueOf<T[K]> ? never : K]: ValueOf<T[K]> } & {
  readonly [K in keyof T as undefined extends ValueOf<T[K]> ? K : never]?: ValueOf<T[K]>;
};

type Intersection<T extends readonly unknown[]> = T extends readonly [infer First, ...infer Rest] ? First & Intersection<Rest> : unknown;

/** The options of a request, as its tables have them. */
type OptionsOf<R extends Table> = Intersection<R["options"]>;

/** The fields of a record, alone or in a list. */
type RecordOf<F> = F extends readonly [infer C, ...infer A extends readonly unknown[]]
  ? { record: A[0]; optional: RecordOf<A[0]>; orNone: RecordOf<A[0]>; list: RecordOf<A[0]> }[NameOf<C> &
      ("record" | "optional" | "orNone" | "list")]
  : never;

/** What a record is told as. */
type Told<T> = NonNullable<T> extends ArrayLike<infer Item> ? Item : NonNullable<T>;

/**
 * Whether a field has the form of an option: the same type, and where it is a record the same
 * names.
 */
type Fits<F, T> = [T] extends [ValueOf<F> | null | undefined]
  ? [RecordOf<F>] extends [never]
    ? true
    : [Exclude<keyof Told<T>, keyof RecordOf<F>> | Exclude<keyof RecordOf<F>, keyof Told<T>> | Unlike<RecordOf<F>, Told<T>>] extends [never]
      ? true
      : false
  : false;

/** Fields that have not the form of the option of their name. */
type Unlike<F, T> = { [K in keyof F & keyof T]: Fits<F[K], T[K]> extends true ? never : K }[keyof F & keyof T];

/**
 * What a request's table and the options of types.ts do not have in common. `Besides`: what is no
 * part of the request.
 */
export type Differing<R extends Table, T, Besides = never> =
  Exclude<keyof T, keyof OptionsOf<R> | Besides> | Exclude<keyof OptionsOf<R>, keyof T | Besides> | Unlike<OptionsOf<R>, T>;

// How it is written.

interface Compiled {
  readonly operands: readonly (readonly [string, Write])[];
  readonly options: readonly (readonly [string, Write])[];
  /** Options that are known. */
  readonly names: readonly string[];
}

/** A form's writer: combinators made of what their arguments make. */
function writerOf(form: unknown): unknown {
  if (Array.isArray(form)) {
    const [combinator, ...given] = form as [(...args: unknown[]) => Write, ...unknown[]];
    return combinator(...given.map(writerOf));
  }
  return typeof form === "object" && form !== null ? Object.fromEntries(writersOf(form as Fields)) : form;
}

const writersOf = (table: Fields): [string, Write][] => Object.entries(table).map(([name, form]) => [name, writerOf(form) as Write]);

const compiled = new WeakMap<Table, Compiled>();

/** Once per table: a small call feels it. */
function compile(table: Table, besides: readonly string[], refused: readonly string[]): Compiled {
  const options = table.options.flatMap(writersOf);
  const known = options.map(([name]) => name).filter((name) => !refused.includes(name));
  const made = { operands: writersOf(table.operands), options, names: [...known, ...besides] };
  compiled.set(table, made);
  return made;
}

const NONE: readonly string[] = [];

/**
 * Writes a request. `besides`: names among the options that are no part of it; `refused`: names of
 * its table that are unknown to the caller. Both are those of the table's first request.
 */
export function encode<R extends Table>(
  table: R,
  given: ValuesOf<R["operands"]>,
  options?: unknown,
  besides: readonly string[] = NONE,
  refused: readonly string[] = NONE,
): Stream {
  const { operands, options: entries, names } = compiled.get(table) ?? compile(table, besides, refused);
  // In the one form that the engine's code for small calls is made for; `dtype` and `half` mean
  // nothing before the first tensor.
  const s: Stream = { op: table.op, params: [], operands: [], objects: [], dtype: "float32", half: false };
  for (const [name, write] of operands) write(s, name, (given as Record<string, unknown>)[name]);
  if (names.length === 0) return s;
  const said = checkOptions("options", options as Record<string, unknown>, names);
  let at = "options";
  try {
    // (Reading only the names that are given: 0.98 of the smallest call natively, 0.99 in
    // WebAssembly, and 0.3 KB more of a page's entry.)
    for (const [name, write] of entries) {
      at = name;
      write(s, name, said[name]);
    }
  } catch (thrown) {
    return unreadable("OPTION", at, thrown);
  }
  return s;
}

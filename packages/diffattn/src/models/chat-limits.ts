// Templates of strangers, run by @huggingface/jinja: as it runs them, but work, results and what is
// made of a result stay in proportion to the template and what it is given. Knows no model.

import { reasonOf } from "../errors.js";

type Library = typeof import("@huggingface/jinja");
type Interpreter = InstanceType<Library["Interpreter"]>;
type Environment = InstanceType<Library["Environment"]>;
type Node = NonNullable<Parameters<Interpreter["evaluate"]>[0]>;
type Value = ReturnType<Interpreter["evaluate"]>;

/** Characters of a template; the longest published ones have 30 thousand. */
const LONGEST = 1 << 17;
/** White space in a row: the library looks for some tags by an expression quadratic in it. */
const SPACES = /\s{1000}/;
/** Work that any template may do, and per character of it and of what it is given. */
const WORK = 1_000_000;
const WORK_EACH = 256;
/** What computing a part of a template counts. */
const STEP = 16;
/** What a character counts that becomes a text of its own. */
const APART = 8;
/** What is put before each line of a JSON text, or between its parts. */
const INDENT = 64;

/** What a template asked for that it does not get. */
export class TooMuch extends Error {}

const tooMuch = (what: string): never => {
  throw new TooMuch(what);
};

/** A part of a syntax tree, as the library's parser makes it. */
interface Part {
  readonly type: string;
  readonly [field: string]: unknown;
}

const isPart = (x: unknown): x is Part => typeof x === "object" && x !== null && typeof (x as Part).type === "string";

/** Expressions whose results are new; what they make is counted. */
const MAKING = new Set(["CallExpression", "FilterExpression", "BinaryExpression", "MemberExpression", "For", "If", "CallStatement"]);
/** Operators that compare or write out all of a list. */
const WRITING = new Set(["==", "!=", "~", "+", "in", "not in"]);
/** Filters that do. */
const WRITERS = new Set(["tojson", "join", "string"]);

/** The name of a filter, with arguments or without. */
function nameOf(filter: unknown): string {
  if (!isPart(filter)) return "";
  const { callee = filter } = filter;
  return isPart(callee) && typeof callee["value"] === "string" ? callee["value"] : "";
}

/** Nodes whose result is written out, so that a list in it costs all that lists within it hold. */
function written(program: unknown): ReadonlySet<unknown> {
  const found = new Set<unknown>();
  const left: unknown[] = [program];
  while (left.length > 0) {
    const next = left.pop();
    if (Array.isArray(next)) for (const item of next as unknown[]) left.push(item);
    if (next instanceof Map) for (const [key, value] of next as Map<unknown, unknown>) left.push(key, value);
    if (!isPart(next)) continue;
    for (const field of ["body", "alternate", "defaultBlock"]) {
      const block = next[field];
      if (Array.isArray(block)) for (const statement of block as unknown[]) found.add(statement);
    }
    const { operator } = next as { operator?: { value?: string } };
    if (next.type === "BinaryExpression" && WRITING.has(operator?.value ?? "")) found.add(next["left"]).add(next["right"]);
    if (next.type === "FilterExpression" && WRITERS.has(nameOf(next["filter"]))) found.add(next["operand"]);
    left.push(...Object.values(next));
  }
  return found;
}

const isText = (value: Value | undefined): value is Value & { value: string } => value?.type === "StringValue";
const isNamespace = (value: Value | undefined): boolean => value?.type === "NamespaceValue";

/** How many values a value holds; undefined where it is no list, object or namespace. */
function countOf({ value }: Value): number | undefined {
  if (Array.isArray(value)) return value.length;
  return value instanceof Map ? value.size : undefined;
}

const heldBy = ({ value }: Value): Iterable<Value> => (Array.isArray(value) ? value : value instanceof Map ? value.values() : []);

/** What of an argument of a call is computed. */
const valueNode = (argument: Part): unknown =>
  argument.type === "KeywordArgumentExpression" ? argument["value"] : /Spread/.test(argument.type) ? argument["argument"] : argument;

/** Work of what makes `operand` grow, by its name: a filter's, or "replace" for a text's method. */
function growthOf(name: string, operand: Value, given: readonly Value[], sizeOf: (value: Value) => number): number {
  const all = given.flatMap((value) => [value, ...heldBy(value)]);
  const [first, second] = all.filter(isText);
  const longest = Math.max(0, ...all.filter(isText).map(({ value }) => value.length));
  const count = countOf(operand) ?? (isText(operand) ? operand.value.length : 1);
  if (name === "replace" && isText(operand) && first && second) {
    // (Which comes first, keywords may turn around.)
    const found = [first.value, second.value].map((text) => (text === "" ? count + 1 : operand.value.split(text).length - 1));
    return Math.max(...found) * longest;
  }
  if (name === "join") return count * (longest + (isText(operand) ? APART : 0));
  if (name !== "indent" && name !== "tojson") return 0;
  const numbers = all.map(({ value }) => value).filter((value) => typeof value === "number");
  if (Math.max(longest, ...numbers) > INDENT) tooMuch(`${name} by more than ${INDENT} characters`);
  const lines = isText(operand) ? operand.value.split("\n").length : sizeOf(operand);
  return lines * Math.max(longest, ...numbers);
}

/**
 * Parts and characters of a value, those within it included; refuses lists that hold more than
 * `most`, and namespaces in them, which can change. `known` keeps those of lists and objects.
 */
function sizeWithin(most: number, known: WeakMap<object, number>, value: Value): number {
  const before = known.get(value);
  if (before !== undefined) return before;
  let size = 1 + (isText(value) ? value.value.length : 0);
  for (const held of heldBy(value)) {
    if (isNamespace(held)) tooMuch("a namespace within a value");
    size += sizeWithin(most, known, held);
    if (size > most) tooMuch(`a value of more than ${most} parts and characters`);
  }
  if (countOf(value) !== undefined && !isNamespace(value)) known.set(value, size);
  return size;
}

/** A library's interpreter that counts. */
function counting(library: Library): new (environment: Environment, program: Part, most: number) => Interpreter {
  return class extends library.Interpreter {
    #left: number;
    readonly #written: ReadonlySet<unknown>;
    /** Of lists and objects: their parts and characters, those within them included. */
    readonly #sizes = new WeakMap<object, number>();
    /** What was computed to be looked at, before the library asks for it. */
    readonly #ready = new Map<unknown, Value>();

    constructor(
      environment: Environment,
      program: Part,
      readonly most: number,
    ) {
      super(environment);
      this.#left = most;
      this.#written = written(program);
    }

    override evaluate(node: Node | undefined, environment: Environment): Value {
      const ready = this.#ready.get(node);
      if (ready) {
        this.#ready.delete(node);
        return ready;
      }
      this.#spend(STEP);
      if (node) this.#lookAhead(node as unknown as Part, environment);
      const value = super.evaluate(node, environment);
      if (!node) return value;
      const makes = MAKING.has(node.type);
      const count = countOf(value);
      if (count !== undefined) {
        const size = sizeWithin(this.most, this.#sizes, value);
        if (this.#written.has(node)) this.#spend(size);
        else if (makes) this.#spend(count);
      } else if (makes && isText(value)) this.#spend(value.value.length);
      return value;
    }

    #spend(work: number): void {
      this.#left -= work;
      if (!(this.#left >= 0)) tooMuch(`more work than for ${this.most} characters`);
    }

    #grow(name: string, operand: Value, given: readonly Value[]): void {
      this.#spend(growthOf(name, operand, given, (value) => sizeWithin(this.most, this.#sizes, value)));
    }

    /** Looks at what an operation is given, where its result may be of any size. */
    #lookAhead(node: Part, environment: Environment): void {
      const { assignee, callee, filter, property } = node;
      if (node.type === "Set" && isPart(node["value"]) && isPart(assignee) && assignee.type === "MemberExpression") {
        const [value] = this.#compute([node["value"]], environment);
        if (isNamespace(value)) tooMuch("a namespace within a namespace");
      } else if (node.type === "FilterExpression" && isPart(filter) && filter.type === "CallExpression") {
        const [operand, ...given] = this.#compute([node["operand"], ...(filter["args"] as Part[]).map(valueNode)], environment);
        if (operand) this.#grow(nameOf(filter), operand, given);
      } else if (node.type === "CallExpression" && isPart(callee) && callee.type === "MemberExpression") {
        const values = this.#compute([...(node["args"] as Part[]).map(valueNode), callee["object"]], environment);
        const object = values.at(-1);
        if (!isText(object)) return;
        // A text's method: `split` makes many of one, `replace` a longer one.
        this.#grow("replace", object, values.slice(0, -1));
        this.#spend(APART * object.value.length);
      } else if (node.type === "MemberExpression" && isPart(property) && property.type === "SliceExpression") {
        const [object] = this.#compute([node["object"]], environment);
        if (isText(object)) this.#spend(APART * object.value.length);
      }
    }

    /** Computes parts of an operation, to be looked at; they are not computed again. */
    #compute(nodes: readonly unknown[], environment: Environment): Value[] {
      const values = nodes.map((node) => this.evaluate(node as Node, environment));
      // (At the end: what is computed may meet the same nodes, in a macro that calls itself.)
      for (const [at, value] of values.entries()) this.#ready.set(nodes[at], value);
      return values;
    }
  };
}

/** Numbers from a first one to a last one, as Python's `range` has them. */
function range(most: number): (start: number, stop?: number, step?: number) => number[] {
  return (first, last, step = 1) => {
    const [start, stop] = typeof last === "number" ? [first, last] : [0, first];
    const count = Math.max(0, Math.ceil((stop - start) / step));
    if (![start, stop, step].every(Number.isInteger) || step === 0) throw new TypeError("range() of no whole numbers");
    if (count > most) return tooMuch(`a range of ${count}`);
    return Array.from({ length: count }, (_, at) => start + at * step);
  };
}

const MONTHS = "January February March April May June July August September October November December".split(" ");
const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

/** Python's `strftime` of this moment, in English. */
function strftimeNow(format: string): string {
  const now = new Date();
  const two = (x: number): string => String(x).padStart(2, "0");
  const [month, day] = [MONTHS[now.getMonth()] ?? "", DAYS[now.getDay()] ?? ""];
  const said: Readonly<Record<string, string>> = {
    Y: String(now.getFullYear()),
    y: two(now.getFullYear() % 100),
    m: two(now.getMonth() + 1),
    d: two(now.getDate()),
    H: two(now.getHours()),
    M: two(now.getMinutes()),
    S: two(now.getSeconds()),
    B: month,
    b: month.slice(0, 3),
    A: day,
    a: day.slice(0, 3),
    "%": "%",
  };
  return format.replaceAll(/%(.)/g, (whole, letter: string) => said[letter] ?? whole);
}

/** What a template itself said was wrong. */
export class Raised extends Error {}

/**
 * What a template makes of variables. Throws what the library does for a template that is none;
 * {@link TooMuch}; {@link Raised}.
 */
export function render(library: Library, template: string, variables: Readonly<Record<string, unknown>>, size: number): string {
  if (template.length > LONGEST) tooMuch(`a template of ${template.length} characters (${LONGEST} at most)`);
  if (SPACES.test(template)) tooMuch("1000 characters of white space in a row");
  const most = WORK + WORK_EACH * (template.length + size);
  // (Line ends are one kind to Jinja.)
  const source = template.replaceAll(/\r\n?/g, "\n");
  const program = library.parse(library.tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
  const environment = new library.Environment();
  const globals = {
    ...{ true: true, True: true, false: false, False: false, none: null, None: null },
    raise_exception: (why: unknown) => {
      throw new Raised(reasonOf(why));
    },
    range: range(most),
    strftime_now: strftimeNow,
    ...variables,
  };
  for (const [name, value] of Object.entries(globals)) environment.set(name, value);
  const Counting = counting(library);
  const { value } = new Counting(environment, program as unknown as Part, most).run(program);
  return value as string;
}

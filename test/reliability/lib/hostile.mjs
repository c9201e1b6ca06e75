// Values that nobody expects, and how they get among the arguments of a call that was right. No
// absolute path and none that leads upwards: some calls write files. No number between what is
// small and what no machine has: such a wish would be granted.

import { Theirs } from "./package.mjs";

const chain = (depth) => {
  let nested = [1];
  for (let i = 0; i < depth; i++) nested = [nested];
  return nested;
};
const wide = (depth) => {
  let nested = [1];
  for (let i = 0; i < depth; i++) nested = Array(8).fill(nested);
  return nested;
};
const cyclic = [1];
cyclic.push(cyclic);
const cyclicObject = { shape: [1], data: new Float32Array(1) };
cyclicObject.shape.push(cyclicObject);

const revoked = () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};
const detached = () => {
  const data = new Float32Array(16);
  structuredClone(data.buffer, { transfer: [data.buffer] });
  return data;
};
/** A view whose buffer has become too short for it. */
const outOfBounds = () => {
  const buffer = new ArrayBuffer(64, { maxByteLength: 128 });
  const data = new Float32Array(buffer, 16, 12);
  buffer.resize(32);
  return data;
};
const throws = (name) =>
  Object.defineProperty({}, name, {
    enumerable: true,
    get: () => {
      throw new Theirs(name);
    },
  });

const NUMBERS = [
  0,
  -0,
  1,
  -1,
  2,
  3,
  0.5,
  -0.5,
  NaN,
  Infinity,
  -Infinity,
  5e-324,
  1e-30,
  1e308,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  2 ** 32 + 1,
  2 ** 53,
  2 ** 53 + 2,
  2 ** 63,
  2 ** 64,
  -(2 ** 31),
  -(2 ** 53),
];
const TEXTS = [
  "",
  "x",
  "0",
  "1",
  "constructor",
  "__proto__",
  "toString",
  "float32",
  "bfloat16",
  "halves",
  "\u0000",
  "\u001b[2J",
  "\ud800",
  "x".repeat(100_000),
  "no/such/folder/",
];
const PLAIN = [undefined, null, true, false, 0n, 5n, 2n ** 70n, -1n];

/** Long lists are made once: they are many bytes. */
const LONG = [Array(300_000).fill(1), chain(20_000), wide(6), new Array(2 ** 32 - 1), cyclic, cyclicObject];

const MAKERS = [
  () => Symbol("s"),
  () => () => 1,
  () => async () => 1,
  () => class {},
  () => ({}),
  () => Object.create(null),
  () => Object.assign(Object.create(null), { data: new Float32Array(4), shape: [4] }),
  () => [],
  () => [1],
  () => [-1],
  () => [0.5],
  () => [NaN, null],
  () => [null],
  () => [undefined, undefined],
  () => ["1"],
  () => [1n],
  () => [Symbol("s")],
  () => [[1], [2]],
  () => [{}],
  () => [1, , 3], // eslint-disable-line no-sparse-arrays
  () => Object.freeze([2, 2]),
  () => ({ length: 2 ** 31, 0: 1 }),
  () => ({ length: -1 }),
  () => new Proxy({}, {}),
  () => new Proxy([1, 2], {}),
  () => new Proxy(new Float32Array(4), {}),
  revoked,
  () => new Date(0),
  () => /x/,
  () => new Map([["data", 1]]),
  () => new Set([1]),
  () => new WeakMap(),
  () => Promise.resolve(1),
  () => new Error("x"),
  () => new Number(3),
  () => new String("x"),
  () => Object(1n),
  () => Object(Symbol("s")),
  () => new ArrayBuffer(16),
  () => new SharedArrayBuffer(16),
  () => new DataView(new ArrayBuffer(16)),
  () => new Float32Array(0),
  () => new Float32Array(16),
  () => new Float32Array(new ArrayBuffer(64), 4, 7),
  () => new Float32Array(new SharedArrayBuffer(64)),
  () => new Float64Array(16),
  () => new Uint8Array(16),
  () => new Uint8ClampedArray(16),
  () => new Int8Array(16),
  () => new Uint16Array(16),
  () => new Int32Array(16),
  () => new Int32Array([2 ** 31 - 1, -(2 ** 31)]),
  () => new BigInt64Array(4),
  () => Buffer.from("abcd"),
  detached,
  outOfBounds,
  () => ({ data: detached(), shape: [16] }),
  () => ({ data: outOfBounds(), shape: [12] }),
  () => ({ data: new Float32Array(4), shape: [4], dims: [2, 2] }),
  () => ({ data: new Float32Array(0), shape: [2 ** 31, 2 ** 31, 0] }),
  () => ({ data: new Float32Array(0), shape: [2 ** 53, 2 ** 53] }),
  () => ({ data: new Float32Array(0), shape: [1, 0, 1, 2 ** 26] }),
  () => ({ data: new Float32Array(2), shape: [2n] }),
  () => ({ data: new Float32Array(2), shape: ["2"] }),
  () => ({ data: new Float32Array(2), shape: new Int32Array([2]) }),
  () => ({ data: new Float32Array(2), shape: { length: 1, 0: 2 } }),
  () => ({ data: [1, 2], shape: [2] }),
  () => ({ data: null, shape: [2] }),
  () => ({ data: new Float32Array(4), shape: [4], dtype: "float16" }),
  () => ({ data: new Uint16Array(4), shape: [4], dtype: "float64" }),
  () => ({ data: new Uint16Array(4), shape: [4], dtype: Symbol("s") }),
  () => throws("data"),
  () => ({
    data: new Float32Array(1),
    get shape() {
      throw new Theirs("shape");
    },
  }),
  () => ({
    valueOf() {
      throw new Theirs("valueOf");
    },
    toString() {
      throw new Theirs("toString");
    },
  }),
  () => ({
    [Symbol.toPrimitive]() {
      throw new Theirs("toPrimitive");
    },
  }),
  () => ({
    get [Symbol.toStringTag]() {
      throw new Theirs("toStringTag");
    },
  }),
  () => ({ constructor: null }),
  () => ({ constructor: { name: { toString: null } } }),
  () => AbortSignal.abort(),
  () => AbortSignal.abort("why"),
  () => new AbortController().signal,
  () => ({ aborted: true, reason: 1, addEventListener() {}, removeEventListener() {} }),
  () => new EventTarget(),
  () => globalThis,
];

/** One value that nobody expects. */
export function hostile(random) {
  switch (random.integer(0, 9)) {
    case 0:
    case 1:
    case 2:
      return random.pick(NUMBERS);
    case 3:
      return random.pick(TEXTS);
    case 4:
      return random.pick(PLAIN);
    case 5:
      return random.oneIn(3) ? random.pick(LONG) : Array.from({ length: random.integer(0, 6) }, () => random.pick(NUMBERS));
    default:
      return random.pick(MAKERS)();
  }
}

/** Arrays and objects of no class. */
const isPlain = (value) =>
  typeof value === "object" && value !== null && (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype);

/**
 * A copy of `value` down to the given depth, so that a change is no one else's; `own` gets all that
 * is part of it.
 */
function copied(value, own, depth = 4) {
  if (depth === 0 || !isPlain(value)) return value;
  const copy = Array.isArray(value)
    ? value.map((item) => copied(item, own, depth - 1))
    : Object.fromEntries(Object.entries(value).map(([key, item]) => [key, copied(item, own, depth - 1)]));
  own.add(copy);
  return copy;
}

/**
 * Puts one to three hostile values among arguments: in the place of one, deep in it, or as an
 * option among `names`.
 */
export function mutated(random, args, names) {
  const own = new Set();
  const list = copied(args, own);
  let told = [];
  for (let left = random.integer(1, 3); left > 0; left--) {
    let parent = list;
    let key = random.integer(0, list.length - 1);
    for (let depth = 0; depth < 3 && own.has(parent[key]) && !random.oneIn(3); depth++) {
      parent = parent[key];
      const keys = Object.keys(parent);
      if (Array.isArray(parent)) key = random.integer(0, parent.length);
      else if (keys.length === 0 || random.oneIn(3)) key = random.pick(parent === list.at(-1) ? names : [...keys, "lamda"]);
      else key = random.pick(keys);
    }
    if (random.oneIn(12) && !Array.isArray(parent)) delete parent[key];
    else parent[key] = hostile(random);
    told = [...told, String(key)];
  }
  if (random.oneIn(40)) list.pop();
  return { args: list, told: told.join(", ") };
}

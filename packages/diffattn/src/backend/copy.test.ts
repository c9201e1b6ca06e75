// Buffers of copies that come back. (That calls are right over them: test/suite.)

import { expect, test } from "vitest";
import { SMALLEST_SPARE, Spares } from "./copy.js";

/** Whether both are the same buffers: equal ones are not enough. */
const same = (some: readonly unknown[], others: readonly unknown[]): boolean =>
  some.length === others.length && some.every((one, i) => one === others[i]);

const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);

test("a copy takes the smallest spare buffer that it fits into, once", () => {
  const spares = new Spares();
  const [large, small] = [new ArrayBuffer(4 * SMALLEST_SPARE), new ArrayBuffer(2 * SMALLEST_SPARE)];
  spares.add([large, small]);
  const source = bytes(SMALLEST_SPARE, 7);
  const copies = [spares.copyOf(source), spares.copyOf(source), spares.copyOf(source)];
  const taken = copies.map(({ buffer }) => buffer);
  expect(same(taken.slice(0, 2), [small, large])).toBe(true);
  expect([small, large].some((spare) => spare === taken[2])).toBe(false);
  for (const copy of copies) expect(Buffer.compare(copy, source)).toBe(0);
});

test("what no spare buffer holds, and what is small, has memory of its own", () => {
  const spares = new Spares();
  const spare = new ArrayBuffer(SMALLEST_SPARE);
  spares.add([spare]);
  for (const length of [0, 1, SMALLEST_SPARE - 1, SMALLEST_SPARE + 1]) {
    const copy = spares.copyOf(bytes(length, 3));
    expect(copy.buffer === spare).toBe(false);
    expect(Buffer.compare(copy, bytes(length, 3))).toBe(0);
  }
});

test("32 MB and 64 buffers are kept, the newest", () => {
  const spares = new Spares();
  const buffers = Array.from({ length: 5 }, () => new ArrayBuffer(8 << 20));
  spares.add(buffers);
  const source = new Uint8Array(8 << 20);
  const taken = Array.from({ length: 5 }, () => spares.copyOf(source).buffer);
  expect(same(taken.slice(0, 4), buffers.slice(1))).toBe(true);
  expect(buffers.some((buffer) => buffer === taken[4])).toBe(false);
  const many = Array.from({ length: 65 }, () => new ArrayBuffer(SMALLEST_SPARE));
  spares.add(many);
  const again = Array.from({ length: 65 }, () => spares.copyOf(new Uint8Array(SMALLEST_SPARE)).buffer);
  expect(same(again.slice(0, 64), many.slice(1))).toBe(true);
  expect(many.some((buffer) => buffer === again[64])).toBe(false);
});

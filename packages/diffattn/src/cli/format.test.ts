import { expect, test } from "vitest";
import { bytes, columns, count, counted, duration, median } from "./format.js";

test("numbers are read at a glance", () => {
  expect([count(6952192), counted(1, "token"), counted(1200, "token")]).toEqual(["6,952,192", "1 token", "1,200 tokens"]);
  expect([0, 999, 1000, 13_904_384, 2.5e12, 4e15].map(bytes)).toEqual(["0 B", "999 B", "1.0 KB", "13.9 MB", "2.5 TB", "4000.0 TB"]);
  expect([2e-6, 0.0314, 1.5, 99.99, 754.2].map(duration)).toEqual(["2.00 µs", "31.4 ms", "1.50 s", "100 s", "754 s"]);
});

test("columns are as wide as their widest cell, and nothing follows the last", () => {
  expect(
    columns(
      [
        ["a", "1", ""],
        ["long", "22", "x"],
      ],
      [1],
    ),
  ).toEqual(["a      1", "long  22  x"]);
});

test("the middle of unsorted values", () => {
  expect([median([3, 1, 2]), median([10, 9])]).toEqual([2, 10]);
  expect(median([])).toBeNaN();
});

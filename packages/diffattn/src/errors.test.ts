import { expect, test } from "vitest";
import { aborted, DiffAttnError, disposed, fail, internal, outOfMemory } from "./errors.js";

test("an error carries its code, one sentence and its cause", () => {
  const cause = new Error("why");
  const attempt = (): never => fail("SHAPE", "q", "rank 4", "rank 3", cause);
  expect(attempt).toThrow(DiffAttnError);
  expect(attempt).toThrow(
    expect.objectContaining({ code: "SHAPE", name: "DiffAttnError", message: "q: expected rank 4, got rank 3", cause }),
  );
});

test("an aborted call looks like the platform's own abort", () => {
  const reason = { mine: true };
  expect(aborted(reason)).toMatchObject({ code: "ABORTED", name: "AbortError", cause: reason });
  expect(aborted(reason)).toBeInstanceOf(Error);
});

test("the sentences are those of crates/diffattn/src/error.rs", () => {
  expect(aborted(0).message).toBe("signal: the call was aborted");
  expect(disposed("cache").message).toBe("cache: expected a live object, got one that was disposed of");
  expect(outOfMemory(12).message).toBe("memory: expected 12 more bytes, got a refusal");
  expect(internal("x").message).toBe("internal error (a bug of diffattn): x");
});

test("an error is one of the class by its mark, so that an entry which stands alone has it too", async () => {
  const { drawMap } = await import("./viz/index.js");
  expect(() => drawMap(null as never)).toThrow(DiffAttnError);
  class Mine extends DiffAttnError {}
  expect(new Mine("FILE", "a")).toBeInstanceOf(DiffAttnError);
  expect(new Mine("FILE", "a")).toBeInstanceOf(Mine);
  expect(new DiffAttnError("FILE", "a")).not.toBeInstanceOf(Mine);
  for (const other of [new Error("a"), new RangeError("a"), { name: "DiffAttnError", code: "FILE" }, null, undefined, "a", 1])
    expect(other instanceof DiffAttnError).toBe(false);
});

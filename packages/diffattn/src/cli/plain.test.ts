import fc from "fast-check";
import { expect, test } from "vitest";
import { oneLine, plain } from "./plain.js";

/** As the Unicode tables have it, not as the expression does. */
const isControl = (code: number): boolean => code < 0x20 || (code >= 0x7f && code < 0xa0);

test("every control character but line ends and tabs is shown, and nothing else is changed", () => {
  for (let code = 0; code < 0x10000; code += 1) {
    const character = String.fromCharCode(code);
    const shown = plain(`a${character}b`);
    if (character === "\n" || character === "\t") expect(shown).toBe(`a${character}b`);
    else if (isControl(code)) expect(shown).toBe(`a\\u${code.toString(16).padStart(4, "0")}b`);
    else if (shown !== `a${character}b`) expect(character).toMatch(/\p{Bidi_Control}|\p{Zl}|\p{Zp}/u);
  }
  expect(plain("\u001b]0;title\u0007 \u009b31m \r\n\u202e \u{1F600}")).toBe("\\u001b]0;title\\u0007 \\u009b31m \\u000d\n\\u202e \u{1F600}");
});

test("what turns text around is shown", () => {
  for (let code = 0x80; code < 0x3000; code += 1) {
    const character = String.fromCharCode(code);
    if (/\p{Bidi_Control}|\p{Zl}|\p{Zp}/u.test(character)) expect(plain(character)).toMatch(/^\\u[\da-f]{4}$/);
  }
});

test("a line is one line", () => {
  expect(oneLine("a\nwarning: b\tc\r\n")).toBe("a\\u000awarning: b\tc\\u000d\\u000a");
});

test("JSON says the same, shown or not, and pieces are as their whole", () => {
  const text = fc.string({ unit: "binary" });
  fc.assert(
    fc.property(text, text, (a, b) => {
      expect(JSON.parse(plain(JSON.stringify({ [a]: b }, null, 2)))).toEqual({ [a]: b });
      expect(plain(a) + plain(b)).toBe(plain(a + b));
    }),
  );
});

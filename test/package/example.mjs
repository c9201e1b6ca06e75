// The example of a README and what it says that it prints: the first `js` block and the `text`
// block after it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export function example(path) {
  const found = /```js\n(.*?)```.*?```text\n(.*?)```/s.exec(readFileSync(path, "utf8"));
  assert.ok(found, `${path} has no example with its output`);
  return { code: found[1], printed: found[2] };
}

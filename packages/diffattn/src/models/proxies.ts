// Methods of classes that have private members, which a proxy has not: called on one they run on
// the object itself. (A class that asks for what it owns alone needs none of this: owned.ts.)

import { itself } from "../owned.js";

type Class = abstract new (...args: never[]) => object;

/** Classes whose methods go through proxies. */
const through = new WeakSet();

/**
 * Lets the methods of a class, its own and none that it inherits, run on the object itself where
 * they are called on a proxy. A second time does nothing.
 */
export function throughProxies(type: Class): void {
  if (through.has(type)) return;
  through.add(type);
  const prototype = type.prototype as object;
  for (const name of Reflect.ownKeys(prototype)) {
    const found = Object.getOwnPropertyDescriptor(prototype, name) as { value?: unknown; get?: (this: unknown) => unknown } | undefined;
    if (!found || name === "constructor") continue;
    const original = found.get;
    if (original) {
      found.get = function (this: unknown): unknown {
        return original.call(itself(this));
      };
    } else if (typeof found.value === "function") {
      const method = found.value as (...args: unknown[]) => unknown;
      const isAsync = Object.prototype.toString.call(method) === "[object AsyncFunction]";
      const called = function (this: unknown, ...args: unknown[]): unknown {
        try {
          return method.apply(itself(this), args);
        } catch (error) {
          // (An async method throws nothing, so it is what `this` is.)
          if (!isAsync) throw error;
          return new Promise(() => {
            throw error;
          });
        }
      };
      const { name: itsName, length } = method;
      found.value = Object.defineProperties(called, { name: { value: itsName }, length: { value: length } });
    }
    Object.defineProperty(prototype, name, found);
  }
}

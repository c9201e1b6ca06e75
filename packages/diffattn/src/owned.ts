// The life of what holds memory of the backend: `dispose`, `using`, and the garbage collection of what was forgotten; and that its
// methods may be called through a proxy.
//
// Frameworks hand out objects of their state as proxies (Vue: ref, reactive), and a proxy has no private members. Vue leaves alone what
// has `__v_skip`; of other proxies the object itself is asked for, by a symbol, and its methods run on that.

import { has, show } from "./check.js";
import { disposed, fail } from "./errors.js";

const registry = new FinalizationRegistry<() => void>((release) => release());

/** Older runtimes lack the symbol; TypeScript's `using` takes this one there. */
const symbolDispose: typeof Symbol.dispose =
  (Symbol as { dispose?: typeof Symbol.dispose }).dispose ?? (Symbol.for("Symbol.dispose") as typeof Symbol.dispose);

/** Gives the object itself. A function, which no framework makes a proxy of. */
const ITSELF = Symbol("diffattn.itself");

let read: <T>(owned: Owned<T>) => T;
let isOwned: (x: object) => x is Owned<unknown>;

/** An object of ours, whatever proxy stands before it; undefined for anything else. */
function itself(x: unknown): Owned<unknown> | undefined {
  if (typeof x !== "object" || x === null) return undefined;
  if (isOwned(x)) return x;
  try {
    const found: unknown = has(x, ITSELF) && typeof x[ITSELF] === "function" ? (x[ITSELF] as () => unknown)() : undefined;
    return typeof found === "object" && found !== null && isOwned(found) ? found : undefined;
  } catch {
    return undefined;
  }
}

const notItself = (x: unknown, argument = "this"): never =>
  fail("OPTION", argument, "the object itself, or a proxy that leads to it (Vue: markRaw keeps it as it is)", show(x));

/** What an object owns; DISPOSED after `dispose`. `argument`: what errors call it. */
export const resourceOf = <T>(owned: Owned<T>, argument?: string): T => read((itself(owned) ?? notItself(owned, argument)) as Owned<T>);

/**
 * Lets the methods of a class, its own and none that it inherits, run on the object itself where they are called on a proxy.
 * To be called in the class's static block.
 */
export function throughProxies({ prototype }: { readonly prototype: object }): void {
  const on = (x: unknown): unknown => itself(x) ?? notItself(x);
  for (const name of Reflect.ownKeys(prototype)) {
    const found = Object.getOwnPropertyDescriptor(prototype, name) as { value?: unknown; get?: (this: unknown) => unknown } | undefined;
    if (!found || name === "constructor") continue;
    const original = found.get;
    if (original) {
      found.get = function (this: unknown): unknown {
        return original.call(on(this));
      };
    } else if (typeof found.value === "function") {
      const method = found.value as (...args: unknown[]) => unknown;
      const isAsync = Object.prototype.toString.call(method) === "[object AsyncFunction]";
      const called = function (this: unknown, ...args: unknown[]): unknown {
        try {
          return method.apply(on(this), args);
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

/** Something with one resource, of type T. */
export abstract class Owned<T> {
  readonly #name: string;
  #resource: T | undefined;
  readonly #release: () => void;

  static {
    read = (owned) => {
      if (owned.#resource === undefined) throw disposed(owned.#name);
      return owned.#resource;
    };
    isOwned = (x): x is Owned<unknown> => #resource in x;
    throughProxies(this);
    Object.defineProperty(this.prototype, "__v_skip", { value: true });
  }

  /** `release` must not refer to the object itself. `collected`: whether forgetting the object releases it. */
  constructor(name: string, resource: T, release: () => void, collected: boolean) {
    this.#name = name;
    this.#resource = resource;
    this.#release = release;
    // (The object refers to itself, which keeps it from no garbage collection.)
    Object.defineProperty(this, ITSELF, { value: () => this, configurable: true });
    if (collected) registry.register(this, release, this);
  }

  dispose(): void {
    if (this.#resource === undefined) return;
    this.#resource = undefined;
    registry.unregister(this);
    this.#release();
  }

  [symbolDispose](): void {
    this.dispose();
  }
}

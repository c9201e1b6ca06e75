// The life of what holds memory of the backend: `dispose`, `using`, and the garbage collection of
// what was forgotten; and that its methods may be called through a proxy.
//
// Frameworks hand out objects of their state as proxies (Vue: ref, reactive), and a proxy has no
// private members. Vue leaves alone what has `__v_skip`; of other proxies the object itself is
// asked for, by a symbol, and its methods run on that.

import { has, show } from "./check.js";
import { disposed, fail } from "./errors.js";

/** Gives the object itself. A function, which no framework makes a proxy of. */
const ITSELF = Symbol("diffattn.itself");

type Class = abstract new (...args: never[]) => object;

/** What an object owns: undefined once it was disposed of. */
interface Held {
  readonly name: string;
  resource: unknown;
  readonly release: () => void;
}

const held = new WeakMap<object, Held>();
/** Classes whose methods go through proxies. */
const through = new WeakSet();
/** Made with the first object: who imports none pays for none. */
let registry: FinalizationRegistry<() => void> | undefined;

const isOwned = (x: object): x is Owned<unknown> => held.has(x);

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
export function resourceOf<T>(owned: Owned<T>, argument?: string): T {
  const { name, resource } = held.get(itself(owned) ?? notItself(owned, argument)) as Held;
  if (resource === undefined) throw disposed(name);
  return resource as T;
}

/**
 * Lets the methods of a class, its own and none that it inherits, run on the object itself where
 * they are called on a proxy.
 */
function throughProxies(type: Class): void {
  if (through.has(type)) return;
  through.add(type);
  const prototype = type.prototype as object;
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

/**
 * What `Owned` has besides its methods, made with the first object: a class that does nothing where
 * it is declared, bundlers drop where it is not used.
 */
function complete(): void {
  if (through.has(Owned)) return;
  // Older runtimes lack the symbol; TypeScript's `using` takes this one there.
  const symbolDispose = (Symbol as { dispose?: symbol }).dispose ?? Symbol.for("Symbol.dispose");
  const dispose = function (this: Owned<unknown>): void {
    this.dispose();
  };
  Object.defineProperties(Owned.prototype, {
    [symbolDispose]: { value: dispose, writable: true, configurable: true },
    __v_skip: { value: true },
  });
  throughProxies(Owned);
}

/** Something with one resource, of type T. */
export abstract class Owned<T> {
  declare readonly [Symbol.dispose]: () => void;
  /** Only a type: what its resource is. */
  declare protected readonly resource?: T;

  /**
   * `type`: the class of ours that it is of. `release` must not refer to the object itself.
   * `collected`: whether forgetting the object releases it.
   */
  constructor(type: Class, name: string, resource: T, release: () => void, collected: boolean) {
    complete();
    throughProxies(type);
    held.set(this, { name, resource, release });
    // (The object refers to itself, which keeps it from no garbage collection.)
    Object.defineProperty(this, ITSELF, { value: () => this, configurable: true });
    if (collected) (registry ??= new FinalizationRegistry((release) => release())).register(this, release, this);
  }

  dispose(): void {
    const mine = held.get(this);
    if (mine?.resource === undefined) return;
    mine.resource = undefined;
    registry?.unregister(this);
    mine.release();
  }
}

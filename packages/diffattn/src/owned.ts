// Objects that own something in a backend: released once, by `dispose` or by the garbage
// collection, and found again where one is called through a proxy.
//
// Frameworks hand out objects of their state as proxies (Vue: ref, reactive), and what a proxy
// stands before no WeakMap knows. Vue leaves alone what has `__v_skip`; other proxies are asked for
// what the object owns, by a symbol.

import { show } from "./check.js";
import { disposed, fail } from "./errors.js";

/** Gives what the object owns. A function, which no framework makes a proxy of. */
const HELD = Symbol("diffattn.held");

/** What an object owns: `resource` is undefined once it was disposed of. */
interface Held {
  readonly object: object;
  readonly name: string;
  resource: unknown;
  readonly release: () => void;
}

/** All there are: what a proxy makes of one is none of them. */
const held = new WeakSet<Held>();
/** Made with the first object: who imports none pays for none. */
let registry: FinalizationRegistry<() => void> | undefined;

/** What an object of ours owns, whatever proxy is before it; `argument`: what errors call it. */
function heldBy(x: unknown, argument = "this"): Held {
  try {
    const found = (x as { [HELD]: () => Held })[HELD]();
    if (held.has(found)) return found;
  } catch {
    // Nothing of ours, or it cannot be got at.
  }
  return fail("OPTION", argument, "the object itself, or a proxy that leads to it (Vue: markRaw keeps it as it is)", show(x));
}

/** An object of ours, whatever proxy stands before it. */
export const itself = (x: unknown): object => heldBy(x).object;

/** What an object owns; DISPOSED after `dispose`. `argument`: what errors call it. */
export function resourceOf<T>(owned: Owned<T>, argument?: string): T {
  const { name, resource } = heldBy(owned, argument);
  if (resource === undefined) throw disposed(name);
  return resource as T;
}

/** What `using` calls. Older runtimes lack the symbol; TypeScript takes this one there. */
export const symbolDispose = (): symbol => (Symbol as { dispose?: symbol }).dispose ?? Symbol.for("Symbol.dispose");

/** Something with one resource, of type T. Its methods ask for that by `resourceOf(this)`. */
export abstract class Owned<T> {
  declare readonly [Symbol.dispose]: () => void;
  /** Only a type: what its resource is. */
  declare protected readonly resource?: T;

  /**
   * `release` must not refer to the object itself. `collected`: whether forgetting the object
   * releases it.
   */
  constructor(name: string, resource: T, release: () => void, collected: boolean) {
    const mine: Held = { object: this, name, resource, release };
    held.add(mine);
    // (Here, not in the class: one that does something where it is declared no bundler drops. That
    // the object refers to itself keeps it from no garbage collection.)
    Object.defineProperties(this, {
      // (Else a proxy that gives another function in its place would throw.)
      [HELD]: { value: () => mine, configurable: true },
      [symbolDispose()]: { value: () => this.dispose(), writable: true, configurable: true },
      __v_skip: { value: true },
    });
    if (collected) (registry ??= new FinalizationRegistry((release) => release())).register(this, release, mine);
  }

  dispose(): void {
    const mine = heldBy(this);
    if (mine.resource === undefined) return;
    mine.resource = undefined;
    registry?.unregister(mine);
    mine.release();
  }
}

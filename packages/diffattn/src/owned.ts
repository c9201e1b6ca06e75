// The life of what holds memory of the backend: `dispose`, `using`, and the garbage collection of what was forgotten.

import { disposed } from "./errors.js";

const registry = new FinalizationRegistry<() => void>((release) => release());

/** Older runtimes lack the symbol; TypeScript's `using` takes this one there. */
const symbolDispose: typeof Symbol.dispose =
  (Symbol as { dispose?: typeof Symbol.dispose }).dispose ?? (Symbol.for("Symbol.dispose") as typeof Symbol.dispose);

let read: <T>(owned: Owned<T>) => T;

/** What an object owns; DISPOSED after `dispose`. */
export const resourceOf = <T>(owned: Owned<T>): T => read(owned);

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
  }

  /** `release` must not refer to the object itself. `collected`: whether forgetting the object releases it. */
  constructor(name: string, resource: T, release: () => void, collected: boolean) {
    this.#name = name;
    this.#resource = resource;
    this.#release = release;
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

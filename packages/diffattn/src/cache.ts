// KvCache: the handle of a cache that lives in the backend.

import type { Handle } from "./backend.js";
import { isOf } from "./check.js";
import * as encode from "./operators.js";
import { live } from "./init.js";
import { local } from "./local.js";
import { Owned, resourceOf } from "./owned.js";
import type * as types from "./types.js";

export class KvCache extends Owned<Handle> implements types.KvCache {
  constructor(options: types.KvCacheOptions) {
    const request = encode.createKvCache(options);
    const empty = encode.createKvCache({ ...options, capacity: undefined });
    const owner = local();
    const handle = owner.createObject("cache", request, empty);
    super("cache", handle, () => owner.dropObject(handle), true);
  }

  get length(): number {
    const handle = live(resourceOf(this));
    return local().query(encode.cacheLength(handle));
  }

  append(k: types.TensorLike, v: types.TensorLike, options?: { layout?: types.AttentionLayout | undefined }): void {
    const handle = live(resourceOf(this));
    local().query(encode.append(handle, k, v, options));
  }

  rewind(length: number): void {
    const handle = live(resourceOf(this));
    local().query(encode.rewind(handle, length));
  }
}

/** The handle of a cache; undefined for anything else. */
export const handleOf = (argument: string, x: unknown): Handle | undefined =>
  isOf(x, KvCache) ? live(resourceOf<Handle>(x, argument)) : undefined;

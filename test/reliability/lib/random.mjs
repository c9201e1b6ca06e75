// Random numbers that a seed gives again (mulberry32), and what is drawn with them. Knows nothing
// of the package.

export class Random {
  #state;

  /** The numbers of case `index` of `seed`. */
  constructor(seed, index = 0) {
    this.#state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b)) >>> 0;
  }

  /** In [0, 1). */
  next() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer from `first` up to `last`. */
  integer(first, last) {
    return first + Math.floor(this.next() * (last - first + 1));
  }

  oneIn(of) {
    return this.next() * of < 1;
  }

  pick(from) {
    return from[this.integer(0, from.length - 1)];
  }

  /** About normal values. */
  floats(count) {
    return Float32Array.from({ length: count }, () => (this.next() + this.next() + this.next() - 1.5) * 2);
  }

  tensor(...shape) {
    return { data: this.floats(shape.reduce((a, b) => a * b, 1)), shape };
  }

  /** Bits of halves below 2. */
  halves(dtype, ...shape) {
    const count = shape.reduce((a, b) => a * b, 1);
    return { data: Uint16Array.from({ length: count }, () => this.integer(0, 65535) & 0xbfff), shape, dtype };
  }
}

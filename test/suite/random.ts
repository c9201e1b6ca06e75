// Reproducible tensors. A seed is one tensor.

type Plain = { data: Float32Array<ArrayBuffer>; shape: number[] };

/** Numbers in [0, 1): mulberry32. */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A tensor of about normal values: the sum of twelve uniform ones. */
export function normal(seed: number, ...shape: number[]): Plain {
  const next = uniform(seed * 7919 + 1);
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  for (let i = 0; i < data.length; i++) {
    let sum = -6;
    for (let j = 0; j < 12; j++) sum += next();
    data[i] = sum;
  }
  return { data, shape };
}

/** q, k and v of differential attention, pairing "interleaved" with two terms. */
export function qkv(
  seed: number,
  { B = 1, H = 2, G = H, Lq = 40, Lk = Lq, d = 16, dv = 2 * d }: Partial<Record<"B" | "H" | "G" | "Lq" | "Lk" | "d" | "dv", number>> = {},
): [Plain, Plain, Plain] {
  return [normal(seed, B, 2 * H, Lq, d), normal(seed + 1, B, 2 * G, Lk, d), normal(seed + 2, B, G, Lk, dv)];
}

/** Every entry of axis 0, and of axis 2 of `[B, heads, L, width]`, between two bounds. */
export function part({ data, shape }: Plain, batch: [number, number], rows: [number, number]): Plain {
  const [, heads = 0, L = 0, width = 0] = shape;
  const out: number[] = [];
  for (let b = batch[0]; b < batch[1]; b++) {
    for (let h = 0; h < heads; h++) {
      const start = (b * heads + h) * L;
      for (let i = (start + rows[0]) * width; i < (start + rows[1]) * width; i++) out.push(data[i] ?? NaN);
    }
  }
  return { data: Float32Array.from(out), shape: [batch[1] - batch[0], heads, rows[1] - rows[0], width] };
}

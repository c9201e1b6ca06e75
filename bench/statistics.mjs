// Pure numbers: medians, slopes, errors of answers. Knows no subject and no case.

/**
 * The largest error of an answer that is taken, in units of the largest magnitude that float64
 * expects. Correct float32 stays under half of it; a wrong mask, pairing or λ is far over it.
 */
export const TOLERANCE = 2e-5;

/** The middle value; of an even count the mean of the middle two. */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The exponent p of y = c · x^p, by least squares over the logarithms. */
export function exponent(points) {
  const logs = points.map(([x, y]) => [Math.log(x), Math.log(y)]);
  const mean = (index) => logs.reduce((sum, log) => sum + log[index], 0) / logs.length;
  const [x0, y0] = [mean(0), mean(1)];
  const sum = (of) => logs.reduce((total, [x, y]) => total + of(x - x0, y - y0), 0);
  return sum((x, y) => x * y) / sum((x) => x * x);
}

/**
 * The largest error of an answer, in units of the largest expected magnitude; NaN where the answer
 * has one.
 */
export function relativeError(values, expected) {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return expected.reduce((worst, value, i) => {
    const error = Math.abs(values[i] - value) / largest;
    return Number.isNaN(worst) || Number.isNaN(error) ? NaN : Math.max(worst, error);
  }, 0);
}

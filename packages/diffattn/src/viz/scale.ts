// How a value becomes a strength of colour, the same in every kind of picture.

/** Steps of a hue. Colour follows the root of the value, so that a tenth of the largest is still seen; the legend says the values. */
export const STEPS = 12;

/** The step of a value's magnitude, from 0 to {@link STEPS}. */
export const step = (value: number, max: number): number => Math.round(Math.sqrt(Math.min(Math.abs(value) / max, 1)) * STEPS);

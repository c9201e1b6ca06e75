// What both trainings of the page share: the threads that they leave to the page, and the curve of
// their loss. Trains nothing.

import { setThreads } from "diffattn";
import type { TrainStep } from "diffattn/training";
import { lossCurve } from "../../diffattn/src/curve.js";

/** Pixels of the curve across, at least and at most. */
const [NARROWEST, WIDEST] = [280, 720];

/** One core is the page's, or steps that follow each other would leave it none. */
export function leaveCore(): void {
  setThreads(Math.max(1, navigator.hardwareConcurrency - 1));
}

/** Draws the curve of steps, as wide as there is room. */
export function drawLoss(place: HTMLElement, history: readonly TrainStep[], room: number): void {
  const width = Math.max(NARROWEST, Math.min(WIDEST, room));
  place.innerHTML = lossCurve([{ name: "", history }], { width, styled: false });
}

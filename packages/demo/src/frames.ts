// Drawing at most once per frame, whatever comes meanwhile.

export interface Frames {
  /** Draws in the next frame; asked again before it, once. */
  readonly ask: () => void;
  /** Draws now what was asked for. (Frames of a page that is not seen do not come.) */
  readonly flush: () => void;
  /** Draws no more of what was asked for. */
  readonly drop: () => void;
}

export function perFrame(draw: () => void): Frames {
  let frame: number | undefined;
  const now = (): void => {
    frame = undefined;
    draw();
  };
  return {
    ask: () => {
      frame ??= requestAnimationFrame(now);
    },
    flush: () => {
      if (frame === undefined) return;
      cancelAnimationFrame(frame);
      now();
    },
    drop: () => {
      if (frame !== undefined) cancelAnimationFrame(frame);
      frame = undefined;
    },
  };
}

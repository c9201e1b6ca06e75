// What the page says: sentences of what went wrong, and, for screen readers, what is finished.

import { byId } from "./dom.js";

export interface Voice {
  /** What went wrong; "": nothing. */
  readonly complain: (what: string) => void;
  /**
   * For screen readers, when something is finished; what changes with every token would drown all
   * else.
   */
  readonly say: (what: string) => void;
}

export function voiceOf(): Voice {
  const error = byId("error", HTMLElement);
  const said = byId("said", HTMLElement);
  return {
    complain: (what) => {
      error.textContent = what;
      error.hidden = what === "";
    },
    say: (what) => void (said.textContent = what),
  };
}

// Tabs, after the ARIA practices: one stop of the Tab key, arrow keys between them, the address
// keeps which is open.

import { byId } from "./dom.js";

export interface Tabs {
  /** Shows or hides a tab; one that comes may open, unless the address names another. */
  readonly offer: (id: string, isOffered: boolean, opens: boolean) => void;
  /** Does something the first time that a tab opens, or at once where it is open. */
  readonly whenOpened: (id: string, body: () => void) => void;
}

export function startTabs(): Tabs {
  const tabs = Array.from(document.querySelectorAll<HTMLButtonElement>('[role="tab"]'));
  const offered = (): HTMLButtonElement[] => tabs.filter(({ hidden }) => !hidden);
  const waiting = new Map<HTMLButtonElement, () => void>();
  const open = (chosen: HTMLButtonElement): void => {
    for (const tab of tabs) {
      const isOpen = tab === chosen;
      tab.setAttribute("aria-selected", String(isOpen));
      tab.tabIndex = isOpen ? 0 : -1;
      byId(tab.getAttribute("aria-controls") ?? "", HTMLElement).hidden = !isOpen;
    }
    waiting.get(chosen)?.();
    waiting.delete(chosen);
  };
  for (const [i, tab] of tabs.entries()) {
    tab.addEventListener("click", () => {
      open(tab);
      history.replaceState(null, "", i === 0 ? location.pathname + location.search : `#${tab.id}`);
    });
    tab.addEventListener("keydown", ({ key }) => {
      const there = offered();
      const at = there.indexOf(tab);
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: there.length - 1 }[key];
      const next = to === undefined ? undefined : there[(to + there.length) % there.length];
      next?.focus();
      next?.click();
    });
  }
  const named = (): HTMLButtonElement | undefined => offered().find((tab) => `#${tab.id}` === location.hash);
  const asked = named();
  if (asked) open(asked);
  return {
    whenOpened(id, body) {
      const tab = byId(id, HTMLButtonElement);
      if (tab.getAttribute("aria-selected") === "true") body();
      else waiting.set(tab, body);
    },
    offer(id, isOffered, opens) {
      const tab = byId(id, HTMLButtonElement);
      const wasOffered = !tab.hidden;
      tab.hidden = !isOffered;
      if (opens && isOffered && !wasOffered && (named() ?? tab) === tab) open(tab);
      const [first] = offered();
      if (!isOffered && tab.getAttribute("aria-selected") === "true" && first) open(first);
    },
  };
}

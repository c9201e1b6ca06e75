// Tabs, after the ARIA practices: one stop of the Tab key, arrow keys between them, the address
// keeps which is open.

import { byId } from "./dom.js";

export function startTabs(): void {
  const tabs = Array.from(document.querySelectorAll<HTMLButtonElement>('[role="tab"]'));
  const open = (chosen: HTMLButtonElement): void => {
    for (const tab of tabs) {
      const isOpen = tab === chosen;
      tab.setAttribute("aria-selected", String(isOpen));
      tab.tabIndex = isOpen ? 0 : -1;
      byId(tab.getAttribute("aria-controls") ?? "", HTMLElement).hidden = !isOpen;
    }
  };
  for (const [i, tab] of tabs.entries()) {
    tab.addEventListener("click", () => {
      open(tab);
      history.replaceState(null, "", i === 0 ? location.pathname + location.search : `#${tab.id}`);
    });
    tab.addEventListener("keydown", ({ key }) => {
      const to = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: tabs.length - 1 }[key];
      const next = to === undefined ? undefined : tabs[(to + tabs.length) % tabs.length];
      next?.focus();
      next?.click();
    });
  }
  const asked = tabs.find((tab) => `#${tab.id}` === location.hash);
  if (asked) open(asked);
}

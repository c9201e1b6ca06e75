// Circles among files that take names from one another. Pure: knows no language.

/**
 * The groups of files of which each reaches every other: each sorted, in order of their first
 * files.
 *
 * @param imports a Map from a file to the files that it takes names from
 */
export function circles(imports) {
  const state = new Map();
  const open = [];
  const found = [];
  // Tarjan: `lowest` is the earliest file still open that a file reaches.
  const walk = (file) => {
    const own = { order: state.size, lowest: state.size, isOpen: true };
    state.set(file, own);
    open.push(file);
    for (const next of imports.get(file) ?? []) {
      const seen = state.get(next) ?? walk(next);
      if (seen.isOpen) own.lowest = Math.min(own.lowest, seen.lowest);
    }
    if (own.lowest === own.order) {
      const group = open.splice(open.indexOf(file));
      for (const member of group) state.get(member).isOpen = false;
      if (group.length > 1) found.push(group.toSorted());
    }
    return own;
  };
  for (const file of imports.keys()) if (!state.has(file)) walk(file);
  return found.toSorted((a, b) => (a[0] < b[0] ? -1 : 1));
}

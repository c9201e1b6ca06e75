// Files that the page gives to its visitor.

import { element } from "./dom.js";

export function save(name: string, content: Blob): void {
  const link = element("a", "", { download: name });
  link.href = URL.createObjectURL(content);
  link.click();
  // Firefox starts the download after the click.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

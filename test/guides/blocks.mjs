// The fenced blocks of a guide, in order. Runs nothing.

/**
 * `[{ language, title, code, line }]` of a Markdown text. A fence ends with one at least as long.
 */
export function blocks(text) {
  const found = [];
  let open;
  for (const [index, line] of text.split("\n").entries()) {
    const [, fence, info] = /^(`{3,})(.*)$/.exec(line) ?? [];
    if (!open && fence) {
      const [, language, , title] = /^(\w*)( title="([^"]*)")?$/.exec(info) ?? [];
      if (!language) throw new Error(`line ${index + 1}: a block without a language: ${line}`);
      open = { language, title, fence, line: index + 1, lines: [] };
    } else if (open && fence?.length >= open.fence.length && info === "") {
      const { language, title, line, lines } = open;
      found.push({ language, title, line, code: lines.map((one) => `${one}\n`).join("") });
      open = undefined;
    } else open?.lines.push(line);
  }
  if (open) throw new Error(`line ${open.line}: a block that does not end`);
  return found;
}

// The page's elements, by id and type.

/** The element of an id; it stands in index.html. */
export function byId<E extends Element>(id: string, type: new () => E): E {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`#${id}: expected a ${type.name}, got ${element ? element.localName : "nothing"}`);
  return element;
}

/** A new element with text in it. */
export function element<K extends keyof HTMLElementTagNameMap>(
  name: K,
  text = "",
  attributes: Readonly<Record<string, string>> = {},
): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A number that a field holds; undefined when it holds none that it takes. */
export function numberOf(input: HTMLInputElement): number | undefined {
  return input.checkValidity() && input.value !== "" ? input.valueAsNumber : undefined;
}

/** The numbers that fields hold, by their names. */
export const numbersOf = <N extends string>(fields: Readonly<Record<N, HTMLInputElement>>): Record<N, number | undefined> =>
  Object.fromEntries(Object.entries<HTMLInputElement>(fields).map(([name, input]) => [name, numberOf(input)])) as Record<
    N,
    number | undefined
  >;

export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

// The elements of one view of attention, by their ids: the page has several such views, all made of
// the markup of the first, whose ids have a prefix in the others. Draws nothing.

import { byId } from "./dom.js";

const REFERENCES = ["aria-labelledby", "aria-describedby", "for"];

/** A copy of the first view, the prefix before every id in it: made before anything is drawn. */
export function copyOfView(prefix: string): HTMLElement {
  const copy = byId("reading", HTMLElement).cloneNode(true) as HTMLElement;
  for (const element of [copy, ...copy.querySelectorAll("*")]) {
    if (element.id !== "") element.id = prefix + element.id;
    for (const name of REFERENCES) {
      const ids = element.getAttribute(name);
      if (ids !== null)
        element.setAttribute(
          name,
          ids.replaceAll(/\S+/g, (id) => prefix + id),
        );
    }
  }
  return copy;
}

/** The elements of the view whose ids have the prefix. */
export function partsOf(prefix: string) {
  const find = <E extends Element>(id: string, type: new () => E): E => byId(prefix + id, type);
  return {
    text: find("text", HTMLElement),
    section: find("attention", HTMLElement),
    heading: find("attention-heading", HTMLElement),
    layer: find("layer", HTMLSelectElement),
    head: find("head", HTMLSelectElement),
    row: find("row", HTMLElement),
    strongest: find("strongest", HTMLTableElement),
    figures: find("maps", HTMLElement),
    noisePart: find("noise-part", HTMLElement),
    noisePlace: find("noise", HTMLElement),
    noiseRule: find("noise-rule", HTMLElement),
    noiseAll: find("noise-all", HTMLElement),
    noiseOption: find("noise-option", HTMLOptionElement),
    spanKey: find("span-key", HTMLElement),
    answer: find("answer", HTMLInputElement),
    question: find("question", HTMLInputElement),
    picture: find("picture", HTMLSelectElement),
    exports: {
      svg: find("svg", HTMLButtonElement),
      png: find("png", HTMLButtonElement),
      json: find("json", HTMLButtonElement),
    },
  };
}

// What models there are to choose from: those that the page's server lists, an address that a
// visitor names, files of theirs. Loads none.

import type { CheckpointSource, LanguageModel } from "diffattn/models";

/** Files at addresses of the page's own server, as models.json lists them. */
interface Listed {
  /** A folder's path from the page. */
  readonly path: string;
  readonly files: readonly string[];
}

/** A model that the page's server has. */
export interface ListedModel extends Listed {
  readonly name: string;
  readonly title: string;
  /** What is to be known of it, in a sentence or some. */
  readonly about: string;
  /** Of all its files. */
  readonly bytes: number;
  /** A low-rank adapter that can be switched on. */
  readonly adapter?: Listed & { readonly about: string };
}

/** A model that somebody wants, and how it is to be had. */
export interface Wanted {
  readonly title: string;
  readonly about: string;
  readonly source: Parameters<typeof LanguageModel.load>[0];
  readonly adapter?: CheckpointSource;
  /** Bytes of its files; undefined where they are not known before it is looked at. */
  readonly bytes: number | undefined;
  /** Whether the browser keeps what its addresses give. */
  readonly isKept: boolean;
  /** Whether its files are of somebody else. */
  readonly isForeign: boolean;
}

/** More than this is kept by the browser for the next time, and quantised where it is floats. */
export const LARGE_BYTES = 2 ** 28;
/** What is worth keeping: less comes again in a moment. */
const KEPT_BYTES = 2 ** 25;

const isText = (value: unknown): value is string => typeof value === "string";
const isFiles = (value: unknown): value is Listed => {
  const { path, files } = value as Partial<Listed>;
  return isText(path) && Array.isArray(files) && files.every(isText);
};

/** The models that the page's server has, the first one to begin with. */
export async function listedModels(): Promise<ListedModel[]> {
  const response = await fetch(new URL("models.json", document.baseURI));
  if (!response.ok) throw new Error(`models.json: expected the page's list of models, got the status ${response.status}`);
  const { models } = (await response.json()) as { models?: unknown };
  const isModel = (model: unknown): model is ListedModel => {
    const { name, title, about } = model as Partial<ListedModel>;
    return isFiles(model) && [name, title, about].every(isText);
  };
  if (!Array.isArray(models) || !models.every(isModel)) throw new Error("models.json: expected a list of models, got something else");
  return models;
}

/** Addresses by name: nothing is asked for that is not there. */
const addressesOf = ({ path, files }: Listed): Record<string, URL> =>
  Object.fromEntries(files.map((name) => [name, new URL(path + encodeURIComponent(name), document.baseURI)]));

/** A model of the server's list, with its adapter or without. */
export function wantedOf(model: ListedModel, withAdapter: boolean): Wanted {
  const adapter = withAdapter ? model.adapter : undefined;
  return {
    title: adapter ? `${model.title}, healed` : model.title,
    about: model.about,
    source: addressesOf(model),
    ...(adapter && { adapter: addressesOf(adapter) }),
    bytes: model.bytes,
    isKept: model.bytes > KEPT_BYTES,
    isForeign: false,
  };
}

/** What a visitor typed: a name on the hub, or an address. */
export function wantedAt(typed: string): Wanted {
  const text = typed.trim();
  const wanted = 'address: expected a name on the Hugging Face Hub, as "org/name", or an address that begins with https://';
  if (text === "") throw new Error(`${wanted}, got none`);
  const isAddress = /^[a-z][a-z\d+.-]*:\/\//i.test(text);
  // (In browsers "org/name" alone is an address beside the page.)
  const source = isAddress || text.startsWith("hf:") ? text : `hf:${text}`;
  if (!isAddress && !/^hf:[\w.-]+\/[\w.-]+/.test(source)) throw new Error(`${wanted}, got "${text.slice(0, 80)}"`);
  // The page's policy lets no others be asked.
  if (isAddress && !(URL.canParse(text) && (new URL(text).protocol === "https:" || new URL(text).origin === location.origin)))
    throw new Error(`${wanted}, got "${text.slice(0, 80)}"`);
  return { title: text, about: "", source, bytes: undefined, isKept: true, isForeign: true };
}

/** Files that a visitor chose or dropped. */
export function wantedFiles(files: readonly File[]): Wanted {
  const [first] = files;
  if (!first) throw new Error("files: expected the files of a model, got none");
  const weights = files.find(({ name }) => /\.(safetensors|gguf)$/.test(name)) ?? first;
  return {
    title: weights.name,
    about: "",
    source: files.length === 1 ? first : files,
    bytes: files.reduce((sum, { size }) => sum + size, 0),
    isKept: false,
    isForeign: true,
  };
}

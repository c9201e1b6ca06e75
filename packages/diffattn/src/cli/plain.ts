// Text of others (a model's words, names in its files, paths) as a terminal may get it. Pure.

/**
 * What a terminal obeys instead of showing it: C0, DEL and C1 but for line ends and tabs, and what
 * turns the direction of text around or ends a line unseen. Each is written as JSON writes it, so
 * JSON stays what it is.
 */
// eslint-disable-next-line no-control-regex
const OBEYED = /[\u0000-\u0008\u000B-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069]/g;

const escaped = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** A text without what a terminal obeys. A carriage return is among it. */
export const plain = (text: string): string => text.replace(OBEYED, escaped);

/** A plain text on one line: a name cannot make lines that seem to be ours. */
export const oneLine = (text: string): string => plain(text).replaceAll("\n", escaped);

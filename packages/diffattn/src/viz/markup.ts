// Text as it stands in SVG and in HTML: the one function that escapes, for both. Knows nothing of
// pictures.

/**
 * No character that can be shown, or none at all: half of a pair, what XML forbids, controls that
 * have no picture.
 */
const REPLACEMENT = "\uFFFD";

/**
 * What a reader of the document gets for a text. What XML 1.0 forbids in any spelling (control
 * characters, halves of surrogate pairs, U+FFFE and U+FFFF) is drawn as a sign instead: C0 and DEL
 * as their pictures (U+2400 …), the rest as U+FFFD. So are a carriage return, which parsers turn
 * into a line feed, and C1, which HTML takes for characters of Windows. Each sign is one character.
 */
export const visible = (text: string): string =>
  // With the flag u only the half of a pair is a surrogate.
  // eslint-disable-next-line no-control-regex
  text.replace(/[\u0000-\u0008\u000B-\u001F\u007F-\u009F\uD800-\uDFFF\uFFFE\uFFFF]/gu, (character) => {
    const code = character.charCodeAt(0);
    return code < 0x20 ? String.fromCharCode(0x2400 + code) : code === 0x7f ? "\u2421" : REPLACEMENT;
  });

/**
 * A text for the content of an element or an attribute's value in double quotes. An XML parser and
 * an HTML parser both read {@link visible} of it again, tabs and line ends in attributes included.
 */
export const escape = (text: string): string => visible(text).replace(/[\t\n"&<>]/g, (character) => `&#${character.charCodeAt(0)};`);

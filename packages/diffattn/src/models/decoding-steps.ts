// The steps of decoding that reach across tokens: each gives what is certain and holds what a later
// token can still change. (Which of them a tokenizer has: decoding.ts.)

/** A part of a token's text, and whether it is its first. */
export type Piece = readonly [text: string, starts: boolean];

/** A step of decoding. It gives what is certain and holds the rest. */
export interface Step {
  push(pieces: readonly Piece[]): Piece[];
  /** What it holds: no more comes. */
  end(): Piece[];
  copy(): Step;
}

export const none: Piece[] = [];

/**
 * A decoder of the library that looks at one token alone, and at whether it is the first
 * (`placed`).
 */
export class Tokens implements Step {
  constructor(
    readonly decode: (tokens: string[]) => string[],
    readonly placed: boolean,
    private begun = false,
  ) {}

  push(pieces: readonly Piece[]): Piece[] {
    if (pieces.length === 0) return none;
    const tokens = pieces.map(([text]) => text);
    const texts = this.placed && this.begun ? this.decode(["", ...tokens]).slice(1) : this.decode(tokens);
    this.begun = true;
    return texts.map((text) => [text, true]);
  }

  end(): Piece[] {
    return none;
  }

  copy(): Tokens {
    return new Tokens(this.decode, this.placed, this.begun);
  }
}

/** A decoder that writes the last token otherwise: one is held. */
export class LastToken implements Step {
  constructor(
    readonly decode: (tokens: string[]) => string[],
    private held?: string,
  ) {}

  push(pieces: readonly Piece[]): Piece[] {
    const tokens = pieces.map(([text]) => text);
    if (this.held !== undefined) tokens.unshift(this.held);
    this.held = tokens.pop();
    return this.decode([...tokens, ""])
      .slice(0, -1)
      .map((text) => [text, true]);
  }

  end(): Piece[] {
    return this.held === undefined ? none : this.decode([this.held]).map((text) => [text, true]);
  }

  copy(): LastToken {
    return new LastToken(this.decode, this.held);
  }
}

/** How many of the last bytes begin a character of UTF-8 that more bytes can complete. */
function incomplete(bytes: readonly number[]): number {
  for (let length = 1; length <= Math.min(3, bytes.length); length++) {
    const first = bytes[bytes.length - length] ?? 0;
    if (first >= 0x80 && first < 0xc0) continue;
    const needed = first < 0xc2 || first > 0xf4 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (length >= needed) return 0;
    // The second byte of some has a narrower range: no overlong forms, no surrogates, nothing past
    // U+10FFFF.
    const second = bytes[bytes.length - length + 1] ?? 0xa0;
    const [low, high] = { 0xe0: [0xa0, 0xbf], 0xed: [0x80, 0x9f], 0xf0: [0x90, 0xbf], 0xf4: [0x80, 0x8f] }[first] ?? [0x80, 0xbf];
    return length === 1 || (second >= (low ?? 0) && second <= (high ?? 0)) ? length : 0;
  }
  return 0;
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const BYTE_ORDER_MARK = "\uFEFF";

/**
 * Bytes to characters: tokens that are bytes, one after the other, are one text. At most three
 * bytes are held.
 */
export class Bytes implements Step {
  /** Bytes of the run that are no whole character yet; undefined between two runs. */
  private run: number[] | undefined;
  /** Whether the run has no character yet. */
  private fresh = true;

  /**
   * `bytesOf` a token: undefined where it is none of bytes. `marks`: whether a byte order mark that
   * begins a run is kept.
   */
  constructor(
    readonly bytesOf: (token: string) => number[] | undefined,
    readonly marks: boolean,
  ) {}

  push(pieces: readonly Piece[]): Piece[] {
    const out: Piece[] = [];
    let starts = false;
    for (const [token] of pieces) {
      const bytes = this.bytesOf(token);
      if (bytes) {
        if (!this.run) [this.run, this.fresh, starts] = [[], true, true];
        for (const byte of bytes) this.run.push(byte);
      } else {
        if (this.run) out.push([this.characters(this.run), starts]);
        this.run = undefined;
        starts = false;
        out.push([token, true]);
      }
    }
    if (this.run) {
      const whole = this.run.length - incomplete(this.run);
      out.push([this.characters(this.run.slice(0, whole)), starts]);
      this.run = this.run.slice(whole);
    }
    return out;
  }

  end(): Piece[] {
    return this.run && this.run.length > 0 ? [[this.characters(this.run), false]] : none;
  }

  copy(): Bytes {
    const copy = new Bytes(this.bytesOf, this.marks);
    [copy.run, copy.fresh] = [this.run, this.fresh];
    return copy;
  }

  private characters(bytes: readonly number[]): string {
    const text = utf8.decode(Uint8Array.from(bytes));
    const marked = this.fresh && !this.marks && text.startsWith(BYTE_ORDER_MARK);
    if (text !== "") this.fresh = false;
    return marked ? text.slice(1) : text;
  }
}

/** All tokens become one. */
export class Fuse implements Step {
  constructor(private begun = false) {}

  push(pieces: readonly Piece[]): Piece[] {
    return pieces.map(([text]) => {
      const starts = !this.begun;
      this.begun = true;
      return [text, starts];
    });
  }

  end(): Piece[] {
    return none;
  }

  copy(): Fuse {
    return new Fuse(this.begun);
  }
}

/** Spaces for the mark that stands for them; the first token loses one. Of tokens in parts. */
export class Spaces implements Step {
  private tokens = 0;
  /** Whether nothing of the first token was met. */
  private fresh = true;

  constructor(readonly mark: string) {}

  push(pieces: readonly Piece[]): Piece[] {
    return pieces.map(([piece, starts]) => {
      if (starts) this.tokens++;
      const text = piece.replaceAll(this.mark, " ");
      const first = this.fresh && this.tokens === 1 && text !== "";
      if (first) this.fresh = false;
      return [first && text.startsWith(" ") ? text.slice(1) : text, starts];
    });
  }

  end(): Piece[] {
    return none;
  }

  copy(): Spaces {
    return Object.assign(new Spaces(this.mark), { tokens: this.tokens, fresh: this.fresh });
  }
}

/** How many of a text's last characters begin another one, which it does not hold. */
function beginning(text: string, other: string): number {
  for (let length = Math.min(other.length - 1, text.length); length > 0; length--) if (text.endsWith(other.slice(0, length))) return length;
  return 0;
}

/** `text.replaceAll(find, put)` of a text that grows. What may begin `find` is held. */
export class Replacement {
  constructor(
    readonly find: string,
    readonly put: string,
    private held = "",
  ) {}

  push(more: string): string {
    const parts = (this.held + more).split(this.find);
    const rest = parts.pop() ?? "";
    const held = beginning(rest, this.find);
    this.held = rest.slice(rest.length - held);
    return [...parts, rest.slice(0, rest.length - held)].join(this.put);
  }

  end(): string {
    const { held } = this;
    this.held = "";
    return held;
  }

  copy(): Replacement {
    return new Replacement(this.find, this.put, this.held);
  }
}

/** Replaces a text within tokens that come in parts. */
export class ReplaceParts implements Step {
  constructor(readonly replacement: Replacement) {}

  push(pieces: readonly Piece[]): Piece[] {
    const out: Piece[] = [];
    for (const [text, starts] of pieces) {
      if (starts) out.push(...this.end());
      out.push([this.replacement.push(text), starts]);
    }
    return out;
  }

  end(): Piece[] {
    const rest = this.replacement.end();
    return rest === "" ? none : [[rest, false]];
  }

  copy(): ReplaceParts {
    return new ReplaceParts(this.replacement.copy());
  }
}

/** Takes a character off both ends of each token, at most so often. Of tokens in parts. */
export class StripParts implements Step {
  private left = 0;
  private held = "";

  constructor(
    readonly character: string,
    readonly first: number,
    readonly last: number,
  ) {}

  push(pieces: readonly Piece[]): Piece[] {
    return pieces.map(([piece, starts]) => {
      if (starts) [this.left, this.held] = [this.first, ""];
      let text = piece;
      while (this.left > 0 && text.startsWith(this.character)) [this.left, text] = [this.left - 1, text.slice(1)];
      if (text !== "") this.left = 0;
      text = this.held + text;
      let at = text.length;
      while (at > 0 && text.length - at < this.last && text[at - 1] === this.character) at--;
      this.held = text.slice(at);
      return [text.slice(0, at), starts];
    });
  }

  /** What was held is what is taken off. */
  end(): Piece[] {
    return none;
  }

  copy(): StripParts {
    return Object.assign(new StripParts(this.character, this.first, this.last), { left: this.left, held: this.held });
  }
}

/** Without white space at both ends. All of it at the end is held. */
export class Trim {
  constructor(
    private begun = false,
    private held = "",
  ) {}

  push(more: string): string {
    const text = this.begun ? this.held + more : more.trimStart();
    if (text === "") return "";
    this.begun = true;
    const whole = text.trimEnd();
    this.held = text.slice(whole.length);
    return whole;
  }

  end(): string {
    return "";
  }

  copy(): Trim {
    return new Trim(this.begun, this.held);
  }
}

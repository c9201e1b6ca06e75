// Reads a reference case: a safetensors file whose metadata holds the options. Knows no operator
// and no runtime.

/** One tensor of a file: its bytes as they are, and its values as numbers. */
export interface Stored {
  dtype: string;
  shape: number[];
  bytes: Uint8Array;
}

/** A reference case; options are empty where the file says none. */
export interface Fixture {
  options: Record<string, unknown>;
  tensors: Map<string, Stored>;
}

export function readFixture(content: Uint8Array): Fixture {
  // Of its own class: a Buffer's slice is no copy.
  const file = new Uint8Array(content);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.slice(8, 8 + length))) as Record<string, unknown>;
  const { case: text = "{}" } = (header["__metadata__"] ?? {}) as { case?: string };
  const tensors = new Map<string, Stored>();
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const entry = value as { dtype: string; shape: number[]; data_offsets: [number, number] };
    const [from, to] = entry.data_offsets;
    // Copied: the file does not align its tensors to their elements.
    tensors.set(name, { dtype: entry.dtype, shape: entry.shape, bytes: file.slice(8 + length + from, 8 + length + to) });
  }
  return { options: JSON.parse(text) as Record<string, unknown>, tensors };
}

/** The tensor of a name that must be there. */
export function stored(fixture: Fixture, name: string): Stored {
  const found = fixture.tensors.get(name);
  if (!found) throw new Error(`the case has no tensor ${name}`);
  return found;
}

export const float32 = ({ bytes }: Stored): Float32Array<ArrayBuffer> => new Float32Array(bytes.slice().buffer);
export const float64 = ({ bytes }: Stored): Float64Array => new Float64Array(bytes.slice().buffer);
export const integers = ({ bytes }: Stored): number[] => Array.from(new BigInt64Array(bytes.slice().buffer), Number);

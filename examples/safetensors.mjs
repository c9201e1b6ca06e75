// Reads a safetensors file (https://huggingface.co/docs/safetensors): 8 bytes length, a JSON header, the elements.
// Only the types that the sample holds, and little-endian machines.
import { readFileSync } from "node:fs";

const arrays = { F32: Float32Array, F64: Float64Array, I64: BigInt64Array };

/** The file's tensors by name, each `{ data, shape }`, and its metadata. */
export function readSafetensors(path) {
  const { buffer, byteOffset } = readFileSync(path);
  const headerBytes = Number(new DataView(buffer, byteOffset).getBigUint64(0, true));
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(Buffer.from(buffer, byteOffset + 8, headerBytes).toString("utf8"));
  const start = byteOffset + 8 + headerBytes;
  const tensors = Object.entries(entries).map(
    ([
      name,
      {
        dtype,
        shape,
        data_offsets: [first, end],
      },
    ]) => {
      if (!(dtype in arrays)) throw new Error(`${path}: ${name} is ${dtype}; this reader knows ${Object.keys(arrays).join(", ")}`);
      // A copy, because the elements need not be aligned in the file.
      return [name, { data: new arrays[dtype](buffer.slice(start + first, start + end)), shape }];
    },
  );
  return { metadata, tensors: Object.fromEntries(tensors) };
}

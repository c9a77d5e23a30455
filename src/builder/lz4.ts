/**
 * LZ4 as Linux's build and `lz4 -l` write it: the legacy frame, unpacked.
 *
 * @module
 */
import { BuilderError, hex } from "./errors.ts";

/** Magic of the LZ4 "legacy" frame, the one `lz4 -l` and Linux's build write. */
export const LZ4_LEGACY_MAGIC = 0x184c2102;

/** Largest output of one legacy block. */
const BLOCK_MAX = 8 << 20;

/**
 * Decompresses an LZ4 legacy frame: magic, then blocks of (u32 compressed size, data), each
 * block independent and at most 8 MB when expanded.
 *
 * @param size Bytes expected; more output is an error, and so is less.
 * @throws {BuilderError} On a malformed frame.
 */
export function decompressLz4Legacy(source: Uint8Array, size: number, file: string): Uint8Array {
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  if (source.length < 8 || view.getUint32(0, true) !== LZ4_LEGACY_MAGIC) {
    throw new BuilderError({
      file,
      field: "LZ4 magic",
      given: source.length < 4 ? "missing" : hex(view.getUint32(0, true)),
      expected: hex(LZ4_LEGACY_MAGIC),
    });
  }
  const out = new Uint8Array(size);
  let at = 4, filled = 0;
  while (at + 4 <= source.length && filled < size) {
    const length = view.getUint32(at, true);
    at += 4;
    if (length === LZ4_LEGACY_MAGIC) continue; // frames may be concatenated
    if (length > source.length - at) {
      throw new BuilderError({
        file,
        field: "LZ4 block size",
        given: `${length} with ${source.length - at} bytes left`,
        expected: "a block inside the payload",
      });
    }
    filled = block(source.subarray(at, at + length), out, filled, file);
    at += length;
  }
  if (filled !== size) {
    throw new BuilderError({
      file,
      field: "LZ4 payload",
      given: `${filled} bytes when decompressed`,
      expected: `${size}`,
    });
  }
  return out;
}

/** One block of sequences: token, literals, 16-bit offset, match. Returns the new fill. */
function block(src: Uint8Array, out: Uint8Array, start: number, file: string): number {
  const limit = Math.min(out.length, start + BLOCK_MAX);
  const bad = (what: string) =>
    new BuilderError({ file, field: "LZ4 block", given: what, expected: "a valid sequence" });
  let at = 0, to = start;
  const extended = (value: number) => {
    if (value !== 15) return value;
    for (;;) {
      if (at >= src.length) throw bad("a length that runs off its end");
      const more = src[at++];
      value += more;
      if (more !== 255) return value;
    }
  };
  while (at < src.length) {
    const token = src[at++];
    const literals = extended(token >> 4);
    if (at + literals > src.length || to + literals > limit) throw bad("literals past its end");
    out.set(src.subarray(at, at + literals), to);
    at += literals;
    to += literals;
    if (at === src.length) break; // the last sequence has no match
    if (at + 2 > src.length) throw bad("a cut-off match offset");
    const offset = src[at] | src[at + 1] << 8;
    at += 2;
    const length = extended(token & 15) + 4;
    if (offset === 0 || offset > to - start) throw bad(`a match ${offset} bytes back`);
    if (to + length > limit) throw bad("a match past its end");
    for (let i = 0; i < length; i++) out[to + i] = out[to + i - offset];
    to += length;
  }
  return to;
}

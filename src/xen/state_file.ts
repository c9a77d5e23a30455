/**
 * A saved host as bytes: a head, one record, and the machine frames that are not all zero.
 *
 * ```text
 *  0  "xvmstate"
 *  8  version, u32
 * 12  bytes of the record, u32
 * 16  checksum of all the rest, 8 bytes
 * 24  the record (machine/record.ts): the blocks by their names, zeroes up to a multiple of 4
 *     number of frames, u32; the numbers of the frames, ascending, u32 each; 4096 bytes of each
 * ```
 *
 * Frames are copied once, from machine memory into the bytes; loading copies them back.
 *
 * @module
 */
import { decodePlain, encodePlain, type Plain, RecordError } from "../machine/record.ts";
import { hashRanges } from "../machine/hash.ts";
import { counted } from "../machine/text.ts";

/** Of the bytes' layout, and of what the blocks mean together. */
export const STATE_VERSION = 4;
const MAGIC = "xvmstate", VERSION = 8, LENGTH = 12, CHECKSUM = 16, HEAD = 24, FRAME = 4096;

/** What is in such bytes. */
export interface StateContents {
  readonly record: Plain;
  /** Numbers of frames, ascending. */
  readonly frames: Uint32Array;
  /** Their bytes, one after the other. */
  readonly data: Uint8Array;
}

const padded = (length: number) => length + 3 & ~3;

function checksum(bytes: Uint8Array): readonly [number, number] {
  return hashRanges(bytes, [[0, CHECKSUM], [HEAD, bytes.byteLength]]);
}

/** Writes the checksum of bytes that {@linkcode packState} gave: again, if they were changed. */
export function seal(bytes: Uint8Array): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const [low, high] = checksum(bytes);
  view.setUint32(CHECKSUM, low, true);
  view.setUint32(CHECKSUM + 4, high, true);
  return bytes;
}

/** The bytes of a state; `frames` are numbers of frames of `ram`. */
export function packState(record: Plain, frames: readonly number[], ram: Uint8Array): Uint8Array {
  const encoded = encodePlain(record);
  const numbersAt = HEAD + padded(encoded.length) + 4;
  const dataAt = numbersAt + 4 * frames.length;
  const bytes = new Uint8Array(dataAt + FRAME * frames.length);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(MAGIC));
  view.setUint32(VERSION, STATE_VERSION, true);
  view.setUint32(LENGTH, encoded.length, true);
  bytes.set(encoded, HEAD);
  view.setUint32(numbersAt - 4, frames.length, true);
  frames.forEach((frame, n) => {
    view.setUint32(numbersAt + 4 * n, frame, true);
    bytes.set(ram.subarray(frame * FRAME, frame * FRAME + FRAME), dataAt + n * FRAME);
  });
  return seal(bytes);
}

/** @throws {RecordError} for bytes that are no state, of another version, or damaged */
export function unpackState(bytes: Uint8Array): StateContents {
  if (!(bytes instanceof Uint8Array)) {
    throw new TypeError(`load: the bytes of a saved host were expected, ${typeof bytes} was given`);
  }
  const head = new TextDecoder().decode(bytes.subarray(0, MAGIC.length));
  if (head !== MAGIC) {
    throw new RecordError(
      `these bytes are no saved state of a host: they begin with ${JSON.stringify(head)}, ` +
        `expected ${JSON.stringify(MAGIC)}`,
    );
  }
  const cut = (least: number) =>
    new RecordError(
      `the saved state is damaged: it has ${counted(bytes.byteLength, "byte")}, expected ${least}`,
    );
  if (bytes.byteLength < HEAD) throw cut(HEAD);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint32(VERSION, true);
  if (version !== STATE_VERSION) {
    throw new RecordError(
      `the saved state is of version ${version}; this xvm reads version ${STATE_VERSION}`,
    );
  }
  const length = view.getUint32(LENGTH, true);
  const countAt = HEAD + padded(length);
  if (bytes.byteLength < countAt + 4) throw cut(countAt + 4);
  const count = view.getUint32(countAt, true);
  const dataAt = countAt + 4 + 4 * count, end = dataAt + FRAME * count;
  if (bytes.byteLength !== end) throw cut(end);
  const [low, high] = checksum(bytes);
  const given = [view.getUint32(CHECKSUM, true), view.getUint32(CHECKSUM + 4, true)];
  if (given[0] !== low || given[1] !== high) {
    const hex = (a: number, b: number) =>
      [b, a].map((word) => word.toString(16).padStart(8, "0")).join("");
    throw new RecordError(
      `the saved state is damaged: its checksum is ${hex(low, high)}, its head says ${
        hex(given[0], given[1])
      }`,
    );
  }
  if (bytes.subarray(HEAD + length, countAt).some((b) => b !== 0)) {
    throw new RecordError("the saved state is damaged: its record is followed by other bytes");
  }
  const record = decodePlain(bytes.subarray(HEAD, HEAD + length), "the saved state");
  const frames = Uint32Array.from(
    { length: count },
    (_, n) => view.getUint32(countAt + 4 + 4 * n, true),
  );
  return { record, frames, data: bytes.subarray(dataAt) };
}

/** Refuses frames that are not there, out of order, or empty. @throws {RecordError} */
export function checkFrames({ frames, data }: StateContents, total: number): void {
  frames.forEach((frame, n) => {
    if (frame >= total) {
      throw new RecordError(`the saved state has frame 0x${frame.toString(16)} of ${total}`);
    }
    if (n > 0 && frame <= frames[n - 1]) {
      throw new RecordError(`the saved state has frame 0x${frame.toString(16)} out of order`);
    }
    if (!data.subarray(n * FRAME, n * FRAME + FRAME).some((byte) => byte !== 0)) {
      throw new RecordError(`the saved state has frame 0x${frame.toString(16)}, which is empty`);
    }
  });
}

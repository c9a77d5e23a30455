/**
 * XZ as Linux's build makes it: one stream, one block, CRC32, and the filter chain x86 BCJ +
 * LZMA2. The decoder at hand (npm xz-decompress) knows LZMA2 only, so the block is framed anew
 * without the BCJ filter, and the filter is undone here.
 * Source: "The .xz File Format" 1.2, sections 2.1 (stream), 3 (block), 4 (index), 5.3 (filters).
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { BuilderError, hex } from "./errors.ts";
import { UNPACKED_MAX } from "./limits.ts";

const MAGIC = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00];
const FILTER_X86 = 0x04;
const FILTER_LZMA2 = 0x21;
const CHECK_SIZE = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64];
const CHECK_CRC32 = 1;

function isXz(bytes: Uint8Array): boolean {
  return MAGIC.every((b, i) => bytes[i] === b);
}

interface Block {
  x86: boolean;
  /** The dictionary size byte of the LZMA2 filter. */
  dictionary: number;
  lzma2: Uint8Array;
  /** The CRC32 of the contents, when that is the stream's check. */
  crc?: number;
}

/**
 * Decompresses an XZ stream of one block, checking its CRC32.
 *
 * @param given Bytes expected; what the chunks' headers say if not given.
 * @throws {BuilderError} On a malformed stream or a filter other than x86 BCJ and LZMA2.
 */
export async function decompressXz(
  source: Uint8Array,
  given: number | undefined,
  file: string,
): Promise<Uint8Array> {
  const block = parseBlock(source, file);
  const size = given ?? uncompressedSize(block.lzma2);
  if (size > UNPACKED_MAX) {
    throw new BuilderError({
      file,
      field: "XZ data",
      given: `${size} bytes when decompressed`,
      expected: `at most ${UNPACKED_MAX}`,
    });
  }
  const { default: xz } = await import("xz-decompress");
  const framed = frame(block);
  const out = new Uint8Array(size);
  let filled = 0;
  try {
    const input = new ReadableStream<Uint8Array>({
      start: (c) => (c.enqueue(framed), c.close()),
    });
    const reader = new xz.XzReadableStream(input).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (filled + value.length > size) throw new Error(`more than ${size} bytes`);
      out.set(value, filled);
      filled += value.length;
    }
  } catch (error) {
    throw new BuilderError({
      file,
      field: "XZ data",
      given: `corrupt (${(error as Error).message})`,
      expected: "a valid LZMA2 stream",
    });
  }
  if (filled !== size) {
    throw new BuilderError({
      file,
      field: "XZ payload",
      given: `${filled} bytes when decompressed`,
      expected: `${size}`,
    });
  }
  if (block.x86) undoX86(out);
  if (block.crc !== undefined && crc32(out) !== block.crc) {
    throw new BuilderError({
      file,
      field: "XZ CRC32",
      given: hex(crc32(out)),
      expected: hex(block.crc),
    });
  }
  return out;
}

function parseBlock(source: Uint8Array, file: string): Block {
  const fail = (field: string, given: string, expected: string) =>
    new BuilderError({ file, field, given, expected });
  if (!isXz(source)) throw fail("XZ magic", "missing", "fd 37 7a 58 5a 00");
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  const check = source[7] & 15;
  const headerSize = (source[12] + 1) * 4;
  if (source.length < 12 + headerSize + 4) throw fail("XZ stream", "cut off", "a block header");
  if (
    crc32(source.subarray(12, 12 + headerSize - 4)) !== view.getUint32(12 + headerSize - 4, true)
  ) {
    throw fail("XZ block header", "corrupt", "a matching CRC32");
  }
  const flags = source[13];
  let at = 14;
  const vli = () => {
    let value = 0;
    for (let shift = 0;; shift += 7) {
      const byte = source[at++];
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80 || shift >= 56) return value;
    }
  };
  if (flags & 0x40) vli();
  if (flags & 0x80) vli();
  let x86 = false, dictionary = -1;
  for (let i = 0; i <= (flags & 3); i++) {
    const id = vli(), length = vli();
    if (id === FILTER_X86 && length === 0) x86 = true;
    else if (id === FILTER_LZMA2 && length === 1) dictionary = source[at];
    else throw fail("XZ filter", hex(id), "x86 BCJ (0x4) without properties, or LZMA2 (0x21)");
    at += length;
  }
  if (dictionary < 0) throw fail("XZ filters", "without LZMA2", "LZMA2 as the last filter");
  const begin = 12 + headerSize;
  const end = lzma2End(source, begin, fail);
  const checkAt = begin + Math.ceil((end - begin) / 4) * 4;
  if (checkAt + CHECK_SIZE[check] > source.length) throw fail("XZ check", "cut off", "present");
  const crc = check === CHECK_CRC32 ? view.getUint32(checkAt, true) : undefined;
  return { x86, dictionary, lzma2: source.subarray(begin, end), crc };
}

/** Walks the LZMA2 chunk headers to the end marker (control byte 0). */
function lzma2End(
  source: Uint8Array,
  begin: number,
  fail: (field: string, given: string, expected: string) => BuilderError,
): number {
  let at = begin;
  for (;;) {
    if (at + 6 > source.length) throw fail("XZ data", "cut off", "an LZMA2 end marker");
    const control = source[at];
    if (control === 0) return at + 1;
    if (control === 1 || control === 2) at += 3 + (source[at + 1] << 8 | source[at + 2]) + 1;
    else if (control >= 0x80) {
      at += 5 + (source[at + 3] << 8 | source[at + 4]) + 1 + (control >= 0xc0 ? 1 : 0);
    } else throw fail("LZMA2 control byte", hex(control), "0, 1, 2 or 0x80 and above");
  }
}

/** The same LZMA2 data as a stream of its own: no BCJ filter, no check. */
function frame(block: Block): Uint8Array<ArrayBuffer> {
  const header = Uint8Array.of(2, 0, FILTER_LZMA2, 1, block.dictionary, 0, 0, 0);
  const padding = (4 - block.lzma2.length % 4) % 4;
  const unpadded = header.length + 4 + block.lzma2.length;
  const index = [0, 1, ...vliBytes(unpadded), ...vliBytes(uncompressedSize(block.lzma2))];
  while (index.length % 4) index.push(0);
  const backward = (index.length + 4) / 4 - 1;
  const footer = [...le32(backward), 0, 0];
  return concat([
    Uint8Array.from([...MAGIC, 0, 0, ...le32(crc32(Uint8Array.of(0, 0)))]),
    header,
    Uint8Array.from(le32(crc32(header))),
    block.lzma2,
    new Uint8Array(padding),
    Uint8Array.from([...index, ...le32(crc32(Uint8Array.from(index)))]),
    Uint8Array.from([...le32(crc32(Uint8Array.from(footer))), ...footer, 0x59, 0x5a]),
  ]);
}

/** Sum of the chunks' uncompressed sizes, from their headers. */
function uncompressedSize(lzma2: Uint8Array): number {
  let at = 0, total = 0;
  while (lzma2[at] !== 0) {
    const control = lzma2[at];
    const low = (lzma2[at + 1] << 8 | lzma2[at + 2]) + 1;
    if (control < 0x80) {
      total += low;
      at += 3 + low;
    } else {
      total += ((control & 0x1f) << 16) + low;
      at += 5 + (lzma2[at + 3] << 8 | lzma2[at + 4]) + 1 + (control >= 0xc0 ? 1 : 0);
    }
  }
  return total;
}

function vliBytes(value: number): number[] {
  const bytes = [];
  while (value >= 0x80) {
    bytes.push(value % 128 | 0x80);
    value = Math.floor(value / 128);
  }
  bytes.push(value);
  return bytes;
}

function le32(value: number): number[] {
  return [value & 255, value >>> 8 & 255, value >>> 16 & 255, value >>> 24];
}

function concat(parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** By the last three bytes' "was an opcode" bits: may this opcode be converted, and where to look. */
const ALLOWED = [true, true, true, false, true, false, false, false];
const BIT_NUMBER = [0, 1, 2, 2, 3, 3, 3, 3];

/** Undoes the x86 branch filter: targets of E8/E9 back from absolute to relative, in place. */
export function undoX86(bytes: Uint8Array): void {
  const signByte = (b: number) => b === 0x00 || b === 0xff;
  let mask = 0, last = -1;
  for (let i = 0; i + 4 < bytes.length; i++) {
    if ((bytes[i] & 0xfe) !== 0xe8) continue;
    const distance = i - last;
    last = i;
    if (distance > 3) mask = 0;
    else {
      mask = (mask << (distance - 1)) & 7;
      if (mask !== 0 && (!ALLOWED[mask] || signByte(bytes[i + 4 - BIT_NUMBER[mask]]))) {
        mask = (mask << 1) | 1;
        continue;
      }
    }
    if (!signByte(bytes[i + 4])) {
      mask = (mask << 1) | 1;
      continue;
    }
    let source = bytes[i + 1] | bytes[i + 2] << 8 | bytes[i + 3] << 16 | bytes[i + 4] << 24;
    let target: number;
    for (;;) {
      target = (source - (i + 5)) | 0;
      if (mask === 0) break;
      const shift = BIT_NUMBER[mask] * 8;
      if (!signByte(target >>> (24 - shift) & 255)) break;
      source = target ^ (2 ** (32 - shift) - 1);
    }
    target = target << 7 >> 7; // 25 bits, sign-extended
    bytes[i + 1] = target;
    bytes[i + 2] = target >> 8;
    bytes[i + 3] = target >> 16;
    bytes[i + 4] = target >> 24;
    i += 4;
  }
}

/**
 * How a file is compressed, by its first bytes, and unpacking of the kinds that we can.
 *
 * @module
 */
import { crc32, gunzipSync, zstdDecompressSync } from "node:zlib";
import { type BuilderError, counted } from "./errors.ts";
import { UNPACKED_MAX } from "./limits.ts";
import { failer, type NamedBytes } from "./load.ts";
import { LZ4_LEGACY_MAGIC } from "./lz4.ts";
import { decompressXz } from "./xz.ts";

/** How files are compressed that a kernel, its payload or a ramdisk may be. */
export type Compression = "gzip" | "xz" | "zstd" | "lz4" | "lz4 frame" | "bzip2" | "lzma" | "lzo";

/** First bytes. Linux's own "lz4" is the legacy format, which `lz4 -l` writes. */
const MAGIC: readonly (readonly [Compression, ...number[]])[] = [
  ["gzip", 0x1f, 0x8b],
  ["xz", 0xfd, 0x37, 0x7a, 0x58, 0x5a, 0],
  ["zstd", 0x28, 0xb5, 0x2f, 0xfd],
  ["lz4", 0x02, 0x21, 0x4c, 0x18],
  ["lz4 frame", 0x04, 0x22, 0x4d, 0x18],
  ["bzip2", 0x42, 0x5a, 0x68],
  ["lzma", 0x5d, 0, 0],
  ["lzo", 0x89, 0x4c, 0x5a, 0x4f],
];

/** What a file is compressed with, by its first bytes; undefined for anything else. */
export function compressionOf(bytes: Uint8Array): Compression | undefined {
  return MAGIC.find(([, ...magic]) => magic.every((byte, i) => bytes[i] === byte))?.[0];
}

/** What a file that is not what was wanted begins with, in words. */
export function beginning(bytes: Uint8Array): string {
  if (bytes.length === 0) return "empty";
  const kind = compressionOf(bytes);
  if (kind) return `${kind} data`;
  const first = Array.from(bytes.subarray(0, 4), (b) => b.toString(16).padStart(2, "0"));
  return `a file that begins with ${first.join(" ")}`;
}

/** No block of the legacy format, 8 MB at most, is longer when compressed. */
const LZ4_BLOCK_MAX = (8 << 20) + (8 << 20) / 255 + 16;

/**
 * A kernel file's contents, decompressed if it is compressed as a whole.
 *
 * @throws {BuilderError} When it is cut off or corrupt, or of a kind that is not unpacked here.
 */
export async function unpack(kernel: NamedBytes): Promise<NamedBytes> {
  const { file, bytes } = kernel;
  const kind = compressionOf(bytes);
  if (kind === undefined) return kernel;
  if (kind === "xz") {
    checkXzEnd(kernel);
    return { file, bytes: await decompressXz(bytes, undefined, file) };
  }
  if (kind === "zstd") checkZstd(kernel);
  else if (kind !== "gzip") {
    throw failer(file)("kernel", `${kind} data`, "a kernel as it is, or in gzip, xz or zstd");
  }
  return { file, bytes: inflate(kind, bytes, UNPACKED_MAX, file) };
}

/** Decompresses gzip or zstd. @throws {BuilderError} When corrupt, cut off, or larger than `most`. */
export function inflate(
  kind: "gzip" | "zstd",
  bytes: Uint8Array,
  most: number,
  file: string,
): Uint8Array {
  const inflated = inflateUpTo(kind, bytes, most, file);
  if (inflated) return inflated;
  throw failer(file)(`${kind} data`, `more than ${most} bytes when decompressed`, "no more");
}

/** As {@linkcode inflate}; undefined for what is larger. */
function inflateUpTo(
  kind: "gzip" | "zstd",
  bytes: Uint8Array,
  most: number,
  file: string,
): Uint8Array | undefined {
  const decompress = kind === "gzip" ? gunzipSync : zstdDecompressSync;
  try {
    return new Uint8Array(decompress(bytes, { maxOutputLength: most }));
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    if (code === "ERR_BUFFER_TOO_LARGE") return undefined;
    throw failer(file)(
      `${kind} data`,
      /unexpected end/.test(message)
        ? `cut off after ${counted(bytes.length, "byte")}`
        : `corrupt (${message})`,
      `a whole ${kind} stream`,
    );
  }
}

/**
 * Refuses a compressed file that ends too early, as far as that shows without decompressing it.
 * LZMA has no mark of its end: of it nothing is known.
 */
export function checkEnd(source: NamedBytes, kind: Compression): void {
  // Of what is larger the end is not worth the time.
  if (kind === "gzip") inflateUpTo(kind, source.bytes, UNPACKED_MAX * 2, source.file);
  else if (kind === "xz") checkXzEnd(source);
  else if (kind === "zstd") checkZstd(source);
  else if (kind === "lz4") checkLz4(source);
  else if (kind === "bzip2") checkBzip2(source);
}

function cutOff({ file, bytes }: NamedBytes, kind: Compression, expected: string): BuilderError {
  return failer(file)(`${kind} data`, `cut off after ${counted(bytes.length, "byte")}`, expected);
}

/** The stream's footer, 12 bytes with a CRC32 of their own; zeroes may follow ("The .xz File Format" 2.1.2). */
function checkXzEnd(source: NamedBytes): void {
  const { bytes } = source;
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (
    end >= 32 && bytes[end - 2] === 0x59 && bytes[end - 1] === 0x5a &&
    crc32(bytes.subarray(end - 8, end - 2)) === view.getUint32(end - 12, true)
  ) return;
  throw cutOff(source, "xz", "a stream footer at its end");
}

/** Walks frames and their blocks (RFC 8878, 3.1). */
function checkZstd(source: NamedBytes): void {
  const { bytes } = source;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const cut = () => cutOff(source, "zstd", "a last block and what follows it");
  let at = 0;
  // Other archives may follow; what is no frame is not looked at.
  while (at + 8 <= bytes.length) {
    const magic = view.getUint32(at, true);
    if ((magic & 0xfffffff0) >>> 0 === 0x184d2a50) {
      at += 8 + view.getUint32(at + 4, true);
    } else if (magic === 0xfd2fb528) {
      const descriptor = bytes[at + 4], single = descriptor >> 5 & 1;
      const sizeBytes = [single, 2, 4, 8][descriptor >> 6];
      at += 5 + (1 - single) + [0, 1, 2, 4][descriptor & 3] + sizeBytes;
      for (let last = false; !last;) {
        if (at + 3 > bytes.length) throw cut();
        const header = bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16;
        last = (header & 1) !== 0;
        // A run of one byte is that byte.
        at += 3 + ((header >> 1 & 3) === 1 ? 1 : header >> 3);
      }
      if (descriptor & 4) at += 4;
    } else return;
    if (at > bytes.length) throw cut();
  }
  if (at === 0) throw cut();
}

/** Walks the blocks. Zeroes or another archive may follow; a cut between two blocks does not show. */
function checkLz4(source: NamedBytes): void {
  const { bytes } = source;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 4; at < bytes.length;) {
    const length = at + 4 <= bytes.length ? view.getUint32(at, true) : 1;
    if (length !== LZ4_LEGACY_MAGIC) {
      if (length === 0 || length > LZ4_BLOCK_MAX) return;
      at += length;
    }
    at += 4;
    if (at > bytes.length) throw cutOff(source, "lz4", "its last block whole");
  }
}

/** The end mark, 48 bits at any bit, stands before the last 32 bits and padding. */
function checkBzip2(source: NamedBytes): void {
  const END = 0x177245385090n;
  let tail = 0n;
  for (const byte of source.bytes.subarray(-11)) tail = tail << 8n | BigInt(byte);
  for (let padding = 0n; padding < 8n; padding++) {
    if ((tail >> (32n + padding) & 0xffff_ffff_ffffn) === END) return;
  }
  throw cutOff(source, "bzip2", "an end mark");
}

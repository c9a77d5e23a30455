/**
 * Ramdisks: refused where the guest could only fail on them, else put into its memory.
 *
 * @module
 */
import { counted } from "./errors.ts";
import { PC } from "../abi/boot/e820.ts";
import { beginning, checkEnd, compressionOf } from "./compressed.ts";
import { failer, type NamedBytes } from "./load.ts";
import type { Placement } from "./placement.ts";

const KNOWN = "an initramfs: cpio (070701), gzip, xz, zstd, lz4, lzma, bzip2 or lzo";

/**
 * Refuses a ramdisk that the guest could only fail on: empty, of no known kind, or cut off. A gzip
 * stream is inflated to its CRC; others must have their mark of the end, a cpio archive its trailer.
 *
 * @throws {BuilderError} Naming what is wrong.
 */
export function checkRamdisk(ramdisk: NamedBytes): void {
  const { file, bytes } = ramdisk;
  if (bytes.length < 64) {
    throw failer(file)("ramdisk", `${counted(bytes.length, "byte")} long`, KNOWN);
  }
  for (let at = 0; at < bytes.length;) {
    const rest = { file, bytes: bytes.subarray(at) };
    const text = latin1(rest.bytes, 0, 8);
    if (/^07070[12]/.test(text)) {
      at += checkCpio(rest);
      continue;
    }
    const kind = compressionOf(rest.bytes);
    if (kind && kind !== "lz4 frame") return checkEnd(rest, kind);
    if (isFileSystem(rest.bytes, text)) return;
    throw failer(file)("ramdisk", beginning(rest.bytes), KNOWN);
  }
}

/** File systems a kernel knows and this check does not look into. */
function isFileSystem(bytes: Uint8Array, text: string): boolean {
  const ext2 = bytes.length > 0x43a && bytes[0x438] === 0x53 && bytes[0x439] === 0xef;
  return ext2 || ["-rom1fs-", "hsqs"].some((magic) => text.startsWith(magic));
}

/**
 * Walks the records to the trailer; gives the bytes of the archive and the zeroes behind it. Another
 * archive may follow: microcode comes first.
 */
function checkCpio({ file, bytes }: NamedBytes): number {
  const fail = failer(file);
  const field = (at: number, n: number) =>
    parseInt(latin1(bytes, at + 6 + 8 * n, at + 14 + 8 * n), 16);
  for (let at = 0; at + 110 <= bytes.length;) {
    const size = field(at, 6), nameSize = field(at, 11);
    if (!/^07070[12]$/.test(latin1(bytes, at, at + 6)) || !(size >= 0) || !(nameSize > 0)) {
      throw fail(`cpio record at byte ${at}`, "no header", "070701 and its numbers");
    }
    if (at + 110 + nameSize > bytes.length) break;
    if (latin1(bytes, at + 110, at + 110 + nameSize - 1) === "TRAILER!!!") {
      let next = at + 110 + nameSize;
      while (bytes[next] === 0) next++;
      return next;
    }
    at = Math.ceil((Math.ceil((at + 110 + nameSize) / 4) * 4 + size) / 4) * 4;
  }
  throw fail(
    "cpio archive",
    `cut off after ${counted(bytes.length, "byte")}`,
    "an end marker TRAILER!!!",
  );
}

function latin1(bytes: Uint8Array, from: number, to: number): string {
  return new TextDecoder("latin1").decode(bytes.subarray(from, to));
}

/**
 * Checks a ramdisk and puts it as high in the memory below 4 GB as `last` (its last allowed byte)
 * permits.
 */
export function placeRamdisk(
  place: Placement,
  ramdisk: NamedBytes | undefined,
  last: number = PC.fourGigabytes - 1,
): { at: number; size: number } | undefined {
  if (!ramdisk) return undefined;
  checkRamdisk(ramdisk);
  const below = Math.min(last + 1, PC.fourGigabytes);
  const where = { from: PC.highMemory, below, align: 4096, high: true };
  return { at: place.place("ramdisk", ramdisk.bytes, where), size: ramdisk.bytes.length };
}

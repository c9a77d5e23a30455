import { gunzipSync } from "node:zlib";
import { PC } from "../abi/boot/e820.ts";
import { BuilderError } from "./errors.ts";
import { failer, type NamedBytes } from "./load.ts";
import { compressionOf } from "./payload.ts";
import type { Placement } from "./placement.ts";

const KNOWN = "an initramfs: cpio (070701), gzip, xz, zstd, lz4, lzma, bzip2 or lzo";

/** Inflating more than this to check a ramdisk is not worth the time. */
const CHECK_MAX = 1 << 30;

/**
 * Refuses a ramdisk that the guest could only fail on: empty, of no known kind, or cut off. A gzip
 * stream is inflated to its CRC; an XZ stream must have its footer, a cpio archive its trailer.
 *
 * @throws {BuilderError} Naming what is wrong.
 */
export function checkRamdisk(ramdisk: NamedBytes): void {
  const { file, bytes } = ramdisk;
  const fail = failer(file);
  if (bytes.length < 64) throw fail("ramdisk", `${bytes.length} bytes long`, KNOWN);
  const text = latin1(bytes, 0, 8);
  if (/^07070[12]/.test(text)) return checkCpio(bytes, fail);
  const kind = compressionOf(bytes);
  if (kind === "gzip") return checkGzip(bytes, file);
  if (kind === "xz") {
    let end = bytes.length;
    while (end > 0 && bytes[end - 1] === 0) end--;
    if (latin1(bytes, end - 2, end) === "YZ") return;
    throw fail("XZ ramdisk", "cut off", `a stream footer ending in "YZ"`);
  }
  if (kind === "zstd" || kind === "lz4" || otherKind(bytes, text)) return;
  const first = Array.from(bytes.subarray(0, 4), (b) => b.toString(16).padStart(2, "0"));
  throw fail("ramdisk's first bytes", first.join(" "), KNOWN);
}

/** Kinds the kernel knows and this check does not look into. */
function otherKind(bytes: Uint8Array, text: string): boolean {
  const compressed = ["BZh", "\x5d\0\0", "\x89LZO"];
  const fileSystems = ["-rom1fs-", "hsqs"];
  const ext2 = bytes.length > 0x43a && bytes[0x438] === 0x53 && bytes[0x439] === 0xef;
  return ext2 || [...compressed, ...fileSystems].some((magic) => text.startsWith(magic));
}

function checkGzip(bytes: Uint8Array, file: string): void {
  try {
    gunzipSync(bytes, { maxOutputLength: CHECK_MAX });
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    if (code === "ERR_BUFFER_TOO_LARGE") return;
    const cut = /unexpected end/.test(message);
    throw new BuilderError({
      file,
      field: "gzip ramdisk",
      given: cut ? `cut off after ${bytes.length} bytes` : `corrupt (${message})`,
      expected: "a whole gzip stream",
    });
  }
}

/** Walks the records to the trailer; another archive may follow it (microcode comes first). */
function checkCpio(bytes: Uint8Array, fail: ReturnType<typeof failer>): void {
  const field = (at: number, n: number) =>
    parseInt(latin1(bytes, at + 6 + 8 * n, at + 14 + 8 * n), 16);
  for (let at = 0; at + 110 <= bytes.length;) {
    const size = field(at, 6), nameSize = field(at, 11);
    if (!/^07070[12]$/.test(latin1(bytes, at, at + 6)) || !(size >= 0) || !(nameSize > 0)) {
      throw fail(`cpio record at byte ${at}`, "no header", "070701 and its numbers");
    }
    if (latin1(bytes, at + 110, at + 110 + nameSize - 1) === "TRAILER!!!") return;
    at = Math.ceil((Math.ceil((at + 110 + nameSize) / 4) * 4 + size) / 4) * 4;
  }
  throw fail("cpio archive", `cut off after ${bytes.length} bytes`, "an end marker TRAILER!!!");
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

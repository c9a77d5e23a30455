/**
 * The kernel that a bzImage carries: where it lies, and how it is unpacked.
 *
 * @module
 */
import { beginning, compressionOf, inflate } from "./compressed.ts";
import { isElf } from "./elf.ts";
import { BuilderError, counted, hex } from "./errors.ts";
import { UNPACKED_MAX } from "./limits.ts";
import { decompressLz4Legacy } from "./lz4.ts";
import { decompressXz } from "./xz.ts";

/** Where a bzImage keeps its compressed kernel. */
export interface PayloadPlace {
  readonly compression: "xz" | "lz4" | "gzip" | "zstd" | "none";
  /** The compressed bytes, without the appended size. */
  readonly bytes: Uint8Array;
  /** Bytes when decompressed: the u32 that Linux's build appends, or gzip's own ISIZE. */
  readonly size: number;
}

const KNOWN = ["xz", "lz4", "gzip", "zstd", "none"] as const;
const isKnown = (kind: string | undefined): kind is PayloadPlace["compression"] =>
  KNOWN.some((known) => known === kind);

/**
 * Finds the compressed vmlinux of a bzImage by `payload_offset` and `payload_length`.
 *
 * Source: Linux Documentation/arch/x86/boot.rst, fields at 0x248 and 0x24C (protocol 2.08).
 *
 * @throws {BuilderError} When the file is no bzImage of protocol 2.08 or above, or cut off.
 */
export function findPayload(image: Uint8Array, file: string): PayloadPlace {
  const fail = (field: string, given: string, expected: string) =>
    new BuilderError({ file, field, given, expected });
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  if (image.length < 0x260 || view.getUint32(0x202, true) !== 0x53726448) {
    throw fail("setup header magic", "missing", `"HdrS" at 0x202 (a bzImage)`);
  }
  const protocol = view.getUint16(0x206, true);
  if (protocol < 0x208) throw fail("boot protocol", hex(protocol), "0x208 or above");
  const offset = ((image[0x1f1] || 4) + 1) * 512 + view.getUint32(0x248, true);
  const length = view.getUint32(0x24c, true);
  if (length < 8 || offset + length > image.length) {
    throw fail(
      "payload",
      `${length} bytes at ${hex(offset)}`,
      `inside the file's ${counted(image.length, "byte")}`,
    );
  }
  const whole = image.subarray(offset, offset + length);
  const compression = isElf(whole) ? "none" : compressionOf(whole);
  if (!isKnown(compression)) {
    throw fail("payload", beginning(whole), "XZ, LZ4, gzip, zstd or ELF");
  }
  if (compression === "none") return { compression, bytes: whole, size: length };
  // gzip ends in its own size, the others in one appended by the build.
  const size = new DataView(whole.buffer, whole.byteOffset + length - 4, 4).getUint32(0, true);
  if (size === 0 || size > UNPACKED_MAX) {
    throw fail("payload's decompressed size", hex(size), `1 to ${hex(UNPACKED_MAX)}`);
  }
  const bytes = compression === "gzip" ? whole : whole.subarray(0, length - 4);
  return { compression, bytes, size };
}

/**
 * Extracts the kernel ELF (`vmlinux`, stripped) that a bzImage carries.
 *
 * @throws {BuilderError} When there is none, or it is corrupt.
 */
export async function extractPayload(image: Uint8Array, file: string): Promise<Uint8Array> {
  const { compression, bytes, size } = findPayload(image, file);
  const elf = await decompress(compression, bytes, size, file);
  if (!isElf(elf)) {
    throw new BuilderError({
      file,
      field: "decompressed payload",
      given: "no ELF file",
      expected: "an ELF file (a vmlinux)",
    });
  }
  return elf;
}

async function decompress(
  compression: PayloadPlace["compression"],
  bytes: Uint8Array,
  size: number,
  file: string,
): Promise<Uint8Array> {
  if (compression === "xz") return await decompressXz(bytes, size, file);
  if (compression === "lz4") return decompressLz4Legacy(bytes, size, file);
  if (compression === "none") return bytes.slice();
  const out = inflate(compression, bytes, size, file);
  if (out.length === size) return out;
  throw new BuilderError({
    file,
    field: `${compression} data`,
    given: `${counted(out.length, "byte")} when decompressed`,
    expected: `${size}`,
  });
}

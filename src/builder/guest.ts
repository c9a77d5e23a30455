import { type AcpiOptions, makeAcpi, writeAcpi } from "./acpi.ts";
import { isBzImage, loadBzImage } from "./bzimage.ts";
import { isElf, readElf } from "./elf.ts";
import { BuilderError } from "./errors.ts";
import { writeFirmware } from "./firmware.ts";
import { loadRom } from "./flat.ts";
import type { LoadedGuest, LoadOptions, NamedBytes } from "./load.ts";
import { findMultiboot, loadMultiboot, multiboot2Text } from "./multiboot.ts";
import { beginning, unpack } from "./compressed.ts";
import { extractPayload } from "./payload.ts";
import { loadPvh, pvhEntry } from "./pvh.ts";
import { loadVmlinux } from "./vmlinux.ts";

/** How a kernel is to be entered: by its format, or by a protocol asked for. */
export type BootProtocol = "auto" | LoadedGuest["format"];

/** What {@link loadGuest} takes. */
export interface GuestOptions extends Omit<LoadOptions, "rsdp"> {
  /** `auto` by default: what the file is decides. */
  readonly protocol?: Exclude<BootProtocol, "flat">;
  /** What firmware leaves behind, at this time (seconds since 1970); absent: none. A ROM has its own. */
  readonly firmware?: { readonly unixTime: number };
  /** ACPI tables for the guest; absent, or false: none. */
  readonly acpi?: AcpiOptions | false;
}

/**
 * Loads a guest from whatever its kernel file is, with ACPI tables if they are asked for.
 *
 * `auto` takes a bzImage by the 32-bit boot protocol; an ELF file by its multiboot header, else
 * its PVH note, else directly; a 64 KB or 128 KB file with a jump at its reset vector as a ROM.
 * `pvh` and `vmlinux` take a bzImage too: its payload is decompressed first. A file that is compressed
 * as a whole, in gzip, xz or zstd, is taken for what is in it.
 *
 * @throws {BuilderError} Naming file, field, what was given and what was expected.
 */
export async function loadGuest(options: GuestOptions): Promise<LoadedGuest> {
  const { acpi, firmware, protocol = "auto", ...rest } = options;
  const kernel = await unpacked(rest.kernel, protocol);
  const format = protocol === "auto" ? detect(kernel) : protocol;
  if (format === "rom") return loadRom({ ...rest, kernel });
  const tables = acpi ? makeAcpi(acpi) : undefined;
  const left = firmware ? writeFirmware(rest.memory, firmware.unixTime) : [];
  const loaded = LOADERS[format]({ ...rest, kernel, rsdp: tables?.rsdp });
  if (tables) left.push(...writeAcpi(rest.memory, tables));
  return { ...loaded, regions: [...loaded.regions, ...left] };
}

const LOADERS: Record<
  Exclude<LoadedGuest["format"], "flat" | "rom">,
  (options: LoadOptions) => LoadedGuest
> = {
  bzImage: loadBzImage,
  vmlinux: loadVmlinux,
  pvh: loadPvh,
  multiboot: loadMultiboot,
};

async function unpacked(kernel: NamedBytes, protocol: BootProtocol): Promise<NamedBytes> {
  const whole = await unpack(kernel);
  if (protocol !== "pvh" && protocol !== "vmlinux") return whole;
  if (!isBzImage(whole.bytes)) return whole;
  return { file: kernel.file, bytes: await extractPayload(whole.bytes, kernel.file) };
}

/**
 * What a kernel file is.
 *
 * @throws {BuilderError} When it is nothing a loader knows.
 */
export function detect(kernel: NamedBytes): Exclude<LoadedGuest["format"], "flat"> {
  const { bytes, file } = kernel;
  if (isBzImage(bytes)) return "bzImage";
  if (findMultiboot(bytes)) return "multiboot";
  const multiboot2 = multiboot2Text(bytes);
  // An ELF file may have a note beside it, by which it is loaded.
  if (isElf(bytes)) {
    if (pvhEntry(readElf(bytes, file)) !== undefined) return "pvh";
    if (!multiboot2) return "vmlinux";
  }
  if (!multiboot2 && isRom(bytes)) return "rom";
  throw new BuilderError({
    file,
    field: "kernel",
    given: multiboot2 ?? beginning(bytes),
    expected: multiboot2
      ? "a multiboot 1 header (0x1badb002), a PVH note, a bzImage, or a ROM of 64 or 128 KB"
      : "a bzImage, an ELF kernel, a multiboot image, or a ROM of 64 or 128 KB",
  });
}

/** A ROM has a jump at its reset vector, 16 bytes before its end. */
function isRom(bytes: Uint8Array): boolean {
  if (bytes.length !== 0x10000 && bytes.length !== 0x20000) return false;
  return [0xea, 0xe9, 0xeb].includes(bytes[bytes.length - 16]);
}

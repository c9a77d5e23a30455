/** From a kernel file to a loaded guest, by the table of images. */
import {
  type BootName,
  BOOTS,
  type Companion,
  type GuestType,
  type ImageName,
  IMAGES,
} from "../abi/boot/images.ts";
import { type AcpiOptions, makeAcpi, writeAcpi } from "./acpi.ts";
import { isBzImage, loadBzImage } from "./bzimage.ts";
import { beginning, unpack } from "./compressed.ts";
import { isElf, readElf } from "./elf.ts";
import { counted } from "./errors.ts";
import { writeFirmware } from "./firmware.ts";
import { bootOf, IMAGE_NAMES, imageList, takers } from "./image_list.ts";
import { failer, type LoadedGuest, type LoadOptions, type NamedBytes } from "./load.ts";
import { findMultiboot, isMultiboot2, loadMultiboot } from "./multiboot.ts";
import { type MpOptions, writeMp } from "./mp.ts";
import { extractPayload } from "./payload.ts";
import { loadPvh, pvhEntry } from "./pvh.ts";
import { isRom, loadRom } from "./rom.ts";
import { loadVmlinux } from "./vmlinux.ts";

/** What {@link loadGuest} takes. */
export interface GuestOptions extends Omit<LoadOptions, "rsdp"> {
  /** The domain's type; "hvm" if not given. */
  readonly type?: GuestType;
  /** What firmware leaves behind, at this time (seconds since 1970); absent: none. A ROM has its own. */
  readonly firmware?: { readonly unixTime: number };
  /** ACPI tables for the guest; absent, or false: none. */
  readonly acpi?: AcpiOptions | false;
  /** Intel's MP tables for the guest; absent: none. */
  readonly mp?: MpOptions;
}

const IS: Record<ImageName, (kernel: NamedBytes) => boolean> = {
  bzImage: ({ bytes }) => isBzImage(bytes),
  multiboot: ({ bytes }) => findMultiboot(bytes) !== undefined,
  pvh: ({ bytes, file }) => isElf(bytes) && pvhEntry(readElf(bytes, file)) !== undefined,
  multiboot2: ({ bytes }) => isMultiboot2(bytes),
  elf: ({ bytes }) => isElf(bytes),
  rom: ({ bytes }) => isRom(bytes),
};

/** Who loads a kernel that is entered in this way. */
export const LOADERS: Record<BootName, (options: LoadOptions) => LoadedGuest> = {
  bzImage: loadBzImage,
  multiboot: loadMultiboot,
  pvh: loadPvh,
  vmlinux: loadVmlinux,
  rom: loadRom,
};

/**
 * Loads a guest from whatever its kernel file is, with ACPI tables if they are asked for: a file that
 * is compressed as a whole, in gzip, xz or zstd, is taken for what is in it.
 *
 * @throws {BuilderError} Naming file, field, what was given and what was expected.
 */
export async function loadGuest(options: GuestOptions): Promise<LoadedGuest> {
  const { acpi, mp, firmware, type = "hvm", ...rest } = options;
  const whole = await unpack(rest.kernel);
  const { image, boot } = detect(whole, type);
  refuseCompanions(boot, options);
  const kernel = image === "bzImage" && boot === "pvh"
    ? { ...whole, bytes: await extractPayload(whole.bytes, whole.file) }
    : whole;
  const load = LOADERS[boot];
  if (!BOOTS[boot].firmware) return load({ ...rest, kernel });
  const tables = acpi ? makeAcpi(acpi) : undefined;
  const left = firmware ? writeFirmware(rest.memory, firmware.unixTime) : [];
  const loaded = load({ ...rest, kernel, rsdp: tables?.rsdp });
  if (tables) left.push(...writeAcpi(rest.memory, tables));
  if (mp) left.push(writeMp(rest.memory, mp));
  return { ...loaded, regions: [...loaded.regions, ...left] };
}

/**
 * What a kernel file is, and how it is entered in a domain of this type.
 *
 * @throws {BuilderError} When it is nothing that such a domain boots.
 */
export function detect(
  kernel: NamedBytes,
  type: GuestType = "hvm",
): { image: ImageName; boot: BootName } {
  const image = IMAGE_NAMES.find((name) => bootOf(name, type) && IS[name](kernel));
  const boot = image && bootOf(image, type);
  if (image && typeof boot === "string") return { image, boot };
  const refused = typeof boot === "object" ? boot.expected : undefined;
  const known = image ?? IMAGE_NAMES.find((name) => IS[name](kernel));
  throw failer(kernel.file)(
    "kernel",
    known ? IMAGES[known].text : beginning(kernel.bytes),
    refused ?? imageList([type]),
  );
}

/** Refuses what the kernel would never see. @throws {BuilderError} naming it */
function refuseCompanions(boot: BootName, options: GuestOptions): void {
  const { kernel, cmdline, ramdisk, modules } = options;
  const given = {
    cmdline: cmdline ? `"${cmdline}"` : undefined,
    ramdisk: ramdisk?.file,
    modules: modules?.length ? counted(modules.length, "file") : undefined,
  };
  const takes: readonly Companion[] = BOOTS[boot].takes;
  for (const what of ["cmdline", "ramdisk", "modules"] as const) {
    if (given[what] === undefined || takes.includes(what)) continue;
    throw failer(kernel.file)(
      what,
      given[what],
      `none: it is entered by ${boot}; a kernel that is entered by ${takers(what)} takes it`,
    );
  }
}

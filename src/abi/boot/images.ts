/**
 * Kernel images and the types of domain: which image boots in which, how it is entered and what it
 * finds. Detection, loading, messages, help and the README's tables follow the two tables here.
 * @module
 */

/** On the processor itself, in a hardware virtual machine, entered by its PVH note, paravirtual. */
export type GuestType = "bare" | "hvm" | "pvh" | "pv";
/** The types of domain. */
export const GUEST_TYPES: readonly GuestType[] = ["bare", "hvm", "pvh", "pv"];

/** What a kernel can be given beside its file. */
export type Companion = "cmdline" | "ramdisk" | "modules";

/** A way of entry. */
export interface Boot {
  /** In which mode the processor begins, and where. */
  readonly entry: string;
  /** What the kernel finds, and by which register. */
  readonly finds: string;
  readonly takes: readonly Companion[];
  /** Whether memory and chips are as a PC's firmware leaves them. */
  readonly firmware: boolean;
}

const FLAT = "32-bit, flat, unpaged, at";

/** The ways in which a kernel is entered. */
export const BOOTS = {
  bzImage: {
    entry: `${FLAT} its preferred address`,
    finds: "ESI: boot_params with E820, ACPI's RSDP",
    takes: ["cmdline", "ramdisk"],
    firmware: true,
  },
  multiboot: {
    entry: `${FLAT} its header's entry_addr or its ELF entry`,
    finds: "EAX: 2BADB002h, EBX: multiboot information with a memory map",
    takes: ["cmdline", "ramdisk", "modules"],
    firmware: true,
  },
  pvh: {
    entry: `${FLAT} its note's address`,
    finds: "EBX: hvm_start_info with a memory map, ACPI's RSDP",
    takes: ["cmdline", "ramdisk", "modules"],
    firmware: true,
  },
  vmlinux: {
    entry: `i386: ${FLAT} its ELF entry; x86-64: 64-bit, over identity tables`,
    finds: "ESI, RSI: boot_params with E820, ACPI's RSDP",
    takes: ["cmdline", "ramdisk"],
    firmware: true,
  },
  rom: {
    entry: "16-bit, at the reset vector, FFFFFFF0h",
    finds: "a processor after RESET; it is the firmware",
    takes: [],
    firmware: false,
  },
} satisfies Record<string, Boot>;

export type BootName = keyof typeof BOOTS;

/** How an image boots in a type of domain: by a way of entry, or not at all, and what would. */
export type ImageBoot = BootName | { readonly expected: string };

/** A kind of image. */
export interface Image {
  /** With its article. */
  readonly text: string;
  /** What it is known by. */
  readonly sign: string;
  /** A type that is absent does not see this kind: the file may be of a later one, too. */
  readonly boots: Readonly<Partial<Record<GuestType, ImageBoot>>>;
}

/** Both have a whole PC, with whatever its firmware could start. */
const pc = <B extends ImageBoot>(boot: B) => ({ bare: boot, hvm: boot });

/** The kinds of image; a file is of the first that fits. */
export const IMAGES = {
  bzImage: {
    text: "a bzImage",
    sign: `"HdrS" at 202h`,
    // The kernel that is compressed in it has the note.
    boots: { ...pc("bzImage"), pvh: "pvh" },
  },
  multiboot: {
    text: "a multiboot 1 image",
    sign: "1BADB002h and its checksum, in the first 8 KB",
    boots: pc("multiboot"),
  },
  pvh: {
    text: "an ELF with a PVH note",
    sign: "note 18 of Xen",
    boots: { ...pc("pvh"), pvh: "pvh" },
  },
  multiboot2: {
    text: "a multiboot 2 image",
    sign: "E85250D6h and its checksum, in the first 32 KB",
    boots: pc({
      expected:
        "a multiboot 1 header (0x1badb002), a PVH note, a bzImage, or a ROM of 64 or 128 KB",
    }),
  },
  elf: {
    text: "an ELF without a PVH note",
    sign: '7Fh and "ELF"',
    boots: pc("vmlinux"),
  },
  rom: {
    text: "a ROM of 64 or 128 KB",
    sign: "a jump 16 bytes before its end",
    boots: pc("rom"),
  },
} satisfies Record<string, Image>;

export type ImageName = keyof typeof IMAGES;

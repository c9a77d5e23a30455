/**
 * What a kernel says about itself to Xen: ELF notes, and the `__xen_guest` string of 2006.
 *
 * @module
 */
import { View } from "../abi/layout.ts";
import { ELF_WORD } from "../abi/boot/elf.ts";
import { XEN_ELFNOTE } from "../abi/xen/elfnote.ts";
import { type ElfFile, elfNotes, stringAt } from "./elf.ts";

/** What a kernel says about itself to a paravirtual builder. Addresses are virtual unless said. */
export interface XenNotes {
  /** `notes` from ELF notes, `section` from a `__xen_guest` string of 2006. */
  readonly source: "notes" | "section";
  readonly guestOs?: string;
  readonly guestVersion?: string;
  readonly xenVersion?: string;
  readonly loader?: string;
  readonly entry?: bigint;
  /** Address of the hypercall page. */
  readonly hypercallPage?: bigint;
  readonly virtBase?: bigint;
  readonly paddrOffset?: bigint;
  /** As written: `yes`, `no`, `yes[extended-cr3]`, `bimodal`. */
  readonly paeMode?: string;
  /** Feature names; a leading `!` marks one that the guest requires. */
  readonly features?: readonly string[];
  readonly supportedFeatures?: number;
  readonly hvStartLow?: bigint;
  readonly initP2m?: bigint;
  readonly modStartPfn?: boolean;
  readonly suspendCancel?: boolean;
  /** Bytes of an L1 entry and the mask that makes it valid. */
  readonly l1MfnValid?: { readonly mask: bigint; readonly value: bigint };
  /** Physical address of the PVH entry. */
  readonly phys32Entry?: bigint;
}

/**
 * Reads what a kernel tells Xen, from its ELF notes or, for images of 2006, from its
 * `__xen_guest` section.
 *
 * Source: Xen public/elfnote.h; for the section, the same names as KEY=value pairs with commas.
 *
 * @returns undefined when the kernel says nothing to Xen.
 */
export function readXenNotes(elf: ElfFile): XenNotes | undefined {
  const notes = elfNotes(elf).filter((n) => n.name === "Xen");
  if (notes.length > 0) return fromNotes(new Map(notes.map((n) => [n.type, n.desc])));
  const section = elf.sections.find((s) => s.name === "__xen_guest");
  if (!section) return undefined;
  return fromSection(stringAt(elf.bytes, section.offset, section.offset + section.size));
}

function fromNotes(notes: ReadonlyMap<number, Uint8Array>): XenNotes {
  const text = (n: number) => notes.has(n) ? stringAt(notes.get(n)!, 0) : undefined;
  const number = (n: number, at = 0) => {
    const desc = notes.get(n);
    if (!desc || desc.length < 4) return undefined;
    // Two numbers of 8 or of 4 bytes (L1_MFN_VALID), or one of either width.
    const pair = desc.length === 16 || (desc.length === 8 && n === XEN_ELFNOTE.L1_MFN_VALID);
    const width = (pair ? desc.length / 2 : desc.length) >= 8 ? 8 : 4;
    if ((at + 1) * width > desc.length) return undefined;
    return new View(ELF_WORD, width === 8 ? 64 : 32, desc, at * width).get("value");
  };
  const flag = (n: number) => notes.has(n) ? number(n) !== 0n : undefined;
  const features = text(XEN_ELFNOTE.FEATURES);
  const mask = number(XEN_ELFNOTE.L1_MFN_VALID);
  const supported = number(XEN_ELFNOTE.SUPPORTED_FEATURES);
  return defined({
    source: "notes" as const,
    guestOs: text(XEN_ELFNOTE.GUEST_OS),
    guestVersion: text(XEN_ELFNOTE.GUEST_VERSION),
    xenVersion: text(XEN_ELFNOTE.XEN_VERSION),
    loader: text(XEN_ELFNOTE.LOADER),
    entry: number(XEN_ELFNOTE.ENTRY),
    hypercallPage: number(XEN_ELFNOTE.HYPERCALL_PAGE),
    virtBase: number(XEN_ELFNOTE.VIRT_BASE),
    paddrOffset: number(XEN_ELFNOTE.PADDR_OFFSET),
    paeMode: text(XEN_ELFNOTE.PAE_MODE),
    features: features?.split("|").filter((f) => f !== ""),
    supportedFeatures: supported === undefined ? undefined : Number(supported),
    hvStartLow: number(XEN_ELFNOTE.HV_START_LOW),
    initP2m: number(XEN_ELFNOTE.INIT_P2M),
    modStartPfn: flag(XEN_ELFNOTE.MOD_START_PFN),
    suspendCancel: flag(XEN_ELFNOTE.SUSPEND_CANCEL),
    l1MfnValid: mask === undefined
      ? undefined
      : { mask, value: number(XEN_ELFNOTE.L1_MFN_VALID, 1) ?? mask },
    phys32Entry: number(XEN_ELFNOTE.PHYS32_ENTRY),
  });
}

function fromSection(text: string): XenNotes {
  const pairs = new Map(
    text.split(",").map((part) => {
      const [key, ...value] = part.split("=");
      return [key.trim(), value.join("=")] as const;
    }),
  );
  const number = (key: string) => {
    const value = pairs.get(key);
    return value !== undefined && /^(0x[0-9a-f]+|\d+)$/i.test(value) ? BigInt(value) : undefined;
  };
  const page = number("HYPERCALL_PAGE"), base = number("VIRT_BASE");
  return defined({
    source: "section" as const,
    guestOs: pairs.get("GUEST_OS"),
    guestVersion: pairs.get("GUEST_VER"),
    xenVersion: pairs.get("XEN_VER"),
    loader: pairs.get("LOADER"),
    entry: number("VIRT_ENTRY"),
    // The section gives a page number counted from VIRT_BASE.
    hypercallPage: page === undefined ? undefined : (base ?? 0n) + (page << 12n),
    virtBase: base,
    paddrOffset: number("ELF_PADDR_OFFSET"),
    paeMode: pairs.get("PAE"),
    features: pairs.get("FEATURES")?.split("|").filter((f) => f !== ""),
  });
}

function defined<T extends object>(record: T): T {
  return Object.fromEntries(Object.entries(record).filter(([, v]) => v !== undefined)) as T;
}

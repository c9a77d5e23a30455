/**
 * ELF images, read with all their numbers checked: segments, sections, notes, symbols.
 *
 * @module
 */
import { fixed, sizeOf, View } from "../abi/layout.ts";
import {
  ELF_CLASS_32,
  ELF_CLASS_64,
  ELF_HEADER,
  ELF_IDENT,
  ELF_LITTLE_ENDIAN,
  ELF_MAGIC,
  ELF_NOTE,
  ELF_PROGRAM,
  ELF_SECTION,
  ELF_WORD,
  EM_386,
  EM_X86_64,
  ET_DYN,
  ET_EXEC,
  PT_LOAD,
  PT_NOTE,
  SHT_NOBITS,
  SHT_NOTE,
  SHT_NULL,
} from "../abi/boot/elf.ts";
import { beginning } from "./compressed.ts";
import { counted, hex } from "./errors.ts";
import { failer } from "./load.ts";
import type { Placement } from "./placement.ts";

/** A program header. Addresses are bigints, offsets and sizes in the file are numbers. */
export interface ElfSegment {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly vaddr: bigint;
  readonly paddr: bigint;
  readonly filesz: number;
  readonly memsz: number;
  readonly align: number;
}

/** A section header, its name resolved. */
export interface ElfSection {
  readonly name: string;
  readonly type: number;
  readonly addr: bigint;
  readonly offset: number;
  readonly size: number;
  readonly link: number;
}

/** A note: owner, number, contents. */
export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly desc: Uint8Array;
}

/** An ELF file for x86, its headers checked to lie within the file. */
export interface ElfFile {
  readonly file: string;
  readonly bytes: Uint8Array;
  readonly bits: 32 | 64;
  readonly entry: bigint;
  readonly segments: readonly ElfSegment[];
  readonly sections: readonly ElfSection[];
}

const NOTE_SIZE = sizeOf(ELF_NOTE, 64);

export function isElf(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && new View(ELF_WORD, 32, bytes).get("value") === BigInt(ELF_MAGIC);
}

/**
 * Reads the headers of an ELF executable for i386 or x86-64.
 *
 * Source: System V ABI, chapters 4 (object files) and 5 (program loading).
 *
 * @throws {BuilderError} Naming the field that is wrong.
 */
export function readElf(bytes: Uint8Array, file: string): ElfFile {
  const fail = failer(file);
  if (bytes.length < sizeOf(ELF_HEADER, 32)) {
    throw fail("size", counted(bytes.length, "byte"), "an ELF file");
  }
  if (!isElf(bytes)) throw fail("kernel", beginning(bytes), "an ELF file");
  const ident = fixed(ELF_IDENT, bytes);
  const elfClass = ident.get("class");
  if (elfClass !== ELF_CLASS_32 && elfClass !== ELF_CLASS_64) {
    throw fail("ELF class", elfClass, "1 (32-bit) or 2 (64-bit)");
  }
  if (ident.get("data") !== ELF_LITTLE_ENDIAN) {
    throw fail("ELF data encoding", ident.get("data"), "1 (little-endian)");
  }
  const bits = elfClass === ELF_CLASS_32 ? 32 : 64;
  if (bytes.length < sizeOf(ELF_HEADER, bits)) {
    throw fail("size", counted(bytes.length, "byte"), "an ELF header");
  }
  const header = new View(ELF_HEADER, bits, bytes);
  const machine = header.get("machine");
  if (machine !== EM_386 && machine !== EM_X86_64) {
    throw fail("ELF machine", machine, "3 (i386) or 62 (x86-64)");
  }
  const type = header.get("type");
  if (type !== ET_EXEC && type !== ET_DYN) throw fail("ELF type", type, "2 (EXEC) or 3 (DYN)");
  return {
    file,
    bytes,
    bits,
    entry: header.get("entry"),
    segments: readSegments(bytes, header, fail),
    sections: readSections(bytes, header, fail),
  };
}

type Header = View<typeof ELF_HEADER["fields"]>;
type Fail = ReturnType<typeof failer>;

function readSegments(
  bytes: Uint8Array,
  header: Header,
  fail: Fail,
): ElfSegment[] {
  const layout = ELF_PROGRAM[header.width], each = sizeOf(layout, header.width);
  const count = header.get("phnum"), at = Number(header.get("phoff"));
  if (count > 0 && header.get("phentsize") !== each) {
    throw fail("ELF phentsize", header.get("phentsize"), `${each}`);
  }
  if (at + count * each > bytes.length) {
    throw fail(
      "ELF program headers",
      `${count} at ${hex(at)}`,
      `within ${counted(bytes.length, "byte")}`,
    );
  }
  return Array.from({ length: count }, (_, i) => {
    const p = new View(layout, header.width, bytes, at + i * each);
    const segment = {
      type: p.get("type"),
      flags: p.get("flags"),
      offset: Number(p.get("offset")),
      vaddr: p.get("vaddr"),
      paddr: p.get("paddr"),
      filesz: Number(p.get("filesz")),
      memsz: Number(p.get("memsz")),
      align: Number(p.get("align")),
    };
    if (segment.type === PT_LOAD || segment.type === PT_NOTE) checkSegment(segment, i, bytes, fail);
    return segment;
  });
}

function checkSegment(s: ElfSegment, i: number, bytes: Uint8Array, fail: Fail): void {
  if (s.offset + s.filesz > bytes.length) {
    throw fail(
      `ELF segment ${i}`,
      `${hex(s.filesz)} bytes at offset ${hex(s.offset)} (file cut off?)`,
      `within the file's ${hex(bytes.length)} bytes`,
    );
  }
  if (s.type === PT_LOAD && s.memsz < s.filesz) {
    throw fail(`ELF segment ${i} memsz`, s.memsz, `at least filesz ${hex(s.filesz)}`);
  }
}

/**
 * Sections are optional: without headers, or with odd ones, there are none. Those that there are lie
 * in the file: linkers put them last, so that a file that was cut off shows by them.
 */
function readSections(
  bytes: Uint8Array,
  header: Header,
  fail: Fail,
): ElfSection[] {
  const each = sizeOf(ELF_SECTION, header.width);
  const count = header.get("shnum"), at = Number(header.get("shoff"));
  if (count === 0 || header.get("shentsize") !== each) return [];
  if (at + count * each > bytes.length) {
    throw fail(
      "ELF section headers",
      `${count} at ${hex(at)} (file cut off?)`,
      `within ${counted(bytes.length, "byte")}`,
    );
  }
  const raw = Array.from({ length: count }, (_, i) => {
    const s = new View(ELF_SECTION, header.width, bytes, at + i * each);
    return {
      nameAt: s.get("name"),
      type: s.get("type"),
      addr: s.get("addr"),
      offset: Number(s.get("offset")),
      size: Number(s.get("size")),
      link: s.get("link"),
    };
  });
  raw.forEach((s, i) => {
    if (s.type === SHT_NULL || s.type === SHT_NOBITS || s.offset + s.size <= bytes.length) return;
    throw fail(
      `ELF section ${i}`,
      `${hex(s.size)} bytes at offset ${hex(s.offset)} (file cut off?)`,
      `within the file's ${hex(bytes.length)} bytes`,
    );
  });
  const names = raw[header.get("shstrndx")];
  return raw.map(({ nameAt, ...s }) => ({
    ...s,
    name: names ? stringAt(bytes, names.offset + nameAt, names.offset + names.size) : "",
  }));
}

/** The zero-terminated text at `at`, cut at `limit` or the end of the bytes. */
export function stringAt(bytes: Uint8Array, at: number, limit: number = bytes.length): string {
  const end = bytes.indexOf(0, at);
  const stop = Math.min(end < 0 ? limit : end, limit, bytes.length);
  return stop <= at ? "" : new TextDecoder("latin1").decode(bytes.subarray(at, stop));
}

/** All notes, from PT_NOTE segments, or from note sections when there are no such segments. */
export function elfNotes(elf: ElfFile): ElfNote[] {
  const segments = elf.segments.filter((s) => s.type === PT_NOTE)
    .map((s) => ({ offset: s.offset, size: s.filesz }));
  const sections = elf.sections.filter((s) => s.type === SHT_NOTE);
  const notes: ElfNote[] = [];
  for (const { offset, size } of segments.length > 0 ? segments : sections) {
    notes.push(...notesIn(elf.bytes.subarray(offset, offset + size)));
  }
  return notes;
}

function notesIn(bytes: Uint8Array): ElfNote[] {
  const notes: ElfNote[] = [];
  for (let at = 0; at + NOTE_SIZE <= bytes.length;) {
    const head = fixed(ELF_NOTE, bytes, at);
    const nameSize = head.get("namesz"), descSize = head.get("descsz");
    const descAt = at + NOTE_SIZE + Math.ceil(nameSize / 4) * 4;
    if (descAt + descSize > bytes.length) break;
    notes.push({
      name: stringAt(bytes, at + NOTE_SIZE, at + NOTE_SIZE + nameSize),
      type: head.get("type"),
      desc: bytes.subarray(descAt, descAt + descSize),
    });
    at = descAt + Math.ceil(descSize / 4) * 4;
  }
  return notes;
}

/** Places the loadable segments of an ELF file at their physical addresses. */
export function placeElf(elf: ElfFile, place: Placement): void {
  const loads = elf.segments.filter((s) => s.type === PT_LOAD && s.memsz > 0);
  const fail = failer(elf.file);
  if (loads.length === 0) throw fail("ELF segments", "none to load", "a PT_LOAD segment");
  const end = loads.reduce((top, s) => Math.max(top, Number(s.paddr) + s.memsz), 0);
  if (!Number.isSafeInteger(end)) throw fail("ELF segment's end", end, "below 2^53");
  loads.forEach((s, i) => {
    const bytes = elf.bytes.subarray(s.offset, s.offset + s.filesz);
    place.put(`${elf.file} segment ${i}`, Number(s.paddr), bytes, s.memsz);
  });
}

/** Whether a physical address lies in a loaded segment's bytes. */
export function inSegments(elf: ElfFile, address: bigint): boolean {
  return segmentAt(elf, "paddr", address) !== undefined;
}

/**
 * The physical address at which an ELF file is entered with paging off. Kernels that are linked high
 * and loaded low name their entry by its virtual address; Linux names the physical one.
 *
 * @throws {BuilderError} When the entry lies in no segment's bytes, by either address.
 */
export function physicalEntry(elf: ElfFile): bigint {
  const segment = segmentAt(elf, "vaddr", elf.entry);
  if (segment) return elf.entry - segment.vaddr + segment.paddr;
  if (inSegments(elf, elf.entry)) return elf.entry;
  throw failer(elf.file)("ELF entry", elf.entry, "an address in a loaded segment's bytes");
}

function segmentAt(elf: ElfFile, by: "vaddr" | "paddr", address: bigint): ElfSegment | undefined {
  return elf.segments.find((s) =>
    s.type === PT_LOAD && address >= s[by] && address < s[by] + BigInt(s.filesz)
  );
}

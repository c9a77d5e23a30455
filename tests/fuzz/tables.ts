/** Random descriptor tables, IDTs and page tables: most entries plausible, some of any bits. */
import type { Random } from "./random.ts";

/** Guest-physical places; linear ones are the same wherever paging maps them as most entries do. */
export const AT = {
  gdt: 0x1000,
  ldt: 0x1800,
  idt: 0x2000,
  tss: 0x3000,
  otherTss: 0x3400,
  code: 0x1_0000,
  codeEnd: 0x9_0000,
  stack: 0x8000,
  pages: 0x10_0000,
  high: 0x20_0000,
  highEnd: 0x30_0000,
} as const;

/** Entries of the GDT that are what they say; the others are random. */
export const FIXED = {
  code: 0x08,
  data: 0x10,
  code3: 0x18,
  data3: 0x20,
  tss: 0x28,
  code16: 0x30,
  data16: 0x38,
  code64: 0x40,
  ldt: 0x50,
} as const;

export const descriptor = (base: number, limit: number, access: number, flags: number): bigint =>
  BigInt(limit & 0xffff) | BigInt(base & 0xff_ffff) << 16n | BigInt(access) << 40n |
  BigInt(limit >>> 16 & 15) << 48n | BigInt(flags) << 52n | BigInt(base >>> 24) << 56n;

const gate = (selector: number, offset: number, access: number, count: number): bigint =>
  BigInt(offset & 0xffff) | BigInt(selector) << 16n | BigInt(count) << 32n |
  BigInt(access) << 40n | BigInt(offset >>> 16) << 48n;

/** An address where there may be code. */
export function codeAddress(r: Random): number {
  return r.chance(0.7)
    ? AT.code + r.below(AT.codeEnd - AT.code)
    : AT.high + r.below(AT.highEnd - AT.high);
}

/** A selector: mostly one of the table, with any RPL and sometimes in the LDT. */
export function selector(r: Random): number {
  if (r.chance(0.05)) return r.below(0x10000);
  return r.below(r.chance(0.6) ? 12 : 64) * 8 | r.below(4) | (r.chance(0.1) ? 4 : 0);
}

function base(r: Random): number {
  return r.chance(0.5) ? 0 : r.chance(0.7) ? codeAddress(r) : r.u32();
}

function randomDescriptor(r: Random): bigint {
  const present = r.chance(0.9) ? 0x80 : 0, dpl = r.below(4) << 5;
  switch (r.below(8)) {
    case 0:
      return r.u64();
    case 1:
      return gate(selector(r), codeAddress(r), present | dpl | r.pick([4, 12, 5]), r.below(32));
    case 2: {
      const tss = r.chance(0.5) ? AT.tss : AT.otherTss;
      return descriptor(tss, r.pick([0x67, 0x2b, 0x3ff, 0x20]), present | r.below(16), 0);
    }
    case 3:
      return descriptor(AT.ldt, 0x7ff, present | 2, 0);
    default: {
      const limit = r.pick([0xfffff, 0xffff, 0xfff, r.below(0x10_0000)]);
      return descriptor(base(r), limit, present | dpl | 0x10 | r.below(16), r.below(16));
    }
  }
}

/** 256 entries: GDT at 0 to 7ff, the LDT behind it. */
export function descriptorTables(r: Random): Uint8Array {
  const table = Array.from({ length: 256 * 2 }, () => randomDescriptor(r));
  const fixed: [number, bigint][] = [
    [FIXED.code, descriptor(0, 0xfffff, 0x9b, 0xc)],
    [FIXED.data, descriptor(0, 0xfffff, 0x93, 0xc)],
    [FIXED.code3, descriptor(0, 0xfffff, 0xfb, 0xc)],
    [FIXED.data3, descriptor(0, 0xfffff, 0xf3, 0xc)],
    [FIXED.tss, descriptor(AT.tss, 0x3ff, 0x8b, 0)],
    [FIXED.code16, descriptor(AT.code, 0xffff, 0x9b, 0)],
    [FIXED.data16, descriptor(AT.code, 0xffff, 0x93, 0)],
    [FIXED.code64, descriptor(0, 0xfffff, 0x9b, 0xa)],
    [FIXED.ldt, descriptor(AT.ldt, 0x7ff, 0x82, 0)],
  ];
  for (const [at, value] of fixed) if (r.chance(0.97)) table[at / 8] = value;
  return new Uint8Array(BigUint64Array.from(table).buffer);
}

/** 4 KiB: 512 gates of 8 bytes, or 256 of 16 for 64-bit mode. */
export function interruptTable(r: Random, long: boolean): Uint8Array {
  const one = () => {
    if (r.chance(0.03)) return r.u64();
    const dpl = r.chance(0.5) ? 3 << 5 : r.below(4) << 5;
    const type = r.pick(long ? [14, 14, 15, 5] : [14, 14, 15, 6, 7, 5, 12]);
    const where = r.chance(0.8)
      ? r.pick([FIXED.code, FIXED.code, FIXED.code3, long ? FIXED.code64 : FIXED.code16])
      : selector(r);
    return gate(where, codeAddress(r), (r.chance(0.95) ? 0x80 : 0) | dpl | type, r.below(8));
  };
  const table = Array.from({ length: 512 }, (_, n) => long && n & 1 ? 0n : one());
  return new Uint8Array(BigUint64Array.from(table).buffer);
}

/** The table of real mode: 256 far pointers. */
export function realVectors(r: Random): Uint8Array {
  const table = Uint32Array.from({ length: 256 }, () => {
    const at = AT.code + r.below(AT.codeEnd - AT.code);
    return r.chance(0.03) ? r.u32() : (at >>> 4) << 16 | at & 15;
  });
  return new Uint8Array(table.buffer);
}

/** Two task states, each 1 KiB with its I/O map. */
export function taskStates(r: Random): Uint8Array {
  const bytes = r.bytes(0x800), view = new DataView(bytes.buffer);
  for (const at of [0, 0x400]) {
    const put = (offset: number, value: number) => view.setUint32(at + offset, value, true);
    put(0, selector(r) & ~3);
    for (const [offset, data] of [[4, FIXED.data], [12, FIXED.data | 1], [20, FIXED.data | 2]]) {
      put(offset, AT.stack + r.below(0x4000));
      put(offset + 4, r.chance(0.9) ? data : selector(r));
    }
    if (r.chance(0.8)) {
      put(0x1c, r.below(0x40_0000) & ~0xfff);
      put(0x20, codeAddress(r));
      put(0x24, r.u32() & 0x3fffd7 | 2);
      for (let n = 0; n < 6; n++) put(0x48 + 4 * n, selector(r));
      put(0x60, r.chance(0.5) ? 0 : FIXED.ldt);
      put(0x64, r.chance(0.8) ? 0x68 << 16 : r.u32());
    }
  }
  return bytes;
}

export type Paging = "none" | "two" | "pae" | "four";

/** Where the top table is. */
export const ROOT = AT.pages;

/** An entry that maps `frame`, or something else. */
function entry(r: Random, frame: number, wild: number, flags: number): bigint {
  if (r.chance(wild / 4)) return r.u64();
  if (r.chance(wild / 4)) return BigInt(frame) << 12n | BigInt(r.below(0x1000));
  if (r.chance(wild / 4)) return 0n;
  if (r.chance(wild / 4)) return BigInt(r.below(0x400)) << 12n | BigInt(flags);
  return BigInt(frame) << 12n | BigInt(flags);
}

/** Page tables that map the first 4 MiB to themselves, but for what chance makes of them. */
export function pageTables(r: Random, paging: Paging): Uint8Array {
  const wild = r.pick([0, 0.01, 0.05, 0.3]);
  const user = r.chance(0.8) ? 7 : 3;
  const bytes = new Uint8Array(0x8000), view = new DataView(bytes.buffer);
  const first = AT.pages >>> 12;
  const wide = (page: number, n: number, value: bigint) =>
    view.setBigUint64(page * 4096 + n * 8, value, true);
  if (paging === "two") {
    for (let n = 0; n < 1024; n++) {
      const large = r.chance(0.2);
      const pde = n === 0 && !large
        ? entry(r, first + 1, wild / 20, 7)
        : entry(r, r.below(2) * 0x400, n ? 0.5 : wild, user | 0x80);
      view.setUint32(4 * n, Number(pde & 0xffff_ffffn), true);
      view.setUint32(4096 + 4 * n, Number(entry(r, n, wild, user) & 0xffff_ffffn), true);
    }
    return bytes;
  }
  // The top table of PAE paging has 4 entries without rights; below it they are alike.
  const directory = paging === "four" ? 2 : 1;
  for (let n = 0; n < (paging === "four" ? 512 : 4); n++) {
    const table = BigInt(first + 1) << 12n;
    const other = r.chance(0.5) ? 0n : paging === "pae" ? table | 1n : entry(r, first + 1, wild, 7);
    wide(0, n, n === 0 ? table | (paging === "four" ? 7n : 1n) : other);
  }
  if (paging === "four") {
    for (let n = 0; n < 512; n++) wide(1, n, entry(r, first + 2, n ? 0.3 : wild / 20, 7));
  }
  for (let n = 0; n < 512; n++) {
    const table = first + directory + 1 + (n & 1);
    const large = r.chance(0.2);
    wide(
      directory,
      n,
      large ? entry(r, (n & 1) * 0x200, wild, user | 0x80) : entry(
        r,
        table,
        n < 2 ? wild / 20 : wild,
        7,
      ),
    );
    wide(directory + 1, n, entry(r, n, wild, user));
    wide(directory + 2, n, entry(r, 0x200 + n, wild, user));
  }
  return bytes;
}

/** States to start from, one for each mode of the processor. */
import type { InitialState } from "../../src/builder/entry.ts";
import type { Random } from "./random.ts";
import { AT, codeAddress, FIXED, type Paging, ROOT } from "./tables.ts";
import type { Segment, SegmentRegister } from "../../src/hvm/ops.ts";

export const MODES = ["real", "v86", "protected16", "flat32", "long64"] as const;
export type Mode = typeof MODES[number];

const GPRS = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"] as const;
const UNUSABLE = 0x10000;

function value(r: Random, mode: Mode): bigint {
  switch (r.below(6)) {
    case 0:
      return BigInt(r.below(0x100));
    case 1:
      return BigInt(r.u32());
    case 2:
      return BigInt(r.below(0x1000) * 0x1000 + r.pick([0, 1, 0xffe, 0xfff]));
    case 3:
      return mode === "long64" ? r.u64() : BigInt(r.u32());
    default:
      return BigInt(codeAddress(r)) & (mode === "real" || mode === "v86" ? 0xffffn : -1n);
  }
}

/** Registers, and RFLAGS with any status bits. */
function general(r: Random, mode: Mode) {
  const regs = Object.fromEntries(GPRS.map((name) => [name, value(r, mode)]));
  regs.rsp = BigInt(AT.stack + r.below(0x4000)) & (mode === "real" ? 0xfffen : ~1n);
  let rflags = 2 | r.u32() & 0xcd5 | (r.chance(0.5) ? 0x200 : 0);
  if (r.chance(0.05)) rflags |= 0x100;
  if (r.chance(0.2)) rflags |= 0x4_0000;
  if (r.chance(0.5)) rflags |= r.below(4) << 12;
  return { regs, rflags };
}

function segments(
  cs: Segment,
  data: Segment,
): Record<SegmentRegister, Segment> {
  return {
    cs,
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    ldtr: { selector: FIXED.ldt, base: BigInt(AT.ldt), limit: 0x7ff, attributes: 0x82 },
    tr: { selector: FIXED.tss, base: BigInt(AT.tss), limit: 0x3ff, attributes: 0x8b },
  };
}

const tables = (idt: number) => ({
  gdtr: { base: BigInt(AT.gdt), limit: 0x7ff },
  idtr: { base: BigInt(AT.idt), limit: idt },
});

/** Which paging a mode is started with. */
export function pagingOf(r: Random, mode: Mode): Paging {
  if (mode === "real" || mode === "protected16") return "none";
  if (mode === "long64") return "four";
  if (mode === "v86" && r.chance(0.3)) return "none";
  return r.pick(["two", "pae"]);
}

/** CR0 with PE, and any of WP, AM, NE, MP, EM, TS. */
function controls(r: Random, paging: Paging) {
  const cr0 = 0x11 | (paging === "none" ? 0 : 0x8000_0000) | (r.chance(0.5) ? 0x1_0000 : 0) |
    (r.chance(0.3) ? 0x4_0000 : 0) | (r.chance(0.7) ? 0x20 : 0) | (r.chance(0.1) ? 8 : 0);
  let cr4 = r.u32() & 0x20f;
  if (paging === "two" && r.chance(0.7)) cr4 |= 0x10;
  if (paging === "pae" || paging === "four") cr4 |= 0x20;
  if (r.chance(0.2)) cr4 |= 0x800; // UMIP
  if (r.chance(0.2)) cr4 |= 0x10_0000; // SMEP
  if (r.chance(0.2)) cr4 |= 0x20_0000; // SMAP
  if (paging === "four") {
    return { cr0: BigInt(cr0 >>> 0), cr4: BigInt(cr4), cr3: BigInt(ROOT), efer: 0xd01n };
  }
  const efer = r.chance(0.3) ? 0x800n : 0n;
  const cr3 = paging === "none" ? 0n : BigInt(ROOT);
  return { cr0: BigInt(cr0 >>> 0), cr4: BigInt(cr4), cr3, efer };
}

function real(r: Random): InitialState {
  const { regs, rflags } = general(r, "real");
  const at = AT.code + r.below(AT.codeEnd - AT.code);
  const segment = (attributes: number): Segment => {
    const selector = (AT.code >>> 4) + r.below(0x7000);
    return { selector, base: BigInt(selector * 16), limit: 0xffff, attributes };
  };
  const cs = { selector: at >>> 4, base: BigInt(at & ~15), limit: 0xffff, attributes: 0x9b };
  const all = segments(cs, segment(0x93));
  return {
    mode: "real",
    rip: BigInt(at & 15),
    regs,
    rflags: BigInt(rflags & ~0x4_0000),
    segments: { ...all, ss: segment(0x93), es: segment(0x93) },
    cr0: 0x10n,
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    gdtr: { base: BigInt(AT.gdt), limit: 0x7ff },
    idtr: { base: 0n, limit: 0x3ff },
  };
}

function v86(r: Random, paging: Paging): InitialState {
  const start = real(r);
  const as = (s: Segment) => ({ ...s, attributes: 0xf3 });
  const { cs, ss, ds, es, fs, gs } = start.segments;
  const own = { cs: as(cs), ss: as(ss), ds: as(ds), es: as(es), fs: as(fs), gs: as(gs) };
  const flags = 0x2_0000n | (r.chance(0.3) ? 0x8_0000n : 0n);
  return {
    ...start,
    mode: "protected32",
    rflags: start.rflags | flags,
    segments: { ...segments(cs, ds), ...own },
    ...controls(r, paging),
    ...tables(0x7ff),
  };
}

/** Protected modes: at privilege 0 or 3. */
function protectedMode(r: Random, mode: Mode, paging: Paging): InitialState {
  const { regs, rflags } = general(r, mode);
  const cpl = r.chance(0.6) ? 0 : 3, at = codeAddress(r);
  const small = mode === "protected16";
  const base = small ? AT.code : 0, limit = small ? 0xffff : 0xffff_ffff;
  const high = mode === "long64" ? 0xa000 : small ? 0 : 0xc000;
  const segment = (selector: number, type: number, flags: number): Segment => ({
    selector: selector | cpl,
    base: BigInt(base),
    limit,
    attributes: flags | 0x90 | cpl << 5 | type,
  });
  const code = small ? FIXED.code16 : mode === "long64" ? FIXED.code64 : FIXED.code;
  const cs = segment(cpl && !small ? FIXED.code3 : code, 11, high);
  const data = segment(
    small ? FIXED.data16 : cpl ? FIXED.data3 : FIXED.data,
    3,
    small ? 0 : 0xc000,
  );
  const start = segments(cs, data);
  if (r.chance(0.1)) {
    start.ldtr = { selector: 0, base: 0n, limit: 0, attributes: UNUSABLE };
  }
  if (r.chance(0.2)) start.fs = { selector: 0, base: 0n, limit: 0, attributes: UNUSABLE };
  return {
    mode: mode === "long64" ? "long64" : "protected32",
    rip: BigInt(small ? at & 0xffff : at),
    regs,
    rflags: BigInt(rflags),
    segments: start,
    ...controls(r, paging),
    ...tables(mode === "long64" ? 0xfff : 0x7ff),
  };
}

/** A state in `mode` from which random code starts. */
export function initialState(r: Random, mode: Mode, paging: Paging): InitialState {
  if (mode === "real") return real(r);
  if (mode === "v86") return v86(r, paging);
  return protectedMode(r, mode, paging);
}

/**
 * Shadow paging, as far as it is the same on both vendors' hardware: the control registers the guest
 * sees, kept as words in the save area ({@linkcode HvmVcpu.guest}), and what the hardware's own are
 * made of. Where a bit is the guest's alone the hardware holds it, and the word follows.
 */
import { VECTOR } from "../abi/x86/vectors.ts";
import { CR0, CR4, EFER } from "../abi/x86/cr.ts";
import { holdsPdptes, LOADS_PDPTES } from "../machine/system/control_rules.ts";
import { FRAME, FRAME_FLAG } from "../machine/state.ts";
import {
  GUEST,
  type HvmVcpu,
  type Intercepts,
  SHADOW_CR0,
  SHADOW_CR4,
  type Wanted,
} from "./ops.ts";

const PG = CR0.PG | 0, { LME, LMA, NXE } = EFER;
const SHADOWED = 1, PAGE_FAULT = 1 << VECTOR.PF;

/** The processor walks shadow tables for it. */
export const isShadowed = ({ guest }: HvmVcpu): boolean => (guest[GUEST.flags] & SHADOWED) !== 0;

/** A register of the guest's, both halves. */
export function guestWord({ guest }: HvmVcpu, at: number): bigint {
  return BigInt(guest[at + 1] >>> 0) << 32n | BigInt(guest[at] >>> 0);
}

function setGuestWord(v: HvmVcpu, at: number, value: bigint): void {
  v.guest[at] = Number(value & 0xffff_ffffn) | 0;
  v.guest[at + 1] = Number(value >> 32n & 0xffff_ffffn) | 0;
}

/** The words were written: they are memory like any other. */
export function markWords(v: HvmVcpu): void {
  v.on.cpu.machine.frameTable[(v.area >>> 12) * (FRAME.size / 4)] |= FRAME_FLAG.dirty;
}

/** A control register that goes from `old` to `now` loads the page-directory pointers, if there are any. */
export const loadsPdptes = (n: 0 | 3 | 4, old: number, now: number): boolean =>
  n === 3 || ((old ^ now) & LOADS_PDPTES[n]) !== 0;

/** The guest has PAE paging: its page-directory pointers count. */
export function paePaging(guest: Int32Array): boolean {
  return holdsPdptes(guest[GUEST.cr0], guest[GUEST.cr4], guest[GUEST.efer]);
}

/** CR4 that the hardware gets, from the guest's word: PAE, no PCIDs. */
export function shadowCr4({ guest }: HvmVcpu): number {
  const cr4 = guest[GUEST.cr4] & ~CR4.PCIDE | CR4.PAE;
  // Without paging there are no user pages to keep a supervisor from.
  return guest[GUEST.cr0] & PG ? cr4 : cr4 & ~(CR4.SMEP | CR4.SMAP);
}

/** EFER that the hardware gets: NXE; long mode is the guest's once it is active. */
export function shadowEfer({ guest }: HvmVcpu): number {
  const efer = guest[GUEST.efer];
  return efer & ~LME | NXE | (efer & LMA ? LME : 0);
}

/** What shadow paging wants to see besides; what is left out stays so. */
export function withShadow(asked: Intercepts): Wanted {
  const more: Wanted = { ...asked };
  if (more.crRead !== undefined) more.crRead |= 8;
  if (more.crWrite !== undefined) more.crWrite |= 8;
  if (more.cr0Bits !== undefined) more.cr0Bits |= SHADOW_CR0 | LOADS_PDPTES[0];
  if (more.cr4Bits !== undefined) more.cr4Bits |= SHADOW_CR4 | LOADS_PDPTES[4];
  if (more.exceptions !== undefined) more.exceptions |= PAGE_FAULT;
  more.pageFault = { mask: 0, match: 0 };
  return more;
}

/** No exits but those that are wanted whatever is asked for: at the beginning and at the end. */
export const NO_EXITS: Intercepts = {
  crRead: 0,
  crWrite: 0,
  cr0Bits: 0,
  cr4Bits: 0,
  exceptions: 0,
};

/**
 * Exceptions that leave while the emulator runs on the guest's own tables. There #PF is the guest's,
 * and leaves only for who has `asked` for it.
 */
export const onGuestTables = (exceptions: number, asked: number): number =>
  exceptions & ~PAGE_FAULT | asked & PAGE_FAULT;

/** What a vendor says about a shadowed vCPU. */
export interface ShadowHomes<V extends HvmVcpu> {
  /** CR0 or CR4 as the guest sees it now. */
  visible(v: V, n: 0 | 4): number;
  /** Gives the hardware what the guest's words ask for. */
  apply(v: V): void;
  /** Machine address of a guest-physical one by the nested tables; -1 without `bytes` there. */
  machine(v: V, gpa: number, bytes: number): number;
}

/** Writes of the control registers that a shadowed guest sees. */
export class ShadowControl<V extends HvmVcpu> {
  constructor(private readonly homes: ShadowHomes<V>) {}

  /** The vCPU is shadowed from now on; `cr3` and `efer` are what the guest has in them. */
  begin(v: V, cr3: bigint, efer: bigint): void {
    this.refresh(v);
    setGuestWord(v, GUEST.cr3, cr3);
    setGuestWord(v, GUEST.efer, efer);
    v.guest[GUEST.flags] = SHADOWED;
    this.loadPdptes(v);
    markWords(v);
  }

  end(v: V): void {
    v.guest[GUEST.flags] = 0;
    markWords(v);
  }

  /** Takes what the guest has changed without leaving into its words. */
  refresh(v: V): void {
    const cr0 = this.homes.visible(v, 0), cr4 = this.homes.visible(v, 4);
    v.guest[GUEST.cr0] = cr0;
    v.guest[GUEST.cr4] = cr4;
  }

  /** CR0, CR3 or CR4 as the guest is to see it. */
  set(v: V, n: 0 | 3 | 4, value: bigint): void {
    const { guest } = v;
    this.refresh(v);
    const old = guest[GUEST[`cr${n}`]];
    setGuestWord(v, GUEST[`cr${n}`], value);
    if (n === 0) {
      const efer = guest[GUEST.efer] & ~LMA;
      guest[GUEST.efer] = guest[GUEST.cr0] & PG && efer & LME ? efer | LMA : efer;
    }
    if (loadsPdptes(n, old, guest[GUEST[`cr${n}`]])) this.loadPdptes(v);
    markWords(v);
    this.homes.apply(v);
  }

  setEfer(v: V, value: bigint): void {
    this.refresh(v);
    const active = BigInt(v.guest[GUEST.efer] & LMA);
    setGuestWord(v, GUEST.efer, value & ~BigInt(LMA) | active);
    markWords(v);
    this.homes.apply(v);
  }

  /** With PAE paging the page-directory pointers are loaded like a register. */
  loadPdptes(v: V): void {
    if (!paePaging(v.guest)) return;
    const at = this.homes.machine(v, (v.guest[GUEST.cr3] & ~31) >>> 0, 32);
    if (at < 0) return;
    v.guest.set(v.on.cpu.machine.words.subarray(at >>> 2, (at >>> 2) + 8), GUEST.pdptes);
  }
}

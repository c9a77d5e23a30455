/**
 * VMX without extended page tables: the processor walks shadow tables, and the control registers the
 * guest sees are kept in the save area. For the one emulator the guest's own are put in their place,
 * over the nested tables.
 */
import { ENTRY_CONTROL, SECONDARY } from "../abi/x86/vmx.ts";
import { FRAME, FRAME_FLAG } from "../machine/state.ts";
import { GUEST } from "./ops.ts";
import { F, type VmxVcpu } from "./vmx_cpu.ts";
import { applyIntercepts, OWN_CR0, OWN_CR4, setControl } from "./vmx_controls.ts";
import { guestMachine } from "./vmx_state.ts";

/** Controls of nested paging; without them there is no real mode in hardware. */
export const NESTED = SECONDARY.ept | SECONDARY.unrestrictedGuest;

const PG = 0x8000_0000 | 0, WP = 0x1_0000, PE = 1, NE = 0x20, CACHE = 0x6000_0000;
const PSE = 0x10, PAE = 0x20, PCIDE = 0x2_0000, SMEP_SMAP = 0x30_0000;
const SCE = 1, LME = 0x100, LMA = 0x400, NXE = 0x800;
const SHADOWED = 1;

/** A register of the guest's, both halves. */
export function guestWord(v: VmxVcpu, at: number): bigint {
  return BigInt(v.guest[at + 1] >>> 0) << 32n | BigInt(v.guest[at] >>> 0);
}
export function setGuestWord(v: VmxVcpu, at: number, value: bigint): void {
  v.guest[at] = Number(value & 0xffff_ffffn) | 0;
  v.guest[at + 1] = Number(value >> 32n & 0xffff_ffffn) | 0;
  markArea(v);
}

function markArea(v: VmxVcpu): void {
  v.on.cpu.machine.frameTable[(v.area >>> 12) * (FRAME.size / 4)] |= FRAME_FLAG.dirty;
}

const MASK = { 0: F.cr0Mask, 4: F.cr4Mask }, VALUE = { 0: F.guestCr0, 4: F.guestCr4 };
const READ_SHADOW = { 0: F.cr0ReadShadow, 4: F.cr4ReadShadow };
const PDPTES = [0, 1, 2, 3].map((n) => F[`guestPdpte${n}`]);

/** CR0 or CR4 as the guest sees it now. */
function visible(v: VmxVcpu, n: 0 | 4): number {
  const { on } = v, mask = on.read(MASK[n]);
  return on.read(VALUE[n]) & ~mask | on.read(READ_SHADOW[n]) & mask;
}

/** See HvmOps.setShadowRoot. */
export function setShadowRoot(v: VmxVcpu, root: number | undefined): void {
  const { on } = v;
  if (root === undefined) return leave(v);
  if (!v.shadowed) {
    setGuestWord(v, GUEST.cr0, BigInt(visible(v, 0) >>> 0));
    setGuestWord(v, GUEST.cr4, BigInt(visible(v, 4) >>> 0));
    setGuestWord(v, GUEST.cr3, on.read64(F.guestCr3));
    setGuestWord(v, GUEST.efer, on.read64(F.guestEfer));
    v.guest[GUEST.flags] = SHADOWED;
    on.write(F.secondaryControls, on.read(F.secondaryControls) & ~NESTED, 0);
    loadPdptes(v);
    applyIntercepts(v, { crRead: 0, crWrite: 0, cr0Bits: 0, cr4Bits: 0, exceptions: 0 });
    applyModes(v);
  }
  if (on.read(F.guestCr3) !== (root | 0)) on.write(F.guestCr3, root | 0, 0);
}

function leave(v: VmxVcpu): void {
  if (!v.shadowed) return;
  useGuestTables(v);
  v.guest[GUEST.flags] = 0;
  markArea(v);
  applyIntercepts(v, { crRead: 0, crWrite: 0, cr0Bits: 0, cr4Bits: 0, exceptions: 0 });
  v.on.flush();
}

/** A field whose low half is all of it, written if it differs: entry checks less then. */
function put(v: VmxVcpu, field: number, value: number): void {
  if (v.on.read(field) !== (value | 0)) v.on.write(field, value, 0);
}

function longMode(v: VmxVcpu, long: boolean): void {
  const entry = v.on.read(F.entryControls), bit = ENTRY_CONTROL.ia32eGuest;
  put(v, F.entryControls, long ? entry | bit : entry & ~bit);
}

/** The hardware's control registers for what the guest has put into its own. */
function applyModes(v: VmxVcpu): void {
  const cr0 = v.guest[GUEST.cr0], cr4 = v.guest[GUEST.cr4], efer = v.guest[GUEST.efer];
  put(v, F.cr0ReadShadow, cr0);
  put(v, F.guestCr0, cr0 & ~CACHE | NE | PE | PG | WP);
  put(v, F.cr4ReadShadow, cr4);
  // Without paging there are no user pages to keep a supervisor from.
  const pages = cr0 & PG ? cr4 : cr4 & ~SMEP_SMAP;
  put(v, F.guestCr4, pages & ~(PSE | PCIDE) | PAE | OWN_CR4);
  put(v, F.guestEfer, efer & SCE | NXE | (efer & LMA ? LME | LMA : 0));
  longMode(v, (efer & LMA) !== 0);
  if (cr4 & PCIDE) setControl(v, "primary", "invlpg", true);
}

/** Takes what the guest has changed without leaving into its words. */
function refreshWords(v: VmxVcpu): void {
  v.guest[GUEST.cr0] = visible(v, 0);
  v.guest[GUEST.cr4] = visible(v, 4);
}

/** CR0, CR3 or CR4 as the guest is to see it. */
export function setShadowedControl(v: VmxVcpu, n: 0 | 3 | 4, value: bigint): void {
  refreshWords(v);
  setGuestWord(v, GUEST[`cr${n}`], value);
  if (n === 0) {
    const efer = v.guest[GUEST.efer] & ~LMA;
    const long = (v.guest[GUEST.cr0] & PG) !== 0 && (efer & LME) !== 0;
    v.guest[GUEST.efer] = long ? efer | LMA : efer;
  }
  loadPdptes(v);
  applyModes(v);
}

export function setShadowedEfer(v: VmxVcpu, value: bigint): void {
  refreshWords(v);
  const long = v.guest[GUEST.efer] & LMA;
  setGuestWord(v, GUEST.efer, value & ~BigInt(LMA) | BigInt(long));
  applyModes(v);
}

/** With PAE paging the page-directory pointers are loaded like a register. */
function loadPdptes(v: VmxVcpu): void {
  const pae = v.guest[GUEST.cr0] & PG && v.guest[GUEST.cr4] & PAE && !(v.guest[GUEST.efer] & LMA);
  if (!pae) return;
  const at = guestMachine(v, (v.guest[GUEST.cr3] & ~31) >>> 0, 32);
  if (at < 0) return;
  v.guest.set(new Int32Array(v.on.cpu.machine.ram.buffer, at, 8), GUEST.pdptes);
  markArea(v);
}

/** For the one emulator: the guest's own control registers, its own tables over the nested ones. */
export function useGuestTables(v: VmxVcpu): void {
  const { on, guest } = v;
  const cr0 = visible(v, 0), cr4 = visible(v, 4), efer = guest[GUEST.efer];
  v.kept.root = on.read(F.guestCr3);
  v.kept.cr0Mask = on.read(F.cr0Mask);
  v.kept.cr4Mask = on.read(F.cr4Mask);
  v.kept.exceptions = on.read(F.exceptionBitmap);
  put(v, F.cr0Mask, OWN_CR0);
  put(v, F.cr0ReadShadow, cr0);
  put(v, F.guestCr0, cr0 & ~CACHE | NE);
  put(v, F.cr4Mask, OWN_CR4);
  put(v, F.cr4ReadShadow, cr4);
  put(v, F.guestCr4, cr4 | OWN_CR4);
  on.write(F.guestCr3, guest[GUEST.cr3], guest[GUEST.cr3 + 1]);
  put(v, F.guestEfer, efer);
  longMode(v, (efer & LMA) !== 0);
  put(v, F.secondaryControls, on.read(F.secondaryControls) | NESTED);
  if (cr0 & PG && cr4 & PAE && !(efer & LMA)) {
    for (let n = 0; n < 4; n++) {
      const at = GUEST.pdptes + 2 * n;
      on.write(PDPTES[n], guest[at], guest[at + 1]);
    }
  }
  put(v, F.exceptionBitmap, v.kept.exceptions & ~(1 << 14));
}

/** After it: what the instruction left is the guest's; the hardware gets the shadows again. */
export function useShadowTables(v: VmxVcpu): void {
  const { on, guest } = v;
  refreshWords(v);
  const cr0 = guest[GUEST.cr0], cr4 = guest[GUEST.cr4];
  guest[GUEST.cr3] = on.read(F.guestCr3);
  guest[GUEST.cr3 + 1] = on.high;
  const efer = guest[GUEST.efer] = on.read(F.guestEfer);
  if (cr0 & PG && cr4 & PAE && !(efer & LMA)) {
    for (let n = 0; n < 4; n++) {
      guest[GUEST.pdptes + 2 * n] = on.read(PDPTES[n]);
      guest[GUEST.pdptes + 2 * n + 1] = on.high;
    }
  }
  markArea(v);
  on.write(F.guestCr3, v.kept.root, 0);
  put(v, F.cr0Mask, v.kept.cr0Mask);
  put(v, F.cr4Mask, v.kept.cr4Mask);
  put(v, F.secondaryControls, on.read(F.secondaryControls) & ~NESTED);
  put(v, F.exceptionBitmap, v.kept.exceptions);
  applyModes(v);
}

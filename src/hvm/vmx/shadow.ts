/**
 * VMX without extended page tables: the processor walks shadow tables, and the control registers the
 * guest sees are kept in the save area. For the one emulator the guest's own are put in their place,
 * over the nested tables.
 */
import { CR0, CR4, EFER } from "../../abi/x86/cr.ts";
import { ENTRY_CONTROL, SECONDARY } from "../../abi/x86/vmx.ts";
import { GUEST } from "../ops.ts";
import {
  markWords,
  NO_EXITS,
  onGuestTables,
  paePaging,
  ShadowControl,
  shadowCr4,
  shadowEfer,
} from "../shadow.ts";
import { F, type VmxVcpu } from "./cpu.ts";
import { applyIntercepts, OWN_CR0, OWN_CR4, setControl } from "./controls.ts";
import { guestMachine } from "./paging.ts";

/** Controls of nested paging; without them there is no real mode in hardware. */
export const NESTED = SECONDARY.ept | SECONDARY.unrestrictedGuest;

const { NE, PE, PG, WP } = CR0, CACHE = CR0.NW | CR0.CD;

const MASK = { 0: F.cr0Mask, 4: F.cr4Mask }, VALUE = { 0: F.guestCr0, 4: F.guestCr4 };
const READ_SHADOW = { 0: F.cr0ReadShadow, 4: F.cr4ReadShadow };
const PDPTES = [0, 1, 2, 3].map((n) => F[`guestPdpte${n}`]);

/** CR0 or CR4 as the guest sees it now. */
export function visible(v: VmxVcpu, n: 0 | 4): number {
  const { on } = v, mask = on.read(MASK[n]);
  return on.read(VALUE[n]) & ~mask | on.read(READ_SHADOW[n]) & mask;
}

/** What the guest sees of its control registers. */
export const shadowControl = new ShadowControl<VmxVcpu>({
  visible,
  apply: applyModes,
  machine: (v, gpa, bytes) => guestMachine(v, gpa, bytes),
});

/** See HvmOps.setShadowRoot. */
export function setShadowRoot(v: VmxVcpu, root: number | undefined): void {
  const { on } = v;
  if (root === undefined) return leave(v);
  if (!v.shadowed) {
    shadowControl.begin(v, on.read64(F.guestCr3), on.read64(F.guestEfer));
    on.write(F.secondaryControls, on.read(F.secondaryControls) & ~NESTED, 0);
    applyIntercepts(v, NO_EXITS);
    applyModes(v);
  }
  if (on.read(F.guestCr3) !== (root | 0)) on.write(F.guestCr3, root | 0, 0);
}

function leave(v: VmxVcpu): void {
  if (!v.shadowed) return;
  useGuestTables(v);
  shadowControl.end(v);
  applyIntercepts(v, NO_EXITS);
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
  const cr0 = v.guest[GUEST.cr0], cr4 = v.guest[GUEST.cr4], efer = shadowEfer(v);
  put(v, F.cr0ReadShadow, cr0);
  put(v, F.guestCr0, cr0 & ~CACHE | NE | PE | PG | WP);
  put(v, F.cr4ReadShadow, cr4);
  put(v, F.guestCr4, shadowCr4(v) | OWN_CR4);
  put(v, F.guestEfer, efer);
  longMode(v, (efer & EFER.LMA) !== 0);
  if (cr4 & CR4.PCIDE) setControl(v, "primary", "invlpg", true);
}

/**
 * The guest's own control registers, its own tables over the nested ones: for the modes that the
 * processor cannot be in, and to `emulate` one instruction.
 */
export function useGuestTables(v: VmxVcpu, emulate = false): void {
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
  longMode(v, (efer & EFER.LMA) !== 0);
  put(v, F.secondaryControls, on.read(F.secondaryControls) | NESTED);
  if (paePaging(guest)) {
    for (let n = 0; n < 4; n++) {
      const at = GUEST.pdptes + 2 * n;
      on.write(PDPTES[n], guest[at], guest[at + 1]);
    }
  }
  put(v, F.exceptionBitmap, onGuestTables(v.kept.exceptions, emulate ? v.kept.asked : 0));
}

/** After it: what the instruction left is the guest's; the hardware gets the shadows again. */
export function useShadowTables(v: VmxVcpu): void {
  const { on, guest } = v;
  shadowControl.refresh(v);
  guest[GUEST.cr3] = on.read(F.guestCr3);
  guest[GUEST.cr3 + 1] = on.high;
  guest[GUEST.efer] = on.read(F.guestEfer);
  if (paePaging(guest)) {
    for (let n = 0; n < 4; n++) {
      guest[GUEST.pdptes + 2 * n] = on.read(PDPTES[n]);
      guest[GUEST.pdptes + 2 * n + 1] = on.high;
    }
  }
  markWords(v);
  on.write(F.guestCr3, v.kept.root, 0);
  put(v, F.cr0Mask, v.kept.cr0Mask);
  put(v, F.cr4Mask, v.kept.cr4Mask);
  put(v, F.secondaryControls, on.read(F.secondaryControls) & ~NESTED);
  put(v, F.exceptionBitmap, v.kept.exceptions);
  applyModes(v);
}

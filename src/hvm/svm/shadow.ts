/**
 * SVM without nested paging: the processor walks shadow tables, real mode included, which may have
 * paging on in a guest (APM 2 15.19). There are no read shadows: a register whose guest value is not
 * the hardware's leaves on reads, and on every write. For the one emulator the guest's own registers
 * are put in their place, over the nested tables.
 *
 * G_PAT is not used without nested paging (15.25.4): the guest's PAT lies in its field all the same,
 * and accesses to it leave.
 */
import { CR0, EFER } from "../../abi/x86/cr.ts";
import { NP_ENABLE } from "../../abi/x86/vmcb.ts";
import { GUEST, SHADOW_CR0, SHADOW_CR4 } from "../ops.ts";
import {
  loadsPdptes,
  markWords,
  NO_EXITS,
  onGuestTables,
  paePaging,
  ShadowControl,
  shadowCr4,
  shadowEfer,
} from "../shadow.ts";
import { applyIntercepts, interceptControls } from "./controls.ts";
import { F, type SvmVcpu } from "./cpu.ts";
import { guestMachine } from "./paging.ts";

/** CR0 or CR4 as the guest sees it now. */
export function visible(v: SvmVcpu, n: 0 | 4): number {
  const { words, guest } = v;
  const now = n === 0 ? words[F.cr0 >> 2] : words[F.cr4 >> 2];
  if (!v.shadowed) return now;
  return n === 0
    ? now & ~SHADOW_CR0 | guest[GUEST.cr0] & SHADOW_CR0
    : now & ~SHADOW_CR4 | guest[GUEST.cr4] & SHADOW_CR4;
}

/** What the guest sees of its control registers. */
export const shadowControl = new ShadowControl<SvmVcpu>({
  visible,
  apply: applyModes,
  machine: (v, gpa, bytes) => guestMachine(v, gpa, bytes),
});

/** See HvmOps.setShadowRoot. */
export function setShadowRoot(v: SvmVcpu, root: number | undefined): void {
  if (root === undefined) return leave(v);
  if (!v.shadowed) {
    shadowControl.begin(v, v.read64(F.cr3), v.read64(F.efer) & ~BigInt(EFER.SVME));
    put(v, F.nestedControl, 0);
    applyIntercepts(v, NO_EXITS);
    applyModes(v);
  }
  putCr3(v, root, 0);
}

function leave(v: SvmVcpu): void {
  if (!v.shadowed) return;
  useGuestTables(v);
  shadowControl.end(v);
  applyIntercepts(v, NO_EXITS);
  v.flush();
}

/** A field whose low half is all of it. */
function put(v: SvmVcpu, field: number, value: number): void {
  if (v.words[field >> 2] !== (value | 0)) v.write(field, value);
}
function putCr3(v: SvmVcpu, low: number, high: number): void {
  put(v, F.cr3, low);
  v.words[(F.cr3 >> 2) + 1] = high;
}

/** The hardware's control registers for what the guest has put into its own. */
function applyModes(v: SvmVcpu): void {
  put(v, F.cr0, v.guest[GUEST.cr0] | CR0.PG | CR0.WP);
  put(v, F.cr4, shadowCr4(v));
  put(v, F.efer, shadowEfer(v) | EFER.SVME);
  interceptControls(v);
}

/** For the one emulator: the guest's own control registers, its own tables over the nested ones. */
export function useGuestTables(v: SvmVcpu): void {
  const { words, guest } = v, cr0 = visible(v, 0), cr4 = visible(v, 4);
  v.kept.root = words[F.cr3 >> 2];
  v.kept.exceptions = words[F.exceptions >> 2];
  put(v, F.cr0, cr0);
  put(v, F.cr4, cr4);
  putCr3(v, guest[GUEST.cr3], guest[GUEST.cr3 + 1]);
  put(v, F.efer, guest[GUEST.efer] | EFER.SVME);
  put(v, F.nestedControl, NP_ENABLE);
  put(v, F.exceptions, onGuestTables(v.kept.exceptions, v.kept.asked));
}

/** After it: what the instruction left is the guest's; the hardware gets the shadows again. */
export function useShadowTables(v: SvmVcpu): void {
  const { words, guest } = v;
  const cr0 = words[F.cr0 >> 2], cr4 = words[F.cr4 >> 2], efer = words[F.efer >> 2] & ~EFER.SVME;
  const cr3 = words[F.cr3 >> 2], high = words[(F.cr3 >> 2) + 1];
  const sameRoot = cr3 === guest[GUEST.cr3] && high === guest[GUEST.cr3 + 1];
  const same = cr0 === guest[GUEST.cr0] && cr4 === guest[GUEST.cr4] &&
    efer === guest[GUEST.efer] && sameRoot;
  const loads = !sameRoot || loadsPdptes(0, guest[GUEST.cr0], cr0) ||
    loadsPdptes(4, guest[GUEST.cr4], cr4);
  put(v, F.nestedControl, 0);
  put(v, F.exceptions, v.kept.exceptions);
  putCr3(v, v.kept.root, 0);
  if (!same) {
    guest[GUEST.cr0] = cr0;
    guest[GUEST.cr4] = cr4;
    guest[GUEST.efer] = efer;
    guest[GUEST.cr3] = cr3;
    guest[GUEST.cr3 + 1] = high;
    // Over nested tables the hardware keeps no page-directory pointers (APM 2 15.25.10).
    if (loads && paePaging(guest)) shadowControl.loadPdptes(v);
    markWords(v);
  }
  applyModes(v);
}

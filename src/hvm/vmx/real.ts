/**
 * Real mode under shadow paging: without extended page tables VMX has no unrestricted guest, CR0.PE
 * and CR0.PG are fixed at 1. A guest in real mode runs in virtual-8086 mode as long as its segments
 * fit; what virtual-8086 mode refuses (IOPL-sensitive and privileged instructions, exceptions,
 * interrupts through the IVT), and all code whose segments do not fit, is emulated on the guest's own
 * control registers. The emulator goes on for some instructions more, as far as real mode: what has
 * just been refused seldom comes alone, and the way from one to the other costs as much as a hundred.
 *
 * The vCPU's state is in that form only within {@linkcode enterReal}.
 */
import { CR0, CR4, RFLAGS } from "../../abi/x86/cr.ts";
import { VECTOR } from "../../abi/x86/vectors.ts";
import { EVENT, EXIT_REASON } from "../../abi/x86/vmx.ts";
import { STUB } from "../../machine/vmx/layout.ts";
import { type EnterOptions, GUEST } from "../ops.ts";
import { F, type VmxVcpu } from "./cpu.ts";
import { enterGuest, type Outcome } from "./run.ts";
import { useGuestTables, useShadowTables } from "./shadow.ts";

const PG = CR0.PG | 0, { TF, IOPL, RF, VM } = RFLAGS;
/** Rights of every segment in virtual-8086 mode: data, accessed, writable, DPL 3, present. */
const V86_RIGHTS = 0xf3;
const BUSY_TSS = 0x8b, VME_PVI = CR4.VME | CR4.PVI;

const SEGMENTS = (["Es", "Cs", "Ss", "Ds", "Fs", "Gs"] as const).map((s) => ({
  base: F[`guest${s}Base`],
  selector: F[`guest${s}Selector`],
  limit: F[`guest${s}Limit`],
  rights: F[`guest${s}AccessRights`],
}));

/** Fields that virtual-8086 mode takes another value in, and that the guest does not change there. */
const KEPT = [
  ...SEGMENTS.map((s) => s.rights),
  F.guestTrSelector,
  F.guestTrBase,
  F.guestTrLimit,
  F.guestTrAccessRights,
  F.guestSysenterCs,
  F.guestCr4,
  F.exceptionBitmap,
];

/** Virtual-8086 mode can stand for the real mode the vCPU is in; nothing is to be delivered or traced. */
function fits({ on }: VmxVcpu): boolean {
  if (on.read(F.entryInterruptionInformation) < 0) return false;
  if (on.read(F.guestRflags) & TF || on.read(F.guestDr7) & 0xff) return false;
  if (on.read(F.guestPendingDebug)) return false;
  for (const { base, selector, limit } of SEGMENTS) {
    if (on.read(base) !== on.read(selector) << 4 || on.read(limit) !== 0xffff) return false;
  }
  return true;
}

/** What the fields held, low and high halves: only while a vCPU is in virtual-8086 mode. */
const kept = new Int32Array(2 * KEPT.length);

/** Runs the vCPU in virtual-8086 mode, in place of real mode. */
function enterVirtual8086(v: VmxVcpu, options: EnterOptions, budget: number): Outcome {
  const { on } = v, { cpu } = on;
  KEPT.forEach((field, n) => {
    kept[2 * n] = on.read(field);
    kept[2 * n + 1] = on.high;
  });
  const flags = on.read(F.guestRflags), count = cpu.count;
  for (const { rights } of SEGMENTS) on.write(rights, V86_RIGHTS, 0);
  // No I/O bitmap lies within this TSS: every port access is a #GP.
  on.write(F.guestTrSelector, 0, 0);
  on.write(F.guestTrBase, 0, 0);
  on.write(F.guestTrLimit, 0, 0);
  on.write(F.guestTrAccessRights, BUSY_TSS, 0);
  on.write(F.guestSysenterCs, 0, 0);
  on.write(F.guestCr4, on.read(F.guestCr4) & ~VME_PVI, 0);
  on.write(F.exceptionBitmap, -1, 0);
  on.write(F.guestRflags, flags & ~IOPL | VM, 0);
  const outcome = enterGuest(v, options, budget);
  const now = on.read(F.guestRflags) & ~(VM | IOPL | RF);
  // The fault of an instruction that is run again set RF; what was there before stays.
  const rf = cpu.count === count ? flags & RF : 0;
  on.write(F.guestRflags, now | flags & IOPL | rf, 0);
  KEPT.forEach((field, n) => on.write(field, kept[2 * n], kept[2 * n + 1]));
  return outcome;
}

/** Instructions that the emulator executes at most before virtual-8086 mode is tried again. */
const RUN = 1000;

/**
 * Runs on the guest's own control registers, intercepts in force, at most up to the instruction that
 * sets a bit of CR0 in `until`.
 */
export function enterOnGuestTables(
  v: VmxVcpu,
  options: EnterOptions,
  budget: number,
  until = 0,
): Outcome {
  useGuestTables(v, options.emulate);
  v.untilCr0 = until;
  const outcome = enterGuest(v, options, budget);
  v.untilCr0 = 0;
  useShadowTables(v);
  return outcome;
}

/**
 * Runs a guest in a state on its way from real to protected mode, which only an unrestricted guest may
 * be in, for some instructions: not into paging, which the shadows are for.
 */
export function enterBetween(v: VmxVcpu, options: EnterOptions, budget: number): Outcome {
  const paged = v.guest[GUEST.cr0] & PG;
  return enterOnGuestTables(v, options, Math.min(budget, paged ? 1 : RUN), paged ? 0 : PG);
}

/** The guest left virtual-8086 mode for what that cannot do: an exception other than #PF. */
function refused(v: VmxVcpu): boolean {
  const { on } = v;
  if (on.exit(STUB.reason) !== EXIT_REASON.exception) return false;
  const event = on.exit(STUB.interruption);
  const isNmi = (event >>> EVENT.typeShift & 7) === 2;
  return !isNmi && (event & EVENT.vector) !== VECTOR.PF;
}

/**
 * Runs a guest that is in real mode, up to `budget` instructions or an exit. "budget" may come before
 * that: when real mode is over.
 */
export function enterReal(
  v: VmxVcpu,
  options: EnterOptions,
  inReal: () => boolean,
  pageFault: () => boolean,
): Outcome {
  const { cpu } = v.on, end = cpu.count + options.budget;
  for (;;) {
    const pending = v.on.read(F.entryInterruptionInformation) < 0;
    const emulated = v.emulateTo > cpu.count && v.emulateTo <= cpu.count + RUN;
    if (!pending && !emulated && fits(v)) {
      const outcome = enterVirtual8086(v, options, end - cpu.count);
      if (outcome !== "exit") return outcome;
      if (pageFault()) continue;
      if (!refused(v)) return outcome;
      // It is virtual-8086 mode's, and not the guest's.
      cpu.raised = undefined;
      if (cpu.count >= end) return "budget";
    }
    // What makes the guest leave the emulator, such as a port, seldom comes alone either.
    if (!emulated) v.emulateTo = cpu.count + RUN;
    const outcome = enterOnGuestTables(v, options, Math.min(end, v.emulateTo) - cpu.count, CR0.PE);
    if (outcome !== "budget") return outcome;
    if (!inReal() || cpu.count >= end) return "budget";
  }
}

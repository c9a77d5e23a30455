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
import { EVENT, EXIT_REASON } from "../abi/x86/vmx.ts";
import { STUB } from "../machine/vmx/layout.ts";
import type { EnterOptions } from "./ops.ts";
import { F, type VmxVcpu } from "./vmx_cpu.ts";
import { enterGuest, type Outcome } from "./vmx_run.ts";
import { useGuestTables, useShadowTables } from "./vmx_shadow.ts";

const TF = 0x100, IOPL = 0x3000, RF = 0x1_0000, VM = 0x2_0000;
const SEGMENTS = ["Es", "Cs", "Ss", "Ds", "Fs", "Gs"] as const;
/** Rights of every segment in virtual-8086 mode: data, accessed, writable, DPL 3, present. */
const V86_RIGHTS = 0xf3;
const BUSY_TSS = 0x8b, VME_PVI = 3;

/** Fields that virtual-8086 mode takes another value in, and that the guest does not change there. */
const KEPT = [
  ...SEGMENTS.map((s) => F[`guest${s}AccessRights`]),
  F.guestTrSelector,
  F.guestTrBase,
  F.guestTrLimit,
  F.guestTrAccessRights,
  F.guestSysenterCs,
  F.guestCr4,
  F.exceptionBitmap,
];

/** Virtual-8086 mode can stand for the real mode the vCPU is in; nothing is to be delivered or traced. */
function fits(v: VmxVcpu): boolean {
  const { on } = v;
  if (on.read(F.entryInterruptionInformation) < 0) return false;
  if (on.read(F.guestRflags) & TF || on.read(F.guestDr7) & 0xff) return false;
  if (on.read(F.guestPendingDebug)) return false;
  return SEGMENTS.every((s) =>
    on.read(F[`guest${s}Base`]) === on.read(F[`guest${s}Selector`]) << 4 &&
    on.read(F[`guest${s}Limit`]) === 0xffff
  );
}

/** Puts the vCPU into virtual-8086 mode; the result takes it back to real mode. */
function toVirtual8086(v: VmxVcpu): () => void {
  const { on } = v, { cpu } = on;
  const kept = KEPT.map((field) => [field, on.read(field), on.high] as const);
  const flags = on.read(F.guestRflags), count = cpu.count;
  for (const s of SEGMENTS) on.write(F[`guest${s}AccessRights`], V86_RIGHTS, 0);
  // No I/O bitmap lies within this TSS: every port access is a #GP.
  for (
    const [field, value] of [
      [F.guestTrSelector, 0],
      [F.guestTrBase, 0],
      [F.guestTrLimit, 0],
      [F.guestTrAccessRights, BUSY_TSS],
      [F.guestSysenterCs, 0],
      [F.guestCr4, on.read(F.guestCr4) & ~VME_PVI],
      [F.exceptionBitmap, -1],
      [F.guestRflags, flags & ~IOPL | VM],
    ]
  ) on.write(field, value, 0);
  return () => {
    const now = on.read(F.guestRflags) & ~(VM | IOPL | RF);
    // The fault of an instruction that is run again set RF; what was there before stays.
    const rf = cpu.count === count ? flags & RF : 0;
    on.write(F.guestRflags, now | flags & IOPL | rf, 0);
    for (const [field, low, high] of kept) on.write(field, low, high);
  };
}

/** Instructions that the emulator executes at most before virtual-8086 mode is tried again. */
const RUN = 1000;

/** Runs on the guest's own control registers, intercepts in force. */
export function enterOnGuestTables(v: VmxVcpu, options: EnterOptions, budget: number): Outcome {
  useGuestTables(v);
  const outcome = enterGuest(v, options, budget);
  useShadowTables(v);
  return outcome;
}

/** The guest left virtual-8086 mode for what that cannot do: an exception other than #PF. */
function refused(v: VmxVcpu): boolean {
  const { on } = v;
  if (on.exit(STUB.reason) !== EXIT_REASON.exception) return false;
  const event = on.exit(STUB.interruption);
  const isNmi = (event >>> EVENT.typeShift & 7) === 2;
  return !isNmi && (event & EVENT.vector) !== 14;
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
    if (!pending && fits(v)) {
      const back = toVirtual8086(v);
      const outcome = enterGuest(v, options, end - cpu.count);
      back();
      if (outcome !== "exit") return outcome;
      if (pageFault()) continue;
      if (!refused(v)) return outcome;
      if (cpu.count >= end) return "budget";
    }
    v.untilProtected = true;
    const outcome = enterOnGuestTables(v, options, Math.min(end - cpu.count, RUN));
    v.untilProtected = false;
    if (outcome !== "budget") return outcome;
    if (!inReal() || cpu.count >= end) return "budget";
  }
}

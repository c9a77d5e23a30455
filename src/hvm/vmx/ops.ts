/**
 * The function table over Intel's VMX. The hypervisor is VMX-root software written in TypeScript: it
 * reaches the processor by VMXON, VMPTRLD, VMREAD, VMWRITE and VM entry only, and keeps the guest's
 * general registers in a save area, as an assembly stub would.
 */
import { VECTOR } from "../../abi/x86/vectors.ts";
import { CR0, EFER, RFLAGS } from "../../abi/x86/cr.ts";
import { vmcsField, vmcsFields } from "../../abi/x86/vmcs.ts";
import { EVENT, EXIT_REASON } from "../../abi/x86/vmx.ts";
import type { Cpu } from "../../machine/cpu.ts";
import type { Exit, GuestEvent } from "../exit.ts";
import { exitKinds } from "../exit_kinds.ts";
import {
  ACTIVITIES,
  type EnterOptions,
  type FrameSource,
  GUEST,
  type HvmCpu,
  type HvmOps,
  type HvmVcpu,
  type Intercepts,
  type Segment,
  type SegmentRegister,
  segmentRegisters,
  type Stopped,
} from "../ops.ts";
import { RegisterAccess } from "../registers.ts";
import { guestWord } from "../shadow.ts";
import { fieldOffset, STUB } from "../../machine/vmx/layout.ts";
import { dumpFields, F, SWITCHED, VmxCpu, VmxVcpu } from "./cpu.ts";
import {
  applyIntercepts,
  BASE_CONTROLS,
  ENABLED,
  OWN_CR0,
  setControl,
  setMask,
} from "./controls.ts";
import {
  decodeExit,
  entryRefused,
  eventFrom,
  eventInformation,
  FIRST_SOFTWARE,
  NOT_HERE,
  requeue,
} from "./exit.ts";
import { eptFormat } from "./paging.ts";
import { enterBetween, enterOnGuestTables, enterReal } from "./real.ts";
import { enterGuest, type Outcome } from "./run.ts";
import { NESTED, setShadowRoot, shadowControl } from "./shadow.ts";
import { MSR_FIELDS, resetGuest, setControlRegister } from "./state.ts";

/** Of the pending debug exceptions (SDM 3 table 25-4). */
const ENABLED_BREAKPOINT = 1 << 12;

const capital = (s: string) => s[0].toUpperCase() + s.slice(1);

/** Made once: where a vCPU stands is noted at the end of each of its turns. */
const SEGMENT_FIELDS = Object.fromEntries(segmentRegisters.map((name) => {
  const s = capital(name);
  return [name, {
    selector: F[`guest${s}Selector`],
    base: F[`guest${s}Base`],
    limit: F[`guest${s}Limit`],
    attributes: F[`guest${s}AccessRights`],
  }];
})) as Record<SegmentRegister, Record<keyof Segment, number>>;

/** CS.L in access rights. */
const LONG = 1 << 13;

/** The vCPU, current on its processor. */
function at(v: HvmVcpu): VmxVcpu {
  const own = v as VmxVcpu;
  if (own.on.current !== own) own.on.load(own);
  return own;
}

const registers = new RegisterAccess<VmxVcpu>({
  fields: { rip: F.guestRip, rsp: F.guestRsp, rflags: F.guestRflags, dr7: F.guestDr7 },
  inCpu: ["cr2", "dr0", "dr1", "dr2", "dr3", "dr6"],
  read: (v, field) => v.on.read64(field),
  write: (v, field, value) => v.on.write64(field, value),
});

const visibleCr0 = (v: VmxVcpu): number => v.shadowed ? v.guest[GUEST.cr0] : v.on.read(F.guestCr0);

function inject(v: VmxVcpu, event: GuestEvent): void {
  const { on } = v;
  // In real mode exceptions have no error code.
  const code = event.errorCode !== undefined && visibleCr0(v) & CR0.PE
    ? event.errorCode
    : undefined;
  if (event.type === "exception") {
    on.cpu.events.noteInjected(event.vector, code, on.read64(F.guestRip));
    // An intercepted #DB is the trap itself: what the exit has saved of it is not due once more.
    if (event.vector === VECTOR.DB) {
      on.write(F.guestInterruptibility, on.read(F.guestInterruptibility) & ~3, 0);
      on.write(F.guestPendingDebug, 0, 0);
    }
  }
  on.write(F.entryInterruptionInformation, eventInformation({ ...event, errorCode: code }), 0);
  on.write(F.entryExceptionErrorCode, code ?? 0, 0);
  on.write(F.entryInstructionLength, event.length ?? 0, 0);
}

function pendingEvent(v: VmxVcpu): GuestEvent | undefined {
  const { on } = v;
  const info = on.read(F.entryInterruptionInformation);
  if (info >= 0) return undefined;
  const code = on.read(F.entryExceptionErrorCode);
  return eventFrom(info, code, on.read(F.entryInstructionLength));
}

function enable(cpu: Cpu, frames: FrameSource): VmxCpu {
  if (cpu.model !== "intel") {
    throw new Error(
      `VMX: the processor has to be of the model "intel", this one is "${cpu.model}"`,
    );
  }
  return VmxCpu.enable(cpu, frames.allocate());
}

function createVcpu(on: HvmCpu, frames: FrameSource): VmxVcpu {
  const v = new VmxVcpu(on as VmxCpu, frames.allocate(), frames.allocate());
  v.on.clear(v);
  v.on.load(v);
  v.on.write(F.ioBitmapA, frames.allocate(), 0);
  v.on.write(F.ioBitmapB, frames.allocate(), 0);
  v.on.write(F.msrBitmap, frames.allocate(), 0);
  for (const [field, value] of Object.entries(BASE_CONTROLS)) v.on.write(F[field], value, 0);
  v.on.writeHostState();
  resetGuest(v);
  v.noteControls();
  return v;
}

function destroyVcpu(v: VmxVcpu, frames: FrameSource): void {
  at(v);
  const { on } = v;
  const bitmaps = [F.ioBitmapA, F.ioBitmapB, F.msrBitmap].map((f) => on.read(f) >>> 0);
  on.clear(v);
  on.current = undefined;
  for (const frame of [...bitmaps, v.control, v.area]) frames.free(frame);
}

/** The #PF that made the guest leave is dealt with, and it may go on. */
function pageFaultHandled(v: VmxVcpu, handler: EnterOptions["pageFault"]): boolean {
  const { on } = v;
  const event = on.exit(STUB.interruption);
  if (!handler || on.exit(STUB.reason) !== EXIT_REASON.exception) return false;
  if ((event & 0x8000_07ff) !== (0x8000_030e | 0)) return false;
  const low = on.exit(STUB.qualification), high = on.exit(STUB.qualification + 4);
  if (!handler(low, high, on.read(F.exitInterruptionErrorCode))) return false;
  const vectoring = on.exit(STUB.vectoring);
  if (vectoring < 0) {
    requeue(v, vectoring, EXIT_REASON.exception);
    // The image of the #PF has RF set (SDM 3 27.3.3), that of what is delivered again as it was; an
    // instruction that raises its event has none.
    const software = (vectoring >>> EVENT.typeShift & 7) >= FIRST_SOFTWARE;
    on.write(F.guestRflags, on.read(F.guestRflags) & ~RFLAGS.RF | (software ? 0 : v.resumeFlag), 0);
  }
  return true;
}

/** Runs on shadow tables, as far as the processor can. */
function enterShadowed(v: VmxVcpu, options: EnterOptions): Outcome {
  const { cpu } = v.on, end = cpu.count + options.budget;
  const pageFault = () => pageFaultHandled(v, options.pageFault);
  const inReal = () => (v.guest[GUEST.cr0] & CR0.PE) === 0;
  if (options.emulate) return enterOnGuestTables(v, options, options.budget);
  if (inReal()) return enterReal(v, options, inReal, pageFault);
  for (;;) {
    const outcome = enterGuest(v, options, end - cpu.count);
    if (outcome !== "exit") return outcome;
    if (v.on.exit(STUB.reason) < 0) return enterBetween(v, options, end - cpu.count);
    if (!pageFault()) return outcome;
  }
}

/**
 * Enters on nested tables. For the one emulator CR0 is the guest's own, whoever wants to see it change:
 * a task switch sets TS.
 */
function enterNested(v: VmxVcpu, options: EnterOptions): Outcome {
  const mask = options.emulate ? v.on.read(F.cr0Mask) : OWN_CR0;
  if (mask === OWN_CR0) return enterGuest(v, options, options.budget);
  setMask(v, 0, OWN_CR0);
  const outcome = enterGuest(v, options, options.budget);
  setMask(v, 0, mask);
  return outcome;
}

function enter(v: VmxVcpu, options: EnterOptions): Exit | Stopped {
  const outcome = v.shadowed ? enterShadowed(v, options) : enterNested(v, options);
  if (outcome === "exit") return decodeExit(v);
  if (outcome === "refused") return entryRefused(v);
  return outcome;
}

/** The table over VMX. */
export const vmxOps: HvmOps = {
  nestedFormat: eptFormat,
  name: "VMX",
  // VMCALL.
  hypercallInstruction: [0x0f, 0x01, 0xc1],
  exitKinds: exitKinds.filter((kind) => !NOT_HERE.includes(kind)),
  fields: {
    control: vmcsFields.map(({ name, bits }) => ({ name, at: fieldOffset(name), width: bits / 8 })),
    area: SWITCHED.fields,
  },
  takesAway: ENABLED,
  enable,
  disable(on, frames) {
    const own = on as VmxCpu;
    own.disable();
    frames.free(own.region);
  },
  createVcpu,
  destroyVcpu: (v, frames) => destroyVcpu(v as VmxVcpu, frames),
  attachVcpu: (on, control, area) => new VmxVcpu(on as VmxCpu, control, area),
  load: (v) => void at(v),
  unload: (on) => (on as VmxCpu).unload(),
  refresh: (on, current) => (on as VmxCpu).refresh(current as VmxVcpu | undefined),
  enter: (v, options) => enter(at(v), options),

  ...registers.table(at),
  getSegment(v, name: SegmentRegister) {
    const { on } = at(v), fields = SEGMENT_FIELDS[name];
    return {
      selector: on.read(fields.selector),
      base: on.read64(fields.base),
      limit: on.read(fields.limit) >>> 0,
      attributes: on.read(fields.attributes),
    };
  },
  setSegment(v, name, value) {
    const { on } = at(v), fields = SEGMENT_FIELDS[name];
    on.write(fields.selector, value.selector, 0);
    on.write64(fields.base, value.base);
    on.write(fields.limit, value.limit, 0);
    on.write(fields.attributes, value.attributes, 0);
  },
  getDescriptorTable(v, name) {
    const { on } = at(v), s = capital(name);
    return { base: on.read64(F[`guest${s}Base`]), limit: on.read(F[`guest${s}Limit`]) };
  },
  setDescriptorTable(v, name, value) {
    const { on } = at(v), s = capital(name);
    on.write64(F[`guest${s}Base`], value.base);
    on.write(F[`guest${s}Limit`], value.limit, 0);
  },
  getCr(v, n) {
    const { on } = at(v);
    if (n === 3) {
      const own = v as VmxVcpu;
      return own.shadowed ? guestWord(own, GUEST.cr3) : on.read64(F.guestCr3);
    }
    if (n === 2 || n === 8) return on.cpu.get(`cr${n}`);
    const mask = on.read64(F[`cr${n}Mask`]);
    return on.read64(F[`guestCr${n}`]) & ~mask | on.read64(F[`cr${n}ReadShadow`]) & mask;
  },
  setCr: (v, n, value) => setControlRegister(at(v), n, BigInt.asUintN(64, value)),
  getMsr(v, msr) {
    const own = at(v), { on } = own, home = MSR_FIELDS[msr >>> 0];
    if (home === undefined) return undefined;
    if (home === F.guestEfer && own.shadowed) return guestWord(own, GUEST.efer);
    return typeof home === "number" ? on.read64(home) : on.cpu.get(home);
  },
  setMsr(v, msr, value) {
    const own = at(v), { on } = own, home = MSR_FIELDS[msr >>> 0];
    if (home === undefined) return false;
    if (home === F.guestEfer && own.shadowed) {
      shadowControl.setEfer(own, value);
      return true;
    }
    if (typeof home === "number") on.write64(home, value);
    else on.cpu.set(home, value);
    return true;
  },
  getActivity: (v) => ACTIVITIES[at(v).on.read(F.guestActivity)],
  setActivity(v, activity) {
    at(v).on.write(F.guestActivity, ACTIVITIES.indexOf(activity), 0);
  },
  getCpl: (v) => at(v).on.read(F.guestSsAccessRights) >>> 5 & 3,
  in64BitMode(v) {
    const own = at(v), { on } = own;
    if (!(on.read(F.guestCsAccessRights) & LONG)) return false;
    return ((own.shadowed ? own.guest[GUEST.efer] : on.read(F.guestEfer)) & EFER.LMA) !== 0;
  },

  advance(v, length) {
    const { on } = at(v);
    on.advance(length);
    // An instruction that the hypervisor completed counts as one.
    on.cpu.count++;
  },
  trap(v, causes) {
    const { on } = at(v);
    on.write(F.guestPendingDebug, on.read(F.guestPendingDebug) | causes | ENABLED_BREAKPOINT, 0);
  },
  inject: (v, event) => inject(at(v), event),
  pendingEvent: (v) => pendingEvent(at(v)),
  cancelEvent: (v) => at(v).on.write(F.entryInterruptionInformation, 0, 0),
  interruptShadow(v) {
    const bits = at(v).on.read(F.guestInterruptibility);
    return { sti: (bits & 1) !== 0, movSs: (bits & 2) !== 0, nmi: (bits & 8) !== 0 };
  },
  setInterruptShadow(v, shadow) {
    const bits = +shadow.sti | +shadow.movSs << 1 | +shadow.nmi << 3;
    at(v).on.write(F.guestInterruptibility, bits, 0);
  },
  canInterrupt(v) {
    const { on } = at(v);
    return (on.read(F.guestRflags) & RFLAGS.IF) !== 0 &&
      (on.read(F.guestInterruptibility) & 3) === 0 &&
      on.read(F.entryInterruptionInformation) >= 0;
  },
  setInterruptWindow: (v, on) => setControl(at(v), "primary", "interruptWindow", on),
  setNmiWindow: (v, on) => setControl(at(v), "primary", "nmiWindow", on),
  setSingleStep: (v, on) => setControl(at(v), "primary", "monitorTrapFlag", on),
  setPreemptionTimer(v, instructions) {
    const own = at(v), on = instructions !== undefined;
    setControl(own, "pin", "preemptionTimer", on);
    setControl(own, "exit", "savePreemptionTimer", on);
    if (on) own.on.write(F.preemptionTimer, Math.ceil(instructions / 32) | 0, 0);
  },

  setIntercepts: (v, wanted: Intercepts) => applyIntercepts(at(v), wanted),
  setTscOffset(v, offset) {
    const own = at(v);
    setControl(own, "primary", "tscOffsetting", offset !== 0n);
    own.on.write64(F.tscOffset, offset);
  },
  setNestedRoot(v, root) {
    const own = at(v);
    const controls = own.on.read(F.secondaryControls) & ~NESTED;
    const off = root === undefined || own.shadowed;
    own.on.write(F.secondaryControls, off ? controls : controls | NESTED, 0);
    if (root !== undefined) own.on.write64(F.eptPointer, eptFormat.pointer(root));
    this.flushTranslations(v);
  },
  setShadowRoot: (v, root) => setShadowRoot(at(v), root),
  flushTranslations: (v) => at(v).on.flush(),

  dump: (v) => dumpFields(at(v).on),
  readRaw: (v, name) => at(v).on.read64(vmcsField(name).encoding),
  writeRaw(v, name, value) {
    const own = at(v);
    own.on.write64(vmcsField(name).encoding, value);
    own.noteControls();
  },
};

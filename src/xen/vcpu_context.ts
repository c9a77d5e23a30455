/** VCPUOP_initialise of a vCPU in a hardware virtual machine: what it begins with (Xen public/hvm/hvm_vcpu.h). */
import { CR0, CR4, EFER } from "../abi/x86/cr.ts";
import { MSR } from "../abi/x86/msr.ts";
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { type VCPU_HVM_CONTEXT, VCPU_HVM_MODE } from "../abi/xen/hvm/hvm_vcpu.ts";
import type { View } from "../abi/layout.ts";
import type { Segment, SegmentRegister } from "../hvm/ops.ts";
import type { XenVcpu } from "./xen_vcpu.ts";

type Context = View<typeof VCPU_HVM_CONTEXT["fields"]>;
/** 32 bits in a general register are its lower half. */
const GENERAL = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "ip", "flags"] as const;
const CONTROL = ["cr0", "cr3", "cr4", "efer"] as const;
const SEGMENTS = ["cs", "ds", "ss", "es", "tr"] as const;

/** What it begins with, as the processor has it. */
interface Beginning {
  readonly registers: Readonly<Record<`r${typeof GENERAL[number]}`, bigint>>;
  readonly control: Readonly<Record<typeof CONTROL[number], bigint>>;
  readonly segments: Readonly<Record<typeof SEGMENTS[number], Segment>>;
}
const byName = <K extends string, V>(names: readonly K[], value: (name: K) => V) =>
  Object.fromEntries(names.map((name) => [name, value(name)])) as Record<K, V>;

/** Gives a vCPU that has not begun its registers; it stays offline. 0 or an errno, and nothing done. */
export function beginWith(vcpu: XenVcpu, context: Context): number {
  const beginning = beginningOf(context), { engine } = vcpu;
  if (!beginning || context.get("pad") !== 0) return -XEN_ERRNO.EINVAL;
  const { cr4, efer } = beginning.control, { cr4Valid, eferValid } = engine.cpuid;
  const within = (value: bigint, valid: number) => !(value & ~BigInt(valid >>> 0));
  if (!within(cr4, cr4Valid) || !within(efer, eferValid)) return -XEN_ERRNO.EINVAL;
  engine.begin(({ ops, hvm }) => {
    const { registers, control, segments } = beginning;
    for (const name of GENERAL) ops.setRegister(hvm, `r${name}`, registers[`r${name}`]);
    for (const name of SEGMENTS) ops.setSegment(hvm, name, segments[name]);
    // LMA is the processor's own.
    ops.setMsr(hvm, MSR.EFER, control.efer & ~BigInt(EFER.LMA));
    for (const n of [4, 3, 0] as const) ops.setCr(hvm, n, control[`cr${n}`]);
  });
  return 0;
}

/** Undefined if it is refused. */
function beginningOf(context: Context): Beginning | undefined {
  const mode = context.get("mode");
  if (mode === VCPU_HVM_MODE["32B"]) return narrow(context);
  return mode === VCPU_HVM_MODE["64B"] ? wide(context) : undefined;
}

const CODE: Segment = { selector: 0, base: 0n, limit: 0xffff_ffff, attributes: 0xa09b };
const DATA: Segment = { ...CODE, attributes: 0xc093 };
const TASK: Segment = { ...CODE, limit: 0x67, attributes: 0x8b };

function wide(context: Context): Beginning | undefined {
  const of = (name: string) => context.get(`cpu_regs.x86_64.${name}` as "cpu_regs.x86_64.rip");
  const control = byName(CONTROL, of), rip = of("rip");
  if (BigInt.asUintN(64, BigInt.asIntN(48, rip)) !== rip) return undefined;
  const has = (value: bigint, bit: number) => (value & BigInt(bit >>> 0)) !== 0n;
  if (!has(control.cr0, CR0.PG) || !has(control.cr4, CR4.PAE) || !has(control.efer, EFER.LME)) {
    return undefined;
  }
  const registers = byName(GENERAL.map((name) => `r${name}` as const), of);
  return { registers, control, segments: { cs: CODE, ds: DATA, ss: DATA, es: DATA, tr: TASK } };
}

/** Bits of a segment's attributes. */
const AR = { type: 0xf, code: 8, writable: 2, s: 0x10, dpl: 0x60, present: 0x80, granular: 0x800 };
const UNUSABLE = 0x1_0000, TSS32_BUSY = 0xb;

function narrow(context: Context): Beginning | undefined {
  const of = (name: string) => context.get(`cpu_regs.x86_32.${name}` as "cpu_regs.x86_32.eip");
  const pads = [0, 1, 2].map((n) => context.get("cpu_regs.x86_32.pad2", n));
  if (of("pad1") !== 0 || pads.some((pad) => pad !== 0)) return undefined;
  const ar = byName(SEGMENTS, (name) => presentAs(name, of(`${name}_ar`)));
  const limit = of("cs_limit"), most = ar.cs & AR.granular ? limit * 4096 + 0xfff : limit;
  const dpl = (name: typeof SEGMENTS[number]) => ar[name] & AR.dpl;
  const efer = context.get("cpu_regs.x86_32.efer");
  const refused = SEGMENTS.some((name) => !isSegment(name, ar[name])) ||
    of("eip") > (most >>> 0) || dpl("ss") !== dpl("cs") ||
    (["ds", "es"] as const).some((name) => ar[name] & AR.present && dpl(name) > dpl("cs")) ||
    ((efer & BigInt(EFER.LMA)) !== 0n && !(efer & BigInt(EFER.LME)));
  if (refused) return undefined;
  const registers = Object.fromEntries(
    GENERAL.map((name) => [`r${name}`, BigInt(of(`e${name}`))]),
  ) as Beginning["registers"];
  const control = { ...byName(["cr0", "cr3", "cr4"] as const, (name) => BigInt(of(name))), efer };
  const segments = byName(SEGMENTS, (name): Segment => ({
    selector: 0,
    base: BigInt(of(`${name}_base`)),
    limit: of(`${name}_limit`),
    attributes: ar[name] ? (ar[name] & 0xff) | (ar[name] & 0xf00) << 4 : UNUSABLE,
  }));
  return { registers, control, segments };
}

/** The processor has marked those that are present: accessed, a task busy. */
const presentAs = (name: SegmentRegister, ar: number): number =>
  ar & AR.present ? ar | (name === "tr" ? 2 : 1) : ar;

/** Whether attributes are such as the register can have. */
function isSegment(name: typeof SEGMENTS[number], ar: number): boolean {
  if (ar & 0xf000) return false;
  // Only these may be null.
  if (ar === 0) return name === "ds" || name === "es";
  if (!(ar & AR.present)) return false;
  if (name === "tr") return !(ar & AR.s) && (ar & AR.type) === TSS32_BUSY;
  if (!(ar & AR.s)) return false;
  const code = (ar & AR.code) !== 0, writable = (ar & AR.writable) !== 0;
  if (name === "cs") return code;
  return name === "ss" ? !code && writable : !code || writable;
}

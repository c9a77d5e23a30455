/**
 * What a guest can see of its computer, item by item and by the names that manuals and data sheets
 * give: the one list of it. It says nothing of how this program groups its state, and holds nothing
 * of a hypervisor (control structures, shadow tables, machine frames, scheduling), so that one guest
 * under nested and shadow paging, and on two vendors where it cannot tell them apart, gives the same
 * lines. Chips are listed in visible_chips.ts.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { FLOAT_REGISTERS } from "../../abi/x86/float.ts";
import { MSR, MSRS } from "../../abi/x86/msr.ts";
import type { GuestEvent } from "../../hvm/exit.ts";
import { ACTIVITIES } from "../../hvm/ops.ts";
import { msrRow } from "../../machine/system/msrs.ts";
import { CPU } from "../../machine/state.ts";
import { ATTRIBUTE } from "../../machine/system/segmentation/descriptor.ts";
import type { Domain } from "../../xen/domain.ts";
import { HvmEngine } from "../../xen/hvm.ts";
import { readMsr } from "../../xen/msrs.ts";
import type { Vcpu } from "../../xen/vcpu.ts";
import type { RegisterFile } from "../register_file.ts";
import type { Subject } from "../subject.ts";
import type { VcpuSubject } from "../vcpu_subject.ts";
import { hex } from "../values.ts";
import { chipSections, hexOf, type VisibleSection } from "./visible_chips.ts";

const words = (text: string): string[] => text.trim().split(/\s+/);
const GENERAL = words(`
  rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 rip rflags
  cr0 cr2 cr3 cr4 cr8 dr0 dr1 dr2 dr3 dr6 dr7`);
const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const;

/**
 * Model-specific registers by their names in `MSR`, and how many follow each other. Those of the local
 * APIC stand with it; of a guest's own virtualization there is nothing here.
 */
const VISIBLE_MSRS = {
  TSC: 1,
  TSC_ADJUST: 1,
  TSC_AUX: 1,
  EFER: 1,
  STAR: 1,
  LSTAR: 1,
  CSTAR: 1,
  SFMASK: 1,
  FS_BASE: 1,
  GS_BASE: 1,
  KERNEL_GS_BASE: 1,
  SYSENTER_CS: 1,
  SYSENTER_ESP: 1,
  SYSENTER_EIP: 1,
  PAT: 1,
  XSS: 1,
  DEBUGCTL: 1,
  MISC_ENABLE: 1,
  PLATFORM_ID: 1,
  EBL_CR_POWERON: 1,
  BIOS_UPDT_TRIG: 1,
  BIOS_SIGN_ID: 1,
  SMI_COUNT: 1,
  PLATFORM_INFO: 1,
  MTRRCAP: 1,
  MTRR_DEF_TYPE: 1,
  MTRR_PHYSBASE0: 16,
  MTRR_FIX64K: 1,
  MTRR_FIX16K_80000: 2,
  MTRR_FIX4K_C0000: 8,
  P5_MC_ADDR: 1,
  P5_MC_TYPE: 1,
  MCG_CAP: 1,
  MCG_STATUS: 1,
  MC4_MISC1: 3,
  PERF_EVTSEL0: 4,
  PERF_CTR0: 4,
  SYSCFG: 1,
  HWCR: 1,
  IORR_BASE0: 4,
  TOP_MEM: 1,
  TOP_MEM2: 1,
  NB_CFG: 1,
  MC0_CTL_MASK: 6,
  IO_TRAP0: 5,
  INT_PENDING: 1,
  MMIO_CFG_BASE: 1,
  PSTATE_LIMIT: 1,
  PSTATE_CTL: 1,
  PSTATE_STATUS: 1,
  PSTATE0: 5,
  COFVID_CTL: 1,
  COFVID_STATUS: 1,
  SMM_BASE: 1,
  SMM_ADDR: 1,
  SMM_MASK: 1,
  IGNNE: 1,
  LS_CFG: 4,
  DE_CFG: 1,
  BU_CFG2: 1,
} as const satisfies Partial<Record<keyof typeof MSR, number>>;

/** All of it, memory apart, in a fixed order; the domain stands still, and stays as it is. */
export function visibleSections({ inner, board, vcpus }: Subject): VisibleSection[] {
  return [
    { name: "time", lines: [`instructions ${inner.count}`, `time ${inner.now}`] },
    ...vcpus.flatMap(vcpuSections),
    { name: "console", lines: consoleLines(inner) },
    ...chipSections(board),
  ];
}

/** A vCPU's; those of others than the first say whose they are. */
function vcpuSections({ id, inner, file }: VcpuSubject): VisibleSection[] {
  const of = id ? ` of vCPU ${id}` : "";
  return [
    {
      name: `registers${of}`,
      lines: [...valueLines(file, [...GENERAL, "xcr0"]), ...segmentLines(file)],
    },
    { name: `events${of}`, lines: eventLines(inner) },
    { name: `msrs${of}`, lines: msrLines(inner) },
    { name: `float${of}`, lines: valueLines(file, [...FLOAT_REGISTERS, "fcs", "fds"]) },
  ];
}

const valueLines = (file: RegisterFile, names: readonly string[]): string[] =>
  names.map((name) => {
    const value = file.get(name) ?? 0n;
    return `${name} ${(name.startsWith("fpr") ? BigInt.asUintN(80, value) : value).toString(16)}`;
  });

function segmentLines(file: RegisterFile): string[] {
  const lines: string[] = [];
  for (const name of SEGMENTS) {
    const { selector, base, limit, attributes } = file.segment(name);
    // What an unusable segment still holds is nobody's affair.
    const rest = attributes & ATTRIBUTE.unusable
      ? "unusable"
      : [base, limit, attributes].map((v) => v.toString(16)).join(" ");
    lines.push(`${name} ${selector.toString(16)} ${rest}`);
  }
  for (const name of ["gdtr", "idtr"] as const) {
    const { base, limit } = file.table(name);
    lines.push(`${name} ${base.toString(16)} ${limit.toString(16)}`);
  }
  return lines;
}

/**
 * The registers that two ways of running the same guest must agree on, be one of them the bare
 * processor: it alone has the registers of firmware's and the APIC's place.
 */
export function registerLines(file: RegisterFile): string[] {
  const named = Object.keys(MSRS).filter((n) => !/featureControl|miscEnable|apicBase/.test(n));
  return [...valueLines(file, [...GENERAL, ...named, ...FLOAT_REGISTERS]), ...segmentLines(file)];
}

/** What waits to be delivered, and what holds it back. */
function eventLines({ engine, cpu, halted }: Vcpu): string[] {
  const lines = (e: GuestEvent | undefined, nmi: boolean, shadow: number, activity: string) => [
    e ? `pending ${e.type} ${e.vector} error ${e.errorCode} length ${e.length}` : "pending none",
    `NMI ${nmi}`,
    `shadow ${shadow}`,
    `activity ${halted ? "hlt" : activity}`,
  ];
  if (engine instanceof HvmEngine) {
    const { ops, hvm } = engine;
    const { sti, movSs, nmi } = ops.interruptShadow(hvm);
    const shadow = +sti | +movSs << 1 | +nmi << 3;
    return lines(ops.pendingEvent(hvm), engine.nmiPending, shadow, ops.getActivity(hvm));
  }
  const cell = (at: number) => cpu.i32[at >> 2];
  return lines(
    undefined,
    cell(CPU.pendingNmi) !== 0,
    cell(CPU.interruptibility),
    ACTIVITIES[cell(CPU.activity)],
  );
}

/** What RDMSR gives at CPL 0; undefined: #GP(0). */
function rdmsr({ engine, cpu, domain: { cpuid, now } }: Vcpu, number: number): bigint | undefined {
  if (engine instanceof HvmEngine) return readMsr(engine, number);
  const row = msrRow(number, cpu.model, (what) => cpuid.offers(what));
  if (!row) return undefined;
  if (number === MSR.TSC) return BigInt.asUintN(64, BigInt(now) + cpu.get("tscAdjust"));
  return row.home === undefined ? row.fixed : cpu.u64[(row.home >> 3) + number - row.number];
}

function msrLines(vcpu: Vcpu): string[] {
  return Object.entries(VISIBLE_MSRS).flatMap(([name, count]) =>
    Array.from({ length: count }, (_, n) => {
      const number = MSR[name as keyof typeof VISIBLE_MSRS] + n;
      return `${name}${n ? `+${n}` : ""} ${rdmsr(vcpu, number)?.toString(16) ?? "#GP"}`;
    })
  );
}

function consoleLines({ output }: Domain): string[] {
  return [`bytes ${output.total}`, `text ${hexOf(output.since(0))}`];
}

/** Guest frames of the legacy video memory: the graphics adapter's, which shows it. */
const VIDEO = { first: 0xa0, last: 0xbf } as const;

/**
 * Hashes of guest frames by their number, in two words each: the first 64 bits of SHA-256 of what the
 * guest reads there; zero for a frame of zeroes, or for none.
 */
export function visibleFrames({ memory, host }: Domain): Uint32Array {
  const { ram, words } = host.machine, count = memory.size / 4096;
  const hashes = new Uint32Array(2 * count);
  for (let gfn = 0; gfn < count; gfn++) {
    if (gfn >= VIDEO.first && gfn <= VIDEO.last) continue;
    const at = memory.machineAddress(gfn * 4096);
    if (at < 0 || isZero(words, at / 4)) continue;
    const bytes = createHash("sha256").update(ram.subarray(at, at + 4096)).digest();
    hashes[2 * gfn] = bytes.readUInt32BE(0);
    hashes[2 * gfn + 1] = bytes.readUInt32BE(4);
  }
  return hashes;
}

function isZero(ram: Int32Array, from: number): boolean {
  for (let i = from; i < from + 1024; i++) if (ram[i] !== 0) return false;
  return true;
}

/** Digits of SHA-256 that a section's digest has. */
const DIGITS = 12;

/** The digest of a section: the first 48 bits of SHA-256 of its lines. */
export const linesDigest = (lines: readonly string[]): string =>
  createHash("sha256").update(lines.join("\n")).digest("hex").slice(0, DIGITS);

/** The same of memory: frames that are not zero, by their number. */
export function framesDigest(frames: Uint32Array): string {
  const hash = createHash("sha256");
  for (let gfn = 0; gfn < frames.length / 2; gfn++) {
    const [high, low] = [frames[2 * gfn], frames[2 * gfn + 1]];
    if (high || low) hash.update(`${hex(gfn)} ${hex(high)} ${hex(low)}\n`);
  }
  return hash.digest("hex").slice(0, DIGITS);
}

/**
 * Where the registers of a vCPU are: in the processor (a bare guest), or in the vendor's control
 * structure and its save area (a hardware virtual machine). One interface for both, and copies that
 * no longer change.
 *
 * @module
 */
import { ARITHMETIC, CR0, EFER, RFLAGS } from "../abi/x86/cr.ts";
import { FLOAT_REGISTERS } from "../abi/x86/float.ts";
import { MSRS } from "../abi/x86/msr.ts";
import type { Cpu } from "../machine/cpu.ts";
import type { HvmOps, HvmVcpu, RegisterName, Segment, SegmentRegister } from "../hvm/ops.ts";
import { segmentRegisters } from "../hvm/ops.ts";
import { holdsPdptes } from "../machine/system/control_rules.ts";
import {
  ARCHITECTURAL_END,
  ARCHITECTURAL_START,
  architecturalFields,
  CPU,
  GPRS,
  SEGMENT,
} from "../machine/state.ts";
import { ATTRIBUTE } from "../machine/system/segmentation/descriptor.ts";

/** A descriptor-table register: linear base, limit in bytes. */
export interface TableRegister {
  /** Linear address of the table. */
  readonly base: bigint;
  /** Last byte of the table, from its base. */
  readonly limit: number;
}

/** Name of a model-specific register. */
export type MsrName = keyof typeof MSRS;

/** Control and debug registers there are. */
export const CONTROL = ["cr0", "cr2", "cr3", "cr4", "cr8", "xcr0"] as const;
export const DEBUG = ["dr0", "dr1", "dr2", "dr3", "dr6", "dr7"] as const;
const CANONICAL = new Set<string>([
  ...GPRS,
  "rip",
  "rflags",
  ...CONTROL,
  ...DEBUG,
  ...Object.keys(MSRS),
  ...FLOAT_REGISTERS,
  // Of the last x87 instruction and its operand, where the processor keeps them.
  "fcs",
  "fds",
]);

/** All that a vCPU's code can see of its processor, by the names of the manual. */
export interface RegisterFile {
  /** Undefined if there is no register of that name here. */
  get(name: string): bigint | undefined;
  /** False if it cannot be set here. */
  set(name: string, value: bigint): boolean;
  segment(name: SegmentRegister): Segment;
  setSegment(name: SegmentRegister, value: Segment): void;
  table(name: "gdtr" | "idtr"): TableRegister;
  setTable(name: "gdtr" | "idtr", value: TableRegister): void;
  readonly cpl: number;
  /** As it is now, for ever. */
  snapshot(): RegisterFile;
}

const fieldByName = new Map(architecturalFields.map((f) => [f.name, f]));

/** The layout of state.ts over some bytes: the processor's own, or a copy of them. */
class BlockFile implements RegisterFile {
  /** @param flags the arithmetic flags, worked out */
  constructor(
    protected readonly view: DataView,
    /** Offset in `view` of offset 0 of memory 0. */
    private readonly shift: number,
  ) {}

  protected rflags(): bigint {
    return this.view.getBigUint64(CPU.rflags + this.shift, true);
  }
  get(name: string): bigint | undefined {
    if (name === "rflags") return this.rflags();
    if (!CANONICAL.has(name)) return undefined;
    const field = fieldByName.get(name);
    if (!field) return undefined;
    const at = field.at + this.shift;
    if (field.width === 4) return BigInt(this.view.getUint32(at, true));
    const low = this.view.getBigUint64(at, true);
    if (field.width !== 16) return low;
    return this.view.getBigUint64(at + 8, true) << 64n | low;
  }
  set(_name: string, _value: bigint): boolean {
    throw new Error("these registers are a copy, made when the vCPU stopped; set vcpu.regs");
  }
  segment(name: SegmentRegister): Segment {
    const at = CPU[`${name}.base`] + this.shift;
    return {
      selector: this.view.getUint32(at + SEGMENT.selector, true),
      base: this.view.getBigUint64(at, true),
      limit: this.view.getUint32(at + SEGMENT.limit, true),
      attributes: this.view.getUint32(at + SEGMENT.attributes, true),
    };
  }
  setSegment(_name: SegmentRegister, _value: Segment): void {
    this.set("", 0n);
  }
  table(name: "gdtr" | "idtr"): TableRegister {
    return {
      base: this.view.getBigUint64(CPU[`${name}.base`] + this.shift, true),
      limit: Number(this.view.getBigUint64(CPU[`${name}.limit`] + this.shift, true)),
    };
  }
  setTable(_name: "gdtr" | "idtr", _value: TableRegister): void {
    this.set("", 0n);
  }
  get cpl(): number {
    const cr0 = this.view.getUint32(CPU.cr0 + this.shift, true);
    if (!(cr0 & CR0.PE)) return 0;
    return this.segment("ss").attributes >> 5 & 3;
  }
  snapshot(): RegisterFile {
    return this;
  }
}

const FLAGS = BigInt(ARITHMETIC), FIXED = BigInt(RFLAGS.fixed);
/** Of RFLAGS: bits 3 and 5 read as 0 (SDM 1 3.4.3). */
const toRflags = (value: bigint): bigint => value & ~0x28n | FIXED;

/** Registers in the processor itself. */
export class CpuFile extends BlockFile {
  constructor(readonly cpu: Cpu) {
    super(new DataView(cpu.memory.buffer), 0);
  }

  protected override rflags(): bigint {
    // Worked out without writing them down: looking changes nothing.
    const flags = BigInt(this.cpu.system.arithmeticFlags());
    return super.rflags() & ~FLAGS | flags & FLAGS;
  }

  override set(name: string, value: bigint): boolean {
    const field = CANONICAL.has(name) ? fieldByName.get(name) : undefined;
    if (!field) return false;
    const { view, cpu } = this;
    if (name === "rflags") {
      cpu.i32[CPU.flagOp >> 2] = 0;
      value = toRflags(value);
    }
    if (field.width === 4) view.setUint32(field.at, Number(value & 0xffff_ffffn), true);
    else view.setBigUint64(field.at, BigInt.asUintN(64, value), true);
    if (field.width === 16) view.setBigUint64(field.at + 8, BigInt.asUintN(64, value >> 64n), true);
    if (name === "rip") cpu.observation.passNone();
    if (/^(cr[034]|efer|xcr0|rflags)$/.test(name)) this.#modeChanged(name);
    return true;
  }
  #modeChanged(name: string): void {
    const { cpu } = this;
    if (name !== "rflags" && name !== "xcr0") {
      loadPdptes(cpu);
      cpu.flushTlb();
    }
    cpu.system.refresh();
  }
  override setSegment(name: SegmentRegister, value: Segment): void {
    this.cpu.setSegment(segmentRegisters.indexOf(name), value);
    this.cpu.system.refresh();
  }
  override setTable(name: "gdtr" | "idtr", value: TableRegister): void {
    this.cpu.set(`${name}.base`, value.base);
    this.cpu.set(`${name}.limit`, BigInt(value.limit));
  }
  override snapshot(): RegisterFile {
    const bytes = this.cpu.u8.slice(ARCHITECTURAL_START, ARCHITECTURAL_END);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(CPU.rflags - ARCHITECTURAL_START, this.rflags(), true);
    return new BlockFile(view, -ARCHITECTURAL_START);
  }
}

/** In PAE paging, the processor holds the four directory pointers itself (SDM 3 4.4.1). */
function loadPdptes(cpu: Cpu): void {
  const word = (name: "cr0" | "cr4" | "efer") => cpu.i32[CPU[name] >> 2];
  if (!holdsPdptes(word("cr0"), word("cr4"), word("efer"))) return;
  const table = Number(cpu.get("cr3") & 0xffff_ffe0n);
  if (table + 32 <= cpu.machine.size) cpu.loadPdptes(table);
}

/** A register file that is there only as long as `check` does not throw. */
export class CheckedFile implements RegisterFile {
  constructor(private readonly file: RegisterFile, private readonly check: () => void) {}

  #checked(): RegisterFile {
    this.check();
    return this.file;
  }
  get(name: string): bigint | undefined {
    return this.#checked().get(name);
  }
  set(name: string, value: bigint): boolean {
    return this.#checked().set(name, value);
  }
  segment(name: SegmentRegister): Segment {
    return this.#checked().segment(name);
  }
  setSegment(name: SegmentRegister, value: Segment): void {
    this.#checked().setSegment(name, value);
  }
  table(name: "gdtr" | "idtr"): TableRegister {
    return this.#checked().table(name);
  }
  setTable(name: "gdtr" | "idtr", value: TableRegister): void {
    this.#checked().setTable(name, value);
  }
  get cpl(): number {
    return this.#checked().cpl;
  }
  snapshot(): RegisterFile {
    return this.#checked().snapshot();
  }
}

/** Names that the ops know as registers. */
const OPS_REGISTERS = new Set<string>([
  ...GPRS,
  "rip",
  "rflags",
  "cr2",
  "dr0",
  "dr1",
  "dr2",
  "dr3",
  "dr6",
  "dr7",
]);

/** Registers of a hardware virtual machine's vCPU, reached through the ops alone. */
export class HvmFile implements RegisterFile {
  /** @param current puts the vCPU's state on its processor, where that is needed */
  constructor(
    readonly ops: HvmOps,
    readonly vcpu: HvmVcpu,
    private readonly current: () => void,
  ) {}

  get(name: string): bigint | undefined {
    if (!CANONICAL.has(name)) return undefined;
    this.current();
    const { ops, vcpu } = this;
    if (OPS_REGISTERS.has(name)) return ops.getRegister(vcpu, name as RegisterName);
    const cr = /^cr([0348])$/.exec(name);
    if (cr) return ops.getCr(vcpu, Number(cr[1]) as 0 | 3 | 4 | 8);
    if (name in MSRS) {
      return ops.getMsr(vcpu, MSRS[name as MsrName]) ?? new CpuFile(vcpu.on.cpu).get(name);
    }
    return new CpuFile(vcpu.on.cpu).get(name);
  }
  set(name: string, value: bigint): boolean {
    if (!CANONICAL.has(name)) return false;
    this.current();
    const { ops, vcpu } = this;
    const cr = /^cr([0348])$/.exec(name);
    if (name === "rip") vcpu.on.cpu.observation.passNone();
    if (name === "rflags") value = toRflags(value);
    if (OPS_REGISTERS.has(name)) ops.setRegister(vcpu, name as RegisterName, value);
    else if (cr) {
      ops.setCr(vcpu, Number(cr[1]) as 0 | 3 | 4 | 8, value);
      ops.flushTranslations(vcpu);
    } else if (name in MSRS) {
      return ops.setMsr(vcpu, MSRS[name as MsrName], value) ||
        new CpuFile(vcpu.on.cpu).set(name, value);
    } else return new CpuFile(vcpu.on.cpu).set(name, value);
    return true;
  }
  segment(name: SegmentRegister): Segment {
    this.current();
    return this.ops.getSegment(this.vcpu, name);
  }
  setSegment(name: SegmentRegister, value: Segment): void {
    this.current();
    this.ops.setSegment(this.vcpu, name, value);
  }
  table(name: "gdtr" | "idtr"): TableRegister {
    this.current();
    return this.ops.getDescriptorTable(this.vcpu, name);
  }
  setTable(name: "gdtr" | "idtr", value: TableRegister): void {
    this.current();
    this.ops.setDescriptorTable(this.vcpu, name, value);
  }
  get cpl(): number {
    this.current();
    return this.ops.getCpl(this.vcpu);
  }
  snapshot(): RegisterFile {
    const values = new Map<string, bigint>();
    for (const name of CANONICAL) {
      const value = this.get(name);
      if (value !== undefined) values.set(name, value);
    }
    const segments = new Map(segmentRegisters.map((s) => [s, this.segment(s)]));
    return new MapFile(
      values,
      segments,
      { gdtr: this.table("gdtr"), idtr: this.table("idtr") },
      this.cpl,
    );
  }
}

/** A copy of registers. */
class MapFile implements RegisterFile {
  constructor(
    private readonly values: ReadonlyMap<string, bigint>,
    private readonly segments: ReadonlyMap<SegmentRegister, Segment>,
    private readonly tables: Readonly<Record<"gdtr" | "idtr", TableRegister>>,
    readonly cpl: number,
  ) {}
  get(name: string): bigint | undefined {
    return this.values.get(name);
  }
  set(): boolean {
    throw new Error("these registers are a copy, made when the vCPU stopped; set vcpu.regs");
  }
  segment(name: SegmentRegister): Segment {
    return this.segments.get(name)!;
  }
  setSegment(): void {
    this.set();
  }
  table(name: "gdtr" | "idtr"): TableRegister {
    return this.tables[name];
  }
  setTable(): void {
    this.set();
  }
  snapshot(): RegisterFile {
    return this;
  }
}

/** Width of the code that runs: by the code segment's L and D bits (SDM 3 3.4.5). */
export function codeBits(file: RegisterFile): 16 | 32 | 64 {
  const { attributes } = file.segment("cs");
  const long = ((file.get("efer") ?? 0n) & BigInt(EFER.LMA)) !== 0n;
  if (long && attributes & ATTRIBUTE.long) return 64;
  return attributes & ATTRIBUTE.big ? 32 : 16;
}

/** Linear address of the next instruction. */
export function linearIp(file: RegisterFile): bigint {
  const rip = file.get("rip")!;
  if (codeBits(file) === 64) return rip;
  return file.segment("cs").base + rip & 0xffff_ffffn;
}

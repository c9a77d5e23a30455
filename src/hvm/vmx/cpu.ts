/** A processor in VMX root operation, its VMCSs, and what VM entry and exit do not switch. */
import { VMCS, vmcsFields } from "../../abi/x86/vmcs.ts";
import { controlBits, controlNames, instructionErrors, PIN, PRIMARY } from "../../abi/x86/vmx.ts";
import type { Cpu } from "../../machine/cpu.ts";
import type { RunStop } from "../../machine/run.ts";
import type { SystemFunctions } from "../../machine/linkage.ts";
import { explain } from "../../machine/checks.ts";
import { V } from "../../machine/state.ts";
import { HEAD, VMCS_REVISION, VMXC } from "../../machine/vmx/layout.ts";
import { AREA, GUEST, type HvmCpu, type HvmVcpu, type RawField } from "../ops.ts";
import { isShadowed, markWords } from "../shadow.ts";
import { refuseInGuest, Switched } from "../switched.ts";

/** Field encodings by name. */
export const F = VMCS;

/** Registers that hardware leaves alone at entry and exit. */
export const SWITCHED = new Switched([
  "cr2",
  "cr8",
  "xcr0",
  "dr0",
  "dr1",
  "dr2",
  "dr3",
  "dr6",
  "star",
  "lstar",
  "cstar",
  "sfmask",
  "kernelGsBase",
  "tscAux",
]);

/** What the root's registers hold: a 64-bit hypervisor's. */
const HOST = {
  cr0: 0x8005_0033,
  /** PAE PGE OSFXSR OSXMMEXCPT VMXE. */
  cr4: 0x26a0,
  /** SCE LME LMA NXE. */
  efer: 0xd01,
  pat: 0x0007_0406_0007_0406n,
  code: 0xe008,
  data: 0xe010,
  task: 0xe040,
  /** Where a VM exit would go on; TypeScript takes over instead. */
  rip: 0x10_0000,
} as const;

export class VmxVcpu implements HvmVcpu {
  readonly gprs: Int32Array;
  readonly guest: Int32Array;
  /** The launch state in the VMCS region: 0 clear. */
  readonly launchState: Int32Array;
  /** Controls that ask for a look at instruction boundaries. */
  boundary = 0;
  /** Processor's instruction count up to which VMX has been told of them. */
  reported = 0;
  /** Bits of CR0: the run ends with the instruction that sets one. */
  untilCr0 = 0;
  /** Processor's instruction count up to which real mode is emulated. */
  emulateTo = 0;
  /** Of a shadowed vCPU, while the emulator runs on the guest's own tables; and the exceptions asked for. */
  readonly kept = { root: 0, cr0Mask: 0, cr4Mask: 0, exceptions: 0, asked: 0 };
  /** RFLAGS.RF at the last instruction boundary of the guest. */
  resumeFlag = 0;
  boundaryHook: (() => RunStop | undefined) | undefined;

  constructor(readonly on: VmxCpu, readonly control: number, readonly area: number) {
    const { buffer } = on.cpu.machine.ram;
    this.gprs = new Int32Array(buffer, area + AREA.gprs, 32);
    this.guest = new Int32Array(buffer, area + AREA.guest, 32);
    this.launchState = new Int32Array(buffer, control + HEAD.launched, 1);
  }

  /** The processor walks shadow tables for it. */
  get shadowed(): boolean {
    return isShadowed(this);
  }

  /** The debug trap of a task's T bit that is due: the VMCS has no place for it (SDM 3 25.4.2). */
  get taskTrap(): number {
    return this.guest[GUEST.taskTrap];
  }
  set taskTrap(causes: number) {
    if (this.taskTrap === causes) return;
    this.guest[GUEST.taskTrap] = causes;
    markWords(this);
  }

  /** Remembers what the run loop asks of the controls; the vCPU is current. */
  noteControls(): void {
    const windows = PRIMARY.interruptWindow | PRIMARY.nmiWindow | PRIMARY.monitorTrapFlag |
      PRIMARY.tprShadow;
    this.boundary = this.on.read(F.processorBasedControls) & windows |
      this.on.read(F.pinBasedControls) & PIN.preemptionTimer;
  }
}

export class VmxCpu implements HvmCpu {
  current: VmxVcpu | undefined;
  readonly system: SystemFunctions;
  readonly #i32: Int32Array;

  private constructor(readonly cpu: Cpu, readonly region: number) {
    this.system = cpu.system;
    this.#i32 = cpu.i32;
  }

  /** VMXON with its region at machine address `region`. */
  static enable(cpu: Cpu, region: number): VmxCpu {
    const on = new VmxCpu(cpu, region);
    const control = cpu.get("featureControl");
    if (!(control & 1n)) cpu.set("featureControl", control | 5n);
    cpu.set("cr0", BigInt(HOST.cr0));
    cpu.set("cr4", BigInt(HOST.cr4));
    cpu.set("efer", BigInt(HOST.efer));
    cpu.i32[V.hostedRoot >> 2] = 1;
    on.#revision(region);
    on.#succeed("VMXON", on.system.vmxon(region, 0));
    return on;
  }

  disable(): void {
    this.unload();
    this.#succeed("VMXOFF", this.system.vmxoff());
    this.#i32[V.hostedRoot >> 2] = 0;
  }

  #revision(at: number): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, VMCS_REVISION, true);
    this.cpu.machine.write(at + HEAD.revision, bytes);
  }

  /** The check that the last operation noted, with its operands filled in. */
  lastCheck(): { id: number; text: string } {
    const { u64 } = this.cpu, id = this.#i32[V.check >> 2];
    return { id, text: explain(id, u64[V.checkA >> 3], u64[V.checkB >> 3]) };
  }

  #succeed(what: string, status: number): void {
    if (status === 0) return;
    const error = status === 2 ? this.read(F.instructionError) : 0;
    const reason = error ? `VM-instruction error ${error}, ${instructionErrors[error]}` : "";
    throw new Error(
      `${what} failed: ${[reason, this.lastCheck().text].filter((x) => x).join("; ")}`,
    );
  }

  /** Makes a fresh region a VMCS that may be launched. */
  clear(v: VmxVcpu): void {
    this.#revision(v.control);
    this.#succeed("VMCLEAR", this.system.vmclear(v.control, 0));
  }

  load(v: VmxVcpu): void {
    refuseInGuest(this.cpu);
    this.unload();
    this.#succeed("VMPTRLD", this.system.vmptrld(v.control, 0));
    SWITCHED.load(this.cpu, v.area);
    this.current = v;
    v.noteControls();
  }

  unload(): void {
    const v = this.current;
    if (!v) return;
    SWITCHED.store(this.cpu, v.area);
    this.current = undefined;
  }

  /** After state came from outside: what follows from the current-VMCS pointer is worked out anew. */
  refresh(current: VmxVcpu | undefined): void {
    this.#i32[V.hostedRoot >> 2] = 1;
    this.#i32[VMXC.contextValid >> 2] = 0;
    this.current = current;
    this.system.vmxCurrent();
    if (!current) return;
    current.noteControls();
  }

  /** Past an instruction of `length` bytes. */
  advance(length: number): void {
    this.system.advanceGuest(length);
  }

  flush(): void {
    this.system.flushTlb();
  }

  /** A word of STUB, read at the last exit. */
  exit(word: number): number {
    return this.#i32[(VMXC.stub + word) >> 2];
  }

  // --- fields of the current VMCS ---

  /** VMREAD: the low half, signed; both halves stay in `low` and `high`. */
  read(field: number): number {
    if (this.system.vmread(field) !== 0) this.#succeed("VMREAD", 2);
    return this.#i32[VMXC.value >> 2];
  }
  /** Halves of the last field read, signed. */
  get low(): number {
    return this.#i32[VMXC.value >> 2];
  }
  get high(): number {
    return this.#i32[(VMXC.value >> 2) + 1];
  }
  read64(field: number): bigint {
    this.read(field);
    return this.cpu.u64[VMXC.value >> 3];
  }
  write(field: number, low: number, high: number): void {
    if (this.system.vmwrite(field, low, high) !== 0) this.#succeed("VMWRITE", 2);
  }
  write64(field: number, value: bigint): void {
    const v = BigInt.asUintN(64, value);
    this.write(field, Number(v & 0xffff_ffffn) | 0, Number(v >> 32n) | 0);
  }

  /** The host-state area of the current VMCS. */
  writeHostState(): void {
    const values: Record<string, number> = {
      hostCr0: HOST.cr0,
      hostCr4: HOST.cr4,
      hostEfer: HOST.efer,
      hostCsSelector: HOST.code,
      hostSsSelector: 0,
      hostTrSelector: HOST.task,
      hostRip: HOST.rip,
      hostRsp: HOST.rip,
    };
    for (const [name, value] of Object.entries(values)) this.write(F[name], value, 0);
    this.write64(F.hostPat, HOST.pat);
  }
}

/** Every field of the current VMCS. */
export function dumpFields(on: VmxCpu): RawField[] {
  return vmcsFields.map((field) => {
    const value = on.read64(field.encoding);
    const names = controlNames[field.name as keyof typeof controlNames];
    const set = names && controlBits(names, Number(value));
    const { name, encoding: code, bits } = field;
    return set ? { name, code, bits, value, set } : { name, code, bits, value };
  });
}

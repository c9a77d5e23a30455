/** A processor with SVM on, its VMCBs, and what VMRUN and #VMEXIT do not switch. */
import { EFER } from "../../abi/x86/cr.ts";
import { CLEAN, TLB_CONTROL, VM_CR, VMCB, VMCB_SIZE, vmcbFields } from "../../abi/x86/vmcb.ts";
import { explain } from "../../machine/checks.ts";
import type { Cpu } from "../../machine/cpu.ts";
import type { RunStop } from "../../machine/run.ts";
import type { SystemFunctions } from "../../machine/linkage.ts";
import { FRAME, FRAME_FLAG, V } from "../../machine/state.ts";
import { SVMC } from "../../machine/svm/layout.ts";
import { AREA, type HvmCpu, type HvmVcpu } from "../ops.ts";
import { isShadowed } from "../shadow.ts";
import { refuseInGuest, Switched } from "../switched.ts";

/** Field offsets by name. */
export const F = VMCB;

/**
 * Registers that VMRUN, VMLOAD and #VMEXIT, VMSAVE leave alone, and the traps that wait, for which
 * the VMCB has no field. STAR and its kin go by VMLOAD and VMSAVE.
 */
export const SWITCHED = new Switched([
  "xcr0",
  "dr0",
  "dr1",
  "dr2",
  "dr3",
  "tscAux",
  "debugctl",
  "pendingDebug",
]);

/** Fields that only VMLOAD and VMSAVE move: the processor may have newer values than the VMCB. */
const LAZY = /^(fs|gs|ldtr|tr)[A-Z]|^([lc]?star|sfmask|kernelGsBase)$|^sysenter/;

/** By offset: the field's clean bit, and bit 31 if it is a lazy one. */
const TRAITS = new Int32Array(VMCB_SIZE);
for (const { offset, clean, name } of vmcbFields) {
  TRAITS[offset] = (clean ? 1 << CLEAN[clean] : 0) | (LAZY.test(name) ? 1 << 31 : 0);
}
const ALL_CLEAN = Object.values(CLEAN).reduce<number>((bits, n) => bits | 1 << n, 0);

/** Where the lazy fields' newest values are. */
type Sync = "both" | "processor" | "vmcb";

/**
 * What hvm keeps of a vCPU besides its VMCB: 32-bit words in the save area. The hardware has no
 * monitor trap, timer, NMI window or activity state.
 */
export const OWN = {
  /** A "debug" exit after each instruction. */
  step: 0,
  timer: 1,
  /** Instructions left, two words. */
  timerLeft: 2,
  /** An NMI is being handled: IRET ends that. */
  nmiBlocked: 4,
  nmiWindow: 5,
  /** CPU.activity while the guest is not running. */
  activity: 6,
  /** The neutral wishes that are narrower than an intercept. */
  cr0Bits: 8,
  cr4Bits: 9,
  pageFaultMask: 10,
  pageFaultMatch: 11,
  iret: 12,
  invlpg: 13,
  /** The interrupt shadow is that of MOV SS or POP SS. */
  movSs: 14,
  /** Bits by INTERCEPTED: instructions that are undefined. */
  absent: 15,
  words: 16,
} as const;
const OWN_AREA = 0xf00;
if (AREA.switched + SWITCHED.size > OWN_AREA) {
  throw new Error("the save area's parts overlap: what is switched has outgrown its place");
}

export class SvmVcpu implements HvmVcpu {
  readonly gprs: Int32Array;
  readonly guest: Int32Array;
  /** The VMCB, in words of 32 bits. Read as you like; write through the methods. */
  readonly words: Int32Array;
  readonly #u8: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #u64: BigUint64Array;
  /** Words of {@linkcode OWN}. */
  readonly own: Int32Array;
  #sync: Sync = "both";
  boundaryHook: (() => RunStop | undefined) | undefined;
  /** Of a shadowed vCPU, while the emulator runs on the guest's own tables; and the exceptions asked for. */
  readonly kept = { root: 0, exceptions: 0, asked: 0 };
  /** The run ends with the next instruction or delivery; where it began, and if by a delivery. */
  stepping = false;
  stepFrom = 0n;
  stepCount = 0;
  delivered = false;

  constructor(readonly on: SvmCpu, readonly control: number, readonly area: number) {
    const { buffer } = on.cpu.machine.ram;
    this.gprs = new Int32Array(buffer, area + AREA.gprs, 32);
    this.guest = new Int32Array(buffer, area + AREA.guest, 128);
    this.own = new Int32Array(buffer, area + OWN_AREA, OWN.words);
    this.words = new Int32Array(buffer, control, VMCB_SIZE / 4);
    this.#u8 = new Uint8Array(buffer, control, VMCB_SIZE);
    this.#u16 = new Uint16Array(buffer, control, VMCB_SIZE / 2);
    this.#u64 = new BigUint64Array(buffer, control, VMCB_SIZE / 8);
  }

  /** The processor walks shadow tables for it. */
  get shadowed(): boolean {
    return isShadowed(this);
  }

  /** A field of 32 bits, or the low half of one of 64, signed. */
  read(field: number): number {
    if (TRAITS[field] < 0) this.lazy(false);
    return this.words[field >> 2];
  }
  readHigh(field: number): number {
    return this.words[(field >> 2) + 1];
  }
  read8(field: number): number {
    return this.#u8[field];
  }
  read16(field: number): number {
    if (TRAITS[field] < 0) this.lazy(false);
    return this.#u16[field >> 1];
  }
  read64(field: number): bigint {
    if (TRAITS[field] < 0) this.lazy(false);
    return this.#u64[field >> 3];
  }

  write(field: number, value: number): void {
    this.#written(field);
    this.words[field >> 2] = value;
  }
  write8(field: number, value: number): void {
    this.#written(field);
    this.#u8[field] = value;
  }
  write16(field: number, value: number): void {
    this.#written(field);
    this.#u16[field >> 1] = value;
  }
  write64(field: number, value: bigint): void {
    this.#written(field);
    this.#u64[field >> 3] = value;
  }
  setOwn(word: number, value: number): void {
    if (this.own[word] === value) return;
    this.own[word] = value;
    this.#dirty(this.area);
  }

  #dirty(address: number): void {
    this.on.cpu.machine.frameTable[(address >>> 12) * (FRAME.size / 4)] |= FRAME_FLAG.dirty;
  }
  /** The processor may have kept the field; one that only VMLOAD reads makes a VMLOAD due. */
  #written(field: number): void {
    const traits = TRAITS[field];
    if (traits < 0) this.lazy(true);
    this.words[F.cleanBits >> 2] &= ~traits;
    this.#dirty(this.control);
  }

  // --- VMLOAD and VMSAVE, put off until somebody needs them ---

  #save(): void {
    this.on.system.vmsave(this.control, 0);
    this.#sync = "both";
  }
  /** The lazy fields are about to be read, or written, in the VMCB. */
  lazy(write: boolean): void {
    if (this.#sync === "processor") this.#save();
    if (write) this.#sync = "vmcb";
  }
  /** Before VMRUN. */
  toProcessor(): void {
    if (this.#sync === "vmcb") this.on.system.vmload(this.control, 0);
    this.#sync = "processor";
  }
  /** The processor's values are another's or nobody's. */
  inVmcb(): void {
    this.#sync = "vmcb";
  }

  /** The next VMRUN drops what was derived from the guest's translations. */
  flush(): void {
    this.write8(F.tlbControl, TLB_CONTROL.guest);
  }

  /** After an exit: the processor may keep what no write has changed since. */
  setClean(): void {
    this.words[F.cleanBits >> 2] = ALL_CLEAN;
  }
  setDirty(): void {
    this.words[F.cleanBits >> 2] = 0;
  }
}

/** What the root's registers hold: a 64-bit hypervisor's. */
const HOST = {
  cr0: 0x8005_0033n,
  /** PAE PGE OSFXSR OSXMMEXCPT. */
  cr4: 0x6a0n,
  /** SCE LME LMA NXE SVME. */
  efer: 0x1d01n,
} as const;

export class SvmCpu implements HvmCpu {
  current: SvmVcpu | undefined;
  readonly system: SystemFunctions;

  private constructor(readonly cpu: Cpu, readonly saveArea: number) {
    this.system = cpu.system;
  }

  /** Sets EFER.SVME, and the host save area to machine address `saveArea` (APM 2 15.4, 15.30.4). */
  static enable(cpu: Cpu, saveArea: number): SvmCpu {
    const control = cpu.get("vmCr");
    if (control & BigInt(VM_CR.SVMDIS)) {
      throw new Error(`SVM is disabled by the firmware: VM_CR is 0x${control.toString(16)}`);
    }
    for (const name of ["cr0", "cr4", "efer"] as const) cpu.set(name, HOST[name]);
    cpu.set("vmHsave", BigInt(saveArea));
    cpu.i32[V.hostedRoot >> 2] = 1;
    return new SvmCpu(cpu, saveArea);
  }

  disable(): void {
    this.unload();
    this.cpu.set("efer", HOST.efer & ~BigInt(EFER.SVME));
    this.cpu.set("vmHsave", 0n);
    this.cpu.i32[V.hostedRoot >> 2] = 0;
  }

  /** The check that the last refused VMRUN noted, with its operands filled in. */
  lastCheck(): { id: number; text: string } {
    const { u64, i32 } = this.cpu, id = i32[V.check >> 2];
    return { id, text: explain(id, u64[V.checkA >> 3], u64[V.checkB >> 3]) };
  }

  load(v: SvmVcpu): void {
    refuseInGuest(this.cpu);
    this.unload();
    SWITCHED.load(this.cpu, v.area);
    v.inVmcb();
    this.#newContext(v);
    this.current = v;
  }

  unload(): void {
    const v = this.current;
    if (!v) return;
    v.lazy(false);
    // As the next load does: what is saved does not tell whether the vCPU was looked at since.
    v.setDirty();
    v.flush();
    SWITCHED.store(this.cpu, v.area);
    this.current = undefined;
  }

  /** After state came from outside. */
  refresh(current: SvmVcpu | undefined): void {
    this.cpu.i32[V.hostedRoot >> 2] = 1;
    this.cpu.i32[SVMC.contextValid >> 2] = 0;
    this.current = current;
    if (!current) return;
    current.inVmcb();
    this.#newContext(current);
  }

  /** All vCPUs share an address-space identifier, and the processor may know another's VMCB. */
  #newContext(v: SvmVcpu): void {
    this.cpu.set("vmcb", BigInt(v.control));
    v.setDirty();
    v.flush();
  }
}

/** A guest in a VMCB and a host played by the test, for the tests of this folder. */
import { INTERCEPT1, INTERCEPT2, vmcbField } from "../../abi/x86/vmcb.ts";
import { checkById } from "../checks.ts";
import { Cpuid } from "../cpuid.ts";
import type { RunStop } from "../run.ts";
import { assemble } from "../isa/encode.ts";
import { Machine } from "../machine.ts";
import { ABORT, CPU, V } from "../state.ts";
import { STATUS } from "./entry.ts";
import { STUB, SVMC } from "./layout.ts";

/** Machine addresses of the test's structures; all below 1 MiB, guest code above. */
export const PLACE = {
  vmcb: 0x2000,
  hsave: 0x3000,
  iopm: 0x4000,
  msrpm: 0x8000,
  area: 0xa000,
  gdt: 0xb000,
  idt: 0xc000,
  stack: 0xf000,
  tss: 0x1_0000,
  nested: 0x2_0000,
  tables: 0x3_0000,
  code: 0x10_0000,
  data: 0x11_0000,
} as const;

/** A 64-bit host with SVM on. */
export const HOST = { cr0: 0x8005_0033n, cr4: 0x6a0n, efer: 0x1d01n };

const flat = (name: string, selector: number, attributes: number) => ({
  [`${name}Selector`]: selector,
  [`${name}Attributes`]: attributes,
  [`${name}Limit`]: 0xffff_ffff,
});

/** Fields of a guest in flat 32-bit protected mode that can be entered. */
const GUEST: Readonly<Record<string, bigint | number>> = {
  intercepts1: INTERCEPT1.intr | INTERCEPT1.nmi | INTERCEPT1.shutdown,
  intercepts2: INTERCEPT2.vmrun,
  iopmBase: PLACE.iopm,
  msrpmBase: PLACE.msrpm,
  asid: 1,
  virtualInterrupt: 1 << 24,
  efer: 0x1000,
  cr0: 0x11,
  dr6: 0xffff_0ff0,
  dr7: 0x400,
  rflags: 2,
  rip: PLACE.code,
  rsp: PLACE.stack,
  pat: 0x0007_0406_0007_0406n,
  ...flat("cs", 8, 0xc9b),
  ...flat("ss", 16, 0xc93),
  ...flat("ds", 16, 0xc93),
  ...flat("es", 16, 0xc93),
  ...flat("fs", 16, 0xc93),
  ...flat("gs", 16, 0xc93),
  ...flat("tr", 24, 0x8b),
  gdtrBase: PLACE.gdt,
  gdtrLimit: 0x3f,
  idtrBase: PLACE.idt,
  idtrLimit: 0x7ff,
  trBase: PLACE.tss,
  trLimit: 0x67,
};

/** Fields of a guest in 64-bit mode; see {@linkcode Bench.longTables}. */
export const LONG: Readonly<Record<string, bigint | number>> = {
  efer: 0x1100,
  cr0: 0x8000_0011,
  cr4: 0x20,
  cr3: PLACE.tables,
  csAttributes: 0xa9b,
};

export type Fields = Readonly<Record<string, bigint | number>>;

export class Bench {
  readonly machine = new Machine({ memory: 4 << 20, cpu: "amd" });
  readonly cpu = this.machine.cpu;
  readonly view = new DataView(this.machine.ram.buffer);
  /** What the last entry gave. */
  status = 0;
  readonly cpuid = new Cpuid("amd");

  constructor() {
    this.cpu.hooks.cpuid = this.cpuid.install(this.cpu.i32);
    this.cpu.hooks.msr = () => false;
    this.reset();
  }

  reset(fields: Fields = {}): void {
    const { cpu } = this;
    cpu.reset();
    cpu.setAll(HOST);
    cpu.set("vmHsave", BigInt(PLACE.hsave));
    cpu.i32[V.hostedRoot >> 2] = 1;
    cpu.i32[SVMC.contextValid >> 2] = 0;
    this.machine.write(0x1000, new Uint8Array(0x4_0000));
    this.machine.write(PLACE.data, new Uint8Array(0x2000));
    [0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn].forEach((d, n) =>
      this.view.setBigUint64(PLACE.gdt + 8 * n, d, true)
    );
    // No permission bits for ports.
    this.view.setUint16(PLACE.tss + 0x66, 0x68, true);
    for (const [name, value] of Object.entries({ ...GUEST, ...fields })) this.write(name, value);
  }

  write(name: string, value: bigint | number): void {
    const { offset, bits } = vmcbField(name);
    const v = BigInt.asUintN(64, BigInt(value));
    if (bits === 8) this.view.setUint8(offset + PLACE.vmcb, Number(v & 0xffn));
    else if (bits === 16) this.view.setUint16(offset + PLACE.vmcb, Number(v & 0xffffn), true);
    else if (bits === 32) this.view.setUint32(offset + PLACE.vmcb, Number(v & 0xffff_ffffn), true);
    else this.view.setBigUint64(offset + PLACE.vmcb, v, true);
  }
  read(name: string): bigint {
    const { offset, bits } = vmcbField(name), at = offset + PLACE.vmcb;
    if (bits === 8) return BigInt(this.view.getUint8(at));
    if (bits === 16) return BigInt(this.view.getUint16(at, true));
    if (bits === 32) return BigInt(this.view.getUint32(at, true));
    return this.view.getBigUint64(at, true);
  }
  /** Sets bits of a field. */
  set(name: string, bits: number): void {
    this.write(name, this.read(name) | BigInt(bits >>> 0));
  }

  /** General register `n` of the guest, in the save area. */
  gpr(n: number): bigint {
    return this.view.getBigUint64(PLACE.area + 8 * n, true);
  }
  setGpr(n: number, value: bigint | number): void {
    this.view.setBigUint64(PLACE.area + 8 * n, BigInt.asUintN(64, BigInt(value)), true);
  }

  load(source: string, mode: 16 | 32 | 64 = 32, at: number = PLACE.code): Map<string, bigint> {
    const { bytes, symbols } = assemble(`org ${at}\nbits ${mode}\n${source}`, { mode });
    this.machine.write(at, bytes);
    return symbols as Map<string, bigint>;
  }

  /** An interrupt gate of the guest. */
  gate(vector: number, handler: bigint | number): void {
    const h = BigInt(handler);
    const low = h & 0xffffn | 8n << 16n | 0x8e00n << 32n | (h >> 16n) << 48n;
    this.view.setBigUint64(PLACE.idt + 8 * vector, low, true);
  }

  /** VMLOAD, VMRUN, at most `budget` instructions, #VMEXIT, VMSAVE; gives the exit code, signed. */
  enter(budget = 100): number {
    const { cpu } = this, { system } = cpu;
    system.vmload(PLACE.vmcb, 0);
    this.status = system.enterGuest(PLACE.area, PLACE.vmcb);
    if (this.status === STATUS.protection) throw new Error(`VMRUN: #GP by ${this.check}`);
    if (this.status === STATUS.left) return this.exit(STUB.code);
    cpu.hooks.boundary = () => this.#boundary();
    const stop = cpu.run(budget);
    cpu.hooks.boundary = undefined;
    if (stop !== "exit") system.interruptExit(-1);
    system.leaveGuest(PLACE.area);
    system.vmsave(PLACE.vmcb, 0);
    return this.exit(STUB.code);
  }
  #boundary(): RunStop | undefined {
    const { cpu } = this, { system } = cpu;
    if (cpu.i32[V.abort >> 2] === ABORT.exit) return "exit";
    if (system.svmBoundary() === 1) return "exit";
    if (cpu.i32[CPU.pendingNmi >> 2] && system.nmiExit()) return "exit";
    if (!cpu.interruptPending() || !system.interruptMode()) return undefined;
    system.interruptExit(-1);
    return "exit";
  }

  /** A word of STUB. */
  exit(word: number): number {
    return this.cpu.i32[(SVMC.stub + word) >> 2];
  }
  /** Name of the last check noted. */
  get check(): string {
    return checkById(this.cpu.i32[V.check >> 2]).name;
  }

  /** Tables of a guest in long mode: the first 2 MiB one to one. */
  longTables(): void {
    const { view } = this, t = PLACE.tables;
    view.setBigUint64(t, BigInt(t + 0x1000) | 3n, true);
    view.setBigUint64(t + 0x1000, BigInt(t + 0x2000) | 3n, true);
    view.setBigUint64(t + 0x2000, 0x83n, true);
    this.cpu.flushTlb();
  }

  /** Nested tables for a long-mode host that map guest-physical 0 to 2 MiB one to one, writable by users. */
  identityNested(): void {
    const at = PLACE.nested;
    this.view.setBigUint64(at, BigInt(at + 0x1000) | 7n, true);
    this.view.setBigUint64(at + 0x1000, BigInt(at + 0x2000) | 7n, true);
    this.view.setBigUint64(at + 0x2000, BigInt(at + 0x3000) | 7n, true);
    for (let n = 0; n < 512; n++) {
      this.view.setBigUint64(at + 0x3000 + 8 * n, BigInt(n << 12) | 7n, true);
    }
    this.cpu.flushTlb();
    this.write("nestedControl", 1);
    this.write("nestedCr3", at);
  }
  /** Address of the nested entry of a page. */
  nestedEntry(gpa: number): number {
    return PLACE.nested + 0x3000 + 8 * (gpa >>> 12);
  }
}

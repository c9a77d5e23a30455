/**
 * The machine that the oracle judges. It is set up here and nowhere else, so that the oracle itself
 * names nothing of the product.
 *
 * One machine serves all cases. The windows lie in its memory in the background's order; user pages
 * map them where `state.ts` says, one supervisor page holds GDT, LDT and TSS. 64-bit code runs under
 * 4-level paging; 32- and 16-bit code too (compatibility mode, as on the host), or under PAE paging
 * with IA-32e mode off.
 */
import { CPU, pdpte, SEGMENT_SIZE, SEGMENTS, V } from "../../src/machine/state.ts";
import { Machine } from "../../src/machine/machine.ts";
import {
  type Case,
  type CpuState,
  CS,
  descriptor,
  type Exception,
  FS,
  FX,
  GDT,
  Ground,
  GROUND_SIZE,
  GS,
  LDT,
  type Mode,
  type Result,
  SS,
  type Subject,
  WINDOWS,
} from "./state.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";

/** How the machine runs the cases; what is absent is chosen by the case. */
export interface SubjectOptions {
  /** Whose processor it models: the one that it is held against ({@linkcode Oracle.vendor}). */
  cpu: CpuModel;
  /** Hot handlers for flat 32-bit code (true if absent). */
  hot?: boolean;
  /** 16- and 32-bit code with IA-32e mode off, under PAE paging. */
  legacy?: boolean;
}

/** Physical addresses. */
const PML4 = 0x1000, POINTERS = 0x2000, DIRECTORIES = 0x3000, TABLES = 0x7000;
const SYSTEM = 0x20000, GROUND = 0x40000, MEMORY = 0x80000;
/** Linear address of the supervisor page, and where things lie in it. */
const SYSTEM_LINEAR = 0xc1a5_7000, AT_LDT = 0x100, AT_TSS = 0x200, AT_IDT = 0x400;
/** Kernel stack, and the address its handlers seem to have; nothing is executed there. */
const STACK_TOP = SYSTEM_LINEAR + 0xff0, HANDLERS = SYSTEM_LINEAR + 0xe00;

const P = 1n, RW = 2n, US = 4n, A = 0x20n, D = 0x40n, NX = 1n << 63n;
const RIGHTS = { rx: P | US | A, rw: P | RW | US | A | D | NX, r: P | US | A | NX };
const LMA = 0x500n, NXE = 0x800n;
/** Vectors that push an error code. */
const WITH_ERROR = [8, 10, 11, 12, 13, 14, 17];
const NULL_SEGMENT = 0x1_0000;

/** Opens the machine under test. XVM_ORACLE=cold,legacy (either or both) chooses how it runs. */
export function openSubject(options: SubjectOptions): Promise<Subject> {
  const words = (Deno.env.get("XVM_ORACLE") ?? "").split(",").filter((w) => w !== "");
  const unknown = words.find((w) => w !== "cold" && w !== "legacy");
  if (unknown) throw new Error(`XVM_ORACLE: "${unknown}" is not one of cold, legacy`);
  const given = { hot: !words.includes("cold"), legacy: words.includes("legacy") };
  return Promise.resolve(new XvmSubject({ ...given, ...options }));
}

/** xvm's tier 0 as a subject. */
export class XvmSubject implements Subject {
  readonly name: string;
  readonly modes: readonly Mode[] = [16, 32, 64];
  readonly machine: Machine;
  readonly #ground: Ground;
  readonly #fx: Uint8Array;
  #long: boolean | undefined;
  #stopped = false;

  constructor(readonly options: SubjectOptions) {
    this.machine = new Machine({ memory: MEMORY, cpu: options.cpu });
    const { cpu, ram } = this.machine;
    this.name = `xvm tier 0, ${options.cpu}${options.hot === false ? ", cold handlers" : ""}`;
    cpu.hot = options.hot ?? true;
    cpu.hooks.fault = () => this.#stopped = true;
    this.#ground = new Ground(ram.subarray(GROUND, GROUND + GROUND_SIZE));
    this.#fx = cpu.u8;
    this.#writeTables();
    this.#writePages();
  }

  run(test: Case): Result {
    const { cpu } = this.machine;
    this.#ground.apply(test);
    // Patches and restored bytes come past the machine's door.
    cpu.predecoder.invalidate(GROUND >> 12);
    this.#load(test);
    this.#stopped = false;
    try {
      const stop = cpu.run(test.steps ?? 1);
      const expected = this.#stopped ? ["fault", "stopped"] : ["budget"];
      if (!expected.includes(stop)) throw new Error(`it stopped by ${stop}`);
    } catch (error) {
      this.#ground.collect();
      throw error;
    }
    const state = this.#store(test.mode);
    const result: Result = { state, memory: this.#ground.collect() };
    if ((state.selectors[CS] & 3) === 0) result.exception = this.#trapped(result);
    else if (this.#stopped) result.exception = this.#exception();
    return result;
  }

  /** INT has delivered something by itself: what was interrupted lies on the kernel's stack. */
  #trapped({ state }: Result): Exception {
    const view = new DataView(this.machine.ram.buffer, SYSTEM, 0x1000);
    const size = this.#long ? 8 : 4;
    const vector = Number(state.rip) - HANDLERS, hasError = WITH_ERROR.includes(vector);
    const frame = Number(state.gpr[4] - BigInt(SYSTEM_LINEAR));
    const at = hasError ? frame + size : frame;
    const [rip, cs, rflags, rsp, ss] = [0, 1, 2, 3, 4].map((n) =>
      view.getBigUint64(at + size * n, true) & (this.#long ? ~0n : 0xffff_ffffn)
    );
    state.rip = rip;
    state.gpr[4] = rsp;
    state.rflags = Number(rflags) & ~0x1_0000;
    state.selectors[CS] = Number(cs);
    state.selectors[SS] = Number(ss);
    return { vector, error: hasError ? view.getUint32(frame, true) : 0 };
  }

  #exception(): Exception {
    const { i32, u64 } = this.machine.cpu;
    const vector = i32[V.vector >> 2];
    const error = i32[V.hasError >> 2] ? i32[V.errorCode >> 2] : 0;
    if (vector !== 14) return { vector, error };
    const address = u64[V.faultAddress >> 3];
    // Linux reports every user access to its own half as a protection violation.
    return { vector, error: address >= 0x7fff_ffff_f000n ? error | 1 : error, address };
  }

  #writeTables(): void {
    const view = new DataView(this.machine.ram.buffer, SYSTEM, 0x1000);
    GDT.forEach((d, n) => view.setBigUint64(8 * n, d, true));
    // TSS and LDT of 64-bit mode; their upper halves, bases 63:32, are zero.
    view.setBigUint64(0x40, systemDescriptor(SYSTEM_LINEAR + AT_TSS, 0x67, 0x8b), true);
    view.setBigUint64(0x50, systemDescriptor(SYSTEM_LINEAR + AT_LDT, 0x3f, 0x82), true);
    LDT.forEach((s, n) => view.setBigUint64(AT_LDT + 8 * n, descriptor(s), true));
    view.setUint16(AT_TSS + 0x66, 0x68, true); // no I/O permission bitmap
  }

  /** Stack of the kernel and gates of #BP and #OF, as IA-32e or protected mode has them. */
  #writeGates(long: boolean): void {
    const view = new DataView(this.machine.ram.buffer, SYSTEM, 0x1000);
    view.setBigUint64(AT_TSS + 4, BigInt(STACK_TOP) | (long ? 0n : 0x18n << 32n), true);
    for (let vector = 0; vector < 32; vector++) {
      const at = AT_IDT + vector * (long ? 16 : 8), handler = HANDLERS + vector;
      const rights = vector === 3 || vector === 4 ? 0xee00 : 0x8e00;
      view.setUint32(at, (long ? 0x10 : 0x08) << 16 | handler & 0xffff, true);
      view.setUint32(at + 4, handler & 0xffff_0000 | rights, true);
    }
  }

  /** One set of page directories for PAE and 4-level paging; tables above them differ. */
  #writePages(): void {
    const tables = new BigUint64Array(this.machine.ram.buffer, 0, GROUND >> 3);
    tables[PML4 >> 3] = BigInt(POINTERS) | P | RW | US | A;
    for (let n = 0; n < 4; n++) {
      const directory = BigInt(DIRECTORIES + n * 0x1000);
      tables[(POINTERS >> 3) + n] = directory | P | RW | US | A;
      this.machine.cpu.u64[pdpte(n) >> 3] = directory | P;
    }
    let next = TABLES;
    const map = (linear: number, physical: number, rights: bigint) => {
      const slot = (DIRECTORIES >> 3) + (linear >>> 21);
      if (!tables[slot]) {
        tables[slot] = BigInt(next) | P | RW | US | A;
        next += 0x1000;
      }
      const table = Number(tables[slot] & 0xffff_f000n) >> 3;
      tables[table + (linear >>> 12 & 511)] = BigInt(physical) | rights;
    };
    for (const w of WINDOWS) {
      for (let at = 0; at < w.size; at += 0x1000) {
        map(w.address + at, GROUND + w.offset + at, RIGHTS[w.access]);
      }
    }
    map(SYSTEM_LINEAR, SYSTEM, P | RW | A | D);
    if (next > SYSTEM) throw new Error("the page tables have outgrown their place");
  }

  /** Paging and system registers of IA-32e or legacy mode. */
  #enter(long: boolean): void {
    const { cpu } = this.machine;
    this.#long = long;
    cpu.set("cr0", 0x8005_0033n); // PG, AM, WP, NE, ET, MP, PE
    cpu.set("cr4", 0x1_0620n); // FSGSBASE, OSXMMEXCPT, OSFXSR, PAE
    cpu.set("efer", long ? LMA | NXE | 1n : NXE);
    cpu.set("cr3", BigInt(long ? PML4 : POINTERS));
    cpu.set("gdtr.base", BigInt(SYSTEM_LINEAR));
    cpu.set("gdtr.limit", 0x7fn);
    cpu.set("idtr.base", BigInt(SYSTEM_LINEAR + AT_IDT));
    cpu.set("idtr.limit", long ? 0x1ffn : 0xffn);
    this.#writeGates(long);
    const system = { limit: 0x3f, base: BigInt(SYSTEM_LINEAR + AT_LDT) };
    cpu.setSegment(6, { selector: 0x50, attributes: 0x82, ...system });
    cpu.setSegment(7, {
      selector: 0x40,
      base: BigInt(SYSTEM_LINEAR + AT_TSS),
      limit: 0x67,
      attributes: 0x8b,
    });
    cpu.flushTlb();
  }

  #load({ mode, state }: Case): void {
    const { cpu } = this.machine;
    const long = mode === 64 || !this.options.legacy;
    if (long !== this.#long) this.#enter(long);
    cpu.u64.set(state.gpr, CPU.rax >> 3);
    cpu.u64[CPU.rip >> 3] = state.rip;
    cpu.u64[CPU.rflags >> 3] = BigInt(state.rflags);
    cpu.i32[CPU.flagOp >> 2] = 0;
    cpu.i32[CPU.activity >> 2] = cpu.i32[CPU.interruptibility >> 2] = 0;
    cpu.i32[CPU.pendingDebug >> 2] = 0;
    cpu.i32[V.abort >> 2] = 0;
    for (let n = 0; n < 6; n++) this.#loadSegment(n, state.selectors[n]);
    cpu.u64[CPU["fs.base"] >> 3] = state.fsBase;
    cpu.u64[CPU["gs.base"] >> 3] = state.gsBase;
    this.#loadFloat(state.fx);
  }

  /** A segment register from its descriptor, as any load leaves it. */
  #loadSegment(n: number, selector: number): void {
    const { i32 } = this.machine.cpu;
    const place = (CPU["es.base"] + SEGMENT_SIZE * n) >> 2;
    let low = 0, high = 0;
    const null_ = (selector & ~3) === 0;
    if (!null_) {
      const table = (selector & 4 ? SYSTEM + AT_LDT : SYSTEM) + (selector & ~7);
      const words = this.#tableWords;
      low = words[table >> 2];
      high = words[(table >> 2) + 1];
    }
    const limit = (low & 0xffff) | (high & 0xf_0000);
    i32[place] = (low >>> 16) | ((high & 0xff) << 16) | (high & 0xff00_0000);
    i32[place + 1] = 0;
    i32[place + 2] = high & 0x80_0000 ? (limit << 12) | 0xfff : limit;
    i32[place + 3] = null_ ? NULL_SEGMENT : (high >>> 8) & 0xf0ff;
    i32[place + 4] = selector;
    if (n === SS && null_) throw new Error("a null SS at CPL 3");
    if (n === CS && null_) throw new Error("a null CS");
  }

  get #tableWords(): Int32Array {
    return this.#words ??= new Int32Array(this.machine.ram.buffer);
  }
  #words: Int32Array | undefined;

  /** From an FXSAVE64 image: ST(i) is physical register TOP + i, tags are of physical registers. */
  #loadFloat(fx: Uint8Array): void {
    const { cpu } = this.machine;
    const { u16, i32 } = cpu;
    const image = new DataView(fx.buffer, fx.byteOffset);
    const status = image.getUint16(FX.fsw, true), top = status >> 11 & 7;
    let tags = 0;
    for (let n = 0; n < 8; n++) {
      const from = FX.st + 16 * n, physical = (top + n) & 7;
      cpu.u8.set(fx.subarray(from, from + 10), CPU.fpr0 + 16 * physical);
      if (!(fx[FX.ftw] >> physical & 1)) tags |= 3 << 2 * physical;
      else tags |= tagOf(image, from) << 2 * physical;
    }
    cpu.u8.set(fx.subarray(FX.xmm, FX.end), CPU.xmm0);
    i32[CPU.fcw >> 2] = image.getUint16(FX.fcw, true);
    i32[CPU.fsw >> 2] = status;
    i32[CPU.ftw >> 2] = tags;
    i32[CPU.fop >> 2] = image.getUint16(FX.fop, true);
    cpu.u8.set(fx.subarray(FX.fip, FX.fip + 8), CPU.fip);
    cpu.u8.set(fx.subarray(FX.fdp, FX.fdp + 8), CPU.fdp);
    i32[CPU.fcs >> 2] = i32[CPU.fds >> 2] = 0;
    i32[CPU.mxcsr >> 2] = image.getInt32(FX.mxcsr, true);
    u16[(CPU.fpr0 + 10) >> 1] = 0;
  }

  #storeFloat(): Uint8Array {
    const { u8, i32 } = this.machine.cpu;
    const fx = new Uint8Array(FX.size), image = new DataView(fx.buffer);
    const status = i32[CPU.fsw >> 2], top = status >> 11 & 7, tags = i32[CPU.ftw >> 2];
    image.setUint16(FX.fcw, i32[CPU.fcw >> 2], true);
    image.setUint16(FX.fsw, status, true);
    for (let n = 0; n < 8; n++) {
      const from = CPU.fpr0 + 16 * ((top + n) & 7);
      for (let i = 0; i < 10; i++) fx[FX.st + 16 * n + i] = u8[from + i];
      if ((tags >> 2 * n & 3) !== 3) fx[FX.ftw] |= 1 << n;
    }
    // What the kernel's XSAVE finds on AMD's: nothing unless an exception is pending.
    if (this.options.cpu === "intel" || status & 0x80) {
      image.setUint16(FX.fop, i32[CPU.fop >> 2], true);
      fx.set(u8.subarray(CPU.fip, CPU.fip + 8), FX.fip);
      fx.set(u8.subarray(CPU.fdp, CPU.fdp + 8), FX.fdp);
    }
    image.setInt32(FX.mxcsr, i32[CPU.mxcsr >> 2], true);
    fx.set(u8.subarray(CPU.xmm0, CPU.xmm0 + 256), FX.xmm);
    return fx;
  }

  #store(mode: Mode): CpuState {
    const { cpu } = this.machine;
    const { u64, i32 } = cpu;
    cpu.system.materialize();
    const selectors = new Uint16Array(6);
    for (let n = 0; n < 6; n++) {
      const selector = i32[CPU[`${SEGMENTS[n]}.selector`] >> 2];
      // The way back to user mode makes 0 of the other null selectors (SDM 3 5.8.1, IRET).
      selectors[n] = selector & ~3 ? selector : 0;
    }
    const base = (n: number) => mode === 64 ? u64[CPU[`${SEGMENTS[n]}.base`] >> 3] : 0n;
    return {
      gpr: u64.slice(CPU.rax >> 3, (CPU.rax >> 3) + 16),
      rip: u64[CPU.rip >> 3],
      rflags: i32[CPU.rflags >> 2] & ~0x1_0000,
      selectors,
      fsBase: base(FS),
      gsBase: base(GS),
      fx: this.#storeFloat(),
    };
  }
}

/** Tag of an 80-bit register that is not empty: 0 valid, 1 zero, 2 special (SDM 1 8.1.7). */
function tagOf(image: DataView, at: number): number {
  const exponent = image.getUint16(at + 8, true) & 0x7fff;
  const low = image.getUint32(at, true), high = image.getUint32(at + 4, true);
  if (exponent === 0) return low | high ? 2 : 1;
  return exponent === 0x7fff || high < 0x8000_0000 ? 2 : 0;
}

function systemDescriptor(base: number, limit: number, access: number): bigint {
  const b = BigInt(base);
  return BigInt(limit) | (b & 0xffffffn) << 16n | BigInt(access) << 40n | b >> 24n << 56n;
}

/** One processor: its memory 0, its Wasm instances, and how to run it. */
import { FLOAT_RESET } from "../abi/x86/float.ts";
import { DebugBreakpoints } from "./breakpoints.ts";
import { PerformanceCounters } from "./counters.ts";
import type { Machine } from "./machine.ts";
import {
  ABORT,
  ACCESS,
  ARCHITECTURAL_END,
  ARCHITECTURAL_START,
  CODE_MODE,
  CPU,
  CPU_MEMORY_PAGES,
  type CpuCell,
  EMULATED,
  FRAME,
  frameMarks,
  PREFIX,
  REC,
  SEGMENT,
  segment,
  TLB,
  V,
} from "./state.ts";
import { DECODE_AS } from "./isa/decode.ts";
import { type HostFunctions, SERVICE, SHOOTDOWN } from "./linkage.ts";
import { type Form, formName } from "./isa/semantics/meaning.ts";
import { groupOf } from "./interpreter/groups.ts";
import { GUEST } from "./interpreter/guest.ts";
import { groupModule, interpreter, systemModule } from "./interpreter/modules.ts";
import { type CpuModel, isAmd } from "./vendors.ts";
import { isForeign } from "./virtualization.ts";
import { SVMC } from "./svm/layout.ts";
import { type Mode, Predecoder } from "./interpreter/predecode.ts";
import { type InterpreterKind, STOPPED } from "./interpreter/hot.ts";

type WasmFunction = (...args: (number | bigint)[]) => number;
/** Functions of module S, by name. */
export type SystemFunctions = Readonly<Record<string, WasmFunction>>;

/** Why {@linkcode Cpu.run} returned. */
export type RunStop =
  /** The budget is used up. */
  | "budget"
  /** HLT with nothing to deliver. */
  | "halt"
  /** Shutdown after a triple fault. */
  | "shutdown"
  /** A VM exit: the control structure says the rest. */
  | "exit"
  | "breakpoint"
  /** Watched memory was accessed: by the instruction just executed, or by an event's delivery. */
  | "watch"
  /** The hypervisor's log has no answer yet. */
  | "unanswered"
  /** An exception that {@linkcode CpuHooks.fault} kept from being delivered. */
  | "fault"
  /** Somebody asked for it through {@linkcode Cpu.stop}. */
  | "stopped";

const TF = 0x100, IF = 0x200, RF = 0x1_0000;
/** Of DEBUGCTL. */
const BTF = 2;
/**
 * Most instructions in one call of the interpreter. What they cost at worst bounds how late the host
 * has its turn ({@linkcode Machine.due}); what is dearer than a walk of nested tables returns by itself.
 */
const CHUNK = 65_536;
/** Exceptions in a row with no instruction between them, after which time passes and `run` returns. */
const LIVELOCK = 1000;

/** Who watches what the processor executes. */
export interface CpuObserver {
  /**
   * An access while watches are armed; `delivery` is the processor's own, of an event. True: `run`
   * returns "watch" once the instruction or the delivery is done. Where it goes on in another page,
   * that one lies at `next`.
   */
  watch(
    linear: number,
    linearHigh: number,
    physical: number,
    bytes: number,
    access: number,
    delivery: boolean,
    next: number,
  ): boolean;
  /** What made the accesses that `watch` saw was given up: they will come again or not at all. */
  givenUp(): void;
  watchesPage(linear: number, linearHigh: number, frame: number): boolean;
  /** Whether a run is to stop before the instruction at a linear address. */
  hasBreakpoint(low: number, high: number): boolean;
  /** The same of any address with that offset in its page: records do not know where that is mapped. */
  hasBreakpointAt(offset: number): boolean;
  /** It has watches. */
  readonly watches: boolean;
  /** Before anything is delivered: whether the run is over, as something was. */
  isOver(): boolean;
}

/** Hooks of the virtualization extensions and of the platform; absent ones cost nothing. */
export interface CpuHooks {
  cpuid?(): void;
  msr?(number: number, write: boolean): boolean;
  service?(number: number, argument: number): number;
  /** An access of an emulated instruction to an address the nested paging does not map. */
  emulatedRead?(address: number, bytes: number): number | undefined;
  emulatedWrite?(address: number, bytes: number, value: number): boolean;
  /** A port access of an emulated instruction. Undefined or false: there is no answer yet. */
  emulatedIoRead?(port: number, bytes: number): number | undefined;
  emulatedIoWrite?(port: number, bytes: number, value: number): boolean;
  /**
   * Whether the next iteration of an emulated INS or OUTS may follow without the guest being entered
   * and leaving for it: then nobody can tell.
   */
  emulatedIoRepeats?(): boolean;
  /** Before anything is delivered in non-root operation; "exit" if that became a VM exit. */
  boundary?(): RunStop | undefined;
  /** A performance counter that is to interrupt has overflowed. */
  counterOverflow?(): void;
  /**
   * An exception was raised (`lastFault`): true stops the run before it is delivered ("fault"), or
   * behind that ("stopped") where it came of the delivery of an INT n.
   */
  fault?(): boolean;
}

export class Cpu {
  readonly memory: WebAssembly.Memory;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly i64: BigInt64Array;
  readonly u64: BigUint64Array;
  readonly system: SystemFunctions;
  readonly predecoder: Predecoder;
  readonly hooks: CpuHooks = {};
  /** Who watches, in the order that they are asked. */
  readonly observers: CpuObserver[] = [];
  /** Use the hot handlers where code is flat; off, all code takes the general way (for tests). */
  hot = true;
  /** Instructions retired since the machine was made. */
  count = 0;
  /** Nanoseconds skipped while idle: time is `count` plus this (one instruction takes 1 ns). */
  idle = 0;
  /** Exceptions in a row without an instruction between them. */
  fruitless = 0;
  #stop = false;
  readonly #table: WebAssembly.Table;
  #tableNext = 1;
  readonly #cold = new Map<string, number>();
  readonly #groups = new Map<string, WebAssembly.Exports>();
  /** By mode: the interpreter, and its place in the table. */
  readonly #interpreters: { run: WasmFunction; index: number }[] = [];
  readonly #imports: WebAssembly.Imports;
  #slice = 0;
  readonly #debug: DebugBreakpoints;
  readonly #counters: PerformanceCounters;
  /** Data breakpoints met by what is under way: their trap comes when it is done. */
  #trapped = 0;
  /** How it reads the bytes of instructions: bits of DECODE_AS. */
  readonly decodeAs: number;
  /** Watched memory was accessed by what is under way. */
  #watched = false;
  /** With TF only branches trap: DEBUGCTL.BTF (SDM 3 17.4.3, APM 2 13.1.1). */
  #toBranch = false;
  /** The next instruction could not be fetched: V.abort says why. */
  #unfetched = false;
  /** RF, if that was set for what is under way after the run began. */
  #resumes = 0;
  /** The instruction whose breakpoint was reported last: given up and run again it is the same one. */
  #passed = { rip: -1n, count: -1 };

  /** Its bits in the flags of a frame. */
  readonly marks: { readonly write: number; readonly table: number };

  constructor(readonly machine: Machine, readonly model: CpuModel, readonly id = 0) {
    this.marks = frameMarks(id);
    this.memory = new WebAssembly.Memory({ initial: CPU_MEMORY_PAGES, maximum: CPU_MEMORY_PAGES });
    const buffer = this.memory.buffer as ArrayBuffer;
    this.decodeAs = model === "amd" ? DECODE_AS.amd : 0;
    this.#debug = new DebugBreakpoints(buffer);
    this.#counters = new PerformanceCounters(this);
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.i64 = new BigInt64Array(buffer);
    this.u64 = new BigUint64Array(buffer);
    this.#table = new WebAssembly.Table({ element: "anyfunc", initial: 16384 });
    this.#imports = {
      machine: {
        cpu: this.memory,
        ram: machine.memory,
        frames: machine.frames,
        cold: this.#table,
      },
      host: this.#hostFunctions(),
    };
    const instance = new WebAssembly.Instance(systemModule(model), this.#imports);
    this.system = instance.exports as unknown as SystemFunctions;
    this.#imports.system = instance.exports as WebAssembly.ModuleImports;
    const s = this.system;
    this.predecoder = new Predecoder(buffer, machine.ram, machine.frames.buffer as ArrayBuffer, {
      fetchFrame: (low, high) => s.fetchFrame(low, high),
      fetchDevice: (low, high) => s.fetchByte(low, high),
      dropWrites: (frame) => machine.dropWrites(frame),
      elsewhere: (frame) =>
        machine.cpus.some((other) => other !== this && other.predecoder.has(frame)),
      flushCodeTlb: () => this.#flushCodeTlb(),
      cold: (form) => this.coldFunction(form),
      coldSpecial: (name) => this.coldFunction(SPECIAL[name]),
      hasBreakpoint: (low, high) =>
        this.observers.some((o) => o.hasBreakpointAt(low & 4095)) ||
        (this.#debug.execute && this.#debug.match(low, high, 1) !== 0),
      get anyBreakpoint() {
        return true;
      },
      decodeAs: this.decodeAs,
    });
    this.u8.fill(0xff, TLB.start, TLB.start + TLB.classes * TLB.classSize);
    this.u64[V.ramSize >> 3] = BigInt(machine.size);
    this.i32[V.writeMark >> 2] = this.marks.write;
    this.i32[V.tableMark >> 2] = this.marks.table;
    this.u64[V.reservedHigh >> 3] = 0x000f_ffff_ffff_f000n & ~((1n << 36n) - 1n);
    this.i64[V.passing >> 3] = -1n;
    this.ways = model;
    this.reset();
  }

  /**
   * Whose ways instructions follow where the two vendors' differ. They are the model's, but while an
   * instruction of a guest is executed that believes itself on the other.
   */
  set ways(vendor: CpuModel) {
    this.i32[V.amd >> 2] = vendor === "amd" ? 1 : 0;
  }

  /** State after power-up or RESET (SDM 3 table 10-1). */
  reset(): void {
    this.u8.fill(0, ARCHITECTURAL_START, ARCHITECTURAL_END);
    this.set("rip", 0xfff0n);
    this.set("rflags", 2n);
    this.set("rdx", 0x600n);
    this.set("cr0", 0x6000_0010n);
    this.i32[CPU.a20Mask >> 2] = -1;
    for (let n = 0; n < 8; n++) {
      this.setSegment(n, {
        selector: 0,
        base: 0n,
        limit: 0xffff,
        attributes: n < 6 ? 0x93 : n === 6 ? 0x82 : 0x8b,
      });
    }
    this.setSegment(1, { selector: 0xf000, base: 0xffff_0000n, limit: 0xffff, attributes: 0x93 });
    this.set("gdtr.limit", 0xffffn);
    this.set("idtr.limit", 0xffffn);
    this.set("dr6", 0xffff_0ff0n);
    this.set("dr7", 0x400n);
    this.set("xcr0", 1n);
    this.set("pat", 0x0007_0406_0007_0406n);
    this.set("apicBase", 0xfee0_0900n);
    this.set("miscEnable", 1n);
    this.set("vmcsPointer", -1n);
    this.set("vmxonPointer", -1n);
    this.i32[CPU.gif >> 2] = 1;
    this.set("tscRatio", 1n << 32n);
    this.setFloat(FLOAT_RESET);
    this.flushTlb();
    this.system.refresh();
  }

  /** Control and tag words of x87, and MXCSR. */
  setFloat({ fcw, ftw, mxcsr }: { fcw: number; ftw: number; mxcsr: number }): void {
    this.i32[CPU.fcw >> 2] = fcw;
    this.i32[CPU.ftw >> 2] = ftw;
    this.i32[CPU.mxcsr >> 2] = mxcsr;
  }

  /** Its state, and memory's, came from outside: what was derived from another goes. */
  restored(): void {
    this.#stop = this.#watched = this.#unfetched = false;
    this.#trapped = 0;
    this.lastFault = this.raised = undefined;
    this.i32[V.abort >> 2] = ABORT.none;
    this.i32[V.emulating >> 2] = 0;
    this.passNone();
    this.system.vmxCurrent?.();
    this.predecoder.reset();
    this.flushTlb();
    this.system.refresh();
  }

  /** The A20M# pin: low (false), physical addresses have no bit 20 (SDM 3, 21.32.1). */
  set a20(open: boolean) {
    this.i32[CPU.a20Mask >> 2] = open ? -1 : ~(1 << 20);
    this.flushTlb();
    this.endSlice();
  }

  /** A 64-bit field of the architectural state, by its name in state.ts. */
  get(name: string): bigint {
    return this.u64[at(name) >> 3];
  }
  set(name: string, value: bigint): void {
    this.i64[at(name) >> 3] = BigInt.asIntN(64, value);
  }
  getSegment(n: number): { selector: number; base: bigint; limit: number; attributes: number } {
    const place = segment(n);
    return {
      selector: this.i32[(place + SEGMENT.selector) >> 2],
      base: this.u64[place >> 3],
      limit: this.i32[(place + SEGMENT.limit) >> 2] >>> 0,
      attributes: this.i32[(place + SEGMENT.attributes) >> 2],
    };
  }
  setSegment(
    n: number,
    s: { selector: number; base: bigint; limit: number; attributes: number },
  ): void {
    const place = segment(n);
    this.i32[(place + SEGMENT.selector) >> 2] = s.selector;
    this.u64[place >> 3] = s.base;
    this.i32[(place + SEGMENT.limit) >> 2] = s.limit;
    this.i32[(place + SEGMENT.attributes) >> 2] = s.attributes;
  }

  flushTlb(): void {
    this.i32[V.fills >> 2] = 1 << 20;
    this.system.flushTlb();
  }

  /** Makes {@linkcode Cpu.run} return "stopped" at the next slice boundary. */
  stop(): void {
    this.#stop = true;
  }

  /** Machine time in nanoseconds, exact even inside a device access. */
  get now(): number {
    return this.idle + this.count + (this.#slice ? this.#slice - this.i32[V.left >> 2] : 0);
  }

  /** Instructions retired, exact even inside a device access. */
  get counted(): number {
    return this.count + (this.#slice ? this.#slice - this.i32[V.left >> 2] : 0);
  }

  /** Lets time pass without instructions, as in HLT; devices that are due are run. */
  skipTo(time: number): void {
    if (time > this.now) this.idle += time - this.now;
    this.machine.bus.run(this.now);
  }

  /** A device changed what is due or pending: the slice ends with the instruction that runs. */
  endSlice(): void {
    if (!this.#slice) return;
    const { i32 } = this;
    const left = i32[V.left >> 2];
    this.#slice -= left;
    i32[V.slice >> 2] -= left;
    i32[V.left >> 2] = 0;
  }

  /** The breakpoint at an instruction pointer was reported: the next instruction there passes it. */
  passBreakpoint(rip: bigint): void {
    this.#passed = { rip, count: this.count };
  }
  /** Breakpoints are reported wherever they are met, from the next instruction on. */
  passNone(): void {
    this.#passed = { rip: -1n, count: -1 };
    this.i64[V.passing >> 3] = -1n;
  }

  /**
   * From here on, until {@linkcode Cpu.endEmulation}, what runs is one instruction for the hypervisor:
   * without intercepts, and with its accesses to what the nested paging does not map going to the
   * hooks. A guest has left in the middle of it, so its breakpoints are behind it.
   */
  beginEmulation(): void {
    this.i32[V.emulating >> 2] = 1;
    this.u64[V.passing >> 3] = this.u64[CPU.rip >> 3];
  }
  endEmulation(): void {
    this.i32[V.emulating >> 2] = 0;
    this.i64[V.passing >> 3] = -1n;
  }

  /** The NMI line is asserted. */
  raiseNmi(): void {
    this.i32[CPU.pendingNmi >> 2] = 1;
    this.endSlice();
  }

  #flushCodeTlb(): void {
    for (let c = 0; c < TLB.classes; c++) {
      const start = TLB.start + c * TLB.classSize + TLB.code;
      this.u8.fill(0xff, start, start + TLB.entries * TLB.entrySize);
    }
  }

  /** Table index of the cold function of a form; its group is compiled if need be. */
  coldFunction(form: Form): number {
    const name = formName(form);
    let index = this.#cold.get(name);
    if (index === undefined) {
      const own = groupOf(form.key), group = own && isForeign(own, this.model) ? undefined : own;
      const none = own ? SPECIAL.foreign : SPECIAL.unsupported;
      const key = group ? name : formName(none);
      const f = this.#group(group ?? "special")[key] as WasmFunction | undefined;
      if (!f) throw new Error(`no handler for the form ${name} in group ${group}`);
      index = this.#tableNext++;
      this.#table.set(index, f);
      this.#cold.set(name, index);
    }
    return index;
  }

  #group(name: string): WebAssembly.Exports {
    let exports = this.#groups.get(name);
    if (!exports) {
      exports = new WebAssembly.Instance(groupModule(name), this.#imports).exports;
      this.#groups.set(name, exports);
    }
    return exports;
  }

  #interpreter(mode: Mode): { run: WasmFunction; index: number } {
    return this.#interpreters[mode] ?? this.#makeInterpreter(mode);
  }
  #makeInterpreter(mode: Mode): { run: WasmFunction; index: number } {
    const kinds: Partial<Record<Mode, InterpreterKind>> = {
      [CODE_MODE.flat32]: "flat32",
      [CODE_MODE.flat64]: "flat64",
    };
    const kind = kinds[mode] ?? "general";
    const { exports } = new WebAssembly.Instance(interpreter(kind), this.#imports);
    const made = { run: exports.interpret as unknown as WasmFunction, index: this.#tableNext++ };
    this.#table.set(made.index, made.run);
    for (const each of Object.values(CODE_MODE)) {
      if ((kinds[each as Mode] ?? "general") === kind) this.#interpreters[each] = made;
    }
    return made;
  }

  #hostFunctions(): HostFunctions {
    const { machine } = this;
    const emulated = Number(EMULATED >> 32n);
    const address = (low: number, high: number) => (high >>> 0) * 2 ** 32 + (low >>> 0);
    return {
      mmioRead: (low, high, bytes) => {
        if (high & emulated) {
          return this.#answer(this.hooks.emulatedRead?.(address(low, high & ~emulated), bytes));
        }
        return machine.bus.mmioRead(address(low, high), bytes) | 0;
      },
      mmioWrite: (low, high, bytes, value) => {
        const unsigned = bytes === 4 ? value >>> 0 : value & (2 ** (8 * bytes) - 1);
        if (high & emulated) {
          const at = address(low, high & ~emulated);
          if (!this.hooks.emulatedWrite?.(at, bytes, unsigned)) this.#answer(undefined);
        } else machine.bus.mmioWrite(address(low, high), bytes, unsigned);
      },
      ioRead: (port, bytes) => {
        if (this.i32[V.emulating >> 2]) {
          return this.#answer(this.hooks.emulatedIoRead?.(port & 0xffff, bytes));
        }
        return machine.bus.ioRead(port & 0xffff, bytes) | 0;
      },
      ioWrite: (port, bytes, value) => {
        const unsigned = bytes === 4 ? value >>> 0 : value & (2 ** (8 * bytes) - 1);
        if (this.i32[V.emulating >> 2]) {
          if (!this.hooks.emulatedIoWrite?.(port & 0xffff, bytes, unsigned)) {
            this.#answer(undefined);
          }
        } else machine.bus.ioWrite(port & 0xffff, bytes, unsigned);
      },
      ioRepeats: () => this.#repeats() ? 1 : 0,
      codeWrite: (frame) => {
        for (const cpu of machine.cpus) cpu.predecoder.invalidate(frame);
      },
      shootdown: (entry, what) => {
        const frame = entry / FRAME.size;
        if (what === SHOOTDOWN.all) machine.shootdown(frame, this);
        else machine.dropWrites(frame, this);
      },
      derivedWrite: (address, bytes) => {
        for (const told of machine.onWrite) told(address >>> 0, bytes);
      },
      watch: (low, high, physical, bytes, access, next) =>
        this.#noteAccess(low, high, physical, bytes, access, next),
      watchesPage: (low, high, frame) =>
        this.observers.some((o) => o.watchesPage(low, high, frame)) ||
          this.#debug.inPage(low, high)
          ? 1
          : 0,
      predecode: (low, high) => {
        // Code that is written as it runs comes by here for each instruction.
        if (this.#hostDue()) {
          this.i32[V.abort >> 2] = ABORT.due;
          return 0;
        }
        const record = this.predecoder.predecode(low, high);
        this.#unfetched = record === 0;
        return record;
      },
      link: (record, low, high) => this.predecoder.link(record, low, high),
      crossing: (record) => this.predecoder.crossing(record),
      cpuid: () => {
        if (!this.hooks.cpuid) throw new Error("the processor has no CPUID table");
        this.hooks.cpuid();
      },
      msr: (number, write) => this.hooks.msr?.(number >>> 0, write !== 0) ? 0 : 1,
      service: (number, argument) => {
        if (number === SERVICE.counter) this.u64[V.value >> 3] = this.#counters.read(argument);
        else if (number === SERVICE.setCounter) {
          this.#counters.write(argument, this.u64[V.value >> 3]);
        } else return this.hooks.service?.(number, argument) ?? 0;
        return 0;
      },
    };
  }

  /** An answer for an emulated access; without one the instruction is given up and run again. */
  #answer(value: number | undefined): number {
    if (value === undefined) this.i32[V.abort >> 2] = ABORT.unanswered;
    return (value ?? 0) | 0;
  }

  /**
   * An emulated INS or OUTS has done an iteration: that is retired here, and the next one follows at
   * once, unless there is a trap in between, or something counts.
   */
  #repeats(): boolean {
    const { i32 } = this;
    const trap = i32[V.stepping >> 2] | i32[CPU.pendingDebug >> 2] | this.#trapped;
    if (trap || this.#watched || this.#counters.enabled) return false;
    if (!this.hooks.emulatedIoRepeats?.()) return false;
    this.count++;
    this.fruitless = 0;
    // Set between iterations; and kept by the exit that is left out, or not (SDM 3 28.3.3).
    if (this.model === "amd") this.#resumes = RF;
    return true;
  }

  /** The host wants its thread; an instruction that is being emulated is completed first. */
  #hostDue(): boolean {
    return this.i32[V.emulating >> 2] === 0 && this.machine.due();
  }

  /**
   * Runs at most `budget` instructions, and begins none at machine time `until` or later; says why it
   * stopped. `count` grows by exactly the number retired.
   */
  run(budget: number, until = Infinity): RunStop {
    const { i32 } = this;
    let left = budget;
    this.#stop = false;
    if (!i32[V.emulating >> 2]) this.i64[V.passing >> 3] = -1n;
    while (left > 0 && this.count + this.idle < until) {
      if (this.#stop || this.#hostDue()) return "stopped";
      const { bus } = this.machine;
      let due = bus.deadline() - this.count - this.idle;
      if (due <= 0) {
        bus.run(this.now);
        due = bus.deadline() - this.count - this.idle;
        if (due <= 0) {
          throw new Error(`a device is due at ${bus.deadline()} ns, and still after it ran`);
        }
      }
      if (this.#debug.changed()) this.#armDebug();
      this.system.refresh();
      const counting = this.#counters.enabled;
      if (counting) this.#counters.begin();
      const event = this.#watched ? "delivered" : this.#boundary();
      if (event === "delivered") {
        // An event that is injected was delivered before.
        const stop = this.#watchedDone() ?? this.#leftInDelivery() ??
          (this.#livelocked() ? "stopped" : undefined);
        if (counting) this.#counters.settle();
        if (stop) return stop;
        continue;
      }
      if (event) return event;
      const flags = i32[CPU.rflags >> 2];
      const shadow = i32[CPU.interruptibility >> 2] & 3;
      const recording = this.#recordsBranches;
      this.#toBranch = (flags & TF) !== 0 && (i32[CPU.debugctl >> 2] & BTF) !== 0;
      const single = shadow !== 0 || (flags & TF) !== 0 || recording;
      const most = counting ? this.#counters.most(CHUNK) : CHUNK;
      const slice = single ? 1 : Math.min(left, most, due);
      if (!this.hot) {
        if (i32[V.codeMode >> 2] === CODE_MODE.flat32) i32[V.codeMode >> 2] = CODE_MODE.code32;
        if (i32[V.codeMode >> 2] === CODE_MODE.flat64) i32[V.codeMode >> 2] = CODE_MODE.code64;
      }
      const mode = this.predecoder.mode = i32[V.codeMode >> 2] as Mode;
      if (recording || this.#toBranch) this.#beforeBranch();
      if (flags & RF) this.#resume();
      this.#begin(slice);
      i32[V.stepping >> 2] = flags & TF;
      const code = this.#interpreter(mode).run(slice);
      const before = this.count;
      const stop = this.#ran(code, shadow, flags);
      if (recording && this.count > before && this.#branched()) this.#recordBranch();
      if (counting) this.#counters.settle();
      left -= this.count - before;
      if (stop) return stop;
    }
    return "budget";
  }

  /** The interpreter came back: counts, and what it stopped for. Undefined: run on. */
  #ran(code: number, shadow: number, flags: number): RunStop | undefined {
    const { i32 } = this;
    let rest = i32[V.left >> 2];
    const delivered = i32[V.abort >> 2] === ABORT.delivered;
    if (code === STOPPED.abort || delivered) rest++;
    const done = this.#slice - rest;
    this.count += done;
    this.#slice = 0;
    const before = code === STOPPED.abort && this.#breakpointBeforeFetch();
    if (flags & RF) this.i64[V.passing >> 3] = -1n;
    if (done > 0) this.#afterInstructions(shadow);
    // The instruction that it was set for is still to come.
    else if ((flags | this.#resumes) & RF && !delivered) i32[CPU.rflags >> 2] |= RF;
    this.#resumes = 0;
    if (code === STOPPED.breakpoint || before) return this.#atBreakpoint();
    if (done > 0) this.fruitless = 0;
    if (code !== STOPPED.abort && !delivered) return this.#watchedDone();
    if (!delivered) this.#givenUp();
    const stop = this.#aborted() ?? this.#watchedDone();
    if (stop) return stop;
    // The handler's instructions are not the one that was to be emulated.
    if (this.#livelocked() || i32[V.emulating >> 2]) return "stopped";
  }

  /**
   * Enters the guest that `enterGuest(area, launch)` enters and, if nothing is due first, runs at most
   * `budget` instructions of it.
   *
   * @returns a number of GUEST: what `enterGuest` gives, or `left` when the guest ran and left again;
   *   else why it stopped while it still is in the processor: "budget" if it may run on.
   */
  runGuest(area: number, launch: number, budget: number): number | RunStop {
    const { system, machine: { bus }, i32 } = this;
    const slice = Math.min(budget, CHUNK, bus.deadline() - this.count - this.idle);
    const observed = this.hooks.fault || this.observers.length > 0;
    const quick = slice > 0 && this.hot && !this.machine.due() && !observed &&
      !this.#debug.execute && !this.#debug.data && !bus.interruptPending();
    if (!quick) return this.enterGuest(area, launch);
    this.#stop = false;
    const { mode } = this.predecoder;
    this.#begin(slice, 0);
    i32[V.stepping >> 2] = i32[V.injected >> 2] = 0;
    const end = system.runGuest(area, launch, slice, mode, this.#interpreter(mode).index);
    if (end === GUEST.left) {
      const done = this.#slice - i32[V.left >> 2] - 1;
      this.count += done;
      this.#slice = 0;
      if (done > 0) this.fruitless = 0;
      return end;
    }
    if (end >= GUEST.ran) {
      return this.#ran(end - GUEST.ran, 0, 0) ?? (this.#stop ? "stopped" : "budget");
    }
    this.#slice = 0;
    this.count += i32[V.injected >> 2];
    return end;
  }

  /** Enters a guest as `enterGuest(area, launch)` does; what it injects may complete an instruction. */
  enterGuest(area: number, launch: number): number {
    const { i32 } = this;
    i32[V.injected >> 2] = 0;
    const status = this.system.enterGuest(area, launch);
    this.count += i32[V.injected >> 2];
    return status;
  }

  /**
   * A handler whose first instruction faults into itself goes round for ever and retires nothing. An
   * exception takes 1 ns there, so that timers still ring, and the caller gets its turn.
   */
  #livelocked(): boolean {
    if (++this.fruitless < LIVELOCK) return false;
    this.fruitless = 0;
    this.idle += LIVELOCK;
    return true;
  }

  /** DEBUGCTL.LBR: AMD's last-branch record (APM 2 13.1.1.6); the instructions run one by one. */
  get #recordsBranches(): boolean {
    return (this.i32[CPU.debugctl >> 2] & 1) !== 0 && this.model === "amd";
  }
  readonly #branch = { from: 0n, next: 0n, guest: 0 };

  /** Notes where the instruction that comes next is, and the one behind it. */
  #beforeBranch(): void {
    const { i32, u64, u8 } = this, from = u64[CPU.rip >> 3];
    const { low, high } = this.#codeAddress;
    const record = this.predecoder.predecode(low, high);
    // What cannot be fetched faults when it is to run.
    i32[V.abort >> 2] = ABORT.none;
    this.#branch.from = from;
    this.#branch.next = from + BigInt(record ? u8[record + REC.length] : 0);
    this.#branch.guest = i32[V.nonRoot >> 2];
  }

  /** The instruction was a taken branch; one to the instruction behind it passes for none. */
  #branched(): boolean {
    const { from, next, guest } = this.#branch, to = this.u64[CPU.rip >> 3];
    // VMRUN is no branch, nor is the next round of a repeated instruction.
    if (guest !== this.i32[V.nonRoot >> 2] || to === next || next === from) return false;
    return to !== from || !this.#isRepeated();
  }
  #recordBranch(): void {
    this.u64[CPU.branchFrom >> 3] = this.#branch.from;
    this.u64[CPU.branchTo >> 3] = this.u64[CPU.rip >> 3];
  }
  #isRepeated(): boolean {
    const { low, high } = this.#codeAddress, record = this.predecoder.predecode(low, high);
    const prefixes = record ? this.u16[(record + REC.prefixes) >> 1] : 0;
    return (prefixes & (PREFIX.rep | PREFIX.repne)) !== 0;
  }

  /** Delivers the event in the cells; the branch before it is the last one before an exception. */
  #deliverEvent(): void {
    this.i64[V.passing >> 3] = -1n;
    if (this.#recordsBranches) this.#deliverAsBranch();
    else this.system.deliver();
    if (this.i32[V.abort >> 2] === ABORT.none) {
      this.#counters.delivered();
      this.#trap();
    } else this.#givenUp();
  }
  #deliverAsBranch(): void {
    const { u64 } = this, from = u64[CPU.rip >> 3];
    const branch = [u64[CPU.branchFrom >> 3], u64[CPU.branchTo >> 3]];
    const debug = this.i32[V.vector >> 2] === 1;
    this.system.deliver();
    if (this.i32[V.abort >> 2] !== ABORT.none) return;
    [u64[CPU.lastExceptionFrom >> 3], u64[CPU.lastExceptionTo >> 3]] = branch;
    u64[CPU.branchFrom >> 3] = from;
    u64[CPU.branchTo >> 3] = u64[CPU.rip >> 3];
    // A debug exception freezes the records for its handler.
    if (debug) this.i32[CPU.debugctl >> 2] &= ~1;
  }

  #begin(slice: number, pending = this.machine.bus.interruptPending() ? 1 : 0): void {
    const { i32 } = this;
    this.#slice = slice;
    i32[V.slice >> 2] = slice;
    i32[V.left >> 2] = slice;
    const time = this.count + this.idle;
    i32[V.countBase >> 2] = time | 0;
    i32[(V.countBase >> 2) + 1] = Math.floor(time / 2 ** 32);
    i32[V.interruptPending >> 2] = pending;
  }

  /** RF is for the next instruction only (SDM 3 17.3.1.1): its breakpoints are behind it. */
  #resume(): void {
    this.i32[CPU.rflags >> 2] &= ~RF;
    this.u64[V.passing >> 3] = this.u64[CPU.rip >> 3];
  }

  /** What holds for one instruction only ends with it; a traced one leaves its trap. */
  #afterInstructions(shadow: number): void {
    const { i32 } = this;
    if (shadow && (i32[CPU.interruptibility >> 2] & 3) === shadow) {
      i32[CPU.interruptibility >> 2] &= ~3;
    }
    if (i32[V.stepping >> 2] && (!this.#toBranch || this.#branched())) {
      i32[CPU.pendingDebug >> 2] |= 0x4000;
    }
    this.#trap();
    // Whatever comes between the iterations of a repeated instruction finds RF set (SDM 3 17.3.1.1).
    if (i32[V.repeating >> 2]) i32[CPU.rflags >> 2] |= RF;
    i32[V.repeating >> 2] = 0;
  }

  /** What met data breakpoints is done. */
  #trap(): void {
    this.i32[CPU.pendingDebug >> 2] |= this.#trapped;
    this.#trapped = 0;
  }

  /** What is under way ends without having been done. */
  #givenUp(): void {
    this.#trapped = 0;
    if (!this.#watched) return;
    this.#watched = false;
    for (const observer of this.observers) observer.givenUp();
  }

  #watchedDone(): "watch" | undefined {
    if (!this.#watched) return undefined;
    this.#watched = false;
    return "watch";
  }

  /** The debug registers have changed: what was predecoded and translated must look at them. */
  #armDebug(): void {
    this.predecoder.reset();
    const watching = this.i32[V.watching >> 2];
    this.i32[V.watching >> 2] = this.#debug.data ? watching | 2 : watching & ~2;
    this.flushTlb();
  }

  /**
   * A fetch has failed where a breakpoint is: that comes first (SDM 3 table 6-2), and the fetch again
   * when it has been passed.
   */
  #breakpointBeforeFetch(): boolean {
    if (!this.#unfetched) return false;
    this.#unfetched = false;
    const { low, high } = this.#codeAddress;
    if (this.u64[V.passing >> 3] === this.u64[CPU.rip >> 3]) return false;
    const here = this.#debug.execute && this.#debug.match(low, high, 1) ||
      this.#hasBreakpoint(low, high);
    if (here) this.i32[V.abort >> 2] = ABORT.none;
    return !!here;
  }

  #hasBreakpoint(low: number, high: number): boolean {
    return this.observers.some((o) => o.hasBreakpoint(low, high));
  }

  /** Linear address of the next instruction. */
  get #codeAddress(): { low: number; high: number } {
    const { i32 } = this, long = i32[V.codeMode >> 2] >= CODE_MODE.code64;
    const low = (i32[CPU.rip >> 2] + i32[V.codeBase >> 2]) | 0;
    return { low, high: long ? i32[(CPU.rip >> 2) + 1] : 0 };
  }

  /**
   * A breakpoint record was reached. Whoever watches from outside comes first and is told once; then
   * the debug registers' #DB comes. Undefined: run on, past it.
   */
  #atBreakpoint(): RunStop | undefined {
    const { i32 } = this, rip = this.u64[CPU.rip >> 3];
    const { low, high } = this.#codeAddress;
    const reported = this.#passed.count === this.count && this.#passed.rip === rip;
    if (!reported && this.#hasBreakpoint(low, high)) return "breakpoint";
    const hits = this.#debug.execute ? this.#debug.match(low, high, 1) : 0;
    // On Intel's processors MOV SS holds back instruction breakpoints too (SDM 3 6.8.3).
    const inhibited = (i32[CPU.interruptibility >> 2] & 2) !== 0 &&
      !isAmd(i32, "mov-ss.breakpoints");
    if (hits && !inhibited) {
      i32[CPU.pendingDebug >> 2] |= hits;
      this.#deliver(1, 3);
      return this.#leftInDelivery();
    }
    this.u64[V.passing >> 3] = rip;
  }

  /** An access to watched memory: the run ends when what makes it is done. */
  #noteAccess(
    low: number,
    high: number,
    physical: number,
    bytes: number,
    access: number,
    next: number,
  ): void {
    const delivery = this.#slice === 0;
    for (const observer of this.observers) {
      if (observer.watch(low, high, physical, bytes, access, delivery, next)) this.#watched = true;
    }
    if (this.#debug.data) {
      this.#trapped |= this.#debug.match(low, high, bytes, (access & ACCESS.write) !== 0);
    }
    if (this.#watched || this.#trapped) this.endSlice();
  }

  /** Delivers what is due at an instruction boundary. */
  #boundary(): "delivered" | RunStop | undefined {
    const { i32, observers } = this;
    if (observers.length > 0 && observers.some((o) => o.isOver())) return "stopped";
    if (this.hooks.boundary) {
      const stop = this.hooks.boundary();
      if (stop) return stop;
    } else if (this.#ownGuest && this.#guestBoundary()) return "delivered";
    const activity = i32[CPU.activity >> 2];
    if (activity === 2) return "shutdown";
    const shadow = i32[CPU.interruptibility >> 2];
    if (i32[CPU.pendingDebug >> 2] && !(shadow & 2)) {
      this.#deliver(1, 3);
      return "delivered";
    }
    if (this.#nmiDue) {
      i32[CPU.pendingNmi >> 2] = 0;
      this.#deliver(2, 2);
      return "delivered";
    }
    const held = this.#ownGuest && this.system.interruptMode() !== 0;
    if (!held && this.#interruptsOpen && this.machine.bus.interruptPending()) {
      const vector = this.machine.bus.acknowledge();
      if (vector >= 0) {
        this.#deliver(vector, 0);
        return "delivered";
      }
    }
    return activity ? "halt" : undefined;
  }

  /** Without the global interrupt flag of SVM nothing from outside gets in. */
  get #nmiDue(): boolean {
    const { i32 } = this;
    return i32[CPU.pendingNmi >> 2] !== 0 && !(i32[CPU.interruptibility >> 2] & 10) &&
      i32[CPU.gif >> 2] !== 0;
  }
  get #interruptsOpen(): boolean {
    const { i32 } = this;
    return (i32[CPU.rflags >> 2] & IF) !== 0 && !(i32[CPU.interruptibility >> 2] & 3) &&
      i32[CPU.gif >> 2] !== 0;
  }
  /** What runs is the guest of a host that is code of this machine. */
  get #ownGuest(): boolean {
    return this.i32[V.nonRoot >> 2] !== 0 && !this.hooks.boundary;
  }

  /** An interrupt of its controllers would be taken, by delivery or by an exit: HLT ends with it. */
  get takesInterrupts(): boolean {
    const mode = this.#ownGuest ? this.system.interruptMode() : 0;
    return mode === 1 || (mode === 0 && this.#interruptsOpen);
  }
  /** What ends HLT is due. */
  get wakes(): boolean {
    return this.#nmiDue || (this.machine.bus.interruptPending() && this.takesInterrupts);
  }

  /**
   * A guest whose host is code of this machine: what is due in it, as {@linkcode CpuHooks.boundary}
   * does for a host in TypeScript. True if the state has changed.
   */
  #guestBoundary(): boolean {
    const { i32, system } = this;
    if (!system.svmExit) return false;
    const trapped = i32[CPU.pendingDebug >> 2] && !(i32[CPU.interruptibility >> 2] & 2);
    if (!trapped) {
      const virtual = system.svmBoundary();
      if (virtual === 2) return true;
      const nmi = !virtual && i32[CPU.pendingNmi >> 2] && system.nmiExit();
      if (!virtual && !nmi && this.machine.bus.interruptPending()) {
        if (system.interruptMode() === 1) system.interruptExit(-1);
      }
    }
    if (i32[V.abort >> 2] !== ABORT.exit) return false;
    system.svmExit();
    return true;
  }

  #deliver(vector: number, type: number): void {
    const { i32 } = this;
    i32[CPU.activity >> 2] = 0;
    i32[V.abort >> 2] = ABORT.none;
    i32[V.vector >> 2] = vector;
    i32[V.eventType >> 2] = type;
    i32[V.hasError >> 2] = 0;
    this.#deliverEvent();
  }

  /** An event whose delivery made the guest leave goes with that exit, before anybody has a turn. */
  #leftInDelivery(): RunStop | undefined {
    return this.i32[V.abort >> 2] === ABORT.exit ? this.#aborted() : undefined;
  }

  #aborted(): RunStop | undefined {
    const { i32 } = this;
    const why = i32[V.abort >> 2];
    i32[V.abort >> 2] = ABORT.none;
    switch (why) {
      case ABORT.fault:
        this.raised = {
          vector: i32[V.vector >> 2],
          errorCode: i32[V.hasError >> 2] ? i32[V.errorCode >> 2] : undefined,
          check: i32[V.check >> 2],
          a: this.u64[V.checkA >> 3],
          b: this.u64[V.checkB >> 3],
          rip: this.u64[CPU.rip >> 3],
          count: this.count,
        };
        if (this.hooks.fault) {
          this.lastFault = this.raised;
          if (this.hooks.fault()) return "fault";
        }
        this.#deliverEvent();
        // Intercepted, it is a hypervisor's; interrupted in the course of its delivery it is not.
        if (i32[V.abort >> 2] !== ABORT.exit || i32[V.vectoring >> 2]) this.#delivered();
        if (i32[V.abort >> 2] === ABORT.exit) return this.#aborted();
        return;
      case ABORT.exit:
        // A host of machine code goes on behind its VMRUN; others are told.
        if (i32[SVMC.hostedRoot >> 2] || this.hooks.boundary || !this.system.svmExit) return "exit";
        this.system.svmExit();
        return;
      case ABORT.delivered:
        this.#trap();
        return this.hooks.fault?.() ? "stopped" : undefined;
      case ABORT.unanswered:
        return "unanswered";
      case ABORT.due:
        return "stopped";
      case ABORT.frozen:
        // STI and MOV SS hold nothing back from a processor that waits.
        i32[CPU.interruptibility >> 2] &= ~3;
        i32[CPU.activity >> 2] = 1;
        return;
      default:
        throw new Error(`the interpreter gave up without a reason (${why})`);
    }
  }

  #delivered(): void {
    this.lastFault = this.raised;
    this.raised = undefined;
  }

  /** A hypervisor gives its guest an exception: the one that has just left, or another. */
  noteInjected(vector: number, errorCode: number | undefined, rip: bigint): void {
    const { raised, count } = this;
    this.raised = undefined;
    const known = raised?.vector === vector && raised.count === count ? raised : undefined;
    this.lastFault = { check: 0, a: 0n, b: 0n, rip, count, ...known, vector, errorCode };
  }

  /** The last exception that what runs was given, for `why()`. */
  lastFault?: Fault;
  /** The last one raised, while it is a hypervisor's to deal with: perhaps nobody else's. */
  raised?: Fault;
}

/** An exception: its check and what that looked at, and where it was raised. */
export interface Fault {
  readonly vector: number;
  readonly errorCode?: number;
  readonly check: number;
  readonly a: bigint;
  readonly b: bigint;
  readonly rip: bigint;
  /** The processor's count of instructions. */
  readonly count: number;
}

/** Forms of what does not decode. */
const special = (key: string): Form => ({ key, cc: -1, operandSize: 32, operands: [], sizes: [] });
const SPECIAL = {
  undefined: special("decode.undefined"),
  tooLong: special("decode.tooLong"),
  unsupported: special("decode.unsupported"),
  foreign: special("decode.foreign"),
};

/** For names that come from outside: those a program writes are {@linkcode CpuCell}s. */
function at(name: string): number {
  const offset: number | undefined = CPU[name as CpuCell];
  if (offset === undefined) throw new Error(`no state field named ${name}`);
  return offset;
}

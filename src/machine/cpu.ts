/**
 * One processor: its state and how its parts are wired. What runs it is run.ts, what comes between
 * instructions events.ts. Memory, frames, the bus and the compiled modules are the computer's
 * ({@linkcode Machine}).
 */
import { APIC_BASE } from "../abi/x86/msr.ts";
import { oneMoreNmi } from "./apic/messages.ts";
import { type MachineBus, NO_DEVICES } from "./bus.ts";
import { Branches } from "./branches.ts";
import { PerformanceCounters } from "./counters.ts";
import { CpuRegisters } from "./cpu_registers.ts";
import { Events, type Fault } from "./events.ts";
import { type CpuHooks, hostFunctions } from "./host.ts";
import { Instances } from "./interpreter/instances.ts";
import { Predecoder } from "./interpreter/predecode.ts";
import { DECODE_AS } from "./isa/decode.ts";
import type { ProcessorParts, SystemFunctions } from "./linkage.ts";
import type { Machine } from "./machine.ts";
import { type CpuMarks, type CpuObserver, Observation } from "./observation.ts";
import { RunLoop, type RunStop } from "./run.ts";
import { ABORT, ACTIVITY, CODE_MODE, CPU, frameMarks, pdpte, SEGMENTS, TLB, V } from "./state.ts";
import type { CpuModel } from "./vendors.ts";
import { virtualization } from "./virtualization.ts";

/** The A20M# pin masks this bit of addresses. */
const A20 = 1 << 20;

export class Cpu extends CpuRegisters implements ProcessorParts {
  readonly instances: Instances;
  /** Functions of module S. */
  readonly system: SystemFunctions;
  readonly predecoder: Predecoder;
  readonly hooks: CpuHooks = {};
  /** Who watches, in the order that they are asked. */
  readonly observers: CpuObserver[] = [];
  /** Where anybody watches who does so now and then. */
  readonly marked: CpuMarks[] = [];
  readonly observation: Observation;
  readonly counters: PerformanceCounters;
  readonly branches: Branches;
  readonly events: Events;
  readonly loop: RunLoop;
  /** Its bits in the flags of a frame. */
  readonly marks: { readonly write: number; readonly table: number };
  /** What answers where there is no memory, and interrupts it. */
  bus: MachineBus = NO_DEVICES;
  /** How it reads the bytes of instructions: bits of DECODE_AS. */
  readonly decodeAs: number;
  /** Use the hot handlers where code is flat; off, all code takes the general way (for tests). */
  hot = true;
  /** Instructions retired since the machine was made. */
  count = 0;
  /** Nanoseconds skipped while idle: time is `count` plus this (one instruction takes 1 ns). */
  idle = 0;
  /** Exceptions in a row without an instruction between them. */
  fruitless = 0;
  /** Instructions of the slice that the interpreter runs; 0: none runs. */
  #slice = 0;
  /** The last exception that what runs was given, for `why()`. */
  lastFault?: Fault;
  /** The last one raised, while it is a hypervisor's to deal with: perhaps nobody else's. */
  raised?: Fault;

  constructor(readonly machine: Machine, readonly model: CpuModel, readonly id = 0) {
    super();
    this.marks = frameMarks(id);
    this.decodeAs = DECODE_AS[model];
    this.observation = new Observation(this);
    this.counters = new PerformanceCounters(this);
    this.branches = new Branches(this);
    this.events = new Events(this);
    this.loop = new RunLoop(this);
    const memories = { cpu: this.memory, ram: machine.memory, frames: machine.frames };
    this.instances = new Instances(model, memories, hostFunctions(this));
    this.system = this.instances.system;
    this.predecoder = this.#makePredecoder();
    this.u8.fill(0xff, TLB.start, TLB.start + TLB.classes * TLB.classSize);
    this.u64[V.ramSize >> 3] = BigInt(machine.size);
    this.i32[V.writeMark >> 2] = this.marks.write;
    this.i32[V.tableMark >> 2] = this.marks.table;
    this.u64[V.reservedHigh >> 3] = 0x000f_ffff_ffff_f000n & ~((1n << 36n) - 1n);
    this.i64[V.passing >> 3] = -1n;
    this.ways = model;
    this.reset();
  }

  #makePredecoder(): Predecoder {
    const { system, instances, observation, machine } = this;
    const frames = machine.frames.buffer as ArrayBuffer;
    return new Predecoder(this.memory.buffer as ArrayBuffer, machine.ram, frames, {
      fetchFrame: (low, high) => system.fetchFrame(low, high),
      fetchDevice: (low, high) => system.fetchByte(low, high),
      dropWrites: (frame) => machine.dropWrites(frame),
      elsewhere: (frame) => machine.codeElsewhere(frame, this),
      flushCodeTlb: () => this.#flushCodeTlb(),
      cold: (form) => instances.cold(form),
      coldSpecial: (name) => instances.coldSpecial(name),
      hasBreakpoint: (low, high) => observation.marks(low, high),
      decodeAs: this.decodeAs,
    });
  }

  /**
   * Whose ways instructions follow where the two vendors' differ. They are the model's, but while an
   * instruction of a guest is executed that believes itself on the other.
   */
  set ways(vendor: CpuModel) {
    this.i32[V.amd >> 2] = vendor === "amd" ? 1 : 0;
  }

  /** State after power-up or RESET. */
  reset(): void {
    this.resetRegisters();
    this.flushTlb();
    this.system.refresh();
  }

  /** Its state, and memory's, came from outside: what was derived from another goes. */
  restored(): void {
    this.loop.reset();
    this.observation.reset();
    this.lastFault = this.raised = undefined;
    this.i32[V.abort >> 2] = ABORT.none;
    this.i32[V.emulating >> 2] = 0;
    virtualization[this.model].restored?.(this.system);
    this.predecoder.reset();
    this.flushTlb();
    this.system.refresh();
  }

  /** The A20M# pin: low (false), physical addresses have no bit 20 (SDM 3, 21.32.1). */
  set a20(open: boolean) {
    this.i32[CPU.a20Mask >> 2] = open ? -1 : ~A20;
    this.flushTlb();
    this.endSlice();
  }

  /** The page-directory pointers of PAE paging, read at a machine address (SDM 3 4.4.1). */
  loadPdptes(address: number): void {
    const { ram } = this.machine;
    const view = new DataView(ram.buffer, ram.byteOffset + address);
    for (let n = 0; n < 4; n++) this.u64[pdpte(n) >> 3] = view.getBigUint64(8 * n, true);
  }

  flushTlb(): void {
    this.i32[V.fills >> 2] = 1 << 20;
    this.system.flushTlb();
  }
  #flushCodeTlb(): void {
    for (let c = 0; c < TLB.classes; c++) {
      const start = TLB.start + c * TLB.classSize + TLB.code;
      this.u8.fill(0xff, start, start + TLB.entries * TLB.entrySize);
    }
  }

  /** Linear address of the next instruction. */
  get codeAddress(): { low: number; high: number } {
    const { i32 } = this, long = i32[V.codeMode >> 2] >= CODE_MODE.code64;
    const low = (i32[CPU.rip >> 2] + i32[V.codeBase >> 2]) | 0;
    return { low, high: long ? i32[(CPU.rip >> 2) + 1] : 0 };
  }

  // --- count and time ---

  /** Instructions retired, exact even inside a device access. */
  get counted(): number {
    return this.count + (this.#slice ? this.#slice - this.i32[V.left >> 2] : 0);
  }
  /** Machine time in nanoseconds, exact even inside a device access. */
  get now(): number {
    return this.idle + this.counted;
  }

  /** Lets time pass without instructions, as in HLT; devices that are due are run. */
  skipTo(time: number): void {
    if (time > this.now) this.idle += time - this.now;
    this.bus.run(this.now);
  }

  /** Runs the devices that are due at a machine time (ns); ns until the next one is. */
  runDevices(now: number): number {
    const { bus } = this;
    bus.run(now);
    const due = bus.deadline() - now;
    if (due > 0) return due;
    throw new Error(`a device is due at ${bus.deadline()} ns, and still after it ran`);
  }

  /** The interpreter runs: what it does is an instruction's, and no delivery's of an event. */
  get inSlice(): boolean {
    return this.#slice !== 0;
  }
  /** The interpreter is about to run at most so many instructions. */
  beginSlice(instructions: number, interruptPending: boolean): void {
    const { i32 } = this, time = this.count + this.idle;
    this.#slice = instructions;
    i32[V.slice >> 2] = i32[V.left >> 2] = instructions;
    i32[V.countBase >> 2] = time | 0;
    i32[(V.countBase >> 2) + 1] = Math.floor(time / 2 ** 32);
    i32[V.interruptPending >> 2] = interruptPending ? 1 : 0;
  }
  /** It has left `rest` of them: how many it has retired. */
  settleSlice(rest: number): number {
    const done = this.#slice - rest;
    this.count += done;
    this.#slice = 0;
    return done;
  }
  /** A device changed what is due or pending: the slice ends with the instruction that runs. */
  endSlice(): void {
    if (!this.#slice) return;
    const { i32 } = this, left = i32[V.left >> 2];
    this.#slice -= left;
    i32[V.slice >> 2] -= left;
    i32[V.left >> 2] = 0;
  }

  // --- running ---

  /** {@linkcode RunLoop.run} */
  run(budget: number, until = Infinity): RunStop {
    return this.loop.run(budget, until);
  }
  /** {@linkcode RunLoop.runGuest} */
  runGuest(area: number, launch: number, budget: number): number | RunStop {
    return this.loop.runGuest(area, launch, budget);
  }
  /** {@linkcode RunLoop.enterGuest} */
  enterGuest(area: number, launch: number): number {
    return this.loop.enterGuest(area, launch);
  }
  /** {@linkcode RunLoop.stop} */
  stop(): void {
    this.loop.stop();
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

  /** Its interrupt controller asks for service. */
  interruptPending(): boolean {
    return this.bus.interruptPending();
  }
  /** The vector of that interrupt, acknowledged; -1 if it went away. */
  acknowledge(): number {
    return this.bus.acknowledge();
  }

  /** INIT is signalled: it is taken as soon as the instruction is done, if nothing blocks it. */
  raiseInit(): void {
    this.i32[CPU.pendingInit >> 2] = 1;
    if (this.inSlice) this.endSlice();
    else if (this.events.initDue) this.takeInit();
  }
  /** As after power-up those are that are not the bootstrap processor (SDM 3A 9.4). */
  waitForSipi(): void {
    this.set("apicBase", this.get("apicBase") & ~APIC_BASE.bootstrap);
    this.i32[CPU.activity >> 2] = ACTIVITY.waitForSipi;
  }
  /** A start-up IPI: a processor that waits for one begins in real mode at `vector` × 4 KiB. */
  startUp(vector: number): void {
    if (this.i32[CPU.activity >> 2] !== ACTIVITY.waitForSipi) return;
    this.i32[CPU.activity >> 2] = ACTIVITY.active;
    const cs = this.getSegment(SEGMENTS.indexOf("cs"));
    this.setSegment(SEGMENTS.indexOf("cs"), {
      ...cs,
      selector: vector << 8,
      base: BigInt(vector << 12),
    });
    this.set("rip", 0n);
    this.system.refresh();
  }
  /** INIT is taken: the bootstrap processor begins anew, others wait for a start-up IPI. */
  takeInit(): void {
    this.initRegisters();
    const bootstrap = (this.get("apicBase") & APIC_BASE.bootstrap) !== 0n;
    this.i32[CPU.activity >> 2] = bootstrap ? ACTIVITY.active : ACTIVITY.waitForSipi;
    this.flushTlb();
    this.system.refresh();
  }

  /** The NMI line is asserted. */
  raiseNmi(): void {
    const { i32, events } = this;
    i32[CPU.pendingNmi >> 2] = oneMoreNmi(i32[CPU.pendingNmi >> 2], !events.nmiOpen);
    this.endSlice();
  }
}

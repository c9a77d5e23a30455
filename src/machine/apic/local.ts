/**
 * The local APIC: interrupt acceptance and priority, interprocessor interrupts, timer, LVT; xAPIC
 * and x2APIC. The physical processor has one; a virtual processor's is the same model.
 * Source: SDM 3A chapter 11 (APIC).
 *
 * @module
 */
import {
  ApicBus,
  deliveryMode,
  type InterruptMessage,
  isUnmaskable,
  NMIS_MAX,
  oneMoreNmi,
  type Signals,
} from "./messages.ts";
import {
  error,
  getBit,
  highestBit,
  localApicVersion,
  lvt,
  LVT_LEVEL,
  LVT_MASKED,
  LVT_REMOTE_IRR,
  lvtNames,
  lvtWritable,
  msr,
  register,
  setBit,
  timerMode,
  timerNanoseconds,
  x2Writable,
} from "./registers.ts";

/** What the processor around a local APIC provides. */
export interface LocalApicContext {
  /** Time in nanoseconds, a safe integer. */
  now(): number;
  /** `deadline()` may have changed. */
  reschedule?(): void;
  /** `highestPending()` or `extInt` may have changed. */
  changed?(): void;
  /** An interrupt that bypasses the vectors has come; but for an SMI the state's `signals` have it. */
  signal?(kind: "nmi" | "smi" | "init" | "startup"): void;
  /** The time (ns) at which the TSC reaches `tsc`. Without it there is no TSC-deadline mode. */
  readonly timeOfTsc?: ((tsc: bigint) => number) | undefined;
  /** The task priority was written: bits 7 to 4, which are CR8's. */
  priority?(cr8: number): void;
}

/** How a local APIC is wired. */
export interface LocalApicOptions {
  /** Initial APIC id; 8 bits, or 32 where x2APIC mode is used. Default 0. */
  readonly id?: number;
  /** The bootstrap processor's (bit 8 of IA32_APIC_BASE). Default: id 0. */
  readonly bootstrap?: boolean;
  /** The wires it shares with others; its own if absent. */
  readonly bus?: ApicBus;
  /** x2APIC mode can be entered. Default true. */
  readonly x2apic?: boolean;
  /** Number of the processor, which alone reaches it by memory accesses. Absent: whoever does. */
  readonly processor?: number;
  readonly name?: string;
}

/** State of {@linkcode LocalApic}. 256-bit registers are eight unsigned 32-bit words. */
export interface LocalApicState {
  id: number;
  bootstrap: boolean;
  /** IA32_APIC_BASE bits 11 and 10, and the physical address of the registers. */
  enabled: boolean;
  x2apic: boolean;
  base: number;
  tpr: number;
  ldr: number;
  dfr: number;
  svr: number;
  isr: number[];
  tmr: number[];
  irr: number[];
  /** ESR as read, and errors since it was last written. */
  esr: number;
  errors: number;
  icrLow: number;
  icrHigh: number;
  lvt: number[];
  initialCount: number;
  divide: number;
  /** When the count was loaded (ns), and when it next reaches zero (Infinity: never). */
  timerStart: number;
  timerNext: number;
  tscDeadline: bigint;
  /** Levels of the pins LINT0 and LINT1. */
  lint: boolean[];
  /** An ExtINT message from the bus waits for the 8259's acknowledgement. */
  extInt: boolean;
  /** What waits for the processor past the vectors. */
  signals: Signals;
}

const SOFTWARE_ENABLED = 0x100;
/** MAXPHYADDR: bits of IA32_APIC_BASE above it are reserved. */
const PHYSICAL_BITS = 36n;
const DWORD = [0, 0xffff_ffff] as const;
/** The least and the greatest values of the state's members. */
const RANGES = {
  id: DWORD,
  tpr: DWORD,
  ldr: DWORD,
  dfr: DWORD,
  svr: DWORD,
  isr: DWORD,
  tmr: DWORD,
  irr: DWORD,
  esr: DWORD,
  errors: DWORD,
  icrLow: DWORD,
  icrHigh: DWORD,
  lvt: DWORD,
  initialCount: DWORD,
  divide: DWORD,
  base: [0, 2 ** 36 - 4096],
  timerStart: [0, 2 ** 52],
  timerNext: [0, Infinity],
  startup: [-1, 255],
  nmi: [0, NMIS_MAX],
} as const;
const none = () => [0, 0, 0, 0, 0, 0, 0, 0];

type RegisterState = Omit<
  LocalApicState,
  "id" | "bootstrap" | "enabled" | "x2apic" | "base" | "signals"
>;
const noSignals = (): Signals => ({ nmi: 0, init: false, startup: -1 });

/** Registers after power-up, INIT, or disabling (SDM 3A 11.4.7.1). */
function registersAfterReset(): RegisterState {
  return {
    tpr: 0,
    ldr: 0,
    dfr: 0xffffffff,
    svr: 0xff,
    isr: none(),
    tmr: none(),
    irr: none(),
    esr: 0,
    errors: 0,
    icrLow: 0,
    icrHigh: 0,
    lvt: lvtWritable.map(() => LVT_MASKED),
    initialCount: 0,
    divide: 0,
    timerStart: 0,
    timerNext: Infinity,
    tscDeadline: 0n,
    lint: [false, false],
    extInt: false,
  };
}

/**
 * A local APIC.
 *
 * The processor asks {@linkcode highestPending} and {@linkcode extInt}, and takes an interrupt by
 * {@linkcode acknowledge}. Programs reach it by {@linkcode mmioRead} and {@linkcode mmioWrite}, or
 * in x2APIC mode by {@linkcode readMsr} and {@linkcode writeMsr}.
 */
export class LocalApic {
  readonly name: string;
  readonly version = 3;
  readonly ranges = RANGES;
  readonly width = 4;
  readonly ports: readonly (readonly [number, number])[] = [];
  readonly processor?: number;
  readonly bus: ApicBus;
  state: LocalApicState;

  constructor(readonly context: LocalApicContext, readonly options: LocalApicOptions = {}) {
    const id = options.id ?? 0;
    this.name = options.name ?? `lapic${id}`;
    this.processor = options.processor;
    this.bus = options.bus ?? new ApicBus();
    this.state = {
      id,
      bootstrap: options.bootstrap ?? id === 0,
      enabled: true,
      x2apic: false,
      base: 0xfee00000,
      ...registersAfterReset(),
      signals: noSignals(),
    };
    this.bus.attach(this);
  }

  get mmio(): readonly { readonly base: number; readonly size: number }[] {
    const { base, enabled, x2apic } = this.state;
    return enabled && !x2apic ? [{ base, size: 0x1000 }] : [];
  }

  /** Globally enabled (IA32_APIC_BASE bit 11). */
  get enabled(): boolean {
    return this.state.enabled;
  }

  /** Enabled by software (SVR bit 8). */
  get softwareEnabled(): boolean {
    return (this.state.svr & SOFTWARE_ENABLED) !== 0;
  }

  /** LDR: written in xAPIC mode, derived from the id in x2APIC mode (SDM 3A 11.12.10.2). */
  get logicalId(): number {
    const { id, ldr, x2apic } = this.state;
    return x2apic ? (id >>> 4 << 16 | 1 << (id & 15)) >>> 0 : ldr;
  }

  /** PPR, 8 bits (SDM 3A 11.8.3.1). */
  get processorPriority(): number {
    const serving = highestBit(this.state.isr);
    const { tpr } = this.state;
    return serving < 0 || tpr >> 4 >= serving >> 4 ? tpr : serving & 0xf0;
  }

  /** CR8: bits 7 to 4 of TPR. */
  get cr8(): number {
    return this.state.tpr >> 4;
  }
  set cr8(value: number) {
    this.setPriority(value << 4);
    this.context.changed?.();
  }
  setPriority(tpr: number): void {
    this.state.tpr = tpr;
    this.context.priority?.(tpr >> 4);
  }

  /** The vector to interrupt the processor with, or -1. */
  highestPending(): number {
    if (!this.state.enabled) return -1;
    const vector = highestBit(this.state.irr);
    if (vector < 0) return -1;
    return vector >> 4 > this.processorPriority >> 4 ? vector : -1;
  }

  /** Takes the interrupt: IRR to ISR. The spurious vector when there is none. */
  acknowledge(): number {
    const vector = this.highestPending();
    if (vector < 0) return this.state.svr & 0xff;
    setBit(this.state.irr, vector, false);
    setBit(this.state.isr, vector, true);
    this.context.changed?.();
    return vector;
  }

  /**
   * Whether the 8259's INTR reaches the processor: its vector then comes from the 8259, after
   * {@linkcode acknowledgeExtInt}.
   */
  get extInt(): boolean {
    const { enabled, lint, lvt: entries, extInt } = this.state;
    if (!enabled) return lint[0];
    const entry = entries[lvt.lint0];
    const virtualWire = !(entry & LVT_MASKED) && (entry >> 8 & 7) === deliveryMode.extInt;
    return (virtualWire && lint[0]) || extInt;
  }

  /** The 8259's INTR comes as an NMI or INIT: LINT0 is what a device drives by itself here. */
  get unmaskable(): boolean {
    const entry = this.state.lvt[lvt.lint0];
    return this.state.enabled && !(entry & LVT_MASKED) && isUnmaskable(entry >> 8 & 7);
  }

  acknowledgeExtInt(): void {
    this.state.extInt = false;
  }

  /** An interrupt arrives for this processor: sets IRR and TMR. False if it was refused. */
  accept(vector: number, level: boolean): boolean {
    if (!this.state.enabled || !this.softwareEnabled) return false;
    if (vector < 16) {
      this.raiseError(error.receiveIllegalVector);
      return false;
    }
    setBit(this.state.irr, vector, true);
    setBit(this.state.tmr, vector, level);
    this.context.changed?.();
    return true;
  }

  /** A message from the bus. True if it was accepted. */
  receive(message: InterruptMessage): boolean {
    const { mode, vector, level } = message;
    switch (mode) {
      case deliveryMode.fixed:
      case deliveryMode.lowest:
        return this.accept(vector, level);
      case deliveryMode.extInt:
        this.state.extInt = true;
        this.context.changed?.();
        return true;
      case deliveryMode.smi:
        this.context.signal?.("smi");
        return true;
      case deliveryMode.nmi:
        this.nmi();
        return true;
      case deliveryMode.init:
        this.init();
        // What came before it has no effect any more.
        this.state.signals = { ...noSignals(), init: true };
        this.context.signal?.("init");
        return true;
      case deliveryMode.startup:
        // The bootstrap processor never waits for one (SDM 3A 9.4.2).
        if (this.state.bootstrap) return true;
        this.state.signals.startup = vector;
        this.context.signal?.("startup");
        return true;
    }
    return false;
  }
  nmi(): void {
    const { signals } = this.state;
    // Whether the processor handles one already is seen where it takes them.
    signals.nmi = oneMoreNmi(signals.nmi, false);
    this.context.signal?.("nmi");
  }

  /** EOI: the highest in service is over. */
  endOfInterrupt(): void {
    const vector = highestBit(this.state.isr);
    if (vector < 0) return;
    setBit(this.state.isr, vector, false);
    if (getBit(this.state.tmr, vector)) {
      this.bus.endOfInterrupt(vector);
      this.endLint(vector);
    }
    this.context.changed?.();
  }

  endLint(vector: number): void {
    for (const [pin, index] of [lvt.lint0, lvt.lint1].entries()) {
      const entry = this.state.lvt[index];
      if (!(entry & LVT_REMOTE_IRR) || (entry & 0xff) !== vector) continue;
      this.state.lvt[index] = entry & ~LVT_REMOTE_IRR;
      this.driveLint(pin, false);
    }
  }

  /** Drives pin LINT0 (the 8259's INTR) or LINT1 (NMI). */
  setLint(pin: 0 | 1, level: boolean): void {
    const rising = level && !this.state.lint[pin];
    this.state.lint[pin] = level;
    if (this.state.enabled) this.driveLint(pin, rising);
    else if (rising && pin === 1) this.nmi();
    this.context.changed?.();
  }

  driveLint(pin: number, rising: boolean): void {
    const index = lvt.lint0 + pin;
    const entry = this.state.lvt[index];
    const mode = entry >> 8 & 7;
    if (entry & LVT_MASKED || mode === deliveryMode.extInt) return;
    if (mode !== deliveryMode.fixed) {
      if (rising) this.receive({ ...fixedSelf(entry & 0xff), mode });
    } else if (!(entry & LVT_LEVEL)) {
      if (rising) this.accept(entry & 0xff, false);
    } else if (this.state.lint[pin] && !(entry & LVT_REMOTE_IRR)) {
      if (this.accept(entry & 0xff, true)) this.state.lvt[index] |= LVT_REMOTE_IRR;
    }
  }

  /** An event inside the processor: its LVT entry says what becomes of it. */
  raiseLocal(index: number): void {
    const entry = this.state.lvt[index];
    if (entry & LVT_MASKED) return;
    const mode = index === lvt.timer || index === lvt.error ? deliveryMode.fixed : entry >> 8 & 7;
    this.receive({ ...fixedSelf(entry & 0xff), mode });
  }

  raiseError(bit: number): void {
    const first = this.state.errors === 0;
    this.state.errors |= bit;
    // An illegal vector in the error entry itself is a further one, which interrupts no more.
    if (first) this.raiseLocal(lvt.error);
  }

  // Registers.

  /** Register `number` as 32 bits, or undefined if there is none. */
  readRegister(number: number): number | undefined {
    const s = this.state;
    if (number >= register.isr && number < register.esr) {
      const words = number < register.tmr ? s.isr : number < register.irr ? s.tmr : s.irr;
      return words[number & 7];
    }
    if (number >= register.lvtTimer && number <= register.lvtError) {
      return s.lvt[number - register.lvtTimer];
    }
    switch (number) {
      case register.id:
        return s.x2apic ? s.id : s.id << 24 >>> 0;
      case register.version:
        return localApicVersion;
      case register.tpr:
        return s.tpr;
      case register.apr:
      case register.remoteRead:
      case register.eoi:
        return 0;
      case register.ppr:
        return this.processorPriority;
      case register.ldr:
        return this.logicalId;
      case register.dfr:
        return s.dfr;
      case register.svr:
        return s.svr;
      case register.esr:
        return s.esr;
      case register.icrLow:
        return s.icrLow;
      case register.icrHigh:
        return s.icrHigh;
      case register.initialCount:
        return s.initialCount;
      case register.currentCount:
        return this.currentCount();
      case register.divide:
        return s.divide;
    }
    return undefined;
  }

  /** Writes register `number` (32 bits); false if there is none or it is read-only. */
  writeRegister(number: number, value: number): boolean {
    const s = this.state;
    if (number >= register.lvtTimer && number <= register.lvtError) {
      this.writeLvt(number - register.lvtTimer, value);
      return true;
    }
    switch (number) {
      case register.id:
        s.id = value >>> 24;
        return true;
      case register.tpr:
        this.setPriority(value & 0xff);
        break;
      case register.eoi:
        this.endOfInterrupt();
        return true;
      case register.ldr:
        s.ldr = (value & 0xff000000) >>> 0;
        return true;
      case register.dfr:
        s.dfr = (value | 0x0fffffff) >>> 0;
        return true;
      case register.svr:
        this.writeSpurious(value);
        break;
      case register.esr:
        s.esr = s.errors;
        s.errors = 0;
        return true;
      case register.icrLow:
        s.icrLow = value & 0x000ccfff;
        this.send();
        return true;
      case register.icrHigh:
        s.icrHigh = (value & 0xff000000) >>> 0;
        return true;
      case register.initialCount:
        this.writeInitialCount(value >>> 0);
        return true;
      case register.divide:
        this.writeDivide(value & 0x0b);
        return true;
      default:
        return false;
    }
    this.context.changed?.();
    return true;
  }

  /** SVR; disabling by software masks the LVT (SDM 3A 11.4.7.2). */
  writeSpurious(value: number): void {
    this.state.svr = value & 0x3ff;
    if (this.softwareEnabled) return;
    for (let i = 0; i < this.state.lvt.length; i++) this.state.lvt[i] |= LVT_MASKED;
    this.context.reschedule?.();
  }

  writeLvt(index: number, value: number): void {
    const s = this.state;
    const before = s.lvt[index];
    let entry = value & lvtWritable[index] | before & LVT_REMOTE_IRR;
    if (index === lvt.timer && !this.context.timeOfTsc) entry &= ~(timerMode.tscDeadline << 17);
    if (!this.softwareEnabled) entry |= LVT_MASKED;
    if (!(entry & LVT_LEVEL)) entry &= ~LVT_REMOTE_IRR;
    s.lvt[index] = entry;
    if (index === lvt.timer) {
      // Entering or leaving TSC-deadline mode disarms the timer (SDM 3A 11.5.4.1).
      if ((before ^ entry) & timerMode.tscDeadline << 17) this.disarm();
      this.context.reschedule?.();
    } else if (index === lvt.lint0 || index === lvt.lint1) {
      if (entry & LVT_LEVEL) this.driveLint(index - lvt.lint0, false);
      this.context.changed?.();
    }
  }

  /** Sends what ICR says (SDM 3A 11.6.1). */
  send(): void {
    const { icrLow, icrHigh, x2apic } = this.state;
    const vector = icrLow & 0xff;
    const mode = icrLow >> 8 & 7;
    // INIT level de-assert only synchronizes arbitration ids, on processors long gone.
    if (mode === deliveryMode.init && (icrLow & 0xc000) === 0x8000) return;
    // Reserved (SDM 3A 11.6.1): the 8259's interrupts are no processor's to send.
    if (mode === deliveryMode.extInt) return;
    if (mode < deliveryMode.smi && vector < 16) return this.raiseError(error.sendIllegalVector);
    const message: InterruptMessage = {
      vector,
      mode,
      level: false, // IPIs are edge triggered but for INIT
      destination: x2apic ? icrHigh : icrHigh >>> 24,
      logical: (icrLow & 0x800) !== 0,
      wide: x2apic,
    };
    switch (icrLow >> 18 & 3) {
      case 0:
        return void this.bus.deliver(message);
      case 1:
        return void this.receive(message);
      case 2:
        return void this.bus.deliver(message, () => true);
      case 3:
        this.bus.deliver(message, (local) => local !== this);
    }
  }

  // Timer.

  timerMode(): number {
    return this.state.lvt[lvt.timer] >> 17 & 3;
  }

  /** Nanoseconds of one count. */
  countTime(): number {
    const code = this.state.divide & 3 | this.state.divide >> 1 & 4;
    return timerNanoseconds * (1 << (code + 1 & 7));
  }

  currentCount(): number {
    const { initialCount, timerStart, timerNext } = this.state;
    if (timerNext === Infinity || this.timerMode() === timerMode.tscDeadline) return 0;
    const counted = Math.floor((this.context.now() - timerStart) / this.countTime());
    if (this.timerMode() === timerMode.periodic) return initialCount - counted % initialCount;
    return Math.max(0, initialCount - counted);
  }

  disarm(): void {
    this.state.timerNext = Infinity;
    this.state.tscDeadline = 0n;
    this.state.initialCount = 0;
  }

  writeInitialCount(value: number): void {
    if (this.timerMode() === timerMode.tscDeadline) return;
    this.state.initialCount = value;
    this.startTimer(this.context.now());
  }

  startTimer(start: number): void {
    const { initialCount } = this.state;
    this.state.timerStart = start;
    this.state.timerNext = initialCount ? start + initialCount * this.countTime() : Infinity;
    this.context.reschedule?.();
  }

  /** Another divisor: the count goes on from where it is. */
  writeDivide(value: number): void {
    const running = this.state.timerNext !== Infinity &&
      this.timerMode() !== timerMode.tscDeadline;
    const counted = this.state.initialCount - this.currentCount();
    this.state.divide = value;
    if (running) this.startTimer(this.context.now() - counted * this.countTime());
  }

  /** When the timer interrupts next (ns); Infinity while it is masked or stopped. */
  deadline(): number {
    return this.state.lvt[lvt.timer] & LVT_MASKED ? Infinity : this.state.timerNext;
  }

  run(now: number): void {
    const s = this.state;
    if (now < s.timerNext) return;
    if (this.timerMode() === timerMode.periodic) {
      const period = s.initialCount * this.countTime();
      // The count began anew at the last wrap: a change to one-shot goes on from there.
      s.timerStart += Math.floor((now - s.timerStart) / period) * period;
      s.timerNext = s.timerStart + period;
    } else {
      s.timerNext = Infinity;
      s.tscDeadline = 0n;
    }
    this.raiseLocal(lvt.timer);
  }

  writeTscDeadline(tsc: bigint): void {
    if (this.timerMode() !== timerMode.tscDeadline || !this.context.timeOfTsc) return;
    this.state.tscDeadline = tsc;
    this.state.timerNext = tsc === 0n ? Infinity : this.context.timeOfTsc(tsc);
    this.context.reschedule?.();
    this.run(this.context.now());
  }

  /** The time-stamp counter was set: an armed deadline is due at another time. */
  tscChanged(): void {
    if (this.state.tscDeadline !== 0n) this.writeTscDeadline(this.state.tscDeadline);
  }

  // Access by programs.

  /** Reads the register at a physical address; 32 bits, on a 16-byte boundary. */
  mmioRead(address: number, size: 1 | 2 | 4): number {
    this.run(this.context.now());
    const value = this.readRegister((address & 0xfff) >> 4);
    if (value === undefined) this.raiseError(error.illegalRegister);
    // Other widths and places are undefined; we give the bytes there.
    const shifted = address & 12 || value === undefined ? 0 : value >>> (address & 3) * 8;
    return size === 4 ? shifted : shifted & (1 << size * 8) - 1;
  }

  mmioWrite(address: number, size: 1 | 2 | 4, value: number): void {
    this.run(this.context.now());
    if (address & 15) return; // undefined; ignored
    const bits = size === 4 ? value >>> 0 : value & (1 << size * 8) - 1;
    const number = (address & 0xfff) >> 4;
    if (number === register.selfIpi || !this.writeRegister(number, bits)) {
      this.raiseError(error.illegalRegister);
    }
  }

  /** The MSR's value (64 bits), or undefined for #GP(0). IA32_APIC_BASE, TSC_DEADLINE, 800h on. */
  readMsr(index: number): bigint | undefined {
    if (index === msr.apicBase) return this.readBase();
    const number = index - msr.x2apic;
    const own = this.state.x2apic && number >= 0 && number <= 0xff;
    if (!own && index !== msr.tscDeadline) return undefined;
    this.run(this.context.now());
    if (!own) return this.context.timeOfTsc ? this.state.tscDeadline : undefined;
    const hidden: readonly number[] = [
      register.eoi,
      register.apr,
      register.remoteRead,
      register.dfr,
      register.icrHigh,
    ];
    if (hidden.includes(number)) return undefined;
    const value = this.readRegister(number);
    if (value === undefined) return undefined;
    return number === register.icrLow
      ? BigInt(value) | BigInt(this.state.icrHigh) << 32n
      : BigInt(value);
  }

  /** Writes the MSR; false for #GP(0). */
  writeMsr(index: number, value: bigint): boolean {
    this.run(this.context.now());
    if (index === msr.apicBase) return this.writeBase(value);
    if (index === msr.tscDeadline) {
      if (!this.context.timeOfTsc) return false;
      this.writeTscDeadline(BigInt.asUintN(64, value));
      return true;
    }
    const number = index - msr.x2apic;
    if (!this.state.x2apic || number < 0 || number > 0xff) return false;
    if (number === register.icrLow) return this.writeX2Icr(value);
    const writable = x2Writable[number];
    if (writable === undefined || (value & ~BigInt(writable)) !== 0n) return false;
    if (number !== register.selfIpi) return this.writeRegister(number, Number(value));
    const vector = Number(value);
    if (vector < 16) this.raiseError(error.sendIllegalVector);
    else this.accept(vector, false);
    return true;
  }

  writeX2Icr(value: bigint): boolean {
    const low = Number(value & 0xffffffffn);
    if (low & ~0x000ccfff) return false;
    this.state.icrLow = low;
    this.state.icrHigh = Number(value >> 32n & 0xffffffffn);
    this.send();
    return true;
  }

  /** IA32_APIC_BASE (SDM 3A figure 11-26). */
  readBase(): bigint {
    const { base, enabled, x2apic, bootstrap } = this.state;
    const flags = (enabled ? 0x800 : 0) | (x2apic ? 0x400 : 0) | (bootstrap ? 0x100 : 0);
    return BigInt(base) | BigInt(flags);
  }

  /** Changes of mode that SDM 3A 11.12.5 does not allow give false: #GP(0). */
  writeBase(value: bigint): boolean {
    if (value >> PHYSICAL_BITS !== 0n || value & 0x2ffn) return false;
    const s = this.state;
    const [enable, extend] = [(value & 0x800n) !== 0n, (value & 0x400n) !== 0n];
    if (extend && (!enable || this.options.x2apic === false)) return false;
    if (s.x2apic && enable && !extend) return false;
    if (!s.enabled && extend) return false;
    s.base = Number(value & ~0xfffn);
    // What software wrote as its id lasts neither in x2APIC mode nor through being disabled (SDM 3A
    // 11.4.3, 11.12.5.1).
    if (extend || !enable) s.id = this.options.id ?? 0;
    if (s.enabled && !enable) {
      Object.assign(s, registersAfterReset(), { lint: s.lint });
      this.context.priority?.(0);
      this.context.reschedule?.();
    }
    s.enabled = enable;
    s.x2apic = extend;
    this.context.changed?.();
    return true;
  }

  /** INIT: as after power-up, but the id and IA32_APIC_BASE stay. */
  init(): void {
    Object.assign(this.state, registersAfterReset(), { lint: this.state.lint });
    this.context.priority?.(0);
    this.context.reschedule?.();
    this.context.changed?.();
  }

  reset(): void {
    const { lint } = this.state;
    Object.assign(this.state, {
      ...registersAfterReset(),
      lint,
      id: this.options.id ?? 0,
      enabled: true,
      x2apic: false,
      base: 0xfee00000,
      signals: noSignals(),
    });
    this.context.priority?.(0);
    this.context.reschedule?.();
    this.context.changed?.();
  }

  /** As firmware leaves the bootstrap processor: LINT0 is ExtINT (the 8259), LINT1 is NMI. */
  virtualWire(): void {
    this.writeRegister(register.svr, SOFTWARE_ENABLED | 0xff);
    this.writeRegister(register.lvtLint0, deliveryMode.extInt << 8);
    this.writeRegister(register.lvtLint1, deliveryMode.nmi << 8);
  }

  show(): string {
    const s = this.state;
    const hex = (value: number) => "0x" + value.toString(16);
    const vectors = (words: number[]) => {
      const set = Array.from({ length: 256 }, (_, i) => i).filter((i) => getBit(words, i));
      return set.map(hex).join(" ") || "none";
    };
    const mode = !s.enabled ? "disabled" : s.x2apic ? "x2APIC" : "xAPIC";
    const timer = s.timerNext === Infinity ? "stopped" : `next at ${s.timerNext} ns`;
    return [
      `${this.name}: id ${s.id}, ${mode}, ${this.softwareEnabled ? "on" : "off"} by software, ` +
      `tpr ${hex(s.tpr)}, ppr ${hex(this.processorPriority)}`,
      `  requested ${vectors(s.irr)}; in service ${vectors(s.isr)}`,
      `  timer ${["one-shot", "periodic", "tsc-deadline", "?"][this.timerMode()]}, ${timer}`,
      ...s.lvt.map((entry, i) =>
        `  lvt ${lvtNames[i].padEnd(11)} ${hex(entry)}${entry & LVT_MASKED ? " masked" : ""}`
      ),
    ].join("\n");
  }

  [Symbol.for("Deno.customInspect")](): string {
    return this.show();
  }
}

function fixedSelf(vector: number): InterruptMessage {
  return { vector, mode: deliveryMode.fixed, level: false, destination: 0, logical: false };
}

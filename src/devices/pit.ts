/**
 * The 8254 programmable interval timer, with port 61h (speaker gate, refresh toggle, NMI sources).
 * Source: Intel 82C54 data sheet (231244); port 61h: IBM PC/AT Technical Reference, and NMI_SC of
 * the 82801 (ICH) data sheets.
 *
 * @module
 */
import {
  type DeviceContext,
  DeviceModel,
  type PortRange,
  type Ranges,
  type Size,
  table,
  TICKS,
  ticksAt,
  timeOfTick,
} from "./device.ts";

/** Input clock in Hz. */
export const pitFrequency = 1193182;

/** One counter. Times are ticks of the input clock since guest time 0. */
export interface PitCounter {
  /** 0 to 5. */
  mode: number;
  bcd: boolean;
  /** 1 low byte, 2 high byte, 3 low then high. */
  access: number;
  /** Counts of one cycle, 1 to 65536 (10000 in BCD). */
  reload: number;
  /** Count to be taken at tick `renewAt` (modes 2, 3) or at the trigger (1, 5); 0 if none. */
  next: number;
  renewAt: number;
  /** Mode 3: `startHigh` from `renewAt` on. */
  renewHigh: boolean;
  /** A count is loaded and counts (or is paused by the gate). */
  armed: boolean;
  /** The tick at which the count was loaded. */
  start: number;
  /** Mode 3: the output during the first half. */
  startHigh: boolean;
  /** Ticks already counted when the gate stopped it; -1 while it runs. */
  paused: number;
  gate: boolean;
  /** First byte of a two-byte write; -1 if none. */
  low: number;
  /** The next read gives the high byte. */
  readHigh: boolean;
  /** Latched count (as read, 16 bits) and status (8 bits); -1 if none. */
  latch: number;
  status: number;
}

/** State of {@linkcode Pit}. */
export interface PitState {
  counters: PitCounter[];
  /** The level last driven on IRQ 0. */
  irq: boolean;
  /** The tick up to which counter 0's output has been followed. */
  followed: number;
  /** Bits 3 to 0 of port 61h as written. */
  port61: number;
  /** Bits 7 (SERR#) and 6 (IOCHK#) of port 61h: what has been signalled and not been cleared. */
  checks: number;
}

/** Bits 7 and 6 of port 61h with the bits that disable and clear them. */
const CHECKS = { serr: { status: 0x80, off: 4 }, iochk: { status: 0x40, off: 8 } } as const;

/** How the timer is wired. */
export interface PitOptions {
  /** The chipset's NMI request, before port 70h's mask. */
  readonly nmi?: (level: boolean) => void;
}

function counterAfterReset(gate: boolean): PitCounter {
  return {
    mode: 0,
    bcd: false,
    access: 3,
    reload: 65536,
    next: 0,
    renewAt: 0,
    renewHigh: true,
    armed: false,
    start: 0,
    startHigh: true,
    paused: -1,
    gate,
    low: -1,
    readHigh: false,
    latch: -1,
    status: -1,
  };
}

function stateAfterReset(): PitState {
  return {
    counters: [counterAfterReset(true), counterAfterReset(true), counterAfterReset(false)],
    irq: false,
    followed: 0,
    port61: 0,
    checks: 0,
  };
}

/**
 * The timer at ports 40h to 43h and the system control port 61h.
 *
 * A counter does not tick: its value and output follow from guest time. IRQ 0 is counter 0's
 * output, and both its edges are deadlines.
 */
export class Pit extends DeviceModel<PitState> {
  readonly name = "pit";
  readonly version = 2;
  override readonly ranges: Ranges = {
    mode: [0, 5],
    access: [1, 3],
    reload: [1, 0x10000],
    next: [0, 0x10000],
    renewAt: TICKS,
    start: TICKS,
    followed: TICKS,
    paused: [-1, TICKS[1]],
    low: [-1, 255],
    latch: [-1, 0xffff],
    status: [-1, 255],
  };
  override readonly ports: readonly PortRange[] = [[0x40, 0x43], [0x61, 0x61]];

  constructor(readonly context: DeviceContext, readonly options: PitOptions = {}) {
    super(stateAfterReset());
  }

  /** The chipset requests an NMI: SERR# or IOCHK# has been signalled. */
  get nmi(): boolean {
    return this.state.checks !== 0;
  }

  /**
   * Signals SERR# (a PCI function's system error) or IOCHK# (an ISA card's, or memory parity): an
   * NMI, unless port 61h or 70h disables it.
   */
  check(line: keyof typeof CHECKS): void {
    const { status, off } = CHECKS[line];
    if (!(this.state.port61 & off)) this.#setChecks(this.state.checks | status);
  }

  #setChecks(checks: number): void {
    const before = this.nmi;
    this.state.checks = checks;
    if (this.nmi !== before) this.options.nmi?.(this.nmi);
  }

  tick(): number {
    return ticksAt(this.context.now(), pitFrequency);
  }

  read(port: number, _size: Size): number {
    this.run(this.context.now());
    if (port === 0x61) return this.readControl();
    return port === 0x43 ? 0xff : readCounter(this.state.counters[port & 3], this.tick());
  }

  /**
   * Bit 4 toggles with every refresh request (15.085 us), bit 5 is counter 2's output, bits 6 and 7
   * are IOCHK# and SERR#.
   */
  readControl(): number {
    const refresh = Math.floor(this.context.now() / 15085) % 2;
    const speaker = output(this.state.counters[2], this.tick()) ? 1 : 0;
    return this.state.port61 | refresh << 4 | speaker << 5 | this.state.checks;
  }

  write(port: number, _size: Size, value: number): void {
    this.run(this.context.now());
    const { counters } = this.state;
    const tick = this.tick();
    if (port === 0x61) {
      this.state.port61 = value & 0x0f;
      setGate(counters[2], (value & 1) !== 0, tick);
      // A source that is disabled is cleared.
      for (const { status, off } of Object.values(CHECKS)) {
        if (value & off) this.#setChecks(this.state.checks & ~status);
      }
    } else if (port !== 0x43) {
      writeCounter(counters[port & 3], value, tick);
    } else if (value >= 0xc0) {
      for (let i = 0; i < 3; i++) {
        if (!(value >> i + 1 & 1)) continue;
        if (!(value & 0x10)) latchStatus(counters[i], tick);
        if (!(value & 0x20)) latchCount(counters[i], tick);
      }
    } else if ((value & 0x30) === 0) {
      latchCount(counters[value >> 6], tick);
    } else {
      control(counters[value >> 6], value, tick);
    }
    this.drive(tick);
    this.context.reschedule();
  }

  /** Guest ns at which counter 0's output changes next. */
  override deadline(): number {
    const next = nextChange(this.state.counters[0], this.state.followed);
    return next === Infinity ? Infinity : timeOfTick(next, pitFrequency);
  }

  override run(now: number): void {
    const tick = ticksAt(now, pitFrequency);
    const next = nextChange(this.state.counters[0], this.state.followed);
    for (const counter of this.state.counters) renew(counter, tick);
    // More than one change since: a pulse, of which the final level is driven below.
    if (next <= tick && output(this.state.counters[0], tick) === this.state.irq) {
      this.setIrq(!this.state.irq);
    }
    this.drive(tick);
  }

  drive(tick: number): void {
    this.state.followed = tick;
    this.setIrq(output(this.state.counters[0], tick));
  }

  setIrq(level: boolean): void {
    if (level === this.state.irq) return;
    this.state.irq = level;
    this.context.irq(0, level);
  }

  /** The counting element of counter `index`, 0 to 2, now: 0 to 65535, or 9999 in BCD. */
  count(index: number): number {
    return currentCount(this.state.counters[index], this.tick());
  }

  /** The output of counter `index`, 0 to 2, now. */
  output(index: number): boolean {
    this.run(this.context.now());
    return output(this.state.counters[index], this.tick());
  }

  reset(): void {
    const { irq, checks } = this.state;
    this.state = { ...stateAfterReset(), irq, checks };
    this.#setChecks(0);
    this.drive(this.tick());
    this.context.reschedule();
  }

  show(): string {
    const tick = this.tick();
    const rows: (string | number)[][] = [[
      "counter",
      "mode",
      "reload",
      "Hz",
      "count",
      "gate",
      "out",
    ]];
    this.state.counters.forEach((c, i) => {
      const hertz = c.armed ? (pitFrequency / c.reload).toFixed(2) : "-";
      const count = currentCount(c, tick);
      rows.push([i, c.mode, c.reload, hertz, count, c.gate ? 1 : 0, output(c, tick) ? 1 : 0]);
    });
    const nmi = this.nmi ? ", NMI requested" : "";
    return `pit: ${pitFrequency} Hz${nmi}\n${table(rows)}`;
  }
}

function modulus(c: PitCounter): number {
  return c.bcd ? 10000 : 65536;
}

/** Ticks counted since the count was loaded; negative before the load. */
function elapsed(c: PitCounter, tick: number): number {
  return c.paused >= 0 ? c.paused : tick - c.start;
}

/** Length of the first half of mode 3's cycle: its high half is one longer when odd. */
function firstHalf(c: PitCounter): number {
  return c.startHigh ? Math.ceil(c.reload / 2) : Math.floor(c.reload / 2);
}

function output(c: PitCounter, tick: number): boolean {
  const n = c.reload;
  if (!c.armed) return c.mode !== 0;
  const e = elapsed(c, tick);
  switch (c.mode) {
    case 0:
      return e >= n;
    case 1:
      return e < 0 || e >= n;
    case 2:
      return !c.gate || e < 0 || e % n !== n - 1;
    case 3:
      return !c.gate || e < 0 || (e % n < firstHalf(c)) === c.startHigh;
    default: // 4 and 5: low for one clock at the terminal count
      return e !== n;
  }
}

/** The tick after `tick` at which the output changes, while nothing is written. */
function nextChange(c: PitCounter, tick: number): number {
  if (!c.armed || c.paused >= 0) return Infinity;
  const n = c.reload;
  const e = tick - c.start;
  const after = (...moments: number[]) => {
    for (const moment of moments) if (moment > e) return c.start + moment;
    return Infinity;
  };
  switch (c.mode) {
    case 0:
      return after(n);
    case 1:
      return after(0, n);
    case 2: {
      if (n === 1) return Infinity; // not allowed by the data sheet: the output stays low
      const cycle = Math.max(0, Math.floor(e / n)) * n;
      return after(cycle + n - 1, cycle + n, cycle + 2 * n - 1);
    }
    case 3: {
      const cycle = Math.max(0, Math.floor(e / n)) * n;
      const half = firstHalf(c);
      if (half === 0 || half === n) return Infinity;
      return after(cycle + half, cycle + n, cycle + n + half);
    }
    default:
      return after(n, n + 1);
  }
}

/** Modes 2 and 3: a count written meanwhile takes over at the end of the (half) cycle. */
function renew(c: PitCounter, tick: number): void {
  if (c.next === 0 || !c.armed || c.paused >= 0 || (c.mode !== 2 && c.mode !== 3)) return;
  if (tick < c.renewAt) return;
  c.start = c.renewAt;
  c.startHigh = c.renewHigh;
  c.reload = c.next;
  c.next = 0;
}

function planRenewal(c: PitCounter, count: number, tick: number): void {
  const e = Math.max(0, elapsed(c, tick));
  const cycle = Math.floor(e / c.reload) * c.reload;
  const firstOfTwo = c.mode === 3 && e - cycle < firstHalf(c);
  c.next = count;
  c.renewAt = c.start + cycle + (firstOfTwo ? firstHalf(c) : c.reload);
  c.renewHigh = firstOfTwo ? !c.startHigh : c.startHigh;
}

/** The gate input. Modes 0 and 4 pause, 2 and 3 stop and start afresh, 1 and 5 are triggered. */
function setGate(c: PitCounter, gate: boolean, tick: number): void {
  if (gate === c.gate) return;
  c.gate = gate;
  const triggered = c.mode === 1 || c.mode === 5;
  if (!gate) {
    if (c.armed && !triggered) c.paused = Math.max(0, elapsed(c, tick));
  } else if (c.mode === 0 || c.mode === 4) {
    if (c.paused >= 0) c.start = tick - c.paused;
    c.paused = -1;
  } else if (c.armed || (triggered && c.next !== 0)) {
    start(c, c.next || c.reload, tick);
  }
}

/** Loads the count at the next clock. */
function start(c: PitCounter, count: number, tick: number): void {
  c.reload = count;
  c.next = 0;
  c.armed = true;
  c.start = tick + 1;
  c.startHigh = true;
  c.paused = -1;
}

function control(c: PitCounter, value: number, tick: number): void {
  const mode = value >> 1 & 7;
  const { reload, gate } = c;
  Object.assign(c, counterAfterReset(gate), {
    reload,
    mode: mode > 5 ? mode - 4 : mode,
    access: value >> 4 & 3,
    bcd: (value & 1) !== 0,
    start: tick,
  });
}

function writeCounter(c: PitCounter, value: number, tick: number): void {
  if (c.access === 3 && c.low < 0) {
    c.low = value;
    if (c.mode === 0) c.armed = false; // the first byte stops the count, the output falls
    return;
  }
  const raw = c.access === 3 ? c.low | value << 8 : c.access === 2 ? value << 8 : value;
  c.low = -1;
  const count = (c.bcd ? fromBcd(raw) : raw) || modulus(c);
  if (c.mode === 1 || c.mode === 5) {
    c.next = count;
    return;
  }
  if (c.armed && (c.mode === 2 || c.mode === 3)) {
    if (c.paused >= 0) c.next = count;
    else planRenewal(c, count, tick);
    return;
  }
  start(c, count, tick);
  if (!c.gate) c.paused = 0;
}

function fromBcd(raw: number): number {
  return (raw >> 12) * 1000 + (raw >> 8 & 15) * 100 + (raw >> 4 & 15) * 10 + (raw & 15);
}

function toBcd(value: number): number {
  const digit = (unit: number) => Math.floor(value / unit) % 10;
  return digit(1000) << 12 | digit(100) << 8 | digit(10) << 4 | digit(1);
}

/** The counting element's value, 0 to 65535 (9999). */
function currentCount(c: PitCounter, tick: number): number {
  const e = c.armed ? Math.max(0, elapsed(c, tick)) : 0;
  const wrap = (value: number) => (value % modulus(c) + modulus(c)) % modulus(c);
  if (c.mode === 2) return wrap(c.reload - e % c.reload);
  if (c.mode !== 3) return wrap(c.reload - e);
  const half = firstHalf(c);
  const within = e % c.reload;
  return wrap(c.reload - c.reload % 2 - 2 * (within < half ? within : within - half));
}

function asRead(c: PitCounter, tick: number): number {
  const value = currentCount(c, tick);
  return c.bcd ? toBcd(value) : value;
}

function latchCount(c: PitCounter, tick: number): void {
  if (c.latch < 0) c.latch = asRead(c, tick);
}

/** Status byte: output, null count, access, mode, BCD. */
function latchStatus(c: PitCounter, tick: number): void {
  if (c.status >= 0) return;
  const nullCount = c.next !== 0 || !c.armed || elapsed(c, tick) < 0;
  c.status = (output(c, tick) ? 0x80 : 0) | (nullCount ? 0x40 : 0) | c.access << 4 | c.mode << 1 |
    (c.bcd ? 1 : 0);
}

function readCounter(c: PitCounter, tick: number): number {
  if (c.status >= 0) {
    const status = c.status;
    c.status = -1;
    return status;
  }
  const value = c.latch >= 0 ? c.latch : asRead(c, tick);
  const high = c.access === 2 || (c.access === 3 && c.readHigh);
  if (c.access === 3) c.readHigh = !c.readHigh;
  if (c.access !== 3 || high) c.latch = -1;
  return high ? value >> 8 : value & 0xff;
}

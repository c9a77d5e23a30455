/**
 * The MC146818 real-time clock with 128 bytes of battery-backed memory (the PC's CMOS).
 * Source: Motorola MC146818 data sheet (ADI856R2); the PC's use of the bytes: PC/AT Technical
 * Reference, and the extended sizes (30h, 34h, 5Bh) as today's firmware fills them.
 *
 * @module
 */
import { PC } from "../abi/boot/e820.ts";
import {
  DEADLINE,
  type DeviceContext,
  DeviceModel,
  hex,
  type PortRange,
  type Ranges,
  type Size,
  table,
  TICKS,
  ticksAt,
  timeOfTick,
} from "./device.ts";

/** State of {@linkcode Rtc}. */
export interface RtcState {
  /** Register selected through port 70h, and that port's NMI mask. */
  index: number;
  nmiMasked: boolean;
  /** Registers 0 to 0Dh, then the memory; the time registers are the time. */
  memory: Uint8Array;
  /** Guest ns at which the next second begins. */
  nextSecond: number;
  /** Number of the last periodic event, counted from guest time 0. */
  period: number;
  irq: boolean;
}

/** What firmware would have found out about the machine. */
export interface RtcOptions {
  /** The time at guest time 0: seconds since 1970-01-01 00:00 UTC. */
  readonly unixTime: number;
  /** Bytes of memory, for the size fields. */
  readonly memory?: number;
  readonly cpus?: number;
  /** Port 70h's NMI mask was changed. */
  readonly nmiMask?: (masked: boolean) => void;
}

const A = 10, B = 11, C = 12, D = 13, CENTURY = 0x32;
const SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, BINARY = 4, HOURS_24 = 2;
const PF = 0x40, AF = 0x20, UF = 0x10;
/** The update cycle's announcement and length (data sheet, table 3): 244 + 1984 us. */
const updateTime = 2_228_000;
const crystal = 32768;

/**
 * The clock at ports 70h and 71h, IRQ 8. It keeps guest time, starting from `unixTime`.
 */
export class Rtc extends DeviceModel<RtcState> {
  readonly name = "rtc";
  readonly version = 1;
  override readonly ranges: Ranges = { index: [0, 127], nextSecond: DEADLINE, period: TICKS };
  override readonly ports: readonly PortRange[] = [[0x70, 0x71]];

  constructor(readonly context: DeviceContext, readonly options: RtcOptions) {
    super({
      index: D,
      nmiMasked: false,
      memory: new Uint8Array(128),
      nextSecond: 1e9,
      period: 0,
      irq: false,
    });
    if (!Number.isSafeInteger(options.unixTime)) {
      throw new RangeError(`unixTime is ${options.unixTime}, expected whole seconds`);
    }
    const { memory } = this.state;
    memory[A] = 0x26; // 32768 Hz, 1024 Hz periodic
    memory[B] = HOURS_24;
    memory[D] = 0x80; // valid RAM and time
    fillSizes(memory, options.memory ?? 0, options.cpus ?? 1);
    this.setTime(options.unixTime);
  }

  /** The clock's time: seconds since 1970 UTC. */
  get time(): number {
    this.run(this.context.now());
    return decodeTime(this.state.memory);
  }

  /** Sets the time registers, in the format that register B selects. */
  setTime(unixTime: number): void {
    encodeTime(this.state.memory, unixTime);
  }

  /** The clock stands still: SET, or the divider chain held in reset. */
  stopped(): boolean {
    const { memory } = this.state;
    return (memory[B] & SET) !== 0 || (memory[A] & 0x70) !== 0x20;
  }

  read(port: number, _size: Size): number {
    if ((port & 1) === 0) return 0xff; // port 70h is write-only
    this.run(this.context.now());
    const { index, memory } = this.state;
    if (index === A) return memory[A] & 0x7f | (this.updating() ? 0x80 : 0);
    if (index !== C) return memory[index];
    const flags = memory[C];
    memory[C] = 0;
    this.update();
    return flags;
  }

  /** UIP: an update is about to begin or under way. */
  updating(): boolean {
    const left = this.state.nextSecond - this.context.now();
    return !this.stopped() && left > 0 && left <= updateTime;
  }

  write(port: number, _size: Size, value: number): void {
    if ((port & 1) === 0) {
      this.state.index = value & 0x7f;
      this.#maskNmi((value & 0x80) !== 0);
      return;
    }
    const now = this.context.now();
    this.run(now);
    const { index, memory } = this.state;
    if (index === A) this.writeA(value, now);
    else if (index === B) this.writeB(value, now);
    else if (index !== C && index !== D) memory[index] = value;
    this.update();
  }

  writeA(value: number, now: number): void {
    const held = this.stopped();
    this.state.memory[A] = value & 0x7f;
    // The first update comes half a second after the divider is released.
    if (held && !this.stopped()) this.state.nextSecond = now + 5e8;
    this.state.period = this.periodIndex(now);
  }

  writeB(value: number, now: number): void {
    const held = this.stopped();
    if (value & SET) value &= ~UIE;
    this.state.memory[B] = value;
    if (held && !this.stopped() && this.state.nextSecond <= now) {
      const missed = Math.floor((now - this.state.nextSecond) / 1e9) + 1;
      this.state.nextSecond += missed * 1e9; // the divider ran on meanwhile
    }
  }

  /** Crystal ticks between periodic events; 0 if off. */
  periodTicks(): number {
    const a = this.state.memory[A];
    const rate = a & 15;
    if (rate === 0 || (a & 0x60) === 0x60) return 0;
    return rate < 3 ? 1 << rate + 6 : 1 << rate - 1;
  }

  periodIndex(now: number): number {
    const ticks = this.periodTicks();
    return ticks === 0 ? 0 : Math.floor(ticksAt(now, crystal) / ticks);
  }

  override deadline(): number {
    const b = this.state.memory[B];
    const ticks = this.periodTicks();
    const second = b & (AIE | UIE) && !this.stopped() ? this.state.nextSecond : Infinity;
    const periodic = b & PIE && ticks > 0
      ? timeOfTick((this.state.period + 1) * ticks, crystal)
      : Infinity;
    return Math.min(second, periodic);
  }

  override run(now: number): void {
    const { memory } = this.state;
    const period = this.periodIndex(now);
    if (period > this.state.period) {
      memory[C] |= PF;
      this.state.period = period;
    }
    if (now >= this.state.nextSecond && !this.stopped()) this.advance(now);
    this.update();
  }

  /** Seconds have begun: the time moves on, the alarm is compared with each of them. */
  advance(now: number): void {
    const { memory } = this.state;
    const seconds = Math.floor((now - this.state.nextSecond) / 1e9) + 1;
    this.state.nextSecond += seconds * 1e9;
    const time = decodeTime(memory) + seconds;
    // The alarm repeats daily at the least: a day's last seconds tell all.
    for (let i = Math.min(seconds, 86400) - 1; i >= 0 && !(memory[C] & AF); i--) {
      if (i > 0 && alarmIsOff(memory)) continue;
      encodeTime(memory, time - i);
      if (alarmMatches(memory)) memory[C] |= AF;
    }
    encodeTime(memory, time);
    memory[C] |= UF;
  }

  update(): void {
    const { memory } = this.state;
    const level = (memory[B] & memory[C] & (PIE | AIE | UIE)) !== 0;
    memory[C] = memory[C] & 0x7f | (level ? 0x80 : 0);
    if (level !== this.state.irq) {
      this.state.irq = level;
      this.context.irq(8, level);
    }
    if (this.deadline() < Infinity) this.context.reschedule();
  }

  /** The RESET pin: interrupts off; time and memory are battery-backed and stay. */
  reset(): void {
    const { memory } = this.state;
    memory[B] &= ~(PIE | AIE | UIE | 8);
    memory[C] = 0;
    this.state.index = D;
    this.#maskNmi(false);
    this.update();
  }

  #maskNmi(masked: boolean): void {
    if (masked === this.state.nmiMasked) return;
    this.state.nmiMasked = masked;
    this.options.nmiMask?.(masked);
  }

  show(): string {
    const { memory } = this.state;
    const date = new Date(decodeTime(memory) * 1000).toISOString();
    const rows: string[][] = [];
    for (let row = 0; row < 128; row += 16) {
      rows.push([hex(row), ...Array.from(memory.subarray(row, row + 16), (byte) => hex(byte))]);
    }
    return `rtc: ${date.slice(0, 19).replace("T", " ")} UTC, IRQ 8 ` +
      `${this.state.irq ? "asserted" : "idle"}\n${table(rows)}`;
  }
}

function fillSizes(memory: Uint8Array, bytes: number, cpus: number): void {
  const word = (index: number, value: number) => {
    memory[index] = value & 0xff;
    memory[index + 1] = value >> 8 & 0xff;
  };
  const above = (limit: number, unit: number) =>
    Math.min(0xffff, Math.max(0, Math.floor((bytes - limit) / unit)));
  word(0x15, 640); // KB below 1 MB
  word(0x17, above(0x100000, 1024)); // KB above 1 MB
  word(0x30, above(0x100000, 1024));
  // 64 KB above 16 MB and below 4 GB, and above 4 GB.
  word(0x34, Math.min(above(0x1000000, 65536), (PC.lowRamEnd - 0x1000000) / 65536));
  const high = Math.floor(Math.max(0, bytes - PC.lowRamEnd) / 65536);
  word(0x5b, high & 0xffff);
  memory[0x5d] = high >>> 16 & 0xff;
  memory[0x14] = 0x06; // FPU and pointing device; the video adapter has its own BIOS
  memory[0x5f] = cpus - 1;
  let sum = 0;
  for (let i = 0x10; i < 0x2e; i++) sum += memory[i];
  memory[0x2e] = sum >> 8 & 0xff;
  memory[0x2f] = sum & 0xff;
}

const toBcd = (value: number) => Math.floor(value / 10) << 4 | value % 10;
const fromBcd = (value: number) => (value >> 4) * 10 + (value & 15);

function coded(memory: Uint8Array, value: number): number {
  return memory[B] & BINARY ? value : toBcd(value);
}

function plain(memory: Uint8Array, index: number): number {
  return memory[B] & BINARY ? memory[index] : fromBcd(memory[index]);
}

function hours(memory: Uint8Array, index: number): number {
  if (memory[B] & HOURS_24) return plain(memory, index);
  const raw = memory[index] & 0x7f;
  const twelve = (memory[B] & BINARY ? raw : fromBcd(raw)) % 12;
  return memory[index] & 0x80 ? twelve + 12 : twelve;
}

/** The time registers as seconds since 1970 UTC; registers out of range carry over. */
function decodeTime(memory: Uint8Array): number {
  const year = plain(memory, CENTURY) * 100 + plain(memory, 9);
  return Date.UTC(
    year,
    plain(memory, 8) - 1,
    plain(memory, 7),
    hours(memory, 4),
    plain(memory, 2),
    plain(memory, 0),
  ) / 1000;
}

function encodeTime(memory: Uint8Array, unixTime: number): void {
  const date = new Date(unixTime * 1000);
  const hour = date.getUTCHours();
  const set = (index: number, value: number) => memory[index] = coded(memory, value);
  set(0, date.getUTCSeconds());
  set(2, date.getUTCMinutes());
  if (memory[B] & HOURS_24) set(4, hour);
  else memory[4] = coded(memory, hour % 12 || 12) | (hour >= 12 ? 0x80 : 0);
  set(6, date.getUTCDay() + 1);
  set(7, date.getUTCDate());
  set(8, date.getUTCMonth() + 1);
  set(9, date.getUTCFullYear() % 100);
  set(CENTURY, Math.floor(date.getUTCFullYear() / 100) % 100);
}

/** An alarm byte of C0h or more matches everything. */
function alarmMatches(memory: Uint8Array): boolean {
  return [0, 2, 4].every((time) => {
    const alarm = memory[time + 1];
    return alarm >= 0xc0 || alarm === memory[time];
  });
}

/** No time of day can match: hours, minutes or seconds are out of range. */
function alarmIsOff(memory: Uint8Array): boolean {
  const beyond = (index: number, limit: number) =>
    memory[index] < 0xc0 && plain(memory, index) >= limit;
  return beyond(1, 60) || beyond(3, 60) || (memory[5] < 0xc0 && hours(memory, 5) >= 24);
}

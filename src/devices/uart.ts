/**
 * The 16550A serial port.
 * Source: National Semiconductor PC16550D data sheet (TL/C/8652).
 *
 * @module
 */
import { appended } from "./byte_queue.ts";
import {
  DEADLINE,
  type DeviceContext,
  DeviceModel,
  hex,
  type PortRange,
  type Ranges,
  type Size,
  table,
  WORD,
} from "./device.ts";

/** State of {@linkcode Uart}. */
export interface UartState {
  /** Interrupt enable, bits 3 to 0. */
  ier: number;
  /** FIFO control as last written; bit 0: FIFOs on. */
  fcr: number;
  lcr: number;
  /** Modem control, bits 4 to 0. */
  mcr: number;
  /** Modem status: lines in bits 7 to 4, changes in bits 3 to 0. */
  msr: number;
  scratch: number;
  divisor: number;
  /** Line status bits 4 to 1 that a read clears (overrun, parity, framing, break). */
  errors: number;
  /** Received, waiting to be read: data in bits 7 to 0, line status bits in 15 to 8. */
  fifo: number[];
  /** Arrived from outside and not yet in the FIFO. */
  queue: Uint8Array;
  /** The transmitter-empty interrupt waits to be seen. */
  thrEmpty: boolean;
  /** Guest ns of the character timeout; Infinity if none is running. */
  timeoutAt: number;
  timeout: boolean;
  irq: boolean;
}

/** How one port is wired. */
export interface UartOptions {
  /** First of eight ports. */
  readonly port: number;
  readonly irq: number;
  readonly name?: string;
  /** Takes each transmitted byte. */
  readonly output?: (byte: number) => void;
}

/** The PC's four serial ports. */
export const serialPorts = {
  com1: { name: "com1", port: 0x3f8, irq: 4 },
  com2: { name: "com2", port: 0x2f8, irq: 3 },
  com3: { name: "com3", port: 0x3e8, irq: 4 },
  com4: { name: "com4", port: 0x2e8, irq: 3 },
} as const;

const LOOP = 0x10, OUT2 = 0x08;
const DATA_READY = 1, OVERRUN = 2, BREAK = 0x10, EMPTY = 0x60, FIFO_ERROR = 0x80;
const triggers = [1, 4, 8, 14];

function stateAfterReset(): UartState {
  return {
    ier: 0,
    fcr: 0,
    lcr: 0,
    mcr: 0,
    msr: 0xb0, // DCD, DSR, CTS: something is connected
    scratch: 0,
    divisor: 12,
    errors: 0,
    fifo: [],
    queue: new Uint8Array(),
    thrEmpty: false,
    timeoutAt: Infinity,
    timeout: false,
    irq: false,
  };
}

/**
 * A serial port with FIFOs.
 *
 * A byte written is transmitted at once: the holding register is empty again in the same guest
 * nanosecond, so a console runs as fast as the guest can write. Input waits in `state.queue` and
 * fills the FIFO as the guest empties it; nothing is lost. As on a PC, MCR's OUT2 gates the
 * interrupt.
 */
export class Uart extends DeviceModel<UartState> {
  readonly name: string;
  readonly version = 2;
  override readonly ranges: Ranges = { fifo: WORD, divisor: WORD, timeoutAt: DEADLINE };
  readonly queues = ["fifo", "queue"];
  override readonly ports: readonly PortRange[];

  constructor(readonly context: DeviceContext, readonly options: UartOptions = serialPorts.com1) {
    super(stateAfterReset());
    this.name = options.name ?? `uart-${hex(options.port)}`;
    this.ports = [[options.port, options.port + 7]];
  }

  /** Bytes (or text, as UTF-8) from outside. */
  receive(input: Uint8Array | string): void {
    const bytes = typeof input === "string" ? new TextEncoder().encode(input) : input;
    this.state.queue = appended(this.state.queue, bytes);
    this.fill();
    this.update();
  }

  /** A break condition on the line: a zero with BI set (Linux's console: magic SysRq). */
  receiveBreak(): void {
    this.arrive(BREAK << 8);
    this.update();
  }

  /** Nanoseconds one character takes on the line. */
  characterTime(): number {
    const bits = 7 + (this.state.lcr & 3) + (this.state.lcr >> 2 & 1) + (this.state.lcr >> 3 & 1);
    return Math.round(bits * 16 * (this.state.divisor || 65536) * 1e9 / 1843200);
  }

  read(port: number, _size: Size): number {
    this.run(this.context.now());
    const s = this.state;
    switch (port & 7) {
      case 0:
        return s.lcr & 0x80 ? s.divisor & 0xff : this.readData();
      case 1:
        return s.lcr & 0x80 ? s.divisor >> 8 : s.ier;
      case 2:
        return this.readIdentification();
      case 3:
        return s.lcr;
      case 4:
        return s.mcr;
      case 5: {
        const status = this.lineStatus();
        s.errors = 0;
        if (s.fifo.length > 0) s.fifo[0] &= 0xff;
        this.update();
        return status;
      }
      case 6: {
        const status = s.msr;
        s.msr &= 0xf0;
        this.update();
        return status;
      }
      default:
        return s.scratch;
    }
  }

  write(port: number, _size: Size, value: number): void {
    this.run(this.context.now());
    const s = this.state;
    switch (port & 7) {
      case 0:
        if (s.lcr & 0x80) s.divisor = s.divisor & 0xff00 | value;
        else this.transmit(value);
        break;
      case 1:
        if (s.lcr & 0x80) {
          s.divisor = s.divisor & 0xff | value << 8;
        } else {
          // Enabling the transmitter's interrupt while it is empty raises it.
          if (value & ~s.ier & 2) s.thrEmpty = true;
          s.ier = value & 0x0f;
        }
        break;
      case 2:
        this.writeFifoControl(value);
        break;
      case 3:
        // A break sent in loopback comes back.
        if (value & ~s.lcr & 0x40 && s.mcr & LOOP) this.arrive(BREAK << 8);
        s.lcr = value;
        break;
      case 4:
        s.mcr = value & 0x1f;
        this.setModemLines(s.mcr & LOOP ? loopedLines(s.mcr) : 0xb0);
        this.fill();
        break;
      case 7:
        s.scratch = value;
        break;
    }
    this.update();
  }

  transmit(byte: number): void {
    if (this.state.mcr & LOOP) this.arrive(byte);
    else this.options.output?.(byte);
    // Full for no time at all, yet long enough for a new edge on the interrupt line.
    this.state.thrEmpty = false;
    this.update();
    this.state.thrEmpty = true;
  }

  writeFifoControl(value: number): void {
    const s = this.state;
    const toggled = ((value ^ s.fcr) & 1) !== 0;
    if (toggled || (value & 3) === 3) {
      s.fifo = [];
      s.timeout = false;
      s.timeoutAt = Infinity;
    }
    s.fcr = value & 1 ? value & 0xc9 : 0;
    this.fill();
  }

  readData(): number {
    const s = this.state;
    const entry = s.fifo.shift() ?? 0;
    s.timeout = false;
    s.timeoutAt = Infinity;
    this.fill();
    this.restartTimeout();
    this.update();
    return entry & 0xff;
  }

  capacity(): number {
    return this.state.fcr & 1 ? 16 : 1;
  }

  /** Moves input into the FIFO as far as there is room. */
  fill(): void {
    const s = this.state;
    if (s.mcr & LOOP) return; // the receiver is disconnected from the line
    while (s.queue.length > 0 && s.fifo.length < this.capacity()) {
      const byte = s.queue[0];
      s.queue = s.queue.length > 1 ? s.queue.subarray(1) : new Uint8Array();
      this.arrive(byte);
    }
  }

  arrive(entry: number): void {
    const s = this.state;
    if (s.fifo.length >= this.capacity()) {
      s.errors |= OVERRUN;
      // With FIFOs the new byte is lost; without, it replaces the old one.
      if (!(s.fcr & 1)) s.fifo = [entry];
    } else {
      s.fifo.push(entry);
    }
    this.restartTimeout();
  }

  /** Four character times without traffic and below the trigger level: an interrupt. */
  restartTimeout(): void {
    const s = this.state;
    if (!(s.fcr & 1) || s.fifo.length === 0) return;
    s.timeoutAt = this.context.now() + 4 * this.characterTime();
  }

  lineStatus(): number {
    const s = this.state;
    let status = EMPTY | s.errors;
    if (s.fifo.length > 0) status |= DATA_READY | s.fifo[0] >> 8;
    if (s.fcr & 1 && s.fifo.some((entry) => entry > 0xff)) status |= FIFO_ERROR;
    return status;
  }

  setModemLines(lines: number): void {
    const s = this.state;
    const changed = (s.msr ^ lines) & 0xf0;
    let deltas = changed >> 4 & 0x0b;
    if (changed & s.msr & 0x40) deltas |= 4; // RI counts at its trailing edge
    s.msr = lines | s.msr & 0x0f | deltas;
  }

  /** The interrupt of highest priority as IIR's bits 3 to 0; 1 if none. */
  pending(): number {
    const s = this.state;
    if (s.ier & 4 && this.lineStatus() & 0x1e) return 6;
    if (s.ier & 1) {
      const level = s.fcr & 1 ? triggers[s.fcr >> 6] : 1;
      if (s.fifo.length >= level) return 4;
      if (s.timeout) return 12;
    }
    if (s.ier & 2 && s.thrEmpty) return 2;
    return s.ier & 8 && s.msr & 0x0f ? 0 : 1;
  }

  readIdentification(): number {
    const id = this.pending();
    if (id === 2) {
      this.state.thrEmpty = false;
      this.update();
    }
    return id | (this.state.fcr & 1 ? 0xc0 : 0);
  }

  update(): void {
    const s = this.state;
    const level = this.pending() !== 1 && (s.mcr & (OUT2 | LOOP)) === OUT2;
    if (level !== s.irq) {
      s.irq = level;
      this.context.irq(this.options.irq, level);
    }
    if (this.deadline() < Infinity) this.context.reschedule();
  }

  override deadline(): number {
    return this.state.ier & 1 ? this.state.timeoutAt : Infinity;
  }

  override run(now: number): void {
    const s = this.state;
    if (now < s.timeoutAt) return;
    s.timeout = s.fifo.length > 0;
    s.timeoutAt = Infinity;
    this.update();
  }

  reset(): void {
    const { irq, queue } = this.state;
    this.state = { ...stateAfterReset(), irq, queue };
    this.fill();
    this.update();
  }

  show(): string {
    const s = this.state;
    const baud = Math.round(115200 / (s.divisor || 65536));
    return `${this.name}: port 0x${hex(this.options.port)}, IRQ ${this.options.irq} ` +
      `${s.irq ? "asserted" : "idle"}, ${baud} baud\n` + table([
        ["ier", "iir", "fcr", "lcr", "mcr", "lsr", "msr", "received", "queued"],
        [
          ...[s.ier, this.pending(), s.fcr, s.lcr, s.mcr, this.lineStatus(), s.msr].map((value) =>
            hex(value)
          ),
          s.fifo.length,
          s.queue.length,
        ],
      ]);
  }
}

/** Loopback: RTS is CTS, DTR is DSR, OUT1 is RI, OUT2 is DCD. */
function loopedLines(mcr: number): number {
  return (mcr & 2) << 3 | (mcr & 1) << 5 | (mcr & 4) << 4 | (mcr & 8) << 4;
}

/**
 * ACPI fixed hardware (PM1 event and control, PM timer, SMI command port) and the PC's reset
 * ports CF9h and 92h.
 * Source: ACPI 6.4, 4.8; the reset control register CF9h: Intel ICH data sheets; port 92h: PS/2.
 *
 * @module
 */
import {
  ACPI_PORT,
  ACPI_S5_TYPE,
  ACPI_SCI,
  PM1_SCI_EN,
  PM1_SLP_EN,
  PM1_SLP_TYP_SHIFT,
} from "../abi/boot/acpi.ts";
import {
  type DeviceContext,
  DeviceModel,
  hex,
  type PortRange,
  type Ranges,
  type Size,
  TICKS,
  ticksAt,
  timeOfTick,
  WORD,
} from "./device.ts";

/** The power management timer's clock in Hz. */
export const pmTimerFrequency = 3579545;

/** SLP_TYP values that the \_S3, \_S4 and \_S5 objects must name. */
const sleepType = { s5: ACPI_S5_TYPE, s3: 1, s4: 2 } as const;

/** Bits of PM1 status and enable. */
export const pm1 = {
  timer: 0x0001,
  busMaster: 0x0010,
  global: 0x0020,
  powerButton: 0x0100,
  sleepButton: 0x0200,
  rtc: 0x0400,
  wake: 0x8000,
} as const;

/** Values of the SMI command port that switch ACPI mode, for the FADT. */
const smiCommand = { port: 0xb2, enable: 0xf1, disable: 0xf0 } as const;

/** State of {@linkcode Acpi}. */
export interface AcpiState {
  status: number;
  enable: number;
  control: number;
  /** Number of the timer's last half period whose carry was seen. */
  carry: number;
  /** Last SMI command and its status byte. */
  command: number;
  commandStatus: number;
  /** Reset control register CF9h. */
  resetControl: number;
  /** Port 92h: bit 1 A20. */
  port92: number;
  sci: boolean;
  /** The sleep state last asked for by SLP_EN; -1 if none. */
  slept: number;
}

/** How the block is wired. */
interface AcpiOptions {
  /** First port of the block: event at +0, control at +4, timer at +8. Default 600h. */
  readonly base?: number;
  /** The SCI's line; default 9. */
  readonly irq?: number;
  /** Bits of the timer, as the FADT's TMR_VAL_EXT says; default 32. */
  readonly timerBits?: 24 | 32;
  /** SLP_EN was written with the type of S5. */
  readonly powerOff?: () => void;
  /** SLP_EN was written with another type. */
  readonly sleep?: (type: number) => void;
  readonly reset?: (cause: string) => void;
  /** Port 92h switched the A20 gate. */
  readonly a20?: (enabled: boolean) => void;
}

function stateAfterReset(carry: number): AcpiState {
  return {
    status: 0,
    enable: 0,
    control: 1, // SCI_EN: there is no firmware that would want SMIs
    carry,
    command: 0,
    commandStatus: 0,
    resetControl: 0,
    port92: 2,
    sci: false,
    slept: -1,
  };
}

/** PM1 block, PM timer, SMI command port, and the reset ports. */
export class Acpi extends DeviceModel<AcpiState> {
  readonly name = "acpi";
  readonly version = 1;
  override readonly ranges: Ranges = {
    status: WORD,
    enable: WORD,
    control: WORD,
    carry: TICKS,
    slept: [-1, 7],
  };
  override readonly width: Size = 4;
  override readonly ports: readonly PortRange[];
  readonly base: number;

  constructor(readonly context: DeviceContext, readonly options: AcpiOptions = {}) {
    super(stateAfterReset(0));
    this.base = options.base ?? ACPI_PORT.pm1aEvent;
    this.ports = [
      [this.base, this.base + 5],
      [this.base + 8, this.base + 11],
      [smiCommand.port, smiCommand.port + 1],
      [0x92, 0x92],
      [ACPI_PORT.reset, ACPI_PORT.reset],
    ];
    this.state.carry = this.halfPeriod(context.now());
  }

  /** Value of the PM timer now (24 or 32 bits). */
  get timer(): number {
    return ticksAt(this.context.now(), pmTimerFrequency) % 2 ** this.timerBits();
  }

  timerBits(): number {
    return this.options.timerBits ?? 32;
  }

  halfPeriod(now: number): number {
    return Math.floor(ticksAt(now, pmTimerFrequency) / 2 ** (this.timerBits() - 1));
  }

  /** Presses the power button: an SCI if the guest asked for one. */
  pressPowerButton(): void {
    this.raise(pm1.powerButton);
  }

  pressSleepButton(): void {
    this.raise(pm1.sleepButton);
  }

  raise(bits: number): void {
    this.state.status |= bits;
    this.update();
  }

  /** The block as bytes: status, enable, control, then the timer at 8. */
  byte(offset: number): number {
    const s = this.state;
    if (offset >= 8) return Math.floor(this.timer / 256 ** (offset - 8)) & 0xff;
    const word = [s.status, s.enable, s.control][offset >> 1] ?? 0xffff;
    return word >> (offset & 1) * 8 & 0xff;
  }

  read(port: number, size: Size): number {
    this.run(this.context.now());
    if (port === this.base + 8 && size === 4) return this.timer;
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + this.readByte(port + i);
    return value;
  }

  readByte(port: number): number {
    if (port === 0xcf9) return this.state.resetControl;
    if (port === 0x92) return this.state.port92;
    if (port === smiCommand.port) return this.state.command;
    if (port === smiCommand.port + 1) return this.state.commandStatus;
    const offset = port - this.base;
    return offset >= 0 && offset < 12 ? this.byte(offset) : 0xff;
  }

  write(port: number, size: Size, value: number): void {
    this.run(this.context.now());
    // Control is one register: SLP_EN must see its SLP_TYP.
    if (port === this.base + 4 && size > 1) return this.writeControl(value & 0xffff);
    for (let i = 0; i < size; i++) this.writeByte(port + i, value >>> (8 * i) & 0xff);
  }

  writeByte(port: number, value: number): void {
    const s = this.state;
    if (port === 0xcf9) this.writeResetControl(value);
    else if (port === 0x92) this.writePort92(value);
    else if (port === smiCommand.port) this.writeCommand(value);
    else if (port === smiCommand.port + 1) s.commandStatus = value;
    const offset = port - this.base;
    if (offset < 0 || offset > 5) return;
    const shift = (offset & 1) * 8;
    if (offset < 2) s.status &= ~(value << shift); // write 1 to clear
    else if (offset < 4) s.enable = s.enable & 0xff00 >> shift | value << shift;
    else return this.writeControl(s.control & 0xff00 >> shift | value << shift);
    this.update();
  }

  /** SLP_EN (bit 13) puts the machine into the state that SLP_TYP (bits 12 to 10) names. */
  writeControl(value: number): void {
    // SCI_EN belongs to the firmware (ACPI 4.8.3.2.1): it keeps its value.
    this.state.control = value & 0x1c02 | this.state.control & PM1_SCI_EN;
    if (!(value & PM1_SLP_EN)) return;
    const type = value >> PM1_SLP_TYP_SHIFT & 7;
    this.state.slept = type;
    if (type === sleepType.s5) this.options.powerOff?.();
    else this.options.sleep?.(type);
  }

  writeCommand(value: number): void {
    this.state.command = value;
    if (value === smiCommand.enable) this.state.control |= 1;
    if (value === smiCommand.disable) this.state.control &= ~1;
    this.update();
  }

  /** CF9h: bit 2 rising resets the processor, with bit 1 the whole system. */
  writeResetControl(value: number): void {
    const rising = (value & ~this.state.resetControl & 4) !== 0;
    this.state.resetControl = value & 0x0e;
    if (rising) this.options.reset?.(value & 2 ? "port CF9h, hard" : "port CF9h, soft");
  }

  /** The A20 gate is open: port 92h, bit 1. */
  get a20(): boolean {
    return (this.state.port92 & 2) !== 0;
  }
  /** There is one gate: somebody else has moved it. */
  set a20(open: boolean) {
    this.state.port92 = this.state.port92 & ~2 | (open ? 2 : 0);
  }

  /** Port 92h: bit 0 rising resets the processor, bit 1 is A20. */
  writePort92(value: number): void {
    const rising = (value & ~this.state.port92 & 1) !== 0;
    const a20 = ((value ^ this.state.port92) & 2) !== 0;
    this.state.port92 = value;
    if (a20) this.options.a20?.((value & 2) !== 0);
    if (rising) this.options.reset?.("port 92h");
  }

  override deadline(): number {
    if (!(this.state.enable & pm1.timer)) return Infinity;
    const next = (this.state.carry + 1) * 2 ** (this.timerBits() - 1);
    return timeOfTick(next, pmTimerFrequency);
  }

  /** TMR_STS is set whenever the timer's highest bit changes. */
  override run(now: number): void {
    const carry = this.halfPeriod(now);
    if (carry === this.state.carry) return;
    this.state.carry = carry;
    this.raise(pm1.timer);
  }

  update(): void {
    const s = this.state;
    const level = (s.control & PM1_SCI_EN) !== 0 && (s.status & s.enable & 0x0721) !== 0;
    if (level !== s.sci) {
      s.sci = level;
      this.context.irq(this.options.irq ?? ACPI_SCI, level);
    }
    this.context.reschedule();
  }

  reset(): void {
    const { sci } = this.state;
    this.state = { ...stateAfterReset(this.halfPeriod(this.context.now())), sci };
    this.update();
  }

  show(): string {
    const s = this.state;
    const names = (bits: number) =>
      Object.entries(pm1).filter(([, bit]) => bits & bit).map(([name]) => name).join(" ") || "none";
    return [
      `acpi: port 0x${hex(this.base)}, SCI ${s.sci ? "asserted" : "idle"}, ` +
      `${s.control & PM1_SCI_EN ? "ACPI" : "legacy"} mode`,
      `  status ${names(s.status)}; enabled ${names(s.enable)}`,
      `  timer 0x${hex(this.timer, 6)} (${this.timerBits()} bits), A20 ${s.port92 >> 1 & 1}`,
    ].join("\n");
  }
}

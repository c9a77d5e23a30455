/**
 * The PC's two 8259A interrupt controllers, cascaded on IR2.
 * Source: Intel 8259A data sheet (231468); ELCR: 82371SB (PIIX3) data sheet, ports 4D0h and 4D1h.
 *
 * @module
 */
import { DeviceModel, hex, type PortRange, type Ranges, type Size, table } from "./device.ts";

/** What the pair drives. */
export interface PicContext {
  /** The master's INT output, the processor's INTR (or LINT0) pin. */
  intr?(level: boolean): void;
}

/** One 8259A. Bit n of a mask belongs to input IRn. */
export interface PicChip {
  /** Levels of the inputs. */
  lines: number;
  /** Interrupt request register. */
  irr: number;
  /** Interrupt mask register (OCW1). */
  imr: number;
  /** In-service register. */
  isr: number;
  /** Inputs that are level triggered (edge/level control register). */
  elcr: number;
  /** Vector of IR0 (ICW2, bits 7 to 3). */
  base: number;
  /** Cascade (ICW3). */
  cascade: number;
  /** Next initialization word expected: 2, 3 or 4; 0 when initialized. */
  step: number;
  /** ICW1 and ICW4 as written. */
  icw1: number;
  icw4: number;
  /** The input of lowest priority. */
  lowest: number;
  /** Modes set by OCW2 and OCW3. */
  rotateOnAutoEoi: boolean;
  specialMask: boolean;
  poll: boolean;
  readIsr: boolean;
}

/** State of {@linkcode Pic}: chips[0] is the master. */
export interface PicState {
  chips: PicChip[];
  intr: boolean;
}

const ICW1_SINGLE = 2, ICW1_LEVEL = 8;
const ICW4_AUTO_EOI = 2, ICW4_SPECIAL_FULLY_NESTED = 16;
/** Inputs whose trigger mode the ELCR cannot change: IRQ 0, 1, 2 and 8, 13. */
const elcrMask = [0xf8, 0xde];

function chipAfterReset(elcr = 0): PicChip {
  return {
    lines: 0,
    irr: 0,
    imr: 0,
    isr: 0,
    elcr,
    base: 0,
    cascade: 0,
    step: 0,
    icw1: 0,
    icw4: 0,
    lowest: 7,
    rotateOnAutoEoi: false,
    specialMask: false,
    poll: false,
    readIsr: false,
  };
}

/**
 * The interrupt controller pair at ports 20h, A0h and 4D0h.
 *
 * IRQ 0 to 7 are the master's inputs, 8 to 15 the slave's; the slave's output is the master's IR2.
 * In edge mode a request that goes away before it is acknowledged is forgotten, as in the chip.
 */
export class Pic extends DeviceModel<PicState> {
  readonly name = "pic";
  readonly version = 1;
  override readonly ranges: Ranges = { lowest: [0, 7], step: [0, 4] };
  override readonly ports: readonly PortRange[] = [[0x20, 0x21], [0xa0, 0xa1], [0x4d0, 0x4d1]];

  constructor(readonly context: PicContext = {}) {
    super({ chips: [chipAfterReset(), chipAfterReset()], intr: false });
  }

  /** The INT output: an interrupt waits for {@linkcode acknowledge}. */
  get intr(): boolean {
    return this.state.intr;
  }

  /** Drives input `irq`, 0 to 15; 2 is the cascade and cannot be driven. */
  setLine(irq: number, level: boolean): void {
    if (!Number.isInteger(irq) || irq < 0 || irq > 15) {
      throw new RangeError(`IRQ ${irq} does not exist, expected 0 to 15`);
    }
    if (irq === 2) return;
    input(this.state.chips[irq >> 3], irq & 7, level);
    this.update();
  }

  /**
   * The processor's INTA cycles: the vector (8 bits) of the highest request, now in service.
   * With no request it is IR7's vector (IRQ 7, or 15 from the slave) and nothing is in service.
   */
  acknowledge(): number {
    const [master, slave] = this.state.chips;
    const level = serve(master);
    let vector = master.base + (level < 0 ? 7 : level);
    if (level === 2) {
      const second = serve(slave);
      vector = slave.base + (second < 0 ? 7 : second);
      input(master, 2, false); // the slave's INT falls between INTA and the next request
    }
    this.update();
    return vector;
  }

  /** The IRQ (0 to 15) that {@linkcode acknowledge} would take, or -1. */
  highestPending(): number {
    const [master, slave] = this.state.chips;
    const level = request(master, true);
    if (level !== 2) return level;
    const second = request(slave, false);
    return second < 0 ? 15 : second + 8;
  }

  update(): void {
    const [master, slave] = this.state.chips;
    input(master, 2, request(slave, false) >= 0);
    const level = request(master, true) >= 0;
    if (level === this.state.intr) return;
    this.state.intr = level;
    this.context.intr?.(level);
  }

  read(port: number, _size: Size): number {
    if (port >= 0x4d0) return this.state.chips[port & 1].elcr;
    const chip = this.state.chips[port >> 7];
    if (chip.poll) {
      chip.poll = false;
      const level = serve(chip);
      if (chip === this.state.chips[1]) input(this.state.chips[0], 2, false);
      this.update();
      return level < 0 ? 0 : 0x80 | level;
    }
    if (port & 1) return chip.imr;
    return chip.readIsr ? chip.isr : chip.irr;
  }

  write(port: number, _size: Size, value: number): void {
    if (port >= 0x4d0) {
      const chip = this.state.chips[port & 1];
      chip.elcr = value & elcrMask[port & 1];
      // An input that became level triggered requests as long as it is high.
      chip.irr = chip.irr & ~chip.elcr | chip.lines & chip.elcr;
    } else {
      const chip = this.state.chips[port >> 7];
      if (port & 1) writeOdd(chip, value);
      else writeEven(chip, value);
    }
    this.update();
  }

  reset(): void {
    this.state = { chips: [chipAfterReset(), chipAfterReset()], intr: this.state.intr };
    this.update();
  }

  show(): string {
    const rows: (string | number)[][] = [["IRQ", "line", "irr", "imr", "isr", "trigger", "vector"]];
    for (let irq = 0; irq < 16; irq++) {
      const chip = this.state.chips[irq >> 3];
      const bit = (mask: number) => mask >> (irq & 7) & 1;
      rows.push([
        irq,
        bit(chip.lines),
        bit(chip.irr),
        bit(chip.imr),
        bit(chip.isr),
        isLevel(chip, irq & 7) ? "level" : "edge",
        "0x" + hex(chip.base + (irq & 7)),
      ]);
    }
    return `pic: INTR ${this.state.intr ? "asserted" : "idle"}\n${table(rows)}`;
  }
}

function isLevel(chip: PicChip, line: number): boolean {
  return (chip.icw1 & ICW1_LEVEL) !== 0 || (chip.elcr >> line & 1) !== 0;
}

function input(chip: PicChip, line: number, level: boolean): void {
  const bit = 1 << line;
  if (!level) {
    chip.lines &= ~bit;
    chip.irr &= ~bit;
    return;
  }
  if ((chip.lines & bit) === 0 || isLevel(chip, line)) chip.irr |= bit;
  chip.lines |= bit;
}

/** The input of highest priority in `mask`, or -1. */
function highest(chip: PicChip, mask: number): number {
  for (let i = 1; mask !== 0 && i <= 8; i++) {
    const line = chip.lowest + i & 7;
    if (mask >> line & 1) return line;
  }
  return -1;
}

/** Distance from the highest priority, 0 to 7; 8 for no input. */
function rank(chip: PicChip, line: number): number {
  return line < 0 ? 8 : line - chip.lowest - 1 & 7;
}

/** The input that asks for service now, or -1: unmasked, and above what is in service. */
function request(chip: PicChip, isMaster: boolean): number {
  if (chip.step !== 0) return -1;
  const wanted = highest(chip, chip.irr & ~chip.imr);
  if (wanted < 0) return -1;
  let serving = chip.isr;
  if (chip.specialMask) serving &= ~chip.imr;
  // Special fully nested: the slave may interrupt its own service.
  if (isMaster && chip.icw4 & ICW4_SPECIAL_FULLY_NESTED) serving &= ~4;
  return rank(chip, wanted) < rank(chip, highest(chip, serving)) ? wanted : -1;
}

/** INTA or poll: the request becomes in service. Returns its input, or -1 (spurious). */
function serve(chip: PicChip): number {
  const line = request(chip, (chip.icw4 & ICW4_SPECIAL_FULLY_NESTED) !== 0);
  if (line < 0) return -1;
  const bit = 1 << line;
  if (!isLevel(chip, line)) chip.irr &= ~bit;
  if (chip.icw4 & ICW4_AUTO_EOI) {
    if (chip.rotateOnAutoEoi) chip.lowest = line;
  } else {
    chip.isr |= bit;
  }
  return line;
}

function writeEven(chip: PicChip, value: number): void {
  if (value & 0x10) return startInitialization(chip, value);
  if (value & 0x08) return operationWord3(chip, value);
  operationWord2(chip, value);
}

/** ICW1: edge sense and masks are cleared, priorities are as at first. */
function startInitialization(chip: PicChip, value: number): void {
  const { lines, elcr, base } = chip;
  Object.assign(chip, chipAfterReset(elcr), { lines, base, icw1: value, step: 2 });
  for (let line = 0; line < 8; line++) {
    if (isLevel(chip, line)) chip.irr |= lines & 1 << line;
  }
}

function operationWord2(chip: PicChip, value: number): void {
  const rotate = (value & 0x80) !== 0;
  const specific = (value & 0x40) !== 0;
  const end = (value & 0x20) !== 0;
  if (!end) {
    if (!specific) chip.rotateOnAutoEoi = rotate;
    else if (rotate) chip.lowest = value & 7;
    return;
  }
  // In special mask mode a masked level is not ended by the non-specific command.
  const serving = chip.specialMask ? chip.isr & ~chip.imr : chip.isr;
  const line = specific ? value & 7 : highest(chip, serving);
  if (line < 0) return;
  chip.isr &= ~(1 << line);
  if (rotate) chip.lowest = line;
}

function operationWord3(chip: PicChip, value: number): void {
  if (value & 0x40) chip.specialMask = (value & 0x20) !== 0;
  if (value & 0x04) chip.poll = true;
  else if (value & 0x02) chip.readIsr = (value & 1) !== 0;
}

function writeOdd(chip: PicChip, value: number): void {
  const needsIcw4 = (chip.icw1 & 1) !== 0;
  switch (chip.step) {
    case 0:
      chip.imr = value;
      return;
    case 2:
      chip.base = value & 0xf8;
      chip.step = chip.icw1 & ICW1_SINGLE ? (needsIcw4 ? 4 : 0) : 3;
      return;
    case 3:
      chip.cascade = value;
      chip.step = needsIcw4 ? 4 : 0;
      return;
    default:
      chip.icw4 = value;
      chip.step = 0;
  }
}

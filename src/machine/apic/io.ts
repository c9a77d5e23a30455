/**
 * The 82093AA I/O APIC: 24 pins, a redirection table, and the way from vectors back to IRQs.
 * Source: Intel 82093AA data sheet (290566).
 *
 * @module
 */
import type { LocalApic } from "./local.ts";
import {
  addresses,
  ApicBus,
  ASSERT,
  deliveryMode,
  isLevel,
  isUnmaskable,
  LEVEL,
  messageOf,
  MESSAGES,
} from "./messages.ts";

/** State of {@linkcode IoApic}. */
export interface IoApicState {
  /** IOREGSEL. */
  select: number;
  /** IOAPICID, bits 27 to 24. */
  id: number;
  /** Redirection entries, low and high words in turn. */
  table: number[];
  /** Levels of the pins; pin n is bit n. */
  lines: number;
}

/** How an I/O APIC is wired. */
export interface IoApicOptions {
  readonly base?: number;
  readonly id?: number;
  readonly bus?: ApicBus;
  /** ISA IRQs that are wired to another pin, as a PC's IRQ 0 to pin 2. Default `{ 0: 2 }`. */
  readonly overrides?: Readonly<Record<number, number>>;
}

const DWORD = [0, 0xffff_ffff] as const;
export const ioApicPins = 24;
/** Version 11h, 24 entries. */
export const ioApicVersion = 0x00170011;
/** Bits of an entry's low word. */
const MASKED = 0x10000, REMOTE_IRR = 0x4000, LOGICAL = 0x800;
const READ_ONLY = 0x5000;

function tableAfterReset(): number[] {
  return Array.from({ length: ioApicPins * 2 }, (_, i) => i % 2 === 0 ? MASKED : 0);
}

/**
 * An I/O APIC at FEC00000h.
 *
 * A pin's `level` means asserted, whatever polarity its entry names. Edges on a masked pin are
 * lost, as the data sheet has it.
 */
export class IoApic {
  readonly name = "ioapic";
  readonly version = 2;
  readonly ranges = { id: DWORD, table: DWORD, lines: DWORD } as const;
  readonly width = 4;
  readonly ports: readonly (readonly [number, number])[] = [];
  readonly mmio: readonly { readonly base: number; readonly size: number }[];
  readonly bus: ApicBus;
  readonly overrides: Readonly<Record<number, number>>;
  state: IoApicState;

  constructor(readonly options: IoApicOptions = {}) {
    this.mmio = [{ base: options.base ?? 0xfec00000, size: 0x1000 }];
    this.overrides = options.overrides ?? { 0: 2 };
    this.bus = options.bus ?? new ApicBus();
    this.bus.ios.push(this);
    this.state = {
      select: 0,
      id: (options.id ?? 0) << 24,
      table: tableAfterReset(),
      lines: 0,
    };
  }

  /**
   * The IRQ that a vector stands for at a processor, -1 if none: the redirection table read backwards.
   * Masked entries count, unless an unmasked one has the same vector.
   */
  vectorIrq(vector: number, local: LocalApic): number {
    let found = -1, unmasked = false;
    for (let pin = 0; pin < ioApicPins; pin++) {
      const low = this.state.table[pin * 2], open = !(low & MASKED);
      const vectored = (low >> 8 & 7) <= deliveryMode.lowest && vector >= 16;
      if (!vectored || (low & 0xff) !== vector || (unmasked && !open)) continue;
      if (!addresses(messageOf(...this.#written(pin))!, local)) continue;
      found = this.irqOf(pin);
      unmasked = open;
    }
    return found;
  }

  /** The pin an ISA IRQ is wired to. */
  pinOf(irq: number): number {
    return this.overrides[irq] ?? irq;
  }

  irqOf(pin: number): number {
    for (const [irq, other] of Object.entries(this.overrides)) {
      if (other === pin) return Number(irq);
    }
    return pin;
  }

  /** The interrupt of a pin comes as an NMI or INIT. */
  get unmaskable(): boolean {
    return this.state.table.some((low, n) =>
      n % 2 === 0 && !(low & MASKED) && isUnmaskable(low >> 8 & 7)
    );
  }

  /** Drives the pin of ISA IRQ `irq`, 0 to 15; IRQ 2 is the 8259s' cascade and has none. */
  setIrq(irq: number, level: boolean): void {
    if (irq !== 2) this.setLine(this.pinOf(irq), level);
  }

  /** Drives pin 0 to 23: `true` is asserted. */
  setLine(pin: number, level: boolean): void {
    if (!Number.isInteger(pin) || pin < 0 || pin >= ioApicPins) {
      throw new RangeError(`pin ${pin} does not exist, expected 0 to ${ioApicPins - 1}`);
    }
    const bit = 1 << pin;
    const rising = level && !(this.state.lines & bit);
    this.state.lines = level ? this.state.lines | bit : this.state.lines & ~bit;
    this.drive(pin, rising);
  }

  drive(pin: number, rising: boolean): void {
    const low = this.state.table[pin * 2];
    if (low & MASKED) return;
    if (!isLevel(low)) {
      if (rising) this.deliver(pin);
    } else if (this.state.lines >> pin & 1 && !(low & REMOTE_IRR)) {
      if (this.deliver(pin)) this.state.table[pin * 2] |= REMOTE_IRR;
    }
  }

  /** Sends pin's interrupt to the local APICs; true if one took it. */
  deliver(pin: number): boolean {
    return this.bus.write(...this.#written(pin));
  }
  /** A pin's entry as the write of address and data that a message is. */
  #written(pin: number): [address: number, data: number] {
    const [low, high] = this.state.table.slice(pin * 2, pin * 2 + 2);
    const destination = high >>> 24 << 12 | (low & LOGICAL) >> 9;
    return [(MESSAGES | destination) >>> 0, low & (LEVEL | 0x7ff) | ASSERT];
  }

  /** A local APIC's EOI of `vector`: level-triggered pins still asserted are sent again. */
  endOfInterrupt(vector: number): void {
    for (let pin = 0; pin < ioApicPins; pin++) {
      const low = this.state.table[pin * 2];
      if ((low & 0xff) !== vector || !(low & REMOTE_IRR)) continue;
      this.state.table[pin * 2] = low & ~REMOTE_IRR;
      this.drive(pin, false);
    }
  }

  readRegister(index: number): number {
    if (index === 0 || index === 2) return this.state.id; // IOAPICID, IOAPICARB
    if (index === 1) return ioApicVersion;
    return this.state.table[index - 0x10] ?? 0;
  }

  writeRegister(index: number, value: number): void {
    if (index === 0) this.state.id = value & 0x0f000000;
    const entry = index - 0x10;
    if (entry < 0 || entry >= ioApicPins * 2) return;
    if (entry & 1) {
      this.state.table[entry] = (value & 0xff000000) >>> 0;
      return;
    }
    let low = value & 0x1afff | this.state.table[entry] & READ_ONLY;
    if (!(low & LEVEL)) low &= ~REMOTE_IRR;
    this.state.table[entry] = low;
    this.drive(entry >> 1, false);
  }

  // The data window takes 32 bits and nothing narrower (data sheet 3.0); the selector has one byte.
  mmioRead(address: number, size: 1 | 2 | 4): number {
    const offset = address & 0xff;
    if (offset === 0) return this.state.select;
    return offset === 0x10 && size === 4 ? this.readRegister(this.state.select) : 0;
  }

  mmioWrite(address: number, size: 1 | 2 | 4, value: number): void {
    const offset = address & 0xff;
    if (offset === 0) this.state.select = value & 0xff;
    else if (offset === 0x10 && size === 4) this.writeRegister(this.state.select, value >>> 0);
  }

  deadline(): number {
    return Infinity;
  }

  run(_now: number): void {}

  reset(): void {
    const { lines } = this.state;
    this.state = {
      select: 0,
      id: (this.options.id ?? 0) << 24,
      table: tableAfterReset(),
      lines,
    };
  }

  show(): string {
    const rows = ["pin  IRQ  line  vector  mode     trigger  destination"];
    const modes = ["fixed", "lowest", "SMI", "?", "NMI", "INIT", "?", "ExtINT"];
    for (let pin = 0; pin < ioApicPins; pin++) {
      const [low, high] = this.state.table.slice(pin * 2, pin * 2 + 2);
      const destination = `${low & LOGICAL ? "logical" : "physical"} ${high >>> 24}`;
      rows.push([
        String(pin).padEnd(3),
        String(this.irqOf(pin)).padEnd(3),
        String(this.state.lines >> pin & 1).padEnd(4),
        ("0x" + (low & 0xff).toString(16).padStart(2, "0")).padEnd(6),
        modes[low >> 8 & 7].padEnd(7),
        (low & LEVEL ? "level" : "edge").padEnd(7),
        destination + (low & MASKED ? ", masked" : low & REMOTE_IRR ? ", in service" : ""),
      ].join("  "));
    }
    return `ioapic: id ${this.state.id >>> 24}\n${rows.join("\n")}`;
  }

  [Symbol.for("Deno.customInspect")](): string {
    return this.show();
  }
}

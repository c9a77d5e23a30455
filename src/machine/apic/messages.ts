/**
 * What travels between I/O APICs and local APICs, and who accepts it.
 * Source: SDM 3A 11.6 (interprocessor interrupts), 11.6.2 (destinations), 11.11 (messages of
 * devices), 11.12.9 and 11.12.10 (x2APIC); 82093AA data sheet, 3.2.4.
 *
 * @module
 */
import type { IoApic } from "./io.ts";
import type { LocalApic } from "./local.ts";

/** Delivery modes (3 bits) of an ICR, a redirection entry or an LVT entry. */
export const deliveryMode = {
  fixed: 0,
  lowest: 1,
  smi: 2,
  nmi: 4,
  init: 5,
  startup: 6,
  extInt: 7,
} as const;

/** It reaches a processor whatever RFLAGS.IF says. */
export function isUnmaskable(mode: number): boolean {
  return mode === deliveryMode.nmi || mode === deliveryMode.init;
}

/**
 * NMIs that wait after one more has come: one is latched while another is handled. Otherwise the
 * processor takes the first where it stands, between two instructions, however long it is not its
 * turn, and the second is latched behind it (SDM 3A 7.7.1, APM 2 8.2.3).
 *
 * @param handled an NMI is being handled, or nothing is taken now
 */
export const oneMoreNmi = (waiting: number, handled: boolean): number =>
  Math.min(waiting + 1, handled ? 1 : NMIS_MAX);
export const NMIS_MAX = 2;

/** What comes to a processor past the vectors, and waits until it takes it. */
export interface Signals {
  /** NMIs: as many as {@linkcode oneMoreNmi} lets wait. */
  nmi: number;
  /** The processor begins anew; any but the bootstrap processor then waits for a start-up. */
  init: boolean;
  /**
   * A processor that waits for it begins at physical address `startup` * 1000h, any other goes on; -1:
   * none has come.
   */
  startup: number;
}

/** An interrupt on its way. */
export interface InterruptMessage {
  /** 8 bits. */
  readonly vector: number;
  /** One of {@linkcode deliveryMode}. */
  readonly mode: number;
  /** Level triggered: the EOI will be broadcast. */
  readonly level: boolean;
  /** 8 bits, or 32 when `wide`. */
  readonly destination: number;
  readonly logical: boolean;
  /** The destination has 32 bits: it was written in x2APIC mode. */
  readonly wide?: boolean;
}

/** Where devices write to interrupt: the megabyte from there (SDM 3A 11.11.1). */
export const MESSAGES = 0xfee0_0000;
/** Bits of the address: redirection hint, logical destination. */
const REDIRECT = 0x8, LOGICAL = 0x4;
/** Of the data: a level begins. */
export const ASSERT = 0x4000;
/** Level-triggered: in a message's data, and in a redirection entry. */
export const LEVEL = 0x8000;

/**
 * Whether data or an entry, which have both bits at the same places, mean a level: SMI, NMI, INIT and
 * ExtINT are edges whatever they say (82093AA data sheet, 3.2.4).
 */
export function isLevel(data: number): boolean {
  return (data & LEVEL) !== 0 && (data >> 8 & 7) <= deliveryMode.lowest;
}

/**
 * The interrupt that a write of a device is, by address and data (SDM 3A 11.11); undefined for one
 * that is none, and for the end of a level, of which no APIC takes notice.
 *
 * With the redirection hint one of those addressed takes it, as by lowest priority; a destination is
 * logical with the hint or without, as systems have it.
 */
export function messageOf(address: number, data: number): InterruptMessage | undefined {
  if (address >>> 20 !== MESSAGES >>> 20) return undefined;
  const given = data >>> 8 & 7;
  const mode = given === deliveryMode.fixed && address & REDIRECT ? deliveryMode.lowest : given;
  const level = isLevel(data);
  if (level && !(data & ASSERT)) return undefined;
  return {
    vector: data & 0xff,
    mode,
    level,
    destination: address >>> 12 & 0xff,
    logical: (address & LOGICAL) !== 0,
  };
}

/** The wires between the APICs of one machine. It has no state of its own. */
export class ApicBus {
  readonly locals: LocalApic[] = [];
  readonly ios: IoApic[] = [];

  /** @throws {RangeError} when two local APICs have the same id at power-on */
  attach(local: LocalApic): void {
    const { name, options: { id = 0 } } = local;
    const other = this.locals.find(({ options }) => (options.id ?? 0) === id);
    if (other) {
      throw new RangeError(
        `${name}: the APIC id is ${id}, which is ${other.name}'s; expected one of its own`,
      );
    }
    this.locals.push(local);
  }

  /**
   * The local APICs that take a message: all that it addresses and that are enabled. By lowest
   * priority it is one of those that software has enabled too: that of the lowest PPR, and of equal
   * ones the first on the bus.
   */
  targets(message: InterruptMessage, addressed: (local: LocalApic) => boolean): LocalApic[] {
    const all = this.locals.filter((local) => local.enabled && addressed(local));
    if (message.mode !== deliveryMode.lowest) return all;
    const able = all.filter((local) => local.softwareEnabled);
    if (able.length === 0) return [];
    return [able.reduce((a, b) => b.processorPriority < a.processorPriority ? b : a)];
  }

  /** Delivers to all addressed, by its destination or by a shorthand; true if at least one accepted. */
  deliver(
    message: InterruptMessage,
    addressed = (local: LocalApic): boolean => addresses(message, local),
  ): boolean {
    let accepted = false;
    for (const local of this.targets(message, addressed)) {
      accepted = local.receive(message) || accepted;
    }
    return accepted;
  }

  /** A device's write of 32 bits; true if it is an interrupt that somebody accepted. */
  write(address: number, data: number): boolean {
    const message = messageOf(address, data);
    return message !== undefined && this.deliver(message);
  }

  /** A level-triggered interrupt is over: the I/O APICs may send it again. */
  endOfInterrupt(vector: number): void {
    for (const io of this.ios) io.endOfInterrupt(vector);
  }
}

const BROADCAST = 0xff, WIDE_BROADCAST = 0xffff_ffff;

/** Whether a message's destination names a local APIC (SDM 3A 11.6.2; 11.12.9 and 11.12.10). */
export function addresses(message: InterruptMessage, { state, logicalId }: LocalApic): boolean {
  const { destination, logical, wide } = message;
  if (wide && destination === WIDE_BROADCAST) return true;
  if (!logical) return destination === state.id || (!wide && destination === BROADCAST);
  if (state.x2apic) {
    return destination >>> 16 === logicalId >>> 16 && (destination & logicalId & 0xffff) !== 0;
  }
  // A destination of 32 bits is not this one's, beyond the 8 that it knows.
  if (destination > 0xff) return false;
  const ldr = state.ldr >>> 24;
  if (state.dfr >>> 28 === 15) return (destination & ldr) !== 0; // flat model
  const cluster = destination >> 4;
  return (cluster === 15 || cluster === ldr >> 4) && (destination & ldr & 15) !== 0;
}

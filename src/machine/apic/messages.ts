// What travels between I/O APICs and local APICs, and who accepts it.
// Source: SDM 3A 11.6 (interprocessor interrupts), 11.6.2 (destinations); 82093AA data sheet, 3.2.4.

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

/** What comes to a processor past the vectors, and waits until it takes it. */
export interface Signals {
  nmi: boolean;
  /** The processor begins anew; any but the bootstrap processor then waits for a start-up. */
  init: boolean;
  /** A processor that waits for it begins at physical address `startup` * 1000h; -1: none has come. */
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

/** The wires between the APICs of one machine. It has no state of its own. */
export class ApicBus {
  readonly locals: LocalApic[] = [];
  readonly ios: IoApic[] = [];

  /** The local APICs that a message addresses. */
  targets(message: InterruptMessage): LocalApic[] {
    const matching = this.locals.filter((local) => local.enabled && addresses(message, local));
    if (message.mode !== deliveryMode.lowest || matching.length < 2) return matching;
    return [
      matching.reduce((best, local) =>
        local.processorPriority < best.processorPriority ? local : best
      ),
    ];
  }

  /** Delivers to all addressed; true if at least one accepted. */
  deliver(message: InterruptMessage): boolean {
    return this.deliverTo(this.targets(message), message);
  }

  deliverTo(locals: readonly LocalApic[], message: InterruptMessage): boolean {
    let accepted = false;
    for (const local of locals) accepted = local.receive(message) || accepted;
    return accepted;
  }

  /** A level-triggered interrupt is over: the I/O APICs may send it again. */
  endOfInterrupt(vector: number): void {
    for (const io of this.ios) io.endOfInterrupt(vector);
  }
}

function addresses(message: InterruptMessage, local: LocalApic): boolean {
  const { destination, logical, wide } = message;
  if (destination === (wide ? 0xffffffff : 0xff) && !logical) return true;
  const { state } = local;
  if (!logical) return destination === state.id;
  if (state.x2apic) {
    if (wide && destination === 0xffffffff) return true;
    const ldr = local.logicalId;
    return destination >>> 16 === ldr >>> 16 && (destination & ldr & 0xffff) !== 0;
  }
  const ldr = state.ldr >>> 24;
  if (state.dfr >>> 28 === 15) return (destination & ldr) !== 0; // flat model
  const cluster = destination >> 4;
  return (cluster === 15 || cluster === ldr >> 4) && (destination & ldr & 15) !== 0;
}

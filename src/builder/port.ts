/** One processor's side of a motherboard: its local APIC, and the 8259s as they reach it. */
import type { IoApic } from "../machine/apic/io.ts";
import type { LocalApic } from "../machine/apic/local.ts";
import type { Signals } from "../machine/apic/messages.ts";
import { lvt } from "../machine/apic/registers.ts";
import type { InterruptPort, PlatformEvents } from "../xen/platform.ts";

/** What of a board the ports share. */
export interface PortWiring {
  /** The pair of 8259s: INTR, and what it acknowledges. */
  readonly pic: { readonly intr: boolean; acknowledge(): number };
  readonly ioApic: IoApic;
  readonly events: Pick<PlatformEvents, "has">;
}

export class ProcessorPort implements InterruptPort {
  readonly id: number;

  constructor(readonly localApic: LocalApic, readonly wiring: PortWiring) {
    this.id = localApic.state.id;
  }

  /** The 8259's INTR is wired to LINT0 of the bootstrap processor: straight to it when its APIC is off. */
  get #fromPic(): boolean {
    const { localApic, localApic: { state } } = this;
    const straight = state.bootstrap && !state.enabled;
    return this.wiring.pic.intr && (straight || localApic.extInt);
  }
  /** The local APIC has a vector that its priority lets through. */
  get #fromApic(): boolean {
    return this.localApic.enabled && this.localApic.highestPending() >= 0;
  }
  interruptPending(): boolean {
    return this.#fromPic || this.#fromApic;
  }
  raise(vector: number): boolean {
    return this.localApic.accept(vector, false);
  }
  acknowledge(): number {
    if (this.#fromApic) return this.localApic.acknowledge();
    if (!this.#fromPic) return -1;
    this.localApic.acknowledgeExtInt();
    return this.wiring.pic.acknowledge();
  }
  get signals(): Signals {
    return this.localApic.state.signals;
  }
  get unmaskable(): boolean {
    return this.localApic.unmaskable || this.wiring.ioApic.unmaskable;
  }
  counterOverflow(): void {
    this.localApic.raiseLocal(lvt.performance);
  }
  get cr8(): number {
    return this.localApic.cr8;
  }
  set cr8(value: number) {
    this.localApic.cr8 = value;
  }
  tscChanged(): void {
    this.localApic.tscChanged();
  }
  readMsr(number: number): bigint | undefined {
    return this.wiring.events.has("apic") ? this.localApic.readMsr(number) : undefined;
  }
  writeMsr(number: number, value: bigint): boolean {
    return this.wiring.events.has("apic") && this.localApic.writeMsr(number, value);
  }
}

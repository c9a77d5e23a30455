/**
 * The host's own interrupts: a timer on IRQ 0 of its IO-APIC, its local APIC, and the way from a
 * vector back to the IRQ. They leave a guest by external-interrupt exits.
 */
import { IoApic } from "../machine/apic/io.ts";
import { LocalApic } from "../machine/apic/local.ts";
import { ApicBus } from "../machine/apic/messages.ts";
import type { Bus, Machine } from "../machine/machine.ts";

/** Vector of the host's timer. */
export const TIMER_VECTOR = 0xf0;
const TIMER_IRQ = 0;

export interface HostInterruptsState {
  readonly local: LocalApic["state"];
  readonly io: IoApic["state"];
  readonly timer: number;
}

export class HostInterrupts implements Bus {
  readonly localApic: LocalApic;
  readonly ioApic: IoApic;
  #timer = Infinity;
  /** Something was raised since the last interrupt was over; asked at every entry and exit. */
  #raised = false;
  /** Handlers by IRQ. */
  readonly handlers: Map<number, () => void> = new Map();

  constructor(readonly machine: Machine) {
    const bus = new ApicBus();
    this.localApic = new LocalApic({ now: () => machine.cpu.now }, { id: 0, bus });
    this.ioApic = new IoApic({ id: 1, bus });
    const apic = this.localApic.state.base;
    this.localApic.mmioWrite(apic + 0xf0, 4, 0x1ff);
    this.ioApic.writeRegister(0x11 + 2 * this.ioApic.pinOf(TIMER_IRQ), 0);
    this.ioApic.writeRegister(0x10 + 2 * this.ioApic.pinOf(TIMER_IRQ), TIMER_VECTOR);
    machine.bus = this;
  }

  /** Asks for the timer's interrupt at `time` (ns); Infinity: never. */
  setTimer(time: number): void {
    this.#timer = time;
    this.#raised ||= this.localApic.highestPending() >= 0;
  }

  /** State to save: both controllers', and when the timer rings. */
  get state(): HostInterruptsState {
    return { local: this.localApic.state, io: this.ioApic.state, timer: this.#timer };
  }
  set state({ local, io, timer }: HostInterruptsState) {
    this.localApic.state = local;
    this.ioApic.state = io;
    this.#timer = timer;
    this.#raised = this.localApic.highestPending() >= 0;
  }

  /** A vector arrived, already acknowledged: its IRQ's handler runs, then the interrupt is over. */
  handle(vector: number): void {
    const irq = this.ioApic.vector_irq[vector];
    if (irq === undefined || irq < 0) {
      throw new Error(`the host got interrupt vector 0x${vector.toString(16)}, which no IRQ has`);
    }
    this.handlers.get(irq)?.();
    this.localApic.endOfInterrupt();
    this.#raised = this.localApic.highestPending() >= 0;
  }

  /** Handles what is pending while no guest runs. */
  handlePending(): void {
    while (this.interruptPending()) this.handle(this.acknowledge());
  }

  interruptPending(): boolean {
    return this.#raised && this.localApic.highestPending() >= 0;
  }
  acknowledge(): number {
    return this.localApic.highestPending() >= 0 ? this.localApic.acknowledge() : -1;
  }
  deadline(): number {
    return this.#timer;
  }
  run(now: number): void {
    if (now < this.#timer) return;
    this.#timer = Infinity;
    this.#raised = true;
    this.ioApic.setIrq(TIMER_IRQ, true);
    this.ioApic.setIrq(TIMER_IRQ, false);
  }

  // No other device of the host is reached by instructions: its software is this hypervisor.
  ioRead(_port: number, bytes: number): number {
    return 2 ** (8 * bytes) - 1;
  }
  ioWrite(): void {}
  mmioRead(_address: number, bytes: number): number {
    return 2 ** (8 * bytes) - 1;
  }
  mmioWrite(): void {}
}

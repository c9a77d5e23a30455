/**
 * The host's own interrupts: a timer on IRQ 0 of its IO-APIC, its local APIC, and the way from a
 * vector back to the IRQ. They leave a guest by external-interrupt exits.
 */
import { IoApic } from "../machine/apic/io.ts";
import { LocalApic } from "../machine/apic/local.ts";
import { ApicBus } from "../machine/apic/messages.ts";
import { hashBytes, hashText } from "../machine/hash.ts";
import type { MachineBus } from "../machine/bus.ts";
import { numbered } from "../machine/cpu_state.ts";
import type { Cpu } from "../machine/cpu.ts";
import { encodePlain } from "../machine/record.ts";
import { like, record, time } from "../machine/shape.ts";
import { refuse, type StateRegister } from "../machine/state_block.ts";

/** Vector of the host's timer. */
const TIMER_VECTOR = 0xf0;
const TIMER_IRQ = 0;
/** Where its request stands. */
const TIMER = { word: TIMER_VECTOR >>> 5, bit: 1 << (TIMER_VECTOR & 31) };

/** How the controllers are set up, whatever is requested. */
const setUp = (local: LocalApic["state"], io: IoApic["state"]): string =>
  hashText(hashBytes(encodePlain([{ ...local, irr: [], isr: [] }, io])));

export class HostInterrupts implements MachineBus {
  readonly localApic: LocalApic;
  readonly ioApic: IoApic;
  #timer = Infinity;
  /** Something was raised since the last interrupt was over; asked at every entry and exit. */
  #raised = false;
  /** Handlers by IRQ. */
  readonly handlers: Map<number, () => void> = new Map();

  constructor(readonly cpu: Cpu) {
    const bus = new ApicBus();
    this.localApic = new LocalApic({ now: () => cpu.now }, { id: 0, bus });
    this.ioApic = new IoApic({ id: 1, bus });
    const apic = this.localApic.state.base;
    this.localApic.mmioWrite(apic + 0xf0, 4, 0x1ff);
    this.ioApic.writeRegister(0x11 + 2 * this.ioApic.pinOf(TIMER_IRQ), 0);
    this.ioApic.writeRegister(0x10 + 2 * this.ioApic.pinOf(TIMER_IRQ), TIMER_VECTOR);
    cpu.bus = this;
  }

  /** Asks for the timer's interrupt at `time` (ns); Infinity: never. */
  setTimer(time: number): void {
    this.#timer = time;
    this.#raised ||= this.localApic.highestPending() >= 0;
  }

  /** Its state: both controllers', and when the timer rings. */
  register(blocks: StateRegister): void {
    const { localApic, ioApic } = this;
    blocks.register<{ local: LocalApic["state"]; io: IoApic["state"]; timer: number }>({
      name: numbered(this.cpu, "host interrupts"),
      version: 2,
      shape: record({
        local: like(localApic),
        io: like(ioApic),
        timer: time,
      }),
      save: () => ({ local: localApic.state, io: ioApic.state, timer: this.#timer }),
      check: ({ local, io }) => {
        // They are as the hypervisor set them up; what changes is the request of its timer.
        const others = [...local.irr, ...local.isr].some((word, n) =>
          word & ~(n % 8 === TIMER.word ? TIMER.bit : 0)
        );
        if (!others && setUp(local, io) === setUp(localApic.state, ioApic.state)) return;
        refuse("host interrupts are not as this hypervisor sets them up");
      },
      load: ({ local, io, timer }) => {
        localApic.state = local;
        ioApic.state = io;
        this.#timer = timer;
        this.#raised = localApic.highestPending() >= 0;
      },
    });
  }

  /** A vector arrived, already acknowledged: its IRQ's handler runs, then the interrupt is over. */
  handle(vector: number): void {
    const irq = this.ioApic.vectorIrq(vector, this.localApic);
    if (irq < 0) {
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

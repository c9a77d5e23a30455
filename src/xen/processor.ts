/** A processor of the host: which vCPUs run on it, which one is on it, and whose turn it is. */
import type { HvmCpu } from "../hvm/ops.ts";
import type { Cpu } from "../machine/cpu.ts";
import type { SliceEnd } from "./engine.ts";
import type { HostInterrupts } from "./irq.ts";
import type { Turn } from "./scheduler.ts";
import type { Vcpu } from "./vcpu.ts";

export class Processor {
  /** Its virtualization hardware, switched on. */
  hvm: HvmCpu | undefined;
  /** Its interrupt controllers, once a hypervisor is on it. */
  interrupts: HostInterrupts | undefined;
  /** The vCPUs that run on it, in the order they came. */
  readonly vcpus: Vcpu[] = [];
  /**
   * The turn that is under way. It may be run in as many parts as the host likes; it is over at its
   * end, or when its vCPU waits.
   */
  turn: Turn<Vcpu> | null = null;
  #current: Vcpu | undefined;
  #running: Vcpu | undefined;
  /** Instructions of the processor when `#running` got it. */
  #ranFrom = 0;
  #whenOff: (() => void) | undefined;
  /** Machine time at which the part of a turn that runs is over. */
  until = 0;

  constructor(readonly cpu: Cpu) {}

  /** Machine time (ns), as it has passed here. */
  get now(): number {
    return this.cpu.now;
  }
  /** What runs is to come back as soon as the instruction is done. */
  endPart(): void {
    this.until = this.now;
    this.cpu.endSlice();
    this.cpu.stop();
  }
  /** Number on its host, from 0. */
  get id(): number {
    return this.cpu.id;
  }

  /** The vCPU whose registers it has. */
  get current(): Vcpu | undefined {
    return this.#current;
  }
  /** The vCPU that it runs just now; undefined between the parts of turns. */
  get running(): Vcpu | undefined {
    return this.#running;
  }
  /** Instructions that one has retired since it got the processor. */
  get ranSoFar(): number {
    return this.cpu.counted - this.#ranFrom;
  }

  /** Puts a vCPU on the processor, or none. */
  switchTo(vcpu: Vcpu | undefined): void {
    if (this.#current === vcpu) return;
    this.#current?.engine.unload();
    this.#current = vcpu;
    vcpu?.engine.load();
  }
  /** Makes a vCPU's state one that can be looked at, in the middle of another's turn too. */
  look(vcpu: Vcpu): void {
    // The turn goes on with its own vCPU's hooks; the vCPU's own state comes and goes with each look.
    if (!this.#running) this.switchTo(vcpu);
  }

  /** Runs a vCPU for at most `budget` instructions (ns). */
  run(vcpu: Vcpu, budget: number): SliceEnd {
    const { cpu } = this;
    this.switchTo(vcpu);
    this.#running = vcpu;
    this.#ranFrom = cpu.count;
    this.until = cpu.now + budget;
    try {
      return vcpu.engine.run(budget);
    } finally {
      this.#running = undefined;
      vcpu.retire(cpu.count - this.#ranFrom);
      const whenOff = this.#whenOff;
      this.#whenOff = undefined;
      whenOff?.();
    }
  }
  /**
   * Does something in the place of a vCPU that stands still: an instruction that it completes so is that
   * vCPU's, whose turn it may be.
   */
  inPlaceOf(vcpu: Vcpu, act: () => void): void {
    const { cpu } = this, { count } = cpu;
    act();
    vcpu.retire(cpu.count - count);
    this.#ranFrom += cpu.count - count;
  }
  /** Calls `done` when a vCPU does not run: at once, or as soon as it has left. */
  whenOff(vcpu: Vcpu, done: () => void): void {
    if (this.#running === vcpu) this.#whenOff = done;
    else done();
  }
}

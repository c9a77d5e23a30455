/**
 * A physical processor of the host, as scripts hold it.
 *
 * @module
 */
import type { Cpu } from "../machine/cpu.ts";
import type { CpuModel } from "../machine/vendors.ts";
import type { Host } from "../xen/host.ts";
import { CheckedFile, CpuFile } from "./register_file.ts";
import { counted, INSPECT, timeText } from "./values.ts";
import { type Registers, registersOf } from "./views/registers.ts";

/** A physical processor of the host. */
export class HostCpu {
  /** Number on the host. */
  readonly id: number;
  /** Its registers: those of the vCPU that is on it, or the hypervisor's. */
  readonly regs: Registers;
  readonly #host: () => Host;
  /** @ignore `host` throws when it is closed. */
  constructor(host: () => Host, id: number) {
    this.id = id;
    this.#host = host;
    this.regs = registersOf(new CheckedFile(new CpuFile(this.#cpu), host));
  }
  get #cpu(): Cpu {
    return this.#host().machine.cpus[this.id];
  }
  /** Whose processor it is. */
  get model(): CpuModel {
    return this.#host().options.cpu;
  }
  /** Instructions retired. */
  get instructions(): number {
    return this.#cpu.count;
  }
  /** Machine time in nanoseconds. */
  get time(): number {
    return this.#cpu.now;
  }
  /** @ignore */
  [INSPECT](): string {
    try {
      this.#host();
    } catch (error) {
      return `processor ${this.id}: ${(error as Error).message}`;
    }
    return `processor ${this.id} (${this.model}), ${counted(this.instructions, "instruction")}, ` +
      `time ${timeText(this.time)}`;
  }
}

/**
 * A physical processor of the host, as scripts hold it.
 *
 * @module
 */
import type { CpuModel } from "../machine/vendors.ts";
import type { Host } from "../xen/host.ts";
import { CheckedFile, CpuFile } from "./register_file.ts";
import { counted, INSPECT, timeText } from "./values.ts";
import { type Registers, registersOf } from "./views/registers.ts";

/** A physical processor of the host. */
export class HostCpu {
  /** Number on the host. */
  readonly id = 0;
  /** Its registers: those of the vCPU that is on it, or the hypervisor's. */
  readonly regs: Registers;
  readonly #host: () => Host;
  /** @ignore `host` throws when it is closed. */
  constructor(host: () => Host) {
    this.#host = host;
    this.regs = registersOf(new CheckedFile(new CpuFile(host().machine.cpu), host));
  }
  /** Whose processor it is. */
  get model(): CpuModel {
    return this.#host().options.cpu;
  }
  /** Instructions retired. */
  get instructions(): number {
    return this.#host().machine.cpu.count;
  }
  /** Machine time in nanoseconds. */
  get time(): number {
    return this.#host().machine.cpu.now;
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

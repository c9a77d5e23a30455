/**
 * A domain's vCPUs as a list that prints as a table.
 *
 * @module
 */
import { INSPECT, tableText } from "../values.ts";
import type { GuestVcpu } from "../vcpu.ts";

/** The vCPUs of a domain, by their number; prints what each does, and where. */
export class VcpuList extends Array<GuestVcpu> {
  /** @ignore What is made of them is a plain array. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  /** @ignore */
  [INSPECT](): string {
    return tableText(
      ["vcpu", "processor", "state", "rip", "instructions"],
      this.map((vcpu) => {
        const { id, processor, runstate, instructions } = vcpu;
        return [id, processor, runstate, vcpu.place, instructions];
      }),
    );
  }
}

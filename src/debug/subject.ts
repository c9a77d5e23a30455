/**
 * What the debugger's parts are handed of a domain: the domain itself, its vCPUs, its symbols. It lies
 * below all of them, and no script sees it: the objects that scripts hold have it privately.
 *
 * @module
 */
import { Board } from "../builder/board.ts";
import type { SymbolTable } from "../builder/symbols.ts";
import type { Domain as Inner } from "../xen/domain.ts";
import type { HvmEngine } from "../xen/hvm.ts";
import type { Host } from "../xen/host.ts";
import { grouped, hex } from "./values.ts";
import { VcpuSubject } from "./vcpu_subject.ts";

/** A domain under the debugger. */
export class Subject {
  readonly vcpus: readonly VcpuSubject[];

  constructor(
    readonly host: Host,
    /** The hypervisor's own domain. */
    readonly inner: Inner,
    /** Names of its addresses. */
    public symbols?: SymbolTable,
  ) {
    this.vcpus = inner.vcpus.map((vcpu) => new VcpuSubject(this, vcpu));
  }

  get id(): number {
    return this.inner.id;
  }
  get name(): string {
    return this.inner.name;
  }
  get board(): Board {
    const { platform, name } = this.inner;
    if (platform instanceof Board) return platform;
    throw new TypeError(`domain ${name} has another motherboard than the builder's`);
  }
  /** What runs its first vCPU, if that is a hardware virtual machine: its memory and paging are all's. */
  get engine(): HvmEngine | undefined {
    return this.vcpus[0].engine;
  }

  /** Since when it is no more, in one sentence for all that is asked of it; undefined while it is. */
  get gone(): string | undefined {
    const { name, state } = this.inner;
    if (state.kind !== "destroyed") return undefined;
    return `domain ${name} is destroyed, since instruction ${grouped(state.count)} of its host`;
  }
  /** @throws {Error} saying since when the domain is no more, which `what` needs */
  mustLive(what: string): void {
    const { gone } = this;
    if (gone !== undefined) throw new Error(`${what}: ${gone}`);
  }

  /** An address, with its symbol if one is near. */
  place(address: bigint): string {
    const symbol = this.symbols?.format(address);
    return `${hex(address, 8)}${symbol ? ` <${symbol}>` : ""}`;
  }
  /** Guest-physical address of a machine one. */
  guestPhysical(machine: number): bigint | undefined {
    const { engine } = this;
    if (!engine) return BigInt(machine);
    const frame = engine.p2m.guestFrame(Math.floor(machine / 4096));
    return frame < 0 ? undefined : BigInt(frame * 4096 + machine % 4096);
  }
}

/**
 * The three address spaces that {@linkcode Memory} shows: the machine's, a domain's guest-physical one,
 * a vCPU's linear one.
 *
 * @module
 */
import type { Machine } from "../../machine/machine.ts";
import { FRAME, FRAME_FLAG } from "../../machine/state.ts";
import type { Host } from "../../xen/host.ts";
import type { Subject } from "../subject.ts";
import { hex } from "../values.ts";
import type { VcpuSubject } from "../vcpu_subject.ts";
import { type RawWalk, withPaging } from "../walker.ts";
import { type ByteSource, Memory } from "./memory.ts";
import { type PageMap, PageTables } from "./page_tables.ts";

/** Machine memory: what the processor addresses without any translation. */
export const machineMemory = (host: () => Host, gone: () => string | undefined): Memory =>
  new Memory(new MachineSource(host, gone));

/** A domain's guest-physical memory. */
export const guestMemory = (subject: Subject): Memory =>
  new Memory(new PhysicalSource(subject), () => subject.symbols);

/** Bytes at linear addresses, as the vCPU's page tables map them now. */
export const linearMemory = (vcpu: VcpuSubject): Memory =>
  new Memory(new LinearSource(vcpu), () => vcpu.domain.symbols);

class MachineSource implements ByteSource {
  readonly kind = "machine";
  constructor(
    private readonly host: () => Host,
    private readonly whyGone: () => string | undefined,
  ) {}
  get gone(): string | undefined {
    return this.whyGone();
  }
  get size(): number | undefined {
    return this.gone === undefined ? this.host().machine.size : undefined;
  }
  read(address: bigint, length: number): Uint8Array {
    const { ram, size } = this.host().machine;
    if (address >= BigInt(size)) {
      throw new RangeError(`machine address ${hex(address)}: memory ends at ${hex(size)}`);
    }
    return ram.slice(Number(address), Math.min(Number(address) + length, size));
  }
  write(address: bigint, bytes: Uint8Array): void {
    const { world, machine } = this.host();
    world.enter("write", 0, { machine: Number(address), bytes });
    machine.write(Number(address), bytes);
  }
}

class PhysicalSource implements ByteSource {
  readonly kind = "guest-physical";
  constructor(private readonly subject: Subject) {}
  get gone(): string | undefined {
    return this.subject.gone;
  }
  get size(): number {
    return this.subject.inner.memory.size;
  }
  read(address: bigint, length: number): Uint8Array {
    const at = Number(address);
    const { memory } = this.subject.inner;
    if (at >= memory.size) {
      throw new RangeError(
        `guest-physical address ${hex(address)}: memory ends at ${hex(memory.size)}`,
      );
    }
    const page = Math.min(length, 4096 - at % 4096);
    try {
      return memory.read(at, Math.min(length, memory.size - at));
    } catch {
      // There is a hole on the way.
      return memory.read(at, page);
    }
  }
  write(address: bigint, bytes: Uint8Array): void {
    const { host, id, inner } = this.subject;
    host.world.enter("write", id, { gpa: Number(address), bytes });
    inner.memory.write(Number(address), bytes);
  }
  next(address: bigint): bigint | undefined {
    return (address & ~0xfffn) + 4096n;
  }
}

class LinearSource implements ByteSource {
  readonly kind = "linear";
  #map: { readonly count: number; readonly map: PageMap } | undefined;
  constructor(private readonly vcpu: VcpuSubject) {}
  get gone(): string | undefined {
    return this.vcpu.domain.gone;
  }

  /** Machine addresses of linear pages, from the first on, as many as are memory. */
  #machine(address: bigint, pages: number): number[] {
    const { machine } = this.vcpu.domain.host;
    return withPaging(this.vcpu.paging, (walker) => {
      const found: number[] = [];
      for (let n = 0; n < pages; n++) {
        const page = n === 0 ? address : (address & ~0xfffn) + BigInt(n * 4096);
        const walk = walker.walk(BigInt.asUintN(64, page)), at = walk.machine;
        const memory = at !== undefined && at < machine.size && !isDevice(machine, at);
        if (memory) found.push(at);
        else if (n > 0) break;
        else throw unreadable(address, walk);
      }
      return found;
    });
  }
  read(address: bigint, length: number): Uint8Array {
    const { ram } = this.vcpu.domain.host.machine;
    const inPage = Number(address & 0xfffn);
    const pages = this.#machine(BigInt.asUintN(64, address), Math.ceil((inPage + length) / 4096));
    const bytes = new Uint8Array(Math.min(length, pages.length * 4096 - inPage));
    let done = 0;
    for (const at of pages) {
      const n = Math.min(bytes.length - done, 4096 - at % 4096);
      bytes.set(ram.subarray(at, at + n), done);
      done += n;
    }
    return bytes;
  }
  write(address: bigint, bytes: Uint8Array): void {
    const { host, id } = this.vcpu.domain;
    host.world.enter("write", id, { linear: address, bytes });
    const inPage = Number(address & 0xfffn);
    const count = Math.ceil((inPage + bytes.length) / 4096);
    let done = 0;
    for (const at of this.#machine(BigInt.asUintN(64, address), count)) {
      const n = Math.min(bytes.length - done, 4096 - at % 4096);
      host.machine.write(at, bytes.subarray(done, done + n));
      done += n;
    }
  }
  next(address: bigint, limit: bigint): bigint | undefined {
    // One search asks often: the map is made once for as long as the guest stands still.
    const { count } = this.vcpu.position;
    if (this.#map?.count !== count) this.#map = { count, map: new PageTables(this.vcpu).map() };
    const { ranges } = this.#map.map;
    const page = (address & ~0xfffn) + 4096n;
    // Within a range only this page is none of ours: a device's.
    if (ranges.some((r) => r.from <= page && page < r.to)) return page < limit ? page : undefined;
    const next = ranges.find((r) => r.from > address);
    return next && next.from < limit ? next.from : undefined;
  }
}

/** Whether a device answers at a machine address below the end of memory. */
function isDevice({ frameTable }: Machine, address: number): boolean {
  return (frameTable[(address >>> 12) * (FRAME.size / 4)] & FRAME_FLAG.mmio) !== 0;
}

function unreadable(address: bigint, { machine, failure }: RawWalk): RangeError {
  return new RangeError(
    machine === undefined
      ? `linear address ${hex(address)} cannot be read: ${failure?.text ?? "not mapped"}`
      : `linear address ${hex(address)} leads to ${hex(machine)}, where a device answers and no ` +
        `memory; a look might change it`,
  );
}

/**
 * Guest handles: memory of a guest by linear addresses, as the vCPU that makes a hypercall sees it
 * (Xen's copy_from_guest and copy_to_guest). What its page tables do not allow is EFAULT.
 */
import { CR0, CR4, EFER } from "../abi/x86/cr.ts";
import { MSR } from "../abi/x86/msr.ts";
import { PAGING, pagingOf } from "../machine/mmu/modes.ts";
import { PAGES_ABSENT } from "../machine/mmu/modes.ts";
import type { Machine } from "../machine/machine.ts";
import { GuestWalk, type PagingRegisters, unpaged, WRITE } from "./guest_walk.ts";
import type { HvmEngine } from "./hvm.ts";

/** A linear address as two halves: of 64 bits, none is lost. */
interface Linear {
  low: number;
  high: number;
}

export class GuestHandles {
  readonly #machine: Machine;
  readonly #walk: GuestWalk;
  readonly #registers: PagingRegisters = unpaged();
  #open = false;

  constructor(readonly engine: HvmEngine) {
    const { p2m, cpuid } = engine, r = this.#registers;
    this.#machine = p2m.machine;
    this.#walk = new GuestWalk(p2m.machine, p2m);
    const show = () => {
      const absent = cpuid.pagesAbsent;
      r.gigabyte = !(absent & PAGES_ABSENT.gigabyte);
      r.pse36 = !(absent & PAGES_ABSENT.pse36);
    };
    show();
    cpuid.onChange.add(show);
  }

  /** The vCPU's tables are those it has now: before each hypercall that copies. */
  begin(): void {
    const { engine: { ops, hvm } } = this, r = this.#registers;
    const cr0 = low(ops.getCr(hvm, 0)), cr4 = low(ops.getCr(hvm, 4));
    const cr3 = ops.getCr(hvm, 3), efer = low(ops.getMsr(hvm, MSR.EFER)!);
    r.paging = pagingOf(cr0, cr4, efer);
    r.cr3 = low(cr3);
    r.cr3High = low(cr3 >> 32n);
    r.wp = (cr0 & CR0.WP) !== 0;
    r.pse = (cr4 & CR4.PSE) !== 0;
    r.nxe = (efer & EFER.NXE) !== 0;
    r.smep = (cr4 & CR4.SMEP) !== 0;
    r.smap = (cr4 & CR4.SMAP) !== 0;
    this.#open = (ops.getRegister(hvm, "rflags") & AC) !== 0n;
    if (r.paging === PAGING.pae) this.#loadPdptes();
  }
  /** From where CR3 points: a guest does not change them without loading it anew. */
  #loadPdptes(): void {
    const { p2m } = this.engine, r = this.#registers;
    const frame = p2m.machineFrame(p2m.canonical(r.cr3 >>> 12));
    const from = frame * 1024 + ((r.cr3 & 0xfe0) >> 2);
    for (let n = 0; n < 8; n++) r.pdptes[n] = frame < 0 ? 0 : this.#machine.words[from + n];
  }

  /** Machine address of a linear one, -1 where it may not be accessed so, or leads to no memory. */
  #translate({ low, high }: Linear, access: number): number {
    if (!this.#walk.walk(this.#registers, low, high, access, this.#open)) return -1;
    const { p2m } = this.engine, guest = this.#walk.frame;
    if (access & WRITE && !p2m.writable(guest)) return -1;
    const frame = p2m.machineFrame(guest);
    return frame < 0 ? -1 : frame * 4096 + (low & 0xfff);
  }

  /** Calls `part` with each run of bytes that lies in one frame; false if one of them cannot be accessed. */
  #each(
    linear: bigint,
    length: number,
    access: number,
    part: (machine: number, done: number, bytes: number) => void,
  ): boolean {
    const at = { low: low(linear), high: low(linear >> 32n) };
    for (let done = 0; done < length;) {
      const machine = this.#translate(at, access);
      if (machine < 0) return false;
      const bytes = Math.min(4096 - (at.low & 0xfff), length - done);
      part(machine, done, bytes);
      done += bytes;
      const next = (at.low >>> 0) + bytes;
      at.low = next | 0;
      if (next > 0xffff_ffff) at.high = at.high + 1 | 0;
    }
    return true;
  }

  /** Fills bytes from a linear address on. False: EFAULT. */
  read(linear: bigint, into: Uint8Array): boolean {
    const { ram } = this.#machine;
    return this.#each(
      linear,
      into.length,
      0,
      (machine, from, n) => into.set(ram.subarray(machine, machine + n), from),
    );
  }
  /** False: EFAULT; what lies before the page that cannot be written is written then, as Xen's copy does. */
  write(linear: bigint, bytes: Uint8Array): boolean {
    return this.#each(
      linear,
      bytes.length,
      WRITE,
      (machine, from, n) => this.#machine.write(machine, bytes.subarray(from, from + n)),
    );
  }
}

const AC = 1n << 18n;
const low = (value: bigint): number => Number(BigInt.asIntN(32, value));

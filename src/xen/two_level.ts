/**
 * The two-level ABI of event channels: a bit for each port in shared_info says that it is pending, another
 * that it is masked; a bit of the vCPU's own for each word of those says where to look (Xen
 * public/event_channel.h, public/xen.h).
 */
import type { Channel, EventAbi } from "./event_channels.ts";
import type { SharedMemory } from "./shared_memory.ts";
import type { XenVcpu } from "./xen_vcpu.ts";
import { XEN_ERRNO } from "../abi/xen/errno.ts";

/** Where the bits lie: machine addresses. They move when shared_info's width changes. */
interface Bits {
  readonly pending: number;
  readonly mask: number;
  /** Bits of a word: 32 or 64. */
  readonly width: number;
}

export class TwoLevel implements EventAbi {
  constructor(
    private readonly memory: SharedMemory,
    private readonly bits: () => Bits,
    private readonly vcpus: readonly XenVcpu[],
  ) {}

  readonly name = "two-level";

  get ports(): number {
    return this.bits().width ** 2;
  }
  isBusy(): boolean {
    return false;
  }
  isPending(port: number): boolean {
    return this.memory.bit(this.bits().pending, port);
  }
  isMasked(port: number): boolean {
    return this.memory.bit(this.bits().mask, port);
  }
  raise({ port, vcpu }: Channel): boolean {
    const { pending } = this.bits();
    if (this.memory.setBit(pending, port, true)) return true;
    if (!this.isMasked(port)) this.#select(port, vcpu);
    return false;
  }
  /** The vCPU is to look at a port's word; it is told if it was not to before. */
  #select(port: number, vcpu: number): void {
    const told = this.vcpus[vcpu], word = Math.floor(port / this.bits().width);
    if (!this.memory.setBit(told.selector, word, true)) told.notify();
  }
  clear(port: number): void {
    this.memory.setBit(this.bits().pending, port, false);
  }
  mask(port: number): void {
    this.memory.setBit(this.bits().mask, port, true);
  }
  unmask({ port, vcpu }: Channel): void {
    const masked = this.memory.setBit(this.bits().mask, port, false);
    if (masked && this.isPending(port)) this.#select(port, vcpu);
  }
  /** There is one queue. */
  setPriority(): number {
    return -XEN_ERRNO.ENOSYS;
  }
}

/**
 * The FIFO ABI of event channels: a word for each port in pages of the guest's, linked into a queue for
 * each vCPU and priority, whose heads are in the vCPU's control block (Xen public/event_channel.h, EVTCHN_FIFO_*).
 */
import { offsetOf } from "../abi/layout.ts";
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { EVTCHN_FIFO, EVTCHN_FIFO_CONTROL_BLOCK } from "../abi/xen/event_channel.ts";
import { list, record, tuple, whole } from "../machine/shape.ts";
import type { Channel, EventAbi } from "./event_channels.ts";
import type { SharedMemory } from "./shared_memory.ts";
import type { XenVcpu } from "./xen_vcpu.ts";

const { EINVAL, ENOENT, ENOSPC } = XEN_ERRNO;
const { MAX_QUEUES, LINK_BITS, LINK_MASK, NR_CHANNELS } = EVTCHN_FIFO;
const PENDING = 1 << EVTCHN_FIFO.PENDING, MASKED = 1 << EVTCHN_FIFO.MASKED;
const LINKED = 1 << EVTCHN_FIFO.LINKED, BUSY = 1 << EVTCHN_FIFO.BUSY;
const WORDS = 4096 / 4;
const HEAD = offsetOf(EVTCHN_FIFO_CONTROL_BLOCK, "head", 64);
const BLOCK_SIZE = HEAD + 4 * MAX_QUEUES;

/** Pages of the guest's that the hypervisor uses, by number of the guest's frame: taken, and let go. */
export interface GuestPages {
  /** Machine frame of one, held from now on; -1: the guest cannot write there. */
  take(guestFrame: bigint): number;
  letGo(frame: number): void;
}

/** Machine address of a vCPU's control block, 0 for none, and the last port of each of its queues. */
interface Queues {
  block: number;
  tails: number[];
}

/** What is saved of it. */
export interface SavedFifo {
  readonly pages: readonly number[];
  readonly vcpus: readonly { readonly block: number; readonly tails: readonly number[] }[];
  /** Ports whose event came before there was a word for it. */
  readonly early: readonly number[];
  /** Of each port that was linked: the vCPU and the priority of the queue. */
  readonly last: readonly (readonly [port: number, vcpu: number, priority: number])[];
}
const port = whole(0, NR_CHANNELS - 1);
export const FIFO_SHAPE = record({
  pages: list(whole()),
  vcpus: list(record({ block: whole(), tails: list(port) })),
  early: list(port),
  last: list(tuple(port, whole(0, 127), whole(0, MAX_QUEUES - 1))),
});

export class Fifo implements EventAbi {
  readonly name = "fifo";
  readonly #pages: number[] = [];
  readonly #queues: readonly Queues[];
  readonly #early = new Set<number>();
  readonly #last = new Map<number, { vcpu: number; priority: number }>();

  constructor(
    private readonly memory: SharedMemory,
    private readonly guest: GuestPages,
    private readonly vcpus: readonly XenVcpu[],
  ) {
    this.#queues = vcpus.map(() => ({ block: 0, tails: Array(MAX_QUEUES).fill(0) }));
  }

  readonly ports: number = NR_CHANNELS;
  readonly linkBits: number = LINK_BITS;

  /** Where a vCPU's control block is: once. 0 or an errno. */
  initControl(vcpu: number, guestFrame: bigint, offset: number): number {
    const queues = this.#queues[vcpu];
    if (!queues) return -ENOENT;
    if (offset > 4096 - BLOCK_SIZE || offset % 8 || queues.block) return -EINVAL;
    const frame = this.guest.take(guestFrame);
    if (frame < 0) return -EINVAL;
    queues.block = frame * 4096 + offset;
    return 0;
  }
  /** A page of words more: 0 or an errno. What came too early for its words is pending then. */
  expandArray(guestFrame: bigint, channelOf: (port: number) => Channel | undefined): number {
    const first = this.#pages.length * WORDS;
    if (first >= NR_CHANNELS) return -ENOSPC;
    const frame = this.guest.take(guestFrame);
    if (frame < 0) return -EINVAL;
    this.#pages.push(frame);
    for (const port of [...this.#early].filter((port) => port < first + WORDS)) {
      this.#early.delete(port);
      const channel = channelOf(port);
      if (channel) this.raise(channel);
    }
    return 0;
  }
  /** An event that was pending by the ABI before this one. */
  inherit(port: number): void {
    this.#early.add(port);
  }
  destroy(): void {
    for (const frame of this.#pages.splice(0)) this.guest.letGo(frame);
    for (const queues of this.#queues) {
      if (queues.block) this.guest.letGo(Math.floor(queues.block / 4096));
      queues.block = 0;
      queues.tails.fill(0);
    }
    this.#early.clear();
    this.#last.clear();
  }

  /** Machine address of a port's word; -1 while there is none. */
  #at(port: number): number {
    const frame = this.#pages[Math.floor(port / WORDS)];
    return frame === undefined ? -1 : frame * 4096 + port % WORDS * 4;
  }
  #test(port: number, bit: number): boolean {
    const at = this.#at(port);
    return at >= 0 && (this.memory.word(at) & bit) !== 0;
  }
  /** Sets bits and clears others; what the word was. */
  #change(at: number, set: number, clear: number): number {
    const old = this.memory.word(at), now = (old & ~clear | set) >>> 0;
    if (now !== old) this.memory.setWord(at, now);
    return old;
  }

  isPending(port: number): boolean {
    return this.#early.has(port) || this.#test(port, PENDING);
  }
  isMasked(port: number): boolean {
    return this.#at(port) < 0 || this.#test(port, MASKED);
  }
  /** A port that was closed may still be linked: nobody gets it until the guest has taken it out. */
  isBusy(port: number): boolean {
    return this.#test(port, LINKED);
  }
  raise(channel: Channel): boolean {
    const { port } = channel, at = this.#at(port);
    if (at < 0) {
      const early = this.#early.has(port);
      this.#early.add(port);
      return early;
    }
    const old = this.#change(at, PENDING, 0);
    if (!(old & (MASKED | LINKED))) this.#link(channel, at);
    return (old & PENDING) !== 0;
  }
  /** Puts a port at the end of the queue of its vCPU and priority. */
  #link({ port, vcpu, priority }: Channel, at: number): void {
    const queues = this.#queues[vcpu], told = this.vcpus[vcpu];
    // Nobody could find it: it is pending, and no more.
    if (!queues.block) return;
    this.#change(at, LINKED, 0);
    const last = this.#last.get(port);
    // It was the end of a queue that the guest has emptied.
    if (last && this.#queues[last.vcpu].tails[last.priority] === port) {
      this.#queues[last.vcpu].tails[last.priority] = 0;
    }
    this.#last.set(port, { vcpu, priority });
    const tail = queues.tails[priority];
    const behind = tail !== 0 && this.#linkBehind(tail, port);
    queues.tails[priority] = port;
    if (behind) return;
    this.memory.setWord(queues.block + HEAD + 4 * priority, port);
    if (!this.memory.setBit(queues.block, priority, true)) told.notify();
  }
  /** The word of the last port says which comes next; false if the guest has taken that out already. */
  #linkBehind(tail: number, port: number): boolean {
    const at = this.#at(tail), word = at < 0 ? 0 : this.memory.word(at);
    if (!(word & LINKED)) return false;
    this.memory.setWord(at, (word & ~(BUSY | LINK_MASK) | port) >>> 0);
    return true;
  }
  clear(port: number): void {
    this.#early.delete(port);
    const at = this.#at(port);
    if (at >= 0) this.#change(at, 0, PENDING);
  }
  mask(port: number): void {
    const at = this.#at(port);
    if (at >= 0) this.#change(at, MASKED, 0);
  }
  unmask(channel: Channel): void {
    const at = this.#at(channel.port);
    if (at < 0) return;
    this.#change(at, 0, MASKED);
    if (this.#test(channel.port, PENDING)) this.raise(channel);
  }
  setPriority(channel: Channel, priority: number): number {
    if (priority >= MAX_QUEUES) return -EINVAL;
    channel.priority = priority;
    return 0;
  }

  save(): SavedFifo {
    return {
      pages: [...this.#pages],
      vcpus: this.#queues.map(({ block, tails }) => ({ block, tails: [...tails] })),
      early: [...this.#early].sort((a, b) => a - b),
      last: [...this.#last].map(([port, { vcpu, priority }]) => [port, vcpu, priority] as const)
        .sort(([a], [b]) => a - b),
    };
  }
  /** What its pages hold is memory's state, and that they are held the frames'. */
  load({ pages, vcpus, early, last }: SavedFifo): void {
    this.#pages.splice(0, Infinity, ...pages);
    vcpus.forEach(({ block, tails }, n) => {
      this.#queues[n].block = block;
      this.#queues[n].tails = [...tails];
    });
    this.#early.clear();
    for (const port of early) this.#early.add(port);
    this.#last.clear();
    for (const [port, vcpu, priority] of last) this.#last.set(port, { vcpu, priority });
  }
}

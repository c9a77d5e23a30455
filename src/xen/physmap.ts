/** The guest's physical map as its hypercalls change it: pages come, go and are shared with the hypervisor. */
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { bytes, list, record, tuple, whole } from "../machine/shape.ts";
import type { StateRegister } from "../machine/state_block.ts";
import type { GuestPages } from "./fifo.ts";
import { FAR, type FarFrames, type P2M } from "./p2m.ts";

const { EINVAL, ENOENT, ENOMEM, ENXIO, EXDEV } = XEN_ERRNO;

/** Guest frames that there can be: 8 GiB of addresses, and those that nested tables have and no processor. */
const NEAR_END = 2 ** 21, FAR_END = 2 ** 36;
/** Nested page tables that a further guest frame may need. */
const TABLES = 3;

interface SavedPhysmap {
  readonly pages: number;
  readonly memoryMap: Uint8Array;
  readonly highest: number;
  readonly far: FarFrames;
}

export class Physmap implements GuestPages {
  /** Machine frames that are the hypervisor's, and only shown to the guest. */
  readonly #shared = new Set<number>();
  /** Pages that the domain has, in its map or out of it. */
  pages: number;
  #highest: number;

  constructor(
    readonly p2m: P2M,
    /** What its addresses are, as XENMEM_memory_map tells it: entries of an E820 map. */
    public memoryMap: Uint8Array,
    /** Most pages that it may have. */
    readonly maxPages: number,
  ) {
    this.pages = this.#mapped();
    this.#highest = p2m.size - 1;
  }
  /** The highest guest frame that there has been. */
  get highest(): number {
    return this.#highest;
  }
  #mapped(): number {
    const { p2m } = this;
    let pages = 0;
    for (let guest = 0; guest < p2m.size; guest++) {
      const frame = p2m.machineFrame(guest);
      if (frame >= 0 && p2m.guestFrame(frame) === guest) pages++;
    }
    return pages;
  }

  register(blocks: StateRegister): void {
    const total = this.p2m.machine.size / 4096, guest = whole(0, FAR_END);
    blocks.register<SavedPhysmap>({
      name: "physmap",
      version: 1,
      shape: record({
        pages: whole(0, this.maxPages),
        memoryMap: bytes(),
        highest: whole(0, FAR_END),
        far: record({
          frames: list(tuple(guest, whole(0, total - 1), whole(0, 7))),
          tables: list(guest),
        }),
      }),
      save: () => ({
        pages: this.pages,
        memoryMap: this.memoryMap.slice(),
        highest: this.#highest,
        far: this.p2m.far,
      }),
      load: ({ pages, memoryMap, highest, far }) => {
        this.pages = pages;
        this.memoryMap = memoryMap.slice();
        this.#highest = highest;
        this.p2m.far = far;
      },
    });
  }

  /** A frame is the hypervisor's: it stays when the guest takes it out of its map. */
  share(frame: number): void {
    this.#shared.add(frame);
  }

  // --- where something is ---

  /** The number of a guest's frame; -1: there can be none. */
  frameNumber(guestFrame: bigint): number {
    const number = Number(guestFrame);
    return number < NEAR_END || (number >= FAR && number < FAR_END) ? number : -1;
  }
  /** Machine frame of the guest's memory; -1 if there is none, or it may not be written. */
  frameOf(guestFrame: number, write: boolean): number {
    const frame = this.p2m.machineFrame(guestFrame);
    const own = frame >= 0 && this.#isOwn(frame);
    return own && (!write || this.p2m.writable(guestFrame)) ? frame : -1;
  }
  /** The same, of the domain's memory and of what is shown to it. */
  ownFrame(guestFrame: number): number {
    const frame = this.p2m.machineFrame(guestFrame);
    return frame >= 0 && !this.isForeign(frame) ? frame : -1;
  }
  /** A frame is the domain's memory: neither another's, nor the hypervisor's. */
  #isOwn(frame: number): boolean {
    return !this.isForeign(frame) && !this.#shared.has(frame);
  }
  /** A frame is another domain's. */
  isForeign(frame: number): boolean {
    return this.p2m.frames.owners[frame] !== this.p2m.owner;
  }
  take(guestFrame: bigint): number {
    const guest = this.frameNumber(guestFrame);
    const frame = this.p2m.writable(guest) ? this.p2m.machineFrame(guest) : -1;
    if (frame >= 0) this.p2m.frames.hold(frame);
    return frame;
  }
  letGo(frame: number): void {
    this.p2m.frames.letGo(frame);
  }

  // --- what the guest does to it: 0 or an errno ---

  /** Shows a frame of the hypervisor's at a guest frame: what was there is given back. */
  add(guestFrame: bigint, frame: number): number {
    return this.#put(this.frameNumber(guestFrame), frame);
  }
  /** What is at a guest frame moves to another one. */
  move(from: bigint, to: bigint): number {
    const guest = this.frameNumber(from), frame = this.ownFrame(guest);
    if (frame < 0) return -EINVAL;
    // What is at several places, a ROM, stays at them.
    return this.p2m.guestFrame(frame) === guest ? this.#put(this.frameNumber(to), frame) : -EXDEV;
  }
  /** A frame of the domain's is at one place, and there alone. */
  #put(guest: number, frame: number): number {
    if (guest < 0) return -EINVAL;
    const { p2m } = this, old = p2m.guestFrame(frame);
    if (old === guest) return 0;
    if (!this.#hasRoom(0) || !p2m.mayMap(guest)) return -ENOMEM;
    const result = p2m.machineFrame(guest) < 0 ? 0 : this.giveBack(guest);
    if (result < 0) return result;
    if (old >= 0) p2m.unmap(old);
    p2m.map(guest, frame);
    this.#highest = Math.max(this.#highest, guest);
    return 0;
  }
  /** Memory at a guest frame goes back to the host; what is only shown there is taken out of the map. */
  giveBack(guest: number): number {
    const { p2m } = this, frame = p2m.machineFrame(guest);
    if (frame < 0) return -ENOENT;
    if (this.isForeign(frame)) return -ENXIO;
    p2m.unmap(guest);
    if (this.#shared.has(frame) || p2m.guestFrame(frame) >= 0) return 0;
    this.pages--;
    p2m.frames.release(frame);
    return 0;
  }
  /** Takes a frame out of the map: memory stays the domain's, though it cannot reach it any more. */
  remove(guestFrame: bigint): number {
    const guest = this.frameNumber(guestFrame);
    if (this.ownFrame(guest) < 0) return -ENOENT;
    this.p2m.unmap(guest);
    return 0;
  }

  /** Frames of the host's for so many pages, and for tables that lead to them. */
  #hasRoom(pages: number): boolean {
    return this.p2m.frames.free >= pages + TABLES;
  }
  /** The domain gets so many further pages: their frames; undefined: it may not, or there are none. */
  allocate(pages: number): number[] | undefined {
    if (this.pages + pages > this.maxPages || !this.#hasRoom(pages)) return undefined;
    this.pages += pages;
    return Array.from({ length: pages }, () => this.p2m.frames.allocate(this.p2m.owner));
  }
  /** There can be further memory from a guest frame on: nothing of another domain's is there. */
  mayPopulate(guestFrame: bigint, pages: number): boolean {
    const first = this.frameNumber(guestFrame), last = first + pages - 1;
    if (first < 0 || this.frameNumber(BigInt(last)) < 0) return false;
    if (!this.p2m.mayMap(first) || !this.p2m.mayMap(last)) return false;
    for (let guest = first; guest < first + pages; guest++) {
      const frame = this.p2m.machineFrame(guest);
      if (frame >= 0 && this.isForeign(frame)) return false;
    }
    return true;
  }
  /** Further memory from a guest frame on; what was there stays the domain's. False: there is none. */
  populate(guestFrame: bigint, pages: number): boolean {
    if (!this.mayPopulate(guestFrame, pages)) return false;
    const first = this.frameNumber(guestFrame), frames = this.allocate(pages);
    frames?.forEach((frame, n) => this.p2m.map(first + n, frame));
    if (frames) this.#highest = Math.max(this.#highest, first + pages - 1);
    return frames !== undefined;
  }

  // --- grants of others ---

  /** Shows another domain's frame at a guest frame; false if there is one of that kind already. */
  mapForeign(guest: number, frame: number, readonly: boolean): boolean {
    const old = this.p2m.machineFrame(guest);
    if ((old >= 0 && !this.#isOwn(old)) || !this.#hasRoom(0) || !this.p2m.mayMap(guest)) {
      return false;
    }
    this.#highest = Math.max(this.#highest, guest);
    this.p2m.map(guest, frame, { read: true, write: !readonly, execute: true });
    return true;
  }
  /** Takes it away again; false if it is not there. */
  unmapForeign(guest: number, frame: number): boolean {
    if (this.p2m.machineFrame(guest) !== frame) return false;
    this.p2m.unmap(guest);
    return true;
  }
}

/** The guest's physical map as its hypercalls change it: pages come, go and are shared with the hypervisor. */
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import type { GuestPages } from "./fifo.ts";
import type { P2M } from "./p2m.ts";

/** Guest frames that there can be at most: 8 GiB of addresses. */
const FRAMES_MAX = 2 ** 21;

export class Physmap implements GuestPages {
  /** Machine frames that are the hypervisor's, and only shown to the guest. */
  readonly #shared = new Set<number>();

  constructor(readonly p2m: P2M) {}

  /** A frame is the hypervisor's: it stays when the guest takes it out of its map. */
  share(frame: number): void {
    this.#shared.add(frame);
  }
  /** Shows a frame of the hypervisor's at a guest frame: what was there is given back. 0 or an errno. */
  add(guestFrame: bigint, frame: number): number {
    if (guestFrame >= BigInt(FRAMES_MAX)) return -XEN_ERRNO.EINVAL;
    const guest = Number(guestFrame), old = this.p2m.guestFrame(frame);
    if (old === guest) return 0;
    const result = this.#drop(guest);
    if (result < 0) return result;
    // It is at one place at a time.
    if (old >= 0) this.p2m.unmap(old);
    this.p2m.map(guest, frame);
    return 0;
  }
  /** Takes a frame out of the map; memory of the guest's own is free then. 0 or an errno. */
  remove(guestFrame: bigint): number {
    if (guestFrame >= BigInt(FRAMES_MAX)) return -XEN_ERRNO.EINVAL;
    const guest = Number(guestFrame);
    return this.p2m.machineFrame(guest) < 0 ? -XEN_ERRNO.ENOENT : this.#drop(guest);
  }
  take(guestFrame: bigint): number {
    const guest = guestFrame < BigInt(FRAMES_MAX) ? Number(guestFrame) : -1;
    const frame = this.p2m.writable(guest) ? this.p2m.machineFrame(guest) : -1;
    if (frame >= 0) this.p2m.frames.hold(frame);
    return frame;
  }
  letGo(frame: number): void {
    this.p2m.frames.letGo(frame);
  }
  /** The number of a guest's frame; -1: there can be none. */
  frameNumber(guestFrame: bigint): number {
    return guestFrame < BigInt(FRAMES_MAX) ? Number(guestFrame) : -1;
  }
  /** Machine frame of the guest's memory; -1 if there is none, or it may not be written. */
  frameOf(guestFrame: number, write: boolean): number {
    const frame = this.p2m.machineFrame(guestFrame);
    const own = frame >= 0 && this.#isOwn(frame);
    return own && (!write || this.p2m.writable(guestFrame)) ? frame : -1;
  }
  /** A frame is the domain's memory: neither another's, nor the hypervisor's. */
  #isOwn(frame: number): boolean {
    return this.p2m.frames.owners[frame] === this.p2m.owner && !this.#shared.has(frame);
  }
  /** Shows another domain's frame at a guest frame; false if there is one of that kind already. */
  mapForeign(guest: number, frame: number, readonly: boolean): boolean {
    const old = this.p2m.machineFrame(guest);
    if (old >= 0 && !this.#isOwn(old)) return false;
    this.p2m.map(guest, frame, { read: true, write: !readonly, execute: true });
    return true;
  }
  /** Takes it away again; false if it is not there. */
  unmapForeign(guest: number, frame: number): boolean {
    if (this.p2m.machineFrame(guest) !== frame) return false;
    this.p2m.unmap(guest);
    return true;
  }
  /** What is at a guest frame goes: 0, or an errno where it is another domain's, which is unmapped otherwise. */
  #drop(guest: number): number {
    const { p2m } = this, frame = p2m.machineFrame(guest);
    if (frame < 0) return 0;
    const own = this.#isOwn(frame);
    if (!own && !this.#shared.has(frame)) return -XEN_ERRNO.EPERM;
    p2m.unmap(guest);
    if (own && p2m.guestFrame(frame) < 0) p2m.frames.release(frame);
    return 0;
  }
}

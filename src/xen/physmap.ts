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
    this.#drop(guest);
    // It is at one place at a time.
    if (old >= 0) this.p2m.unmap(old);
    this.p2m.map(guest, frame);
    return 0;
  }
  /** Takes a frame out of the map; memory of the guest's own is free then. 0 or an errno. */
  remove(guestFrame: bigint): number {
    if (guestFrame >= BigInt(FRAMES_MAX)) return -XEN_ERRNO.EINVAL;
    return this.#drop(Number(guestFrame)) ? 0 : -XEN_ERRNO.ENOENT;
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
  #drop(guest: number): boolean {
    const { p2m } = this, frame = p2m.machineFrame(guest);
    if (frame < 0) return false;
    p2m.unmap(guest);
    if (!this.#shared.has(frame) && p2m.guestFrame(frame) < 0) p2m.frames.release(frame);
    return true;
  }
}

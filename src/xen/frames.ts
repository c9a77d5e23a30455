/**
 * Machine frames: who owns each, and which are free. Frames are handed out in a seeded order. Free
 * ones hold zeroes, as all memory does at the start: what a guest never touches costs the process
 * nothing.
 */
import type { Machine } from "../machine/machine.ts";
import { bytes, checkOrder, flag, list, record, tuple, whole } from "../machine/shape.ts";
import { FRAME, FRAME_FLAG } from "../machine/state.ts";
import { bytesOf, refuse, type StateRegister } from "../machine/state_block.ts";

const FREE = 0;
const WRITTEN = FRAME_FLAG.dirty | FRAME_FLAG.written;

interface SavedFrames {
  readonly owners: Uint8Array;
  readonly free: Uint8Array;
  readonly held: readonly (readonly [frame: number, uses: number, left: boolean])[];
}

export class Frames {
  /** Owner of each frame: 0 free, -1 the host, else a domain's id. */
  readonly owners: Int16Array;
  readonly #free: Uint32Array;
  #count = 0;
  /** Frames that somebody besides their owner uses: how many uses, and whether the owner has let go. */
  readonly #held = new Map<number, { uses: number; left: boolean }>();

  /**
   * @param reserved frames at the bottom that stay the host's
   * @param random next 32 random bits, from the world
   */
  constructor(readonly machine: Machine, reserved: number, random: () => number) {
    const total = machine.size / 4096;
    this.owners = new Int16Array(total);
    this.owners.fill(-1, 0, reserved);
    this.#free = new Uint32Array(total);
    for (let frame = reserved; frame < total; frame++) this.#free[this.#count++] = frame;
    // Fisher-Yates: a guest frame's number says nothing about its machine frame.
    for (let i = this.#count - 1; i > 0; i--) {
      const j = random() % (i + 1);
      const kept = this.#free[i];
      this.#free[i] = this.#free[j];
      this.#free[j] = kept;
    }
  }

  get free(): number {
    return this.#count;
  }

  /**
   * Its state: owners, and the free frames in the order in which they are handed out.
   *
   * @param known whether there is a domain of an id
   */
  register(blocks: StateRegister, known: (id: number) => boolean): void {
    const total = this.owners.length;
    const read = ({ owners, free }: SavedFrames) => ({
      owners: new Int16Array(owners.slice().buffer),
      free: new Uint32Array(free.slice(0, free.length & ~3).buffer),
    });
    blocks.register<SavedFrames>({
      name: "frames",
      version: 2,
      shape: record({
        owners: bytes(2 * total),
        free: bytes(),
        held: list(tuple(whole(0, total - 1), whole(1), flag)),
      }),
      save: () => ({
        owners: bytesOf(this.owners),
        free: bytesOf(this.#free.subarray(0, this.#count)),
        held: [...this.#held].map(([frame, { uses, left }]) => [frame, uses, left] as const)
          .sort(([a], [b]) => a - b),
      }),
      check: (saved) => {
        const { owners, free } = read(saved), seen = new Uint8Array(total);
        const held = new Map(saved.held.map(([frame, uses, left]) => [frame, { uses, left }]));
        checkOrder("frames: held", saved.held.map(([frame]) => [frame, frame]));
        for (const [frame] of held) {
          if (owners[frame] === FREE) {
            refuse(`frames: 0x${frame.toString(16)} is held, and nobody's`);
          }
        }
        owners.forEach((owner, n) => {
          if (owner === FREE || owner === -1 || known(owner) || held.has(n)) return;
          refuse(`frames: 0x${n.toString(16)} is domain ${owner}'s: none is here`);
        });
        for (const frame of free) {
          if (frame < total && owners[frame] === FREE && !seen[frame]++) continue;
          refuse(`frames: 0x${frame.toString(16)} is listed as free, and is not`);
        }
        const count = owners.reduce((n, owner) => n + +(owner === FREE), 0);
        if (saved.free.length === 4 * count) return;
        refuse(`frames: ${count} are nobody's, and ${saved.free.length / 4} are listed as free`);
      },
      load: (saved) => {
        const { owners, free } = read(saved);
        this.owners.set(owners);
        this.#free.set(free);
        this.#count = free.length;
        this.#held.clear();
        for (const [frame, uses, left] of saved.held) this.#held.set(frame, { uses, left });
      },
    });
  }

  /** A zeroed frame for `owner`; its number. @throws {RangeError} when memory is used up. */
  allocate(owner: number): number {
    if (this.#count === 0) {
      throw new RangeError(
        `machine memory is used up: all ${this.owners.length} frames are taken; ` +
          `start the host with more memory`,
      );
    }
    const frame = this.#free[--this.#count];
    this.owners[frame] = owner;
    return frame;
  }

  /**
   * The first of `count` consecutive zeroed frames, the lowest there are.
   * @throws {RangeError} when there are none
   */
  allocateRun(owner: number, count: number): number {
    for (let first = 0, length = 0, frame = 0; frame < this.owners.length; frame++) {
      if (this.owners[frame] !== FREE) length = 0;
      else if (++length === 1) first = frame;
      if (length < count) continue;
      let kept = 0;
      for (let i = 0; i < this.#count; i++) {
        const free = this.#free[i];
        if (free < first || free > frame) this.#free[kept++] = free;
      }
      this.#count = kept;
      this.owners.fill(owner, first, frame + 1);
      return first;
    }
    throw new RangeError(
      `no ${count} consecutive machine frames are free; start the host with more memory`,
    );
  }

  /** Somebody besides the owner uses a frame: it stays what it is until all have let go. */
  hold(frame: number): void {
    const held = this.#held.get(frame);
    if (held) held.uses++;
    else this.#held.set(frame, { uses: 1, left: false });
  }
  /** One of those has let go. */
  letGo(frame: number): void {
    const held = this.#held.get(frame);
    if (!held) throw new Error(`frame 0x${frame.toString(16)} is not held`);
    if (--held.uses > 0) return;
    this.#held.delete(frame);
    if (held.left) this.release(frame);
  }
  /** How many use a frame besides its owner. */
  uses(frame: number): number {
    return this.#held.get(frame)?.uses ?? 0;
  }

  /** Its owner gives a frame back; it is free as soon as nobody else uses it. */
  release(frame: number): void {
    if (this.owners[frame] === FREE) {
      throw new Error(`frame 0x${frame.toString(16)} is free already`);
    }
    const held = this.#held.get(frame);
    if (held) {
      held.left = true;
      return;
    }
    if (!this.#isClear(frame)) this.machine.write(frame * 4096, ZEROES);
    this.owners[frame] = FREE;
    this.#free[this.#count++] = frame;
  }

  /** A large domain gives back hundreds of thousands of frames, most of which nobody ever wrote. */
  #isClear(frame: number): boolean {
    const { words, frameTable } = this.machine, end = (frame + 1) * 1024;
    if (!(frameTable[frame * (FRAME.size / 4)] & WRITTEN)) return true;
    for (let at = frame * 1024; at < end; at++) if (words[at] !== 0) return false;
    return true;
  }

  /** Gives back all frames of an owner; how many they were. */
  releaseAll(owner: number): number {
    let released = 0;
    for (let frame = 0; frame < this.owners.length; frame++) {
      if (this.owners[frame] !== owner || this.#held.get(frame)?.left) continue;
      this.release(frame);
      released++;
    }
    return released;
  }
}

const ZEROES = new Uint8Array(4096);

/** Hashes of memory, frame by frame, kept up to date from the frames written since. */
import { type Hash, hashWords, minus, placed, plus, ZERO } from "./hash.ts";
import type { Machine } from "./machine.ts";
import { FRAME, FRAME_FLAG } from "./state.ts";

/** Hashes of the frames of a machine. */
export class FrameHashes {
  /** Two words a frame. */
  readonly #hashes: Uint32Array;
  readonly #words: Int32Array;
  #sum: Hash = ZERO;

  private constructor(readonly machine: Machine) {
    this.#words = machine.words;
    this.#hashes = new Uint32Array(machine.size / 4096 * 2);
  }

  static readonly #of = new WeakMap<Machine, FrameHashes>();
  /** Those of a machine: one set, since there is one dirty mark a frame. */
  static of(machine: Machine): FrameHashes {
    let hashes = this.#of.get(machine);
    if (!hashes) this.#of.set(machine, hashes = new FrameHashes(machine));
    return hashes;
  }

  /** Hashes the frames written since the last time, and clears their marks. */
  update(): void {
    const { machine } = this, { frameTable } = machine;
    let cleared = false;
    for (let frame = 0; frame < this.#hashes.length / 2; frame++) {
      const at = frame * (FRAME.size / 4);
      if (!(frameTable[at] & FRAME_FLAG.dirty)) continue;
      frameTable[at] = frameTable[at] & ~FRAME_FLAG.dirty | FRAME_FLAG.written;
      cleared = true;
      const hash = hashWords(this.#words, frame * 1024, frame * 1024 + 1024);
      this.#sum = plus(minus(this.#sum, placed(frame, this.frame(frame))), placed(frame, hash));
      this.#hashes[2 * frame] = hash[0];
      this.#hashes[2 * frame + 1] = hash[1];
    }
    // A write through a TLB entry marks nothing: the next write must be seen again.
    if (cleared) { for (const cpu of machine.cpus) cpu.flushTlb(); }
  }

  /** Hash of one frame's content, as of the last update. */
  frame(frame: number): Hash {
    return [this.#hashes[2 * frame], this.#hashes[2 * frame + 1]];
  }
  /** Of all memory, as of the last update. */
  get sum(): Hash {
    return this.#sum;
  }
  /** Frames that are not all zero, as of the last update. */
  get used(): number[] {
    const used: number[] = [];
    for (let frame = 0; frame < this.#hashes.length / 2; frame++) {
      if (this.#hashes[2 * frame] || this.#hashes[2 * frame + 1]) used.push(frame);
    }
    return used;
  }
}

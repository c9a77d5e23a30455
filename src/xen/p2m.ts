/**
 * Guest frame to machine frame (P2M), kept in the nested page tables the processor walks, in machine
 * memory. The vendor's entry format comes from the ops.
 */
import type { Machine } from "../machine/machine.ts";
import type { NestedFormat, NestedRights } from "../hvm/ops.ts";
import { bytes, flag, record } from "../machine/shape.ts";
import { bytesOf, refuse, type StateRegister } from "../machine/state_block.ts";
import type { Frames } from "./frames.ts";

/** Name of the block, in its domain's part. */
export const P2M_BLOCK = "P2M";

export const ALL: NestedRights = { read: true, write: true, execute: true };

const bits = ({ read, write, execute }: NestedRights) => +read | +write << 1 | +execute << 2;
const rightsOf = (bits: number): NestedRights => ({
  read: (bits & 1) !== 0,
  write: (bits & 2) !== 0,
  execute: (bits & 4) !== 0,
});

/** Bit 20 of an address, in a frame's number. */
const A20 = 0x100;
/** Guest frames by which what is kept for each grows, at least. */
const STEP = 0x4000;
/** From here on guest frames are beyond a processor's addresses (36 bits): there are few, each by itself. */
export const FAR = 2 ** 24;
/** Tables of the last level that those may have: each may need three frames. */
const FAR_TABLES = 64;

/** A guest frame beyond the processor's addresses: what it leads to, and rights as bits. */
export type FarFrame = readonly [guestFrame: number, frame: number, rights: number];
/** Those, and the tables of the last level that they have had. */
export interface FarFrames {
  readonly frames: readonly FarFrame[];
  readonly tables: readonly number[];
}

export class P2M {
  /** Machine address of the top table. */
  readonly root: number;
  /** Machine frame of each guest frame, -1 where there is no memory: what the tables say, for speed. */
  #machineFrames: Int32Array;
  /** Guest frames that there were up to now. */
  #size: number;
  /** The first guest frame that leads to each machine frame, -1 for none; and how many do. */
  readonly #guestFrames: Float64Array;
  readonly #places: Uint32Array;
  readonly #far = new Map<number, { readonly frame: number; readonly rights: number }>();
  /** Which tables of the last level those have had. */
  readonly #farTables = new Set<number>();
  /** Rights of each guest frame: bits 0 read, 1 write, 2 execute. */
  #rights: Uint8Array;
  /** Told when what a guest frame leads to, or what it allows, is about to change. */
  readonly onChange: Set<(guestFrame: number) => void> = new Set();
  /** Told when the A20 gate has opened or closed. */
  readonly onGate: Set<() => void> = new Set();
  /** How many shadows have derived something from each machine frame. */
  readonly #derived: Uint8Array;
  /** What the A20 gate leaves of a frame's number. */
  #gate = -1;

  constructor(
    readonly machine: Machine,
    readonly frames: Frames,
    readonly owner: number,
    readonly format: NestedFormat,
    /** Guest frames that there are at least. */
    private readonly least: number,
  ) {
    this.root = frames.allocate(owner) * 4096;
    this.#machineFrames = new Int32Array(least).fill(-1);
    this.#size = least;
    this.#rights = new Uint8Array(least);
    this.#guestFrames = new Float64Array(machine.size / 4096).fill(-1);
    this.#places = new Uint32Array(machine.size / 4096);
    this.#derived = new Uint8Array(machine.size / 4096);
  }

  #changed(guestFrame: number): void {
    for (const told of this.onChange) told(guestFrame);
  }
  /** One shadow has derived something from what a guest frame holds, or has nothing left of it. */
  markDerived(guestFrame: number, on: boolean): void {
    const frame = this.machineFrame(guestFrame);
    // It may lead elsewhere since.
    if (frame < 0 || (!on && this.#derived[frame] === 0)) return;
    const others = on ? this.#derived[frame]++ : --this.#derived[frame];
    if (others === 0) this.machine.markDerived(frame, on);
  }

  get size(): number {
    return this.#size;
  }
  /** Guest frames for which there is room: what is kept for each of them grows in steps. */
  get room(): number {
    return this.#machineFrames.length;
  }

  /** Its state: what the tables say, which lie in machine memory. */
  register(blocks: StateRegister): void {
    const total = this.#guestFrames.length,
      read = (saved: Uint8Array) => new Int32Array(saved.slice(0, saved.length & ~3).buffer);
    blocks.register<{ frames: Uint8Array; rights: Uint8Array; a20: boolean }>({
      name: P2M_BLOCK,
      version: 1,
      configuration: () => ({ "nested tables": this.root }),
      shape: record({ frames: bytes(), rights: bytes(), a20: flag }),
      save: () => ({
        frames: bytesOf(this.#machineFrames.subarray(0, this.#size)),
        rights: this.#rights.slice(0, this.#size),
        a20: this.a20,
      }),
      check: (saved) => {
        const { rights } = saved, frames = read(saved.frames);
        if (saved.frames.length !== 4 * rights.length || frames.length < this.least) {
          refuse(`P2M: ${frames.length} guest frames have ${rights.length} rights`);
        }
        frames.forEach((frame, n) => {
          if (frame >= -1 && frame < total && rights[n] < 8) return;
          refuse(`P2M: guest frame 0x${n.toString(16)} leads to frame ${frame} of ${total}`);
        });
      },
      load: ({ frames, rights, a20 }) => this.#put(read(frames), rights, a20),
    });
  }
  /** Puts a state in place whose tables are in memory already. */
  #put(frames: Int32Array, rights: Uint8Array, a20: boolean): void {
    this.#gate = a20 ? -1 : ~A20;
    const before = this.#machineFrames, size = this.#size;
    const same = size === frames.length && frames.every((f, n) => f === before[n]) &&
      rights.every((r, n) => r === this.#rights[n]);
    if (same) return;
    this.#machineFrames = frames.slice();
    this.#rights = rights.slice();
    this.#size = frames.length;
    this.#recount();
    const most = Math.max(size, frames.length);
    for (let n = 0; n < most; n++) if ((before[n] ?? -1) !== (frames[n] ?? -1)) this.#changed(n);
  }

  #recount(): void {
    this.#guestFrames.fill(-1);
    this.#places.fill(0);
    const count = (guest: number, frame: number) => {
      if (frame < 0) return;
      this.#guestFrames[frame] = guest;
      this.#places[frame]++;
    };
    for (const [guest, { frame }] of [...this.#far].sort(([a], [b]) => b - a)) count(guest, frame);
    for (let n = this.#size - 1; n >= 0; n--) count(n, this.#machineFrames[n]);
  }
  /** Guest frames beyond the processor's addresses, and the tables that lead or led to some: of a state. */
  get far(): FarFrames {
    const frames = [...this.#far].map(([guest, { frame, rights }]) =>
      [guest, frame, rights] as const
    );
    return {
      frames: frames.sort(([a], [b]) => a - b),
      tables: [...this.#farTables].sort((a, b) => a - b),
    };
  }
  set far({ frames, tables }: FarFrames) {
    this.#far.clear();
    for (const [guest, frame, rights] of frames) this.#far.set(guest, { frame, rights });
    this.#farTables.clear();
    for (const table of tables) this.#farTables.add(table);
    this.#lastPart = -1;
    this.#recount();
  }

  #read(address: number): bigint {
    return new DataView(this.machine.ram.buffer, this.machine.ram.byteOffset).getBigUint64(
      address,
      true,
    );
  }
  #write(address: number, entry: bigint): void {
    this.machine.writeEntry(
      address,
      Number(BigInt.asIntN(32, entry)),
      Number(BigInt.asIntN(32, entry >> 32n)),
    );
  }

  /** The table of the last level that was used last, and which 512 frames it maps. */
  #lastTable = 0;
  #lastPart = -1;

  /** Place of the last-level entry of a guest frame; tables on the way are made. */
  #slot(guestFrame: number): number {
    const part = Math.floor(guestFrame / 512);
    if (part !== this.#lastPart) this.#lastTable = this.#table(guestFrame);
    this.#lastPart = part;
    return this.#lastTable + (guestFrame % 512) * 8;
  }
  #table(guestFrame: number): number {
    let table = this.root;
    for (let level = 3; level > 0; level--) {
      const slot = table + (Math.floor(guestFrame / 512 ** level) % 512) * 8;
      let next = this.format.address(this.#read(slot));
      if (next === undefined) {
        next = this.frames.allocate(this.owner) * 4096;
        this.#write(slot, this.format.table(next));
      }
      table = next;
    }
    return table;
  }

  get a20(): boolean {
    return this.#gate === -1;
  }
  /**
   * Opens or closes the A20 gate: closed, the nested tables lead each odd megabyte to the even one
   * below it. What the guest frames themselves are stays.
   */
  set a20(open: boolean) {
    if (open === this.a20) return;
    this.#gate = open ? -1 : ~A20;
    const frames = this.#machineFrames;
    for (let at = A20; at < this.#size + A20; at++) {
      if (!(at & A20)) at |= A20;
      const to = this.canonical(at), frame = frames[to];
      if (!(frame >= 0 || frames[at] >= 0)) continue;
      const entry = frame >= 0 ? this.format.page(frame * 4096, rightsOf(this.#rights[to])) : 0n;
      this.#write(this.#slot(at), entry);
    }
    for (const told of this.onGate) told();
  }

  /** The frame that a guest reaches by a frame's number, the A20 gate being as it is. */
  canonical(guestFrame: number): number {
    // It may have more than 32 bits.
    return this.#gate !== -1 && guestFrame & A20 ? guestFrame - A20 : guestFrame;
  }
  /** Whether there may be something at a guest frame: of those far away there are not too many. */
  mayMap(guestFrame: number): boolean {
    const table = Math.floor(guestFrame / 512);
    return guestFrame < FAR || this.#farTables.size < FAR_TABLES || this.#farTables.has(table);
  }

  /** Maps a guest frame to a machine frame. @throws {RangeError} when there is no frame for tables */
  map(guestFrame: number, machineFrame: number, rights: NestedRights = ALL): void {
    // Its table is made, or nothing is changed.
    this.#slot(guestFrame);
    this.#grow(guestFrame);
    this.#tell(guestFrame);
    this.#show(guestFrame, this.format.page(machineFrame * 4096, rights));
    this.#forget(guestFrame);
    this.#keep(guestFrame, machineFrame, bits(rights));
    this.#places[machineFrame]++;
    const first = this.#guestFrames[machineFrame];
    if (first < 0 || guestFrame < first) this.#guestFrames[machineFrame] = guestFrame;
  }
  /** Remembers what the tables say of a guest frame. */
  #keep(guestFrame: number, frame: number, rights: number): void {
    if (guestFrame < FAR) {
      this.#machineFrames[guestFrame] = frame;
      this.#rights[guestFrame] = rights;
    } else if (frame < 0) this.#far.delete(guestFrame);
    else this.#far.set(guestFrame, { frame, rights });
  }

  unmap(guestFrame: number): void {
    if (this.machineFrame(guestFrame) < 0) return;
    this.#tell(guestFrame);
    this.#show(guestFrame, 0n);
    this.#forget(guestFrame);
    this.#keep(guestFrame, -1, 0);
  }

  /** Puts an entry wherever the processor finds a guest frame, the A20 gate being as it is. */
  #show(guestFrame: number, entry: bigint): void {
    if (this.canonical(guestFrame) !== guestFrame) return;
    this.#write(this.#slot(guestFrame), entry);
    if (!this.a20) this.#write(this.#slot(guestFrame + A20), entry);
  }
  #tell(guestFrame: number): void {
    this.#changed(guestFrame);
    if (!this.a20 && !(guestFrame & A20)) this.#changed(guestFrame + A20);
  }
  #grow(guestFrame: number): void {
    if (guestFrame >= FAR) return void this.#farTables.add(Math.floor(guestFrame / 512));
    this.#size = Math.max(this.#size, guestFrame + 1);
    if (this.#size <= this.room) return;
    const room = Math.max(this.#size, this.room + STEP);
    const frames = new Int32Array(room).fill(-1), rights = new Uint8Array(room);
    frames.set(this.#machineFrames);
    rights.set(this.#rights);
    this.#machineFrames = frames;
    this.#rights = rights;
  }

  /** A guest frame is about to lead elsewhere; another may lead to its machine frame as well. */
  #forget(guestFrame: number): void {
    const frame = this.machineFrame(guestFrame);
    if (frame < 0) return;
    const others = --this.#places[frame];
    if (this.#guestFrames[frame] !== guestFrame) return;
    this.#guestFrames[frame] = others ? this.#nextOf(frame, guestFrame + 1) : -1;
  }
  /** The first guest frame from one on that leads to a machine frame. */
  #nextOf(frame: number, from: number): number {
    const near = this.#machineFrames.indexOf(frame, from);
    if (near >= 0) return near;
    const far = [...this.#far].filter(([guest, to]) => to.frame === frame && guest >= from);
    return Math.min(...far.map(([guest]) => guest));
  }

  /** Changes what a mapped guest frame allows. */
  protect(guestFrame: number, rights: NestedRights): void {
    const frame = this.machineFrame(guestFrame);
    if (frame < 0) throw new RangeError(`guest frame 0x${guestFrame.toString(16)} is not mapped`);
    this.#tell(guestFrame);
    this.#show(guestFrame, this.format.page(frame * 4096, rights));
    this.#keep(guestFrame, frame, bits(rights));
  }

  /** The guest may write it: memory, and no ROM. */
  writable(guestFrame: number): boolean {
    return ((this.#rights[guestFrame] ?? this.#far.get(guestFrame)?.rights) & 2) !== 0;
  }

  /** Machine frame of a guest frame, -1 if it has none. */
  machineFrame(guestFrame: number): number {
    return this.#machineFrames[guestFrame] ?? this.#far.get(guestFrame)?.frame ?? -1;
  }
  /** The first guest frame that leads to a machine frame, -1 if none does. */
  guestFrame(machineFrame: number): number {
    return this.#guestFrames[machineFrame] ?? -1;
  }
}

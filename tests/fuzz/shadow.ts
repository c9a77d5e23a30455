/**
 * Random page tables under shadow paging against a plain walk of the same tables.
 *
 * Two copies of a small guest memory: in one the processor walks shadow tables, whose misses the
 * hypervisor fills; in the other it walks the guest's tables themselves over nested ones. Each
 * access must come to the same place, or fault with the same error code, and leave the same accessed
 * and dirty bits. In between the guest's tables are written, and control registers change.
 *
 *     deno run -A tests/fuzz/shadow.ts [ACCESSES] [SEED] [intel|amd]
 */
import { hvmOps } from "../../src/hvm/vendors.ts";
import type { HvmOps, HvmVcpu } from "../../src/hvm/ops.ts";
import { Machine } from "../../src/machine/machine.ts";
import { ABORT, ACCESS, CPU, EMULATED, pdpte, V } from "../../src/machine/state.ts";
import { Frames } from "../../src/xen/frames.ts";
import { P2M } from "../../src/xen/p2m.ts";
import { Shadow } from "../../src/xen/shadow.ts";
import { Random } from "./random.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";

export const SHADOW_MODES = ["none", "32-bit", "PAE", "4-level"] as const;
export type ShadowMode = typeof SHADOW_MODES[number];

export interface ShadowCampaign {
  readonly cpu?: CpuModel;
  readonly mode: ShadowMode;
  readonly accesses: number;
  readonly seed: number;
  /** Frames of the shadow pool. */
  readonly pool?: number;
}
export interface ShadowOutcome {
  readonly accesses: number;
  /** Accesses that were allowed, that faulted, and that met no memory. */
  readonly allowed: number;
  readonly faulted: number;
  readonly devices: number;
  readonly writes: number;
  readonly evictions: number;
  /** The first disagreement, in words. */
  readonly finding?: string;
}

/** Guest frames; the tables lie in the first ones, among the data. */
const GUEST_FRAMES = 96, TABLE_FRAMES = 24;
/** Accesses with the same registers, and between two writes to tables. */
const ROUND = 64;

const WRITE = ACCESS.write, USER = ACCESS.user, FETCH = ACCESS.fetch;
const P = 1, RW = 2, US = 4, A = 0x20, D = 0x40, PS = 0x80;

/** Registers of the guest, for both sides. */
interface Registers {
  cr0: number;
  cr3: number;
  cr4: number;
  efer: number;
  ac: boolean;
}

/** What an access came to: a place in guest memory, or why not. */
type Result = { kind: "page" | "device"; at: number } | { kind: "fault"; code: number };

/** Added to what no memory answers. */
const EMULATED_AT = 2 ** 52;

class Rig {
  readonly machine: Machine;
  readonly ops: HvmOps;
  readonly v: HvmVcpu;
  readonly shadowed: P2M;
  readonly plain: P2M;
  readonly shadow: Shadow;
  /** Guest frame of each machine frame. */
  readonly guestFrames: Int32Array;

  constructor(readonly random: Random, model: CpuModel, pool: number) {
    this.machine = new Machine({ memory: 8 << 20, cpu: model });
    const { cpu } = this.machine;
    const frames = new Frames(this.machine, 16, () => random.u32());
    this.ops = hvmOps(model);
    const source = {
      allocate: () => frames.allocate(1) * 4096,
      free: (address: number) => frames.release(address / 4096),
    };
    const on = this.ops.enable(cpu, source);
    this.v = this.ops.createVcpu(on, source);
    this.shadowed = new P2M(this.machine, frames, 1, this.ops.nestedFormat, GUEST_FRAMES);
    this.plain = new P2M(this.machine, frames, 2, this.ops.nestedFormat, GUEST_FRAMES);
    this.guestFrames = new Int32Array(this.machine.ram.length / 4096).fill(-1);
    for (let n = 0; n < GUEST_FRAMES; n++) {
      // Holes and ROM, in both alike.
      if (n >= TABLE_FRAMES && n % 13 === 5) continue;
      const rights = { read: true, write: n % 17 !== 3 || n < TABLE_FRAMES, execute: true };
      for (const p2m of [this.shadowed, this.plain]) {
        const frame = frames.allocate(p2m.owner);
        p2m.map(n, frame, rights);
        this.guestFrames[frame] = n;
      }
    }
    this.ops.setNestedRoot(this.v, this.shadowed.root);
    this.shadow = new Shadow(this.shadowed, this.ops, this.v, frames, 1, pool * 4096);
  }

  /** Writes a word of guest memory, in both copies. */
  write(guest: number, word: number, value: number): void {
    const bytes = new Uint8Array(Int32Array.of(value).buffer);
    for (const p2m of [this.shadowed, this.plain]) {
      const frame = p2m.machineFrame(guest);
      if (frame >= 0) this.machine.write(frame * 4096 + word * 4, bytes);
    }
  }

  #set(place: number, low: number, high = 0): void {
    const { i32 } = this.machine.cpu;
    i32[place >> 2] = low;
    i32[(place >> 2) + 1] = high;
  }
  #setPdptes(words: Int32Array): void {
    for (let n = 0; n < 4; n++) this.#set(pdpte(n), words[2 * n], words[2 * n + 1]);
  }
  /** MOV to CR3 loads the pointers of PAE paging; writes to their memory come later. */
  loadPointers(r: Registers): void {
    const at = this.plain.machineFrame(r.cr3 >>> 12) * 1024 + ((r.cr3 & 0xfe0) >> 2);
    this.#pointers.set(this.machine.words.subarray(at, at + 8));
  }
  readonly #pointers = new Int32Array(8);
  /** The machine's own walk; -1 if it aborts. */
  #walk(linear: bigint, access: number): number {
    const { cpu } = this.machine, { i32 } = cpu;
    if (i32[V.tables >> 2] > 400) cpu.flushTlb();
    i32[V.abort >> 2] = 0;
    const at = cpu.system.walk(linear, access) as unknown as bigint;
    if (i32[V.abort >> 2]) return -1;
    return at & EMULATED ? Number(at & ~EMULATED) + EMULATED_AT : Number(at);
  }

  /** The guest's tables, over the nested ones. */
  plainly(r: Registers, linear: bigint, access: number): Result {
    const { cpu } = this.machine, { i32 } = cpu;
    this.#set(CPU.cr0, r.cr0);
    this.#set(CPU.cr3, r.cr3);
    this.#set(CPU.cr4, r.cr4);
    this.#set(CPU.efer, r.efer);
    i32[V.paging >> 2] = r.cr0 < 0 ? 1 : 0;
    cpu.u64[V.eptp >> 3] = this.ops.nestedFormat.pointer(this.plain.root);
    if (r.cr0 < 0 && r.cr4 & 0x20 && !(r.efer & 0x400)) this.#setPdptes(this.#pointers);
    // As the emulator does it: where there is no memory a table reads as ones, a page is a device's.
    i32[V.emulating >> 2] = 1;
    const at = this.#walk(linear, access);
    i32[V.emulating >> 2] = 0;
    if (at >= EMULATED_AT) return { kind: "device", at: at - EMULATED_AT };
    if (at >= 0) {
      return { kind: "page", at: this.guestFrames[Math.floor(at / 4096)] * 4096 + at % 4096 };
    }
    if (i32[V.abort >> 2] !== ABORT.fault) throw new Error("a walk of the guest's tables left");
    return { kind: "fault", code: i32[V.errorCode >> 2] };
  }

  /** The shadow tables, with the hypervisor behind them. */
  shadowedly(r: Registers, linear: bigint, access: number): Result {
    const { cpu } = this.machine, { i32, u64 } = cpu, { shadow } = this;
    const low = Number(linear & 0xffff_ffffn) | 0, high = Number(linear >> 32n & 0xffff_ffffn) | 0;
    for (let tries = 0; tries < 8; tries++) {
      const { root, fourLevel } = shadow.walked;
      this.#set(CPU.cr0, 0x8001_0031 | 0);
      this.#set(CPU.cr3, root);
      this.#set(CPU.cr4, 0x20 | (r.cr0 < 0 ? r.cr4 & 0x30_0000 : 0));
      this.#set(CPU.efer, fourLevel ? 0xd01 : 0x801);
      i32[V.paging >> 2] = 1;
      u64[V.eptp >> 3] = 0n;
      if (!fourLevel) this.#setPdptes(this.machine.words.subarray(root >> 2));
      const at = this.#walk(linear, access);
      if (at >= 0) {
        return { kind: "page", at: this.guestFrames[Math.floor(at / 4096)] * 4096 + at % 4096 };
      }
      if (i32[V.abort >> 2] !== ABORT.fault) throw new Error("a walk of shadow tables left");
      const outcome = shadow.resolve(low, high, i32[V.errorCode >> 2]);
      const place = shadow.walk.frame * 4096 + (low & 4095);
      if (outcome === 1) return { kind: "fault", code: shadow.walk.errorCode };
      if (outcome === 2) return { kind: "device", at: place };
      if (outcome === 3) return { kind: "page", at: place };
    }
    throw new Error(`the shadow has no entry for 0x${linear.toString(16)} after eight faults`);
  }

  /** Guest memory of both copies is the same. */
  difference(): string | undefined {
    const { words } = this.machine;
    for (let n = 0; n < TABLE_FRAMES; n++) {
      const a = this.shadowed.machineFrame(n) * 1024, b = this.plain.machineFrame(n) * 1024;
      for (let i = 0; i < 1024; i++) {
        if (words[a + i] === words[b + i]) continue;
        return `guest frame ${n}, word ${i}: 0x${
          (words[a + i] >>> 0).toString(16)
        } under shadow, 0x${(words[b + i] >>> 0).toString(16)} plainly`;
      }
    }
  }
}

/** A random entry that leads to a table or to data, mostly a sensible one. */
function randomEntry(random: Random, level: number, wide: boolean): [low: number, high: number] {
  const data = level === 1 || random.chance(0.1);
  const frame = data ? random.below(GUEST_FRAMES + 4) : random.below(TABLE_FRAMES);
  let low = frame << 12 | random.u32() & 0xe1f | P;
  if (random.chance(0.7)) low |= RW | US;
  if (random.chance(0.5)) low |= A;
  if (random.chance(0.5)) low |= D;
  if (random.chance(0.05)) low &= ~P;
  if (level > 1 && random.chance(0.08)) {
    // A large page, aligned more often than not.
    low |= PS;
    if (random.chance(0.85)) low = low & (level === 2 ? wide ? 0xffe0_0fff : 0xffc0_0fff : 0x0fff);
    else low |= 1 << (13 + random.below(level === 2 && !wide ? 9 : 8));
  }
  let high = random.chance(0.1) ? 0x8000_0000 | 0 : 0;
  if (random.chance(0.02)) high |= 1 << random.below(31);
  return [low, wide ? high : 0];
}

/** Fills the table frames: each may serve at any level, and as data. */
function randomTables(rig: Rig, mode: ShadowMode): void {
  const { random } = rig, wide = mode !== "32-bit";
  for (let frame = 0; frame < TABLE_FRAMES; frame++) {
    const level = levelOf(frame, mode);
    for (let n = 0; n < 12; n++) writeEntry(rig, frame, random.below(SPREAD), level, wide);
  }
}
/** Entries lie close together, so that random addresses meet them. */
const SPREAD = 8;

function writeEntry(rig: Rig, frame: number, n: number, level: number, wide: boolean): void {
  const [low, high] = randomEntry(rig.random, level, wide);
  const index = spread(n, wide);
  rig.write(frame, wide ? 2 * index : index, low);
  if (wide) rig.write(frame, 2 * index + 1, high);
}
/** Some at each end and in the middle of a table: the halves and quarters that 4-byte entries have. */
const spread = (n: number, wide: boolean): number => {
  const size = wide ? 512 : 1024;
  return Math.floor(n / 2) * (size / 4) + n % 2 * (size / 4 - 1);
};
const levelOf = (frame: number, mode: ShadowMode): number =>
  mode === "4-level" ? 4 - frame % 4 : 2 - frame % 2;

function randomLinear(random: Random, mode: ShadowMode): bigint {
  if (mode === "none") return BigInt(random.below(GUEST_FRAMES + 8) * 4096 + random.below(4096));
  const wide = mode !== "32-bit", bits = wide ? 9n : 10n;
  let linear = BigInt(random.below(4096));
  for (let level = 1n; level <= (mode === "4-level" ? 4n : 2n); level++) {
    // Pages within a large one lie anywhere in it.
    const within = level === 1n && random.chance(0.3);
    const index = within
      ? random.pick([0, 24, 32, 37, 44, 80])
      : spread(random.below(SPREAD), wide);
    linear |= BigInt(index) << (12n + bits * (level - 1n));
  }
  if (mode === "PAE") linear |= BigInt(random.below(4)) << 30n;
  return mode === "4-level" ? BigInt.asUintN(64, BigInt.asIntN(48, linear)) : linear;
}

function randomRegisters(random: Random, mode: ShadowMode): Registers {
  const pg = mode === "none" ? 0 : 0x8000_0000 | 0;
  const cr0 = pg | 0x31 | (random.chance(0.5) ? 0x1_0000 : 0);
  let cr4 = mode === "32-bit"
    ? random.chance(0.8) ? 0x10 : 0
    : 0x20 | (random.chance(0.5) ? 0x10 : 0);
  if (random.chance(0.3)) cr4 |= 0x10_0000;
  if (random.chance(0.3)) cr4 |= 0x20_0000;
  if (mode === "none") cr4 &= ~0x20;
  const efer = (random.chance(0.7) ? 0x800 : 0) | (mode === "4-level" ? 0x500 : 0);
  const frame = mode === "4-level"
    ? random.below(TABLE_FRAMES / 4) * 4
    : random.below(TABLE_FRAMES / 2) * 2;
  const offset = mode === "PAE" ? 0xfe0 : 0;
  return { cr0, cr3: frame << 12 | offset, cr4, efer, ac: random.chance(0.5) };
}

/** PAE's pointers lie at the end of the directory's frame, without reserved bits. */
function randomPointers(rig: Rig, r: Registers): void {
  const { random } = rig;
  for (let n = 0; n < 4; n++) {
    const low = random.below(TABLE_FRAMES / 2) * 2 << 12 | (random.chance(0.9) ? P : 0);
    rig.write(r.cr3 >>> 12, 1016 + 2 * n, low);
    rig.write(r.cr3 >>> 12, 1016 + 2 * n + 1, 0);
  }
}

function load(rig: Rig, r: Registers): void {
  const { ops, v } = rig;
  ops.setRegister(v, "rflags", r.ac ? 0x4_0002n : 2n);
  ops.setCr(v, 0, BigInt((r.cr0 & 0x7fff_ffff) >>> 0));
  ops.setMsr(v, 0xc000_0080, BigInt(r.efer & ~0x400));
  ops.setCr(v, 4, BigInt(r.cr4));
  ops.setCr(v, 3, BigInt(r.cr3));
  ops.setCr(v, 0, BigInt(r.cr0 >>> 0));
  rig.shadow.sync();
}

const text = (r: Result): string =>
  r.kind === "fault" ? `#PF(0x${r.code.toString(16)})` : `${r.kind} 0x${r.at.toString(16)}`;

/** Runs a campaign; stops at the first disagreement. */
export function shadowCampaign(options: ShadowCampaign): ShadowOutcome {
  const { mode, accesses, seed, pool = 32, cpu = "intel" } = options;
  const random = new Random(seed), rig = new Rig(random, cpu, pool);
  const counts = { allowed: 0, faulted: 0, devices: 0, writes: 0 };
  const outcome = (done: number, finding?: string): ShadowOutcome => ({
    accesses: done,
    ...counts,
    writes: rig.shadow.counts.writes,
    evictions: rig.shadow.pool.counts.evictions,
    finding,
  });
  let registers = randomRegisters(random, mode), linear = randomLinear(random, mode);
  for (let n = 0; n < accesses; n++) {
    if (n % 4096 === 0) randomTables(rig, mode);
    if (n % ROUND === 0) {
      registers = randomRegisters(random, mode);
      if (mode === "PAE") randomPointers(rig, registers);
      load(rig, registers);
      rig.loadPointers(registers);
      if (random.chance(0.1)) {
        // As when a guest is saved.
        rig.shadow.drop();
        rig.shadow.sync();
      }
    } else if (n % 8 === 0) {
      const frame = random.below(TABLE_FRAMES);
      writeEntry(rig, frame, random.below(SPREAD), levelOf(frame, mode), mode !== "32-bit");
    }
    // The same address again, with another access, more often than chance would have it.
    if (!random.chance(0.4)) linear = randomLinear(random, mode);
    let access = random.pick([0, WRITE, FETCH]) | (random.chance(0.5) ? USER : 0);
    const smap = registers.cr4 & 0x20_0000 && registers.cr0 < 0 && !registers.ac;
    if (!(access & USER) && smap) access |= ACCESS.smap;
    const wanted = rig.plainly(registers, linear, access);
    const found = rig.shadowedly(registers, linear, access);
    const difference = text(wanted) === text(found)
      ? n % ROUND === ROUND - 1 ? rig.difference() : undefined
      : `${text(found)} under shadow, ${text(wanted)} plainly`;
    if (difference) {
      const { cr0, cr3, cr4, efer, ac } = registers;
      const state = Object.entries({ cr0, cr3, cr4, efer }).map(([name, x]) =>
        `${name} 0x${(x >>> 0).toString(16)}`
      );
      return outcome(
        n,
        `access ${n} (0x${access.toString(16)}) of 0x${linear.toString(16)}, ${mode}, ${
          state.join(" ")
        }, AC ${ac}: ${difference}`,
      );
    }
    counts[found.kind === "page" ? "allowed" : found.kind === "fault" ? "faulted" : "devices"]++;
  }
  return outcome(accesses);
}

if (import.meta.main) {
  const accesses = Number(Deno.args[0] ?? 10e6), seed = Number(Deno.args[1] ?? 1);
  const cpu = Deno.args[2] ?? "intel";
  if (!(accesses > 0) || !Number.isInteger(seed) || (cpu !== "intel" && cpu !== "amd")) {
    console.error("shadow.ts: [ACCESSES] [SEED] [intel|amd] was expected");
    Deno.exit(2);
  }
  let failed = false;
  for (const mode of SHADOW_MODES) {
    const start = performance.now();
    const result = shadowCampaign({ cpu, mode, accesses: Math.ceil(accesses / 4), seed });
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(`${cpu}, ${mode}: ${JSON.stringify(result)} in ${seconds} s`);
    failed ||= result.finding !== undefined;
  }
  if (failed) Deno.exit(1);
}

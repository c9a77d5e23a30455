/**
 * The blocks of a host's state: all there is that decides what happens next, but the contents of
 * machine memory. One list, which saving, loading and hashing walk.
 *
 * What is derived is no state (translations, predecoded code, shadow tables), nor what observes
 * (breakpoints, traces, symbols), nor what lies outside: what a device in a script remembers, and the
 * answers it still owes. It is asked again.
 *
 * @module
 */
import { checkLike, encodePlain, type Plain, RecordError } from "../devices/record.ts";
import type { Cpu } from "../machine/cpu.ts";
import { COUNTERS } from "../machine/counters.ts";
import { virtualization } from "../machine/virtualization.ts";
import {
  ARCHITECTURAL_END,
  ARCHITECTURAL_START,
  architecturalFields,
  CPU,
  type CpuCell,
} from "../machine/state.ts";
import { fieldOf } from "../machine/wasm/cells.ts";
import type { Domain, DomainPlace } from "../xen/domain.ts";
import type { Host } from "../xen/host.ts";
import { HvmEngine, type HvmState } from "../xen/hvm.ts";
import { type HostInterrupts, TIMER_VECTOR } from "../xen/irq.ts";
import type { P2M } from "../xen/p2m.ts";
import type { SchedulerState, Share } from "../xen/scheduler.ts";
import type { WorldState } from "../xen/world.ts";
import { hashBytes, hashText } from "./hash.ts";
import {
  bytes,
  finite,
  flag,
  list,
  orNull,
  record,
  type Shape,
  table,
  time,
  tuple,
  u32,
  u64,
  whole,
  word,
} from "./shape.ts";
import { exitRecord, exitShape } from "./state_exit.ts";

/** A part of the state. */
export interface StateBlock {
  readonly name: string;
  /** Of its record's meaning; a block of another version is refused. */
  readonly version: number;
  save(): Plain;
  /**
   * Checks a record. The result puts it in place, and cannot fail.
   *
   * @throws {RecordError} for what is no record of this block
   */
  prepare(saved: Plain): () => void;
}

/** A block of a record with a shape. */
function block<T>(
  name: string,
  shape: Shape,
  save: () => T,
  load: (saved: T) => void,
  check: (saved: T) => void = () => {},
): StateBlock {
  return {
    name,
    version: 1,
    save: () => save() as Plain,
    prepare(saved) {
      shape(saved, name);
      check(saved as T);
      return () => load(saved as T);
    },
  };
}

/** A count, or a time in ns: there is room for more of them. */
const amount: Shape = whole(0, 2 ** 52);

const refuse = (text: string): never => {
  throw new RecordError(text);
};

// --- the processor ---

const ARITHMETIC = 0x8d5n;
/** How the flags were put off is no state, nor is what lies between fields. */
const SCRATCH = architecturalFields.filter(({ name }) => /^flag[A-Z]|[pP]ad2?$/.test(name));

/** The architectural state; lazy flags stand worked out in it. */
function architectural(cpu: Cpu): Uint8Array {
  const saved = cpu.u8.slice(ARCHITECTURAL_START, ARCHITECTURAL_END);
  const view = new DataView(saved.buffer), at = CPU.rflags - ARCHITECTURAL_START;
  const flags = BigInt(cpu.system.arithmeticFlags());
  view.setBigUint64(at, view.getBigUint64(at, true) & ~ARITHMETIC | flags & ARITHMETIC, true);
  for (const { at, width } of SCRATCH) {
    saved.fill(0, at - ARCHITECTURAL_START, at - ARCHITECTURAL_START + width);
  }
  return saved;
}

/** Values that the registers of virtualization can have; others the processor never has. */
function checkModes(cpu: Cpu, saved: Uint8Array, nonRoot: bigint): void {
  const view = new DataView(saved.buffer, saved.byteOffset), ram = BigInt(cpu.machine.ram.length);
  const narrow = (name: CpuCell) => view.getUint32(CPU[name] - ARCHITECTURAL_START, true);
  const none = (1n << 64n) - 1n;
  const wrong = (name: string, value: number | bigint) =>
    refuse(`the processor's ${name} is 0x${value.toString(16)}, which it never is`);
  const most = [["vmxMode", 2], ["svmMode", 1], ["activity", 3], ["gif", 1]] as const;
  for (const [name, value] of most) {
    if (narrow(name) > value) wrong(name, narrow(name));
  }
  for (const name of ["vmcsPointer", "vmxonPointer", "vmcb", "vmHsave"] as const) {
    const value = view.getBigUint64(CPU[name] - ARCHITECTURAL_START, true);
    const none64 = name.startsWith("vmcs") || name.startsWith("vmxon") ? none : 0n;
    if (value !== none64 && (value & 0xfffn || value > ram - 4096n)) wrong(name, value);
  }
  for (let n = 0; n < COUNTERS; n++) {
    const value = view.getBigUint64((CPU.perfCtr0 + 8 * n) - ARCHITECTURAL_START, true);
    if (value >> 48n) wrong(`perfCtr${n}`, value);
  }
  const guest = narrow("vmxMode") === 2 || narrow("svmMode") === 1;
  if (nonRoot !== (guest ? 1n : 0n)) wrong("mode", nonRoot);
  for (const { name, at, width } of SCRATCH) {
    const from = at - ARCHITECTURAL_START;
    if (saved.subarray(from, from + width).some((b) => b !== 0)) wrong(name, saved[from]);
  }
}

const u64of32: Shape = (value, path) => {
  u64(value, path);
  if (value as bigint >> 32n) refuse(`${path} has more than 32 bits`);
};

/** A guest's own. */
function bareProcessor(cpu: Cpu): StateBlock {
  // Outside a guest of the guest's own they say nothing.
  const cells = () => cpu.guestCells[0] ? cpu.guestCells : cpu.guestCells.map(() => 0n);
  const shapes = virtualization[cpu.model].cells.map(({ width }) => width === 4 ? u64of32 : u64);
  return block(
    "processor",
    record({
      architectural: bytes(ARCHITECTURAL_END - ARCHITECTURAL_START),
      cells: tuple(...shapes),
    }),
    () => ({ architectural: architectural(cpu), cells: cells() }),
    (s) => {
      cpu.u8.set(s.architectural, ARCHITECTURAL_START);
      cpu.guestCells = s.cells;
    },
    (s) => {
      checkModes(cpu, s.architectural, s.cells[0]);
      if (!s.cells[0] && s.cells.some((cell) => cell)) {
        refuse("the processor runs no guest, and has what only one that runs has");
      }
    },
  );
}

/**
 * What a hypervisor has set up in the processor. The rest is a vCPU's while one is loaded, and left
 * over from the last one while none is.
 */
const ROOT = [
  "cr0",
  "cr4",
  "efer",
  "vmxMode",
  "vmxonPointer",
  "vmHsave",
  "vmCr",
  "svmMode",
  "featureControl",
] as const;

function hostProcessor(cpu: Cpu): StateBlock {
  const now = () =>
    Object.fromEntries(ROOT.map((name) => {
      return [
        name,
        fieldOf(CPU, name).width === 8 ? cpu.get(name) : BigInt(cpu.i32[CPU[name] >> 2] >>> 0),
      ];
    }));
  return block<Record<string, bigint>>(
    "processor",
    record(Object.fromEntries(ROOT.map((name) => [name, u64]))),
    now,
    () => {},
    (saved) => {
      for (const [name, value] of Object.entries(now())) {
        if (saved[name] === value) continue;
        refuse(
          `the hypervisor's ${name} is 0x${saved[name].toString(16)} in the state, and 0x${
            value.toString(16)
          } on this host`,
        );
      }
    },
  );
}

// --- the host ---

const clockBlock = (cpu: Cpu): StateBlock =>
  block(
    "clock",
    record({ count: amount, idle: amount, fruitless: amount }),
    () => ({ count: cpu.count, idle: cpu.idle, fruitless: cpu.fruitless }),
    (s) => Object.assign(cpu, s),
  );

const worldBlock = ({ world }: Host): StateBlock =>
  block<WorldState>(
    "world",
    record({ random: u32, ordinal: amount, guests: list(tuple(amount, u32)) }),
    () => world.state,
    (s) => world.state = s,
    ({ guests }) => checkOrder("world", guests),
  );

const schedulerBlock = ({ scheduler, domains }: Host): StateBlock =>
  block<SchedulerState>(
    "scheduler",
    record({
      random: u32,
      turns: amount,
      turn: orNull(record({ domain: amount, ends: time })),
    }),
    () => scheduler.state,
    (s) => scheduler.state = s,
    ({ turn }) => {
      if (!turn || domains.some((d) => d.id === turn.domain)) return;
      refuse(`scheduler: the turn is domain ${turn.domain}'s, which is not here`);
    },
  );

/** Pairs by number, each once. */
function checkOrder(name: string, pairs: readonly (readonly [number, unknown])[]): void {
  pairs.forEach(([number], n) => {
    if (n > 0 && number <= pairs[n - 1][0]) refuse(`${name}: entry ${number} is out of order`);
  });
}

const anything: Shape = () => {};

/** Where the request of the host's timer stands. */
const TIMER = { word: TIMER_VECTOR >>> 5, bit: 1 << (TIMER_VECTOR & 31) };

function interruptsBlock(irq: HostInterrupts): StateBlock {
  return block<HostInterrupts["state"]>(
    "host interrupts",
    record({ local: anything, io: anything, timer: time }),
    () => irq.state,
    (s) => irq.state = s,
    ({ local, io }) => {
      checkLike(irq.localApic, local as unknown as Plain, "the host's local APIC");
      checkLike(irq.ioApic, io as unknown as Plain, "the host's I/O APIC");
      // They are as the hypervisor set them up; what changes is the request of its timer.
      const setUp = (local: object, io: object) =>
        hashText(hashBytes(encodePlain([{ ...local, irr: 0, isr: 0 }, io])));
      const others = (words: readonly number[]) =>
        words.some((word, n) => word & ~(n === TIMER.word ? TIMER.bit : 0));
      if (
        others(local.irr) || others(local.isr) ||
        setUp(local, io) !== setUp(irq.localApic.state, irq.ioApic.state)
      ) {
        refuse("the host's interrupt controllers are not as this hypervisor sets them up");
      }
    },
  );
}

const words = (of: ArrayBufferView): Uint8Array =>
  new Uint8Array(of.buffer, of.byteOffset, of.byteLength).slice();

function framesBlock(host: Host): StateBlock {
  const frames = host.frames!, total = frames.owners.length;
  const read = (saved: { owners: Uint8Array; free: Uint8Array }) => ({
    owners: new Int16Array(saved.owners.slice().buffer),
    free: new Uint32Array(saved.free.slice(0, saved.free.length & ~3).buffer),
  });
  return block<{ owners: Uint8Array; free: Uint8Array }>(
    "frames",
    record({ owners: bytes(2 * total), free: bytes() }),
    () => {
      const { owners, free } = frames.state;
      return { owners: words(owners), free: words(free) };
    },
    (saved) => frames.state = read(saved),
    (saved) => {
      const { owners, free } = read(saved), seen = new Uint8Array(total);
      const known = new Set([0, -1, ...host.domains.map((d) => d.id)]);
      owners.forEach((owner, n) => {
        if (!known.has(owner)) {
          refuse(`frame 0x${n.toString(16)} is domain ${owner}'s: none is here`);
        }
      });
      for (const frame of free) {
        if (frame >= total || owners[frame] !== 0 || seen[frame]++) {
          refuse(`frames: 0x${frame.toString(16)} is listed as free, and is not`);
        }
      }
      const count = owners.reduce((n, owner) => n + +(owner === 0), 0);
      if (saved.free.length !== 4 * count) {
        refuse(`frames: ${count} are nobody's, and ${saved.free.length / 4} are listed as free`);
      }
    },
  );
}

// --- a domain ---

interface SavedDomain {
  readonly place: DomainPlace;
  readonly exits: Readonly<Record<string, number>>;
  readonly posts: readonly number[];
  readonly share: Share;
  readonly cpuid: readonly (readonly number[])[];
}

const SHARE = record({
  weight: whole(1, 65535),
  cap: whole(0, 100),
  credit: finite,
  used: amount,
  since: amount,
  window: amount,
  usedInWindow: amount,
  turn: amount,
  owed: amount,
});
const PLACE = record({
  count: amount,
  halted: flag,
  blocked: flag,
  goes: flag,
  clock: whole(-(2 ** 52), 2 ** 52),
});

function domainBlock(domain: Domain): StateBlock {
  const name = `domain ${domain.id}`;
  return block<SavedDomain>(
    name,
    record({
      place: PLACE,
      exits: table(amount),
      posts: list(amount),
      share: SHARE,
      cpuid: list(tuple(amount, u32, u32, u32, u32)),
    }),
    () => ({
      place: domain.place,
      exits: { ...domain.exits },
      posts: [...domain.posts],
      share: { ...domain.share },
      cpuid: domain.cpuid.save(),
    }),
    (s) => {
      for (const kind of Object.keys(domain.exits)) delete domain.exits[kind];
      Object.assign(domain.exits, s.exits);
      domain.posts = [...s.posts];
      Object.assign(domain.share, s.share);
      domain.cpuid.load(s.cpuid);
      domain.place = s.place;
    },
    ({ cpuid }) => {
      const problem = domain.cpuid.problem(cpuid);
      if (problem) refuse(`${name}: its CPUID table is refused: ${problem}`);
    },
  );
}

function devicesBlock({ id, platform }: Domain): StateBlock {
  return {
    name: `domain ${id} devices`,
    version: 1,
    save: () => platform.save(),
    prepare(saved) {
      bytes()(saved, `domain ${id} devices`);
      return platform.prepare(saved as Uint8Array);
    },
  };
}

function vcpuBlock(domain: Domain, engine: HvmEngine): StateBlock {
  const answer = record({
    type: word("pio", "copy"),
    dir: word("read", "write"),
    addr: whole(0, 2 ** 52 - 1),
    size: whole(1, 4),
    data: u32,
    state: word("response"),
  });
  return block<HvmState>(
    `domain ${domain.id} vcpu`,
    record({
      window: flag,
      nmi: flag,
      fruitless: amount,
      fruitlessAt: whole(-1, 2 ** 52),
      msrs: list(tuple(u32, u64)),
      pending: orNull(exitShape(engine.ops.exitKinds)),
      pendingAt: u64,
      answers: list(answer),
    }),
    () => {
      const { state } = engine;
      return {
        ...state,
        pending: (state.pending && exitRecord(state.pending)) as HvmState["pending"],
      };
    },
    (s) => engine.state = s,
    ({ msrs }) => checkOrder(`domain ${domain.id} vcpu`, msrs),
  );
}

function memoryBlock(host: Host, domain: Domain, p2m: P2M): StateBlock {
  const read = (
    { frames, rights, a20 }: { frames: Uint8Array; rights: Uint8Array; a20: boolean },
  ) => ({
    frames: new Int32Array(frames.slice(0, frames.length & ~3).buffer),
    rights,
    a20,
  });
  const name = `domain ${domain.id} memory`;
  return block<{ frames: Uint8Array; rights: Uint8Array; a20: boolean }>(
    name,
    record({ frames: bytes(), rights: bytes(), a20: flag }),
    () => {
      const { frames, rights, a20 } = p2m.state;
      return { frames: words(frames), rights, a20 };
    },
    (saved) => p2m.state = read(saved),
    (saved) => {
      const { frames, rights } = read(saved), total = host.frames!.owners.length;
      if (saved.frames.length !== 4 * rights.length || frames.length < domain.memory.size / 4096) {
        refuse(`${name}: ${frames.length} guest frames have ${rights.length} rights`);
      }
      frames.forEach((frame, n) => {
        if (frame >= -1 && frame < total && rights[n] < 8) return;
        refuse(`${name}: guest frame 0x${n.toString(16)} leads to frame ${frame} of ${total}`);
      });
    },
  );
}

/** The engine of a domain in a hardware virtual machine. */
export const hvmEngine = ({ engine }: Domain): HvmEngine | undefined =>
  engine instanceof HvmEngine ? engine : undefined;

/** All blocks of a host. */
export function stateBlocks(host: Host): StateBlock[] {
  const { cpu } = host.machine;
  return [
    host.hvm ? hostProcessor(cpu) : bareProcessor(cpu),
    clockBlock(cpu),
    worldBlock(host),
    schedulerBlock(host),
    ...(host.interrupts ? [interruptsBlock(host.interrupts)] : []),
    ...(host.frames ? [framesBlock(host)] : []),
    ...host.domains.flatMap((d) => {
      const engine = hvmEngine(d);
      return [
        devicesBlock(d),
        ...(engine ? [memoryBlock(host, d, engine.p2m), vcpuBlock(d, engine)] : []),
        domainBlock(d),
      ];
    }),
  ];
}

/**
 * All state there is, in registered blocks: what is hashed, saved, loaded and compared.
 *
 * @module
 */
import { decodePlain, encodePlain, type Plain, RecordError } from "../devices/record.ts";
import type { Exit } from "../hvm/exit.ts";
import type { Cpu } from "../machine/cpu.ts";
import {
  ARCHITECTURAL_END,
  ARCHITECTURAL_START,
  architecturalFields,
  CPU,
  FRAME,
  FRAME_FLAG,
  V,
} from "../machine/state.ts";
import type { Domain as Inner } from "../xen/domain.ts";
import type { Host } from "../xen/host.ts";
import type { SchedulerState } from "../xen/scheduler.ts";
import type { WorldState } from "../xen/world.ts";
import { HvmEngine } from "../xen/hvm.ts";
import { segmentRegisters } from "../hvm/ops.ts";
import type { GuestDomain } from "./domain.ts";
import { FrameHashes, type Hash, hashBytes, hashText, placed, plus } from "./hash.ts";
import { FLOAT, MSRS, type RegisterFile } from "./register_file.ts";

/** A part of the state, with a name, a version and its bytes. */
export interface StateBlock {
  readonly name: string;
  readonly version: number;
  save(): Uint8Array;
  load(bytes: Uint8Array): void;
}

const VERSION = 1;
const ARITHMETIC = 0x8d5n;

/** The processor's architectural block; lazy flags stand worked out in it. */
export function cpuBlock(cpu: Cpu): StateBlock {
  return {
    name: "cpu0",
    version: VERSION,
    save() {
      const bytes = cpu.u8.slice(ARCHITECTURAL_START, ARCHITECTURAL_END);
      const view = new DataView(bytes.buffer);
      const at = (name: string) => CPU[name] - ARCHITECTURAL_START;
      const flags = BigInt(cpu.system.arithmeticFlags());
      const rflags = view.getBigUint64(at("rflags"), true) & ~ARITHMETIC | flags & ARITHMETIC;
      view.setBigUint64(at("rflags"), rflags, true);
      // How the flags were put off is no state, nor is what lies between fields.
      for (const { name, at: offset, width } of architecturalFields) {
        const scratch = /^flag[A-Z]|[pP]ad2?$/.test(name);
        if (scratch) {
          bytes.fill(0, offset - ARCHITECTURAL_START, offset - ARCHITECTURAL_START + width);
        }
      }
      return bytes;
    },
    load(bytes) {
      if (bytes.length !== ARCHITECTURAL_END - ARCHITECTURAL_START) {
        throw new RecordError(
          `the processor's block has ${bytes.length} bytes, expected ${
            ARCHITECTURAL_END - ARCHITECTURAL_START
          }`,
        );
      }
      cpu.u8.set(bytes, ARCHITECTURAL_START);
      cpu.i32[V.abort >> 2] = 0;
      cpu.i64[V.passing >> 3] = -1n;
    },
  };
}

function timeBlock(host: Host): StateBlock {
  return {
    name: "time",
    version: VERSION,
    save: () => {
      const { cpu } = host.machine;
      const { count, idle, fruitless } = cpu;
      const { state } = host.world, scheduler = host.scheduler.state;
      return encodePlain({ count, idle, fruitless, ...state, scheduler } as unknown as Plain);
    },
    load: (bytes) => {
      const s = decodePlain(bytes) as unknown as
        & WorldState
        & { count: number; idle: number; fruitless: number; scheduler: SchedulerState };
      const { cpu } = host.machine;
      cpu.count = s.count;
      cpu.idle = s.idle;
      cpu.fruitless = s.fruitless;
      host.world.state = s;
      host.scheduler.state = s.scheduler;
    },
  };
}

function interruptsBlock(host: Host): StateBlock {
  const irq = host.interrupts!;
  return {
    name: "host interrupts",
    version: VERSION,
    save: () =>
      encodePlain({
        local: irq.localApic.state as unknown as Plain,
        io: irq.ioApic.state as unknown as Plain,
        timer: irq.deadline(),
      }),
    load: (bytes) => {
      const s = decodePlain(bytes) as Record<string, Plain>;
      irq.localApic.state = s.local as never;
      irq.ioApic.state = s.io as never;
      irq.setTimer(s.timer as number);
    },
  };
}

function devicesBlock(domain: Inner): StateBlock {
  return {
    name: `domain ${domain.id} devices`,
    version: VERSION,
    save: () => domain.platform.save(),
    load: (bytes) => domain.platform.load(bytes),
  };
}

const hvmEngine = ({ engine }: Inner): HvmEngine | undefined =>
  engine instanceof HvmEngine ? engine : undefined;

function domainBlock(domain: Inner): StateBlock {
  return {
    name: `domain ${domain.id}`,
    version: VERSION,
    save: () => {
      const engine = hvmEngine(domain);
      return encodePlain({
        name: domain.name,
        type: domain.type,
        memory: domain.memory.size,
        count: domain.count,
        exits: domain.exits,
        posts: domain.posts,
        time: domain.now,
        share: { ...domain.share },
        cpuid: domain.cpuid.save(),
        blocked: domain.halted,
        msrs: engine ? [...engine.msrs].sort((a, b) => a[0] - b[0]) : [],
        pending: (engine?.pending ?? null) as unknown as Plain,
      });
    },
    load: (bytes) => {
      const s = decodePlain(bytes) as Record<string, Plain>;
      for (
        const [key, is] of Object.entries({
          name: domain.name,
          type: domain.type,
          memory: domain.memory.size,
        })
      ) {
        if (s[key] !== is) {
          throw new RecordError(
            `the state is of a domain with ${key} ${s[key]}, domain ${domain.id} has ${is}`,
          );
        }
      }
      domain.count = s.count as number;
      for (const kind of Object.keys(domain.exits)) delete domain.exits[kind];
      Object.assign(domain.exits, s.exits);
      domain.posts = [...s.posts as number[]];
      domain.cpuid.load(s.cpuid as number[][]);
      const engine = hvmEngine(domain);
      if (engine) {
        engine.msrs.clear();
        for (const [n, value] of s.msrs as [number, bigint][]) engine.msrs.set(n, value);
        engine.pending = (s.pending ?? undefined) as Exit | undefined;
        engine.changed = true;
      }
      // Blocked guests wake by themselves; so the state to go on from is "paused" or "blocked".
      domain.setState({ kind: s.blocked ? "blocked" : "running" });
      domain.setState({ kind: "paused" });
      domain.stopClock(s.time as number);
      Object.assign(domain.share, s.share);
      if (s.blocked) {
        domain.setState({ kind: "blocked" });
        if (!domain.engine.waiting) domain.startClock();
      }
    },
  };
}

/** All blocks of a host but its memory. */
export function stateBlocks(host: Host): StateBlock[] {
  return [
    cpuBlock(host.machine.cpu),
    timeBlock(host),
    ...(host.interrupts ? [interruptsBlock(host)] : []),
    ...host.domains.flatMap((d) => [devicesBlock(d), domainBlock(d)]),
  ];
}

/** The hash of a host: memory and every block, as 16 hexadecimal digits. */
export function hostHash(host: Host): string {
  const hashes = FrameHashes.of(host.machine);
  hashes.update();
  let sum: Hash = hashes.sum;
  stateBlocks(host).forEach((block, i) => {
    sum = plus(sum, placed(0x1000_0000 + i, hashBytes(block.save())));
  });
  return hashText(sum);
}

/** Registers of a vCPU that two ways of running the same guest must agree on. */
const SHARED = [
  ..."rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split(" "),
  "rip",
  "rflags",
  ..."cr0 cr2 cr3 cr4 cr8 dr0 dr1 dr2 dr3 dr6 dr7".split(" "),
  ...Object.keys(MSRS).filter((n) => !/featureControl|miscEnable|apicBase/.test(n)),
  ...FLOAT,
];

/** The registers as one line each: what is hashed and compared. */
export function registerLines(file: RegisterFile): string[] {
  const lines = SHARED.map((name) => `${name} ${(file.get(name) ?? 0n).toString(16)}`);
  for (const name of segmentRegisters) {
    const { selector, base, limit, attributes } = file.segment(name);
    // What an unusable segment still holds is nobody's affair.
    const rest = attributes & 0x10000
      ? "unusable"
      : [base, limit, attributes].map((v) => v.toString(16)).join(" ");
    lines.push(`${name} ${selector.toString(16)} ${rest}`);
  }
  for (const name of ["gdtr", "idtr"] as const) {
    const { base, limit } = file.table(name);
    lines.push(`${name} ${base.toString(16)} ${limit.toString(16)}`);
  }
  return lines;
}

/** The hash of a guest, whatever runs it: its registers, memory and devices. */
export function domainHash(domain: GuestDomain): string {
  const { inner, vcpu } = domain;
  const hashes = FrameHashes.of(inner.host.machine);
  hashes.update();
  let sum: Hash = hashBytes(new TextEncoder().encode(registerLines(vcpu.file).join("\n")));
  for (let gpa = 0; gpa < inner.memory.size; gpa += 4096) {
    const machine = inner.memory.machineAddress(gpa);
    if (machine >= 0) sum = plus(sum, placed(gpa / 4096, hashes.frame(machine / 4096)));
  }
  sum = plus(sum, placed(0x1000_0000, hashBytes(inner.platform.save())));
  return hashText(sum);
}

/** Off the processor, and nothing derived in memory. */
function quiesce(host: Host): void {
  if (host.hvm) host.switchTo(undefined);
  for (const d of host.domains) hvmEngine(d)?.quiesce();
}

/** The whole host as bytes. Equal states give equal bytes. */
export function saveHost(host: Host): Uint8Array {
  quiesce(host);
  const { ram, frameTable } = host.machine;
  const hashes = FrameHashes.of(host.machine);
  hashes.update();
  const { used } = hashes;
  const numbers = Uint32Array.from(used);
  const data = new Uint8Array(used.length * 4096);
  used.forEach((frame, i) => data.set(ram.subarray(frame * 4096, frame * 4096 + 4096), i * 4096));
  const kept = FRAME_FLAG.rom | FRAME_FLAG.mmio;
  const flags: number[][] = [];
  for (let frame = 0; frame < ram.length / 4096; frame++) {
    const flag = frameTable[frame * (FRAME.size / 4)] & kept;
    if (flag) flags.push([frame, flag]);
  }
  const blocks: Record<string, Plain> = {};
  for (const { name, version, save } of stateBlocks(host)) {
    blocks[name] = { version, bytes: save() };
  }
  const { cpu, memory, unixTime, seed } = host.options;
  return encodePlain({
    format: "xvm state",
    version: VERSION,
    options: { cpu, memory, unixTime, seed },
    frames: new Uint8Array(numbers.buffer),
    data,
    flags,
    blocks,
  });
}

/**
 * Puts a host into a state that {@linkcode saveHost} gave. The host has the same domains.
 *
 * @throws {RecordError} if the bytes are no such state, or of another host
 */
export function loadHost(host: Host, bytes: Uint8Array): void {
  const state = decodePlain(bytes, "the saved host") as Record<string, Plain>;
  if (state?.format !== "xvm state" || state.version !== VERSION) {
    throw new RecordError("these bytes are no saved state of a host");
  }
  const given = state.options as Record<string, Plain>;
  for (const key of ["cpu", "memory", "unixTime"] as const) {
    if (given[key] !== host.options[key]) {
      throw new RecordError(
        `the state is of a host with ${key} ${given[key]}, this one has ${host.options[key]}`,
      );
    }
  }
  const blocks = stateBlocks(host);
  const saved = state.blocks as Record<string, { version: number; bytes: Uint8Array }>;
  const names = Object.keys(saved).sort().join(", ");
  if (names !== blocks.map((b) => b.name).sort().join(", ")) {
    throw new RecordError(
      `the state has the blocks ${names}; this host has ${blocks.map((b) => b.name).join(", ")}`,
    );
  }
  for (const d of host.domains) {
    if (d.ended || d.ending) {
      throw new RecordError(`domain ${d.name} has ended: make it anew first`);
    }
  }
  for (const block of blocks) {
    if (saved[block.name].version !== block.version) {
      throw new RecordError(
        `block ${block.name} has version ${saved[block.name].version}, expected ${block.version}`,
      );
    }
  }
  for (const d of host.domains) d.pause();
  quiesce(host);
  loadMemory(host, state);
  for (const block of blocks) block.load(saved[block.name].bytes);
  const { cpu } = host.machine;
  cpu.predecoder.reset();
  if (host.hvm) host.hvm.ops.refresh(host.hvm.on, undefined);
  cpu.flushTlb();
  cpu.system.refresh();
}

function loadMemory(host: Host, state: Record<string, Plain>): void {
  const { machine } = host, { ram, frameTable } = machine;
  const hashes = FrameHashes.of(machine);
  hashes.update();
  const numbers = new Uint32Array((state.frames as Uint8Array).slice().buffer);
  const data = state.data as Uint8Array;
  const kept = FRAME_FLAG.rom | FRAME_FLAG.mmio;
  const touch = (frame: number) => frameTable[frame * (FRAME.size / 4)] |= FRAME_FLAG.dirty;
  for (const frame of hashes.used) {
    ram.fill(0, frame * 4096, frame * 4096 + 4096);
    touch(frame);
  }
  numbers.forEach((frame, i) => {
    ram.set(data.subarray(i * 4096, i * 4096 + 4096), frame * 4096);
    touch(frame);
  });
  for (let frame = 0; frame < ram.length / 4096; frame++) {
    frameTable[frame * (FRAME.size / 4)] &= ~kept;
  }
  for (const [frame, flag] of state.flags as number[][]) {
    frameTable[frame * (FRAME.size / 4)] |= flag;
  }
}

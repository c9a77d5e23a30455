/**
 * Privileged sequences in lockstep: QEMU's gdb stub against our machine, registers after each step,
 * tables and stacks at the end. What QEMU is known to do otherwise is in {@linkcode KNOWN}.
 *
 *     deno run -A tests/oracle/privileged.ts COUNT [SEED]
 *
 * @module
 */
import { checkById } from "../../src/machine/checks.ts";
import { Cpuid } from "../../src/machine/cpuid.ts";
import { Machine } from "../../src/machine/machine.ts";
import type { GprName } from "../../src/abi/x86/registers.ts";
import { V } from "../../src/machine/state.ts";
import { PLACE, type Sequence, sequence } from "./privileged_cases.ts";
import { Qemu, type QemuState } from "./qemu.ts";

/** Steps after which a sequence is left, wherever it is. */
const STEPS = 120;

/** A difference: what, on which side how, and the last check of ours that failed. */
export interface Difference {
  readonly what: string;
  readonly ours: string;
  readonly theirs: string;
  readonly check: string;
  /** Bytes of the instruction before. */
  readonly code: string;
}

/** A known error of QEMU (7.2): the sequence ends there and counts as agreeing. */
export interface KnownError {
  readonly name: string;
  readonly reason: string;
  readonly is: (d: readonly Difference[]) => boolean;
}

const fault = (d: readonly Difference[], check: string) => d.some((x) => x.check === check);

/** The closed list. */
export const KNOWN: readonly KnownError[] = [
  {
    name: "LTR with a null selector",
    reason: "is loaded; #GP(0) by SDM 2, LTR",
    is: (d) => fault(d, "tr.null"),
  },
  {
    name: "data access through a null segment register",
    reason: "is not checked, like limits; #GP(0) by SDM 3 5.4.1",
    is: (d) => fault(d, "segment.unusable") && d.some((x) => x.what === "eip"),
  },
  {
    name: "LAR, bits 16 to 19",
    reason: "undefined by SDM 2, LAR: QEMU clears them, we keep the descriptor's",
    is: (d) =>
      d.length === 1 && d[0].code.startsWith("0f02") &&
      ((parseInt(d[0].ours, 16) ^ parseInt(d[0].theirs, 16)) & ~0xf0000) === 0,
  },
  {
    name: "upper halves after a switch to a 16-bit task",
    reason: "a 16-bit TSS does not hold them: QEMU keeps the old task's, we clear them (SDM 3 8.6)",
    is: (d) =>
      d.every((x) => x.what[0] === "e" && /^[^ ]+$/.test(x.ours)) &&
      d.every((x) => ((parseInt(x.ours, 16) ^ parseInt(x.theirs, 16)) & 0xffff) === 0),
  },
  {
    name: "CR0.NW without CD",
    reason: "is accepted; #GP(0) by SDM 2, MOV to control registers",
    is: (d) => fault(d, "cr0.combination") && d.some((x) => x.what === "cr0"),
  },
  {
    name: "reserved bits of PDPTEs",
    reason: "are not checked when CR3 is loaded; #GP(0) by SDM 3 4.4.1",
    is: (d) => fault(d, "pdpte.reserved"),
  },
];

export interface LockstepResult {
  readonly sequences: number;
  readonly steps: number;
  readonly faults: number;
  /** Hits of known errors by name. */
  readonly known: Record<string, number>;
  readonly findings: string[];
}

/** Our side: one processor, stepped like the stub steps: an instruction, or delivery of its fault. */
export class Ours {
  readonly machine = new Machine({ memory: 16 << 20 });
  faults = 0;
  #stop = false;
  #ended = false;

  constructor() {
    const { cpu } = this.machine;
    cpu.hooks.cpuid = new Cpuid("intel").install(cpu.i32);
    cpu.hooks.msr = () => false;
    cpu.hooks.fault = () => this.#stop;
  }

  load(s: Sequence): void {
    this.machine.write(0, new Uint8Array(0x40000));
    for (const [at, bytes] of s.memory) this.machine.write(at, bytes);
    const { cpu } = this.machine;
    cpu.reset();
    cpu.set("rip", BigInt(PLACE.start));
    cpu.setSegment(1, { selector: 0, base: 0n, limit: 0xffff, attributes: 0x9b });
    cpu.set("rdx", 0n);
    cpu.set("rsp", BigInt(PLACE.stack0));
    this.#ended = false;
  }

  /** False after a shutdown. */
  step(): boolean {
    const { cpu } = this.machine;
    this.#stop = true;
    const stop = cpu.run(1);
    if (stop === "fault") {
      this.faults++;
      cpu.system.deliver();
    }
    this.#ended = stop === "shutdown" || cpu.i32[V.abort >> 2] !== 0;
    cpu.system.materialize?.();
    return !this.#ended;
  }

  get check(): string {
    return checkById(this.machine.cpu.i32[V.check >> 2]).name;
  }

  /** Linear address of the next instruction. */
  get next(): number {
    const { cpu } = this.machine;
    return Number((cpu.getSegment(1).base + cpu.get("rip")) & 0xffff_ffffn);
  }
}

const GPRS = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"] as const;
const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr"] as const;
/** Compared flags: all but RF, which QEMU's stub clears when it steps. */
const FLAGS = 0x3e7fd7n;

/** RF in the upper half of pushed flags. */
const RF = 1;
/** The busy bit: LTR of QEMU sets it in memory, where it is compared, and not in TR's hidden part. */
const BUSY = 2;

/** What both have to agree on, as text by name. */
function ourState(machine: Machine): Record<string, string> {
  const { cpu } = machine, out: Record<string, string> = {};
  const hex = (v: bigint) => (v & 0xffff_ffffn).toString(16);
  for (const name of GPRS) out[name] = hex(cpu.get(`r${name.slice(1)}` as GprName));
  out.eip = hex(cpu.get("rip"));
  out.eflags = hex(cpu.get("rflags") & FLAGS);
  for (const name of ["cr0", "cr2", "cr3", "cr4"] as const) out[name] = hex(cpu.get(name));
  out.gdt = `${hex(cpu.get("gdtr.base"))} ${hex(cpu.get("gdtr.limit"))}`;
  out.idt = `${hex(cpu.get("idtr.base"))} ${hex(cpu.get("idtr.limit"))}`;
  const flat = !(cpu.get("cr0") & 1n) || (cpu.get("rflags") & 0x20000n) !== 0n;
  SEGMENTS.forEach((name, n) => {
    const { selector, base, limit, attributes } = cpu.getSegment(n);
    const rights = name === "tr" ? attributes & ~BUSY : attributes;
    out[name] = segmentText(selector, base, limit, rights, flat && n < 6);
  });
  return out;
}

function theirState(s: QemuState): Record<string, string> {
  const out: Record<string, string> = {};
  const hex = (v: bigint | number) => (BigInt(v) & 0xffff_ffffn).toString(16);
  for (const name of [...GPRS, "eip"]) out[name] = hex(s.registers[name]);
  out.eflags = hex(s.registers.eflags & FLAGS);
  for (const name of ["cr0", "cr2", "cr3", "cr4"]) out[name] = hex(s.registers[name]);
  for (const name of ["gdt", "idt"] as const) {
    out[name] = `${hex(s[name].base)} ${hex(s[name].limit)}`;
  }
  const flat = !(s.registers.cr0 & 1n) || (s.registers.eflags & 0x20000n) !== 0n;
  SEGMENTS.forEach((name, n) => {
    const { selector, base, limit, flags } = s.segments[name];
    const rights = flags >> 8 & (name === "tr" ? 0xf0ff & ~BUSY : 0xf0ff);
    out[name] = segmentText(selector, BigInt(base), limit, rights, flat && n < 6);
  });
  return out;
}

/** A null or absent one is its selector; in real and virtual-8086 mode the base is all there is. */
function segmentText(
  selector: number,
  base: bigint,
  limit: number,
  attributes: number,
  flat: boolean,
): string {
  const hex = selector.toString(16);
  if (flat) return `${hex} ${base.toString(16)}`;
  if (attributes & 0x10000 || !(attributes & 0x80) || !(selector & 0xfffc)) return hex;
  // The accessed bit is in memory, and compared there.
  return `${hex} ${base.toString(16)} ${limit.toString(16)} ${(attributes & 0xf0fe).toString(16)}`;
}

/** What is compared at the end: tables, task states, and the stacks. */
const REGIONS: readonly (readonly [number, number])[] = [
  [PLACE.gdt, 0x100],
  [PLACE.tss, 0x280],
  [PLACE.stack3 - 0x80, 0x80],
  [PLACE.stack1 - 0x80, 0x80],
  [PLACE.stack0 - 0x280, 0x280],
];

async function load(qemu: Qemu, s: Sequence): Promise<void> {
  for (const [at, bytes] of s.memory) await qemu.load(at, bytes);
  const zero = Object.fromEntries(GPRS.map((name) => [name, 0n]));
  const data = { cs: 0n, ds: 0n, ss: 0n, es: 0n, fs: 0n, gs: 0n };
  await qemu.set({ ...zero, ...data, eip: BigInt(PLACE.start), esp: BigInt(PLACE.stack0) });
}

/** Steps both through one sequence. */
async function lockstep(qemu: Qemu, ours: Ours, s: Sequence, result: Result): Promise<void> {
  await load(qemu, s);
  ours.load(s);
  const { ram } = ours.machine;
  let begun = false;
  for (let n = 0; n < STEPS; n++) {
    const at = ours.next, code = ram.slice(at, at + 8).toHex();
    if (ram[at] === 0xf4) break;
    const alive = ours.step();
    if (!alive) break;
    const mine = ourState(ours.machine);
    let theirs: Record<string, string>;
    try {
      theirs = theirState(await qemu.step());
    } catch (error) {
      const stopped = { what: "step", ours: `eip ${mine.eip}`, theirs: (error as Error).message };
      return note(result, s, [{ ...stopped, check: ours.check, code }], `step ${n}`);
    }
    // The preamble is checked by where it leads; between MOV CR0 and the jump hidden parts differ.
    if (!begun && ours.next !== PLACE.code) continue;
    begun = true;
    result.steps++;
    const differences = Object.keys(mine).filter((k) => mine[k] !== theirs[k])
      .map((what) => ({ what, ours: mine[what], theirs: theirs[what], check: ours.check, code }));
    if (differences.length) {
      return note(result, s, differences, `step ${n}, code at ${at.toString(16)}`);
    }
  }
  // With paging on QEMU reads linear addresses: the same, unless a page was taken away.
  for (const [from, length] of REGIONS) {
    const mine = new Uint16Array(ram.slice(from, from + length).buffer);
    const theirs = new Uint16Array((await qemu.read(from, length)).slice().buffer);
    // QEMU leaves RF clear in the flags it pushes for a fault (SDM 3 17.3.1.1).
    const i = mine.findIndex((word, n) => word !== theirs[n] && word !== (theirs[n] | RF));
    if (i < 0) continue;
    const what = `memory ${(from + 2 * i).toString(16)}`;
    const difference = { what, ours: mine[i].toString(16), theirs: theirs[i].toString(16) };
    return note(
      result,
      s,
      [{ ...difference, check: ours.check, code: "" }],
      "at the end",
    );
  }
}

export type Result = { -readonly [K in keyof LockstepResult]: LockstepResult[K] };

export function note(result: Result, s: Sequence, d: readonly Difference[], where: string): void {
  const known = KNOWN.find((k) => k.is(d));
  if (known) {
    result.known[known.name] = (result.known[known.name] ?? 0) + 1;
    return;
  }
  const text = d.map((x) => `${x.what}: ours ${x.ours}, QEMU ${x.theirs}`).join("; ");
  result.findings.push(`${where} [${d[0].code}], check ${d[0].check}: ${text}\n${s.source}`);
}

/** Runs `count` sequences of a seed. */
export async function privileged(count: number, seed: number): Promise<LockstepResult> {
  const result: Result = { sequences: 0, steps: 0, faults: 0, known: {}, findings: [] };
  const ours = new Ours();
  for (let n = 0; n < count && result.findings.length < 20; n++) {
    const before = result.findings.length;
    // A QEMU for each: its reset waits until the processor runs.
    await using qemu = await Qemu.start({ cpu: "pentium3" });
    await lockstep(qemu, ours, sequence(seed * 100_003 + n), result);
    if (result.findings.length > before) {
      result.findings[before] = `sequence ${n} of seed ${seed}: ${result.findings[before]}`;
    }
    result.sequences++;
  }
  result.faults = ours.faults;
  return result;
}

if (import.meta.main) {
  const [count = "20", seed = "1"] = Deno.args;
  const { findings, ...rest } = await privileged(Number(count), Number(seed));
  for (const f of findings) console.log(f);
  console.log(rest, `${findings.length} findings`);
  if (findings.length) Deno.exit(1);
}

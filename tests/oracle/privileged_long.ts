/**
 * Privileged sequences in long mode in lockstep: QEMU's gdb stub against our machine, registers after
 * each step, tables and stacks at the end. What QEMU is known to do otherwise is in {@linkcode KNOWN}.
 *
 *     deno run -A tests/oracle/privileged_long.ts COUNT [SEED]
 *
 * @module
 */
import { gpr64 } from "../../src/abi/x86/registers.ts";
import type { Machine } from "../../src/machine/machine.ts";
import { type Difference, type KnownError, type LockstepResult, Ours } from "./privileged.ts";
import type { Sequence } from "./privileged_cases.ts";
import { PLACE, sequence } from "./privileged_long_cases.ts";
import { Qemu, type QemuState } from "./qemu.ts";

/** Steps after which a sequence is left, wherever it is. */
const STEPS = 160;

const fault = (d: readonly Difference[], ...checks: string[]) =>
  d.some((x) => checks.includes(x.check));

/** The closed list. */
export const KNOWN: readonly KnownError[] = [
  {
    name: "error codes of #GP and #NP for gates in the long-mode IDT",
    reason: "are vector*16+2; vector*8+2 by SDM 3 6.13",
    is: (d) =>
      d.length === 1 && d[0].what.startsWith("memory") && differ(d[0], (x, y) => {
        return (x & 7) === 2 && y === 2 * (x - 2) + 2;
      }),
  },
  {
    name: "LTR with a null selector",
    reason: "is loaded; #GP(0) by SDM 2, LTR",
    is: (d) => fault(d, "tr.null"),
  },
  {
    name: "LAR, bits 16 to 19",
    reason: "undefined by SDM 2, LAR: QEMU clears them, we keep the descriptor's",
    is: (d) =>
      d.length === 1 && d[0].code.startsWith("0f02") &&
      differ(d[0], (x, y) => ((x ^ y) & ~0xf0000) === 0),
  },
  {
    name: "branches to addresses that are not canonical",
    reason: "are not checked; #GP(0) by SDM 2, JMP, RET, and SDM 1 3.3.7.1",
    is: (d) =>
      fault(d, "branch.canonical", "fetch.canonical") ||
      d.some((x) => x.what === "rip" && !isCanonical(BigInt(`0x${x.theirs}`))),
  },
  {
    name: "code segments with L and D set",
    reason: "are accepted; #GP by SDM 2, JMP: far jumps",
    is: (d) => fault(d, "far.mode"),
  },
  {
    name: "SS of an interrupt that takes a stack of IST and keeps CPL",
    reason: "becomes NULL; only RSP is loaded by SDM 2, INT n: INTRA-PRIVILEGE-LEVEL-INTERRUPT",
    is: (d) => d.length === 1 && d[0].what === "ss" && d[0].code.startsWith("cd"),
  },
  {
    name: "status flags after SYSCALL",
    reason: "are all clear; only those in IA32_FMASK by SDM 2, SYSCALL",
    is: (d) =>
      d.length === 1 && d[0].what === "rflags" && d[0].code.startsWith("0f05") &&
      differ(d[0], (x, y) => (x & ~0x8d5) === (y & ~0x8d5)),
  },
  {
    name: "bases of tables and segments that are not canonical",
    reason: "are loaded; #GP by SDM 2, LGDT, LLDT, LTR, WRFSBASE, WRMSR",
    is: (d) => fault(d, "table.base", "system.base", "base.canonical", "msr.canonical"),
  },
  {
    name: "the type in the upper half of a task state's descriptor",
    reason: "is not checked; #GP by SDM 2, LTR",
    is: (d) => fault(d, "system.upper"),
  },
  {
    name: "CR4.PAE or CR0.PG cleared in 64-bit mode, reserved bits of CR3 and CR8",
    reason: "are accepted; #GP(0) by SDM 2, MOV to control registers",
    is: (d) => fault(d, "cr4.pae", "cr8.reserved", "cr0.leave", "cr3.reserved"),
  },
  {
    name: "reserved bits of EFER, and LME while paging is on",
    reason: "are ignored; #GP(0) by SDM 3 2.2.1",
    is: (d) => fault(d, "efer.reserved", "efer.lme"),
  },
  {
    name: "IRETQ to the same privilege level",
    reason: "clears data segments as if it went outward; not by SDM 2, IRET: " +
      "RETURN-TO-SAME-PRIVILEGE-LEVEL",
    is: (d) =>
      d[0].code.startsWith("48cf") && d.every((x) => /^[defg]s$/.test(x.what)) &&
      d.every((x) => /^0( |$)/.test(x.theirs)),
  },
  {
    name: "a page fault of an instruction that reads and writes its operand",
    reason: "is one of a read; of a write on processors, tried by ptrace",
    is: (d) =>
      d.length === 1 && d[0].what.startsWith("memory") && d[0].check.startsWith("page.") &&
      differ(d[0], (x, y) => (y & ~0x1d) === 0 && x === (y | 2)),
  },
  {
    name: "accesses across the end of the lower half of the address space",
    reason: "are #PF of the part below; #GP(0) or #SS(0) by SDM 1 3.3.7.1",
    is: (d) => fault(d, "address.canonical") && d.some((x) => x.what === "cr2"),
  },
  {
    name: "FF /7",
    reason: "reads its operand first; #UD",
    is: (d) => fault(d, "decode.undefined") && /^ff[37b]/.test(d[0].code),
  },
  {
    name: "CS of SYSENTER in long mode",
    reason: "has D and L set; D is 0 by SDM 2, SYSENTER",
    is: (d) => d.length === 1 && d[0].what === "cs" && d[0].code.startsWith("0f34"),
  },
  {
    name: "an address by way of RBP or RSP that is not canonical",
    reason: "is #GP(0); #SS(0) by SDM 1 3.3.7.1",
    is: (d) =>
      fault(d, "address.canonical") && d.some((x) => x.what === "rip" && x.ours === "4060"),
  },
  {
    name: "data access through a null segment register in compatibility mode",
    reason: "is not checked; #GP(0) by SDM 3 5.4.1",
    is: (d) => fault(d, "segment.unusable"),
  },
  {
    name: "CR0.NW without CD",
    reason: "is accepted; #GP(0) by SDM 2, MOV to control registers",
    is: (d) => fault(d, "cr0.combination") && d.some((x) => x.what === "cr0"),
  },
];

const isCanonical = (address: bigint) => BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;

function differ(d: Difference, rule: (ours: number, theirs: number) => boolean): boolean {
  return rule(parseInt(d.ours, 16), parseInt(d.theirs, 16));
}

const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr"] as const;
const CONTROL = ["cr0", "cr2", "cr3", "cr4", "efer"] as const;
/** Compared flags: all but RF, which QEMU's stub clears when it steps. */
const FLAGS = 0x3e7fd7n;
/** RF in the upper half of pushed flags. */
const RF = 1;
/** The busy bit: LTR of QEMU sets it in memory, where it is compared, and not in TR's hidden part. */
const BUSY = 2;

function ourState(machine: Machine): Record<string, string> {
  const { cpu } = machine, out: Record<string, string> = {};
  for (const name of [...gpr64, "rip" as const, ...CONTROL]) out[name] = cpu.get(name).toString(16);
  out.rflags = (cpu.get("rflags") & FLAGS).toString(16);
  for (const name of ["gdt", "idt"] as const) {
    out[name] = `${cpu.get(`${name}r.base`).toString(16)} ${
      cpu.get(`${name}r.limit`).toString(16)
    }`;
  }
  SEGMENTS.forEach((name, n) => {
    const { selector, base, limit, attributes } = cpu.getSegment(n);
    out[name] = segmentText(name, selector, base, limit, attributes);
  });
  return out;
}

function theirState(s: QemuState): Record<string, string> {
  const out: Record<string, string> = {};
  // Outside 64-bit mode it shows the lower halves, and not R8 to R15.
  const { registers } = s;
  for (const name of [...gpr64, "rip"]) {
    const value = registers[name] ?? registers[`e${name.slice(1)}`];
    if (value !== undefined) out[name] = value.toString(16);
  }
  for (const name of CONTROL) out[name] = registers[name].toString(16);
  out.rflags = ((registers.rflags ?? registers.eflags) & FLAGS).toString(16);
  for (const name of ["gdt", "idt"] as const) {
    out[name] = `${s[name].wideBase.toString(16)} ${s[name].limit.toString(16)}`;
  }
  for (const name of SEGMENTS) {
    const { selector, wideBase, limit, flags } = s.segments[name];
    out[name] = segmentText(name, selector, wideBase, limit, flags >> 8 & 0xf0ff);
  }
  return out;
}

/**
 * A null or absent one is its selector, with the base where it matters in 64-bit mode. The accessed
 * bit is in memory, and compared there.
 */
function segmentText(
  name: string,
  selector: number,
  base: bigint,
  limit: number,
  attributes: number,
): string {
  const text = selector.toString(16);
  const wide = name === "fs" || name === "gs" ? ` ${base.toString(16)}` : "";
  if (attributes & 0x10000 || !(attributes & 0x80) || !(selector & 0xfffc)) return text + wide;
  const rights = (attributes & 0xf0fe & (name === "tr" ? ~BUSY : -1)).toString(16);
  return `${text} ${base.toString(16)} ${limit.toString(16)} ${rights}`;
}

/** What is compared at the end: tables, task states, and the stacks. */
const REGIONS: readonly (readonly [number, number])[] = [
  [PLACE.gdt, 0x120],
  [PLACE.tss, 0x180],
  [PLACE.stack3 - 0x80, 0x80],
  [PLACE.ist1 - 0x80, 0x80],
  [PLACE.ist2 - 0x80, 0x80],
  [PLACE.stack0 - 0x180, 0x180],
];

async function load(qemu: Qemu, s: Sequence): Promise<void> {
  for (const [at, bytes] of s.memory) await qemu.load(at, bytes);
  const zero = Object.fromEntries(gpr64.map((name) => [name, 0n]));
  const data = { cs: 0n, ds: 0n, ss: 0n, es: 0n, fs: 0n, gs: 0n };
  await qemu.set({ ...zero, ...data, rip: BigInt(PLACE.start), rsp: BigInt(PLACE.stack0) });
}

/** The lower halves of numbers. */
const lower = (text: string) =>
  text.replaceAll(/[0-9a-f]+/g, (n) => n.slice(-8).replace(/^0+/, ""));

type Result = { -readonly [K in keyof LockstepResult]: LockstepResult[K] };

function note(result: Result, s: Sequence, d: readonly Difference[], where: string): void {
  const known = KNOWN.find((k) => k.is(d));
  if (known) {
    result.known[known.name] = (result.known[known.name] ?? 0) + 1;
    return;
  }
  const text = d.map((x) => `${x.what}: ours ${x.ours}, QEMU ${x.theirs}`).join("; ");
  result.findings.push(`${where} [${d[0].code}], check ${d[0].check}: ${text}\n${s.source}`);
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
    if (!ours.step()) break;
    const mine = ourState(ours.machine);
    let theirs: Record<string, string>;
    try {
      theirs = theirState(await qemu.step());
    } catch (error) {
      // Both are shut down.
      if (ours.check === "fault.triple") return;
      const stopped = { what: "step", ours: `rip ${mine.rip}`, theirs: (error as Error).message };
      return note(result, s, [{ ...stopped, check: ours.check, code }], `step ${n}`);
    }
    // The preamble is checked by where it leads.
    if (!begun && ours.next !== PLACE.code) continue;
    begun = true;
    result.steps++;
    const same = (k: string) =>
      mine[k] === theirs[k] || theirs.r8 === undefined && lower(mine[k]) === lower(theirs[k]);
    const differences = Object.keys(theirs).filter((k) => !same(k))
      .map((what) => ({ what, ours: mine[what], theirs: theirs[what], check: ours.check, code }));
    if (differences.length) {
      return note(result, s, differences, `step ${n}, code at ${at.toString(16)}`);
    }
  }
  if (!begun) throw new Error("a sequence did not come to its 64-bit code");
  for (const [from, length] of REGIONS) {
    const mine = new Uint16Array(ram.slice(from, from + length).buffer);
    const theirs = new Uint16Array((await qemu.read(from, length)).slice().buffer);
    // QEMU leaves RF clear in the flags it pushes for a fault (SDM 3 17.3.1.1).
    const i = mine.findIndex((word, n) => word !== theirs[n] && word !== (theirs[n] | RF));
    if (i < 0) continue;
    const what = `memory ${(from + 2 * i).toString(16)}`;
    const difference = { what, ours: mine[i].toString(16), theirs: theirs[i].toString(16) };
    return note(result, s, [{ ...difference, check: ours.check, code: "" }], "at the end");
  }
}

/** Runs `count` sequences of a seed. */
export async function privilegedLong(count: number, seed: number): Promise<LockstepResult> {
  const result: Result = { sequences: 0, steps: 0, faults: 0, known: {}, findings: [] };
  const ours = new Ours();
  for (let n = 0; n < count && result.findings.length < 20; n++) {
    const before = result.findings.length;
    // A QEMU for each: its reset waits until the processor runs.
    await using qemu = await Qemu.start({
      cpu: "max,vendor=GenuineIntel,phys-bits=36,svm=off,la57=off,pku=off,avx=off",
      machine: "pc",
      long: true,
    });
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
  const { findings, ...rest } = await privilegedLong(Number(count), Number(seed));
  for (const f of findings) console.log(f);
  console.log(rest, `${findings.length} findings`);
  if (findings.length) Deno.exit(1);
}

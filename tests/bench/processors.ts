/**
 * What vCPUs and processors cost: CPU time for an instruction of guests whose vCPUs all work, by how
 * many there are, on how many processors, and by how long their turns are.
 */
import process from "node:process";
import { guestsFolder } from "../../repl/guests/images.ts";
import { build } from "../../src/builder/domain.ts";
import { assembleKernel } from "../../src/debug/testing/prologue.ts";
import { assemble } from "../../src/machine/isa/encode.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";
import { Host } from "../../src/xen/host.ts";
import { figure, measure, median, table } from "./measure.ts";

/** Where the others begin, in real mode; their segments; how many are there. */
const START = 0x8000, GDT = 0x7e00, POINTER = 0x7f00, UP = 0x7000;

/** All work at the same memory, each with its own registers. */
const KERNEL = assembleKernel(`
  mov edi, 0xfee00000
  mov dword [edi + 0x300], 0xc4500
  mov dword [edi + 0x300], 0xc4600 + ${START >> 12}
  mov al, 0xff
  out 0x21, al
  out 0xa1, al
  jmp work
other:
  mov ax, 16
  mov ds, ax
  mov es, ax
  mov ss, ax
  lock inc dword [${UP}]
work:
  inc dword [0x200000]
  mov ebx, [0x300000]
  add ebx, ecx
  lea edx, [ebx + ecx * 4]
  mov [0x300004], edx
  dec ecx
  jnz work
  jmp work`);
const OTHERS = assemble(
  `xor ax, ax
  mov ds, ax
  lgdt [${POINTER}]
  mov eax, cr0
  or al, 1
  mov cr0, eax
  db 0x66, 0xea
  dd ${KERNEL.symbols.get("other")}
  dw 8`,
  { mode: 16 },
).bytes;
const words = (...values: number[]) => new Uint8Array(Uint32Array.from(values).buffer);

const NUMBERS = [1, 2, 4], TURNS = [1, 100, 10_000];
const MEMORY = 4 << 20;
/** Instructions until code is compiled as well as it ever is. */
const WARM = 1e9;
/** Instructions before it is measured, and how many are. */
const STARTS = 100_000;
const MEASURED: Readonly<Record<number, number>> = { 1: 2e5, 100: 4e6, 10_000: 4e7 };

/** One row of the table. */
export interface TurnCost {
  readonly cpu: CpuModel;
  readonly vcpus: number;
  readonly processors: number;
  /** Instructions of a turn. */
  readonly turn: number;
  readonly runs: number;
  /** CPU time of the process for a guest instruction: nanoseconds, the median of all runs. */
  readonly cost: number;
}
type Case = Omit<TurnCost, "runs" | "cost">;

/** A host whose guest's vCPUs all work. */
async function working({ cpu, vcpus, processors, turn }: Case): Promise<Host> {
  const host = new Host({
    cpu,
    memory: 4 * MEMORY,
    unixTime: 0,
    seed: 1,
    cpus: processors,
    interleave: { min: turn, max: turn },
  });
  const { domain } = await build(host, {
    name: "bench",
    type: "hvm",
    kernel: { file: "benchmark", bytes: KERNEL.bytes },
    memory: MEMORY,
    vcpus,
    paging: "hap",
  });
  domain.memory.write(START, OTHERS);
  domain.memory.write(GDT, words(0, 0, 0xffff, 0xcf9b00, 0xffff, 0xcf9300));
  domain.memory.write(POINTER, words(GDT << 16 | 23, 0));
  domain.setState({ kind: "running" });
  run(host, STARTS);
  if (domain.vcpus.every(({ ready, count }) => ready && count > 0)) return host;
  throw new Error(`not all of ${vcpus} vCPUs work: ${domain.vcpus.map((v) => v.count)}`);
}

/** Runs so many instructions, or some more. */
function run(host: Host, instructions: number): void {
  const { machine } = host, end = machine.count + instructions;
  while (machine.count < end) host.runOnce(1e6);
}

/** All cases in turns, `runs` times: what else the computer does hits all alike. */
export async function turnCosts(runs: number, cpu: CpuModel): Promise<TurnCost[]> {
  // V8 takes some seconds to compile the interpreter well; all use what it has made.
  run(await working({ cpu, vcpus: 1, processors: 1, turn: 1 }), WARM);
  const all: { of: Case; host: Host; costs: number[] }[] = [];
  for (const vcpus of NUMBERS) {
    for (const processors of NUMBERS) {
      for (const turn of TURNS) {
        const of = { cpu, vcpus, processors, turn };
        all.push({ of, host: await working(of), costs: [] });
      }
    }
  }
  // The first round warms up.
  for (let n = 0; n <= runs; n++) {
    for (const { of, host, costs } of all) {
      const { machine } = host, before = machine.count, started = process.cpuUsage();
      run(host, MEASURED[of.turn]);
      const { user, system } = process.cpuUsage(started);
      if (n > 0) costs.push((user + system) * 1000 / (machine.count - before));
    }
  }
  return all.map(({ of, costs }) => ({ ...of, runs, cost: median(costs) }));
}

/** Turns across; of each the cost, and what it is beside one vCPU on one processor. */
export function showTurnCosts(results: readonly TurnCost[]): string {
  const { cpu, runs } = results[0];
  const of = (vcpus: number, processors: number, turn: number) =>
    results.find((r) => r.vcpus === vcpus && r.processors === processors && r.turn === turn)!.cost;
  const heading = TURNS.map((turn) => `turns of ${turn.toLocaleString("en")}`);
  return table([
    [`${cpu}, ns an instruction, n ${runs}`, "processors", ...heading],
    ...NUMBERS.flatMap((vcpus) =>
      NUMBERS.map((processors) => [
        `${vcpus} vCPU${vcpus > 1 ? "s" : ""}`,
        processors,
        ...TURNS.map((turn) => {
          const cost = of(vcpus, processors, turn);
          return `${figure(cost)} (${figure(cost / of(1, 1, turn))})`;
        }),
      ])
    ),
  ]);
}

/** What a boot of a Debian kernel takes by the processors of the host: the medians of all runs. */
export interface ProcessorCost {
  readonly processors: number;
  readonly vcpus: number;
  readonly runs: number;
  /** CPU seconds to GUEST-READY. */
  readonly cpu: number;
  /** Peak resident memory of the process in bytes. */
  readonly peak: number;
}

/** The same guest on one vCPU, and with a vCPU on each processor. */
export async function processorCosts(runs: number): Promise<ProcessorCost[]> {
  const folder = guestsFolder(), root = new URL("../../", import.meta.url).pathname;
  const samples = new Map<string, ProcessorCost[]>();
  for (let n = 0; n < runs; n++) {
    for (const [processors, vcpus] of [[1, 1], [2, 1], [4, 1], [8, 1], [2, 2], [4, 4], [8, 8]]) {
      const command = [
        Deno.execPath(),
        ...["run", "-A", "--v8-flags=--heap-growing-percent=50,--max-semi-space-size=8"],
        ...[`${root}repl/main.ts`, "boot", "--type", "pvh", "--memory", "128M"],
        ...["--cpus", `${processors}`, "--vcpus", `${vcpus}`],
        ...["--kernel", `${folder}/vmlinux-686-pae`, "--ramdisk", `${folder}/tiny-i386.cpio.gz`],
        ...["--cmdline", "console=ttyS0 nokaslr mitigations=off cryptomgr.notests noisapnp quiet"],
        ...["--until", "GUEST-READY"],
      ];
      const { marks: [{ cpu, peak }] } = await measure({
        command,
        marks: ["GUEST-READY"],
        timeout: 300,
        ends: true,
      });
      const key = `${processors} ${vcpus}`;
      samples.set(key, [...samples.get(key) ?? [], { processors, vcpus, runs, cpu, peak }]);
    }
  }
  return [...samples.values()].map((all) => ({
    ...all[0],
    cpu: median(all.map(({ cpu }) => cpu)),
    peak: median(all.map(({ peak }) => peak)),
  }));
}

/** With what each further processor adds to the memory of the process. */
export function showProcessorCosts(results: readonly ProcessorCost[]): string {
  const mega = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
  return table([
    [`Debian's boot, n ${results[0].runs}`, "vCPUs", "cpu s", "peak MB", "MB a further processor"],
    ...results.map(({ processors, vcpus, cpu, peak }) => [
      `${processors} processor${processors > 1 ? "s" : ""}`,
      vcpus,
      figure(cpu),
      mega(peak),
      processors > 1 ? mega((peak - results[0].peak) / (processors - 1)) : "",
    ]),
  ]);
}

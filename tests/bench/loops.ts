/** Small loops on every machine, as MIPS of guest instructions. */
import { assemble } from "../../src/machine/isa/encode_assembler.ts";
import { figure, measure, median, table } from "./measure.ts";
import type { Machine } from "./machines.ts";

/** A loop: its code, entered once, and the instructions it executes. */
interface Loop {
  readonly name: string;
  readonly code: string;
  readonly instructions: number;
}

/** Nodes of the call tree of fib(n): calls it makes in all. */
const fibCalls = (n: number): number => n < 2 ? 1 : 1 + fibCalls(n - 1) + fibCalls(n - 2);
const FIB = 36, MIXED = 60e6, WALK_ROUNDS = 150, WALK_WORDS = 1 << 20;

const LOOPS: readonly Loop[] = [
  {
    name: "mixed",
    code: `
      mov ecx, ${MIXED}
    .loop:
      add eax, ecx
      xor ebx, eax
      lea edx, [ebx + eax*2]
      mov [0x300000], edx
      add ebp, [0x300000]
      shr eax, 3
      imul esi, ebx
      test ecx, 1
      jz .skip
      inc edi
    .skip:
      dec ecx
      jnz .loop`,
    instructions: MIXED * 11.5,
  },
  {
    name: "calls",
    code: `
      mov eax, ${FIB}
      call fib`,
    // Inner nodes execute 12 instructions (push to ret), leaves 3: cmp, jb, ret.
    instructions: (fibCalls(FIB) - 1) / 2 * 12 + (fibCalls(FIB) + 1) / 2 * 3,
  },
  {
    name: "walk",
    code: `
      mov edi, ${WALK_ROUNDS}
    .round:
      mov esi, 0x400000
      mov ecx, ${WALK_WORDS}
    .word:
      add eax, [esi]
      add esi, 4
      dec ecx
      jnz .word
      dec edi
      jnz .round`,
    instructions: WALK_ROUNDS * WALK_WORDS * 4,
  },
];

const LOAD = 0x100000;

/** A multiboot image that prints S, runs the code, prints D and halts. */
function image(code: string): Uint8Array {
  const magic = 0x1badb002, flags = 0x10000;
  const { bytes } = assemble(
    `
    header:
      dd ${magic}, ${flags}, ${(2 ** 32 - magic - flags) >>> 0}
      dd header, ${LOAD}, 0, 0, entry
    entry:
      mov esp, 0x200000
      mov al, 'S'
      call print
      xor eax, eax
      ${code}
      mov al, 'D'
      call print
    halt:
      cli
      hlt
      jmp halt
    print:
      mov dx, 0x3f8
      out dx, al
      ret
    fib:
      cmp eax, 2
      jb .leaf
      push eax
      sub eax, 1
      call fib
      pop edx
      push eax
      lea eax, [edx - 2]
      call fib
      pop edx
      add eax, edx
    .leaf:
      ret
    `,
    { origin: LOAD, mode: 32 },
  );
  return bytes;
}

/** One loop on one machine: millions of guest instructions a second of CPU time. */
export interface LoopResult {
  readonly loop: string;
  readonly machine: string;
  readonly runs: number;
  readonly mips: number;
}

export async function loops(machines: readonly Machine[], runs: number): Promise<LoopResult[]> {
  const results: LoopResult[] = [];
  const kernel = await Deno.makeTempFile({ prefix: "xvm-loop-" });
  try {
    for (const loop of LOOPS) {
      await Deno.writeFile(kernel, image(loop.code));
      for (const machine of machines) {
        const command = machine.command({ kernel, memory: 16 }, "D");
        if (!command) continue;
        const seconds: number[] = [];
        for (let run = 0; run < runs; run++) {
          const { marks } = await measure({ command, marks: ["S", "SD"], timeout: 120 });
          seconds.push(marks[1].cpu - marks[0].cpu);
        }
        const mips = loop.instructions / median(seconds) / 1e6;
        results.push({ loop: loop.name, machine: machine.name, runs, mips });
      }
    }
  } finally {
    await Deno.remove(kernel);
  }
  return results;
}

/** Loops down, machines across. */
export function showLoops(results: readonly LoopResult[]): string {
  const machines = [...new Set(results.map((r) => r.machine))];
  const names = [...new Set(results.map((r) => r.loop))];
  const cell = (loop: string, machine: string) => {
    const found = results.find((r) => r.loop === loop && r.machine === machine);
    return found ? figure(found.mips) : "";
  };
  return table([
    ["loop, MIPS", ...machines],
    ...names.map((name) => [name, ...machines.map((machine) => cell(name, machine))]),
  ]);
}

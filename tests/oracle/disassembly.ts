/**
 * The disassembler against objdump, exhaustively over prefixes, opcodes and ModRM:
 *
 *     deno run -A tests/oracle/disassembly.ts [--mode 16,32,64] [--sample N] [--show N]
 *
 * `--sample N` takes every Nth sequence. Exit status: 0 no difference, 1 differences, 2 no objdump.
 */
import type { Mode } from "./state.ts";
import { compareAll, type Disassemble, type DisassemblySummary, type Mismatch } from "./objdump.ts";
import { normalize, unavailable } from "./objdump.ts";
import { disassemble as product } from "../../src/machine/isa/disassemble.ts";

/** The product's disassembler behind the oracle's interface. */
export const subject: Disassemble = (bytes, mode, address) =>
  product(bytes, 0, mode, BigInt(address));

/** Prefixes in front of each opcode, one set after the other. */
const PREFIX_SETS: Record<Mode, number[][]> = {
  16: [[], [0x66], [0x67], [0x66, 0x67], [0xf2], [0xf3], [0xf0], [0x2e], [0x64], [0x66, 0xf2]],
  32: [[], [0x66], [0x67], [0x66, 0x67], [0xf2], [0xf3], [0xf0], [0x2e], [0x64], [0x66, 0xf3]],
  64: [
    [],
    [0x66],
    [0x67],
    [0xf2],
    [0xf3],
    [0xf0],
    [0x65],
    [0x48],
    [0x44],
    [0x42],
    [0x41],
    [0x4f],
    [
      0x66,
      0x48,
    ],
    [0x66, 0x41],
    [0xf2, 0x48],
    [0xf3, 0x48],
  ],
};

/** Displacement and immediate: distinct bytes, so that a wrong order shows. */
const TAIL = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf1];

const IS_PREFIX = new Set([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3]);

/** Every opcode of both maps with every ModRM byte, SIB bytes for two opcodes, under each prefix set. */
export function* exhaustive(mode: Mode): Generator<Uint8Array> {
  for (const prefixes of PREFIX_SETS[mode]) {
    for (let opcode = 0; opcode < 256; opcode++) {
      if (opcode === 0x0f || IS_PREFIX.has(opcode)) continue;
      if (mode === 64 && (opcode & 0xf0) === 0x40) continue;
      yield* everyModrm([...prefixes, opcode], opcode === 0x8b);
    }
    for (let opcode = 0; opcode < 256; opcode++) {
      yield* everyModrm([...prefixes, 0x0f, opcode], opcode === 0xaf);
    }
  }
}

function* everyModrm(head: number[], everySib: boolean): Generator<Uint8Array> {
  for (let modrm = 0; modrm < 256; modrm++) {
    const sib = (modrm & 7) === 4 && modrm < 0xc0;
    for (let s = 0; s < (sib && everySib ? 256 : 1); s++) {
      yield Uint8Array.from(
        sib ? [...head, modrm, everySib ? s : 0x8d, ...TAIL] : [...head, modrm, ...TAIL],
      );
    }
  }
}

/** One reason for which objdump and the product may differ. */
export interface Allowed {
  id: string;
  hits: number;
  applies: (m: Mismatch) => boolean;
}

/**
 * The closed list of allowed differences: first, that the product's processors do not have what
 * objdump 2.40 knows beyond them.
 */
export function allowedDifferences(): Allowed[] {
  return [
    {
      id: "VEX, EVEX, XOP: not on our processors",
      hits: 0,
      applies: ({ bytes, mode, actual }) => {
        const [opcode, next] = afterPrefixes(bytes);
        const vector = opcode === 0xc4 || opcode === 0xc5 || opcode === 0x62;
        return vector && (mode === 64 || next >= 0xc0) && bad(actual.text) ||
          opcode === 0x8f && (next & 0x38) !== 0 && bad(actual.text);
      },
    },
    {
      id: "three-byte maps 0F 38 and 0F 3A, and 3DNow! 0F 0F: not on our processors",
      hits: 0,
      applies: ({ bytes, actual }) => {
        const [opcode, next] = afterPrefixes(bytes);
        return opcode === 0x0f && [0x38, 0x3a, 0x0f].includes(next) && bad(actual.text);
      },
    },
  ];
}

function bad(text: string): boolean {
  return text.includes("(bad)");
}

/** Opcode byte and the byte behind it. */
function afterPrefixes(bytes: Uint8Array): [number, number] {
  let at = 0;
  while (IS_PREFIX.has(bytes[at])) at++;
  return [bytes[at], bytes[at + 1]];
}

/** Runs the comparison and prints the differences in groups. */
export async function runExhaustive(
  mode: Mode,
  sample: number,
  show: number,
  disassemble: Disassemble = subject,
): Promise<DisassemblySummary> {
  const allowed = allowedDifferences(), groups = new Map<string, number>();
  let shown = 0;
  const summary = await compareAll(disassemble, mode, everyNth(exhaustive(mode), sample), (m) => {
    const rule = allowed.find((a) => a.applies(m));
    if (rule) return ++rule.hits > 0;
    const word = (text: string) => normalize(text).split(" ")[0];
    const key = `${word(m.expected?.text ?? "nothing")} / ${word(m.actual.text)}`;
    groups.set(key, (groups.get(key) ?? 0) + 1);
    const first = groups.get(key)! <= 2;
    if (first && shown++ < show) console.log(mismatchText(m));
    return false;
  });
  const largest = [...groups].sort((a, b) => b[1] - a[1]).slice(0, 40);
  for (const [key, count] of largest) console.log(String(count).padStart(8), key);
  for (const a of allowed) if (a.hits) console.log(String(a.hits).padStart(8), "allowed:", a.id);
  return summary;
}

function* everyNth<T>(items: Iterable<T>, n: number): Generator<T> {
  let i = 0;
  for (const item of items) if (i++ % n === 0) yield item;
}

/** A mismatch in one line. */
export function mismatchText(m: Mismatch): string {
  const line = (l: { length: number; text: string } | undefined) =>
    l ? `"${normalize(l.text)}" (${l.length})` : "nothing";
  return `${m.mode}-bit ${m.bytes.toHex()}: objdump ${line(m.expected)}, ours ${line(m.actual)}`;
}

if (import.meta.main) {
  const option = (name: string, otherwise: string) => {
    const at = Deno.args.indexOf(name);
    return at < 0 ? otherwise : Deno.args[at + 1];
  };
  const reason = unavailable();
  if (reason) {
    console.error(reason);
    Deno.exit(2);
  }
  for (const mode of option("--mode", "16,32,64").split(",").map(Number) as Mode[]) {
    const s = await runExhaustive(
      mode,
      Number(option("--sample", "1")),
      Number(option("--show", "40")),
    );
    console.log(
      `${mode}-bit: ${s.sequences} sequences, ${s.mismatches} differ, ${s.seconds.toFixed(1)} s`,
    );
    if (s.mismatches) Deno.exitCode = 1;
  }
}

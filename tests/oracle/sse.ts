/**
 * The host's processor against SSE to SSE4.2: what `run.ts --kinds sse` covers, SSE3 and the maps
 * 0F 38 and 0F 3A.
 *
 *     deno run -A tests/oracle/sse.ts [--count N] [--seed S] [--mode 32,64] [--maps 0f,0f38,0f3a]
 *         [--opcodes HEX,...] [--show N] [--case SEED:INDEX]
 *
 * `run.ts --mix` runs these among all the others, by {@linkcode mixed}.
 *
 * Exit status: 0 no difference, 1 differences.
 */
import { type Failure, run } from "./campaign.ts";
import { report } from "./compare.ts";
import { hitReport } from "./exceptions.ts";
import { generate } from "./generate.ts";
import { Oracle } from "./host.ts";
import { disassembleOne } from "./objdump.ts";
import { detected, splitsLock } from "./split_lock.ts";
import { KINDS, type Rule } from "./opcodes.ts";
import { type Case, FX, type Mode } from "./state.ts";
import { openSubject } from "./subject.ts";

/** Third opcode bytes of a map, by mandatory prefix. */
type Row = readonly [prefix: number, opcodes: readonly number[]];
const span = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, i) => from + i);

const MAPS: Record<string, { second: number; rows: readonly Row[] }> = {
  "0f38": {
    second: 0x138,
    rows: [
      [0x66, [...span(0x00, 0x0b), 0x10, 0x14, 0x15, 0x17, 0x1c, 0x1d, 0x1e]],
      [0x66, [...span(0x20, 0x25), ...span(0x28, 0x2b), ...span(0x30, 0x35)]],
      [0x66, span(0x37, 0x41)],
      [0, [...span(0x00, 0x0b), 0x1c, 0x1d, 0x1e]],
    ],
  },
  "0f3a": {
    second: 0x13a,
    rows: [
      [0x66, [...span(0x08, 0x0f), ...span(0x14, 0x17), 0x20, 0x21, 0x22]],
      [0x66, [0x40, 0x41, 0x42, 0x08, 0x09, 0x0a, 0x0b]],
      [0x66, [0x60, 0x61, 0x62, 0x63]],
      [0, [0x0f]],
    ],
  },
};
/** SSE3 in the 0F map, and two SSE2 shifts the common rules lack. */
const SSE3: readonly Rule[] = [
  [0x112, 0xf2],
  [0x112, 0xf3],
  [0x116, 0xf3],
  [0x17c, 0x66],
  [0x17c, 0xf2],
  [0x17d, 0x66],
  [0x17d, 0xf2],
  [0x1d0, 0x66],
  [0x1d0, 0xf2],
  [0x1f0, 0xf2],
].map(([opcode, prefix]): Rule => ({ opcode, prefix, modrm: "any", vector: true })).concat(
  { opcode: 0x171, span: 2, prefix: 0x66, modrm: "reg", reg: [2, 4, 6], vector: true },
  { opcode: 0x173, prefix: 0x66, modrm: "reg", reg: [2, 3, 6, 7], vector: true },
);

/** Which cases to make. */
export interface Options {
  count: number;
  seed: number;
  modes: Mode[];
  maps: string[];
  opcodes?: number[];
  show: number;
  only?: number;
}

function parse(args: string[]): Options {
  const o: Options = {
    count: 50_000,
    seed: 1,
    modes: [32, 64],
    maps: SSE_MAPS,
    show: 5,
  };
  const set: Record<string, (v: string) => void> = {
    "--count": (v) => o.count = Number(v),
    "--seed": (v) => o.seed = Number(v),
    "--mode": (v) => o.modes = v.split(",").map(Number) as Mode[],
    "--maps": (v) => o.maps = v.split(","),
    "--opcodes": (v) => o.opcodes = v.split(",").map((x) => parseInt(x, 16)),
    "--show": (v) => o.show = Number(v),
    "--case": (v) => [o.seed, o.only] = v.split(":").map(Number),
  };
  for (let i = 0; i < args.length; i += 2) {
    const option = set[args[i]];
    if (!option || args[i + 1] === undefined) throw new Error(`bad option ${args[i]}`);
    option(args[i + 1]);
  }
  return o;
}

/** The maps by name. */
export const SSE_MAPS = ["0f", ...Object.keys(MAPS)];

/** Cases of a map: the generator's, with a third opcode byte put in. */
export function* cases(o: Options, map: string, mode: Mode): Generator<Case> {
  const from = o.only ?? 0, to = o.only === undefined ? o.count : o.only + 1;
  for (let index = from; index < to; index++) yield sseCase(o, map, mode, index, index);
}

/** The case of a number, with rule `turn` of those of the map where they are taken in turns. */
function sseCase(
  o: Pick<Options, "seed" | "opcodes">,
  map: string,
  mode: Mode,
  index: number,
  turn: number,
): Case {
  const rules = KINDS as Record<string, readonly Rule[]>, plain = rules.sse;
  const three = MAPS[map] && thirdBytes(map, o.opcodes);
  const pick = three?.[turn % three.length];
  rules.sse = pick ? [pick.rule] : twoByteRules(plain, o.opcodes);
  const test = generate({ seed: o.seed, mode, kinds: ["sse"] }, index);
  rules.sse = plain;
  // MXCSR as programs have it, where Wasm's own float may stand in.
  if (turn % 3 === 0) new DataView(test.state.fx.buffer).setUint32(FX.mxcsr, 0x1fa0, true);
  return pick ? withByte(test, pick.rule, pick.byte) : test;
}

function thirdBytes(map: string, opcodes?: readonly number[]): { rule: Rule; byte: number }[] {
  const { rows, second } = MAPS[map];
  return rows.flatMap(([prefix, bytes]) =>
    bytes.filter((b) => !opcodes || opcodes.includes(b)).map((byte) => ({
      rule: { opcode: second, prefix, modrm: "any", vector: true },
      byte,
    }))
  );
}

function twoByteRules(plain: readonly Rule[], opcodes?: readonly number[]): Rule[] {
  return [...plain, ...SSE3, ...SSE3].filter((r) =>
    !opcodes ||
    opcodes.some((b) => b >= (r.opcode & 0xff) && b < (r.opcode & 0xff) + (r.span ?? 1))
  );
}

/** What the mix takes in turns: a map of SSE, or the kinds that are not SSE. */
const MIX = ["plain", "0f", "plain", "0f38", "plain", "0f", "plain", "0f3a"];

/**
 * Cases `from` to `from + count - 1` of the mix: half integer, system, x87 and MMX code, half SSE to
 * SSE4.2; less those that stop this host's stub.
 */
export function* mixed(seed: number, mode: Mode, from: number, count: number): Generator<Case> {
  for (let index = from; index < from + count; index++) {
    const map = MIX[index % MIX.length], turn = Math.floor(index / MIX.length);
    const test = map === "plain"
      ? generate({ seed, mode }, index)
      : sseCase({ seed }, map, mode, index, turn);
    if (!detected || !splitsLock(test)) yield test;
  }
}

function withByte(test: Case, rule: Rule, byte: number): Case {
  const b = test.bytes, second = rule.opcode & 0xff;
  const at = b.findIndex((x, i) => x === 0x0f && b[i + 1] === second) + 2;
  const bytes = Uint8Array.from([...b.subarray(0, at), byte, ...b.subarray(at)]).slice(0, 15);
  // Lengths of strings near what counts.
  if (second === 0x3a && byte >= 0x60) {
    for (const n of [0, 2]) {
      if (test.state.gpr[n] & 1n) test.state.gpr[n] = (test.state.gpr[n] >> 8n) % 20n;
    }
  }
  return { ...test, bytes };
}

async function main(args: string[]): Promise<number> {
  const o = parse(args);
  using oracle = Oracle.open();
  const subject = await openSubject({ cpu: oracle.vendor });
  let failed = 0;
  for (const mode of o.modes) {
    for (const map of o.maps) {
      let shown = 0;
      const onDifference = ({ test, differences }: Failure) => {
        if (shown++ >= o.show) return;
        console.log(report(test, differences, disassembleOne(test.bytes, test.mode)));
        const fx = test.state.fx, mxcsr = new DataView(fx.buffer).getUint32(FX.mxcsr, true);
        console.log(`  mxcsr was ${mxcsr.toString(16)}\n`);
      };
      const s = run({ subject, oracle, cases: cases(o, map, mode), onDifference });
      for (const [key, n] of [...s.groups].sort((a, b) => b[1] - a[1]).slice(0, 60)) {
        console.log(String(n).padStart(9), key);
      }
      console.log(
        `${mode}-bit ${map}: ${s.cases} cases (${s.faulted} with an exception), ${s.failed} differ; ` +
          `${s.seconds.toFixed(1)} s\n${hitReport(s.allowed)}`,
      );
      failed += s.failed;
    }
  }
  subject.close?.();
  return failed ? 1 : 0;
}

if (import.meta.main) Deno.exitCode = await main(Deno.args);

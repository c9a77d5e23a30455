/**
 * The oracle's command line:
 *
 *     deno run -A tests/oracle/run.ts [--count N] [--seed S] [--from N] [--mode 16,32,64]
 *         [--kinds integer,system,x87,mmx,sse] [--mix] [--stop-after N] [--show N]
 *         [--save FILE] [--from-file FILE] [--case SEED:INDEX] [--host-only]
 *
 * `--mix` takes all kinds and SSE3 to SSE4.2, every other case SSE, with MXCSR compared:
 *
 *     deno run -A tests/oracle/run.ts --mode 64 --mix --count 2000000 --seed 2026
 *
 * Exit status: 0 no difference, 1 differences, 2 bad arguments or no oracle.
 * `--save` appends the differing cases to a file that `--from-file` reads again; `--host-only`
 * prints what the host's processor does, without a subject.
 */
import type { Case, Mode, Subject } from "./state.ts";
import { Oracle } from "./host.ts";
import { type Failure, generated, run, type Summary } from "./campaign.ts";
import { exceptionText, report } from "./compare.ts";
import { hitReport } from "./exceptions.ts";
import { caseFromText, casesFromText, caseToText } from "./cases.ts";
import { type Kind, KINDS } from "./opcodes.ts";
import { disassembleOne } from "./objdump.ts";
import { mixed } from "./sse.ts";

interface Options {
  count: number;
  seed: number;
  from: number;
  modes: Mode[];
  kinds?: Kind[];
  mix: boolean;
  stopAfter: number;
  show: number;
  save?: string;
  file?: string;
  test?: string;
  hostOnly: boolean;
}

function parse(args: string[]): Options {
  const o: Options = {
    count: 100_000,
    seed: 1,
    from: 0,
    modes: [32],
    mix: false,
    stopAfter: Infinity,
    show: 10,
    hostOnly: false,
  };
  for (let i = 0; i < args.length; i++) {
    if (args[i] === "--host-only") o.hostOnly = true;
    else if (args[i] === "--mix") o.mix = true;
    else option(o, args[i], args[++i]);
  }
  if (o.mix && o.kinds) throw new Error("--mix has all kinds: --kinds does not go with it");
  return o;
}

function option(o: Options, name: string, value: string | undefined): void {
  if (value === undefined) throw new Error(`${name} needs a value`);
  const number = () => {
    if (!/^\d+$/.test(value)) throw new Error(`${name}: "${value}" is not a number`);
    return Number(value);
  };
  const list = <T>(known: readonly T[]) =>
    value.split(",").map((text) =>
      known.find((k) => String(k) === text) ??
        fail(`${name}: "${text}" is not one of ${known.join(", ")}`)
    );
  const set: Record<string, () => void> = {
    "--count": () => o.count = number(),
    "--seed": () => o.seed = number(),
    "--from": () => o.from = number(),
    "--mode": () => o.modes = list<Mode>([16, 32, 64]),
    "--kinds": () => o.kinds = list(Object.keys(KINDS) as Kind[]),
    "--stop-after": () => o.stopAfter = number(),
    "--show": () => o.show = number(),
    "--save": () => o.save = value,
    "--from-file": () => o.file = value,
    "--case": () => o.test = value,
  };
  (set[name] ?? (() => fail(`unknown option ${name}`)))();
}

function fail(message: string): never {
  throw new Error(message);
}

function* chosen(o: Options): Generator<Case> {
  if (o.file !== undefined) {
    yield* casesFromText(Deno.readTextFileSync(o.file));
    return;
  }
  const one = /^(\d+):(\d+)$/.exec(o.test ?? "");
  if (o.test !== undefined && !one) fail(`--case: "${o.test}" is not SEED:INDEX`);
  for (const mode of o.modes) {
    const [seed, from, count] = one
      ? [Number(one[1]), Number(one[2]), 1]
      : [o.seed, o.from, o.count];
    if (o.mix) yield* mixed(seed, mode, from, count);
    else yield* generated(seed, mode, from, count, o.kinds);
  }
}

function printHost(o: Options, oracle: Oracle): void {
  for (const test of chosen(o)) {
    const result = oracle.run(test);
    console.log(report(test, [], disassembleOne(test.bytes, test.mode)));
    console.log("  =>", exceptionText(result.exception), result);
  }
}

function printFailure(o: Options, shown: number, failure: Failure): void {
  if (o.save !== undefined) {
    const line = caseToText(failure.test) + "\n";
    Deno.writeTextFileSync(o.save, line, { append: true });
    caseFromText(line); // it can be read again
  }
  if (shown >= o.show) return;
  const { test, differences } = failure;
  console.log(report(test, differences, disassembleOne(test.bytes, test.mode)) + "\n");
}

function printSummary(s: Summary): void {
  const groups = [...s.groups].sort((a, b) => b[1] - a[1]).slice(0, 60);
  for (const [key, count] of groups) console.log(String(count).padStart(9), key);
  const rate = Math.round(s.cases / s.seconds).toLocaleString("en");
  console.log(`allowed differences, by hits:\n${hitReport(s.allowed)}`);
  console.log(
    `${s.cases} cases (${s.faulted} with an exception), ${s.failed} differ; ` +
      `${s.seconds.toFixed(1)} s, ${rate} a second`,
  );
}

async function main(args: string[]): Promise<number> {
  const o = parse(args);
  using oracle = Oracle.open();
  if (o.hostOnly) {
    printHost(o, oracle);
    return 0;
  }
  const { openSubject } = await import("./subject.ts");
  const subject: Subject = await openSubject({ cpu: oracle.vendor });
  o.modes = o.modes.filter((m) => subject.modes.includes(m));
  let shown = 0;
  const summary = run({
    subject,
    oracle,
    cases: chosen(o),
    stopAfter: o.stopAfter,
    onDifference: (failure) => printFailure(o, shown++, failure),
  });
  subject.close?.();
  printSummary(summary);
  return summary.failed ? 1 : 0;
}

if (import.meta.main) {
  try {
    Deno.exitCode = await main(Deno.args);
  } catch (error) {
    console.error(`oracle: ${(error as Error).message}`);
    Deno.exitCode = 2;
  }
}

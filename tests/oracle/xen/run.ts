/**
 * The oracle of the Xen platform: the same programs of hypercalls on Debian's Xen and on xvm.
 *
 *     deno task xen-oracle                       recorded answers against xvm
 *     deno task xen-oracle --fetch               Debian's Xen and a domain 0 for it, once
 *     deno task xen-oracle --fresh --seed 100    new programs, on Xen under QEMU and on xvm
 *     deno task xen-oracle --record              what tests compare with, anew
 *
 * `--only WORD,..` chooses families, `--calls N` is how long a program is, `--seeds N` how many there are
 * of each family and width, `--table FILE` writes each call's answers, `--serial FILE` all that Xen and domain 0 print.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { compare, type Difference, pack, type Recorded, unpack, words } from "./answers.ts";
import { explanation } from "./explained.ts";
import { FAMILY_NAMES, generate } from "./generate.ts";
import { fetchXen, xenVersions } from "./packages.ts";
import { runOnXen } from "./qemu.ts";
import { record, recorded } from "./recorded.ts";
import { type Place, runOnXvm } from "./subject.ts";
import { Table } from "./table.ts";
import type { Program } from "./writer.ts";

const USUAL = { calls: 200, seeds: 3, seed: 1 };

/** All programs of the chosen families. */
function programs(only: readonly string[], seed: number, seeds: number, calls: number): Program[] {
  return FAMILY_NAMES.filter((name) => only.length === 0 || only.includes(name)).flatMap((family) =>
    Array.from({ length: seeds }, (_, i) => seed + i).flatMap((n) =>
      ([32, 64] as const).map((width) => generate(family, width, n, calls))
    )
  );
}

async function onXen(list: readonly Program[], calls: number, serial?: string): Promise<Recorded> {
  const versions = await xenVersions();
  if (!versions) throw new Error("Debian's Xen is not there: run deno task xen-oracle --fetch");
  const runs = await runOnXen(list, (line) => console.log(line), serial);
  const answers = list.flatMap((program) => {
    const run = runs.get(program.name);
    if (!run) return [];
    const { ending } = run;
    return [[program.name, { ending, answers: pack(program, words(program, run)) }] as const];
  });
  return {
    xen: versions["xen-hypervisor-4.17-amd64"],
    calls,
    programs: Object.fromEntries(answers),
  };
}

/** Differences by what they are: how many, and the first. */
function report(differences: readonly Difference[]): void {
  const kinds = Map.groupBy(
    differences,
    ({ label }) => `${label.call} | ${label.kind} | ${label.what}`,
  );
  for (const [kind, all] of kinds) {
    const [{ program, label, xen, xvm }] = all;
    console.log(
      `${kind}: ${all.length}, first in ${program} step ${label.step}\n  xen ${xen}\n  xvm ${xvm}`,
    );
  }
}

async function main(): Promise<number> {
  const args = parseArgs(Deno.args, {
    string: ["only", "seed", "seeds", "calls", "cpu", "paging", "table", "serial"],
    boolean: ["fetch", "record", "fresh"],
    unknown: (name) => {
      throw new Error(`unknown option ${name}; see the head of tests/oracle/xen/run.ts`);
    },
  });
  if (args.fetch) {
    console.log(await fetchXen((line) => console.log(line)));
    return 0;
  }
  const only = args.only?.split(",") ?? [];
  const number = (name: keyof typeof USUAL) => Number(args[name] ?? USUAL[name]);
  let from: Recorded;
  if (args.record || args.fresh) {
    const calls = number("calls");
    from = await onXen(programs(only, number("seed"), number("seeds"), calls), calls, args.serial);
    if (args.record) {
      // Of chosen families alone: the others stay as they were recorded.
      if (only.length > 0) {
        from = { ...from, programs: { ...(await recorded()).programs, ...from.programs } };
      }
      await record(from);
    }
  } else from = await recorded();
  const place: Place = {
    cpu: args.cpu === "intel" ? "intel" : "amd",
    paging: args.paging === "shadow" ? "shadow" : "hap",
  };
  const differences: Difference[] = [], table = new Table();
  let calls = 0;
  for (const [name, { ending, answers }] of Object.entries(from.programs)) {
    const [family, seed, width] = name.split("-");
    if (only.length > 0 && !only.includes(family)) continue;
    const program = generate(family, Number(width) as 32 | 64, Number(seed), from.calls);
    const xen = unpack(program, answers), run = await runOnXvm(program, place);
    table.add(program, xen);
    calls += program.labels.filter(({ what }) => what === "result").length;
    const found = compare(program, xen, words(program, run)).filter((d) => !explanation(d));
    differences.push(...found);
    console.log(
      `${name}: ${program.labels.length} answers, ${found.length} differ; ${ending} / ${run.ending}`,
    );
  }
  report(differences);
  if (args.table) await Deno.writeTextFile(args.table, table.text());
  console.log(`${calls} calls, ${differences.length} answers differ without a reason`);
  return differences.length > 0 ? 1 : 0;
}

if (import.meta.main) Deno.exit(await main());

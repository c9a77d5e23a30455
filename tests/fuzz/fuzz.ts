/**
 * Random bytes as guest code: they may fault, halt or shut the guest down, and nothing more. A
 * campaign is a row of episodes; each has a seed of its own and can be run alone. The seed of the
 * running one is kept in a file, in case it never ends:
 *
 *     deno run -A tests/fuzz/fuzz.ts MODE bare|hvm INSTRUCTIONS [SEED [EPISODE [CPU [PAGING]]]]
 *
 * @module
 */
import { randomCode } from "./code.ts";
import { initialState, type Mode, MODES, pagingOf } from "./modes.ts";
import { Random } from "./random.ts";
import { GUEST_MEMORY, Subject, type SubjectType } from "./subject.ts";
import {
  AT,
  descriptorTables,
  interruptTable,
  pageTables,
  realVectors,
  taskStates,
} from "./tables.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";

export interface Campaign {
  readonly mode: Mode;
  readonly type: SubjectType;
  readonly cpu?: CpuModel;
  readonly paging?: "hap" | "shadow";
  /** Instructions to retire in all. */
  readonly instructions: number;
  readonly seed: number;
  /** Instructions an episode may last; 3000 if not given. */
  readonly episode?: number;
  /** Told before each episode. */
  readonly progress?: (episode: number) => void;
}

export interface CampaignResult {
  readonly instructions: number;
  readonly episodes: number;
  /** How episodes ended. */
  readonly ends: Readonly<Record<string, number>>;
  /** What should never be: exceptions of ours, damage. */
  readonly findings: readonly string[];
}

const EPISODE = 3000;
/** Episodes between two looks at what must not change. */
const INSPECTION = 100;
const MAX_FINDINGS = 10;

/** Runs episodes until the instructions are used up. */
export async function campaign(options: Campaign): Promise<CampaignResult> {
  const { mode, type, instructions, seed, progress } = options;
  const ends: Record<string, number> = {}, findings: string[] = [];
  let subject: Subject | undefined, done = 0, episode = 0, idle = 0;
  for (; done < instructions && findings.length < MAX_FINDINGS; episode++) {
    progress?.(episode);
    const r = new Random(seed * 1_000_003 + episode);
    const fresh = subject === undefined;
    subject ??= await Subject.make(type, seed, options.cpu, options.paging);
    const before = subject.count;
    let end: string;
    try {
      prepare(subject, r, mode, fresh || episode % 64 === 0);
      end = subject.run(Math.min(options.episode ?? EPISODE, instructions - done));
      if (end.startsWith("the guest cannot be entered")) {
        findings.push(`episode ${episode}: ${end}; ${subject.describe()}`);
      }
    } catch (error) {
      end = "error";
      findings.push(`episode ${episode}: ${(error as Error).stack}; ${subject.describe()}`);
    }
    const ran = subject.count - before;
    done += ran;
    idle = ran ? 0 : idle + 1;
    if (idle > 1000) findings.push(`episode ${episode}: a thousand episodes ran no instruction`);
    const kind = end.split(":")[0];
    ends[kind] = (ends[kind] ?? 0) + 1;
    if (end === "error" || subject.spent || episode % INSPECTION === 0 || done >= instructions) {
      const damage = subject.damage();
      if (damage) findings.push(`before episode ${episode + 1}: ${damage}`);
      if (damage || end === "error" || subject.spent) subject = undefined;
    }
  }
  return { instructions: done, episodes: episode, ends, findings };
}

/** New code, tables and registers; `all`: in the whole of memory. */
function prepare(subject: Subject, r: Random, mode: Mode, all: boolean): void {
  const flavour = r.chance(0.3) ? "raw" : "system";
  const long = mode === "long64";
  const paging = pagingOf(r, mode);
  if (all) {
    subject.write(AT.code, randomCode(r, AT.codeEnd - AT.code, flavour));
    subject.write(AT.high, randomCode(r, GUEST_MEMORY - AT.high, flavour));
  }
  if (all || r.chance(0.25)) {
    subject.write(AT.gdt, descriptorTables(r));
    subject.write(AT.idt, interruptTable(r, long));
    subject.write(AT.tss, taskStates(r));
    subject.write(0, realVectors(r));
  }
  if (paging !== "none") subject.write(AT.pages, pageTables(r, paging));
  const state = initialState(r, mode, paging);
  const at = Number((state.segments.cs.base + state.rip) & 0xffff_ffffn);
  subject.write(at, randomCode(r, Math.min(0x400, GUEST_MEMORY - at), flavour));
  subject.enter(state);
  // For the next MOV to CR3 or CR0; the ones in use had to be valid.
  if (paging === "pae" && r.chance(0.3)) subject.write(AT.pages + 8 * r.below(4), r.bytes(8));
  if (r.chance(0.05)) subject.nmi();
}

if (import.meta.main) {
  const [mode, type, instructions, seed = "1", length = "3000", cpu, paging] = Deno.args;
  if (!MODES.includes(mode as Mode) || (type !== "bare" && type !== "hvm")) {
    console.error(
      `fuzz.ts: ${
        MODES.join("|")
      } bare|hvm INSTRUCTIONS [SEED [EPISODE [CPU [PAGING]]]] was expected`,
    );
    Deno.exit(2);
  }
  const file = Deno.makeTempFileSync({ prefix: "xvm-fuzz-" });
  console.error(`the running episode is in ${file}`);
  const started = performance.now();
  const result = await campaign({
    mode: mode as Mode,
    type,
    instructions: Number(instructions),
    seed: Number(seed),
    episode: Number(length),
    cpu: cpu as CpuModel | undefined,
    paging: paging as "hap" | "shadow" | undefined,
    progress: (episode) => {
      if (episode % 64 === 0) Deno.writeTextFileSync(file, String(episode));
    },
  });
  console.log(result, `${((performance.now() - started) / 1000).toFixed(1)} s`);
  if (result.findings.length) Deno.exit(1);
  Deno.removeSync(file);
}

/**
 * Runs hostile guests in the real program, and measures what the host has of it: the memory of the
 * process beyond the guest's, and how long it takes to act on its timeout and on ctrl-C.
 *
 * `deno task hostile [--seconds 60] [--only WORDS] [--where WORDS]` prints a table, and exits 1 when a
 * bound is broken.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { guests } from "./guests.ts";

/** Where a guest runs. */
export const PLACES = {
  "bare": ["--type", "bare", "--cpu", "intel"],
  "intel, hap": ["--type", "hvm", "--cpu", "intel"],
  "amd, shadow": ["--type", "hvm", "--cpu", "amd", "--paging", "shadow"],
  "intel, shadow": ["--type", "hvm", "--cpu", "intel", "--paging", "shadow"],
} as const;
export type Place = keyof typeof PLACES;

const GUEST_MEMORY = 16;
/** MiB beyond the guest's own memory. */
export const MOST_MEMORY = 300;
/** Milliseconds from the signal to the answer, of which the program's own way out takes some. */
const SLOW: ReadonlySet<string> = new Set(["self-modifying code in real mode"]);
export const mostDelay = (guest: string): number => SLOW.has(guest) ? 250 : 100;

const root = new URL("../../", import.meta.url).pathname;
/** The program as the task starts it, from any folder. */
const { tasks } = JSON.parse(Deno.readTextFileSync(`${root}deno.json`));
const [, ...DENO]: string[] = tasks.xvm.command.replace("repl/main.ts", `${root}repl/main.ts`)
  .split(" ");

/** What came of one guest in one place. */
export interface Result {
  /** Most resident memory, less the guest's own (MiB). */
  readonly memory: number;
  /** From the moment that was asked for to the end of the process, or to its word (ms). */
  readonly delay: number;
  readonly outcome: string;
}

/** The most resident memory of a process (MiB); 0 when it is gone. */
function peak(pid: number): number {
  try {
    const [, kib] = Deno.readTextFileSync(`/proc/${pid}/status`).match(/VmHWM:\s+(\d+)/)!;
    return Number(kib) / 1024;
  } catch {
    return 0;
  }
}

/** Counts a stream's bytes, and keeps its end. */
async function drain(stream: ReadableStream<Uint8Array>, kept: { text: string; bytes: number }) {
  const decoder = new TextDecoder();
  for await (const bytes of stream) {
    kept.bytes += bytes.length;
    kept.text = (kept.text + decoder.decode(bytes, { stream: true })).slice(-4000);
  }
}

async function writeKernel(guest: string): Promise<string> {
  const file = await Deno.makeTempFile({ prefix: "xvm-hostile-" });
  await Deno.writeFile(file, guests[guest]());
  return file;
}

/** `xvm boot --timeout`: it has to end, by itself and in time. */
export async function timeout(guest: string, place: Place, seconds: number): Promise<Result> {
  const kernel = await writeKernel(guest);
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...DENO,
      "boot",
      ...["--kernel", kernel, "--memory", `${GUEST_MEMORY}M`, "--timeout", `${seconds}`],
      ...PLACES[place],
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).spawn();
  const out = { text: "", bytes: 0 }, errors = { text: "", bytes: 0 };
  const drained = Promise.all([drain(child.stdout, out), drain(child.stderr, errors)]);
  let memory = 0;
  const look = setInterval(() => memory = Math.max(memory, peak(child.pid)), 50);
  const started = performance.now();
  // One that does not end is not waited for.
  const last = setTimeout(() => child.kill("SIGKILL"), 1000 * seconds + 20_000);
  const { code, signal } = await child.status;
  clearInterval(look);
  clearTimeout(last);
  await drained;
  await Deno.remove(kernel);
  const said = errors.text.split("\n").find((line) => /xvm boot:|error/i.test(line)) ?? "";
  const passed = /seconds? passed/.test(said);
  // The program's own start and way out are measured by a guest that does nothing.
  const delay = performance.now() - started - 1000 * seconds;
  return {
    memory: memory - GUEST_MEMORY,
    delay: passed ? delay : NaN,
    outcome: signal ? `killed (${signal})` : passed ? "timeout" : `exit ${code}: ${said}`,
  };
}

const PROMPT = /xvm [a-z]+> $/;

/** The shell on a terminal, where `c` runs the guest: ctrl-C has to bring the prompt back. */
export async function interrupt(guest: string, place: Place, seconds: number): Promise<Result> {
  const kernel = await writeKernel(guest);
  const options = PLACES[place] as readonly string[];
  const value = (name: string) => options[options.indexOf(name) + 1];
  const command = [Deno.execPath(), ...DENO].map((part) => `'${part}'`).join(" ");
  const child = new Deno.Command("script", {
    args: ["-qfec", command, "/dev/null"],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
    env: { NO_COLOR: "1", TERM: "dumb", XVM_CACHE: await Deno.makeTempDir() },
  }).spawn();
  const out = { text: "", bytes: 0 };
  const drained = drain(child.stdout, out);
  const keys = child.stdin.getWriter();
  const type = (text: string) => keys.write(new TextEncoder().encode(text));
  // deno-lint-ignore no-control-regex
  const shown = () => out.text.replace(/\x1b\[[0-9;?]*[a-zA-Z]|\r/g, "");
  const until = async (wanted: RegExp, ms: number) => {
    for (const end = performance.now() + ms; performance.now() < end;) {
      if (wanted.test(shown())) return true;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    return false;
  };
  const paging = options.includes("--paging") ? value("--paging") : "hap";
  let delay = NaN, outcome = "no prompt", memory = 0;
  const look = setInterval(
    () => memory = Math.max(memory, ...descendants(child.pid).map(peak)),
    50,
  );
  if (await until(PROMPT, 30_000)) {
    await type(
      `hv = await Hypervisor.start({ cpu: "${value("--cpu")}", memory: "64M" }); ` +
        `dom = await hv.createDomain({ name: "bad", type: "${value("--type")}", ` +
        `${paging === "shadow" ? `paging: "shadow", ` : ""}` +
        `kernel: "${kernel}", memory: "${GUEST_MEMORY}M" })\r`,
    );
    outcome = "no domain";
    if (await until(/xvm bad> $/, 30_000)) {
      // The least of three: what the host's other work takes is not the program's.
      for (let round = 0; round < 3; round++) {
        await type("c\r");
        await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
        out.text = "";
        const asked = performance.now();
        await type("\x03");
        outcome = "no answer";
        if (!await until(/is paused|has ended/, 20_000)) break;
        const took = performance.now() - asked;
        delay = Number.isNaN(delay) ? took : Math.min(delay, took);
        outcome = /bad is paused/.test(shown()) ? "ctrl-C" : shown().slice(-200);
        if (outcome !== "ctrl-C" || !await until(/xvm bad> $/, 20_000)) break;
      }
    }
  }
  clearInterval(look);
  await keys.close().catch(() => {});
  for (const pid of descendants(child.pid)) {
    try {
      Deno.kill(pid, "SIGKILL");
    } catch { /* it has ended */ }
  }
  await child.status;
  await drained;
  await Deno.remove(kernel);
  return { memory: memory - GUEST_MEMORY, delay, outcome };
}

/** The processes that a process has started, and theirs. */
function descendants(pid: number): number[] {
  try {
    const children = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim();
    if (!children) return [];
    return children.split(" ").map(Number).flatMap((child) => [child, ...descendants(child)]);
  } catch {
    return [];
  }
}

/** What is wrong with a result; undefined: nothing. `base`: what a guest that does nothing takes. */
export function broken(guest: string, result: Result, base: number): string | undefined {
  const { memory, delay, outcome } = result;
  if (outcome !== "timeout" && outcome !== "ctrl-C") return outcome;
  if (memory > MOST_MEMORY) return `${Math.round(memory)} MiB`;
  if (!(delay - base <= mostDelay(guest))) return `${Math.round(delay - base)} ms`;
}

if (import.meta.main) {
  const args = parseArgs(Deno.args, {
    string: ["seconds", "only", "where", "ctrl-c"],
    default: { seconds: "60", only: "", where: "", "ctrl-c": "2" },
  });
  const named = (words: string) => (name: string) =>
    !words || words.split(",").some((w) => name.includes(w));
  const names = Object.keys(guests).filter(named(args.only ?? ""));
  const places = (Object.keys(PLACES) as Place[]).filter(
    args.where
      ? (place) => args.where!.split(";").some((w) => place.includes(w))
      : (place) => place !== "intel, shadow",
  );
  let failed = 0;
  const idle = await timeout("sleep with the timer masked", "bare", 1);
  console.log(`the program alone: ${Math.round(idle.delay)} ms, ${Math.round(idle.memory)} MiB`);
  const row = (...cells: string[]) =>
    console.log(
      cells.map((cell, i) => i < 2 ? cell.padEnd([44, 14][i]) : cell.padStart(10)).join(" "),
    );
  row("guest", "where", "MiB", "ms", "ctrl-C ms");
  for (const name of names) {
    for (
      const place of [
        ...places,
        ...(SLOW.has(name) && !args.where ? ["intel, shadow" as Place] : []),
      ]
    ) {
      const a = await timeout(name, place, Number(args.seconds));
      const b = await interrupt(name, place, Number(args["ctrl-c"]));
      const wrong = [broken(name, a, idle.delay), broken(name, b, 0)].filter((it) => it);
      if (wrong.length) failed++;
      row(
        name,
        place,
        `${Math.round(Math.max(a.memory, b.memory))}`,
        `${Math.round(a.delay - idle.delay)}`,
        `${Math.round(b.delay)}`,
        wrong.length ? `  WRONG: ${wrong.join("; ")}` : "  ok",
      );
    }
  }
  console.log(failed ? `${failed} broke a bound` : "every bound was kept");
  Deno.exit(failed ? 1 : 0);
}

/**
 * Mutates the sources, one mistake at a time, and demands that the test named for it fails: that the
 * tests see what they are said to see. The tree is copied to a temporary folder; nothing is changed
 * in place.
 *
 * `deno task mutations [--only WORDS] [--list]`; exit status 1 when a mutation survives.
 *
 * A mutation counts as caught when its test passes on the sources as they are, and on the mutated
 * ones the types are right, every module of the machine still builds, and that test fails.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { copy } from "@std/fs";
import { mutated, type Mutation } from "./mutations/mutation.ts";
import { MUTATIONS } from "./mutations/table.ts";
import { TypeCheck } from "./mutations/types.ts";

const PARTS = [
  "deno.json",
  "deno.lock",
  "mod.ts",
  "compat",
  "repl",
  "scripts",
  "src",
  "tests",
  "docs",
];
/** What no test may take, in seconds. */
const PATIENCE = 240;

const root = new URL("../", import.meta.url).pathname;

/** How a mutation fared. */
export type Verdict = "caught" | "survived" | "no such test" | "does not load" | "hangs";

interface Outcome {
  readonly passed: number;
  readonly failed: number;
  /** The module itself, or a WebAssembly module in it, could not be made. */
  readonly broken: boolean;
  readonly hung: boolean;
  readonly output: string;
}

/** A copy of the tree in which one file at a time is changed. */
class Copy {
  readonly folder = Deno.makeTempDirSync({ prefix: "xvm-mutations-" });
  #child: Deno.ChildProcess | undefined;
  readonly #passed = new Map<string, boolean>();
  readonly #types: TypeCheck;

  constructor(mutations: readonly Mutation[]) {
    const files = new Set(mutations.map((m) => `${this.folder}/${m.file}`));
    this.#types = new TypeCheck(this.folder, [...files]);
  }

  async fill(): Promise<void> {
    for (const part of PARTS) await copy(`${root}${part}`, `${this.folder}/${part}`);
  }

  dispose(): void {
    try {
      this.#child?.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
    Deno.removeSync(this.folder, { recursive: true });
  }

  async #run(args: readonly string[]): Promise<{ code: number; hung: boolean; output: string }> {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [...args],
      cwd: this.folder,
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const child = this.#child;
    let hung = false;
    const timer = setTimeout(() => {
      hung = true;
      child.kill("SIGKILL");
    }, PATIENCE * 1000);
    const { code, stdout, stderr } = await child.output();
    clearTimeout(timer);
    this.#child = undefined;
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, hung, output: text(stdout) + text(stderr) };
  }

  async #test([file, name]: Mutation["test"]): Promise<Outcome> {
    const exact = name.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
    const args = ["test", "-A", "--no-check", "--filter", `/^${exact}$/`, file];
    const { output, hung } = await this.#run(args);
    const count = (what: string) => Number(output.match(new RegExp(`(\\d+) ${what}`))?.[1] ?? 0);
    return {
      passed: count("passed"),
      failed: count("failed"),
      broken: /\(uncaught error\)|CompileError|LinkError|SyntaxError/.test(output),
      hung,
      output,
    };
  }

  /** Whether the test is there, and passes on the sources as they are. */
  async #passes(test: Mutation["test"]): Promise<boolean> {
    const key = test.join(": ");
    let passed = this.#passed.get(key);
    if (passed === undefined) {
      const { passed: yes, failed } = await this.#test(test);
      this.#passed.set(key, passed = yes > 0 && failed === 0);
    }
    return passed;
  }

  /** Applies a mutation, runs its test, and puts the file back. */
  async try(mutation: Mutation): Promise<{ verdict: Verdict; detail: string }> {
    if (!await this.#passes(mutation.test)) {
      return { verdict: "no such test", detail: "none of that name passes on the sources" };
    }
    const path = `${this.folder}/${mutation.file}`;
    const original = await Deno.readTextFile(path);
    const text = mutated(original, mutation);
    const errors = this.#types.added(path, text);
    if (errors.length) return { verdict: "does not load", detail: errors[0] };
    await Deno.writeTextFile(path, text);
    try {
      const { passed, failed, broken, hung, output } = await this.#test(mutation.test);
      if (hung) return { verdict: "hangs", detail: `${PATIENCE} seconds` };
      if (passed && !failed) return { verdict: "survived", detail: "the test passes" };
      const probe = broken || !failed
        ? { code: 1, output }
        : await this.#run(["run", "-A", "--no-check", "scripts/mutations/probe.ts"]);
      if (probe.code !== 0) {
        return { verdict: "does not load", detail: probe.output.slice(0, 2000) };
      }
      return { verdict: "caught", detail: "" };
    } finally {
      await Deno.writeTextFile(path, original);
    }
  }
}

async function main(): Promise<number> {
  const { only, list } = parseArgs(Deno.args, { string: ["only"], boolean: ["list"] });
  const chosen = MUTATIONS.filter((m) =>
    only === undefined || m.name.includes(only) || m.file.includes(only)
  );
  if (chosen.length === 0) {
    console.error(`mutations: none has ${JSON.stringify(only)} in its name or its file's`);
    return 2;
  }
  if (list) {
    for (const m of chosen) console.log(`${m.name}\n  ${m.file}\n  ${m.test.join(": ")}`);
    console.log(`${chosen.length} mutations`);
    return 0;
  }
  const tree = new Copy(chosen);
  const leave = () => {
    tree.dispose();
    Deno.exit(130);
  };
  Deno.addSignalListener("SIGINT", leave);
  const bad: string[] = [];
  try {
    await tree.fill();
    const width = Math.max(...chosen.map((m) => m.name.length));
    for (const mutation of chosen) {
      const started = performance.now();
      const { verdict, detail } = await tree.try(mutation);
      const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(5);
      const place = `${mutation.file}\n${" ".repeat(width + 16)}${mutation.test.join(": ")}`;
      console.log(`${verdict.padEnd(8)} ${seconds} ${mutation.name.padEnd(width)} ${place}`);
      if (verdict === "caught") continue;
      bad.push(`${mutation.name}: ${verdict}`);
      console.log(detail);
    }
  } finally {
    Deno.removeSignalListener("SIGINT", leave);
    tree.dispose();
  }
  console.log(`\n${chosen.length} mutations, ${chosen.length - bad.length} caught`);
  for (const line of bad) console.log(`  ${line}`);
  return bad.length ? 1 : 0;
}

if (import.meta.main) Deno.exit(await main());

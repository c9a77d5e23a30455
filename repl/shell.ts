/**
 * `xvm` and `xvm repl`: which session, with what in it.
 *
 * @module
 */
import { linesOf, runBatch } from "./batch.ts";
import { writeOut } from "./output.ts";
import { prelude } from "./prelude.ts";
import { showError } from "./evaluator/show.ts";
import { Session, watchStrays } from "./session.ts";
import { Terminal } from "./editor/terminal.ts";

/** What the shell is opened with. */
export interface ShellOptions {
  /** Code to evaluate instead of a prompt. */
  code?: string;
  /** Scripts to load first. */
  files: string[];
}

/** Opens the shell; resolves to the exit status. */
export async function shell(options: ShellOptions): Promise<number> {
  if (options.code === undefined && Terminal.available) return await atPrompt(options);
  return await withoutPrompt(options);
}

async function withoutPrompt({ code, files }: ShellOptions): Promise<number> {
  const session = new Session({
    print: writeOut,
    printError: (text) => console.error(text.trimEnd()),
  });
  session.evaluator.interrupt.start();
  prelude(session, { demo: true });
  let strays = 0;
  const unwatch = watchStrays((error) => {
    strays++;
    console.error(showError(error));
  });
  const status = await runAll(session, code, files);
  // What was let go may still fail; what fails at the very end is told a turn later.
  for (const ms of [LAST_WORDS, 0]) await new Promise((resolve) => setTimeout(resolve, ms));
  unwatch();
  return status || (strays > 0 ? 1 : 0);
}

/** Milliseconds for errors that come after the last input. */
const LAST_WORDS = 20;

async function runAll(session: Session, code: string | undefined, files: string[]) {
  for (const file of files) {
    const { ok } = await session.enter(`.load ${file}`);
    if (session.exitCode !== null) return session.exitCode;
    if (!ok) return 1;
  }
  const lines = code === undefined ? linesOf(Deno.stdin.readable) : toAsync(code.split("\n"));
  return await runBatch(session, lines);
}

async function* toAsync(lines: string[]): AsyncGenerator<string> {
  yield* lines;
}

async function atPrompt({ files }: ShellOptions): Promise<number> {
  const { Shell } = await import("./interactive.ts");
  const { complete } = await import("./completion/complete.ts");
  const shell = new Shell({ complete });
  return await shell.run(async (session) => {
    prelude(session, { demo: true });
    for (const file of files) if (session.exitCode === null) await session.enter(`.load ${file}`);
    const guest = session.hypervisor() ? "" : "a demo guest is loaded; ";
    shell.print(`xvm: ${guest}.help tour shows around, .help lists commands, ctrl-D leaves\n`);
  });
}

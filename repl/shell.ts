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
  for (const file of files) {
    if (!(await session.enter(`.load ${file}`)).ok) return 1;
  }
  let strays = 0;
  const unwatch = watchStrays((error) => {
    strays++;
    console.error(showError(error));
  });
  const lines = code === undefined ? linesOf(Deno.stdin.readable) : toAsync(code.split("\n"));
  const status = await runBatch(session, lines);
  unwatch();
  return status || (strays > 0 ? 1 : 0);
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
    for (const file of files) await session.enter(`.load ${file}`);
    const guest = session.hypervisor() ? "" : "a demo guest is loaded; ";
    shell.print(`xvm: ${guest}.help tour shows around, .help lists commands, ctrl-D leaves\n`);
  });
}

/**
 * The program: `xvm`. Without arguments it opens the shell at once; what reads arguments is loaded
 * when there are some.
 *
 * @module
 */

/** Runs the command line; resolves to the exit status, or null when the process ends by itself. */
export async function main(args: string[]): Promise<number | null> {
  if (args.length === 0) {
    const { shell } = await import("./shell.ts");
    return await shell({ files: [] });
  }
  const { commandLine } = await import("./cli.ts");
  return await commandLine(args);
}

if (import.meta.main) {
  const code = await main(Deno.args);
  if (code !== null) Deno.exit(code);
}

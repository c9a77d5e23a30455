import { fileURLToPath } from "node:url";
import { restoreTerminal, terminalMode } from "./evaluator/last_resort.ts";

/** Two ctrl-C within so many milliseconds are meant for a script that does not stop for one. */
const INSISTED = 3_000;
/** Milliseconds that it has after the second. */
const PATIENCE = 500;

/**
 * Runs a script as its own program, with this checkout's names (`xvm`, `@std/assert`) for it;
 * resolves to its exit status.
 */
export async function runScript(file: string, args: string[]): Promise<number> {
  const config = fileURLToPath(new URL("../deno.json", import.meta.url));
  const mode = terminalMode();
  // The terminal sends ctrl-C to both: the script decides what comes of the first.
  let last = -Infinity;
  const onInterrupt = () => {
    const now = performance.now();
    if (now - last < INSISTED) setTimeout(end, PATIENCE);
    last = now;
  };
  Deno.addSignalListener("SIGINT", onInterrupt);
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-A", "--config", config, file, ...args],
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn();
  const end = () => {
    try {
      child.kill("SIGKILL");
    } catch {
      return; // it has ended meanwhile
    }
    if (mode) restoreTerminal(mode);
    console.error(`left: ${file} does not stop for ctrl-C`);
  };
  try {
    return (await child.status).code;
  } finally {
    Deno.removeSignalListener("SIGINT", onInterrupt);
  }
}

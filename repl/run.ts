import { fileURLToPath } from "node:url";

/**
 * Runs a script as its own program, with this checkout's names (`xvm`, `@std/assert`) for it;
 * resolves to its exit status.
 */
export async function runScript(file: string, args: string[]): Promise<number> {
  // The terminal sends ctrl-C to both; the script decides what comes of it.
  const ignore = () => {};
  Deno.addSignalListener("SIGINT", ignore);
  try {
    const config = fileURLToPath(new URL("../deno.json", import.meta.url));
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-q", "-A", "--config", config, file, ...args],
      stdin: "inherit",
      stdout: "inherit",
      stderr: "inherit",
    }).spawn();
    const { code } = await child.status;
    return code;
  } finally {
    Deno.removeSignalListener("SIGINT", ignore);
  }
}

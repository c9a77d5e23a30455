/** Seconds from `deno task xvm` to its prompt on a terminal, everything in the caches. */
import { median } from "./measure.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
/** What the prompt ends with, after the domain's name. */
const PROMPT = /\S> /;
const TIMEOUT = 30_000;

/** The median of `runs` starts, after one that fills the caches. @throws if no prompt comes. */
export async function startTime(runs: number): Promise<number> {
  const seconds: number[] = [];
  for (let run = 0; run <= runs; run++) {
    const time = await once();
    if (run > 0) seconds.push(time);
  }
  return median(seconds);
}

async function once(): Promise<number> {
  const started = performance.now();
  // `script` gives the shell a terminal.
  const child = new Deno.Command("script", {
    args: ["-q", "-e", "-c", "deno task -q xvm", "/dev/null"],
    cwd: ROOT,
    env: { TERM: "xterm", NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT);
  const stdin = child.stdin.getWriter();
  let text = "", seconds = 0;
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (seconds === 0 && PROMPT.test(text)) {
      seconds = (performance.now() - started) / 1000;
      await stdin.write(Uint8Array.of(4)); // ctrl-D leaves
    }
  }
  await child.status;
  clearTimeout(timer);
  if (seconds === 0) throw new Error(`no prompt came: ${JSON.stringify(text.slice(-300))}`);
  return seconds;
}

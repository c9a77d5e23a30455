// What the Worker that owns SIGINT does for last_resort.ts.
import { type AtInterrupt, WORD } from "../../src/xen/world_attention.ts";
import { type LastResort, openLibc, restoreTerminal } from "./last_resort.ts";

/** Milliseconds that the main thread has to hear of ctrl-C. */
const PATIENCE = 500;
/** As of a program that SIGINT ended. */
const STATUS = 130;

const say = (text: string) => void Deno.stderr.writeSync(new TextEncoder().encode(text));

const atInterrupt: AtInterrupt<LastResort> = (words, { terminal }) => {
  const newline = terminal ? "\r\n" : "\n";
  let presses = 0;
  return (before) => {
    presses = before === 0 ? 1 : presses + 1;
    const press = presses;
    setTimeout(() => {
      if (Atomics.load(words, WORD.unheard) === 0 || presses !== press) return;
      if (press > 1) leave(terminal);
      say(`${newline}this code does not stop for ctrl-C; another leaves xvm${newline}`);
    }, PATIENCE);
  };
};
export default atInterrupt;

function leave(terminal: Uint8Array | null): never {
  if (terminal) {
    say("\x1b[?2004l"); // as Terminal.stop does
    restoreTerminal(terminal);
  }
  say("left: the code that ran does not stop for ctrl-C\n");
  openLibc()?._exit(STATUS);
  Deno.kill(Deno.pid, "SIGKILL");
  for (;;);
}

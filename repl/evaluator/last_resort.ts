/**
 * Ctrl-C in what cannot be interrupted: a loop of an imported module, a regular expression that
 * backtracks. The engine ends no code from within its process; so the second ctrl-C leaves, and the
 * terminal is as it was. The Worker that owns SIGINT does it: last_resort_worker.ts.
 *
 * @module
 */
import { attention } from "../../src/xen/world_attention.ts";

/** What is needed to leave. */
export interface LastResort {
  /** The terminal's mode as it was found: struct termios; null where there is none. */
  readonly terminal: Uint8Array | null;
}

/** Room for struct termios, which differs among systems. */
const TERMIOS_BYTES = 256;

/** The few functions of the C library that leaving needs; null where it cannot be had. */
export function openLibc() {
  try {
    return Deno.dlopen(Deno.build.os === "darwin" ? "libSystem.B.dylib" : "libc.so.6", {
      tcgetattr: { parameters: ["i32", "buffer"], result: "i32" },
      tcsetattr: { parameters: ["i32", "i32", "buffer"], result: "i32" },
      _exit: { parameters: ["i32"], result: "void" },
    }).symbols;
  } catch {
    return null; // no permission, or another C library
  }
}

/** The terminal's mode now: struct termios; null where there is no terminal, or its mode is not told. */
export function terminalMode(): Uint8Array<ArrayBuffer> | null {
  if (!Deno.stdin.isTerminal()) return null;
  const termios = new Uint8Array(TERMIOS_BYTES);
  return openLibc()?.tcgetattr(0, termios) === 0 ? termios : null;
}

/** Gives the terminal a mode that it had. */
export function restoreTerminal(termios: Uint8Array): void {
  openLibc()?.tcsetattr(0, 0, new Uint8Array(termios));
}

let armed = false;

/** Lets the second ctrl-C that the main thread does not hear leave. Called before the terminal is set. */
export function armLastResort(): void {
  if (armed) return;
  armed = true;
  const data: LastResort = { terminal: terminalMode() };
  attention.also(new URL("./last_resort_worker.ts", import.meta.url), data);
}

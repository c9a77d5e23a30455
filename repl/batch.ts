/**
 * The shell without a prompt: code from `-c` or a pipe is evaluated, results are printed, and the
 * first input that throws ends it.
 *
 * @module
 */
import type { Session } from "./session.ts";

/** Runs the inputs that `lines` make up; resolves to the exit status. */
export async function runBatch(session: Session, lines: AsyncIterable<string>): Promise<number> {
  let open = "";
  for await (const line of lines) {
    open += open ? `\n${line}` : line;
    if (!open.trim() || isOpen(session, open)) continue;
    const { ok } = await session.enter(open);
    if (session.exitCode !== null) return session.exitCode;
    if (!ok) return 1;
    open = "";
  }
  if (!open.trim()) return 0;
  return (await session.enter(open)).ok ? session.exitCode ?? 0 : 1;
}

function isOpen(session: Session, text: string): boolean {
  try {
    return !session.isWhole(text);
  } catch {
    return false; // an unknown command: entering it says so
  }
}

/** The lines of a stream of bytes, as they come. */
export async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
  if (rest) yield rest;
}

const encoder = new TextEncoder();

/** Writes text to standard output, all of it; ends the process when nobody reads it any longer. */
export function writeOut(text: string): void {
  const bytes = encoder.encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(141); // 128 + SIGPIPE, as programs do
    throw error;
  }
}

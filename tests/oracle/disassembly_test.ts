import { assert, assertEquals } from "@std/assert";
import { allowedDifferences, exhaustive, mismatchText, subject } from "./disassembly.ts";
import { compareAll, type Disassemble, dumpSlots, type Mismatch, unavailable } from "./objdump.ts";

const missing = unavailable();
const note = missing ? ` (skipped: ${missing})` : "";
const ignore = missing !== undefined;
if (missing) console.warn(`skipped: ${missing}`);

/** One sequence of a prime number of the exhaustive list, so that all opcodes take part. */
const EVERY = { 16: 127, 32: 127, 64: 797 } as const;

for (const mode of [16, 32, 64] as const) {
  Deno.test({
    name: `the disassembler prints what objdump prints, ${mode}-bit sample${note}`,
    ignore,
    async fn() {
      const allowed = allowedDifferences(), found: Mismatch[] = [];
      const summary = await compareAll(subject, mode, exhaustive(mode, EVERY[mode]), (m) => {
        if (allowed.some((a) => a.applies(m))) return true;
        found.push(m);
      });
      assert(found.length === 0, found.slice(0, 20).map(mismatchText).join("\n"));
      assert(summary.sequences > 20_000);
    },
  });
}

Deno.test({
  name: `the harness finds a wrong length and a wrong word${note}`,
  ignore,
  async fn() {
    const wrong: Disassemble = (bytes, mode, address) => {
      const line = subject(bytes, mode, address);
      if (bytes[0] === 0x40) return { ...line, length: 2 };
      return bytes[0] === 0x41 ? { ...line, text: "inc    edx" } : line;
    };
    const found: string[] = [];
    const sequences = [0x40, 0x41, 0x42].map((b) => Uint8Array.of(b, 0x90, 0x90));
    const summary = await compareAll(wrong, 32, sequences, (m) => void found.push(mismatchText(m)));
    assertEquals(found, [
      '32-bit 409090: objdump "inc eax" (1), ours "inc eax" (2)',
      '32-bit 419090: objdump "inc ecx" (1), ours "inc edx" (1)',
    ]);
    assertEquals([summary.sequences, summary.mismatches], [3, 2]);
  },
});

Deno.test({
  name: `objdump decodes each slot alone${note}`,
  ignore,
  async fn() {
    const lines = await dumpSlots([Uint8Array.of(0xb8, 1, 2, 3, 4), Uint8Array.of(0x0f, 0xa2)], 32);
    assertEquals(lines.map((l) => l?.length), [5, 2]);
  },
});

import { assertEquals } from "@std/assert";
import { ByteLog } from "./output.ts";

Deno.test("a byte log keeps the last bytes, at most so many, and counts the rest", () => {
  for (const limit of [1, 7, 5000, 10_000]) {
    const log = new ByteLog(limit), all: number[] = [];
    assertEquals([...log.since(0)], []);
    for (let i = 0; i < 12_345; i++) {
      const byte = i * i % 251;
      log.push(byte);
      all.push(byte);
      if (i % 997 && i < 12_340) continue;
      const kept = all.slice(-limit);
      assertEquals([...log.since(0)], kept, `${limit} at ${i}`);
      assertEquals(log.total, i + 1);
      // A log that may still grow has dropped nothing.
      assertEquals(log.dropped, all.length - kept.length);
      assertEquals([...log.since(i - 2)], all.slice(-Math.min(limit, Math.min(3, i + 1))));
      assertEquals(log.endsWith(Uint8Array.from(kept.slice(-5))), true);
      assertEquals(log.endsWith(Uint8Array.of(byte ^ 1)), false);
      assertEquals(log.endsWith(Uint8Array.from([9, ...kept])), false);
    }
  }
});

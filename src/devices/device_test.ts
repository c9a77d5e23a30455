import { assertEquals } from "@std/assert";
import { ticksAt, timeOfTick } from "./device.ts";

Deno.test("ticksAt() and timeOfTick() are exact inverses over years", () => {
  for (const frequency of [32768, 1193182, 3579545]) {
    for (const tick of [0, 1, 7, frequency - 1, frequency, frequency * 86400 * 90 + 12345]) {
      const time = timeOfTick(tick, frequency);
      assertEquals(ticksAt(time, frequency), tick);
      if (tick > 0) assertEquals(ticksAt(time - 1, frequency), tick - 1);
    }
  }
});

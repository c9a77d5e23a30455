// Privileged sequences in long mode in lockstep with QEMU: a small seeded part; privileged_long.ts
// runs more.
import { assert, assertEquals } from "@std/assert";
import { privilegedLong } from "./privileged_long.ts";
import { unavailable } from "./qemu.ts";

const missing = unavailable();

Deno.test({
  name: `privileged sequences in long mode: registers and tables as QEMU has them${
    missing ? ` (skipped: ${missing})` : ""
  }`,
  ignore: missing !== undefined,
  async fn() {
    const { sequences, steps, faults, findings } = await privilegedLong(25, 1);
    assertEquals(findings, []);
    assertEquals(sequences, 25);
    assert(steps > 150 && faults > 5, `${steps} steps, ${faults} faults`);
  },
});

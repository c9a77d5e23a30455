// Privileged sequences in lockstep with QEMU: a small seeded part; privileged.ts runs more.
import { assert, assertEquals } from "@std/assert";
import { privileged } from "./privileged.ts";
import { unavailable } from "./qemu.ts";

const missing = unavailable();

Deno.test({
  name: `privileged sequences: registers and tables as QEMU has them${
    missing ? ` (skipped: ${missing})` : ""
  }`,
  ignore: missing !== undefined,
  async fn() {
    const { sequences, steps, faults, findings } = await privileged(30, 1);
    assertEquals(findings, []);
    assertEquals(sequences, 30);
    assert(steps > 200 && faults > 10, `${steps} steps, ${faults} faults`);
  },
});

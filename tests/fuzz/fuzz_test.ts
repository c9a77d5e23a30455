// Random bytes as guest code never surface as an exception of ours, never hang, and touch no memory
// that is not the guest's; nor do random contents of control structures. The long campaigns are run
// by hand: fuzz.ts, structures.ts.
import { assert, assertEquals } from "@std/assert";
import { campaign } from "./fuzz.ts";
import { MODES } from "./modes.ts";
import { structureCampaign, STRUCTURES } from "./structures.ts";

for (const type of ["bare", "hvm"] as const) {
  for (const mode of MODES) {
    Deno.test(`random code in ${mode}, ${type}, is contained`, async () => {
      const instructions = 20_000;
      const result = await campaign({ mode, type, instructions, seed: 20261121 });
      assertEquals(result.findings, []);
      assertEquals(result.instructions, instructions);
    });
  }
}

for (const [name, structure] of Object.entries(STRUCTURES)) {
  Deno.test(`random contents of control structures: ${name} enters, or says why not`, async () => {
    const result = await structureCampaign({ structure, episodes: 2000, seed: 20261126 });
    assertEquals(result.findings, []);
    // Most checks of the entry fail somewhere; a long campaign reaches all.
    assert(result.checks.size > 3 * result.missed.length, `not reached: ${result.missed}`);
  });
}

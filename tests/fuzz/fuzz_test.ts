// Random bytes as guest code never surface as an exception of ours, never hang, and touch no memory
// that is not the guest's. The long campaigns are run by hand: fuzz.ts.
import { assertEquals } from "@std/assert";
import { campaign } from "./fuzz.ts";
import { MODES } from "./modes.ts";

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

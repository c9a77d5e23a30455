// Sealed states whose contents were changed: refused by name with nothing changed, or they are a state.
import { assert, assertEquals } from "@std/assert";
import { configurations } from "../../src/debug/testing/hosts.ts";
import { mutateStates } from "./mutated.ts";

for (const c of configurations) {
  Deno.test(`a sealed state with other contents is refused by name, or is that state (${c.cpu}, ${c.paging})`, async () => {
    const { refused, taken, problems } = await mutateStates(c, 60, 2026);
    assertEquals(problems, []);
    assert(refused > 10 && taken > 10, `${refused} refused, ${taken} taken`);
  });
}

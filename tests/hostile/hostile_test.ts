import { assertEquals } from "@std/assert";
import { broken, interrupt, type Place, timeout } from "./run.ts";

/** The dearest of each kind; all of them: `deno task hostile`. */
const SOME: readonly [guest: string, place: Place][] = [
  ["POST codes", "intel, hap"],
  ["bytes to COM1", "bare"],
  ["self-modifying code in real mode", "intel, shadow"],
  ["sleep with the timer masked", "amd, shadow"],
  ["transcendental functions", "bare"],
];
/** A host that does other things, too, is late with everything (ms). */
const PATIENCE = 2000;

for (const [guest, place] of SOME) {
  Deno.test(`a hostile guest holds nobody: ${guest} (${place})`, async () => {
    const result = await timeout(guest, place, 2);
    assertEquals(broken(guest, result, PATIENCE), undefined, JSON.stringify(result));
  });
}

Deno.test("ctrl-C brings the prompt back from a hostile guest", async () => {
  const result = await interrupt("exits at every instruction", "intel, hap", 1);
  assertEquals(broken("", result, PATIENCE), undefined, JSON.stringify(result));
});

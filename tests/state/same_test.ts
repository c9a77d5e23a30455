// Same seed, same hash: a guest of several vCPUs that is typed to, whatever the host's conditions.
import { assertEquals } from "@std/assert";
import { playSame, typedGuests } from "./same.ts";

const RUNS = 6;

// `deno task law -- same` has real kernels, and more runs.
for (const typed of typedGuests.filter(({ files }) => files.length === 0)) {
  Deno.test(`same seed, same state, and another interleaving another (${typed.name})`, async () => {
    const { good, problems } = await playSame(typed, RUNS, 0);
    assertEquals(problems, []);
    assertEquals(good, RUNS);
  });
}

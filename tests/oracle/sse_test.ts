// A few thousand cases of SSE to SSE4.2 against the host's processor; sse.ts runs more of them.
import { assertEquals } from "@std/assert";
import { type Failure, run } from "./campaign.ts";
import { report } from "./compare.ts";
import { Oracle, unavailable } from "./host.ts";
import { identify } from "./instruction.ts";
import { cases, SSE_MAPS } from "./sse.ts";
import { openSubject } from "./subject.ts";

/** CMPXCHG16B stands among the rules of SSE2 and is none of it. */
const isSse = (x: Failure) => identify(x.test).opcode !== 0x1c7;

const missing = unavailable();
for (const mode of [32, 64] as const) {
  for (const map of SSE_MAPS) {
    Deno.test({
      name: `SSE in map ${map}, ${mode}-bit, as the host's processor has it` +
        (missing ? `: skipped, ${missing}` : ""),
      ignore: missing !== undefined,
      fn: async () => {
        using oracle = Oracle.open();
        const subject = await openSubject({ cpu: oracle.vendor });
        const failures: string[] = [];
        const options = { count: 1500, seed: 11, modes: [mode], maps: [map], show: 0 };
        run({
          subject,
          oracle,
          cases: cases(options, map, mode),
          onDifference: (x) => isSse(x) && failures.push(report(x.test, x.differences)),
        });
        subject.close?.();
        assertEquals(failures.slice(0, 3), []);
      },
    });
  }
}

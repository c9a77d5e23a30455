/** The machine against the host's CPU: a part of what `run.ts` does, with cases of its own seed. */
import { assertEquals } from "@std/assert";
import { generated, run } from "./campaign.ts";
import { report } from "./compare.ts";
import { Oracle, unavailable } from "./host.ts";
import { identify } from "./instruction.ts";
import type { Case, Mode } from "./state.ts";
import { XvmSubject } from "./subject.ts";

const missing = unavailable();
if (missing) console.log(`skipped: ${missing}`);

/** FF /3 stores its return address before it checks the target; xvm, like 9A, afterwards. */
const isFarCall = (test: Case) => {
  const { opcode, reg } = identify(test);
  return opcode === 0xff && reg === 3;
};

const COUNT = 12_000;
for (
  const [mode, options] of [
    [32, { hot: true }],
    [32, { hot: false, legacy: true }],
    [16, {}],
    [64, { hot: true }],
    [64, { hot: false }],
  ] as [Mode, { hot?: boolean; legacy?: boolean }][]
) {
  Deno.test({
    name: `integer instructions, ${mode} bits, ${JSON.stringify(options)}: as the host's CPU`,
    ignore: missing !== undefined,
    fn() {
      using oracle = Oracle.open();
      const subject = new XvmSubject(options);
      const failures: string[] = [];
      const cases = generated(20_260_101, mode, 0, COUNT, ["integer"]);
      run({
        subject,
        oracle,
        cases: cases.filter((test) => !isFarCall(test)),
        stopAfter: 5,
        onDifference: ({ test, differences }) => failures.push(report(test, differences)),
      });
      assertEquals(failures.join("\n\n"), "");
    },
  });
}

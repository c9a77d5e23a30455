/** The machine against the host's CPU: a part of what `run.ts` does, with cases of its own seed. */
import { assertEquals } from "@std/assert";
import { generated, run } from "./campaign.ts";
import { compare, report } from "./compare.ts";
import { allowances } from "./exceptions.ts";
import { Oracle, unavailable } from "./host.ts";
import { type Case, emptyState, FX, type Mode } from "./state.ts";
import { XvmSubject } from "./subject.ts";

const missing = unavailable();
if (missing) console.log(`skipped: ${missing}`);

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
      const subject = new XvmSubject({ cpu: oracle.vendor, ...options });
      const failures: string[] = [];
      const cases = generated(20_260_101, mode, 0, COUNT, ["integer"]);
      run({
        subject,
        oracle,
        cases,
        stopAfter: 5,
        onDifference: ({ test, differences }) => failures.push(report(test, differences)),
      });
      assertEquals(failures.join("\n\n"), "");
    },
  });
}

Deno.test({
  name: "x87 stores of ten bytes across a page that may not be written: as the host's CPU",
  ignore: missing !== undefined,
  fn() {
    using oracle = Oracle.open();
    const subject = new XvmSubject({ cpu: oracle.vendor });
    const readOnly = 0x1000_2000;
    const failures: string[] = [];
    for (const mode of [32, 64] as const) {
      for (const opcode of [[0xdb, 0x38], [0xdf, 0x30]]) { // FSTP, FBSTP [rAX]
        for (let offset = -12; offset < 2; offset++) {
          const state = emptyState(mode), fx = new DataView(state.fx.buffer);
          fx.setUint8(FX.ftw, 1);
          fx.setBigUint64(FX.st, 0x9876_5432_1000_0000n, true);
          fx.setUint16(FX.st + 8, 0x401e, true);
          state.gpr[0] = BigInt(readOnly + offset);
          const test: Case = { mode, state, bytes: Uint8Array.from(opcode), patches: [] };
          const found = compare(
            test,
            oracle.run(test),
            subject.run(test),
            allowances(oracle.vendor),
          );
          if (found.length) failures.push(report(test, found));
        }
      }
    }
    assertEquals(failures.join("\n\n"), "");
  },
});

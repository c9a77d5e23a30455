// Test suites of others, from images in the folder XVM_SUITES; see README.md beside this file.
import { assert, assertEquals } from "@std/assert";
import type { BuiltDomain } from "../../src/builder/domain.ts";
import { isFile, type Outcome, placesOf, run, suiteImages } from "./run.ts";
import { TEST386, UNIT_TEST_LIMIT, UNIT_TESTS, type UnitTest } from "./suites.ts";
import { biosTimer, TestDev } from "./testdev.ts";

const images = suiteImages();
const places = placesOf();

if (images === undefined) {
  Deno.test({
    name: "conformance suites: skipped, XVM_SUITES names no folder of their images",
    ignore: true,
    fn() {},
  });
} else {
  for (const { name, ...place } of places) {
    Deno.test({
      name: `test386 reaches POST FF with no difference in its output, ${name}`,
      ignore: !isFile(`${images}/${TEST386.image}`),
      async fn() {
        const { posts, text, lastFault } = await run({
          image: `${images}/${TEST386.image}`,
          ...place,
          memory: 16 << 20,
          limit: TEST386.limit,
        });
        assertEquals(posts.at(-1), TEST386.last, `POST codes ${posts}; last fault: ${lastFault}`);
        const expected = Deno.readTextFileSync(`${images}/${TEST386.reference}`).trimEnd();
        assertSameLines(text.trimEnd(), expected);
      },
    });
    for (const test of UNIT_TESTS) {
      const { vcpus = 1 } = test;
      if (test.only && test.only !== place.cpu) continue;
      const many = vcpus > 1 ? `, ${vcpus} processors` : "";
      const turns = test.interleave
        ? ` in turns of ${test.interleave.min} to ${test.interleave.max}`
        : "";
      Deno.test(`kvm-unit-tests ${test.image} passes, ${name}${many}${turns}`, async () => {
        checkUnitTest(
          test,
          await run({
            image: `${images}/${test.image}.flat`,
            ...place,
            cpu: place.type === "bare" ? test.cpuid ?? place.cpu : place.cpu,
            cpuid: test.cpuid,
            vcpus,
            interleave: test.interleave,
            environment: test.plain ? "TEST_DEVICE=0\n" : undefined,
            limit: test.limit ?? UNIT_TEST_LIMIT,
            prepare: (built) => prepare(test, built),
          }),
        );
      });
    }
  }
}

function prepare(test: UnitTest, built: BuiltDomain): void {
  built.board.bus.attach(new TestDev(built.board));
  if (test.timer) biosTimer(built);
}

function checkUnitTest(test: UnitTest, { end, text, lastFault }: Outcome): void {
  const lines = text.split(/\r?\n/);
  const told = `${lines.slice(-8).join("\n")}\nlast fault: ${lastFault}`;
  assertEquals(end, "exit (status 1)", told);
  assertEquals(lines.filter((line) => line.startsWith("FAIL")), []);
  assertEquals(lines.filter((line) => line.startsWith("PASS")).length, test.pass);
  if (test.line !== undefined) assert(lines.includes(test.line), told);
}

/** Names the first line that differs instead of printing three megabytes. */
function assertSameLines(actual: string, expected: string): void {
  if (actual === expected) return;
  const a = actual.split("\n"), e = expected.split("\n");
  const first = a.findIndex((line, i) => line.trimEnd() !== e[i]?.trimEnd());
  const n = first < 0 ? Math.min(a.length, e.length) : first;
  if (first < 0 && a.length === e.length) return;
  assertEquals(a[n], e[n], `line ${n + 1} of ${a.length} (reference: ${e.length})`);
}

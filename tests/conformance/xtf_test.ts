// XTF, the Xen Test Framework, in domains that know Xen; see README.md beside this file.
import { assert, assertEquals } from "@std/assert";
import { placesOf, run, suiteImages } from "./run.ts";
import {
  ENVIRONMENTS,
  LONG,
  NAMED,
  OTHERS,
  resultIn,
  VIRIDIAN,
  XTF_LIMIT,
  xtfTest,
} from "./xtf.ts";

const images = suiteImages(), folder = `${images}/xtf`;
const tests = images === undefined ? [] : filesIn(folder).flatMap((file) => {
  const test = xtfTest(file);
  return test && !VIRIDIAN.has(test.name) ? [{ file, ...test }] : [];
});

if (tests.length === 0) {
  Deno.test({
    name: "XTF: skipped, XVM_SUITES names no folder with its images in xtf/",
    ignore: true,
    fn() {},
  });
} else {
  Deno.test("XTF has all its environments, and the tests that are asked for", () => {
    const all = [...ENVIRONMENTS].sort();
    assertEquals([...new Set(tests.map(({ environment }) => environment))].sort(), all);
    const there = new Set(tests.map(({ name }) => name));
    assertEquals(NAMED.filter((name) => !there.has(name)), []);
  });
  for (const { name: at, type, ...place } of placesOf()) {
    if (type === "bare") continue;
    for (const { file, name, environment } of tests) {
      Deno.test(`XTF ${name} ends as it is to, in ${environment}, ${at}`, async () => {
        const { text, end, lastFault } = await run({
          image: `${folder}/${file}`,
          ...place,
          type: "pvh",
          xen: true,
          limit: LONG[name] ?? XTF_LIMIT,
        });
        const result = resultIn(text), told = `${end}\n${text}\nlast fault: ${lastFault}`;
        const right = NAMED.some((named) => named === name)
          ? result === "SUCCESS"
          : name in OTHERS
          ? result === OTHERS[name]
          : result === "SUCCESS" || result === "SKIP";
        assert(right, told);
        assertEquals(end, "poweroff (SCHEDOP_shutdown: poweroff (0))", told);
      });
    }
  }
}

function filesIn(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].filter(({ isFile }) => isFile).map(({ name }) => name)
      .sort();
  } catch {
    return [];
  }
}

/** The scripts that hunt a race: what they find, that it runs again, and what they refuse. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { guestsFolder } from "../../repl/guests/images.ts";

const root = new URL("../../", import.meta.url).pathname;

async function script(name: string, ...args: string[]) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      `--config=${root}deno.json`,
      `${root}scripts/${name}`,
      ...args,
    ],
    env: { NO_COLOR: "1" },
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out, err };
}

/** How many seeds found it with the first lengths of turns, and the seconds of the longest of them. */
function foundBy(out: string): { seeds: number; seconds: number } {
  const [, seeds, seconds] =
    out.match(/: (\d+) of 20 seeds find it, none of these in more than ([\d.]+) s/) ??
      [];
  return { seeds: Number(seeds), seconds: Number(seconds) };
}

for (const how of ["", "--cpus 1 --vendor amd --paging shadow", "--type bare --vcpus 3"]) {
  Deno.test(`scripts/race.ts ${how} finds a lost update in 15 of 20 seeds, and runs it again`, async () => {
    const words = how ? how.split(" ") : [];
    const { code, out } = await script("race.ts", "--turns", "1-20", ...words);
    assertEquals(code, 0, out);
    const { seeds, seconds } = foundBy(out);
    assert(seeds >= 15 && seconds < 10, out);
    // Two have read the same number, and both write the next.
    const [, lost] = out.match(/ writes (\d+): over \1, so an update is lost$/m) ?? [];
    assertEquals(out.match(new RegExp(`reads  ${Number(lost) - 1}$`, "gm"))?.length, 2, out);
    assertMatch(
      out,
      /^from instruction .*then at\n( +[\d,]+ .* its length .*\n)+ .* stop +0x00100088 <add\+0xb>$/m,
    );
    assertMatch(out, /^seed \d+ again, 10 of 10 times: instruction [\d,]+, state [\da-f]{16}$/m);
  });
}

Deno.test("scripts/race.ts says what it cannot do, and when it found nothing", async () => {
  for (
    const [args, message] of [
      [["--turns", "20-1"], "--turns: MIN-MAX was expected, not 20-1\n"],
      [["--seeds", "0"], "--seeds: a whole number from 1 to 100000 was expected, not 0\n"],
      [["--vcpus", "2.5"], "--vcpus: a whole number from 2 to 16 was expected, not 2.5\n"],
      [["--vendor", "via"], "--vendor: intel or amd was expected, not via\n"],
      [["--sed", "1"], "--sed is no option of this script; --help tells them\n"],
    ] as const
  ) {
    const { code, err } = await script("race.ts", ...args);
    assertEquals([code, err], [2, message]);
  }
  assertMatch((await script("race.ts", "--help")).out, /--rounds .*\n(.*\n)+ +--seeds N/);
  const { code, out } = await script(
    "race.ts",
    "--turns",
    "1000000",
    "--seeds",
    "2",
    "--rounds",
    "3",
  );
  assertEquals(code, 1);
  assertMatch(out, /: 0 of 2 seeds find it; .*\nno seed found it/);
});

const missing = ["vmlinux-686-pae", "tiny-i386.cpio.gz"].find((name) => {
  try {
    return !Deno.statSync(`${guestsFolder()}/${name}`).isFile;
  } catch {
    return true;
  }
});
for (const [cpus, vendor] of [["2", "intel"], ["1", "amd"]]) {
  Deno.test({
    name: `scripts/race_linux.ts finds one between shells on ${cpus}, ${vendor}` +
      (missing ? `: skipped, no ${missing} (xvm guests fetch)` : ""),
    ignore: missing !== undefined,
    async fn() {
      const how = [
        "--cpus",
        cpus,
        "--vendor",
        vendor,
        "--adds",
        "40",
        "--seeds",
        "6",
        "--again",
        "3",
      ];
      const { code, out } = await script("race_linux.ts", ...how);
      assertEquals(code, 0, out);
      const [, count] = out.match(/^COUNT (\d+), and 2 shells have added 40 each$/m) ?? [];
      assert(Number(count) < 80, out);
      assertMatch(out, /^seed \d+ again, 3 of 3 times: instruction [\d,]+, state [\da-f]{16}$/m);
    },
  });
}

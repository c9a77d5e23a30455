// GRUB as a guest of Xen's: its console and commands; see README.md beside this file.
import { assert, assertEquals } from "@std/assert";
import { isFile, placesOf, run, suiteImages } from "./run.ts";

const image = `${suiteImages()}/grub/i386-xen_pvh`;

/** What is typed at each prompt, and what is to be there then. */
const TYPED: readonly (readonly [line: string, answer: string])[] = [
  ["set a=41", ""],
  ['echo "a is ${a}"', "a is 41"],
  ['if [ "${a}" = 41 ]; then echo "it is"; fi', "it is"],
  ["cat (memdisk)/boot/hello", "text of a file"],
  ["lsmmap", "base_addr = 0x100000, length = 0x7f00000, available RAM"],
  ["nothing", "error: can't find command `nothing'."],
  ["halt", ""],
];

for (const { name, type, ...place } of placesOf()) {
  if (type === "bare") continue;
  Deno.test({
    name: `GRUB starts as a PVH guest and runs its commands, ${name}`,
    ignore: !isFile(image),
    async fn() {
      const { text, end, lastFault } = await run({
        image,
        ...place,
        type: "pvh",
        xen: true,
        limit: 1e9,
        prepare: ({ domain }) => {
          let seen = "", line = 0;
          domain.onOutput.add((bytes) => {
            seen += String.fromCharCode(...bytes);
            if (seen.split("grub>").length <= line + 1 || line === TYPED.length) return;
            domain.input(new TextEncoder().encode(`${TYPED[line++][0]}\r`));
          });
        },
      });
      // deno-lint-ignore no-control-regex
      const plain = text.replace(/\x1b\[[0-9;]*[A-Za-z]/g, "");
      const told = `${end}\n${plain}\nlast fault: ${lastFault}`;
      assertEquals(end, "poweroff (SCHEDOP_shutdown: poweroff (0))", told);
      const answers = plain.split("grub>").slice(1);
      assertEquals(answers.length, TYPED.length, told);
      TYPED.forEach(([, answer], n) => {
        const lines = answers[n].split(/[\r\n]+/).map((line) => line.trim());
        assert(lines.indexOf(answer) > 0, told);
      });
    },
  });
}

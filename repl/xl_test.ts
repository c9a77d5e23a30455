import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { parseSize } from "./size.ts";
import { parseXl, readDomainFile } from "./xl.ts";

Deno.test("parseXl() reads strings, numbers and lists", () => {
  assertEquals(
    parseXl(`# a guest\nname = "debian" ; memory=256\ndisk = [ 'a,xvda,w', "b" ]\nvcpus = 0x2`),
    { name: "debian", memory: 256, disk: ["a,xvda,w", "b"], vcpus: 2 },
  );
});

Deno.test("parseXl() says what it expected, and where", () => {
  assertThrows(
    () => parseXl(`a = 1\nb 2`, "x.cfg"),
    SyntaxError,
    "x.cfg:2: expected = after b, got 2",
  );
  assertThrows(() => parseXl(`a = ["x"`, "x.cfg"), SyntaxError, ", or ]");
  assertThrows(() => parseXl(`a = {`, "x.cfg"), SyntaxError, `cannot read "{"`);
});

Deno.test("readDomainFile() takes xl.cfg and modules", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(
    `${folder}/a.cfg`,
    `builder="hvm"\nmemory=64\nextra="quiet"\nroot="/dev/xvda"\nhap=0\nshadow_memory=2`,
  );
  const { type, memory, cmdline, paging, shadowMemory } = await readDomainFile(`${folder}/a.cfg`);
  assertEquals({ type, memory, cmdline, paging, shadowMemory }, {
    type: "hvm",
    memory: 64 * 2 ** 20,
    cmdline: "root=/dev/xvda quiet",
    paging: "shadow",
    shadowMemory: 2 << 20,
  });
  await Deno.writeTextFile(
    `${folder}/b.ts`,
    `export default { name: "b" as string, memory: "1G" };`,
  );
  assertEquals(await readDomainFile(`${folder}/b.ts`), { name: "b", memory: 2 ** 30 });
  await Deno.writeTextFile(`${folder}/c.cfg`, `type = "vax"`);
  await assertRejects(() => readDomainFile(`${folder}/c.cfg`), RangeError, `type is "vax"`);
});

Deno.test("parseSize() takes units, and nothing else", () => {
  assertEquals(["4096", "64K", "256M", "1GiB"].map(parseSize), [4096, 65536, 2 ** 28, 2 ** 30]);
  for (const wrong of ["", "M", "-1", "1X", "0.3"]) {
    assertThrows(() => parseSize(wrong), RangeError);
  }
});

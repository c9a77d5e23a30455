import { assertEquals, assertMatch } from "@std/assert";
import { differenceText, GuestDigest } from "./digest.ts";
import { Hypervisor } from "./hypervisor.ts";
import { counted, grouped, sizeText } from "./values.ts";

Deno.test("counted() and grouped() write numbers as people do", () => {
  assertEquals(
    [0, 1, 2, 1234, 1n].map((n) => counted(n, "byte")),
    ["0 bytes", "1 byte", "2 bytes", "1,234 bytes", "1 byte"],
  );
  assertEquals(counted(1, "entry", "entries"), "1 entry");
  assertEquals(counted(2_000_000, "entry", "entries"), "2,000,000 entries");
  assertEquals([0.12345, 1234.56789, -1234567, 2n ** 40n].map(grouped), [
    "0.12345",
    "1,234.56789",
    "-1,234,567",
    "1,099,511,627,776",
  ]);
  assertEquals([0, 1, 4096].map(sizeText), ["0 bytes", "1 byte", "4 KiB"]);
});

Deno.test("what is one is not written as many", async () => {
  await using hv = await Hypervisor.demo();
  const [dom] = hv.domains;
  const before = GuestDigest.of(dom);
  const trace = dom.trace("hlt");
  trace.hits = 1;
  const stop = await dom.vcpus[0].step();
  const { memory } = dom;
  memory.write(0x5000, Uint8Array.of(memory.u8(0x5000) ^ 1));
  const texts = [dom, stop, hv.cpus[0], trace, dom.console].map((it) => Deno.inspect(it));
  texts.push(differenceText(before.differences(GuestDigest.of(dom)), ["one", "other"]));
  const text = texts.join("\n");
  for (const one of ["1 instruction,", "1 hit", "1 line;", "1 guest frame:"]) {
    assertMatch(text, new RegExp(`\\b${one}`), text);
  }
  assertEquals(
    text.match(/(?<![\d,.])1 [a-z ]*(instructions|hits|lines|frames|exits|bytes)\b/),
    null,
  );
});

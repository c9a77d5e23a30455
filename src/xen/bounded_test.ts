import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { build, type DomainConfig } from "../builder/domain.ts";
import { Hypervisor } from "../debug/hypervisor.ts";
import { I8042 } from "../devices/i8042.ts";
import { TestContext } from "../devices/testing.ts";
import { kernel } from "../debug/testing/hosts.ts";
import { Host } from "./host.ts";
import { ENTRIES_KEPT, World } from "./world.ts";
import { subjectOf } from "../debug/domain.ts";

/** A multiboot kernel that writes AL to a port for ever, AL counting. */
const writer = (port: number) =>
  kernel(`  mov dx, ${port}\nagain:\n  inc al\n  out dx, al\n  jmp again`);

for (const type of ["bare", "hvm"] as const) {
  Deno.test(`what a guest writes without end is kept in part, and the rest is counted (${type})`, async () => {
    await using hv = await Hypervisor.start({ memory: "64M" });
    const kernel = writer(0x3f8);
    const dom = await hv.createDomain({ type, kernel, memory: "8M", consoleMemory: 8192 });
    const heard: string[] = [];
    dom.console.onOutput((text) => void heard.push(text), { passive: true });
    await dom.vcpus[0].step(60_000);
    const { text, dropped } = dom.console;
    assertEquals(dropped, 20_000 - 8192);
    assert(text.length > 4000, `${text.length} kept`);
    // However long a slice was, those who show it miss nothing. AL was of multiboot's EAX.
    const codes = Uint8Array.from({ length: 20_000 }, (_, n) => 0x2badb002 + 1 + n);
    assertEquals(heard.join(""), new TextDecoder().decode(codes));
    assertMatch(Deno.inspect(dom.console), /after 11,808 bytes not kept/);
    assertMatch(Deno.inspect(dom), /11,808 bytes not kept/);
  });

  Deno.test(`POST codes without end: the last are kept, all are counted (${type})`, async () => {
    await using hv = await Hypervisor.start({ memory: "64M" });
    const dom = await hv.createDomain({ type, kernel: writer(0x80), memory: "8M" });
    await dom.vcpus[0].step(30_001);
    const { posts } = subjectOf(dom).inner;
    assert(posts.length >= 1000 && posts.length < 2000, `${posts.length}`);
    assertEquals(posts.at(-1), 10_002 & 255);
    assertMatch(dom.devices.get("debug").show(), /10000 in all/);
  });
}

Deno.test("the world keeps its last entries and the last bytes, and counts the rest", () => {
  const world = new World(0, 1, () => 7);
  for (let n = 0; n < 3 * ENTRIES_KEPT.count; n++) world.enter("weight", 1, n);
  assertEquals(world.entries.length, ENTRIES_KEPT.count);
  assertEquals(world.dropped, 2 * ENTRIES_KEPT.count);
  assertEquals(world.entries.at(-1)?.position, { count: 7, ordinal: 3 * ENTRIES_KEPT.count - 1 });
  const { dropped } = world, part = ENTRIES_KEPT.bytes / 4;
  for (let n = 0; n < 6; n++) world.enter("input", 1, new Uint8Array(part));
  assertEquals(world.entries.length, 4);
  world.enter("write", 1, { gpa: 0, bytes: new Uint8Array(2 * part) });
  assertEquals(world.entries.map(({ kind }) => kind), ["input", "input", "write"]);
  assertEquals(world.dropped, dropped + ENTRIES_KEPT.count + 4);
});

Deno.test("a keyboard controller that nobody reads keeps so much, the last", () => {
  const device = new I8042(new TestContext());
  for (let n = 0; n < 20_000; n++) {
    device.write(0x64, 1, 0xd2);
    device.write(0x60, 1, n);
    device.write(0x60, 1, 0xee);
    device.write(0x64, 1, 0xd4);
    device.write(0x60, 1, 0xf2);
  }
  const { answers, keyboard, mouse } = device.state;
  assertEquals([answers.length, keyboard.queue.length], [4096, 4096]);
  assert(mouse.queue.length <= 4096);
  assertEquals(answers.at(-1), 19_999);
});

Deno.test("what would be ignored is refused below the shell", async () => {
  const config: DomainConfig = {
    name: "x",
    type: "hvm",
    kernel: { file: "k", bytes: writer(0x80) },
    memory: 8 << 20,
    vcpus: 1,
    paging: "hap",
  };
  const host = () => new Host({ cpu: "intel", memory: 64 << 20, unixTime: 0, seed: 1 });
  const refused = async (more: Partial<DomainConfig>, message: RegExp) => {
    const error = await assertRejects(() => build(host(), { ...config, ...more }), Error);
    assertMatch(error.message, message);
  };
  await refused(
    { type: "bare", vcpus: 2 },
    /domain x: 2 vCPUs were asked for, but a bare guest's are the host's: 1 processor/,
  );
  for (const vcpus of [0, 17, 2.5]) await refused({ vcpus }, /a whole number from 1 to 16 was exp/);
  await refused({ shadowMemory: 4 << 20 }, /shadowMemory was given/);
  await refused({ maxMemory: 64 << 20 }, /maxMemory was given, but only a domain that knows Xen/);
  await refused({ xenConsole: true }, /xenConsole was given/);
  await refused({ xen: true, maxMemory: 1 << 20 }, /1048576 bytes were given as maxMemory, but it/);
  await refused({ type: "bare", paging: "shadow" }, /paging "shadow" was asked for/);
  await refused({ type: "bare", weight: 300 }, /a weight was given/);
  await refused({ type: "bare", cap: 50 }, /a cap was given/);
  await refused({ type: "pv" }, /type "pv"/);
  await build(host(), config);
});

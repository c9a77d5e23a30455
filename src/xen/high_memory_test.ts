// Hosts whose frames lie about and above 2 GiB, and guests whose memory reaches there.
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { demoGuest } from "../builder/demo.ts";
import {
  WINDOW,
  WINDOW_LINEAR,
  windowAddress,
  windowBits,
  windowProgram,
  windowTables,
  windowText,
} from "../machine/testing_window.ts";
import { Frames } from "./frames.ts";
import { hostUnder, Hypervisor } from "../debug/hypervisor.ts";
import { subjectOf } from "../debug/domain.ts";

const LINE = 2 ** 31, MIB = 2 ** 20;
const KINDS = (["intel", "amd"] as const).flatMap((cpu) =>
  (["hap", "shadow"] as const).map((paging) => ({ cpu, paging }))
);

/** Runs all domains until the processor has retired `count` instructions. */
function runTo(hv: Hypervisor, count: number): void {
  const host = hostUnder(hv), { cpu } = host.machine;
  for (const d of hv.domains) subjectOf(d).inner.resume();
  while (cpu.count < count && (host.runOnce(count - cpu.count) || host.idle()));
  for (const d of hv.domains) subjectOf(d).inner.pause();
}

for (const { cpu, paging } of KINDS) {
  Deno.test(`a guest on frames about 2 GiB is the guest it is on others (${cpu}, ${paging})`, async () => {
    const hashes: string[] = [];
    for (const from of [MIB, LINE - 8 * MIB, LINE]) {
      await using hv = await Hypervisor.start({ cpu, memory: from + 40 * MIB });
      const host = hostUnder(hv);
      host.frames = new Frames(host.machine, from / 4096, () => host.world.random32());
      const { image: kernel } = demoGuest();
      const dom = await hv.createDomain({ kernel, paging, memory: "16M" });
      runTo(hv, 30_000);
      const first = dom.stateHash();
      const high = subjectOf(dom).inner.memory.machineAddress(0x10_0000);
      assert(high >= from);
      assertEquals(hv.memory.read(high, 64), dom.memory.read(0x10_0000, 64));
      const wanted = dom.memory.read(0x10_0010, 40);
      assertEquals(hv.memory.search(wanted, { from: high, limit: 1 }), [BigInt(high + 16)]);
      assertStringIncludes(
        String(hv.memory.dump(high, 16)),
        `0x${high.toString(16).padStart(8, "0")}`,
      );
      // What is saved there, and what is done to it afterwards, is the same too.
      const state = hv.save();
      runTo(hv, 60_000);
      const second = dom.stateHash();
      hv.load(state);
      assertEquals(dom.stateHash(), first);
      runTo(hv, 60_000);
      assertEquals(dom.stateHash(), second);
      hashes.push(`${first} ${second}`);
    }
    assertEquals(new Set(hashes).size, 1, hashes.join("\n"));
  });

  Deno.test(`a guest of 3 GiB uses all of it (${cpu}, ${paging})`, async () => {
    await using hv = await Hypervisor.start({ cpu, memory: "4G" });
    const { image: kernel } = demoGuest();
    const dom = await hv.createDomain({ kernel, paging, memory: "3G" });
    const { regs, pageTables } = dom.vcpus[0];
    const flat = { selector: 16, base: 0n, limit: 0xffff_ffff, attributes: 0xc093 };
    const outcomes: Record<string, string[]> = {};
    for (const base of [0x20_0000, LINE - 0x3000, 3 * 2 ** 30 - WINDOW.size]) {
      for (const mode of ["flat32", "2-level", "PAE", "4-level"] as const) {
        dom.memory.write(base, new Uint8Array(WINDOW.size));
        const program = windowProgram(mode, base);
        dom.memory.write(base + WINDOW.entry, program);
        for (const name of ["rax", "rcx", "rdx", "rsi", "rdi", "xmm0", "xmm1"]) {
          (regs as unknown as Record<string, bigint>)[name] = 0n;
        }
        regs.cr0 = 0x11n;
        regs.efer = mode === "4-level" ? 0x500n : 0n;
        regs.cr4 = mode === "PAE" || mode === "4-level" ? 0x220n : 0x200n;
        const paged = mode !== "flat32";
        if (paged) {
          const { at, bytes } = windowTables(mode, base);
          dom.memory.write(at, bytes);
          regs.cr3 = BigInt(at);
        }
        const long = windowBits(mode) === 64;
        for (const s of ["ss", "ds", "es"] as const) regs.segments[s] = flat;
        regs.segments.cs = { ...flat, selector: 8, attributes: long ? 0xa09b : 0xc09b };
        if (paged) regs.cr0 = 0x8001_0011n;
        const entry = windowAddress(mode, base) + WINDOW.entry;
        regs.rip = BigInt(entry);
        // Up to the HLT.
        await dom.until("execute", { address: entry + program.length - 1 });
        const text = windowText(dom.memory.read(base, WINDOW.size));
        (outcomes[mode] ??= []).push(`${regs.rax} ${regs.rdx} ${text}`);
        if (paged) {
          assertEquals(pageTables.walk(WINDOW_LINEAR + 0xf000).physical, BigInt(base + 0xf000));
        }
      }
    }
    for (const [mode, texts] of Object.entries(outcomes)) {
      assertEquals(new Set(texts).size, 1, mode);
      assert(texts[0].length > 500, texts[0]);
    }
  });
}

Deno.test("memory that is too much is refused in the unit it was given in", async () => {
  await assertRejects(
    () => Hypervisor.start({ memory: "5G" }),
    RangeError,
    'memory: from 4 KiB to 4 GiB in whole pages of 4 KiB was expected, "5G" was given',
  );
  await using hv = await Hypervisor.start({ memory: "64M" });
  const { image: kernel } = demoGuest();
  const refused = (memory: string | number, text: string, type: "hvm" | "bare" = "hvm") =>
    assertRejects(() => hv.createDomain({ kernel, memory, type }), RangeError, text);
  await refused("5G", 'memory: from 2 MiB to 3 GiB in whole pages of 4 KiB was expected, "5G" was');
  await refused("3073M", '"3073M" was given', "bare");
  await refused(2 ** 32, "memory: from 2097152 to 3221225472 in whole pages of 4 KiB was");
  await refused("1M", '"1M" was given');
  await refused("2.0001M", '"2.0001M" was given');
  await refused("64M", "needs 64 MiB, and 1 MiB for its tables; the host has 62 MiB free");
  assertThrows(() => hv.memory.read(64 * MIB, 1), RangeError, "memory ends at 0x4000000");
});

import {
  assert,
  assertEquals,
  assertNotEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { MSR } from "../abi/x86/msr.ts";
import { HvmEngine } from "../xen/hvm.ts";
import type { Board } from "../builder/board.ts";
import { demoGuest } from "../builder/demo.ts";
import { DebugPorts } from "../devices/debug.ts";
import { CPU } from "../machine/state.ts";
import { differing, placesOf, readRecording, writeRecording } from "../../tests/digest/record.ts";
import { SMALL, smallRuns } from "../../tests/digest/small.ts";
import { GuestDigest } from "./digest.ts";
import { type GuestDomain, subjectOf } from "./domain.ts";
import { hostUnder, Hypervisor } from "./hypervisor.ts";
import { hostHash } from "../xen/state.ts";
import { advance } from "./lockstep.ts";
import { type Configuration, configurations, hostOf, kernel, virtual } from "./testing/hosts.ts";
import { everyExit } from "./testing/every_exit.ts";

const named = ({ cpu, paging }: Configuration) => `${cpu} ${paging}`;
const recorded = readRecording(SMALL);

for (const guest of new Set(smallRuns.map(({ name }) => name.split(" ").slice(0, -2).join(" ")))) {
  Deno.test(`digest: what "${guest}" can see is as recorded, at ten positions in every way to run it`, async () => {
    for (const { name, run } of smallRuns.filter(({ name }) => name.startsWith(`${guest} `))) {
      const { images, places } = recorded[name] ?? {};
      assertEquals(places?.length, 10, `${name} is not recorded`);
      const seen = await run(places.map(({ position }) => position));
      assertEquals(seen.images, images, `${name} is another: deno task digest --small --record`);
      assertEquals(differing(places, seen.places), [], name);
    }
  });
}

/** Changes of one item each, and the section that has it. */
const CHANGES: readonly (readonly [section: string, (dom: GuestDomain) => void])[] = [
  ["registers", (dom) => dom.vcpus[0].regs.rbx = 0x1234n],
  ["registers", (dom) => dom.vcpus[0].regs.cr2 = 0x1234n],
  ["registers", (dom) => dom.vcpus[0].regs.dr3 = 0x1234n],
  ["registers", (dom) => {
    const { file } = subjectOf(dom).vcpus[0];
    file.setSegment("fs", { ...file.segment("fs"), limit: 0xfff });
  }],
  [
    "registers",
    (dom) => subjectOf(dom).vcpus[0].file.setTable("idtr", { base: 0x1234n, limit: 7 }),
  ],
  ["msrs", (dom) => dom.vcpus[0].regs.star = 0x1234n],
  ["msrs", (dom) => dom.vcpus[0].regs.pat = 0x0606n],
  ["msrs", (dom) => {
    const { vcpus: [{ engine, cpu }] } = subjectOf(dom).inner;
    if (engine instanceof HvmEngine) engine.msrs.set(MSR.MTRR_PHYSBASE0 + 5, 0x1000n);
    else cpu.set("mtrrVariable5", 0x1000n);
  }],
  ["float", (dom) => dom.vcpus[0].regs.xmm3 = 1n << 127n],
  ["float", (dom) => dom.vcpus[0].regs.fpr7 = 1n],
  ["float", (dom) => dom.vcpus[0].regs.mxcsr = 0x1fa0n],
  ["events", (dom) => {
    const { vcpus: [{ engine, cpu }] } = subjectOf(dom).inner;
    if (engine instanceof HvmEngine) {
      engine.ops.setInterruptShadow(engine.hvm, { sti: true, movSs: false, nmi: false });
    } else cpu.i32[CPU.interruptibility >> 2] ^= 1;
  }],
  ["memory", (dom) => dom.memory.write(0x5123, [1])],
  ["memory", (dom) => dom.memory.write(subjectOf(dom).inner.memory.size - 1, [1])],
  ["console", (dom) => subjectOf(dom).inner.emit(0x41)],
  ["pic", (dom) => dom.devices.get("pic").write!(0x21, 1, 0x5a)],
  ["pit", (dom) => dom.devices.get("pit").write!(0x43, 1, 0xb4)],
  ["rtc", (dom) => dom.devices.get("rtc").write!(0x70, 1, 0x11)],
  ["rtc", (dom) => {
    dom.devices.get("rtc").write!(0x70, 1, 0x8d);
    dom.devices.get("rtc").write!(0x71, 1, 0x11);
  }],
  ["coprocessor", (dom) => Object.assign(dom.devices.get("coprocessor").state, { ignore: true })],
  ["com1", (dom) => dom.devices.get("com1").write!(0x3ff, 1, 0x5a)],
  ["i8042", (dom) => {
    dom.devices.get("i8042").write!(0x64, 1, 0x61);
    dom.devices.get("i8042").write!(0x60, 1, 0x5a);
  }],
  ["i8042", (dom) => Object.assign(boardOf(dom).keyboard.state.mouse, { rate: 40 })],
  ["vga", (dom) => dom.devices.get("vga").write!(0x3c4, 1, 3)],
  ["vga", (dom) => dom.devices.get("vga").mmioWrite!(0xb8000, 1, 0x41)],
  ["debug", (dom) => dom.devices.get("debug").write!(0x80, 1, 0x5a)],
  ["fw_cfg", (dom) => dom.devices.get("fw_cfg").write!(0x510, 2, 5)],
  ["acpi", (dom) => dom.devices.get("acpi").write!(0xb3, 1, 0x5a)],
  ["pci", (dom) => dom.devices.get("pci").write!(0xcf8, 4, 0x8000_0100)],
  ["ioapic", (dom) => dom.devices.get("ioapic").mmioWrite!(0xfec0_0000, 1, 7)],
  ["lapic0", (dom) => dom.devices.get("lapic0").mmioWrite!(0xfee0_00d0, 4, 0x0100_0000)],
];
const boardOf = (dom: GuestDomain): Board => subjectOf(dom).board;

const changed = (a: GuestDigest, b: GuestDigest) =>
  Object.keys(a.sections).filter((name) => a.sections[name] !== b.sections[name]);

for (const way of configurations) {
  Deno.test(`digest: each change shows in its section and in no other, ${named(way)}`, async () => {
    await using host = await hostOf(way, demoGuest().image);
    const { dom } = host;
    advance(dom, 5000);
    let before = GuestDigest.of(dom);
    advance(dom, 1);
    let after = GuestDigest.of(dom);
    assert(changed(before, after).includes("time"));
    const unchanged = new Set(Object.keys(after.sections));
    for (const [n, [section, change]] of CHANGES.entries()) {
      before = after;
      change(dom);
      after = GuestDigest.of(dom);
      assertEquals(changed(before, after), [section], `change ${n}`);
      const found = before.differences(after).map(({ block }) => block);
      assertEquals([...new Set(found)], [section], `change ${n}`);
      assertNotEquals(after.hash, before.hash);
      unchanged.delete(section);
    }
    assertEquals([...unchanged], ["time"]);
  });

  Deno.test(`digest: looking changes nothing, wherever it is done, ${named(way)}`, async () => {
    await using often = await hostOf(way, everyExit(way.cpu));
    await using once = await hostOf(way, everyExit(way.cpu));
    for (let n = 0; n < 20; n++) {
      advance(often.dom, 991);
      const before = GuestDigest.of(often.dom).sections, hash = hostHash(hostUnder(often.hv));
      assertEquals(GuestDigest.of(often.dom).sections, before);
      assertEquals(hostHash(hostUnder(often.hv)), hash);
    }
    const [place] = await placesOf(once.dom, [20 * 991]);
    assertEquals(place.sections, GuestDigest.of(often.dom).sections);
    assertEquals(hostHash(hostUnder(once.hv)), hostHash(hostUnder(often.hv)));
  });
}

Deno.test("digest: how state is grouped and ordered, and which frames a host gives, is not in it", async () => {
  const seen = [], frames = [];
  for (const seed of [1, 99]) {
    await using hv = await Hypervisor.start({ memory: "32M", seed });
    const dom = await hv.createDomain({ kernel: demoGuest().image, memory: "4M" });
    advance(dom, 5000);
    const before = GuestDigest.of(dom);
    for (const device of dom.devices.devices) {
      device.state = Object.fromEntries(Object.entries(device.state).reverse());
    }
    assertEquals(GuestDigest.of(dom).sections, before.sections);
    seen.push(before.sections);
    frames.push(subjectOf(dom).inner.memory.machineAddress(0x10_0000));
  }
  assertNotEquals(frames[1], frames[0]);
  assertEquals(seen[1], seen[0]);
});

Deno.test("digest: a guest that cannot tell vendors and paging apart has one", async () => {
  const seen = [];
  for (const way of virtual) {
    await using host = await hostOf(way, demoGuest().image, { cpuid: "common" });
    seen.push((await placesOf(host.dom, [3000, 9000])).map(({ sections }) => sections));
  }
  for (const other of seen) assertEquals(other, seen[0]);
});

Deno.test("digest: frames of zeroes and the adapter's memory do not count, and chips not listed are refused", async () => {
  await using host = await hostOf({ cpu: "intel", paging: "bare" }, demoGuest().image);
  const { dom } = host, before = GuestDigest.of(dom);
  dom.memory.write(0x5000, new Uint8Array(4096));
  hostUnder(host.hv).machine.ram[0xa0010] = 1;
  assertEquals(GuestDigest.of(dom).sections, before.sections);
  dom.devices.attach(
    Object.assign(new DebugPorts({ consolePorts: [] }), { name: "another", ports: [] }),
  );
  const board = boardOf(dom);
  board.copy = () => board;
  assertThrows(() => GuestDigest.of(dom), Error, "no registers are listed of the device another");
});

Deno.test("digest: a chip is seen as the guest would find it, however long ago it was looked after", async () => {
  await using host = await hostOf({ cpu: "amd", paging: "hap" }, demoGuest().image);
  const { dom } = host, { rtc } = boardOf(dom);
  const seconds = () => {
    const { lines } = GuestDigest.of(dom).blocks.find(({ name }) => name === "rtc")!;
    return Number(lines.find((line) => line.startsWith("seconds "))!.split(" ")[1]);
  };
  const before = seconds(), { memory } = rtc.state;
  rtc.state.nextSecond = subjectOf(dom).inner.now;
  assertEquals([seconds(), memory[0]], [before + 1, before]);
});

/** RDMSR of each number: its value, or all ones where it is #GP. */
const readMsrs = (numbers: readonly number[]) =>
  kernel(`
    lgdt [gdtr]
    jmp 8:flat
  flat:
    mov ax, 16
    mov ss, ax
    mov ds, ax
    mov es, ax
    mov esp, 0x200000
    mov eax, refused
    and eax, 0xffff
    or eax, 0x80000
    mov [0x1000 + 13 * 8], eax
    mov dword [0x1000 + 13 * 8 + 4], 0x108e00
    lidt [idtr]
    mov edi, 0x2000
    ${numbers.map((n) => `mov ecx, ${n}\n call one`).join("\n")}
  end: jmp end
  one:
    rdmsr
    stosd
    mov eax, edx
    stosd
    ret
  refused:
    add esp, 4
    add dword [esp], 2
    mov eax, -1
    mov edx, -1
    iret
  gdtr: dw 23
    dd gdt
  idtr: dw 14 * 8 - 1
    dd 0x1000
  gdt: dd 0, 0, 0xffff, 0x00cf9b00, 0xffff, 0x00cf9300`);

for (const way of configurations) {
  Deno.test(`digest: its MSRs are what RDMSR gives, ${named(way)}`, async () => {
    const linesOf = (dom: GuestDomain) =>
      GuestDigest.of(dom).blocks.find(({ name }) => name === "msrs")!.lines
        .map((line) => line.split(" ") as [name: string, value: string]);
    const numberOf = (name: string) => {
      const [first, more = "0"] = name.split("+");
      return MSR[first as keyof typeof MSR] + Number(more);
    };
    await using some = await hostOf(way, demoGuest().image);
    const numbers = linesOf(some.dom).map(([name]) => numberOf(name));
    await using host = await hostOf(way, readMsrs(numbers));
    const { dom } = host;
    advance(dom, 20 * numbers.length);
    const view = new DataView(dom.memory.read(0x2000, 8 * numbers.length).slice().buffer);
    const given = linesOf(dom).map(([name, value], n) => {
      const read = view.getBigUint64(8 * n, true);
      // The counter has gone on since.
      if (name === "TSC") return [name, read > 0n && read < BigInt(`0x${value}`)];
      return [name, read === (1n << 64n) - 1n ? "#GP" : read.toString(16)];
    });
    assertEquals(given, linesOf(dom).map(([name, v]) => name === "TSC" ? [name, true] : [name, v]));
    assert(given.filter(([, value]) => value === "#GP").length < given.length / 2);
  });
}

Deno.test("a recording says where and in what a run differs, and survives its file", () => {
  const place = (position: number, a: string, b: string) => ({ position, sections: { a, b } });
  const places = [place(5, "0a", "0b"), place(9, "0a", "0c")];
  assertEquals(differing(places, places), []);
  assertEquals(differing(places, [place(5, "0a", "0b"), place(9, "0d", "0c")]), [
    { position: 9, sections: ["a"] },
  ]);
  assertEquals(differing(places, [place(5, "0a", "0b"), place(8, "0a", "0c")]), [
    { position: 9, sections: ["position"] },
  ]);
  assertEquals(differing(places, places.slice(1)), [
    { position: 5, sections: ["position"] },
    { position: 9, sections: ["position"] },
  ]);
  const file = Deno.makeTempFileSync();
  try {
    const images = { kernel: "ab" };
    writeRecording(file, { guest: { images, places }, other: { images, places } });
    assertStringIncludes(Deno.readTextFileSync(file), '"9 = 0c"');
    assertEquals(readRecording(file), { guest: { images, places }, other: { images, places } });
    const odd = { images, places: [{ position: 1, sections: { a: "0a" } }] };
    assertThrows(() => writeRecording(file, { guest: { images, places }, odd }), Error, "a b");
  } finally {
    Deno.removeSync(file);
  }
  assertEquals(readRecording(file), {});
});

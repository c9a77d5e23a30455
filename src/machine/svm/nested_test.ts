import { assertEquals } from "@std/assert";
import { EXIT_CODE, INTERCEPT1, NPF } from "../../abi/x86/vmcb.ts";
import { Bench, type Fields, PLACE } from "./testing.ts";

const b = new Bench();
const P = 1n, W = 2n, U = 4n, RSV = 8n, ID = 0x10n;

/** A guest with nested paging, its tables mapping one to one. */
function start(source: string, fields: Fields = {}): void {
  b.reset({ intercepts1: INTERCEPT1.hlt | INTERCEPT1.intr | INTERCEPT1.shutdown, ...fields });
  b.identityNested();
  b.load(`${source}\nhlt`);
}
const entry = (gpa: number, value: bigint) => b.view.setBigUint64(b.nestedEntry(gpa), value, true);
const told = () => [b.read("exitInfo1"), b.read("exitInfo2")];
const PAGE = PLACE.data & ~0xfff;

Deno.test("nested paging translates, and sets accessed and dirty bits as the guest goes", () => {
  start(`mov eax, [${PLACE.data}]\nmov [${PLACE.data + 0x1000}], eax`);
  b.view.setUint32(PLACE.data, 0x55aa, true);
  // The second page of the data is a third one in machine memory.
  entry(PAGE + 0x1000, BigInt(PAGE + 0x8000) | 7n);
  assertEquals(b.enter(10), EXIT_CODE.hlt);
  assertEquals(b.view.getUint32(PAGE + 0x8000, true), 0x55aa);
  const flags = (gpa: number) => b.view.getBigUint64(b.nestedEntry(gpa), true) & 0xfffn;
  assertEquals(
    [flags(PLACE.code), flags(PAGE), flags(PAGE + 0x1000), flags(PAGE + 0x2000)],
    [0x27n, 0x27n, 0x67n, 7n],
  );
  assertEquals(b.view.getBigUint64(PLACE.nested, true) & 0x60n, 0x20n);
});

Deno.test("a nested page fault tells its cause and the guest-physical address", () => {
  const read = `mov eax, [${PLACE.data + 8}]`, write = `mov [${PLACE.data + 8}], al`;
  const at = BigInt(PLACE.data + 8), data = BigInt(PAGE);
  const cases: [string, bigint, bigint][] = [
    [read, 0n, U],
    [write, 0n, U | W],
    [read, data | 3n, U | P],
    [write, data | 5n, U | P | W],
    [read, data | 7n | 1n << 40n, U | P | RSV],
  ];
  for (const [source, value, code] of cases) {
    start(source);
    entry(PAGE, value);
    assertEquals([source, b.enter(10)], [source, EXIT_CODE.nestedPageFault]);
    assertEquals(told(), [NPF.final | code, at]);
    assertEquals(b.read("rip"), BigInt(PLACE.code));
    assertEquals([b.read("nextRip"), b.read("instructionLength")], [0n, 15n]);
    assertEquals(b.read("instructionByte0"), source === write ? 0xa2n : 0xa1n);
  }
  // Fetches: no bytes to tell.
  start("nop");
  entry(PLACE.code, BigInt(PLACE.code) | 7n | 1n << 63n);
  assertEquals(b.enter(10), EXIT_CODE.nestedPageFault);
  assertEquals(told(), [NPF.final | U | P | ID, BigInt(PLACE.code)]);
  assertEquals(b.read("instructionLength"), 0n);
  // What lies outside the tables: the level above has no entry.
  start("mov eax, [0x40000000]");
  assertEquals(b.enter(10), EXIT_CODE.nestedPageFault);
  assertEquals(told(), [NPF.final | U, 0x4000_0000n]);
});

const PAGED: Fields = { cr0: 0x8001_0011, cr3: PLACE.tables };
/** Two levels of guest tables that map the first 2 MiB one to one, writable by users. */
function guestTables(): void {
  b.view.setUint32(PLACE.tables, PLACE.tables + 0x1000 | 7, true);
  for (let n = 0; n < 512; n++) b.view.setUint32(PLACE.tables + 0x1000 + 4 * n, n << 12 | 7, true);
}

Deno.test("the guest's page walk writes: its tables fault as such", () => {
  start(`mov eax, [${PLACE.data}]`, PAGED);
  guestTables();
  entry(PLACE.tables + 0x1000, BigInt(PLACE.tables + 0x1000) | 5n);
  assertEquals(b.enter(10), EXIT_CODE.nestedPageFault);
  const where = BigInt(PLACE.tables + 0x1000 + 4 * (PLACE.code >> 12));
  assertEquals(told(), [NPF.walk | U | P | W, where]);
  // With rights it goes through, and both sets of bits are there.
  start(`mov [${PLACE.data}], al`, PAGED);
  guestTables();
  assertEquals(b.enter(10), EXIT_CODE.hlt);
  const pte = PLACE.tables + 0x1000 + 4 * (PLACE.data >> 12);
  assertEquals(b.view.getUint32(pte, true) & 0xfff, 0x67);
  assertEquals(b.view.getBigUint64(b.nestedEntry(PLACE.tables), true) & 0xfffn, 0x67n);
});

Deno.test("a guest's own page fault is not the nested one's", () => {
  start(`mov eax, [${PLACE.data}]`, { ...PAGED, exceptions: 1 << 14 });
  guestTables();
  b.view.setUint32(PLACE.tables + 0x1000 + 4 * (PLACE.data >> 12), 0, true);
  assertEquals(b.enter(10), EXIT_CODE.exception + 14);
  assertEquals(told(), [0n, BigInt(PLACE.data)]);
});

Deno.test("a PAE guest's PDPTEs are read in memory at each walk", () => {
  const { view } = b, t = PLACE.tables;
  const tables = () => {
    view.setBigUint64(t + 0x20, BigInt(t + 0x1000) | 1n, true);
    view.setBigUint64(t + 0x28, BigInt(t + 0x1000) | 1n, true);
    view.setBigUint64(t + 0x1000, 0x83n, true);
  };
  const fields = { cr0: 0x8001_0011, cr4: 0x20, cr3: t + 0x20, exceptions: 1 << 14 };
  // The second entry is taken away by the guest; no MOV to CR3 tells the processor.
  start(
    `mov eax, [${PLACE.data + 2 ** 30}]\nmov dword [${t + 0x28}], 0\nmov ebx, [${
      PLACE.data + 2 ** 30
    }]`,
    fields,
  );
  tables();
  view.setUint32(PLACE.data, 0x77, true);
  assertEquals(b.enter(10), EXIT_CODE.exception + 14);
  assertEquals([b.gpr(0), b.gpr(3)], [0x77n, 0n]);
  assertEquals(told(), [0n, BigInt(PLACE.data + 2 ** 30)]);
  // A reserved bit faults in the walk, not at VMRUN.
  start("nop", fields);
  tables();
  view.setBigUint64(t + 0x20, BigInt(t + 0x1000) | 3n, true);
  assertEquals(b.enter(10), EXIT_CODE.exception + 14);
  // Instruction fetch: no NX, so the code does not say so.
  assertEquals(told()[0] & 0xfn, 9n);
});

Deno.test("nested tables have the format of the host's paging", () => {
  const { view, cpu } = b, t = PLACE.nested;
  const run = (host: Record<string, bigint>): number => {
    for (const [name, value] of Object.entries(host)) cpu.set(name, value);
    cpu.flushTlb();
    return b.enter(10);
  };
  const source = `mov eax, [${PLACE.data}]`;
  // PAE: four PDPTEs, pages of 2 MiB.
  start(source);
  view.setBigUint64(t + 0x20, BigInt(t + 0x1000) | 1n, true);
  view.setBigUint64(t + 0x1000, 0x87n, true);
  b.write("nestedCr3", t + 0x20);
  assertEquals(run({ efer: 0x1800n, cr4: 0x6a0n }), EXIT_CODE.hlt);
  // Two levels, pages of 4 MiB only with PSE.
  start(source);
  view.setBigUint64(t, 0x87n, true);
  assertEquals(run({ efer: 0x1000n, cr4: 0x610n }), EXIT_CODE.hlt);
  start(source);
  view.setBigUint64(t, BigInt(t + 0x1000) | 7n, true);
  for (let n = 0; n < 512; n++) view.setUint32(t + 0x1000 + 4 * n, n << 12 | 7, true);
  assertEquals(run({ efer: 0x1000n, cr4: 0x600n }), EXIT_CODE.hlt);
  assertEquals(view.getUint32(t + 0x1000 + 4 * (PLACE.data >> 12), true) & 0xfff, 0x27);
  // Large pages of a long-mode host.
  start(source);
  view.setBigUint64(t + 0x1000, 0x87n, true);
  assertEquals(run({}), EXIT_CODE.hlt);
});

Deno.test("a changed nested entry is seen at once", () => {
  start(`mov eax, [${PLACE.data}]\nhlt\nmov ebx, [${PLACE.data}]`);
  b.view.setUint32(PLACE.data, 1, true);
  b.view.setUint32(PAGE + 0x8000, 2, true);
  assertEquals(b.enter(10), EXIT_CODE.hlt);
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(PAGE + 0x8000) | 7n, true);
  b.machine.write(b.nestedEntry(PAGE), bytes);
  b.cpu.system.advanceGuest(1);
  assertEquals(b.enter(10), EXIT_CODE.hlt);
  assertEquals([b.gpr(0), b.gpr(3)], [1n, 2n]);
});

Deno.test("G_PAT is the guest's PAT with nested paging alone", () => {
  const run = (nested: boolean): bigint[] => {
    start("mov ecx, 0x277\nrdmsr\nmov eax, 0x01010101\nmov edx, eax\nwrmsr", {
      pat: 0x0606_0606_0606_0606n,
    });
    if (!nested) b.write("nestedControl", 0);
    assertEquals(b.enter(20), EXIT_CODE.hlt);
    return [b.read("pat"), b.cpu.get("pat")];
  };
  assertEquals(run(true), [0x0101_0101_0101_0101n, 0x0007_0406_0007_0406n]);
  assertEquals(run(false), [0x0606_0606_0606_0606n, 0x0101_0101_0101_0101n]);
});

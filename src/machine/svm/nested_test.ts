import { assertEquals } from "@std/assert";
import { EXIT_CODE, INTERCEPT1, NPF } from "../../abi/x86/vmcb.ts";
import { V } from "../state.ts";
import { SVMC } from "./layout.ts";
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
  const run = (host: Parameters<typeof cpu.setAll>[0]): number => {
    cpu.setAll(host);
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

/** A host's paging, as VMRUN leaves it in V.eptp. */
interface Format {
  readonly levels: number;
  readonly kind: number;
  readonly nxe: boolean;
  readonly pse?: boolean;
}
/** What the manual says of an access: the machine address, or the error code of the fault. */
type Answer = { readonly at: bigint } | { readonly code: bigint };

const HIGH = 0x000f_ffff_ffff_f000n & ~((1n << 36n) - 1n);

/** A plain walk (APM 2 chapter 5, 15.25.5), written apart from the machine's. */
function plainWalk(x: Format, root: bigint, gpa: bigint, write: boolean, fetch: boolean): Answer {
  const wide = x.levels > 2, bits = wide ? 9n : 10n, size = wide ? 8n : 4n;
  const asked = U | (write ? W : 0n) | (fetch && x.nxe ? ID : 0n);
  let table = root, user = true, writable = true, execute = true;
  for (let level = x.levels;; level--) {
    const shift = 12n + bits * BigInt(level - 1);
    const at = Number(table + (gpa >> shift & (1n << bits) - 1n) * size);
    const outside = at + Number(size) > b.machine.ram.length;
    const entry = outside
      ? (1n << 8n * size) - 1n
      : wide
      ? b.view.getBigUint64(at, true)
      : BigInt(b.view.getUint32(at, true));
    if (!(entry & 1n)) return { code: asked };
    const big = (entry & 0x80n) !== 0n &&
      (level === 2 ? wide || x.pse === true : level === 3 && x.levels === 4);
    let reserved = 0n;
    if (wide) {
      reserved = HIGH | (x.nxe ? 0n : 1n << 63n);
      if (x.levels === 3) reserved |= 0x7ff0_0000_0000_0000n;
      if (x.levels === 3 && level === 3) reserved |= 0x8000_0000_0000_01e6n;
      if (level === 4) reserved |= 0x180n;
      if (big) reserved |= ((1n << shift) - 1n) & ~0x1fffn;
    } else if (big) reserved = 0x3e_0000n;
    if (entry & reserved) return { code: asked | P | RSV };
    if (x.levels !== 3 || level < 3) {
      user &&= (entry & 4n) !== 0n;
      writable &&= (entry & 2n) !== 0n;
      execute &&= !(entry >> 63n & 1n);
    }
    if (!big && level > 1) {
      table = entry & 0x000f_ffff_ffff_f000n;
      continue;
    }
    if (!user || write && !writable || fetch && !execute) return { code: asked | P };
    const low = (1n << shift) - 1n;
    let frame = entry & 0x000f_ffff_ffff_f000n & ~low;
    if (big && !wide) frame = entry & 0xffc0_0000n | (entry >> 13n & 0xffn) << 32n;
    return { at: frame | gpa & low };
  }
}

Deno.test("the nested walk agrees with a plain one on random tables, in every format", () => {
  b.reset();
  const { cpu, view } = b, { system } = cpu;
  let x = 4711;
  const next = () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
  const formats: Format[] = [
    { levels: 4, kind: 3, nxe: true },
    { levels: 4, kind: 3, nxe: false },
    { levels: 3, kind: 2, nxe: true },
    { levels: 3, kind: 2, nxe: false },
    { levels: 2, kind: 1, nxe: false, pse: true },
    { levels: 2, kind: 0, nxe: false, pse: false },
  ];
  let found = 0, faults = 0;
  const nested = system.nested as unknown as (
    gpa: bigint,
    access: number,
    linear: bigint,
  ) => bigint;
  for (let round = 0; round < 6000; round++) {
    const format = formats[round % formats.length];
    // Eight frames of tables whose few entries point among themselves.
    if (round % 600 < formats.length) {
      cpu.flushTlb();
      for (let at = PLACE.nested; at < PLACE.nested + 0x8000; at += 8) {
        const target = BigInt(PLACE.nested + (next() % 8) * 0x1000);
        const odd = next() % 16 ? 0n : 1n << BigInt(next() % 64);
        const rights = next() % 4 ? 7n : BigInt(next() % 8);
        const entry = target | rights | odd;
        if (format.levels > 2) view.setBigUint64(at, entry, true);
        else {
          view.setUint32(at, Number(entry & 0xffff_ffffn), true);
          view.setUint32(at + 4, Number(target | 7n), true);
        }
      }
      for (let n = 0; format.levels === 3 && n < 4; n++) {
        view.setBigUint64(PLACE.nested + 8 * n, BigInt(PLACE.nested + 0x1000 * (n + 1)) | 1n, true);
      }
    }
    const gpa = BigInt(next()) | (format.levels === 4 ? BigInt(next() % 0x1_0000) << 32n : 0n);
    const kind = next() % 3, write = kind === 1, fetch = kind === 2;
    const expected = plainWalk(format, BigInt(PLACE.nested), gpa, write, fetch);
    const fetchBit = format.nxe ? 0x18 : 0;
    cpu.u64[V.eptp >> 3] = BigInt(PLACE.nested | 1 | format.kind << 1 | fetchBit);
    cpu.i32[V.abort >> 2] = 0;
    const at = nested(gpa, write ? 2 : fetch ? 16 : 0, -1n);
    const label = `round ${round}: ${gpa.toString(16)}`;
    if (cpu.i32[V.abort >> 2]) {
      faults++;
      assertEquals([label, { code: cpu.u64[SVMC.info1 >> 3] & ~NPF.final }], [label, expected]);
      assertEquals(cpu.u64[SVMC.info2 >> 3], gpa);
    } else {
      found++;
      assertEquals([label, { at: BigInt.asUintN(64, at) }], [label, expected]);
    }
  }
  cpu.u64[V.eptp >> 3] = 0n;
  cpu.i32[V.abort >> 2] = 0;
  assertEquals([found > 1000, faults > 1000], [true, true], `${found} found, ${faults} faults`);
});

// The page-directory pointers of PAE paging are registers: writes of CR0, CR3 and CR4 that the manual
// names load them anew and fault for a reserved bit in them, others do not (SDM 3 4.4.1).
import { assertEquals } from "@std/assert";
import { AT, WayGuest, type WayMode, wayName, WAYS } from "../debug/testing/ways.ts";

const CR4_PAE = 0x20, CR0 = 0x8000_0031;
/** Pointer 1: the addresses from 1 GByte on. */
const POINTER = AT.root + 8, DIRECTORY = AT.root + 0x1000;
const BAD = DIRECTORY | 1 | 1 << 5;

interface Change {
  readonly name: string;
  /** CR0 or CR4 before and after. */
  readonly cr: 0 | 3 | 4;
  readonly from?: number;
  readonly to: number;
  readonly loads: boolean;
}
const cr4 = (name: string, bit: number, loads: boolean): Change[] => [
  { name: `CR4.${name} set`, cr: 4, to: CR4_PAE | bit, loads },
  { name: `CR4.${name} cleared`, cr: 4, from: CR4_PAE | bit, to: CR4_PAE, loads },
];
const CD = 0x4000_0000, NW = 0x2000_0000;
const changes: readonly Change[] = [
  ...cr4("PGE", 0x80, true),
  ...cr4("PSE", 0x10, true),
  ...cr4("SMEP", 0x10_0000, true),
  ...cr4("VME", 1, false),
  ...cr4("TSD", 4, false),
  ...cr4("DE", 8, false),
  ...cr4("MCE", 0x40, false),
  ...cr4("PCE", 0x100, false),
  ...cr4("OSFXSR", 0x200, false),
  ...cr4("UMIP", 0x800, false),
  ...cr4("SMAP", 0x20_0000, false),
  ...cr4("OSXSAVE", 0x4_0000, false),
  { name: "CR4 as it is", cr: 4, to: CR4_PAE, loads: false },
  { name: "CR0.CD set", cr: 0, to: CR0 | CD, loads: true },
  { name: "CR0.CD cleared", cr: 0, from: CR0 | CD, to: CR0, loads: true },
  { name: "CR0.NW set", cr: 0, from: CR0 | CD, to: CR0 | CD | NW, loads: true },
  { name: "CR0.WP", cr: 0, to: CR0 | 0x1_0000, loads: false },
  { name: "CR0.NE cleared", cr: 0, to: CR0 & ~0x20, loads: false },
  { name: "CR0.AM", cr: 0, to: CR0 | 0x4_0000, loads: false },
  { name: "CR0.TS, MP", cr: 0, to: CR0 | 0xa, loads: false },
  { name: "CR0.NE and CD", cr: 0, to: (CR0 | CD) & ~0x20, loads: true },
  { name: "CR3", cr: 3, to: AT.root, loads: true },
];

/** A pointer is written, a control register then, and the pointer is used. */
function afterChange(g: WayGuest, { cr, from, to }: Change, pointer: number) {
  const before = from === undefined ? {} : { [`cr${cr}`]: BigInt(from >>> 0) };
  const regs = { rsp: BigInt(AT.stack), rbx: 0n, rsi: 0n, rdi: 0n };
  g.enter(
    "pae",
    `mov dword [${POINTER}], ${pointer}
    mov eax, ${to >>> 0}
    mov cr${cr}, eax
    mov esi, 1
    mov eax, [0x40000000 + ${AT.notes}]
    mov edi, 1
    mov ebx, 0
    hlt`,
    { ...before, regs },
  );
  const state = g.run();
  return { state, vector: g.reg("rbx"), wrote: g.reg("rsi"), read: g.reg("rdi") };
}

for (const way of WAYS) {
  const name = wayName(way);
  // Nested paging on AMD's processors has no such registers: the walk reads the table (APM 2 15.25.10).
  const registers = !(way.cpu === "amd" && way.type === "hvm" && way.paging === "hap");

  Deno.test(`page-directory pointers are loaded when CR0, CR3 and CR4 say so (${name})`, async () => {
    const g = await WayGuest.make(way);
    for (const change of changes) {
      const got = afterChange(g, change, DIRECTORY | 1);
      const seen = change.loads || !registers;
      const expected = seen
        ? { state: "blocked", vector: 0n, wrote: 1n, read: 1n }
        : { state: "blocked", vector: 14n, wrote: 1n, read: 0n };
      assertEquals([change.name, got], [change.name, expected]);
    }
  });

  Deno.test(`a reserved bit in a page-directory pointer is #GP when they are loaded (${name})`, async () => {
    const g = await WayGuest.make(way);
    for (const change of changes) {
      const got = afterChange(g, change, BAD);
      const faults = change.loads && registers;
      const expected = faults
        ? { state: "blocked", vector: 13n, wrote: 0n, read: 0n }
        : { state: "blocked", vector: 14n, wrote: 1n, read: 0n };
      assertEquals([change.name, got], [change.name, expected]);
    }
  });

  Deno.test(`paging that is turned on over bad page-directory pointers is #GP (${name})`, async () => {
    const g = await WayGuest.make(way);
    const turnOn = (mode: WayMode, code: string, more: Record<string, bigint>) => {
      g.enter(mode, code, more);
      g.write64(AT.root, BigInt(DIRECTORY) | 1n, BigInt(BAD), 0n, 0n);
      g.write64(DIRECTORY, 0x83n);
      return [g.run(), g.reg("rbx")];
    };
    for (const more of [0, 0x20, CD, CD | 0x20, 0x1_0000, 0x4_0000, 0xa]) {
      const to = (0x8000_0011 | more) >>> 0;
      const code = `mov eax, ${to}\nmov cr0, eax\nmov ebx, 0x55\nhlt`;
      const got = turnOn("flat32", code, { cr0: 0x11n, cr3: BigInt(AT.root), cr4: 0x20n });
      assertEquals([more, ...got], [more, "blocked", registers ? 13n : 0x55n]);
    }
    // Out of real mode at once.
    for (const more of [0, 0x20, CD | NW, 0x1_0022]) {
      const to = (0x8000_0011 | more) >>> 0;
      const code = `db 0x66, 0xb8\ndd ${to}\ndb 0x0f, 0x22, 0xc0\nmov bx, 0x55\nhlt`;
      const regs = { rsp: BigInt(AT.stack), rbx: 0n };
      g.enter("real", code, { cr3: BigInt(AT.root), cr4: 0x20n, regs });
      g.write64(AT.root, BigInt(DIRECTORY) | 1n, BigInt(BAD), 0n, 0n);
      g.write64(DIRECTORY, 0x83n);
      const got = [g.run(), g.reg("rbx")];
      assertEquals(["real", more, ...got], ["real", more, "blocked", registers ? 13n : 0x55n]);
    }
    // From 32-bit paging, by CR4.PAE: the directory is the table of pointers then.
    const code = `mov eax, 0x20\nmov cr4, eax\nmov ebx, 0x55\nhlt`;
    g.enter("two", code);
    // The page that the code is in, as a large page of the old format and a pointer of the new one.
    g.write64(AT.root, 0x83n, 0n, 0n, 0n);
    assertEquals(
      [g.run(), g.reg("rbx")].slice(0, registers ? 2 : 0),
      registers ? ["blocked", 13n] : [],
    );
  });
}

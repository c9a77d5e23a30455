import { assertEquals } from "@std/assert";
import { Cpuid } from "../cpuid.ts";
import { assemble } from "../isa/encode.ts";
import { Machine } from "../machine.ts";
import { ABORT, ACCESS, pdpte, V } from "../state.ts";
import { flatMachine, register, word } from "../testing.ts";
import { checkById } from "../checks.ts";

const P = 1n, W = 2n, U = 4n, A = 0x20n, D = 0x40n, PS = 0x80n, NX = 1n << 63n;
const WP = 0x1_0000n, SMEP = 1n << 20n, NXE = 0x800n;

type Format = "two" | "pae" | "four";
const FORMATS: readonly Format[] = ["two", "pae", "four"];

/** A processor whose walks are called by name, and tables in which one page is mapped. */
class Paged {
  readonly machine = new Machine({ memory: 1 << 20 });
  readonly cpu = this.machine.cpu;
  readonly linear: bigint;
  /** Addresses of the page's entries, by level; undefined where the format has none. */
  readonly entries: readonly (number | undefined)[];
  readonly wide: boolean;

  constructor(readonly format: Format) {
    const { cpu } = this;
    this.wide = format !== "two";
    this.linear = format === "four" ? 0x0000_1234_5678_9abcn : 0xc678_9abcn;
    const index = (shift: number, bits: number) =>
      Number(this.linear >> BigInt(shift) & (1n << BigInt(bits)) - 1n);
    this.entries = format === "two"
      ? [undefined, 0x12000 + 4 * index(12, 10), 0x11000 + 4 * index(22, 10)]
      : [
        undefined,
        0x12000 + 8 * index(12, 9),
        0x11000 + 8 * index(21, 9),
        ...(format === "four" ? [0x13000 + 8 * index(30, 9), 0x10000 + 8 * index(39, 9)] : []),
      ];
    cpu.set("cr3", format === "two" ? 0x11000n : 0x10000n);
    cpu.set("cr4", format === "two" ? 0x10n : 0x20n);
    if (format === "pae") cpu.u64[pdpte(index(30, 2)) >> 3] = 0x11001n;
    this.modes({});
    for (const [level, value] of [[1, 0x2_0000n], [2, 0x1_2000n], [3, 0x1_1000n], [4, 0x1_3000n]]) {
      if (this.entries[Number(level)]) this.set(Number(level), BigInt(value) | P | W | U);
    }
  }

  /** CR0.WP, CR4.SMEP and EFER.NXE. */
  modes({ wp = false, smep = false, nxe = false }): void {
    const { cpu } = this;
    cpu.set("cr0", 0x8000_0011n | (wp ? WP : 0n));
    cpu.set("cr4", (this.wide ? 0x20n : 0x10n) | (smep ? SMEP : 0n));
    cpu.set("efer", (this.format === "four" ? 0x500n : 0n) | (nxe ? NXE : 0n));
    cpu.system.refresh();
  }

  set(level: number, value: bigint): void {
    const bytes = new Uint8Array(this.wide ? 8 : 4), view = new DataView(bytes.buffer);
    if (this.wide) view.setBigUint64(0, value, true);
    else view.setUint32(0, Number(value), true);
    this.machine.write(this.entries[level]!, bytes);
  }
  get(level: number): bigint {
    const view = new DataView(this.machine.ram.buffer);
    const at = this.entries[level]!;
    return this.wide ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true));
  }

  /** The address, or the error code and the check of a #PF. */
  walk(access: number): bigint | string {
    const { cpu } = this, { i32 } = cpu;
    i32[V.abort >> 2] = ABORT.none;
    const at = cpu.system.walk(BigInt.asIntN(64, this.linear), access) as unknown as bigint;
    if (i32[V.abort >> 2] === ABORT.none) return at;
    i32[V.abort >> 2] = ABORT.none;
    assertEquals(i32[V.vector >> 2], 14);
    assertEquals(cpu.u64[V.faultAddress >> 3], this.linear);
    return `${i32[V.errorCode >> 2]} ${checkById(i32[V.check >> 2]).name}`;
  }
}

/** What an access comes to by the manual (SDM 3 4.6.1, 4.7): undefined, or the failing check. */
function refused(
  page: { writable: boolean; user: boolean; noExecute: boolean },
  access: { write: boolean; user: boolean; fetch: boolean; smap: boolean },
  modes: { wp: boolean; smep: boolean },
): string | undefined {
  const { write, user, fetch, smap } = access;
  if (user && !page.user) return "page.user";
  if (!user && page.user) {
    if (fetch && modes.smep) return "page.smep";
    if (!fetch && smap) return "page.smap";
  }
  if (write && !page.writable && (user || modes.wp)) return "page.write";
  return fetch && page.noExecute ? "page.fetch" : undefined;
}

/** All combinations of so many flags. */
const flags = (count: number) =>
  Array.from(
    { length: 1 << count },
    (_, n) => Array.from({ length: count }, (_, bit) => (n >> bit & 1) === 1),
  );

Deno.test("rights of pages, by every combination of bits and every kind of access", () => {
  for (const format of FORMATS) {
    const paged = new Paged(format);
    const kinds = [0, ACCESS.write, ACCESS.fetch].flatMap((k) => [
      k,
      k | ACCESS.user,
      k === ACCESS.fetch ? k : k | ACCESS.smap,
    ]);
    for (const [w1, u1, w2, u2, x1, x2] of flags(paged.wide ? 6 : 4)) {
      for (const [wp, smep, nxe] of flags(3)) {
        paged.modes({ wp, smep, nxe });
        if ((x1 || x2) && !nxe) continue;
        const bits = (w: boolean, u: boolean, x = false) =>
          P | (w ? W : 0n) | (u ? U : 0n) | (x ? NX : 0n);
        paged.set(1, 0x2_0000n | bits(w1, u1, x1));
        paged.set(2, 0x1_2000n | bits(w2, u2, x2));
        const page = { writable: w1 && w2, user: u1 && u2, noExecute: x1 || x2 };
        for (const kind of kinds) {
          const has = (bit: number) => (kind & bit) !== 0;
          const access = {
            write: has(ACCESS.write),
            user: has(ACCESS.user),
            fetch: has(ACCESS.fetch),
            smap: has(ACCESS.smap),
          };
          const check = refused(page, access, { wp, smep });
          const fetchBit = access.fetch && (smep || (paged.wide && nxe)) ? 16 : 0;
          const code = 1 | (access.write ? 2 : 0) | (access.user ? 4 : 0) | fetchBit;
          const expected = check ? `${code} ${check}` : 0x2_0abcn;
          const what = JSON.stringify({ format, ...page, ...access, wp, smep, nxe });
          assertEquals([what, paged.walk(kind)], [what, expected]);
        }
      }
    }
  }
});

Deno.test("accessed and dirty bits are set at every level, by what uses it", () => {
  for (const format of FORMATS) {
    const paged = new Paged(format);
    const levels = paged.entries.flatMap((at, level) => at === undefined ? [] : [level]);
    const bits = () => levels.map((level) => paged.get(level) & (A | D));
    assertEquals(paged.walk(ACCESS.probe), 0x2_0abcn);
    assertEquals(bits(), levels.map(() => 0n), `${format}, a look`);
    assertEquals(paged.walk(0), 0x2_0abcn);
    assertEquals(bits(), levels.map(() => A), `${format}, a read`);
    assertEquals(paged.walk(ACCESS.write), 0x2_0abcn);
    assertEquals(bits(), levels.map((level) => level === 1 ? A | D : A), `${format}, a write`);
    // A large page is dirty itself.
    paged.set(2, P | W | U | PS);
    const offset = paged.linear & (paged.wide ? 0x1f_ffffn : 0x3f_ffffn);
    assertEquals(paged.walk(ACCESS.write), offset);
    assertEquals(paged.get(2) & (A | D), A | D, `${format}, a large page`);
    // What is refused dirties nothing.
    paged.modes({ wp: true });
    paged.set(2, P | U | PS);
    assertEquals(paged.walk(ACCESS.write), "3 page.write");
    assertEquals(paged.get(2) & D, 0n);
  }
});

Deno.test("reserved bits of entries are #PF with RSVD", () => {
  const reserved = (format: Format, level: number, value: bigint, nxe = false) => {
    const paged = new Paged(format);
    paged.modes({ nxe });
    paged.set(level, value);
    assertEquals(paged.walk(0), "9 page.reserved", `${format} ${level} ${value.toString(16)}`);
  };
  reserved("two", 2, P | PS | 1n << 21n);
  for (const format of ["pae", "four"] as const) {
    reserved(format, 2, P | PS | 1n << 13n);
    reserved(format, 1, 0x2_0000n | P | NX);
    reserved(format, 1, 0x2_0000n | P | 1n << 51n);
  }
  reserved("pae", 1, 0x2_0000n | P | 1n << 62n, true);
  reserved("four", 3, P | PS | 1n << 13n);
  reserved("four", 4, 0x1_3000n | P | PS);
});

/** PAE paging: the low 2 MiB map to themselves by small pages; directory 0x91000, table 0x92000. */
function paeMachine(program: string, hot: boolean): Machine {
  const m = flatMachine(program, { hot }), view = new DataView(m.ram.buffer);
  m.cpu.hooks.cpuid = new Cpuid("intel").install(m.cpu.i32);
  const wide = (at: number, value: bigint) => view.setBigUint64(at, value, true);
  wide(0x90000, 0x91001n);
  wide(0x91000, 0x92003n);
  for (let n = 0; n < 256; n++) wide(0x92000 + 8 * n, BigInt(n << 12 | 3));
  // Others, where page 0x20 is 0x30.
  wide(0x93000, 0x94001n);
  wide(0x94000, 0x95003n);
  for (let n = 0; n < 256; n++) {
    wide(0x95000 + 8 * n, BigInt((n === 0x20 ? 0x30 : n) << 12 | 3));
  }
  view.setUint32(0x20000, 0x11111111, true);
  view.setUint32(0x30000, 0x22222222, true);
  m.cpu.set("cr3", 0x90000n);
  m.cpu.set("cr4", 0x20n);
  m.cpu.set("pdpte0", 0x91001n);
  m.cpu.set("cr0", 0x8001_0011n);
  m.cpu.hooks.fault = () => true;
  m.cpu.system.refresh();
  return m;
}

for (const hot of [true, false]) {
  const how = hot ? "hot" : "general";
  Deno.test(`MOV to CR3, CR4 and EFER drop what they change (${how})`, () => {
    const cr3 = paeMachine(
      "mov eax, [0x20000]\nmov edx, 0x93000\nmov cr3, edx\nmov ebx, [0x20000]\nend: jmp end",
      hot,
    );
    cr3.cpu.run(5);
    assertEquals([register(cr3, "rax"), register(cr3, "rbx")], [0x11111111, 0x22222222]);

    const cr4 = flatMachine(
      "mov eax, [0x20000]\nmov edx, 0x10\nmov cr4, edx\nmov ebx, [0x20000]\nend: jmp end",
      { hot },
    );
    const view = new DataView(cr4.ram.buffer);
    // Without PSE the entry names a table, with it a page.
    view.setUint32(0x90000, 0x83, true);
    view.setUint32(0x90004, 0x83, true);
    for (let n = 0; n < 256; n++) view.setUint32(4 * n, (n === 0x20 ? 0x30 : n) << 12 | 3, true);
    view.setUint32(0x20000, 0x11111111, true);
    view.setUint32(0x30000, 0x22222222, true);
    cr4.cpu.set("cr3", 0x90000n);
    cr4.cpu.set("cr0", 0x8001_0011n);
    cr4.cpu.system.refresh();
    cr4.cpu.run(5);
    assertEquals([register(cr4, "rax"), register(cr4, "rbx")], [0x22222222, 0x11111111]);

    const nxe = paeMachine(
      `mov eax, [0x21000]
      mov ecx, 0xc0000080
      xor eax, eax
      xor edx, edx
      wrmsr
      mov ebx, [0x21000]`,
      hot,
    );
    nxe.cpu.set("efer", NXE);
    new DataView(nxe.ram.buffer).setBigUint64(0x92000 + 8 * 0x21, 0x21003n | NX, true);
    assertEquals(nxe.cpu.run(6), "fault");
    assertEquals([nxe.cpu.lastFault?.vector, nxe.cpu.lastFault?.errorCode], [14, 9]);
  });

  Deno.test(`an access across two pages uses the translation of each (${how})`, () => {
    const m = paeMachine("mov dword ptr [0x1fffe], 0x44332211\nmov eax, [0x1fffe]", hot);
    new DataView(m.ram.buffer).setBigUint64(0x92000 + 8 * 0x20, 0x40003n, true);
    m.cpu.run(2);
    assertEquals(register(m, "rax"), 0x44332211);
    assertEquals([word(m, 0x1fffc), word(m, 0x40000)], [0x22110000, 0x4433]);
    assertEquals(word(m, 0x20000), 0x11111111);
  });

  Deno.test(`a page table is watched however often it is written (${how})`, () => {
    // The entry that is written first maps nothing; the second is in use.
    const m = paeMachine(
      `
      mov eax, [0x20000]
      mov dword ptr [0x92f80], 0x5000
      mov dword ptr [0x92f88], 0x6000
      mov dword ptr [0x92100], 0x30003
      mov ebx, [0x20000]`,
      hot,
    );
    m.cpu.run(5);
    assertEquals([register(m, "rax"), register(m, "rbx")], [0x11111111, 0x22222222]);
  });

  Deno.test(`64-bit addresses must be canonical, to their last byte (${how})`, () => {
    const attempt = (code: string, rbx: bigint): string => {
      const m = flatMachine(code, { hot, long: true });
      m.cpu.set("rbx", rbx);
      m.cpu.hooks.fault = () => true;
      const stop = m.cpu.run(1);
      return stop === "fault" ? `#${m.cpu.lastFault?.vector}` : stop;
    };
    const last = 0x7fff_ffff_ffffn;
    for (const code of ["mov eax, [rbx]", "add [rbx], eax", "movzx eax, word ptr [rbx]"]) {
      assertEquals([code, attempt(code, last)], [code, "#13"]);
      assertEquals([code, attempt(code, 1n << 47n)], [code, "#13"]);
      assertEquals([code, attempt(code, -1n << 63n)], [code, "#13"]);
    }
    assertEquals(attempt("mov al, [rbx]", 0x1000n), "budget");
    assertEquals(attempt("mov rsp, rbx", last), "budget");
    const m = flatMachine("push rax", { hot, long: true });
    m.cpu.set("rsp", 1n << 47n | 4n);
    m.cpu.hooks.fault = () => true;
    assertEquals([m.cpu.run(1), m.cpu.lastFault?.vector], ["fault", 12]);
  });
}

Deno.test("INVLPG and a changed entry are seen by instructions that were decoded before", () => {
  const m = paeMachine("call 0x40000\ncall 0x40000\nend: jmp end", true);
  m.write(0x40000, assemble("inc eax\nret", { mode: 32 }).bytes);
  m.write(0x50000, assemble("inc ebx\nret", { mode: 32 }).bytes);
  m.cpu.run(3);
  m.write(0x92000 + 8 * 0x40, Uint8Array.of(3, 0, 5));
  m.cpu.run(3);
  assertEquals([register(m, "rax"), register(m, "rbx")], [1, 1]);
});

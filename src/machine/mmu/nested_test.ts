import { assertEquals } from "@std/assert";
import { Machine } from "../machine.ts";
import { ABORT, ACCESS, V } from "../state.ts";

const R = 1, W = 2, X = 4, A = 0x100n, D = 0x200n;
const GPA = 0x12_3456_7abcn, LINEAR = 0x5678n;
const VIOLATION = 48, MISCONFIGURATION = 49;

/** Nested tables in which one page is mapped, and walks of it by name. */
class Nested {
  readonly machine = new Machine({ memory: 1 << 20 });
  readonly cpu = this.machine.cpu;
  /** Addresses of the entries by level. */
  readonly entries = [0, 12, 21, 30, 39].map((shift, level) =>
    level && 0x10000 + 0x1000 * (4 - level) + Number(GPA >> BigInt(shift) & 0x1ffn) * 8
  );

  constructor(accessedDirty = false) {
    this.cpu.u64[V.eptp >> 3] = 0x1_001en | (accessedDirty ? 0x40n : 0n);
    for (const level of [2, 3, 4]) {
      this.set(level, BigInt(0x10000 + 0x1000 * (5 - level)) | 7n);
    }
    this.set(1, 0x2_0037n);
  }

  set(level: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    this.machine.write(this.entries[level], bytes);
  }
  get(level: number): bigint {
    return new DataView(this.machine.ram.buffer).getBigUint64(this.entries[level], true);
  }

  /** The machine address, or the exit's reason and qualification. */
  walk(access: number, linear = LINEAR): bigint | [reason: number, qualification: number] {
    const { cpu } = this, { i32 } = cpu;
    i32[V.abort >> 2] = ABORT.none;
    i32[V.exitQualification >> 2] = 0;
    const at = cpu.system.nested(GPA, access, linear) as unknown as bigint;
    const abort = i32[V.abort >> 2];
    i32[V.abort >> 2] = ABORT.none;
    if (abort === ABORT.none) return at;
    assertEquals(abort, ABORT.exit);
    assertEquals(cpu.u64[V.exitGuestPhysical >> 3], GPA);
    return [i32[V.exitReason >> 2], i32[V.exitQualification >> 2]];
  }
}

Deno.test("rights of nested pages, at every level", () => {
  const nested = new Nested();
  const accesses = [
    [0, R, false],
    [ACCESS.write, W, false],
    [ACCESS.fetch, X, false],
    // The guest's own page walk only reads, without accessed and dirty flags.
    [ACCESS.table, R, true],
  ] as const;
  for (const level of [1, 2, 3, 4]) {
    const full = nested.get(level);
    for (let rights = 0; rights < 8; rights++) {
      // Writable without readable is malformed.
      if ((rights & 3) === W) continue;
      nested.set(level, full & ~7n | BigInt(rights));
      for (const [access, wanted, walk] of accesses) {
        const what = `level ${level}, rights ${rights}, access ${access}`;
        const expected = rights & wanted ? 0x2_0abcn : [
          VIOLATION,
          // SDM 3 table 27-7: the access, the rights, bit 7 a linear address, bit 8 not the walk.
          wanted | rights << 3 | 0x80 | (walk ? 0 : 0x100),
        ];
        assertEquals([what, nested.walk(access)], [what, expected]);
      }
    }
    nested.set(level, full);
  }
  nested.set(1, 0n);
  assertEquals(nested.walk(0, -1n), [VIOLATION, R], "no linear address");
});

Deno.test("nested accessed and dirty flags, and none without EPTP bit 6", () => {
  const levels = [1, 2, 3, 4];
  const flags = (nested: Nested) => levels.map((level) => nested.get(level) & (A | D));
  const plain = new Nested();
  plain.walk(ACCESS.write);
  assertEquals(flags(plain), [0n, 0n, 0n, 0n]);
  const nested = new Nested(true);
  nested.walk(ACCESS.probe);
  assertEquals(flags(nested), [0n, 0n, 0n, 0n], "a look");
  nested.walk(0);
  assertEquals(flags(nested), [A, A, A, A], "a read");
  nested.walk(ACCESS.write);
  assertEquals(flags(nested), [A | D, A, A, A], "a write");
  const tables = new Nested(true);
  tables.walk(ACCESS.table);
  assertEquals(flags(tables), [A | D, A, A, A], "a page walk counts as a write (SDM 3 28.3.5)");
  tables.set(1, 0x2_0035n);
  assertEquals(tables.walk(ACCESS.table), [VIOLATION, R | W | (R | X) << 3 | 0x80]);
});

Deno.test("malformed nested entries are misconfigurations", () => {
  const attempt = (level: number, value: bigint) => {
    const nested = new Nested();
    nested.set(level, value);
    const what = `level ${level}: 0x${value.toString(16)}`;
    assertEquals([what, nested.walk(0)], [what, [MISCONFIGURATION, 0]]);
  };
  for (const level of [1, 2, 3, 4]) {
    attempt(level, 0x2_0000n | 2n);
    attempt(level, 0x2_0000n | 6n);
    attempt(level, 1n << 51n | 7n);
  }
  // Memory types 2, 3 and 7 do not exist; large pages are aligned; PML4 entries have no page bit.
  for (const type of [2n, 3n, 7n]) attempt(1, 0x2_0007n | type << 3n);
  attempt(2, 0x87n | 6n << 3n | 1n << 12n);
  attempt(3, 0x87n | 6n << 3n | 1n << 29n);
  attempt(4, 0x1_1087n);
  attempt(2, 0x1_3007n | 0x20n);
});

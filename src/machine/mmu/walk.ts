/**
 * Page walks: 2-level with PSE, PAE and 4-level (SDM 3 chapter 4), nested through EPT in VMX
 * non-root operation (SDM 3 28.3). Written in the builder, run in Wasm.
 */
import { atBit } from "../mode.ts";
import { CR4, EFER } from "../../abi/x86/cr.ts";
import { VECTOR } from "../../abi/x86/vectors.ts";
import { ACCESS, CPU, FRAME, FRAME_FLAG, TLB_LIST, V } from "../state.ts";
import { cell, cell64, MEMORY, noteFault, setCell, setCell64, SHOOTDOWN } from "../linkage.ts";
import { check } from "../checks.ts";
import {
  ADDRESS,
  ADDRESS32,
  ENTRY,
  MODES,
  PAGES_ABSENT,
  PAGING,
  type PagingFormat,
  PDPTE_RESERVED,
  POINTER_TABLE,
  PSE36,
  shiftOf,
} from "./modes.ts";
import { type Expr, i32, i64, load } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";

const { P, W, U, A, D, PS } = ENTRY;
const NARROW = MODES[PAGING.twoLevel], WIDE = MODES[PAGING.pae], LONG = MODES[PAGING.fourLevel];

const CHECK = {
  present: check("page.present", "page {a}: entry {b} is not present", "SDM 3 4.7"),
  reserved: check("page.reserved", "page {a}: entry {b} has a reserved bit set", "SDM 3 4.7"),
  user: check("page.user", "page {a}: a user access to a supervisor page", "SDM 3 4.6.1"),
  write: check("page.write", "page {a}: a write to a read-only page", "SDM 3 4.6.1"),
  fetch: check(
    "page.fetch",
    "page {a}: an instruction fetch from an execute-disable page",
    "SDM 3 4.6.1",
  ),
  smep: check(
    "page.smep",
    "page {a}: a supervisor fetch from a user page, CR4.SMEP is set",
    "SDM 3 4.6.1",
  ),
  smap: check(
    "page.smap",
    "page {a}: a supervisor access to a user page, CR4.SMAP is set and AC clear",
    "SDM 3 4.6.1",
  ),
};

/** Why walks fail, for those that are made elsewhere. */
export { CHECK as PAGE_CHECK };

/** Address of the flags of the frame that holds physical address `pa` (an i32). */
export const frameEntry = (pa: Expr): Expr => pa.shrU(12).mul(FRAME.size);

/** If any of these marks is another processor's, what that has derived from the frame is dropped. */
export function elsewhere(
  f: Func,
  marks: Expr,
  own: number,
  entry: Local,
  what: (typeof SHOOTDOWN)[keyof typeof SHOOTDOWN],
): void {
  f.if(marks.and(cell(own).xor(-1)), () => f.call("shootdown", entry, i32(what)));
}

/** Declares `tableLoad32/64(pa) -> i64` and `tableStore32/64(pa, value)`: paging entries, by hardware. */
function buildTableAccess(m: Module): void {
  for (const bits of [32, 64] as const) {
    m.func(`tableLoad${bits}`, ["i64"], ["i64"], (f, pa) => {
      f.if(pa.geU(cell64(V.ramSize)), () => f.return(i64(-1)));
      const entry = f.let(frameEntry(pa.wrap()));
      const flags = f.let(load("i32", 32, "u", entry, FRAME.flags, MEMORY.frames));
      f.if(flags.and(FRAME_FLAG.mmio), () => f.return(i64(-1)));
      f.if(flags.and(cell(V.tableMark)).eqz(), () => {
        f.store(32, entry, flags.or(cell(V.tableMark)), FRAME.flags, MEMORY.frames);
        f.store(32, cell(V.tables).shl(2), entry, TLB_LIST.tables);
        setCell(f, V.tables, cell(V.tables).add(1));
        f.if(flags.and(FRAME_FLAG.inWriteTlb), () => {
          f.if(flags.and(cell(V.writeMark)), () => f.call("dropWrites"));
          elsewhere(f, flags.and(FRAME_FLAG.inWriteTlb), V.writeMark, entry, SHOOTDOWN.writes);
        });
      });
      f.result(load("i64", bits, "u", pa.wrap(), 0, MEMORY.ram));
    });
    // Accessed and dirty bits set by the walk itself: nothing derived from the entry goes stale.
    m.func(`tableStore${bits}`, ["i64", "i64"], [], (f, pa, value) => {
      f.if(pa.geU(cell64(V.ramSize)), () => f.return());
      const entry = f.let(frameEntry(pa.wrap()));
      const flags = f.let(load("i32", 32, "u", entry, FRAME.flags, MEMORY.frames));
      f.if(flags.and(FRAME_FLAG.rom | FRAME_FLAG.mmio), () => f.return());
      f.store(32, entry, flags.or(FRAME_FLAG.dirty), FRAME.flags, MEMORY.frames);
      f.store(bits, pa.wrap(), value, 0, MEMORY.ram);
    });
  }
}

/** One record of a probing walk, for the shell: level, table address, entry. */
export const WALK_STEP = { size: 24, level: 0, address: 8, entry: 16 } as const;
export const WALK_STEPS = 0x1c00;

/** Notes an entry that a probing walk has read; nested ones are numbered 0x100 + level. */
export function recordStep(f: Func, acc: Expr, level: Expr, address: Expr, entry: Expr): void {
  f.if(acc.and(ACCESS.probe), () => {
    const to = f.let(cell(V.walkCount).mul(WALK_STEP.size).add(WALK_STEPS));
    f.if(cell(V.walkCount).ltU(20), () => {
      f.store(32, to, level, WALK_STEP.level);
      f.store(64, to, address, WALK_STEP.address);
      f.store(64, to, entry, WALK_STEP.entry);
      setCell(f, V.walkCount, cell(V.walkCount).add(1));
    });
  });
}

/** Where the entry of an address is, in a table of 8-byte entries if `wide`. */
export function entryPlace(
  f: Func,
  where: Local,
  table: Expr,
  address: Expr,
  shift: Expr,
  wide: Expr,
): void {
  const place = ({ indexBits, bytes }: PagingFormat) =>
    table.add(address.shrU(shift.zext()).and((1 << indexBits) - 1).shl(Math.log2(bytes)));
  f.if(wide, () => f.set(where, place(WIDE)), () => f.set(where, place(NARROW)));
}

/** The entry at a machine address. */
export function loadEntry(f: Func, entry: Local, at: Expr, wide: Expr): void {
  f.if(wide, () => f.set(entry, f.call("tableLoad64", at)), () => {
    f.set(entry, f.call("tableLoad32", at));
  });
}

/** From an entry to the table of the level below. */
export function nextTable(
  f: Func,
  table: Local,
  entry: Local,
  level: Local,
  shift: Local,
  wide: Expr,
): void {
  f.set(table, entry.and(i64(ADDRESS).when(wide, i64(ADDRESS32))));
  f.set(level, level.sub(1));
  f.set(shift, shift.sub(i32(WIDE.indexBits).when(wide, i32(NARROW.indexBits))));
}

/** The address that a page's entry gives `address`; `big`: it is a large page's. */
export function leafAddress(
  f: Func,
  entry: Local,
  address: Expr,
  shift: Local,
  big: Expr,
  wide: Expr,
): Expr {
  const mask = f.let(i64(1).shl(shift.zext()).sub(1));
  const frame = f.let(entry.and(ADDRESS).and(mask.not()));
  f.if(wide.eqz(), () => {
    f.set(frame, entry.and(ADDRESS32).and(mask.not()));
    f.if(big, () => f.set(frame, frame.or(above4G(entry))));
  });
  return frame.or(address.and(mask));
}

/** Address bits 32 to 39 of a 4-MByte page. */
const above4G = (entry: Expr): Expr => entry.shrU(PSE36.shift).and(PSE36.mask).shl(32);

/** Bits of a 4-MByte page's entry that must be 0 are set. */
export const reservedIn4M = (entry: Expr): Expr =>
  entry.and(NARROW.large[2]).nez().or(above4G(entry).and(cell64(V.reservedHigh)).nez());

/** Bits that must be 0 in the entry of a large page of 8-byte entries, at level 2 or 3. */
export const reservedInLarge = (level: Expr): Expr =>
  i64(LONG.large[2]).when(level.eq(2), i64(LONG.large[3]));

/** Raises #PF for `linear`; bits of the error code that the walk decides come in `present`. */
function pageFault(f: Func, linear: Expr, acc: Expr, bits: Expr | number, id: number, entry: Expr) {
  const fetch = atBit(cell64(CPU.cr4), CR4.SMEP).and(1).or(
    atBit(cell64(CPU.efer), EFER.NXE).and(atBit(cell64(CPU.cr4), CR4.PAE)).and(1),
  ).wrap();
  const code = acc.and(W | U).or(acc.and(ACCESS.fetch).when(fetch, 0)).or(
    typeof bits === "number" ? i32(bits) : bits,
  );
  noteFault(f, VECTOR.PF, code, id, linear, entry);
  setCell64(f, V.faultAddress, linear);
}

/**
 * `walk(linear, access) -> physical`: the translation with its accessed and dirty bits set.
 * On failure V.abort is set. `pml4Reserved`: bits of a PML4 entry that must be 0.
 */
export function buildWalk(m: Module, pml4Reserved: number = PS): void {
  buildTableAccess(m);
  m.func("walk", ["i64", "i32"], ["i64"], (f, linear, acc) => {
    f.if(cell(V.paging).eqz(), () => {
      f.return(f.call("nested", linear, acc, linear));
    });
    const cr4 = f.let(cell64(CPU.cr4).wrap());
    const efer = f.let(cell64(CPU.efer).wrap());
    const long = f.let(atBit(efer, EFER.LMA).and(1));
    const pae = f.let(atBit(cr4, CR4.PAE).and(1));
    const nxe = f.let(atBit(efer, EFER.NXE).and(pae));
    const level = f.local("i32"), shift = f.local("i32"), table = f.local("i64");
    const entry = f.local("i64"), where = f.local("i64"), steps = f.local("i32");
    const rights = f.let(i32(W | U));
    const noExecute = f.let(i32(0));
    f.set(steps, 0);
    f.set(table, cell64(CPU.cr3).and(ADDRESS));
    f.set(level, i32(LONG.levels).when(long, i32(WIDE.levels)));
    const narrow = i32(shiftOf(WIDE, 2)).when(pae, i32(shiftOf(NARROW, 2)));
    f.set(shift, i32(shiftOf(LONG, 4)).when(long, narrow));
    f.if(pae.and(long.eqz()), () => {
      f.set(where, linear.shrU(30).and(3).shl(3));
      f.if(cell(V.pdptesInMemory), () => pdpteInMemory(f, linear, acc, where, entry), () => {
        f.set(entry, load("i64", 64, "u", where.wrap(), CPU.pdpte0));
      });
      recordStep(f, acc, i32(3), where, entry);
      f.if(entry.and(P).eqz(), () => {
        pageFault(f, linear, acc, 0, CHECK.present, entry);
        f.return(i64(0));
      });
      f.set(table, entry.and(ADDRESS));
    });
    const big = f.local("i32");
    f.block((found) => {
      f.loop((next) => {
        entryPlace(f, where, table, linear, shift, pae);
        const machine = f.call("nested", where, acc.and(ACCESS.probe).or(ACCESS.table), linear);
        f.if(cell(V.abort), () => f.return(i64(0)));
        loadEntry(f, entry, machine, pae);
        recordStep(f, acc, level, where, entry);
        f.if(entry.and(P).eqz(), () => {
          pageFault(f, linear, acc, 0, CHECK.present, entry);
          f.return(i64(0));
        });
        // A large page: PS at level 2 where allowed, at level 3 in 4-level paging.
        f.set(
          big,
          entry.shrU(7).wrap().and(1).and(
            level.eq(2).and(pae.or(atBit(cr4, CR4.PSE).and(1))).or(level.eq(3)),
          ),
        );
        f.if(f.call("reservedBits", entry, level, big, pae, nxe), () => {
          pageFault(f, linear, acc, P | 8, CHECK.reserved, entry);
          f.return(i64(0));
        });
        const slot = f.let(steps.shl(4));
        f.store(64, slot, machine, V.walkEntries);
        f.store(64, slot, entry, V.walkEntries + 8);
        f.set(steps, steps.add(1));
        f.set(rights, rights.and(entry.wrap()));
        f.set(noExecute, noExecute.or(entry.shrU(63).wrap()));
        f.brIf(found, big.or(level.eq(1)));
        nextTable(f, table, entry, level, shift, pae);
        f.br(next);
      });
    });
    checkRights(f, linear, acc, rights, noExecute.and(nxe), cr4, entry);
    f.if(acc.and(ACCESS.probe).eqz(), () => setAccessed(f, acc, steps, pae, V.walkEntries));
    f.result(f.call("nested", leafAddress(f, entry, linear, shift, big, pae), acc, linear));
  });
  buildReserved(m, pml4Reserved);
}

/** The PDPTE of a guest with nested paging on SVM: no register holds it (APM 2 15.25.10). */
function pdpteInMemory(f: Func, linear: Local, acc: Local, where: Local, entry: Local): void {
  f.set(where, cell64(CPU.cr3).and(POINTER_TABLE).add(where));
  const machine = f.call("nested", where, acc.and(ACCESS.probe).or(ACCESS.table), linear);
  f.if(cell(V.abort), () => f.return(i64(0)));
  f.set(entry, f.call("tableLoad64", machine));
  const reserved = cell64(V.reservedHigh).or(PDPTE_RESERVED);
  f.if(entry.and(P).nez().and(entry.and(reserved).nez()), () => {
    pageFault(f, linear, acc, P | 8, CHECK.reserved, entry);
    f.return(i64(0));
  });
}

/** `reservedBits(entry, level, big, pae, nxe) -> 0 | 1` (SDM 3 tables 4-4 to 4-20). */
function buildReserved(m: Module, pml4Reserved: number): void {
  m.func(
    "reservedBits",
    ["i64", "i32", "i32", "i32", "i32"],
    ["i32"],
    (f, e, level, big, pae, nxe) => {
      f.if(pae.eqz(), () => {
        const without = cell(V.pagesAbsent).and(PAGES_ABSENT.pse36).nez();
        f.return(big.and(reservedIn4M(e).or(without.and(above4G(e).nez()))));
      });
      const reserved = f.let(cell64(V.reservedHigh));
      // Without long mode bits 52 to 62 are reserved too.
      f.if(cell64(CPU.efer).and(EFER.LMA).eqz(), () => {
        f.set(reserved, reserved.or(0x7ff0_0000_0000_0000n));
      });
      f.if(nxe.eqz(), () => f.set(reserved, reserved.or(i64(1n << 63n))));
      f.if(big, () => {
        f.set(reserved, reserved.or(reservedInLarge(level)));
        const without = cell(V.pagesAbsent).and(PAGES_ABSENT.gigabyte);
        f.if(level.eq(3).and(without), () => f.set(reserved, reserved.or(PS)));
      }, () => {
        f.if(level.eq(4), () => f.set(reserved, reserved.or(pml4Reserved)));
      });
      f.result(e.and(reserved).nez());
    },
  );
}

function checkRights(
  f: Func,
  linear: Local,
  acc: Local,
  rights: Local,
  noExecute: Expr,
  cr4: Local,
  entry: Local,
): void {
  const fail = (condition: Expr, id: number) =>
    f.if(condition, () => {
      pageFault(f, linear, acc, P, id, entry);
      f.return(i64(0));
    });
  f.if(acc.and(ACCESS.probe).eqz(), () => {
    f.if(acc.and(ACCESS.user), () => {
      fail(rights.and(U).eqz(), CHECK.user);
      fail(acc.and(rights.not()).and(W), CHECK.write);
    }, () => {
      f.if(rights.and(U), () => {
        fail(acc.shrU(4).and(atBit(cr4, CR4.SMEP)).and(1), CHECK.smep);
        fail(acc.and(ACCESS.smap).nez().and(acc.and(ACCESS.fetch).eqz()), CHECK.smap);
      });
      fail(acc.and(rights.not()).and(W).and(cell64(CPU.cr0).shrU(15).wrap()), CHECK.write);
    });
    fail(acc.and(ACCESS.fetch).nez().and(noExecute), CHECK.fetch);
  });
}

/** Sets the accessed bits of the entries noted at `noted`, and the dirty bit of the last for a write. */
export function setAccessed(f: Func, acc: Local, steps: Local, wide: Local, noted: number): void {
  const i = f.let(i32(0));
  const old = f.local("i64"), now = f.local("i64"), slot = f.local("i32");
  f.loop((next) => {
    f.set(slot, i.shl(4));
    f.set(old, load("i64", 64, "u", slot, noted + 8));
    f.set(i, i.add(1));
    f.set(now, old.or(A));
    f.if(i.eq(steps).and(acc.and(W).nez()), () => f.set(now, now.or(D)));
    f.if(now.ne(old), () => {
      const where = f.let(load("i64", 64, "u", slot, noted));
      f.if(wide, () => f.call("tableStore64", where, now), () => {
        f.call("tableStore32", where, now);
      });
    });
    f.brIf(next, i.ltU(steps));
  });
}

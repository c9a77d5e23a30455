/**
 * Nested paging (APM 2 15.25): guest-physical to machine-physical through tables in the format of the
 * host's paging mode. All accesses are a user's; those of the guest's page walk are writes.
 */
import { NPF } from "../../abi/x86/vmcb.ts";
import { EXIT_CODE } from "../../abi/x86/vmcb.ts";
import { ABORT, ACCESS, CPU, EMULATED, V } from "../state.ts";
import { cell, cell64, setCell, setCell64 } from "../linkage.ts";
import { check } from "../checks.ts";
import { type Expr, i32, i64 } from "../wasm/expr.ts";
import type { Local, Module } from "../wasm/module.ts";
import { ADDRESS, ENTRY, MODES, PAGING, POINTER_TABLE, shiftOf } from "../mmu/modes.ts";
import {
  entryPlace,
  leafAddress,
  loadEntry,
  nextTable,
  recordStep,
  reservedIn4M,
  reservedInLarge,
  setAccessed,
} from "../mmu/walk.ts";
import { NESTED_KIND, NESTED_ROOT, SVMC } from "./layout.ts";

const { P, W, U } = ENTRY, RESERVED = 8, FETCH = 0x10;
const NARROW = MODES[PAGING.twoLevel], WIDE = MODES[PAGING.pae];

const CHECK = {
  present: check(
    "npt.present",
    "guest-physical {a}: nested entry {b} is not present",
    "APM 2 15.25.6",
  ),
  reserved: check(
    "npt.reserved",
    "guest-physical {a}: nested entry {b} has a reserved bit set",
    "APM 2 15.25.6",
  ),
  rights: check(
    "npt.rights",
    "guest-physical {a}: nested entry {b} does not allow the access",
    "APM 2 15.25.5",
  ),
};

/** `nptFault(check, physical, access, entry, bits) -> 0`: #VMEXIT(NPF). */
function buildFault(m: Module): void {
  m.func(
    "nptFault",
    ["i32", "i64", "i32", "i64", "i32"],
    [],
    (f, id, physical, acc, entry, bits) => {
      const table = f.let(acc.and(ACCESS.table));
      const told = cell(V.eptp).and(NESTED_ROOT.fetch);
      const own = acc.and(ACCESS.write).or(acc.and(ACCESS.fetch).when(told, i32(0)));
      const code = bits.or(U).or(i32(W).when(table, own));
      setCell(f, V.abort, ABORT.exit);
      setCell(f, V.exitReason, EXIT_CODE.nestedPageFault);
      setCell64(f, SVMC.info1, code.zext().or(i64(NPF.walk).when(table, i64(NPF.final))));
      setCell64(f, SVMC.info2, physical);
      setCell(f, SVMC.length, 0);
      setCell(f, SVMC.bytes, acc.and(ACCESS.fetch).eqz());
      setCell(f, V.check, id);
      setCell64(f, V.checkA, physical);
      setCell64(f, V.checkB, entry);
    },
  );
}

/** Reserved bits of a nested entry; `top`: a PDPTE of PAE paging. */
function buildReserved(m: Module): void {
  m.func("nptReserved", ["i64", "i32", "i32", "i32"], ["i32"], (f, entry, level, big, kind) => {
    const reserved = f.let(cell64(V.reservedHigh));
    f.if(kind.ltU(NESTED_KIND.pae), () => {
      f.return(big.and(reservedIn4M(entry)));
    });
    const nxe = cell(V.eptp).and(NESTED_ROOT.nxe);
    f.if(nxe.eqz(), () => f.set(reserved, reserved.or(i64(1n << 63n))));
    f.if(kind.eq(NESTED_KIND.pae), () => {
      f.set(reserved, reserved.or(0x7ff0_0000_0000_0000n));
      f.if(level.eq(3), () => f.set(reserved, reserved.or(0x8000_0000_0000_01e6n)));
    });
    f.if(big, () => {
      f.set(reserved, reserved.or(reservedInLarge(level)));
    }, () => f.if(level.eq(4), () => f.set(reserved, reserved.or(0x180))));
    f.result(entry.and(reserved).nez());
  });
}

/** What an access asks for besides being a user's: write and fetch. The emulator reads tables in ROM. */
function wantedBy(acc: Local): Expr {
  const walk = i32(W).when(acc.and(ACCESS.probe).or(cell(V.emulating)).eqz(), i32(0));
  return walk.when(acc.and(ACCESS.table), acc.and(ACCESS.write | ACCESS.fetch));
}

function buildNptWalk(m: Module): void {
  m.func("nptWalk", ["i64", "i32", "i64"], ["i64"], (f, physical, acc, _linear) => {
    const root = f.let(cell64(V.eptp));
    const kind = f.let(root.wrap().shrU(NESTED_ROOT.kindShift).and(3));
    const wide = f.let(kind.geU(NESTED_KIND.pae)), long = f.let(kind.eq(NESTED_KIND.long));
    const wanted = f.let(wantedBy(acc)), probe = f.let(acc.and(ACCESS.probe));
    const level = f.let(i32(2).add(wide).add(long));
    const narrow = i32(shiftOf(NARROW, 2));
    const shift = f.let(i32(shiftOf(WIDE, 3)).add(long.mul(WIDE.indexBits)).when(wide, narrow));
    const table = f.let(root.and(ADDRESS)), steps = f.let(i32(0));
    const rights = f.let(i32(W | U)), noExecute = f.let(i32(0));
    const entry = f.let(i64(0)), where = f.local("i64"), big = f.local("i32");
    const fault = (id: number, bits: number) => {
      f.call("nptFault", i32(id), physical, acc, entry, i32(bits));
      f.return(i64(0));
    };
    /** Nothing there, or not for this: while an instruction is emulated the log answers. */
    const violation = (id: number, bits: number) => {
      f.if(cell(V.emulating), () => f.return(physical.or(EMULATED)));
      fault(id, bits);
    };
    f.if(kind.eq(NESTED_KIND.pae), () => f.set(table, root.and(POINTER_TABLE)));
    // Tables of 32-bit hosts end at 4 GiB.
    f.if(long.eqz().and(physical.shrU(32).nez()), () => violation(CHECK.present, 0));
    f.block((found) => {
      f.loop((next) => {
        entryPlace(f, where, table, physical, shift, wide);
        loadEntry(f, entry, where, wide);
        recordStep(f, probe, level.or(0x100), where, entry);
        f.if(entry.wrap().and(P).eqz(), () => violation(CHECK.present, 0));
        const two = level.eq(2).and(kind.ne(NESTED_KIND.legacy));
        const large = two.or(level.eq(3).and(long));
        f.set(big, entry.wrap().shrU(7).and(1).and(large));
        f.if(f.call("nptReserved", entry, level, big, kind), () => {
          fault(CHECK.reserved, P | RESERVED);
        });
        // The PDPTEs of PAE paging have neither rights nor an accessed bit.
        f.if(level.eq(3).and(long.eqz()).eqz(), () => {
          f.set(rights, rights.and(entry.wrap()));
          f.set(noExecute, noExecute.or(entry.shrU(63).wrap().and(wide)));
          f.store(64, steps.shl(4), where, SVMC.nestedEntries);
          f.store(64, steps.shl(4), entry, SVMC.nestedEntries + 8);
          f.set(steps, steps.add(1));
        });
        f.brIf(found, big.or(level.eq(1)));
        nextTable(f, table, entry, level, shift, wide);
        f.br(next);
      });
    });
    f.if(probe.eqz(), () => {
      const missing = rights.xor(U).and(U).or(wanted.and(rights.not()).and(W))
        .or(wanted.and(FETCH).nez().and(noExecute));
      f.if(missing, () => violation(CHECK.rights, P));
      setAccessed(f, wanted, steps, wide, SVMC.nestedEntries);
    });
    f.result(leafAddress(f, entry, physical, shift, big, wide));
  });
}

/** `nested(physical, access, linear) -> machine`. On failure V.abort is set (a #VMEXIT). */
export function buildNestedPaging(m: Module): void {
  m.declareLater("nptWalk", ["i64", "i32", "i64"], ["i64"]);
  m.func("nested", ["i64", "i32", "i64"], ["i64"], (f, physical, acc, linear) => {
    f.if(cell64(V.eptp).eqz(), () => f.return(physical.and(cell(CPU.a20Mask).sext())));
    f.result(f.call("nptWalk", physical, acc, linear));
  });
  buildFault(m);
  buildReserved(m);
  buildNptWalk(m);
}

/**
 * Nested paging (APM 2 15.25): guest-physical to machine-physical through tables in the format of the
 * host's paging mode. All accesses are a user's; those of the guest's page walk are writes.
 */
import { NPF } from "../../abi/x86/vmcb.ts";
import { EXIT_CODE } from "../../abi/x86/vmcb.ts";
import { ABORT, ACCESS, CPU, EMULATED, V } from "../state.ts";
import { cell, cell64, setCell, setCell64 } from "../system.ts";
import { check } from "../checks.ts";
import { type Expr, i32, i64, load } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { WALK_STEP, WALK_STEPS } from "../mmu/walk.ts";
import { NESTED_KIND, NESTED_ROOT, SVMC } from "./layout.ts";

const P = 1, W = 2, U = 4, A = 0x20, D = 0x40;
const RESERVED = 8, FETCH = 0x10;
const ADDRESS = 0x000f_ffff_ffff_f000n;

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

/** Levels of the nested walk, for the shell: numbered 0x100 + level. */
function recordStep(f: Func, level: Local, address: Expr, entry: Local): void {
  const to = f.let(cell(V.walkCount).mul(WALK_STEP.size).add(WALK_STEPS));
  f.if(cell(V.walkCount).ltU(20), () => {
    f.store(32, to, level.or(0x100), WALK_STEP.level);
    f.store(64, to, address, WALK_STEP.address);
    f.store(64, to, entry, WALK_STEP.entry);
    setCell(f, V.walkCount, cell(V.walkCount).add(1));
  });
}

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
      // A 4-MByte page: bit 21, and address bits above MAXPHYADDR in 13 to 20.
      const high = entry.shrU(13).and(0xff).shl(32).and(reserved).nez();
      f.return(big.and(entry.and(0x20_0000).nez().or(high)));
    });
    const nxe = cell(V.eptp).and(NESTED_ROOT.nxe);
    f.if(nxe.eqz(), () => f.set(reserved, reserved.or(i64(1n << 63n))));
    f.if(kind.eq(NESTED_KIND.pae), () => {
      f.set(reserved, reserved.or(0x7ff0_0000_0000_0000n));
      f.if(level.eq(3), () => f.set(reserved, reserved.or(0x8000_0000_0000_01e6n)));
    });
    f.if(big, () => {
      f.set(reserved, reserved.or(i64(0x1f_e000).when(level.eq(2), i64(0x3fff_e000))));
    }, () => f.if(level.eq(4), () => f.set(reserved, reserved.or(0x180))));
    f.result(entry.and(reserved).nez());
  });
}

/** What an access asks for besides being a user's: write and fetch. The emulator reads tables in ROM. */
function wantedBy(acc: Local): Expr {
  const walk = i32(W).when(acc.and(ACCESS.probe).or(cell(V.emulating)).eqz(), i32(0));
  return walk.when(acc.and(ACCESS.table), acc.and(ACCESS.write | ACCESS.fetch));
}

/** Sets accessed bits, and the dirty bit of the last entry for a write. */
function setAccessed(f: Func, wanted: Local, steps: Local, wide: Local): void {
  const i = f.let(i32(0)), slot = f.local("i32"), old = f.local("i64"), now = f.local("i64");
  f.while(() => i.ltU(steps), () => {
    f.set(slot, i.shl(4));
    f.set(old, load("i64", 64, "u", slot, SVMC.nestedEntries + 8));
    f.set(i, i.add(1));
    f.set(now, old.or(A));
    f.if(i.eq(steps).and(wanted.and(W).nez()), () => f.set(now, now.or(D)));
    f.if(now.ne(old), () => {
      const where = f.let(load("i64", 64, "u", slot, SVMC.nestedEntries));
      f.if(wide, () => f.call("tableStore64", where, now), () => {
        f.call("tableStore32", where, now);
      });
    });
  });
}

function buildNptWalk(m: Module): void {
  m.func("nptWalk", ["i64", "i32", "i64"], ["i64"], (f, physical, acc, _linear) => {
    const root = f.let(cell64(V.eptp));
    const kind = f.let(root.wrap().shrU(NESTED_ROOT.kindShift).and(3));
    const wide = f.let(kind.geU(NESTED_KIND.pae)), long = f.let(kind.eq(NESTED_KIND.long));
    const wanted = f.let(wantedBy(acc)), probe = f.let(acc.and(ACCESS.probe));
    const level = f.let(i32(2).add(wide).add(long));
    const shift = f.let(i64(22).sub(wide.zext()).add(wide.add(long).mul(9).zext()));
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
    f.if(kind.eq(NESTED_KIND.pae), () => f.set(table, root.and(0xffff_ffe0n)));
    // Tables of 32-bit hosts end at 4 GiB.
    f.if(long.eqz().and(physical.shrU(32).nez()), () => violation(CHECK.present, 0));
    f.block((found) => {
      f.loop((next) => {
        f.set(
          where,
          table.add(
            physical.shrU(shift).and(0x1ff).shl(3).when(
              wide,
              physical.shrU(shift).and(0x3ff).shl(2),
            ),
          ),
        );
        f.if(wide, () => f.set(entry, f.call("tableLoad64", where)), () => {
          f.set(entry, f.call("tableLoad32", where));
        });
        f.if(probe, () => recordStep(f, level, where, entry));
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
        f.set(table, entry.and(i64(ADDRESS).when(wide, i64(0xffff_f000n))));
        f.set(level, level.sub(1));
        f.set(shift, shift.sub(i64(9).when(wide, i64(10))));
        f.br(next);
      });
    });
    f.if(probe.eqz(), () => {
      const missing = rights.xor(U).and(U).or(wanted.and(rights.not()).and(W))
        .or(wanted.and(FETCH).nez().and(noExecute));
      f.if(missing, () => violation(CHECK.rights, P));
      setAccessed(f, wanted, steps, wide);
    });
    const mask = f.let(i64(1).shl(shift).sub(1));
    const frame = f.let(entry.and(ADDRESS).and(mask.not()));
    f.if(wide.eqz(), () => {
      f.set(frame, entry.and(0xffff_f000n).and(mask.not()));
      f.if(big, () => f.set(frame, frame.or(entry.shrU(13).and(0xff).shl(32))));
    });
    f.result(frame.or(physical.and(mask)));
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

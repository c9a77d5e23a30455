/** Guest-physical to machine-physical: identity, or the extended page tables of VMX (SDM 3 28.3). */
import { ABORT, ACCESS, CPU, EMULATED, V } from "../state.ts";
import { cell, cell64, setCell, setCell64 } from "../linkage.ts";
import { check } from "../checks.ts";
import { type Expr, i32, i64 } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { WALK_STEP, WALK_STEPS } from "./walk.ts";

const ADDRESS = 0x000f_ffff_ffff_f000n;
const EPT_VIOLATION = 48, EPT_MISCONFIGURATION = 49;

const CHECK = {
  violation: check(
    "ept.violation",
    "guest-physical {a}: EPT entry {b} does not allow the access",
    "SDM 3 28.3.3.2",
  ),
  misconfiguration: check(
    "ept.misconfiguration",
    "guest-physical {a}: EPT entry {b} has a setting that is not allowed",
    "SDM 3 28.3.3.1",
  ),
};

function nestedExit(f: Func, reason: number, id: number, physical: Local, entry: Local) {
  setCell(f, V.abort, ABORT.exit);
  setCell(f, V.exitReason, reason);
  setCell64(f, V.exitGuestPhysical, physical);
  setCell(f, V.check, id);
  setCell64(f, V.checkA, physical);
  setCell64(f, V.checkB, entry);
}

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

/** `nested(physical, access, linear) -> machine`. On failure V.abort is set (a VM exit). */
export function buildNested(m: Module): void {
  m.func("nested", ["i64", "i32", "i64"], ["i64"], (f, physical, acc, linear) => {
    f.if(cell(V.eptp).eqz(), () => {
      f.return(physical.and(cell(CPU.a20Mask).sext()));
    });
    f.result(f.call("eptWalk", physical, acc, linear));
  });
  m.func("eptWalk", ["i64", "i32", "i64"], ["i64"], (f, physical, acc, linear) => {
    const eptp = f.let(cell64(V.eptp));
    const flags = f.let(eptp.shrU(6).and(1).wrap());
    const isTable = f.let(acc.and(ACCESS.table));
    // Read, write, fetch as bits 0 to 2; a walk's own accesses count as writes with the A/D flags on.
    const wanted = f.let(
      i32(1).or(flags.shl(1)).when(
        isTable,
        acc.and(ACCESS.write).or(acc.shrU(2).and(4)).or(acc.and(ACCESS.fetch | ACCESS.write).eqz()),
      ),
    );
    const level = f.let(i32(4)), shift = f.let(i64(39)), table = f.let(eptp.and(ADDRESS));
    const rights = f.let(i32(7)), entry = f.let(i64(0)), where = f.local("i64");
    const big = f.local("i32"), low = f.local("i32");
    const violation = () => {
      f.if(cell(V.emulating), () => f.return(physical.or(EMULATED)));
      nestedExit(f, EPT_VIOLATION, CHECK.violation, physical, entry);
      const valid = f.let(linear.ne(-1));
      setCell64(
        f,
        V.exitQualification,
        wanted.or(rights.shl(3)).or(valid.shl(7)).or(valid.and(isTable.eqz()).shl(8)).zext(),
      );
      setCell64(f, V.exitGuestLinear, linear);
      f.return(i64(0));
    };
    f.block((found) => {
      f.loop((next) => {
        f.set(where, table.add(physical.shrU(shift).and(0x1ff).shl(3)));
        f.set(entry, f.call("tableLoad64", where));
        f.set(low, entry.wrap());
        f.if(acc.and(ACCESS.probe), () => recordStep(f, level, where, entry));
        f.if(low.and(7).eqz(), () => {
          f.set(rights, 0);
          violation();
        });
        f.set(big, low.shrU(7).and(1).and(level.eq(2).or(level.eq(3))));
        f.if(f.call("eptMisconfigured", entry, level, big), () => {
          nestedExit(f, EPT_MISCONFIGURATION, CHECK.misconfiguration, physical, entry);
          f.return(i64(0));
        });
        f.set(rights, rights.and(low));
        f.brIf(found, big.or(level.eq(1)));
        setAccessed(f, acc, flags, where, entry, i32(0x100));
        f.set(table, entry.and(ADDRESS));
        f.set(level, level.sub(1));
        f.set(shift, shift.sub(9));
        f.br(next);
      });
    });
    f.if(wanted.and(rights.not()).nez().and(acc.and(ACCESS.probe).eqz()), () => violation());
    setAccessed(f, acc, flags, where, entry, i32(0x300).when(wanted.and(2), i32(0x100)));
    const mask = f.let(i64(1).shl(shift).sub(1));
    f.result(entry.and(ADDRESS).and(mask.not()).or(physical.and(mask)));
  });
  m.func("eptMisconfigured", ["i64", "i32", "i32"], ["i32"], (f, entry, level, big) => {
    const low = f.let(entry.wrap());
    // Writable but not readable.
    f.if(low.and(3).eq(2), () => f.return(i32(1)));
    f.if(entry.and(cell64(V.reservedHigh)).nez(), () => f.return(i32(1)));
    const leaf = f.let(big.or(level.eq(1)));
    f.if(leaf, () => {
      const type = f.let(low.shrU(3).and(7));
      f.if(type.eq(2).or(type.eq(3)).or(type.eq(7)), () => f.return(i32(1)));
      f.if(big, () => {
        f.return(entry.and(i64(0x1f_f000).when(level.eq(2), i64(0x3fff_f000))).nez());
      });
    }, () => {
      f.return(low.and(i32(0xf8).when(level.eq(4), i32(0x78))).nez());
    });
    f.result(i32(0));
  });
}

function setAccessed(f: Func, acc: Local, flags: Local, where: Local, entry: Local, bits: Expr) {
  f.if(flags.and(acc.and(ACCESS.probe).eqz()), () => {
    const now = f.let(entry.or(bits.zext()));
    f.if(now.ne(entry), () => f.call("tableStore64", where, now));
  });
}

/** MSR areas of VM entry and exit (SDM 3 26.4, 27.4, 27.6): lists in machine memory. */
import { check } from "../checks.ts";
import { ABORT, V } from "../state.ts";
import { cell, cell64, MEMORY, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, i64, load } from "../wasm/expr.ts";
import type { Func, Module } from "../wasm/module.ts";

const CHECK = {
  store: check("vmx.msr.store", "MSR area: MSR {a} cannot be read", "SDM 3 27.4"),
  entry: check(
    "vmx.msr.load",
    "MSR area: MSR {a} cannot be loaded with {b}",
    "SDM 3 26.4",
  ),
};

/** `vmxReadMsr(index)`, `vmxWriteMsr(index) -> 0, or 1 for failure`; the value is in V.value. */
function buildMsr(m: Module): void {
  /** RDMSR and WRMSR raise #GP where an area's entry merely fails. */
  const failed = (f: Func): void => {
    const fault = f.let(cell(V.abort).nez());
    setCell(f, V.abort, ABORT.none);
    f.result(fault);
  };
  m.func("vmxReadMsr", ["i32"], ["i32"], (f, index) => {
    setCell64(f, V.value, f.call("readMsr", index));
    failed(f);
  });
  m.func("vmxWriteMsr", ["i32"], ["i32"], (f, index) => {
    // FS.base and GS.base come with the segments; the monitor controls of SMM are out of reach.
    const base = index.eq(0xc000_0100 | 0).or(index.eq(0xc000_0101 | 0));
    f.if(base.or(index.eq(0x9b)), () => f.return(i32(1)));
    f.call("writeMsr", index, cell64(V.value));
    failed(f);
  });
}

/** `vmxLoadMsrs(address, count)`, `vmxStoreMsrs(...)`: 0, or the number of the entry that failed. */
export function buildMsrAreas(m: Module): void {
  buildMsr(m);
  const each = (name: string, id: number, body: (f: Func, at: Expr, failed: () => void) => void) =>
    m.func(name, ["i64", "i32"], ["i32"], (f, address, count) => {
      const i = f.let(i32(0)), at = f.let(address.wrap());
      f.while(() => i.ltU(count), () => {
        f.set(i, i.add(1));
        const fails = (index: Expr, value: Expr) => {
          f.call("vmxNote", i32(id), index, value);
          f.return(i);
        };
        const failed = () =>
          fails(
            load("i64", 32, "u", at, 0, MEMORY.ram),
            load("i64", 64, "u", at, 8, MEMORY.ram),
          );
        // Where there is no memory it reads as ones, in the reserved half, too.
        const absent = address.add(i.zext().shl(4)).gtU(cell64(V.ramSize));
        f.if(absent, () => fails(i64(0xffff_ffff), i64(-1)));
        f.if(load("i32", 32, "u", at, 4, MEMORY.ram), failed);
        body(f, at, failed);
        f.set(at, at.add(16));
      });
      f.result(0);
    });
  const index = (at: Expr) => load("i32", 32, "u", at, 0, MEMORY.ram);
  each("vmxLoadMsrs", CHECK.entry, (f, at, failed) => {
    setCell64(f, V.value, load("i64", 64, "u", at, 8, MEMORY.ram));
    f.if(f.call("vmxWriteMsr", index(at)), failed);
  });
  each("vmxStoreMsrs", CHECK.store, (f, at, failed) => {
    f.if(f.call("vmxReadMsr", index(at)), failed);
    f.call("physicalStore64", at.zext().add(8), cell64(V.value));
  });
}

/** MSR areas of VM entry and exit (SDM 3 26.4, 27.4, 27.6): lists in machine memory. */
import { check } from "../checks.ts";
import { CPU, V } from "../state.ts";
import { cell64, MEMORY, setCell64 } from "../system.ts";
import { type Expr, i32, load } from "../wasm/expr.ts";
import type { Func, Module } from "../wasm/module.ts";
import { EFER_BITS } from "./capabilities.ts";

/** MSRs whose whole meaning is a field of the processor's state: number, field, bits that exist. */
const HOMES: readonly (readonly [number, string, bigint])[] = [
  [0x174, "sysenterCs", 0xffff_ffffn],
  [0x175, "sysenterEsp", -1n],
  [0x176, "sysenterEip", -1n],
  [0x1d9, "debugctl", 3n],
  [0x277, "pat", 0x0707_0707_0707_0707n],
  [0xc000_0080, "efer", BigInt(EFER_BITS)],
  [0xc000_0081, "star", -1n],
  [0xc000_0082, "lstar", -1n],
  [0xc000_0083, "cstar", -1n],
  [0xc000_0084, "sfmask", 0xffff_ffffn],
  [0xc000_0102, "kernelGsBase", -1n],
  [0xc000_0103, "tscAux", 0xffff_ffffn],
];

const CHECK = {
  store: check("vmx.msr.store", "MSR area: MSR {a} cannot be read", "SDM 3 27.4"),
  entry: check(
    "vmx.msr.load",
    "MSR area: MSR {a} cannot be loaded with {b}",
    "SDM 3 26.4",
  ),
};

function whenIndex(f: Func, index: Expr, use: (field: number, bits: bigint) => void): void {
  for (const [number, field, bits] of HOMES) {
    f.if(index.eq(number | 0), () => use(CPU[field], bits));
  }
}

/**
 * `vmxReadMsr(index) -> 0 or 1 for failure` and `vmxWriteMsr(index)`, value in V.value (as the host
 * function `msr`, which answers for MSRs that have no home in the state).
 */
function buildMsr(m: Module): void {
  m.func("vmxReadMsr", ["i32"], ["i32"], (f, index) => {
    whenIndex(f, index, (field) => {
      setCell64(f, V.value, cell64(field));
      f.return(i32(0));
    });
    f.result(f.call("msr", index, i32(0)));
  });
  m.func("vmxWriteMsr", ["i32"], ["i32"], (f, index) => {
    // FS.base and GS.base come with the segments; the monitor controls of SMM are out of reach.
    const base = index.eq(0xc000_0100 | 0).or(index.eq(0xc000_0101 | 0));
    f.if(base.or(index.eq(0x9b)), () => f.return(i32(1)));
    whenIndex(f, index, (field, bits) => {
      const value = cell64(V.value);
      if (bits !== -1n) f.if(value.and(~bits).nez(), () => f.return(i32(1)));
      if (field === CPU.efer) {
        // LME is not to change under paging; LMA is the processor's own.
        const differs = value.xor(cell64(field)).and(0x100).nez();
        f.if(differs.and(cell64(CPU.cr0).shrU(31).wrap().and(1)), () => f.return(i32(1)));
        setCell64(f, field, value.and(~0x400n).or(cell64(field).and(0x400)));
      } else setCell64(f, field, value);
      f.return(i32(0));
    });
    f.result(f.call("msr", index, i32(1)));
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
        const failed = () => {
          f.call(
            "vmxNote",
            i32(id),
            load("i64", 32, "u", at, 0, MEMORY.ram),
            load("i64", 64, "u", at, 8, MEMORY.ram),
          );
          f.return(i);
        };
        f.if(address.add(i.zext().shl(4)).gtU(cell64(V.ramSize)), () => f.return(i));
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

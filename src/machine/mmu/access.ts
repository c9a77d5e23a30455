/**
 * Memory accesses of the processor: TLBs, and what happens behind a miss.
 *
 * A TLB entry is a linear page (i64, -1 when empty), what to add to a linear address to get its
 * place in machine memory (i32), and the page again if it lies below 4 GiB (i32, else -1). Only plain memory gets in: pages of devices, pages with watches and, for
 * writes, frames that hold predecoded code, paging structures or ROM miss every time.
 */
import { VECTOR } from "../../abi/x86/vectors.ts";
import { ACCESS, FRAME, FRAME_FLAG, TLB, TLB_LIST, V } from "../state.ts";
import { check } from "../checks.ts";
import { cell, cell64, MEMORY, noteFault, setCell, SHOOTDOWN } from "../linkage.ts";
import { type Expr, i32, i64, load } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { elsewhere, frameEntry } from "./walk.ts";
import { is64, isCanonical } from "../mode.ts";

const ALIGNMENT = check(
  "access.alignment",
  "address {a} of {b} bytes is not aligned",
  "SDM 3 6.15, #AC",
);
const NOT_CANONICAL = check(
  "fetch.canonical",
  "an instruction is fetched at {a}, which is not canonical",
  "SDM 1 3.3.7.1",
);
const WIDTHS = [8, 16, 32, 64] as const;
const SLOW_WRITE = FRAME_FLAG.code | FRAME_FLAG.table | FRAME_FLAG.watch | FRAME_FLAG.rom |
  FRAME_FLAG.derived;

/** Stores beside predecoded code after which it is dropped; a power of two. */
const STORES_TO_FORGET = 4096;

/** Offset of a linear address's entry in a table of the TLB. */
export const tlbIndex = (linear: Expr): Expr =>
  linear.type === "i64"
    ? linear.shrU(8).wrap().and((TLB.entries - 1) * TLB.entrySize)
    : linear.shrU(8).and((TLB.entries - 1) * TLB.entrySize);

/** First byte of the class of an access. */
const classOf = (acc: Expr): Expr =>
  i32(TLB.start).add(acc.and(ACCESS.align).mul(3 * TLB.classSize / ACCESS.align)).when(
    acc.and(ACCESS.user),
    i32(TLB.start + 2 * TLB.classSize).when(
      acc.and(ACCESS.smap),
      i32(TLB.start + TLB.classSize),
    ),
  );

function buildFlush(m: Module): void {
  // Empties every TLB. Nothing is derived from any frame then, so the marks go too.
  m.func("flushTlb", [], [], (f) => {
    const clearMark = (entry: Local) => {
      const page = load("i32", 32, "u", entry);
      const frame = f.let(frameEntry(page.add(load("i32", 32, "u", entry, 8))));
      const flags = load("i32", 32, "u", frame, FRAME.flags, MEMORY.frames);
      f.store(32, frame, flags.and(cell(V.writeMark).xor(-1)), FRAME.flags, MEMORY.frames);
    };
    const entry = f.local("i32");
    const n = f.let(cell(V.fills));
    f.if(n.geU(TLB_LIST.maxFills), () => {
      for (let c = 0; c < TLB.classes; c++) {
        f.set(entry, TLB.start + c * TLB.classSize + TLB.write);
        f.set(n, TLB.entries);
        f.while(() => n.nez(), () => {
          f.if(load("i64", 64, "u", entry).ne(-1), () => clearMark(entry));
          f.set(entry, entry.add(TLB.entrySize));
          f.set(n, n.sub(1));
        });
      }
      f.fill(TLB.start, 0xff, TLB.classes * TLB.classSize);
    }, () => {
      f.while(() => n.nez(), () => {
        f.set(n, n.sub(1));
        f.set(entry, load("i32", 32, "u", n.shl(2), TLB_LIST.fills));
        // Write tables are those whose offset in their class lies between the read and code tables.
        const table = entry.sub(TLB.start).remU(TLB.classSize).and(0xc000);
        f.if(table.eq(TLB.write).and(load("i64", 64, "u", entry).ne(-1)), () => clearMark(entry));
        f.store(64, entry, i64(-1));
        f.store(64, entry, i64(-1), 8);
      });
    });
    setCell(f, V.fills, 0);
    f.set(n, cell(V.tables));
    f.while(() => n.nez(), () => {
      f.set(n, n.sub(1));
      f.set(entry, load("i32", 32, "u", n.shl(2), TLB_LIST.tables));
      const flags = load("i32", 32, "u", entry, FRAME.flags, MEMORY.frames);
      f.store(32, entry, flags.and(cell(V.tableMark).xor(-1)), FRAME.flags, MEMORY.frames);
    });
    setCell(f, V.tables, 0);
  });
  m.func("noteFill", ["i32"], [], (f, entry) => {
    const n = f.let(cell(V.fills));
    f.if(n.ltU(TLB_LIST.maxFills), () => {
      f.store(32, n.shl(2), entry, TLB_LIST.fills);
      setCell(f, V.fills, n.add(1));
    });
  });
  // A frame has become one whose writes must be seen: no write entry may reach it any more.
  m.func("dropWrites", [], [], (f) => {
    for (let c = 0; c < TLB.classes; c++) {
      f.fill(TLB.start + c * TLB.classSize + TLB.write, 0xff, TLB.entries * TLB.entrySize);
    }
  });
  m.func("invalidatePage", ["i64"], [], (f, linear) => {
    const index = f.let(tlbIndex(linear));
    for (let c = 0; c < TLB.classes; c++) {
      for (const table of [TLB.read, TLB.write, TLB.code]) {
        f.store(64, index, i64(-1), TLB.start + c * TLB.classSize + table);
        f.store(64, index, i64(-1), TLB.start + c * TLB.classSize + table + 8);
      }
    }
  });
}

/** `translate(linear, access) -> physical`, with the TLB filled where that is allowed. */
function buildTranslate(m: Module): void {
  m.func("translate", ["i64", "i32"], ["i64"], (f, linear, acc) => {
    f.if(cell(V.tables).gtU(TLB_LIST.maxTables - 32), () => f.call("flushTlb"));
    const slot = f.let(classOf(acc).add(tlbIndex(linear)));
    const page = f.let(linear.and(-4096n));
    f.if(acc.and(ACCESS.write).nez().and(load("i64", 64, "u", slot, TLB.slow).eq(page)), () => {
      const at = f.let(linear.wrap().add(load("i32", 32, "u", slot, TLB.slow + 8)));
      const still = load("i32", 32, "u", frameEntry(at), FRAME.flags, MEMORY.frames);
      f.if(still.and(SLOW_WRITE).nez().and(cell(V.watching).eqz()), () => f.return(at.zext()));
    });
    const pa = f.call("walk", linear, acc);
    f.if(cell(V.abort), () => f.return(pa));
    f.if(pa.geU(cell64(V.ramSize)), () => f.return(pa));
    const frame = f.let(frameEntry(pa.wrap()));
    const flags = f.let(load("i32", 32, "u", frame, FRAME.flags, MEMORY.frames));
    f.if(flags.and(FRAME_FLAG.mmio), () => f.return(pa));
    f.if(cell(V.watching), () => {
      f.if(
        f.call("watchesPage", linear.wrap(), linear.shrU(32).wrap(), pa.shrU(12).wrap()),
        () => f.return(pa),
      );
    });
    f.if(acc.and(ACCESS.align), () => f.return(pa));
    const addend = f.let(pa.wrap().sub(linear.wrap()));
    f.if(acc.and(ACCESS.write), () => {
      f.if(flags.and(SLOW_WRITE).eqz(), () => {
        f.store(
          32,
          frame,
          flags.or(cell(V.writeMark)).or(FRAME_FLAG.dirty),
          FRAME.flags,
          MEMORY.frames,
        );
        fill(f, slot, TLB.write, page, addend);
      }, () => fill(f, slot, TLB.slow, page, addend));
    }, () => {
      f.if(acc.and(ACCESS.fetch).eqz(), () => fill(f, slot, TLB.read, page, addend));
    });
    f.result(pa);
  });
}

function fill(f: Func, slot: Local, table: number, page: Local, addend: Local): void {
  f.store(64, slot, page, table);
  f.store(32, slot, addend, table + 8);
  // For the flat handlers; what lies above 4 GiB is not theirs.
  f.store(32, slot, page.wrap().when(page.shrU(32).eqz(), i32(-1)), table + 12);
  f.call("noteFill", slot.add(table));
}

/** Value of `bits` as the type it travels in: i32 up to 32 bits, i64 for 64. */
const typeOf = (bits: number) => bits === 64 ? "i64" : "i32";

function buildPhysical(m: Module): void {
  // Tells the host when one of the 64-byte granules that the store touches holds predecoded code.
  m.func("storeToCode", ["i64", "i32"], [], (f, pa, bytes) => {
    const first = f.let(pa.shrU(6).and(63));
    const last = f.let(pa.add(bytes.zext()).sub(1).shrU(6).and(63));
    const mask = f.let(i64(1).shl(first).or(i64(1).shl(last)));
    const code = load("i64", 64, "u", frameEntry(pa.wrap()), FRAME.code, MEMORY.frames);
    // Code that data has come to lie beside: after many stores it is not worth keeping.
    const entry = f.let(frameEntry(pa.wrap()));
    const stores = f.let(load("i32", 32, "u", entry, FRAME.stores, MEMORY.frames).add(1));
    f.store(32, entry, stores, FRAME.stores, MEMORY.frames);
    f.if(code.and(mask).nez().or(stores.and(STORES_TO_FORGET - 1).eqz()), () => {
      f.call("codeWrite", pa.shrU(12).wrap(), mask.wrap(), mask.shrU(32).wrap());
    });
  });
  for (const bits of WIDTHS) {
    const type = typeOf(bits);
    m.func(`physicalLoad${bits}`, ["i64"], [type], (f, pa) => {
      const isRam = f.let(pa.ltU(cell64(V.ramSize)));
      f.if(isRam, () => {
        const flags = load("i32", 32, "u", frameEntry(pa.wrap()), FRAME.flags, MEMORY.frames);
        f.if(flags.and(FRAME_FLAG.mmio).eqz(), () => {
          f.return(load(type, bits, "u", pa.wrap(), 0, MEMORY.ram));
        });
      });
      const high = f.let(pa.shrU(32).wrap());
      const low = f.call("mmioRead", pa.wrap(), high, i32(Math.min(bits, 32) / 8));
      if (bits < 64) return f.result(low);
      f.if(cell(V.abort), () => f.return(i64(0)));
      f.result(low.zext().or(f.call("mmioRead", pa.wrap().add(4), high, i32(4)).zext().shl(32)));
    });
    m.func(`physicalStore${bits}`, ["i64", type], [], (f, pa, value) => {
      const device = () => {
        const high = f.let(pa.shrU(32).wrap());
        f.call("mmioWrite", pa.wrap(), high, i32(Math.min(bits, 32) / 8), value.wrap());
        if (bits === 64) {
          f.call("mmioWrite", pa.wrap().add(4), high, i32(4), value.shrU(32).wrap());
        }
        f.return();
      };
      f.if(pa.geU(cell64(V.ramSize)), device);
      const frame = f.let(frameEntry(pa.wrap()));
      const flags = f.let(load("i32", 32, "u", frame, FRAME.flags, MEMORY.frames));
      f.if(flags.and(FRAME_FLAG.mmio), device);
      f.if(flags.and(FRAME_FLAG.rom), () => f.return());
      f.if(flags.and(FRAME_FLAG.code), () => {
        f.call("storeToCode", pa, i32(bits / 8));
        // The frame may hold no code any more.
        f.set(flags, load("i32", 32, "u", frame, FRAME.flags, MEMORY.frames));
      });
      f.store(32, frame, flags.or(FRAME_FLAG.dirty), FRAME.flags, MEMORY.frames);
      f.if(flags.and(FRAME_FLAG.table), () => storeToTable(f, { frame, flags }, pa, bits, value));
      f.store(bits, pa.wrap(), value, 0, MEMORY.ram);
      f.if(flags.and(FRAME_FLAG.derived), () => f.call("derivedWrite", pa.wrap(), i32(bits / 8)));
    });
  }
}

/** A store to a paging structure drops what was derived from a present entry it changes. */
function storeToTable(
  f: Func,
  { frame, flags }: { readonly frame: Local; readonly flags: Local },
  pa: Local,
  bits: number,
  value: Local,
): void {
  const at = f.let(pa.wrap().and(-8));
  const old = f.let(load("i64", 64, "u", at, 0, MEMORY.ram));
  const type = typeOf(bits);
  const changed = f.let(
    load(type, bits, "u", pa.wrap(), 0, MEMORY.ram).ne(
      bits < 32 ? value.unsigned(bits) : value,
    ),
  );
  f.if(changed.and(old.and(0x1_0000_0001n).nez()), () => {
    f.if(flags.and(cell(V.tableMark)), () => f.call("flushTlb"));
    elsewhere(f, flags.and(FRAME_FLAG.table), V.tableMark, frame, SHOOTDOWN.all);
  });
}

/**
 * `ld8..ld64(linear, access)`, `st8..st64(linear, access, value)`, and `ldw8..ldw64`: a load for an
 * instruction that will write the same place (it fails like the write, before anything changed).
 */
export function buildAccess(m: Module): void {
  buildFlush(m);
  buildTranslate(m);
  buildPhysical(m);
  for (const bits of WIDTHS) {
    const type = typeOf(bits), bytes = bits / 8;
    buildSlow(m, bits);
    const probe = (f: Func, table: number, linear: Local, acc: Local, hit: (at: Expr) => void) => {
      const slot = f.let(classOf(acc).add(tlbIndex(linear)));
      f.if(load("i64", 64, "u", slot, table).eq(linear.add(bytes - 1).and(-4096n)), () => {
        hit(linear.wrap().add(load("i32", 32, "u", slot, table + 8)));
      });
    };
    m.func(`ld${bits}`, ["i64", "i32"], [type], (f, linear, acc) => {
      probe(f, TLB.read, linear, acc, (at) => f.return(load(type, bits, "u", at, 0, MEMORY.ram)));
      f.result(f.call(`loadSlow${bits}`, linear, acc));
    });
    m.func(`ldw${bits}`, ["i64", "i32"], [type], (f, linear, acc) => {
      probe(f, TLB.write, linear, acc, (at) => f.return(load(type, bits, "u", at, 0, MEMORY.ram)));
      f.result(f.call(`loadSlow${bits}`, linear, acc.or(ACCESS.write)));
    });
    m.func(`st${bits}`, ["i64", "i32", type], [], (f, linear, acc, value) => {
      probe(f, TLB.write, linear, acc, (at) => {
        f.store(bits, at, value, 0, MEMORY.ram);
        f.return();
      });
      f.call(`storeSlow${bits}`, linear, acc, value);
    });
  }
  // For predecoding: the frame that code lies in, -1 if that is no memory. A fault sets V.abort.
  m.func("fetchFrame", ["i32", "i32"], ["i32"], (f, low, high) => {
    const linear = f.let(low.zext().or(high.zext().shl(32)));
    // Branches look themselves; code can run into the hole, and AMD's SYSRET returns there.
    f.if(is64().and(isCanonical(linear).eqz()), () => {
      noteFault(f, VECTOR.GP, 0, NOT_CANONICAL, linear);
      f.return(i32(-1));
    });
    const pa = f.call("translate", linear, cell(V.access).or(ACCESS.fetch));
    f.if(cell(V.abort).or(pa.geU(cell64(V.ramSize))), () => f.return(i32(-1)));
    const flags = load("i32", 32, "u", frameEntry(pa.wrap()), FRAME.flags, MEMORY.frames);
    f.if(flags.and(FRAME_FLAG.mmio), () => f.return(i32(-1)));
    f.result(pa.shrU(12).wrap());
  });
  m.func("fetchByte", ["i32", "i32"], ["i32"], (f, low, high) => {
    const linear = f.let(low.zext().or(high.zext().shl(32)));
    const pa = f.call("translate", linear, cell(V.access).or(ACCESS.fetch));
    f.if(cell(V.abort), () => f.return(i32(0xff)));
    f.result(f.call("physicalLoad8", pa));
  });
  // An access that must be allowed before anything is changed: nothing is read or written.
  m.func("probeAccess", ["i64", "i32", "i32"], [], (f, linear, acc, bytes) => {
    f.call("translate", linear, acc);
    f.if(cell(V.abort), () => f.return());
    const end = f.let(wrapLinear(linear.add(bytes.zext()).sub(1)));
    f.if(end.xor(linear).and(-4096n).nez(), () => f.call("translate", end, acc));
  });
}

/** Linear addresses are 32 bits wide outside 64-bit mode (EFER.LMA and CS.L). */
const wrapLinear = (linear: Expr): Expr => linear.when(is64(), linear.and(0xffff_ffffn));

/** Declared once for all widths: the part behind a TLB miss. */
function buildSlow(m: Module, bits: 8 | 16 | 32 | 64): void {
  const type = typeOf(bits), bytes = bits / 8;
  const zero = () => type === "i64" ? i64(0) : i32(0);
  // `next` is where the access goes on in another page.
  const watch = (f: Func, linear: Local, acc: Expr, pa: Local, next: Expr = i64(0)) =>
    f.if(cell(V.watching), () => {
      const [low, high] = [linear.wrap(), linear.shrU(32).wrap()];
      f.call("watch", low, high, pa.wrap(), i32(bytes), acc, next.wrap());
    });
  const checkAlignment = (f: Func, linear: Local, acc: Local, result: boolean) => {
    if (bits === 8) return;
    f.if(acc.and(ACCESS.align).nez().and(linear.wrap().and(bytes - 1).nez()), () => {
      noteFault(f, VECTOR.AC, 0, ALIGNMENT, linear, i64(bytes));
      result ? f.return(zero()) : f.return();
    });
  };
  m.func(`loadSlow${bits}`, ["i64", "i32"], [type], (f, linear, acc) => {
    checkAlignment(f, linear, acc, true);
    const pa = f.call("translate", linear, acc);
    f.if(cell(V.abort), () => f.return(zero()));
    if (bits > 8) {
      f.if(linear.wrap().and(4095).gtU(4096 - bytes), () => {
        const second = f.let(wrapLinear(linear.add(bytes - 1).and(-4096n)));
        const next = f.call("translate", second, acc);
        f.if(cell(V.abort), () => f.return(zero()));
        watch(f, linear, acc, pa, next);
        const value = f.let(zero());
        const i = f.let(i32(bytes - 1));
        const first = f.let(i32(4096).sub(linear.wrap().and(4095)));
        f.loop((again) => {
          const from = f.let(
            pa.add(i.zext()).when(i.ltU(first), next.add(i.sub(first).zext())),
          );
          const byte = f.call("physicalLoad8", from);
          f.set(value, value.shl(8).or(type === "i64" ? byte.zext() : byte));
          f.set(i, i.sub(1));
          f.brIf(again, i.geS(0));
        });
        f.return(value);
      });
    }
    watch(f, linear, acc, pa);
    f.result(f.call(`physicalLoad${bits}`, pa));
  });
  m.func(`storeSlow${bits}`, ["i64", "i32", type], [], (f, linear, acc, value) => {
    checkAlignment(f, linear, acc, false);
    const pa = f.call("translate", linear, acc.or(ACCESS.write));
    f.if(cell(V.abort), () => f.return());
    if (bits > 8) {
      f.if(linear.wrap().and(4095).gtU(4096 - bytes), () => {
        const second = f.let(wrapLinear(linear.add(bytes - 1).and(-4096n)));
        const next = f.call("translate", second, acc.or(ACCESS.write));
        f.if(cell(V.abort), () => f.return());
        watch(f, linear, acc.or(ACCESS.write), pa, next);
        const i = f.let(i32(0));
        const first = f.let(i32(4096).sub(linear.wrap().and(4095)));
        f.loop((again) => {
          const to = f.let(pa.add(i.zext()).when(i.ltU(first), next.add(i.sub(first).zext())));
          const shift = i.shl(3);
          f.call("physicalStore8", to, value.shrU(type === "i64" ? shift.zext() : shift).wrap());
          f.set(i, i.add(1));
          f.brIf(again, i.ltU(bytes));
        });
        f.return();
      });
    }
    watch(f, linear, acc.or(ACCESS.write), pa);
    f.call(`physicalStore${bits}`, pa, value);
  });
}

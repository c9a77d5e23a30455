/**
 * Effective and linear addresses with all checks of segmentation (SDM 3 5.3, 5.5), the stack, and
 * what the processor derives from its state. These serve every mode; the interpreter's hot handlers
 * have their own short cut where all segments are flat.
 */
import { CR0, RFLAGS } from "../../../abi/x86/cr.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { ACCESS, CODE_MODE, CPU, PREFIX, REC, SEGMENT, segment, TLB, V } from "../../state.ts";
import { cell, cell64, noteFault, setCell, setCell64 } from "../../linkage.ts";
import { atBit, is64, isCanonical } from "../../mode.ts";
import { check } from "../../checks.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32, i64, load } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";

const SS = segment(2), FS = segment(4);
const CHECK = {
  unusable: check(
    "segment.unusable",
    "segment register holds a null or unusable selector {a}",
    "SDM 3 5.4.1",
  ),
  readOnly: check(
    "segment.write",
    "a write through selector {a}: the segment is not writable",
    "SDM 3 5.5",
  ),
  unreadable: check(
    "segment.read",
    "a read through selector {a}: the code segment is execute-only",
    "SDM 3 5.5",
  ),
  limit: check("segment.limit", "offset {a} is outside the segment with limit {b}", "SDM 3 5.3"),
  canonical: check("address.canonical", "linear address {a} is not canonical", "SDM 1 3.3.7.1"),
};

const attribute = (place: Expr) => load("i32", 32, "u", place, SEGMENT.attributes);

function buildOffset(m: Module): void {
  m.func("offsetOf", ["i32"], ["i64"], (f, rec) => {
    const field = (at: number) => load("i32", 16, "u", rec, at);
    const sum = load("i64", 64, "u", field(REC.base))
      .add(load("i64", 64, "u", field(REC.index)).shl(load("i64", 8, "u", rec, REC.scale)))
      .add(load("i64", 32, "s", rec, REC.displacement));
    const offset = f.let(sum);
    const prefixes = f.let(field(REC.prefixes));
    f.if(prefixes.and(PREFIX.wideOffset), () => {
      f.return(
        load("i64", 32, "u", rec, REC.displacement).or(
          load("i64", 32, "u", rec, REC.immediate).shl(32),
        ),
      );
    });
    f.if(prefixes.and(PREFIX.address64), () => f.return(offset));
    f.if(prefixes.and(PREFIX.address16), () => f.return(offset.and(0xffff)));
    f.result(offset.and(0xffff_ffffn));
  });
  m.func("effective", ["i32", "i32", "i32"], ["i64"], (f, rec, bytes, write) => {
    const place = f.let(load("i32", 16, "u", rec, REC.segment));
    f.result(f.call("segmentLinear", place, f.call("offsetOf", rec), bytes, write));
  });
}

/** #SS(0) for the stack segment, #GP(0) for the others. */
function segmentFault(f: Func, place: Expr, id: number, a: Expr, b: Expr): void {
  f.if(
    place.eq(SS),
    () => noteFault(f, VECTOR.SS, 0, id, a, b),
    () => noteFault(f, VECTOR.GP, 0, id, a, b),
  );
  f.return(i64(0));
}

/** `segmentLinear(segment, offset, bytes, write) -> linear`; sets V.abort if it is not allowed. */
function buildLinear(m: Module): void {
  m.func(
    "segmentLinear",
    ["i32", "i64", "i32", "i32"],
    ["i64"],
    (f, place, offset, bytes, write) => {
      const base = f.let(load("i64", 64, "u", place, SEGMENT.base));
      f.if(is64(), () => {
        const linear = f.let(offset.add(base.when(place.geU(FS), i64(0))));
        f.if(
          isCanonical(linear).and(isCanonical(linear.add(bytes.zext()).sub(1))).eqz(),
          () => segmentFault(f, place, CHECK.canonical, linear, i64(0)),
        );
        f.return(linear);
      });
      const attributes = f.let(attribute(place));
      const limit = f.let(load("i64", 32, "u", place, SEGMENT.limit));
      const selector = load("i64", 32, "u", place, SEGMENT.selector);
      f.if(
        attributes.and(0x1_0000),
        () => segmentFault(f, place, CHECK.unusable, selector, i64(0)),
      );
      f.if(attributes.and(8), () => {
        // Code: never writable in protected mode, readable by bit 1. Real mode holds data types only.
        f.if(
          write.and(cell(CPU.cr0)),
          () => segmentFault(f, place, CHECK.readOnly, selector, i64(0)),
        );
        f.if(
          attributes.and(2).eqz(),
          () => segmentFault(f, place, CHECK.unreadable, selector, i64(0)),
        );
      }, () => {
        f.if(
          attributes.and(2).eqz().and(write),
          () => segmentFault(f, place, CHECK.readOnly, selector, i64(0)),
        );
      });
      const last = f.let(offset.add(bytes.zext()).sub(1));
      f.if(attributes.and(0xc).eq(4), () => {
        // Expand-down: valid offsets lie above the limit.
        const top = i64(0xffff_ffffn).when(attributes.and(0x4000), i64(0xffff));
        f.if(
          offset.leU(limit).or(last.gtU(top)),
          () => segmentFault(f, place, CHECK.limit, offset, limit),
        );
      }, () => {
        // With a limit of 4 GiB nothing need be outside: what goes past the end may wrap.
        f.if(last.gtU(limit), () => {
          const outside = limit.ne(0xffff_ffffn).or(asAmd("segment.wrap"));
          f.if(outside, () => segmentFault(f, place, CHECK.limit, offset, limit));
        });
      });
      f.result(base.add(offset).and(0xffff_ffffn));
    },
  );
}

/** Mask of the stack pointer: 64, 32 or 16 bits. */
const stackMask = (): Expr =>
  i64(-1).when(
    is64(),
    i64(0xffff_ffffn).when(cell(CPU["ss.attributes"]).and(0x4000), i64(0xffff)),
  );

function setStackPointer(f: Func, value: Expr, mask: Local): void {
  f.if(mask.eq(0xffff), () => f.store(16, i32(0), value, CPU.rsp), () => {
    f.store(64, i32(0), value.and(mask), CPU.rsp);
  });
}

function buildStack(m: Module): void {
  for (const bits of [16, 32, 64] as const) {
    const type = bits === 64 ? "i64" : "i32";
    m.func(`push${bits}`, [type], [], (f, value) => {
      const mask = f.let(stackMask());
      const to = f.let(cell64(CPU.rsp).sub(bits / 8).and(mask));
      const linear = f.call("segmentLinear", i32(SS), to, i32(bits / 8), i32(1));
      f.if(cell(V.abort), () => f.return());
      f.call(`st${bits}`, linear, cell(V.access), value);
      f.if(cell(V.abort), () => f.return());
      setStackPointer(f, to, mask);
    });
    // The faults of a push.
    m.func(`probePush${bits}`, [], [], (f) => {
      const to = f.let(cell64(CPU.rsp).sub(bits / 8).and(stackMask()));
      const linear = f.call("segmentLinear", i32(SS), to, i32(bits / 8), i32(1));
      f.if(cell(V.abort), () => f.return());
      f.call(`ldw${bits}`, linear, cell(V.access));
    });
    m.func(`stackLoad${bits}`, ["i32"], [type], (f, skip) => {
      const at = cell64(CPU.rsp).add(skip.zext()).and(stackMask());
      const linear = f.call("segmentLinear", i32(SS), at, i32(bits / 8), i32(0));
      f.if(cell(V.abort), () => f.return(type === "i64" ? i64(0) : i32(0)));
      f.result(f.call(`ld${bits}`, linear, cell(V.access)));
    });
  }
  // A selector in a stack slot of so many bits.
  for (const bits of [16, 32, 64] as const) {
    m.func(`stackSelector${bits}`, ["i32"], ["i32"], (f, skip) => {
      if (bits > 16) {
        f.if(asAmd("segment.pop"), () => {
          const value = f.call(`stackLoad${bits}`, skip);
          f.return((bits === 64 ? value.wrap() : value).and(0xffff));
        });
      }
      f.result(f.call("stackLoad16", skip).and(0xffff));
    });
  }
  m.func("addToStack", ["i32"], [], (f, bytes) => {
    const mask = f.let(stackMask());
    setStackPointer(f, cell64(CPU.rsp).add(bytes.sext()).and(mask), mask);
  });
}

/**
 * `flat.ld32(rec, linear)` and its kin: accesses of flat 32-bit code that are not in the TLB. What goes
 * past 4 GiB is for the segment of the record (0: the stack's) to decide.
 */
function buildFlatAccesses(m: Module): void {
  m.func("flatWrap", ["i32", "i32", "i32", "i32"], [], (f, rec, linear, bytes, write) => {
    const place = f.let(i32(SS));
    f.if(rec, () => f.set(place, load("i32", 16, "u", rec, REC.segment)));
    f.call("segmentLinear", place, linear.zext(), bytes, write);
  });
  for (const bits of [8, 16, 32, 64] as const) {
    const type = bits === 64 ? "i64" : "i32", none = type === "i64" ? i64(0) : i32(0);
    const check = (f: Func, rec: Local, linear: Local, write: 0 | 1, leave: () => void) =>
      f.if(linear.gtU(-bits / 8), () => {
        f.call("flatWrap", rec, linear, i32(bits / 8), i32(write));
        f.if(cell(V.abort), leave);
      });
    for (const [name, write] of [["ld", 0], ["ldw", 1]] as const) {
      m.func(`flat.${name}${bits}`, ["i32", "i32"], [type], (f, rec, linear) => {
        check(f, rec, linear, write, () => f.return(none));
        f.result(f.call(`${name}${bits}`, linear.zext(), cell(V.access)));
      });
    }
    m.func(`flat.st${bits}`, ["i32", "i32", type], [], (f, rec, linear, value) => {
      check(f, rec, linear, 1, () => f.return());
      f.call(`st${bits}`, linear.zext(), cell(V.access), value);
    });
  }
}

/** `refresh()`: cells that follow from the architectural state. */
function buildRefresh(m: Module): void {
  m.func("refresh", [], [], (f) => {
    const cr0 = f.let(cell(CPU.cr0)), cr4 = f.let(cell(CPU.cr4));
    const cpl = f.let(cell(CPU["ss.attributes"]).shrU(5).and(3));
    setCell(f, V.cpl, cpl);
    const smap = f.let(i32(ACCESS.smap).when(cr4.and(1 << 21), i32(0)));
    setCell(f, V.accessSystem, smap);
    const ac = f.let(atBit(cell(CPU.rflags), RFLAGS.AC).and(1));
    const align = ac.and(cr0.shrU(18)).mul(ACCESS.align).or(ACCESS.user);
    const access = f.let(align.when(cpl.eq(3), smap.when(ac.eqz(), i32(0))));
    setCell(f, V.access, access);
    setCell(f, V.paging, atBit(cr0, CR0.PG));
    const user = i32(TLB.start + 3 * TLB.classSize).when(access.and(ACCESS.align), TLB.start);
    const tlb = user.when(
      cpl.eq(3),
      i32(TLB.start + 2 * TLB.classSize).when(access, i32(TLB.start + TLB.classSize)),
    );
    setCell(f, V.tlb, tlb);
    f.if(is64(), () => {
      setCell64(f, V.codeBase, 0);
      setCell64(f, V.codeLimit, -1);
    }, () => {
      setCell64(f, V.codeBase, cell64(CPU["cs.base"]).and(0xffff_ffffn));
      setCell64(f, V.codeLimit, cell(CPU["cs.limit"]).zext());
    });
    const width = cell(CPU["cs.attributes"]).shrU(14).and(1);
    const mode32 = i32(CODE_MODE.flat32).when(isFlat(), i32(CODE_MODE.code32));
    setCell(
      f,
      V.codeMode,
      i32(CODE_MODE.flat64).when(is64(), mode32.when(width, i32(CODE_MODE.code16))),
    );
  });
}

/**
 * 1 in protected mode with ES, CS, SS and DS flat: base 0, limit 4 GiB, present, data writable and
 * expand-up, code readable, a 32-bit stack.
 */
function isFlat(): Expr {
  const places = [0, 1, 2, 3].map(segment);
  const base = (place: number) => cell64(place + SEGMENT.base);
  const limit = (place: number) => cell(place + SEGMENT.limit);
  const bases = places.map(base).reduce((a, b) => a.or(b));
  const limits = places.map(limit).reduce((a, b) => a.and(b));
  const wrong = places.map((place, n) => {
    const attributes = cell(place + SEGMENT.attributes);
    const mask = 0x1_0000 | (n === 1 ? 10 : 14) | (n === 2 ? 0x4000 : 0);
    const wanted = (n === 1 ? 10 : 2) | (n === 2 ? 0x4000 : 0);
    return attributes.and(mask).xor(wanted);
  }).reduce((a, b) => a.or(b));
  const virtual8086 = cell(CPU.rflags).and(RFLAGS.VM);
  return bases.eqz().and(limits.eq(-1)).and(wrong.or(virtual8086).eqz()).and(cell(CPU.cr0));
}

export function buildLinearAddresses(m: Module): void {
  buildLinear(m);
  buildOffset(m);
  buildStack(m);
  buildFlatAccesses(m);
  buildRefresh(m);
}

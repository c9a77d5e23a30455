/**
 * FSTENV, FLDENV, FSAVE, FRSTOR and the tag word they store (SDM 1 8.1.10, figures 8-9 to 8-12).
 *
 * An image has seven fields of 16 or 32 bits. A 32-bit field that holds 16 bits has ones above.
 */
import { protectedMode, virtual8086 } from "../../mode.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { FCW, FLOAT_INIT } from "../../../abi/x86/float.ts";
import { check } from "../../checks.ts";
import { coprocessorQuiet } from "../../system/exceptions/coprocessor.ts";
import { ACCESS, CPU, V } from "../../state.ts";
import { cell, noteFault, setCell, setCell64 } from "../../linkage.ts";
import { type Expr, i32 } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import { partAccess } from "./parts.ts";
import { signExponent, significand, slot } from "./x87_state.ts";

const ALIGNMENT = check(
  "x87.alignment",
  "address {a} of a structure is not a multiple of {b}",
  "SDM 3 6.15, #AC",
);

/** Fields of an environment image, by position. */
const FIELD = { control: 0, status: 1, tags: 2, ip: 3, cs: 4, dp: 5, ds: 6 } as const;

/** 1 if the image has the real-address format: real or virtual-8086 mode. */
const realFormat = (): Expr => protectedMode().eqz().or(virtual8086());

/** 1 if the fields of an image have 32 bits. */
const wide = (bits: Local): Expr => bits.eq(32);

function buildTags(m: Module): void {
  // `x87TagWord()`: two bits a register, from what the registers hold (SDM 1 8.1.7).
  m.func("x87TagWord", [], ["i32"], (f) => {
    const word = f.let(i32(0)), n = f.let(i32(8));
    f.loop((again) => {
      f.set(n, n.sub(1));
      const place = f.let(n.shl(4).add(CPU.fpr0));
      const e = signExponent(place).and(0x7fff), sig = significand(place);
      const special = e.eq(0x7fff).or(sig.geS(0)).or(e.eqz());
      const zero = e.eqz().and(sig.eqz());
      const tag = i32(3).when(
        cell(CPU.ftw).shrU(n.shl(1)).and(3).eq(3),
        i32(1).when(zero, special.shl(1)),
      );
      f.set(word, word.shl(2).or(tag));
      f.brIf(again, n);
    });
    f.result(word);
  }, false);
  // `x87SetTagWord(word)`: what is not empty is occupied.
  m.func("x87SetTagWord", ["i32"], [], (f, word) => {
    const both = f.let(word.and(word.shrU(1)).and(0x5555));
    setCell(f, CPU.ftw, both.or(both.shl(1)));
  }, false);
}

/** Moves field `n` between guest memory and a value: 16 bits, or 32 with what belongs above. */
function buildFields(m: Module): void {
  m.func("x87PutField", ["i64", "i32", "i32", "i32"], [], (f, linear, bits, n, value) => {
    f.if(cell(V.abort), () => f.return());
    const at = f.call("partAt", linear, n.mul(bits).shrU(3));
    f.if(
      wide(bits),
      () => f.call("st32", at, partAccess(), value),
      () => f.call("st16", at, partAccess(), value),
    );
  }, false);
  m.func("x87GetField", ["i64", "i32", "i32"], ["i32"], (f, linear, bits, n) => {
    f.if(cell(V.abort), () => f.return(0));
    const at = f.call("partAt", linear, n.mul(bits).shrU(3));
    const value = f.local("i32");
    f.if(
      wide(bits),
      () => f.set(value, f.call("ld32", at, partAccess())),
      () => f.set(value, f.call("ld16", at, partAccess()).and(0xffff)),
    );
    f.result(value);
  }, false);
}

/**
 * `x87Probe(linear, access, bytes)`: can the first element of a structure be reached, `bytes` of
 * alignment and width?
 */
function buildProbe(m: Module): void {
  m.func("x87Probe", ["i64", "i32", "i32"], [], (f, linear, acc, bytes) => {
    f.if(
      cell(V.access).and(ACCESS.align).nez().and(linear.wrap().and(bytes.sub(1)).nez()),
      () => {
        noteFault(f, VECTOR.AC, 0, ALIGNMENT, linear, bytes);
        f.return();
      },
    );
    f.call("translate", linear, acc);
    f.if(cell(V.abort), () => f.return());
    const end = f.let(f.call("partAt", linear, bytes.sub(1)).and(-4096n));
    f.if(end.ne(linear.and(-4096n)), () => f.call("translate", end, acc));
  }, false);
}

function buildEnvironment(m: Module): void {
  // `x87StoreEnvironment(linear, bits)`, `x87LoadEnvironment(linear, bits)`: the place was probed.
  m.func("x87StoreEnvironment", ["i64", "i32"], [], (f, linear, bits) => {
    const put = (n: number, value: Expr) => f.call("x87PutField", linear, bits, n, value);
    put(FIELD.control, cell(CPU.fcw).or(0xffff_0000));
    put(FIELD.status, cell(CPU.fsw).or(0xffff_0000));
    put(FIELD.tags, f.call("x87TagWord").or(0xffff_0000));
    const ip = f.let(cell(CPU.fip)), dp = f.let(cell(CPU.fdp)), op = cell(CPU.fop).and(0x7ff);
    f.if(realFormat(), () => {
      f.set(ip, ip.add(cell(CPU.fcs).shl(4)));
      f.set(dp, dp.add(cell(CPU.fds).shl(4)));
      f.if(wide(bits), () => {
        put(FIELD.ip, ip.and(0xffff).or(0xffff_0000));
        put(FIELD.cs, ip.shrU(16).shl(12).or(op));
        put(FIELD.dp, dp.and(0xffff).or(0xffff_0000));
        put(FIELD.ds, dp.shrU(16).shl(12));
      }, () => {
        put(FIELD.ip, ip);
        put(FIELD.cs, ip.shrU(16).shl(12).or(op));
        put(FIELD.dp, dp);
        put(FIELD.ds, dp.shrU(16).shl(12));
      });
    }, () => {
      put(FIELD.ip, ip);
      put(FIELD.cs, cell(CPU.fcs).and(0xffff).or(op.shl(16)));
      put(FIELD.dp, dp);
      put(FIELD.ds, cell(CPU.fds).or(0xffff_0000));
    });
  }, false);
  m.func("x87LoadEnvironment", ["i64", "i32"], [], (f, linear, bits) => {
    const get = (n: number) => f.call("x87GetField", linear, bits, n);
    const [control, status, tags, ip, cs, dp, ds] = [0, 1, 2, 3, 4, 5, 6].map(get);
    f.if(cell(V.abort), () => f.return());
    setCell(f, CPU.fcw, control.and(FCW.exist).or(FCW.fixed));
    setCell(f, CPU.fsw, status.and(0xffff));
    f.call("x87SetTagWord", tags);
    const real = f.let(realFormat());
    f.if(real, () => {
      setCell(f, CPU.fop, cs.and(0x7ff));
      setCell64(f, CPU.fip, ip.and(0xffff).or(cs.shrU(12).shl(16)).zext());
      setCell64(f, CPU.fdp, dp.and(0xffff).or(ds.shrU(12).shl(16)).zext());
      setCell(f, CPU.fcs, 0);
      setCell(f, CPU.fds, 0);
    }, () => {
      f.if(wide(bits), () => setCell(f, CPU.fop, cs.shrU(16).and(0x7ff)));
      setCell64(f, CPU.fip, ip.zext());
      setCell64(f, CPU.fdp, dp.zext());
      setCell(f, CPU.fcs, cs.and(0xffff));
      setCell(f, CPU.fds, ds.and(0xffff));
    });
    f.call("x87Summary");
  }, false);
  m.func("x87Init", [], [], (f) => {
    setCell(f, CPU.fcw, FLOAT_INIT.fcw);
    setCell(f, CPU.fsw, 0);
    setCell(f, CPU.ftw, FLOAT_INIT.ftw);
    for (const place of [CPU.fop, CPU.fcs, CPU.fds]) setCell(f, place, 0);
    setCell64(f, CPU.fip, 0);
    setCell64(f, CPU.fdp, 0);
    coprocessorQuiet(f);
  }, false);
}

/** FSAVE and FRSTOR: the environment, then ST(0) to ST(7), ten bytes each. */
function buildState(m: Module): void {
  const eachRegister = (
    f: Func,
    linear: Local,
    bits: Local,
    body: (at: Local, place: Local) => void,
  ) => {
    const i = f.let(i32(0));
    f.loop((again) => {
      const at = f.call("partAt", linear, bits.mul(7).shrU(3).add(i.mul(10)));
      body(at, f.let(slot(i)));
      f.set(i, i.add(1));
      f.brIf(again, i.ltU(8));
    });
  };
  m.func("x87Save", ["i64", "i32"], [], (f, linear, bits) => {
    f.call("x87StoreEnvironment", linear, bits);
    f.if(cell(V.abort), () => f.return());
    eachRegister(f, linear, bits, (at, place) => {
      f.call("st64", at, partAccess(), significand(place));
      f.if(cell(V.abort), () => f.return());
      f.call("st16", f.call("partAt", at, 8), partAccess(), signExponent(place));
      f.if(cell(V.abort), () => f.return());
    });
    f.call("x87Init");
  }, false);
  m.func("x87Restore", ["i64", "i32"], [], (f, linear, bits) => {
    f.call("x87LoadEnvironment", linear, bits);
    f.if(cell(V.abort), () => f.return());
    eachRegister(f, linear, bits, (at, place) => {
      f.store(64, place, f.call("ld64", at, partAccess()));
      f.store(16, place, f.call("ld16", f.call("partAt", at, 8), partAccess()), 8);
    });
  }, false);
}

export function buildX87Environment(m: Module): void {
  buildProbe(m);
  buildTags(m);
  buildFields(m);
  buildEnvironment(m);
  buildState(m);
}

/** Which mode the processor is in, asked of its state in generated code (SDM 3 2.2, 3.1). */
import { CR0, EFER, RFLAGS } from "../abi/x86/cr.ts";
import { cell, cell64 } from "./linkage.ts";
import { CPU } from "./state.ts";
import { type Expr, i64 } from "./wasm/expr.ts";

/** A word shifted so that a bit of it, or the first of a field, is the lowest. */
export const atBit = (word: Expr, bit: number): Expr => word.shrU(31 - Math.clz32(bit & -bit));

export const protectedMode = (): Expr => cell(CPU.cr0).and(CR0.PE);
export const longMode = (): Expr => atBit(cell(CPU.efer), EFER.LMA).and(1);
export const virtual8086 = (): Expr => atBit(cell(CPU.rflags), RFLAGS.VM).and(1);
export const iopl = (): Expr => atBit(cell(CPU.rflags), RFLAGS.IOPL).and(3);

/** 1 in 64-bit mode: IA-32e mode active and CS.L set. */
export const is64 = (): Expr =>
  atBit(cell64(CPU.efer), EFER.LMA).wrap().and(cell(CPU["cs.attributes"]).shrU(13)).and(1);

/** An instruction pointer as the mode holds it: outside 64-bit mode it has 32 bits. */
export const wrapIp = (ip: Expr): Expr => ip.and(i64(-1).when(is64(), i64(0xffff_ffffn)));

/** 1 if a 64-bit address has bits 63:47 all the same. */
export const isCanonical = (linear: Expr): Expr => linear.shl(16).shrS(16).eq(linear);

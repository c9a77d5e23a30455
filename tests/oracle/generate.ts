/**
 * Seeded random cases: instruction bytes by simple rules of their own (prefixes, opcode, ModRM, SIB,
 * displacement, then bytes that serve as immediate or as nothing), and a state in which the
 * instruction does something of interest. Nothing here knows the product's encoding table.
 *
 * Left out, because a user-mode case cannot show them or Linux answers for the processor: SYSCALL,
 * SYSENTER, INT 0x80, ICEBP, CPUID, RDTSC, RDPMC, XGETBV, SGDT, SIDT, SLDT, STR, SMSW, far
 * transfers between 32- and 64-bit code, and (by default) what came after the P6 and MMX.
 */
import { DS, ES, FS, FX, GS, LDT, SELECTORS, SS, WINDOWS } from "./state.ts";
import { type Case, codeBase, type CpuState, emptyState, type Mode, type Patch } from "./state.ts";
import { doubleBits, floatBits, integer, putVector, putX87, Random } from "./values.ts";
import { type Kind, KINDS, type Rule } from "./opcodes.ts";

/** What to generate. */
export interface Options {
  seed: number;
  mode: Mode;
  /** Kinds to choose from with equal chance; all but "sse" if absent. */
  kinds?: readonly Kind[];
}

/** The kinds of a P6 with MMX, integer code the more often. */
const DEFAULT_KINDS: readonly Kind[] = [
  "integer",
  "integer",
  "integer",
  "system",
  "x87",
  "x87",
  "mmx",
];

const CODE = WINDOWS[0], DATA = WINDOWS[1], STACK = WINDOWS[3], LOW = WINDOWS[4];

/** The case of a number: the same options and index give the same case. */
export function generate({ seed, mode, kinds }: Options, index: number): Case {
  const random = new Random(seed, index);
  const kind = random.pick(kinds ?? DEFAULT_KINDS);
  const test = new Builder(random, mode, kind).build();
  test.id = `${seed}:${index}`;
  return test;
}

/** A memory operand under construction. */
interface Operand {
  bytes: number[];
  /** Register forms have none. */
  memory: boolean;
}

class Builder {
  readonly state: CpuState;
  readonly patches: Patch[] = [];
  rule!: Rule;
  /** Prefix effects. */
  operand16 = false;
  address16 = false;
  segment = -1;
  rex = 0;

  constructor(readonly random: Random, readonly mode: Mode, readonly kind: Kind) {
    this.state = emptyState(mode);
  }

  build(): Case {
    const { random, state } = this;
    do this.rule = random.pick(KINDS[this.kind]); while (
      this.rule.modes && !this.rule.modes.includes(this.mode)
    );
    this.registers();
    this.fpu();
    const prefixes = this.prefixes();
    const opcode = this.opcode();
    const operand: Operand = this.rule.modrm ? this.modrm() : { bytes: [], memory: false };
    this.implicit(operand);
    let immediate: number[] = [];
    if (!this.rule.bare) immediate = this.immediate();
    const bytes = [...prefixes, ...opcode, ...operand.bytes, ...immediate].slice(0, 15);
    if (random.chance(0.004)) this.nearEnd(bytes.length);
    return { mode: this.mode, state, bytes: Uint8Array.from(bytes), patches: this.patches };
  }

  registers(): void {
    const { random, state } = this;
    for (let n = 0; n < (this.mode === 64 ? 16 : 8); n++) this.set(n, integer(random));
    state.rip = BigInt(CODE.address - codeBase(this.mode) + random.below(CODE.size - 32));
    state.rflags = 0x202 | (random.u32() & 0xcd5);
    if (random.chance(0.8)) state.rflags &= ~0x400;
    if (random.chance(0.02)) state.rflags |= 0x40000; // AC: CR0.AM is set
    const base = this.mode === 16 ? LDT[2].base : 0;
    const at = STACK.address - base;
    const offset = random.chance(0.9)
      ? 0x200 + random.below(0x300) * 4
      : random.pick([0, 2, 4, 8, 16, 0xff8, 0xffc, 0xffe, 0x1000, 1, 5, 0x801]);
    this.set(4, BigInt(at + offset));
    if (random.chance(0.5)) this.set(5, BigInt(at + random.below(0x400) * 4));
    if (this.mode !== 64 && random.chance(0.12)) {
      const data = LDT.filter((s) => s.kind !== 2 && s.present || s.selector === 0x3f);
      const loadable = data.filter((s) => s.kind !== 2);
      for (const s of [ES, DS, FS, GS]) {
        if (random.chance(0.5)) state.selectors[s] = random.pick(loadable).selector;
      }
    }
    if (this.mode === 64 && random.chance(0.5)) {
      state.fsBase = BigInt(DATA.address);
      state.gsBase = BigInt(DATA.address + 0x1000);
    }
  }

  /** Sets a register; outside 64-bit mode to 32 bits. */
  set(n: number, value: bigint): void {
    this.state.gpr[n] = BigInt.asUintN(this.mode === 64 ? 64 : 32, value);
  }

  fpu(): void {
    const { random, state } = this;
    const view = new DataView(state.fx.buffer);
    let control = 0x37f, status = random.u32() & 0x7f00, flags = 0;
    if (random.chance(0.6)) {
      control = random.pick([0x000, 0x200, 0x300, 0x300]) | (random.below(4) << 10) | 0x40;
      control |= random.chance(0.5) ? 0x3f : random.below(64);
    }
    if (random.chance(0.3)) flags = random.below(64);
    if (flags & 0x3f & ~control && random.chance(0.9)) flags &= control; // seldom pending
    status |= flags | (random.chance(0.05) ? 0x40 : 0);
    if (status & 0x3f & ~control) status |= 0x8080;
    const tags = random.chance(0.7) ? 0xff : random.u32() & 0xff;
    view.setUint16(FX.fcw, control, true);
    view.setUint16(FX.fsw, status, true);
    view.setUint8(FX.ftw, tags);
    view.setUint32(FX.mxcsr, this.mxcsr(), true);
    // Integer code leaves these alone; now and then is enough to see that it does.
    if ((this.kind === "integer" || this.kind === "system") && random.chance(0.9)) return;
    const near = random.chance(0.5) ? 0x3ff0 + random.below(32) : undefined;
    for (let n = 0; n < 8; n++) this.floatRegister(view, FX.st + n * 16, near);
    const last = this.mode === 64 ? 16 : 8;
    if (this.kind === "sse") {
      for (let n = 0; n < last; n++) putVector(random, view, FX.xmm + n * 16, 16);
    }
  }

  mxcsr(): number {
    const { random } = this;
    if (this.kind !== "sse" || random.chance(0.4)) return 0x1f80;
    const masks = random.chance(0.6) ? 0x1f80 : random.below(64) << 7;
    return masks | (random.below(4) << 13) | (random.u32() & 0x8040) | (random.below(64));
  }

  floatRegister(view: DataView, at: number, near: number | undefined): void {
    if (this.kind !== "mmx" && !(this.kind === "sse" && this.random.chance(0.5))) {
      putX87(this.random, view, at, near);
      return;
    }
    putVector(this.random, view, at, 8);
    view.setUint16(at + 8, 0xffff, true);
  }

  prefixes(): number[] {
    const { random, rule } = this, out: number[] = [];
    const maySize = !rule.vector;
    if (maySize && random.chance(0.25)) {
      out.push(0x66);
      this.operand16 = this.mode === 32;
    } else this.operand16 = this.mode === 16;
    this.address16 = this.mode === 16;
    if (random.chance(this.mode === 16 ? 0.3 : 0.1)) {
      out.push(0x67);
      this.address16 = this.mode === 32;
    }
    if (random.chance(0.12)) {
      this.segment = random.below(6);
      out.push([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65][this.segment]);
      if (this.mode === 64 && this.segment < 4) this.segment = -1;
    }
    if (rule.lock ? random.chance(0.2) : random.chance(0.01)) out.push(0xf0);
    if (rule.string && random.chance(0.6)) out.push(random.pick([0xf2, 0xf3]));
    if (out.length > 1 && random.chance(0.5)) out.reverse();
    if (rule.prefix) out.push(rule.prefix);
    if (this.mode === 64 && random.chance(0.5)) {
      this.rex = 0x40 | random.below(16);
      out.push(this.rex);
    }
    return out;
  }

  opcode(): number[] {
    const { rule, random } = this;
    const last = rule.opcode & 0xff;
    const byte = rule.span ? last + random.below(rule.span) : last;
    return rule.opcode > 0xff ? [0x0f, byte] : [byte];
  }

  modrm(): Operand {
    const { random, rule } = this;
    const reg = rule.reg ? random.pick(rule.reg) : random.below(8);
    const register = rule.modrm === "reg" || rule.modrm === "any" && random.chance(0.4);
    if (register) {
      const rm = rule.rm ? random.pick(rule.rm) : random.below(8);
      return { bytes: [0xc0 | (reg << 3) | rm], memory: false };
    }
    const bytes = this.address16 ? this.address16Bit(reg) : this.address32Bit(reg);
    return { bytes, memory: true };
  }

  /** A linear address for an operand: mostly in the data window, else at its edges or outside. */
  target(low = false): number {
    const { random } = this, w = low ? LOW : DATA, r = random.below(100);
    const edge = () => random.below(33) - 16;
    if (this.kind === "sse" && random.chance(0.6)) {
      return w.address + random.below(w.size / 16) * 16;
    }
    if (r < 80) {
      return w.address + 0x20 + random.below(0xfc0 / 4) * 4 +
        (random.chance(0.3) ? random.below(4) : 0);
    }
    if (r < 84) return w.address + edge();
    if (r < 88) return w.address + w.size + edge();
    if (r < 90) return DATA.address + DATA.size + 0x40 + random.below(0xf00); // read-only
    if (r < 92) return DATA.address + 0x3000 + edge(); // end of read-only
    if (r < 94) return STACK.address + random.below(0xff0);
    if (r < 95) return CODE.address + random.below(0xff0);
    if (r < 97) return DATA.address + 0x1000 + edge(); // across two pages that are there
    if (r < 98) return random.u32();
    return w.address + 0x100 + random.below(0xe00);
  }

  /** The linear base of the segment that an operand uses. */
  base(stack: boolean): number {
    const { state } = this;
    const s = this.segment >= 0 ? this.segment : stack ? SS : DS;
    if (this.mode === 64) {
      return s === FS ? Number(state.fsBase) : s === GS ? Number(state.gsBase) : 0;
    }
    return LDT.find((d) => d.selector === state.selectors[s])?.base ?? 0;
  }

  /** Puts a value of interest at a linear address, if it lies in a window. */
  place(linear: number): void {
    const bytes = this.memoryValue();
    for (const w of WINDOWS) {
      if (linear >= w.address && linear + bytes.length <= w.address + w.size) {
        this.patches.push({ address: linear, bytes });
      }
    }
  }

  memoryValue(): Uint8Array {
    const { random, rule } = this, form = random.below(6);
    if (rule.image) return this.fpuImage();
    const plain = this.kind === "integer" || this.kind === "system";
    const vector = this.kind === "sse" || this.kind === "mmx";
    const bytes = new Uint8Array(this.kind === "sse" ? 16 : plain || vector || form === 0 ? 8 : 10);
    const view = new DataView(bytes.buffer);
    if (vector || form === 0) putVector(random, view, 0, bytes.length);
    else if (plain) {
      const equal = rule.compare && random.chance(0.5);
      view.setBigUint64(0, equal ? this.accumulator() : integer(random), true);
    } else if (form === 1) view.setBigUint64(0, doubleBits(random), true);
    else if (form === 2) view.setUint32(0, floatBits(random), true);
    else if (form === 3) {
      for (let i = 0; i < 9; i++) bytes[i] = random.below(10) * 16 + random.below(10);
    } else putX87(random, view, 0, random.chance(0.5) ? 0x3ff0 + random.below(32) : undefined);
    return bytes;
  }

  /** EDX:EAX, or EAX, so that CMPXCHG finds what it looks for. */
  accumulator(): bigint {
    const { gpr } = this.state;
    return (gpr[2] << 32n) | (gpr[0] & 0xffff_ffffn);
  }

  /** An image for FLDENV, FRSTOR and FXRSTOR: plausible control words in each layout. */
  fpuImage(): Uint8Array {
    const bytes = new Uint8Array(512), { random } = this;
    for (let i = 0; i < 512; i++) bytes[i] = random.u32() >>> 24;
    const view = new DataView(bytes.buffer);
    if (random.chance(0.7)) view.setUint16(0, 0x37f, true);
    if (random.chance(0.8)) view.setUint32(FX.mxcsr, 0x1f80, true);
    for (let n = 0; n < 8; n++) putX87(random, view, FX.st + 16 * n);
    return this.rule.opcode === 0x1ae ? bytes : bytes.subarray(0, 112);
  }

  address32Bit(reg: number): number[] {
    const { random, state } = this;
    const mod = random.below(3), rm = random.below(8);
    const bytes = [(mod << 6) | (reg << 3) | rm];
    const rexB = (this.rex & 1) << 3, rexX = (this.rex & 2) << 2;
    let base = rm | rexB, index = -1, scale = 0;
    if (rm === 4) {
      const sib = random.u32() & 0xff;
      bytes.push(sib);
      base = (sib & 7) | rexB;
      index = ((sib >> 3) & 7) | rexX;
      if (index === 4) index = -1;
      scale = sib >> 6;
      if ((sib & 7) === 5 && mod === 0) base = -1;
    } else if (rm === 5 && mod === 0) base = this.mode === 64 ? -2 : -1;
    const wide = this.mode === 64;
    const linear = this.target();
    const offset = BigInt(linear - this.base(base === 4 || base === 5));
    if (index >= 0 && random.chance(0.7)) this.set(index, BigInt(random.below(0x400)) - 0x80n);
    const size = mod === 1 ? 8 : mod === 2 || base < 0 ? 32 : 0;
    let displacement = 0n;
    if (size === 8) displacement = BigInt.asIntN(8, BigInt(random.u32()));
    if (size === 32) displacement = BigInt.asIntN(wide ? 16 : 32, BigInt(random.u32()));
    const scaled = index >= 0 ? state.gpr[index] << BigInt(scale) : 0n;
    if (base === -1) displacement = BigInt.asIntN(32, offset - scaled);
    else if (base === -2) displacement = offset - state.rip - BigInt(8 + random.below(4));
    else if (base !== index) this.set(base, offset - displacement - scaled);
    else if (scale === 0) this.set(base, (offset - displacement) >> 1n);
    this.place(linear);
    for (let i = 0n; i < BigInt(size); i += 8n) bytes.push(Number((displacement >> i) & 0xffn));
    return bytes;
  }

  address16Bit(reg: number): number[] {
    const { random, state } = this;
    const mod = random.below(3), rm = random.below(8);
    const pairs = [[3, 6], [3, 7], [5, 6], [5, 7], [6], [7], [5], [3]];
    const registers = mod === 0 && rm === 6 ? [] : pairs[rm];
    const base = this.base(registers[0] === 5);
    const linear = this.target(base === 0);
    const size = mod === 1 ? 8 : mod === 2 || !registers.length ? 16 : 0;
    let displacement = size ? BigInt.asIntN(size, BigInt(random.u32())) : 0n;
    const offset = BigInt(linear - base);
    const second = registers.length > 1 ? state.gpr[registers[1]] & 0xffffn : 0n;
    if (!registers.length) displacement = offset;
    else {
      const low = BigInt.asUintN(16, offset - displacement - second);
      this.set(registers[0], (state.gpr[registers[0]] & ~0xffffn) | low);
    }
    this.place(linear);
    const bytes = [(mod << 6) | (reg << 3) | rm];
    for (let i = 0n; i < BigInt(size); i += 8n) bytes.push(Number((displacement >> i) & 0xffn));
    return bytes;
  }

  /** Registers and memory that an instruction uses without naming them. */
  implicit(operand: Operand): void {
    const { rule, random, state } = this;
    const narrow = (n: number, linear: number, base: number) => {
      const value = BigInt(linear - base);
      this.set(
        n,
        this.address16 && this.mode !== 16 ? (state.gpr[n] & ~0xffffn) | (value & 0xffffn) : value,
      );
    };
    if (rule.string) {
      const low = this.address16 && this.mode === 32;
      const source = this.target(low), goal = this.target(low);
      narrow(6, source, this.base(false));
      narrow(7, goal, LDT.find((d) => d.selector === state.selectors[ES])?.base ?? 0);
      this.place(source);
      if (random.chance(0.8)) this.place(goal);
      if (random.chance(0.7)) this.set(1, BigInt(random.pick([0, 1, 2, 3, 0x10000, 0x10001])));
    }
    if (rule.opcode === 0xd7) narrow(3, this.target(this.address16) - 0x80, this.base(false));
    if (rule.divide && random.chance(0.7)) {
      this.set(2, random.chance(0.5) ? 0n : BigInt.asIntN(64, integer(random)) >> 16n);
    }
    if (rule.bits && operand.memory && random.chance(0.9)) {
      const reg = ((operand.bytes[0] >> 3) & 7) | ((this.rex & 4) << 1);
      if (reg !== 4) this.set(reg, BigInt(random.below(0x2000)) - 0x1000n);
    }
    if (rule.far) this.farFrame();
    if (rule.loadSegment) this.selectorOperand(operand);
    if (rule.stackValue) this.place(this.stackTop());
  }

  stackTop(): number {
    const base = this.mode === 16 ? LDT[2].base : 0;
    return Number(this.state.gpr[4] & 0xffff_ffffn) + base;
  }

  /** A selector as programs, good and bad, use it. */
  selector(code: boolean): number {
    const { random } = this;
    const good = code
      ? [SELECTORS.code32, 0x07, 0x3f]
      : [SELECTORS.data, 0x0f, 0x17, 0x1f, 0x27, 0x2f];
    if (random.chance(0.7)) return random.pick(good);
    return random.pick([
      0,
      3,
      0x10,
      0x18,
      0x23,
      0x2b,
      0x20,
      0x28,
      0x37,
      0x3f,
      0x47,
      0x6b,
      0x83,
      0x87,
    ]);
  }

  /** Return addresses and selectors on the stack for RETF and IRET, in both operand sizes. */
  farFrame(): void {
    const { random } = this, size = this.operand16 ? 2 : 4;
    const code = this.mode === 64 ? SELECTORS.code64 : this.selector(true);
    const flags = 0x202 | (random.u32() & 0x44cd5);
    const words = [random.below(0x1000), code, flags, this.stackTop() + 64, this.selector(false)];
    if (this.rule.opcode !== 0xcf) words.splice(2, 1, 0);
    if (this.mode === 64 && this.rule.opcode !== 0xcf) words[1] = SELECTORS.code64;
    const bytes = new Uint8Array(size * words.length), view = new DataView(bytes.buffer);
    words.forEach((w, n) =>
      size === 2 ? view.setUint16(n * 2, w, true) : view.setUint32(n * 4, w, true)
    );
    this.patchIfInside(this.stackTop(), bytes);
  }

  /** Selector for MOV Sreg, LDS and their like: in the register, at the operand, on the stack. */
  selectorOperand(operand: Operand): void {
    const value = this.selector(this.random.chance(0.1));
    if (this.rule.loadSegment === "stack") {
      const bytes = Uint8Array.of(value, 0, 0, 0);
      this.patchIfInside(this.stackTop(), bytes);
    } else if (!operand.memory) {
      this.set((operand.bytes[0] & 7) | ((this.rex & 1) << 3), BigInt(value));
    } else {
      const patch = this.patches.at(-1);
      if (!patch) return;
      const at = this.rule.loadSegment === "far" ? (this.operand16 ? 2 : 4) : 0;
      patch.bytes[at] = value;
      patch.bytes[at + 1] = 0;
    }
  }

  patchIfInside(address: number, bytes: Uint8Array): void {
    const inside = address >= STACK.address && address + bytes.length <= STACK.address + STACK.size;
    if (inside) this.patches.push({ address, bytes });
  }

  immediate(): number[] {
    const { random, rule } = this;
    if (rule.immediate) return rule.immediate(random, this.operand16, this.selector(true));
    const bytes: number[] = [];
    const value = integer(random);
    for (let i = 0n; i < 8n; i++) bytes.push(Number((value >> (i * 8n)) & 0xffn));
    if (rule.moffs && random.chance(0.85)) {
      const target = this.target(this.address16 && this.base(false) === 0) - this.base(false);
      for (let i = 0; i < 4; i++) bytes[i] = (target >>> (8 * i)) & 0xff;
      for (let i = 4; i < 8; i++) bytes[i] = 0;
    }
    return bytes;
  }

  /** Moves the instruction to the end of the code page, so that its fetch faults in the middle. */
  nearEnd(length: number): void {
    const back = 1 + this.random.below(length);
    this.state.rip = BigInt(CODE.address - codeBase(this.mode) + CODE.size - back);
  }
}

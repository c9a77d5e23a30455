/** Compares a subject's result with the oracle's, and prints what differs so that one can read it. */
import {
  type Case,
  CS,
  DS,
  ES,
  type Exception,
  FS,
  FX,
  GPR_NAMES,
  GS,
  type Result,
  SEGMENT_NAMES,
  SS,
  type Word,
} from "./state.ts";
import { type Allowance, forgiven } from "./exceptions.ts";
import { identify, type Instruction, operandAddress } from "./instruction.ts";
import { hex } from "./host.ts";

/** One part of the result that differs. */
export interface Difference {
  field: string;
  before: string;
  expected: string;
  actual: string;
}

/** Differences that no allowance forgives, in a fixed order of fields; empty if there is none. */
export function compare(
  test: Case,
  expected: Result,
  actual: Result,
  allowed: Allowance[],
): Difference[] {
  const check = new Check(test, expected, actual, allowed);
  check.exception();
  check.registers();
  check.segments();
  if (!equal(expected.state.fx, actual.state.fx)) check.floats();
  check.memory();
  return check.found;
}

/** Equality of two images of a multiple of four bytes. */
function equal(a: Uint8Array, b: Uint8Array): boolean {
  const x = new Int32Array(a.buffer, a.byteOffset, a.length >> 2);
  const y = new Int32Array(b.buffer, b.byteOffset, b.length >> 2);
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  return true;
}

class Check {
  readonly found: Difference[] = [];
  #instruction?: Instruction;

  constructor(
    readonly test: Case,
    readonly expected: Result,
    readonly actual: Result,
    readonly allowed: Allowance[],
  ) {}

  get instruction(): Instruction {
    return this.#instruction ??= identify(this.test);
  }

  add(field: string, before: string, expected: string, actual: string): void {
    const { instruction, test, allowed, expected: host } = this;
    if (forgiven(allowed, (a) => a.other?.(instruction, test, field, host) ?? false)) return;
    this.found.push({ field: FIELD_NAMES[field] ?? field, before, expected, actual });
  }

  exception(): void {
    const e = this.expected.exception, a = this.actual.exception;
    if (!e && !a) return;
    const same = e && a && e.vector === a.vector && e.error === a.error && e.address === a.address;
    if (!same) this.add("exception", "", exceptionText(e), exceptionText(a));
  }

  registers(): void {
    const before = this.test.state, e = this.expected.state, a = this.actual.state;
    if (!equal(bytes(e.gpr), bytes(a.gpr))) {
      for (let n = 0; n < 16; n++) {
        if (e.gpr[n] === a.gpr[n]) continue;
        this.add(`gpr${n}`, hex64(before.gpr[n]), hex64(e.gpr[n]), hex64(a.gpr[n]));
      }
    }
    if (e.rip !== a.rip) this.add("rip", hex64(before.rip), hex64(e.rip), hex64(a.rip));
    let flags = e.rflags ^ a.rflags;
    if (flags) {
      const { instruction, test } = this;
      for (const rule of this.expected.exception ? [] : this.allowed) {
        const free = flags & (rule.flags?.(instruction, test) ?? 0);
        if (!free) continue;
        rule.hits++;
        flags &= ~free;
      }
    }
    if (flags) {
      this.add("rflags", flagText(before.rflags), flagText(e.rflags), flagText(a.rflags));
    }
  }

  segments(): void {
    const before = this.test.state, e = this.expected.state, a = this.actual.state;
    for (const s of [ES, CS, SS, DS, FS, GS]) {
      if (e.selectors[s] === a.selectors[s]) continue;
      const text = (v: Uint16Array) => "0x" + v[s].toString(16);
      this.add(SEGMENT_NAMES[s], text(before.selectors), text(e.selectors), text(a.selectors));
    }
    if (this.test.mode !== 64) return; // elsewhere the bases follow from the selectors
    for (const base of ["fsBase", "gsBase"] as const) {
      if (e[base] !== a[base]) this.add(base, hex64(before[base]), hex64(e[base]), hex64(a[base]));
    }
  }

  floats(): void {
    const before = view(this.test.state.fx), e = view(this.expected.state.fx);
    const a = view(this.actual.state.fx);
    const word = (name: string, at: number, free: number) => {
      const bits = (e.getUint16(at, true) ^ a.getUint16(at, true)) & ~free;
      const text = (v: DataView) => "0x" + v.getUint16(at, true).toString(16).padStart(4, "0");
      if (bits) this.add(name, text(before), text(e), text(a));
    };
    word("fcw", FX.fcw, 0);
    word("fsw", FX.fsw, this.freeStatus(e.getUint16(FX.fsw, true) ^ a.getUint16(FX.fsw, true)));
    word("ftw", FX.ftw, 0);
    this.range("fop", FX.fop, 2);
    this.range("fip", FX.fip, 6);
    this.range("fip, bits 63 to 48", FX.fip + 6, 2);
    this.range("fdp", FX.fdp, 6);
    this.range("fdp, bits 63 to 48", FX.fdp + 6, 2);
    this.range("mxcsr", FX.mxcsr, 4);
    for (let n = 0; n < 8; n++) this.stack(n);
    for (let n = 0; n < 16; n++) this.vector(n);
  }

  /** Bits of the status word that are undefined here, of those that differ. */
  freeStatus(differing: number): number {
    let free = 0;
    for (const rule of differing ? this.allowed : []) {
      const bits = differing & ~free & (rule.status?.(this.instruction, this.test) ?? 0);
      if (!bits) continue;
      rule.hits++;
      free |= bits;
    }
    return free;
  }

  range(name: string, at: number, size: number): void {
    const e = this.expected.state.fx.subarray(at, at + size);
    const a = this.actual.state.fx.subarray(at, at + size);
    if (e.every((b, i) => b === a[i])) return;
    const free = forgiven(this.allowed, (rule) => {
      const range = rule.image?.(this.instruction, this.test);
      return range !== undefined && range[0] <= at && range[1] >= at + size;
    });
    if (free) return;
    const text = (b: Uint8Array) => "0x" + hex(b.toReversed()).replaceAll(" ", "");
    this.add(name, text(this.test.state.fx.subarray(at, at + size)), text(e), text(a));
  }

  /** One x87 register. */
  stack(n: number): void {
    const at = FX.st + n * 16;
    const e = this.expected.state.fx.subarray(at, at + 10);
    const a = this.actual.state.fx.subarray(at, at + 10);
    if (e.every((b, i) => b === a[i])) return;
    const distance = ulps(e, a);
    if (forgiven(this.allowed, (r) => distance <= (r.ulp?.(this.instruction) ?? 0))) return;
    this.add(`st${n}`, x87Text(this.test.state.fx.subarray(at, at + 10)), x87Text(e), x87Text(a));
  }

  /** One XMM register. */
  vector(n: number): void {
    const at = FX.xmm + n * 16;
    const e = this.expected.state.fx.slice(at, at + 16),
      a = this.actual.state.fx.slice(at, at + 16);
    if (equal(e, a)) return;
    const x = new Float32Array(e.buffer), y = new Float32Array(a.buffer);
    const [p, q] = [new Int32Array(e.buffer), new Int32Array(a.buffer)];
    const near = (limit: number) =>
      limit > 0 && x.every((v, i) =>
        p[i] === q[i] || Math.abs(v - y[i]) <= Math.abs(v) * limit ||
        // Near the least normal number it may be tiny, and then it is zero (SDM vol 2, RCPPS).
        Math.max(Math.abs(v), Math.abs(y[i])) <= 2 ** -126 * (1 + limit)
      );
    if (forgiven(this.allowed, (r) => near(r.relative?.(this.instruction) ?? 0))) return;
    const text = (b: Uint8Array) => hex(b.toReversed()).replaceAll(" ", "");
    this.add(`xmm${n}`, text(this.test.state.fx.subarray(at, at + 16)), text(e), text(a));
  }

  memory(): void {
    const e = this.expected.memory, a = this.actual.memory;
    const same = e.length === a.length && e.every((w, i) => {
      const v = a[i];
      return w.address === v.address && w.low === v.low && w.high === v.high;
    });
    if (same) return;
    const [x, y] = [new Map(e.map((w) => [w.address, w])), new Map(a.map((w) => [w.address, w]))];
    const addresses = [...new Set([...x.keys(), ...y.keys()])].sort((p, q) => p - q);
    const differing = addresses.filter((at) => wordText(x.get(at)) !== wordText(y.get(at)));
    if (this.freeBytes(differing, x, y)) return;
    const text = (m: Map<number, Word>) =>
      differing.map((at) => `[0x${at.toString(16)}]=${wordText(m.get(at))}`).join(" ");
    this.add("memory", "", text(x), text(y));
  }

  /** True if an allowance covers every byte of memory that differs. */
  freeBytes(addresses: number[], x: Map<number, Word>, y: Map<number, Word>): boolean {
    const start = operandAddress(this.instruction, this.test);
    if (start === undefined) return false;
    return forgiven(this.allowed, (rule) => {
      const ranges = rule.memory?.(this.instruction);
      if (!ranges) return false;
      return differingBytes(addresses, x, y).every((byte) =>
        ranges.some(([from, to]) => byte >= start + from && byte < start + to)
      );
    });
  }
}

/** Bytes in which words differ, as linear addresses. A word that one side lacks differs whole. */
function differingBytes(
  addresses: number[],
  x: Map<number, Word>,
  y: Map<number, Word>,
): number[] {
  return addresses.flatMap((address) => {
    const a = x.get(address), b = y.get(address);
    const bits = [(a?.low ?? 0) ^ (b?.low ?? ~0), (a?.high ?? 0) ^ (b?.high ?? ~0)];
    const bytes = [0, 1, 2, 3, 4, 5, 6, 7];
    return bytes.filter((n) => !a || !b || (bits[n >> 2] >>> ((n & 3) * 8)) & 0xff)
      .map((n) => address + n);
  });
}

const FIELD_NAMES: Record<string, string> = Object.fromEntries(
  GPR_NAMES.map((name, n) => [`gpr${n}`, name]),
);

/** Distance of two 80-bit values in units of the last place; infinite for unlike kinds. */
export function ulps(a: Uint8Array, b: Uint8Array): number {
  const rank = (bytes: Uint8Array) => {
    const v = view(bytes), head = v.getUint16(8, true);
    const significand = v.getBigUint64(0, true) & 0x7fff_ffff_ffff_ffffn;
    if ((head & 0x7fff) === 0x7fff && significand) return undefined; // NaN
    const magnitude = (BigInt(head & 0x7fff) << 63n) | significand;
    return head & 0x8000 ? -magnitude : magnitude;
  };
  const x = rank(a), y = rank(b);
  if (x === undefined || y === undefined) return Infinity;
  return Number(x > y ? x - y : y - x);
}

/** An exception in words. */
export function exceptionText(e: Exception | undefined): string {
  if (!e) return "none";
  const names = "#DE #DB NMI #BP #OF #BR #UD #NM #DF 9 #TS #NP #SS #GP #PF 15 #MF #AC #MC #XM";
  const name = names.split(" ")[e.vector] ?? `vector ${e.vector}`;
  const address = e.address === undefined ? "" : ` at 0x${e.address.toString(16)}`;
  return `${name}(0x${e.error.toString(16)})${address}`;
}

/** RFLAGS with the names of the flags that are set. */
export function flagText(flags: number): string {
  const names: [number, string][] = [
    [1, "CF"],
    [4, "PF"],
    [0x10, "AF"],
    [0x40, "ZF"],
    [0x80, "SF"],
    [0x100, "TF"],
    [0x200, "IF"],
    [0x400, "DF"],
    [0x800, "OF"],
    [0x4000, "NT"],
    [0x40000, "AC"],
    [0x200000, "ID"],
  ];
  const set = names.filter(([bit]) => flags & bit).map(([, name]) => name);
  return `0x${flags.toString(16)} ${set.join(" ")}`;
}

/** An 80-bit value as sign, exponent, significand. */
export function x87Text(bytes: Uint8Array): string {
  const v = view(bytes), head = v.getUint16(8, true);
  const sign = head & 0x8000 ? "-" : "+";
  const significand = v.getBigUint64(0, true).toString(16).padStart(16, "0");
  return `${sign}${(head & 0x7fff).toString(16).padStart(4, "0")}:${significand}`;
}

function wordText(w: Word | undefined): string {
  if (!w) return "background";
  return w.high.toString(16).padStart(8, "0") + w.low.toString(16).padStart(8, "0");
}

function hex64(value: bigint): string {
  return "0x" + value.toString(16);
}

function bytes(a: BigUint64Array): Uint8Array {
  return new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
}

function view(b: Uint8Array): DataView {
  return new DataView(b.buffer, b.byteOffset, b.byteLength);
}

/** The whole story of a case: instruction, state before, differences. `text` is its disassembly. */
export function report(test: Case, differences: readonly Difference[], text = ""): string {
  const { state } = test;
  const lines = [`case ${test.id ?? "?"}: ${test.mode}-bit ${hex(test.bytes)}  ${text}`];
  const count = test.mode === 64 ? 16 : 8;
  const regs = GPR_NAMES.slice(0, count).map((name, n) => `${name}=${state.gpr[n].toString(16)}`);
  for (let n = 0; n < count; n += 8) lines.push("  " + regs.slice(n, n + 8).join(" "));
  const selectors = SEGMENT_NAMES.map((s, n) => `${s}=${state.selectors[n].toString(16)}`).join(
    " ",
  );
  lines.push(`  rip=${state.rip.toString(16)} rflags=${flagText(state.rflags)} ${selectors}`);
  for (const p of test.patches) lines.push(`  [0x${p.address.toString(16)}] = ${hex(p.bytes)}`);
  const i = identify(test);
  if (i.opcode >= 0xd8 && i.opcode <= 0xdf) lines.push("  " + floatText(state.fx));
  for (const d of differences) {
    lines.push(
      `  ${d.field}: expected ${d.expected}, got ${d.actual}${d.before && ` (was ${d.before})`}`,
    );
  }
  return lines.join("\n");
}

function floatText(fx: Uint8Array): string {
  const v = view(fx);
  const words = ["fcw", "fsw", "ftw"].map((name, n) =>
    `${name}=${v.getUint16(n * 2, true).toString(16)}`
  );
  const st = [0, 1, 2, 3, 4, 5, 6, 7].map((n) =>
    `st${n}=${x87Text(fx.subarray(FX.st + n * 16, FX.st + n * 16 + 10))}`
  );
  return [...words, ...st].join(" ");
}

import { assert, assertEquals } from "@std/assert";
import { Module } from "../wasm/module.ts";
import { EXC, F, J } from "./cells.ts";
import { C0, C1, C2, C3, OP } from "./extended.ts";
import { buildFloat, buildTranscendental } from "./index.ts";

/** An 80-bit number: sign and exponent, significand. */
type Extended = readonly [se: number, sig: bigint];

type Calls = Record<string, (...args: (number | bigint)[]) => number | bigint>;

/** The float functions in a module of their own. */
class Floats {
  readonly view: DataView;
  readonly #call: Calls;

  constructor() {
    const m = new Module();
    m.importMemory("machine", "cpu", 1);
    buildFloat(m);
    buildTranscendental(m);
    for (const name of m.names().filter((n) => /^[xt][A-Z]/.test(n))) {
      const { params, results } = m.get(name);
      m.func(`run.${name}`, params, results, (f, ...args) => {
        const value = f.call(name, ...args);
        if (results.length > 0) f.result(value);
      });
    }
    const memory = new WebAssembly.Memory({ initial: 1 });
    this.view = new DataView(memory.buffer);
    const instance = new WebAssembly.Instance(new WebAssembly.Module(m.bytes()), {
      machine: { cpu: memory },
    });
    this.#call = instance.exports as unknown as Calls;
  }

  set(at: number, value: number): void {
    this.view.setInt32(at, value, true);
  }
  get(at: number): number {
    return this.view.getInt32(at, true);
  }
  /** Calls a function; rounding `mode`, result `format`, `masks`, all masked if absent. */
  run(name: string, args: (number | bigint)[], mode = 0, format = 0, masks = 0x3f) {
    for (const at of [F.flags, F.up, F.denormal, F.flush]) this.set(at, 0);
    this.set(F.mode, mode);
    this.set(F.format, format);
    this.set(F.masks, masks);
    return this.#call[`run.${name}`](...args);
  }
  get result(): Extended {
    return [this.get(F.se), this.view.getBigUint64(F.sig, true)];
  }
  get flags(): number {
    return this.get(F.flags);
  }
  fromDouble(x: number): Extended {
    this.view.setFloat64(0, x);
    this.run("xFromDouble", [this.view.getBigInt64(0)]);
    return this.result;
  }
  toDouble(x: Extended): number {
    this.view.setBigInt64(0, BigInt(this.run("xToDouble", [...x])));
    return this.view.getFloat64(0);
  }
}

const floats = new Floats();

/** Numbers that repeat from run to run. */
function* randoms(seed: number): Generator<number> {
  let x = seed;
  for (;;) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    yield x >>> 0;
  }
}
/** A finite double with an exponent in -500 to 500 or so. */
function double(next: () => number): number {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint32(4, next() % 3 ? next() : next() % 4);
  view.setUint32(0, next());
  view.setUint16(0, (next() & 0x8000) | (0x3ff - 500 + next() % 1000) << 4 | next() & 15);
  return view.getFloat64(0);
}

const hex = ([se, sig]: Extended) => `${se.toString(16)}:${sig.toString(16)}`;
const parse = (text: string): Extended => {
  const [se, sig] = text.split(":");
  return [parseInt(se, 16), BigInt(`0x${sig}`)];
};

Deno.test("xArith() at 53 bits is a double's arithmetic", () => {
  const random = randoms(7), next = () => random.next().value!;
  const operations: [number, (a: number, b: number) => number][] = [
    [OP.add, (a, b) => a + b],
    [OP.sub, (a, b) => a - b],
    [OP.subr, (a, b) => b - a],
    [OP.mul, (a, b) => a * b],
    [OP.div, (a, b) => a / b],
    [OP.divr, (a, b) => b / a],
  ];
  for (let n = 0; n < 3000; n++) {
    const a = double(next), b = n % 3 ? double(next) : a * (1 + (next() % 5 - 2) * 2 ** -52);
    for (const [op, work] of operations) {
      const want = work(a, b);
      floats.run("xArith", [op, ...floats.fromDouble(a), ...floats.fromDouble(b)], 0, 1);
      assertEquals(floats.toDouble(floats.result), want, `${op}: ${a}, ${b}`);
    }
    floats.run("xSqrt", [...floats.fromDouble(Math.abs(a))], 0, 1);
    assertEquals(floats.toDouble(floats.result), Math.sqrt(Math.abs(a)));
    floats.run("xArith", [OP.mul, ...floats.fromDouble(Math.fround(a)), 0x3fff, J], 0, 2);
    assertEquals(floats.toDouble(floats.result), Math.fround(a));
  }
});

Deno.test("xToSingle() rounds like Math.fround, denormals too", () => {
  const random = randoms(9), next = () => random.next().value!;
  const view = new DataView(new ArrayBuffer(8));
  for (let n = 0; n < 5000; n++) {
    const x = double(next) * 2 ** (next() % 1100 - 600);
    const bits = floats.run("xToSingle", [...floats.fromDouble(x)]) as bigint;
    view.setUint32(0, Number(BigInt.asUintN(32, bits)));
    assertEquals(view.getFloat32(0), Math.fround(x), String(x));
  }
});

Deno.test("integers of 64 bits go in and out unchanged, and round by the mode", () => {
  const random = randoms(11), next = () => random.next().value!;
  for (let n = 0; n < 2000; n++) {
    const value = BigInt.asIntN(64, BigInt(next()) << 32n | BigInt(next())) >> BigInt(next() % 64);
    floats.run("xFromInt", [value]);
    assertEquals(floats.run("xToInt", [...floats.result, 64]), value);
    assertEquals(floats.flags, 0);
  }
  const cases: [number, number, number][] = [
    [2.5, 0, 2],
    [3.5, 0, 4],
    [-2.5, 1, -3],
    [-2.5, 2, -2],
    [2.5, 2, 3],
    [-2.9, 3, -2],
    [0.3, 0, 0],
  ];
  for (const [x, mode, want] of cases) {
    assertEquals(floats.run("xToInt", [...floats.fromDouble(x), 32], mode), BigInt(want));
    assertEquals(floats.flags, EXC.precision);
  }
  assertEquals(floats.run("xToInt", [...floats.fromDouble(32768), 16]), -32768n);
  assertEquals(floats.flags, EXC.invalid);
  assertEquals(floats.run("xToInt", [...floats.fromDouble(-32768), 16]), -32768n);
  assertEquals(floats.flags, 0);
});

Deno.test("packed decimal goes in and out", () => {
  floats.run("xFromDecimal", [0x5678_9012_3456_7890n, 0x8012]);
  const number = floats.result;
  floats.run("xToInt", [...number, 64]);
  assertEquals(floats.toDouble(number), -125678901234567890);
  floats.run("xToDecimal", [...number]);
  const halves = [floats.view.getBigUint64(F.hi, true), floats.view.getBigUint64(F.lo, true)];
  assertEquals(halves, [0x5678_9012_3456_7890n, 0x8012n]);
});

Deno.test("rounding modes and what is raised", () => {
  const third = (mode: number) => {
    floats.run("xArith", [OP.div, 0x3fff, J, 0x4000, 3n << 62n], mode);
    return [hex(floats.result), floats.flags, floats.get(F.up)];
  };
  assertEquals(third(0), ["3ffd:aaaaaaaaaaaaaaab", EXC.precision, 1]);
  assertEquals(third(1), ["3ffd:aaaaaaaaaaaaaaaa", EXC.precision, 0]);
  assertEquals(third(2), ["3ffd:aaaaaaaaaaaaaaab", EXC.precision, 1]);
  const largest: Extended = [0x7ffe, (1n << 64n) - 1n];
  const twice = (mode: number, masks: number) => {
    floats.run("xArith", [OP.add, ...largest, ...largest], mode, 0, masks);
    return [hex(floats.result), floats.flags];
  };
  assertEquals(twice(0, 0x3f), ["7fff:8000000000000000", EXC.overflow | EXC.precision]);
  assertEquals(twice(3, 0x3f), ["7ffe:ffffffffffffffff", EXC.overflow | EXC.precision]);
  // Unmasked: the exponent is 24576 too small.
  assertEquals(twice(0, 0x37), ["1fff:ffffffffffffffff", EXC.overflow]);
  const halved = (masks: number) => {
    floats.run("xArith", [OP.mul, 1, J | 1n, 0x3ffe, J], 0, 0, masks);
    return [hex(floats.result), floats.flags];
  };
  assertEquals(halved(0x3f), ["0:4000000000000000", EXC.underflow | EXC.precision]);
  assertEquals(halved(0x2f), ["6000:8000000000000001", EXC.underflow]);
});

Deno.test("NaNs, infinities and unsupported encodings follow the x87's rules", () => {
  const inf: Extended = [0x7fff, J], quiet: Extended = [0xffff, 0xc000_0000_0000_0005n];
  const signaling: Extended = [0x7fff, 0x8000_0000_0000_0009n], one: Extended = [0x3fff, J];
  const add = (a: Extended, b: Extended) => {
    floats.run("xArith", [OP.add, ...a, ...b]);
    return [hex(floats.result), floats.flags];
  };
  assertEquals(add(one, quiet), [hex(quiet), 0]);
  assertEquals(add(signaling, one), ["7fff:c000000000000009", EXC.invalid]);
  assertEquals(add(signaling, quiet), [hex(quiet), EXC.invalid]);
  assertEquals(add(inf, [0xffff, J]), ["ffff:c000000000000000", EXC.invalid]);
  // An unnormal, a pseudo-infinity.
  assertEquals(add(one, [0x3fff, 1n]), ["ffff:c000000000000000", EXC.invalid]);
  assertEquals(add(one, [0x7fff, 0n]), ["ffff:c000000000000000", EXC.invalid]);
  // A pseudo-denormal counts as denormal and has the value of exponent 1.
  assertEquals(add([0, J], [0, 0n]), ["1:8000000000000000", EXC.denormal]);
  floats.run("xArith", [OP.div, ...one, 0x8000, 0n]);
  assertEquals([hex(floats.result), floats.flags], ["ffff:8000000000000000", EXC.zeroDivide]);
});

Deno.test("xCompare() orders; only FUCOM takes quiet NaNs calmly", () => {
  const compare = (a: number, b: number, quiet = 0) => {
    const cc = floats.run("xCompare", [...floats.fromDouble(a), ...floats.fromDouble(b), quiet]);
    return [cc, floats.flags];
  };
  assertEquals(compare(1, 2), [C0, 0]);
  assertEquals(compare(-1, -2), [0, 0]);
  assertEquals(compare(-0, 0), [C3, 0]);
  assertEquals(compare(-Infinity, 1e300), [C0, 0]);
  assertEquals(compare(NaN, 1), [C0 | C2 | C3, EXC.invalid]);
  assertEquals(compare(NaN, 1, 1), [C0 | C2 | C3, 0]);
});

Deno.test("xRemainder() is exact and gives the low bits of the quotient", () => {
  const random = randoms(13), next = () => random.next().value!;
  for (let n = 0; n < 2000; n++) {
    const a = BigInt(next()) << 20n | BigInt(next() % 1000), b = BigInt(1 + next() % 0xfffff);
    const number = (x: bigint) => {
      floats.run("xFromInt", [x]);
      return floats.result;
    };
    floats.run("xRemainder", [...number(a), ...number(b), 0]);
    const cc = floats.get(F.extra), q = a / b;
    const bits = (q & 1n ? C1 : 0) | (q & 2n ? C3 : 0) | (q & 4n ? C0 : 0);
    assertEquals([hex(floats.result), cc], [hex(number(a % b)), bits]);
  }
  // 2^100 mod 3: not complete after one step.
  floats.run("xRemainder", [0x3fff + 100, J, 0x4000, 3n << 62n, 0]);
  assertEquals(floats.get(F.extra), C2);
});

/** Operands (ST(0), ST(1)) and results of an Intel Xeon (family 6, model 85). */
const HOST: [string, string[], string][] = [
  ["f2xm1", ["3ffd:9999999999999800"], "3ffc:ecb11effe0ca35b4"],
  ["f2xm1", ["bffe:b333333333333000"], "bffd:c4d3b84007cd6f29"],
  ["f2xm1", ["3fbc:bce5086492111800"], "3fbc:82ee8a7ab5531230"],
  ["fyl2x", ["4002:a000000000000000", "3fff:8000000000000000"], "4000:d49a784bcd1b8afe"],
  ["fyl2x", ["3ffe:ffbe76c8b4395800", "c000:c000000000000000"], "3ff7:8de4c65fe4a7e6af"],
  ["fyl2x", ["43e3:bf21e44003ace000", "3ffe:8000000000000000"], "4007:f92504f8d45c46e3"],
  ["fyl2xp1", ["3ffb:ccccccccccccd000", "3fff:8000000000000000"], "3ffc:8ccdb9465ce84218"],
  ["fyl2xp1", ["bffd:8000000000000000", "4001:e000000000000000"], "c000:b9efd21a874892a9"],
  ["fyl2xp1", ["3fc3:9392ee8e921d6000", "3fff:8000000000000000"], "3fc3:d4e77a4730979f6a"],
  ["fsin", ["3fff:8000000000000000"], "3ffe:d76aa47848677021"],
  ["fsin", ["4000:c90fdaa22168c000"], "3fca:8d30000000000000"],
  ["fsin", ["403a:de0b6b3a76400000"], "bffe:fe293239d98b5dc4"],
  ["fcos", ["3fff:8000000000000000"], "3ffe:8a51407da8345c92"],
  ["fcos", ["c005:c800000000000000"], "3ffe:dcc0edfb32fefb21"],
  ["fcos", ["3fff:c90fdaa22168c000"], "3fc9:8d30000000000000"],
  ["fptan", ["3ffe:8000000000000000"], "3ffe:8bda7adf9a3a5219"],
  ["fptan", ["4000:8000000000000000"], "c000:8bd7b1704a87c1db"],
  ["fpatan", ["3fff:8000000000000000", "3ffe:8000000000000000"], "3ffd:ed63382b0dda7b45"],
  ["fpatan", ["c000:c000000000000000", "3ffb:ccccccccccccd000"], "4000:c6edec3f3d1b6288"],
  ["fpatan", ["bff8:a3d70a3d70a3d800", "c000:8000000000000000"], "bfff:c9b3b152e4b357db"],
];
const FUNCTIONS: Record<string, [name: string, ...more: number[]]> = {
  f2xm1: ["tExp"],
  fyl2x: ["tLog"],
  fyl2xp1: ["tLogPlus"],
  fsin: ["tSine", 0],
  fcos: ["tSine", 1],
  fptan: ["tTangent"],
  fpatan: ["tArctangent"],
};

Deno.test("transcendental functions are within one ulp of a processor's", () => {
  for (const [key, operands, want] of HOST) {
    const [name, ...more] = FUNCTIONS[key];
    floats.run(name, [...operands.flatMap((o) => [...parse(o)]), ...more]);
    const [se, sig] = floats.result, [wantSe, wantSig] = parse(want);
    const ulps = sig - wantSig;
    assert(se === wantSe && ulps >= -1n && ulps <= 1n, `${key} ${operands}: ${hex([se, sig])}`);
    assertEquals(floats.flags, EXC.precision);
  }
});

Deno.test("transcendental functions agree with Math to a double's precision", () => {
  const random = randoms(17), next = () => random.next().value! / 2 ** 32;
  const near = (key: string, operands: number[], want: number) => {
    const [name, ...more] = FUNCTIONS[key];
    floats.run(name, [...operands.flatMap((x) => [...floats.fromDouble(x)]), ...more]);
    const got = floats.toDouble(floats.result);
    assert(Math.abs(got - want) <= Math.abs(want) * 4e-16, `${key} ${operands}: ${got}, ${want}`);
  };
  for (let n = 0; n < 500; n++) {
    const x = next() * 2 - 1, y = (next() - 0.5) * 20;
    near("f2xm1", [x], Math.expm1(x * Math.LN2));
    near("fsin", [x], Math.sin(x));
    near("fcos", [x], Math.cos(x));
    near("fptan", [x], Math.tan(x));
    near("fpatan", [x, y], Math.atan2(y, x));
    const z = 2 + Math.abs(y);
    near("fyl2x", [z, 1], Math.log2(z));
  }
});

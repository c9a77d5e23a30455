import { assert, assertEquals, assertThrows } from "@std/assert";
import { Oracle, unavailable } from "./host.ts";
import { type Case, emptyState, FX, Ground, type Result, type Subject } from "./state.ts";
import { compare, exceptionText, report } from "./compare.ts";
import { allowances } from "./exceptions.ts";
import { caseFromText, caseToText } from "./cases.ts";
import { generated, run } from "./campaign.ts";
import { generate } from "./generate.ts";
import { CODE, LISTING } from "./stub.ts";
import { dump, unavailable as noObjdump } from "./objdump.ts";

const DATA = 0x1000_0000;

/** Registers a test names: by number, as in {@linkcode CpuState.gpr}. */
interface Setup {
  mode?: 16 | 32 | 64;
  gpr?: Record<number, bigint>;
  flags?: number;
  memory?: [address: number, bytes: number[]][];
  st?: [significand: bigint, head: number][];
  fsw?: number;
  ftw?: number;
  steps?: number;
}

function make(bytes: number[], setup: Setup = {}): Case {
  const mode = setup.mode ?? 32, state = emptyState(mode);
  state.gpr[4] = mode === 16 ? 0x800n : 0x2000_0800n;
  for (const [n, value] of Object.entries(setup.gpr ?? {})) state.gpr[Number(n)] = value;
  state.rflags |= setup.flags ?? 0;
  const fx = new DataView(state.fx.buffer);
  fx.setUint16(FX.fsw, setup.fsw ?? 0, true);
  fx.setUint8(FX.ftw, setup.ftw ?? (setup.st ? 0xff : 0));
  setup.st?.forEach(([significand, head], n) => {
    fx.setBigUint64(FX.st + 16 * n, significand, true);
    fx.setUint16(FX.st + 16 * n + 8, head, true);
  });
  const patches = (setup.memory ?? []).map(([address, b]) => ({
    address,
    bytes: Uint8Array.from(b),
  }));
  return { mode, state, bytes: Uint8Array.from(bytes), patches, steps: setup.steps };
}

/** A test of the host's processor: bytes, setup, and what must come of it. */
const CHECKS: [name: string, bytes: number[], setup: Setup, check: (r: Result) => void][] = [
  ["ADD EAX,1 overflows: OF, SF, AF, PF", [0x05, 1, 0, 0, 0], { gpr: { 0: 0x7fff_ffffn } }, (r) => {
    assertEquals(r.state.gpr[0], 0x8000_0000n);
    assertEquals(r.state.rflags, 0x202 | 0x800 | 0x80 | 0x10 | 4);
    assertEquals(r.state.rip, 0x40_0005n);
  }],
  ["DIV by zero: #DE, state unchanged", [0xf7, 0xf1], { gpr: { 0: 5n } }, (r) => {
    assertEquals(exceptionText(r.exception), "#DE(0x0)");
    assertEquals([r.state.rip, r.state.gpr[0]], [0x40_0000n, 5n]);
  }],
  ["IDIV of the least by -1: #DE", [0xf7, 0xf9], {
    gpr: { 0: 0x8000_0000n, 1: 0xffff_ffffn, 2: 0xffff_ffffn },
  }, (r) => assertEquals(r.exception?.vector, 0)],
  ["SHLD EAX,EDX,4", [0x0f, 0xa4, 0xd0, 4], { gpr: { 0: 0x1234_5678n, 2: 0xabcd_0000n } }, (r) => {
    assertEquals(r.state.gpr[0], 0x2345_678an);
    assertEquals(r.state.rflags & 1, 1); // CF: the last bit out, bit 28
  }],
  ["FPTAN of 0: 0 and 1 pushed, C2 clear", [0xd9, 0xf2], {
    st: [[0n, 0]],
    ftw: 1,
  }, (r) => {
    const fx = new DataView(r.state.fx.buffer);
    assertEquals(fx.getUint16(FX.fsw, true) & 0x3fff, 7 << 11); // TOP = 7, no flag
    assertEquals(fx.getUint16(FX.st + 8, true), 0x3fff);
    assertEquals(fx.getBigUint64(FX.st + 16, true), 0n);
  }],
  ["FPTAN of 2^63: C2 set, nothing pushed", [0xd9, 0xf2], {
    st: [[1n << 63n, 0x403e]],
    ftw: 1,
  }, (r) => assertEquals(new DataView(r.state.fx.buffer).getUint16(FX.fsw, true), 0x400)],
  [
    "FSQRT of -1: invalid, the indefinite",
    [0xd9, 0xfa],
    { st: [[1n << 63n, 0xbfff]], ftw: 1 },
    (r) => {
      const fx = new DataView(r.state.fx.buffer);
      assertEquals(fx.getUint16(FX.fsw, true), 1);
      assertEquals([fx.getBigUint64(FX.st, true), fx.getUint16(FX.st + 8, true)], [
        3n << 62n,
        0xffff,
      ]);
    },
  ],
  ["PADDUSB MM0,MM1 saturates", [0x0f, 0xdc, 0xc1], {
    st: [[0xff01_80ff_0000_10f0n, 0xffff], [0x0101_80ff_0000_f010n, 0xffff]],
  }, (r) => {
    const fx = new DataView(r.state.fx.buffer);
    assertEquals(fx.getBigUint64(FX.st, true), 0xff02_ffff_0000_ffffn);
    assertEquals(fx.getUint8(FX.ftw), 0xff);
  }],
  [
    "a read of what is not there: #PF, user, with its address",
    [0x8b, 0x05, 4, 0x30, 0, 0x10],
    {},
    (r) => assertEquals(exceptionText(r.exception), "#PF(0x4) at 0x10003004"),
  ],
  [
    "a write to the read-only page: #PF, present, write, user",
    [0xa3, 8, 0x20, 0, 0x10],
    {},
    (r) => assertEquals(exceptionText(r.exception), "#PF(0x7) at 0x10002008"),
  ],
  [
    "a read across the end: #PF at the first byte outside",
    [0x8b, 0x05, 0xfe, 0x2f, 0, 0x10],
    {},
    (r) => assertEquals(exceptionText(r.exception), "#PF(0x4) at 0x10003000"),
  ],
  ["a store changes its word only", [0xa3, 0x10, 0, 0, 0x10], {
    gpr: { 0: 0x1234_5678n },
    memory: [[DATA + 0x10, [0, 0, 0, 0, 1, 0, 0, 0]]],
  }, (r) => assertEquals(r.memory.at(-1), { address: DATA + 0x10, low: 0x1234_5678, high: 1 })],
  ["PUSHF does not show the trap flag", [0x9c], { flags: 1 }, (r) => {
    const word = r.memory.at(-1)!;
    assertEquals([word.address, word.high], [0x2000_07f8, 0x203]);
    assertEquals(r.state.rflags, 0x203);
  }],
  ["REP MOVSB steps by iterations", [0xf3, 0xa4], {
    gpr: { 1: 3n, 6: 0x1000_0000n, 7: 0x1000_0100n },
    steps: 2,
  }, (r) => assertEquals([r.state.gpr[1], r.state.rip], [1n, 0x40_0000n])],
  ["POP SS is one instruction, not two", [0x17], {
    memory: [[0x2000_0800, [0x2b, 0, 0, 0]]],
  }, (r) => assertEquals([r.state.rip, r.state.gpr[4]], [0x40_0001n, 0x2000_0804n])],
  ["HLT at CPL 3: #GP(0)", [0xf4], {}, (r) => assertEquals(exceptionText(r.exception), "#GP(0x0)")],
  [
    "INT 13 at CPL 3: #GP with the gate's index",
    [0xcd, 0x0d],
    {},
    (r) => assertEquals(exceptionText(r.exception), "#GP(0x6a)"),
  ],
  [
    "MOV DS of a kernel selector: #GP(0x18)",
    [0x8e, 0xd8],
    { gpr: { 0: 0x18n } },
    (r) => assertEquals(exceptionText(r.exception), "#GP(0x18)"),
  ],
  [
    "MOV ES of an absent segment: #NP",
    [0x8e, 0xc0],
    { gpr: { 0: 0x37n } },
    (r) => assertEquals(exceptionText(r.exception), "#NP(0x34)"),
  ],
  ["UD2: #UD", [0x0f, 0x0b], {}, (r) => assertEquals(exceptionText(r.exception), "#UD(0x0)")],
  ["16-bit PUSH imm16 at SS:SP", [0x68, 0x34, 0x12], { mode: 16 }, (r) => {
    assertEquals(r.state.gpr[4], 0x7fen);
    assertEquals(r.memory.at(-1)!.high >>> 16, 0x1234);
  }],
  [
    "64-bit MOV RAX,imm64",
    [0x48, 0xb8, 8, 7, 6, 5, 4, 3, 2, 1],
    { mode: 64 },
    (r) => assertEquals(r.state.gpr[0], 0x0102_0304_0506_0708n),
  ],
];

const missing = unavailable();
const option = { ignore: missing !== undefined };
if (missing) console.warn(`skipped: ${missing}`);

for (const [name, bytes, setup, check] of CHECKS) {
  Deno.test({
    name: `host CPU: ${name}${missing ? ` (skipped: ${missing})` : ""}`,
    ...option,
    fn() {
      using oracle = Oracle.open();
      check(oracle.run(make(bytes, setup)));
    },
  });
}

Deno.test({
  name: "the host CPU gives the same result for every generated case twice, in each mode",
  ...option,
  fn() {
    using oracle = Oracle.open();
    for (const mode of [16, 32, 64] as const) {
      const cases = [...generated(11, mode, 0, 2000, ["integer", "system", "x87", "mmx", "sse"])];
      const first = oracle.runBatch(cases), again = oracle.runBatch(cases.toReversed()).reverse();
      first.forEach((expected, n) => {
        const differences = compare(cases[n], expected, again[n], []);
        assert(differences.length === 0, report(cases[n], differences));
      });
    }
  },
});

Deno.test({
  name: "a campaign finds a subject's wrong flag, register, memory and exception",
  ...option,
  fn() {
    using oracle = Oracle.open();
    using inner = Oracle.open();
    let n = 0;
    const subject: Subject = {
      name: "the host's processor with errors",
      modes: [32],
      run(test) {
        const result = inner.run(test);
        if (n === 100) result.state.rflags ^= 0x400;
        if (n === 200) result.state.gpr[3] ^= 1n;
        if (n === 300) result.memory.push({ address: DATA + 0x1ff8, low: 0, high: 0 });
        if (n === 400) result.exception = { vector: 12, error: 0 };
        if (n++ === 500) throw new Error("a bug of the subject");
        return result;
      },
    };
    const found: string[] = [];
    // Fewer than 600 where the host's kernel stops split locks.
    const cases = [...generated(5, 32, 0, 600)];
    const summary = run({
      oracle,
      subject,
      cases,
      onDifference: (f) => found.push(f.differences.map((d) => d.field).join()),
    });
    assertEquals(found, ["rflags", "rbx", "memory", "exception", "subject"]);
    assertEquals([summary.cases, summary.failed], [cases.length, 5]);
  },
});

Deno.test("allowances forgive undefined flags only, and count", () => {
  const test = make([0x21, 0xc8]); // AND EAX,ECX
  const result = (flags: number): Result => ({
    state: { ...emptyState(32), rflags: flags },
    memory: [],
  });
  const allowed = allowances("intel");
  assertEquals(compare(test, result(0x246), result(0x256), allowed), []);
  assertEquals(allowed.filter((a) => a.hits).map((a) => a.id), ["AND, OR, XOR, TEST: AF"]);
  assertEquals(compare(test, result(0x246), result(0x206), allowed).map((d) => d.field), [
    "rflags",
  ]);
  const add = make([0x01, 0xc8]);
  assertEquals(compare(add, result(0x246), result(0x256), allowed).length, 1);
});

Deno.test("FNSTENV's FCS and FDS may differ, FIP may not", () => {
  const test = make([0xd9, 0x30], { gpr: { 0: 0x1000_0100n } }); // FNSTENV [EAX]
  const result = (address: number, low: number, high: number): Result => ({
    state: emptyState(32),
    memory: [{ address, low, high }],
  });
  const check = (at: number, low: number, high: number) =>
    compare(test, result(at, 0, 0), result(at, low, high), allowances("intel")).length;
  assertEquals(check(DATA + 0x110, 0x1b, 0), 0); // FCS at 16
  assertEquals(check(DATA + 0x108, 0, 1), 1); // FIP at 12
  assertEquals(check(DATA + 0x118, 0x10000, 0), 1); // behind FDS
});

Deno.test("REP MOVS with 67 may lose RSI's upper half on this host, when it faults and not else", () => {
  const rsi = 0x5_1000_0000n;
  const result = (value: bigint, faults: boolean): Result => {
    const state = emptyState(64);
    state.gpr[6] = value;
    return { state, memory: [], exception: faults ? { vector: 14, error: 4 } : undefined };
  };
  const check = (bytes: number[], host: bigint, faults: boolean) => {
    const test = make(bytes, { mode: 64, gpr: { 6: rsi } });
    return compare(test, result(host, faults), result(rsi, faults), allowances("intel")).length;
  };
  assertEquals(check([0x67, 0xf3, 0xa4], 0x1000_0000n, true), 0);
  assertEquals(check([0x67, 0xf3, 0xa4], 0x1000_0000n, false), 1);
  assertEquals(check([0x67, 0xf3, 0xa4], 0x1000_0001n, true), 1);
  assertEquals(check([0x67, 0xa4], 0x1000_0000n, true), 1);
});

Deno.test("a case survives its text form", () => {
  for (let index = 0; index < 50; index++) {
    const test = generate({ seed: 3, mode: 64, kinds: ["integer", "sse"] }, index);
    assertEquals(caseFromText(caseToText(test)), { ...test, steps: undefined });
  }
});

Deno.test("Ground applies patches, lists changes in order, and restores the background", () => {
  const ground = new Ground();
  const test = make([0x90, 0xcc], { memory: [[DATA, [1, 2]], [0x8000, [9]]] });
  ground.apply(test);
  const words = ground.collect();
  assertEquals(words.map((w) => w.address), [0x8000, 0x40_0000, DATA]);
  assertEquals(ground.collect(), []);
  assertThrows(() => ground.write(0x5000, Uint8Array.of(1)), RangeError, "0x5000");
});

Deno.test({
  name: "the stub's listing is what objdump reads in its bytes",
  ignore: noObjdump() !== undefined,
  async fn() {
    const listed = [...LISTING.matchAll(/^ {2}([0-9a-f]+) +(.*)$/gm)].map((m) => ({
      length: m[1].length / 2,
      text: m[2],
    }));
    const offsets: number[] = [];
    let at = 0;
    for (const line of listed) {
      offsets.push(at);
      at += line.length;
    }
    const lines = await dump(CODE, 64, offsets);
    const plain = (text: string) =>
      text.replace(/\s*[#<].*$/, "").replace(/\s+/g, " ").replace("0x", "").trimEnd();
    lines.forEach((line, n) => {
      const wanted = plain(listed[n].text).replaceAll("0x", "");
      assertEquals(plain(line?.text ?? "nothing").replaceAll("0x", ""), wanted);
      assertEquals(line?.length, listed[n].length);
    });
  },
});

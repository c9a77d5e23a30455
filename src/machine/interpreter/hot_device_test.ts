// Hot handlers against the cold ones where an access leaves the fast path: devices that look at the
// clock, end the slice and interrupt, watched pages, code that is written.
import { assert, assertEquals } from "@std/assert";
import { CPU, GPRS, V, WATCHING } from "../state.ts";
import { encode } from "../isa/encode_instruction.ts";
import { type Encoding, encodings } from "../isa/encodings.ts";
import type { Machine } from "../machine.ts";
import { flatMachine } from "../testing.ts";
import { hotForms } from "./hot_forms.ts";

const CODE = 0x4000, TARGETS = 0x5000, RAM = 0x9000, DEVICE = 0xfee0_0080, STACK = 0x7000;
const TABLE = 0x2000, HANDLER = 0x3000, VECTOR = 0x40, NOP = 0x90;

/** What an access is to meet: `nth` access ends the slice and, of a device, asks for an interrupt. */
interface Case {
  readonly bytes: Uint8Array;
  readonly at: number;
  readonly stack: number;
  readonly nth: number;
  readonly watched: boolean;
}

class Subject {
  readonly machine: Machine;
  #log: string[] = [];
  #accesses = 0;
  #case!: Case;
  #pending = false;

  constructor(hot: boolean, readonly long: boolean) {
    this.machine = flatMachine("nop", { hot, long });
    const { machine } = this, { cpu } = machine;
    for (const n of [HANDLER, TARGETS]) machine.write(n, new Uint8Array(0x1000).fill(NOP));
    const gate = BigInt(HANDLER & 0xffff) | 8n << 16n | 0x8e00n << 32n;
    const entry = new DataView(new ArrayBuffer(16));
    entry.setBigUint64(0, gate, true);
    machine.write(TABLE + VECTOR * (long ? 16 : 8), new Uint8Array(entry.buffer));
    // The code segment that the gate names.
    entry.setBigUint64(0, long ? 0x00af_9b00_0000_ffffn : 0x00cf_9b00_0000_ffffn, true);
    machine.write(0x1008, new Uint8Array(entry.buffer, 0, 8));
    cpu.set("gdtr.base", 0x1000n);
    cpu.set("idtr.base", BigInt(TABLE));
    machine.bus = {
      ...machine.bus,
      mmioRead: (address, bytes) => {
        this.#access(`read ${address.toString(16)} ${bytes}`);
        return address & 4 ? 0 : (TARGETS + 0x10) % 2 ** (8 * bytes);
      },
      mmioWrite: (address, bytes, value) =>
        this.#access(`write ${address.toString(16)} ${bytes} ${value.toString(16)}`),
      interruptPending: () => this.#pending,
      acknowledge: () => {
        this.#pending = false;
        return VECTOR;
      },
    };
    cpu.marked.push({
      watchesPage: (_low, _high, frame) => frame === RAM >>> 12,
      hasBreakpointAt: () => false,
      watches: true,
    });
    cpu.observers.push({
      watch: (low, _high, physical, bytes, access) => {
        if (physical >>> 12 === RAM >>> 12) this.#access(`watch ${low} ${bytes} ${access}`);
        return false;
      },
      givenUp: () => {},
      hasBreakpoint: () => false,
      isOver: () => false,
    });
  }

  #access(what: string): void {
    const { cpu } = this.machine;
    this.#log.push(`${what} at ${cpu.now} ${cpu.counted}`);
    if (++this.#accesses !== this.#case.nth) return;
    this.#pending = true;
    cpu.endSlice();
  }

  /** What it comes to: accesses with their times, where it stopped, count, registers and memory. */
  run(x: Case): string {
    const { cpu } = this.machine;
    this.#case = x;
    this.#log = [];
    this.#accesses = 0;
    this.#pending = false;
    const code = new Uint8Array(64).fill(NOP);
    code.set(x.bytes);
    // JE over a NOP: it has a handler together with a comparison.
    code.set([0x74, 1], x.bytes.length);
    // Nothing is predecoded beyond a JMP.
    code.set([0xeb, 0xfe], x.bytes.length + 8);
    this.machine.write(CODE, code);
    this.machine.write(RAM, Uint8Array.of(TARGETS + 0x10 & 0xff, TARGETS >>> 8, 0, 0, 0, 0, 0, 0));
    GPRS.forEach((name, n) => cpu.set(name, BigInt(n + 1)));
    for (const name of ["rbx", "rbp"] as const) cpu.set(name, BigInt(x.at));
    cpu.set("rsp", BigInt(x.stack));
    if (x.stack !== STACK) cpu.set("rbp", BigInt(x.stack + 0x20));
    cpu.set("rsi", 0n);
    cpu.set("rflags", 0x202n);
    cpu.i32[CPU.flagOp >> 2] = 0;
    cpu.set("rip", BigInt(CODE));
    cpu.i32[V.watching >> 2] = x.watched ? WATCHING.observers : 0;
    let fault: number | undefined;
    cpu.hooks.fault = () => (fault = cpu.lastFault?.vector, true);
    const count = cpu.count;
    // The log tells times from the start of the case.
    const base = cpu.now;
    const stop = cpu.run(5);
    cpu.system.materialize();
    const log = this.#log.map((line) =>
      line.replace(/at (\d+) (\d+)$/, (_, now, counted) => `at ${now - base} ${counted - count}`)
    );
    return [
      ...log,
      `${stop} ${fault} after ${cpu.count - count}, time ${cpu.now - base}`,
      ...([...GPRS, "rip", "rflags"] as const).map((name) =>
        `${name} ${cpu.get(name).toString(16)}`
      ),
      this.machine.ram.slice(RAM, RAM + 16).toHex(),
      this.machine.ram.slice(CODE, CODE + 64).toHex(),
      this.machine.ram.slice(STACK - 32, STACK + 32).toHex(),
    ].join("\n");
  }
}

/** Encodings of the instructions that have hot handlers, in every size, with every kind of memory. */
function* instructions(long: boolean): Generator<Uint8Array> {
  const keys = new Set([...hotForms(long).values()].map((h) => h.form.key));
  const mode = long ? 64 : 32;
  const memory = [{ base: 3 }, { base: 3, index: 6, scale: 2 }, { base: 3, segmentOverride: 4 }];
  for (const e of encodings.filter((e) => keys.has(e.key))) {
    const variants = e.operands.some((o) => "EMQW".includes(o.kind))
      ? [...memory.map((m) => ({ memory: true, ...m })), { memory: false, rm: 3 }]
      : [{}];
    for (const operandSize of long ? [16, 32, 64] : [16, 32]) {
      for (const variant of variants) {
        const bytes = tryEncode(
          e,
          { ...variant, operandSize, reg: 2, opreg: 1, immediate: 3 },
          mode,
        );
        if (bytes) yield bytes;
      }
    }
  }
}
function tryEncode(e: Encoding, fields: Parameters<typeof encode>[1], mode: 32 | 64) {
  try {
    return encode(e, e.digit >= 0 ? { ...fields, reg: e.digit } : fields, mode);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

Deno.test("code that a device answers with is read once for each instruction, at its time", () => {
  const code = Uint8Array.of(0xff, 0xc0, 0x31, 0xd2, 0x75, 0xfc, 0xeb, 0xf8);
  const outcome = (hot: boolean, endsSlice: boolean): string => {
    const machine = flatMachine("nop", { hot }), { cpu } = machine;
    const log: string[] = [];
    machine.bus = {
      ...machine.bus,
      mmioRead: (address) => {
        if (address % 4 === 0) log.push(`${address.toString(16)} at ${cpu.now} ${cpu.counted}`);
        if (endsSlice) cpu.endSlice();
        return code[address & 7];
      },
    };
    cpu.set("rip", BigInt(DEVICE & ~4095) & 0xffff_ffffn);
    assertEquals(cpu.run(20), "budget");
    assertEquals(cpu.count, 20);
    return log.join("\n");
  };
  const expected = outcome(false, false);
  assertEquals(expected.split("\n").length, 20 * 4);
  for (const hot of [false, true]) {
    for (const endsSlice of [false, true]) assertEquals(outcome(hot, endsSlice), expected);
  }
});

for (const long of [false, true]) {
  const bits = long ? 64 : 32;
  const compare = (each: (bytes: Uint8Array) => Case[]): number => {
    const hot = new Subject(true, long), cold = new Subject(false, long);
    let touched = 0;
    for (const bytes of instructions(long)) {
      for (const x of each(bytes)) {
        const expected = cold.run(x), found = hot.run(x);
        if (found !== expected) {
          assertEquals(found, expected, `${bytes.toHex()} ${Deno.inspect({ ...x, bytes: 0 })}`);
        }
        if (/^(read|write|watch)/.test(expected)) touched++;
      }
    }
    return touched;
  };
  Deno.test(`hot handlers whose operand or stack is a device's do as the cold ones (${bits} bits)`, () => {
    const touched = compare((bytes) =>
      [
        [DEVICE, STACK, 1],
        [DEVICE, STACK, 2],
        [RAM, DEVICE, 1],
        [DEVICE, DEVICE + 0x40, 0],
        [DEVICE, DEVICE + 0x40, 2],
      ].map(([at, stack, nth]) => ({ bytes, at, stack, nth, watched: false }))
    );
    assert(touched > 1000, `${touched}`);
  });
  Deno.test(`hot handlers that reach a watched page do as the cold ones (${bits} bits)`, () => {
    const touched = compare((bytes) =>
      [[RAM, STACK, 1], [RAM, STACK, 2], [RAM, RAM + 0x800, 1]].map(([at, stack, nth]) => (
        { bytes, at, stack, nth, watched: true }
      ))
    );
    assert(touched > 1000, `${touched}`);
  });
  Deno.test(`hot handlers that write the code behind them do as the cold ones (${bits} bits)`, () => {
    compare((bytes) =>
      [0, 1, 8].map((behind) => ({
        bytes,
        at: CODE + bytes.length + behind,
        stack: CODE + bytes.length + behind + 8,
        nth: 0,
        watched: false,
      }))
    );
  });
}

import { assert, assertEquals } from "@std/assert";
import { BASE_RIP, decode, DecodeStatus, Instruction, isHighByte } from "./decode.ts";
import { encode } from "./encode.ts";
import { type Encoding, encodings } from "./encodings.ts";

type Mode = 16 | 32 | 64;
const modes: readonly Mode[] = [16, 32, 64];

/** A small seeded generator (xorshift32). */
function random(seed: number): (below: number) => number {
  let s = seed;
  return (below) => {
    s ^= s << 13;
    s ^= s >>> 17;
    s ^= s << 5;
    return (s >>> 0) % below;
  };
}

function decoded(bytes: number[], mode: Mode): { status: DecodeStatus; x: Instruction } {
  const x = new Instruction();
  return { status: decode(Uint8Array.from(bytes), 0, bytes.length, mode, x), x };
}

function exists(e: Encoding, mode: Mode): boolean {
  return mode === 64 ? !e.attributes.i64 : !e.attributes.o64 && !e.rexw;
}

/** Bytes that are probably row `e`: random prefixes, ModRM, SIB and immediates. */
function candidate(e: Encoding, mode: Mode, pick: (below: number) => number): Uint8Array {
  const out: number[] = [];
  if (pick(5) === 0) out.push([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65][pick(6)]);
  if (pick(5) === 0) out.push(0x67);
  if (e.prefix === "66" || (pick(4) === 0 && e.prefix !== "np")) out.push(0x66);
  if (e.prefix === "f2" || e.prefix === "f3") out.push(parseInt(e.prefix, 16));
  if (mode === 64 && (e.rexw || pick(2) === 0)) out.push(0x40 | pick(16) | (e.rexw ? 8 : 0));
  if (e.map > 0) out.push(0x0f);
  if (e.map > 1) out.push(e.map === 2 ? 0x38 : 0x3a);
  out.push(e.byte + (e.plusR ? pick(8) : 0));
  let modrm = e.modrm >= 0 ? e.modrm : pick(256);
  if (e.digit >= 0) modrm = modrm & 0xc7 | e.digit << 3;
  if (e.attributes.form === "reg") modrm |= 0xc0;
  if (e.attributes.form === "mem" && modrm >= 0xc0) modrm &= 0x7f;
  if (e.hasModrm) out.push(modrm);
  while (out.length < 24) out.push(pick(256));
  return Uint8Array.from(out);
}

/** The fields of an instruction that mean something for its row. */
function meaning(x: Instruction): Record<string, unknown> {
  const e = x.encoding, kinds = e.operands.map((o) => o.kind).join("");
  const all: Record<string, unknown> = {
    id: e.id,
    operandSize: x.operandSize,
    addressSize: x.addressSize,
    lock: x.lock,
    rep: x.rep,
    segment: x.segment,
    segmentOverride: x.segmentOverride,
    memory: x.memory,
    legacyBytes: x.rex === 0,
    base: x.base,
    index: x.index,
    scale: x.scale,
    displacement: x.displacement,
    displacementHigh: x.displacementHigh,
    immediate: x.immediate,
    immediateHigh: x.immediateHigh,
    immediate2: x.immediate2,
  };
  if (/[GSCDPV]/.test(kinds)) all.reg = x.reg;
  if (e.hasModrm && e.modrm < 0 && !x.memory) all.rm = x.rm;
  if (e.plusR) all.opreg = x.opreg;
  return all;
}

Deno.test("decode() gives back what encode() was given, for every row in every mode", () => {
  const pick = random(0x1234567), x = new Instruction(), y = new Instruction();
  const reached = new Set<string>();
  for (const mode of modes) {
    for (const e of encodings.filter((row) => exists(row, mode))) {
      for (let i = 0; i < 12; i++) {
        const bytes = candidate(e, mode, pick);
        if (decode(bytes, 0, bytes.length, mode, x) !== DecodeStatus.Ok) continue;
        reached.add(`${mode} ${x.encoding.id}`);
        const implied = x.encoding.prefix === "f2" || x.encoding.prefix === "f3";
        const fields = { ...x, rep: implied ? 0 : x.rep, forceRex: x.rex !== 0 };
        const again = encode(x.encoding, fields, mode);
        assertEquals(decode(again, 0, again.length, mode, y), DecodeStatus.Ok);
        assertEquals(y.length, again.length);
        assertEquals(meaning(y), meaning(x), `${mode}-bit ${bytes.toHex()} -> ${again.toHex()}`);
      }
    }
  }
  for (const mode of modes) {
    for (const e of encodings.filter((row) => exists(row, mode))) {
      assert(reached.has(`${mode} ${e.id}`), `${mode}-bit ${e.key} ${e.opcode} never decoded`);
    }
  }
});

Deno.test("decode() asks for more bytes exactly while the instruction is not complete", () => {
  const pick = random(42), x = new Instruction();
  for (const mode of modes) {
    for (let i = 0; i < 3000; i++) {
      const bytes = candidate(encodings[pick(encodings.length)], mode, pick);
      const status = decode(bytes, 0, 24, mode, x), { length } = x;
      if (status !== DecodeStatus.Ok) continue;
      for (let limit = 0; limit < length; limit++) {
        const cut = decode(bytes, 0, limit, mode, x);
        assertEquals(cut, DecodeStatus.NeedMoreBytes, `${bytes.toHex()} cut at ${limit}`);
      }
      assertEquals(decode(bytes, 0, length, mode, x), DecodeStatus.Ok);
    }
  }
});

Deno.test("decode() never throws on random bytes and never takes more than 15", () => {
  const pick = random(7), x = new Instruction(), bytes = new Uint8Array(64);
  for (let i = 0; i < 60_000; i++) {
    for (let k = 0; k < 16; k++) bytes[k] = pick(256);
    const status = decode(bytes, 0, 64, modes[i % 3], x);
    assert(x.length >= 1 && x.length <= 15, `length ${x.length}`);
    assert(status !== DecodeStatus.NeedMoreBytes);
  }
});

Deno.test("decode() refuses an instruction of more than 15 bytes", () => {
  const fourteen = Array(14).fill(0x66);
  assertEquals(decoded([...fourteen, 0x90], 32).status, DecodeStatus.Ok);
  assertEquals(decoded([...fourteen, 0x66, 0x90], 32).status, DecodeStatus.TooLong);
  assertEquals(decoded([...fourteen, 0x66], 32).status, DecodeStatus.TooLong);
  assertEquals(decoded(fourteen, 32).status, DecodeStatus.NeedMoreBytes);
});

Deno.test("decode() allows LOCK with a memory destination only", () => {
  assertEquals(decoded([0xf0, 0x01, 0x00], 32).status, DecodeStatus.Ok);
  assertEquals(decoded([0xf0, 0x01, 0xc0], 32).status, DecodeStatus.LockUndefined);
  assertEquals(decoded([0xf0, 0x03, 0x00], 32).status, DecodeStatus.LockUndefined);
  assertEquals(decoded([0xf0, 0x39, 0x00], 32).status, DecodeStatus.LockUndefined);
  assertEquals(decoded([0xf0, 0x90], 32).status, DecodeStatus.LockUndefined);
  assertEquals(decoded([0xf0, 0x0f, 0xc7, 0x0f], 32).status, DecodeStatus.Ok);
});

Deno.test("decode() knows what each mode does not have", () => {
  for (const bytes of [[0x06], [0x60], [0x9a, 0, 0, 0, 0, 0, 0], [0xc4, 0x00], [0xd6], [0x27]]) {
    assertEquals(decoded(bytes, 32).status, DecodeStatus.Ok);
    assertEquals(decoded(bytes, 64).status, DecodeStatus.Undefined);
  }
  assertEquals(decoded([0x0f, 0x01, 0xf8], 32).status, DecodeStatus.Undefined);
  assertEquals(decoded([0x0f, 0x01, 0xf8], 64).status, DecodeStatus.Ok);
  assertEquals(decoded([0xc4, 0xc1, 0, 0], 32).status, DecodeStatus.Undefined); // VEX
  assertEquals(decoded([0x0f, 0x0a], 32).status, DecodeStatus.Undefined);
  assertEquals(decoded([0x8d, 0xc0], 32).status, DecodeStatus.Undefined); // LEA of a register
});

Deno.test("decode() picks rows by mandatory prefix, REX.W and ModRM", () => {
  const key = (bytes: number[], mode: Mode = 64) => decoded(bytes, mode).x.encoding.key;
  assertEquals(key([0x90]), "nop");
  assertEquals(key([0xf3, 0x90]), "pause");
  assertEquals(key([0x41, 0x90]), "xchg");
  assertEquals(key([0x0f, 0x10, 0xc1]), "movups");
  assertEquals(key([0x66, 0x0f, 0x10, 0xc1]), "movupd");
  assertEquals(key([0xf3, 0x66, 0x0f, 0x10, 0xc1]), "movss");
  assertEquals(key([0xf2, 0x0f, 0x38, 0xf1, 0xc1]), "crc32");
  assertEquals(key([0x0f, 0x38, 0xf1, 0x01]), "movbe");
  assertEquals(key([0x0f, 0xc7, 0x0f]), "cmpxchg8b");
  assertEquals(key([0x48, 0x0f, 0xc7, 0x0f]), "cmpxchg16b");
  assertEquals(key([0x0f, 0xc7, 0xf0]), "rdrand");
  assertEquals(key([0x0f, 0xc7, 0x37]), "vmptrld");
  assertEquals(key([0xf3, 0x0f, 0xbc, 0xc1]), "bsf"); // TZCNT is not in x86-64-v2
  assertEquals(key([0xff, 0x1f], 32), "call.far");
});

Deno.test("decode() gives operand sizes, segments and addresses by the rules of the mode", () => {
  let { x } = decoded([0x8b, 0x44, 0x24, 0xfc], 32); // mov eax, [esp-4]
  assertEquals([x.base, x.index, x.displacement, x.segment], [4, -1, -4, 2]);
  ({ x } = decoded([0x64, 0x8b, 0x46, 0x02], 16)); // mov ax, fs:[bp+2]
  assertEquals([x.operandSize, x.addressSize, x.base, x.segment], [16, 16, 5, 4]);
  ({ x } = decoded([0x3e, 0x8b, 0x45, 0x00], 64)); // DS override counts for nothing
  assertEquals([x.segmentOverride, x.segment], [-1, 2]);
  ({ x } = decoded([0x8b, 0x05, 0xff, 0xff, 0xff, 0xff], 64));
  assertEquals([x.base, x.displacement, x.displacementHigh], [BASE_RIP, -1, -1]);
  ({ x } = decoded([0x48, 0xb8, 1, 0, 0, 0, 2, 0, 0, 0], 64));
  assertEquals([x.immediate, x.immediateHigh, x.opreg], [1, 2, 0]);
  ({ x } = decoded([0x66, 0x48, 0x50], 64)); // REX.W does not matter for PUSH
  assertEquals(x.operandSize, 64);
  ({ x } = decoded([0x48, 0x66, 0x50], 64)); // a REX not last is void
  assertEquals([x.operandSize, x.rex], [16, 0]);
  ({ x } = decoded([0x88, 0xe0], 64));
  assert(isHighByte(x, 4));
  ({ x } = decoded([0x40, 0x88, 0xe0], 64));
  assert(!isHighByte(x, 4));
});

/**
 * Locked accesses across a cache line. On a host that detects them the kernel takes the trap for its
 * own: the single step is lost, and the stub runs on. Such cases are left out there.
 */
import { identify, type Instruction, operandAddress } from "./instruction.ts";
import type { Case } from "./state.ts";

const LINE = 64;

/** Whether the host's kernel traps them. */
export const detected: boolean = (() => {
  try {
    return /^flags.*\b(bus_lock_detect|split_lock_detect)\b/m.test(
      Deno.readTextFileSync("/proc/cpuinfo"),
    );
  } catch {
    return false;
  }
})();

/** Whether a case may lock a memory operand that crosses a line. */
export function splitsLock(test: Case): boolean {
  const i = identify(test);
  const exchange = i.opcode === 0x86 || i.opcode === 0x87;
  if (i.mod === 3 || !(i.prefixes.has(0xf0) || exchange)) return false;
  // A bit string: its address is another one.
  if ([0x1ab, 0x1b3, 0x1bb].includes(i.opcode)) return true;
  const address = test.mode === 64 ? address64(i, test) : operandAddress(i, test);
  if (address === undefined) return true;
  return Number(BigInt(address) % BigInt(LINE)) + bytesOf(i) > LINE;
}

function bytesOf(i: Instruction): number {
  if (i.opcode === 0x1c7) return i.rex & 8 ? 16 : 8;
  return i.byte ? 1 : i.size / 8;
}

/** Undefined for what is relative to RIP: its end is not known here. */
function address64(i: Instruction, { bytes, state }: Case): bigint | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const sib = i.rm === 4 ? bytes[i.at + 1] : -1;
  const base = (sib < 0 ? i.rm : sib & 7) | (i.rex & 1) << 3;
  const index = sib < 0 ? 4 : (sib >> 3 & 7) | (i.rex & 2) << 2;
  const absolute = i.mod === 0 && (base & 7) === 5;
  if (absolute && sib < 0) return undefined;
  const at = i.at + (sib < 0 ? 1 : 2);
  if (at + 4 > bytes.length) return undefined;
  let address = i.mod === 1
    ? BigInt(view.getInt8(at))
    : i.mod === 2 || absolute
    ? BigInt(view.getInt32(at, true))
    : 0n;
  if (!absolute) address += state.gpr[base];
  if (index !== 4) address += state.gpr[index] << BigInt(sib >> 6);
  if (i.prefixes.has(0x67)) address = BigInt.asUintN(32, address);
  if (i.prefixes.has(0x64)) address += state.fsBase;
  if (i.prefixes.has(0x65)) address += state.gsBase;
  return BigInt.asUintN(64, address);
}

/** A VMCB for the shell: every field by its name, what its bits mean, and writes by name. */
import {
  CLEAN,
  exitCodeName,
  interceptNames,
  VIRTUAL_INTERRUPT,
  type VmcbField,
  vmcbField,
  vmcbFields,
} from "../../abi/x86/vmcb.ts";
import { exceptionVectors } from "../../abi/x86/vectors.ts";
import { controlBits } from "../../abi/x86/vmx.ts";
import type { RawField } from "../ops.ts";
import { F, type SvmVcpu } from "./cpu.ts";

const bits = (names: Iterable<readonly [name: string, n: number]>): Record<string, number> =>
  Object.fromEntries([...names].map(([name, n]) => [name, (1 << n) >>> 0]));
const sixteen = (prefix: string) =>
  bits(Array.from({ length: 16 }, (_, n) => [`${prefix}${n}`, n] as const));

/** Names of the bits of fields that are made of bits. */
const BITS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  ...interceptNames,
  crReads: sixteen("cr"),
  crWrites: sixteen("cr"),
  drReads: sixteen("dr"),
  drWrites: sixteen("dr"),
  exceptions: bits(exceptionVectors.map(({ name, vector }) => [name, vector] as const)),
  cleanBits: bits(Object.entries(CLEAN)),
  nestedControl: { npEnable: 1 },
  lbrControl: { lbrEnable: 1 },
  interruptShadow: { shadow: 1 },
};

function namesOf(name: string, value: bigint): readonly string[] | undefined {
  if (name === "exitCode") return [exitCodeName(Number(BigInt.asIntN(32, value)))];
  const number = Number(BigInt.asUintN(32, value));
  if (name === "virtualInterrupt") {
    const { irq, ignoreTpr, masking } = VIRTUAL_INTERRUPT;
    return controlBits({ irq, ignoreTpr, masking }, number & (irq | ignoreTpr | masking));
  }
  return BITS[name] && controlBits(BITS[name], number);
}

function read(v: SvmVcpu, { offset, bits }: VmcbField): bigint {
  if (bits === 64) return v.read64(offset);
  if (bits === 32) return BigInt(v.read(offset) >>> 0);
  return BigInt(bits === 16 ? v.read16(offset) : v.read8(offset));
}

/** The guest's RAX goes through its place in the save area. */
function showRax(v: SvmVcpu): void {
  const { words, gprs } = v, at = F.rax >> 2;
  if (words[at] === gprs[0] && words[at + 1] === gprs[1]) return;
  v.write(F.rax, gprs[0]);
  v.write(F.rax + 4, gprs[1]);
}

/** Every field, in order of offset. */
export function dumpFields(v: SvmVcpu): RawField[] {
  showRax(v);
  return vmcbFields.map((field) => {
    const { name, offset: code, bits } = field, value = read(v, field), set = namesOf(name, value);
    return set ? { name, code, bits, value, set } : { name, code, bits, value };
  });
}

export function readField(v: SvmVcpu, name: string): bigint {
  showRax(v);
  return read(v, vmcbField(name));
}

export function writeField(v: SvmVcpu, name: string, value: bigint): void {
  const { offset, bits } = vmcbField(name);
  const low = Number(BigInt.asUintN(32, value));
  if (bits === 64) v.write64(offset, BigInt.asUintN(64, value));
  else if (bits === 32) v.write(offset, low);
  else if (bits === 16) v.write16(offset, low);
  else v.write8(offset, low);
  if (name !== "rax") return;
  v.gprs[0] = v.words[F.rax >> 2];
  v.gprs[1] = v.words[(F.rax >> 2) + 1];
}

/** Cases as text, one JSON object a line, so that a difference can be kept and run again. */
import type { Case, Mode, Patch } from "./state.ts";

interface CaseRecord {
  id?: string;
  mode: Mode;
  bytes: string;
  steps?: number;
  gpr: string[];
  rip: string;
  rflags: number;
  selectors: number[];
  fsBase: string;
  gsBase: string;
  fx: string;
  patches: [address: number, bytes: string][];
}

/** A case as one line of JSON. */
export function caseToText(test: Case): string {
  const { state } = test;
  const record: CaseRecord = {
    id: test.id,
    mode: test.mode,
    bytes: test.bytes.toHex(),
    steps: test.steps,
    gpr: [...state.gpr].map((v) => v.toString(16)),
    rip: state.rip.toString(16),
    rflags: state.rflags,
    selectors: [...state.selectors],
    fsBase: state.fsBase.toString(16),
    gsBase: state.gsBase.toString(16),
    fx: state.fx.toHex(),
    patches: test.patches.map((p) => [p.address, p.bytes.toHex()]),
  };
  return JSON.stringify(record);
}

/** The case of a line that {@linkcode caseToText} wrote. */
export function caseFromText(line: string): Case {
  const r = JSON.parse(line) as CaseRecord;
  const patches = r.patches.map(([address, bytes]): Patch => (
    { address, bytes: Uint8Array.fromHex(bytes) }
  ));
  return {
    id: r.id,
    mode: r.mode,
    bytes: Uint8Array.fromHex(r.bytes),
    steps: r.steps,
    patches,
    state: {
      gpr: BigUint64Array.from(r.gpr, (v) => BigInt("0x" + v)),
      rip: BigInt("0x" + r.rip),
      rflags: r.rflags,
      selectors: Uint16Array.from(r.selectors),
      fsBase: BigInt("0x" + r.fsBase),
      gsBase: BigInt("0x" + r.gsBase),
      fx: Uint8Array.fromHex(r.fx),
    },
  };
}

/** All cases of a text, blank lines and lines that start with `#` left out. */
export function casesFromText(text: string): Case[] {
  const lines = text.split("\n").filter((line) => line.trim() && !line.startsWith("#"));
  return lines.map(caseFromText);
}

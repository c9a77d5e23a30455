/**
 * The disassembler against objdump, exhaustively over prefixes, opcodes and ModRM:
 *
 *     deno run -A tests/oracle/disassembly.ts [--mode 16,32,64] [--sample N] [--show N]
 *
 * `--sample N` takes every Nth sequence. Exit status: 0 no difference, 1 differences, 2 no objdump.
 */
import type { Mode } from "./state.ts";
import { compareAll, type Disassemble, type DisassemblySummary, type Mismatch } from "./objdump.ts";
import { normalize, unavailable } from "./objdump.ts";
import { disassemble as product } from "../../src/machine/isa/disassemble.ts";

/** The product's disassembler behind the oracle's interface. */
export const subject: Disassemble = (bytes, mode, address) =>
  product(bytes, 0, mode, BigInt(address));

/** Prefixes in front of each opcode, one set after the other. */
const PREFIX_SETS: Record<Mode, number[][]> = {
  16: [[], [0x66], [0x67], [0x66, 0x67], [0xf2], [0xf3], [0xf0], [0x2e], [0x64], [0x66, 0xf2]],
  32: [[], [0x66], [0x67], [0x66, 0x67], [0xf2], [0xf3], [0xf0], [0x2e], [0x64], [0x66, 0xf3]],
  64: [
    ...[[], [0x66], [0xf2], [0xf3]].flatMap((before) => [
      before,
      ...Array.from({ length: 16 }, (_, rex) => [...before, 0x40 | rex]),
    ]),
    [0x67],
    [0xf0],
    [0x65],
    [0x67, 0x48],
    [0xf0, 0x4f],
    [0x66, 0xf2],
    [0x66, 0xf3, 0x48],
  ],
};

/** Displacement and immediate: distinct bytes, so that a wrong order shows. */
const TAIL = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf1];

const IS_PREFIX = new Set([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3]);

/**
 * Every opcode of all maps with every ModRM byte, SIB bytes for two opcodes, under each prefix set;
 * of these one in `every`.
 */
export function* exhaustive(mode: Mode, every = 1): Generator<Uint8Array> {
  const count = { left: 0, every };
  for (const prefixes of PREFIX_SETS[mode]) {
    for (let opcode = 0; opcode < 256; opcode++) {
      if (opcode === 0x0f || IS_PREFIX.has(opcode)) continue;
      if (mode === 64 && (opcode & 0xf0) === 0x40) continue;
      yield* everyModrm([...prefixes, opcode], opcode === 0x8b, count);
    }
    for (let opcode = 0; opcode < 256; opcode++) {
      if (opcode === 0x38 || opcode === 0x3a) {
        for (let third = 0; third < 256; third++) {
          yield* everyModrm([...prefixes, 0x0f, opcode, third], false, count);
        }
      } else yield* everyModrm([...prefixes, 0x0f, opcode], opcode === 0xaf, count);
    }
  }
}

function* everyModrm(
  head: number[],
  everySib: boolean,
  count: { left: number; readonly every: number },
): Generator<Uint8Array> {
  const bytes = Uint8Array.of(...head, 0, ...TAIL),
    withSib = Uint8Array.of(...head, 0, 0x8d, ...TAIL);
  const at = head.length;
  for (let modrm = 0; modrm < 256; modrm++) {
    const sib = (modrm & 7) === 4 && modrm < 0xc0;
    const template = sib ? withSib : bytes;
    template[at] = modrm;
    for (let n = sib && everySib ? 0 : 255; n < 256; n++) {
      if (sib && everySib) template[at + 1] = n;
      if (count.left-- > 0) continue;
      count.left = count.every - 1;
      yield template.slice();
    }
    if (sib) template[at + 1] = 0x8d;
  }
}

/** One reason for which objdump and the product may differ. */
export interface Allowed {
  id: string;
  hits: number;
  applies: (m: Mismatch) => boolean;
}

/** What binutils 2.40 knows and our processors (to SSE4.2, VMX and SVM) do not have. */
const BEYOND = new Set(
  ("femms getsec montmul xsha1 xsha256 xstore-rng xcrypt-ecb xcrypt-cbc xcrypt-ctr xcrypt-cfb " +
    "xcrypt-ofb movntss movntsd extrq insertq frstpm xabort xbegin xbeginw xbegind xend xtest enclu encls enclv monitorx " +
    "mwaitx clzero rdpru mcommit invlpgb tlbsync rmpadjust rmpupdate pvalidate psmash pconfig " +
    "wrmsrns serialize xsusldtrk xresldtrk rdpkru wrpkru clui stui testui uiret senduipi tpause " +
    "umonitor umwait ptwrite rdpid incsspd incsspq rdsspd rdsspq saveprevssp " +
    "rstorssp setssbsy clrssbsy wrssd wrssq hreset vmgexit frstpm(287 fnsetpm(287 " +
    "fneni(8087 fndisi(8087 seamcall seamret seamops tdcall jmpe " +
    "adcx adox aesdec aesdeclast aesenc aesenclast aesimc aeskeygenassist aesdec128kl aesdec256kl " +
    "aesenc128kl aesenc256kl aesdecwide128kl aesdecwide256kl aesencwide128kl aesencwide256kl " +
    "encodekey128 encodekey256 loadiwkey enqcmd enqcmds movdir64b movdiri gf2p8mulb " +
    "gf2p8affineqb gf2p8affineinvqb pclmulqdq pclmullqlqdq pclmulhqlqdq pclmullqhqdq pclmulhqhqdq " +
    "sha1msg1 sha1msg2 sha1nexte sha1rnds4 sha256msg1 sha256msg2 sha256rnds2 wrussd wrussq " +
    "aadd aand aor axor rdmsrlist wrmsrlist rmpquery").split(" "),
);

/** Tried on the host's processor: each of these with 66, F2 or F3 before it is #UD. */
const REFUSED =
  /^(fxsave|fxrstor|ldmxcsr|stmxcsr|xsavec|xsaves|xrstors|xgetbv|xsetbv|clac|stac|vmfunc|[lms]fence|pmovmskb|movq2dq|movdq2q|swapgs|vmptrst)/;

/** Hint NOPs (0F 18 to 0F 1F) and prefixes that later extensions gave a meaning. */
const HINTS = /^(bnd|cldemote|endbr|rdssp|prefetch|nop|reserved)/;

/** Later instructions that older processors run as the one that they extend. */
const EXTENDS: Record<string, string> = {
  lzcnt: "bsr",
  tzcnt: "bsf",
  wbnoinvd: "wbinvd",
  xacquire: "",
  xrelease: "",
};

/** x87 encodings that every Intel processor runs and no manual lists; objdump calls them bad. */
function undocumented([opcode, modrm]: [number, number]): boolean {
  const rows: [number, number, number][] = [
    [0xd9, 0xd8, 0xdf],
    [0xdc, 0xd0, 0xdf],
    [0xdd, 0xc8, 0xcf],
    [0xde, 0xd0, 0xd7],
    [0xdf, 0xc0, 0xdf],
  ];
  return opcode === 0xd6 || rows.some(([o, a, b]) => opcode === o && modrm >= a && modrm <= b);
}

function rule(id: string, applies: (m: Mismatch) => boolean): Allowed {
  return { id, hits: 0, applies };
}

/** The closed list of allowed differences. */
export function allowedDifferences(): Allowed[] {
  return [
    rule("VEX, EVEX, XOP: not on our processors", ({ bytes, mode, actual }) => {
      const [opcode, next] = afterPrefixes(bytes, mode);
      const vector = opcode === 0xc4 || opcode === 0xc5 || opcode === 0x62;
      return bad(actual.text) &&
        (vector && (mode === 64 || next >= 0xc0) || opcode === 0x8f && (next & 0x38) !== 0);
    }),
    rule("3DNow! 0F 0F: not on our processors", ({ bytes, mode, actual }) => {
      const [opcode, next] = afterPrefixes(bytes, mode);
      return opcode === 0x0f && next === 0x0f && bad(actual.text);
    }),
    rule(
      "instructions of later processors",
      ({ expected, actual }) => bad(actual.text) && BEYOND.has(mnemonic(expected?.text ?? "")),
    ),
    rule(
      "MOV to and from test registers: 386 and 486 only",
      ({ expected, actual }) =>
        bad(actual.text) && /,tr[0-7]|mov tr[0-7]/.test(normalize(expected?.text ?? "")),
    ),
    rule(
      "hints of later processors are NOPs",
      ({ expected, actual }) =>
        HINTS.test(mnemonic(expected?.text ?? "")) && /^(nop|prefetch)/.test(mnemonic(actual.text)),
    ),
    rule("later meanings of F2 and F3 are ignored prefixes", ({ expected, actual }) => {
      const words = normalize(expected?.text ?? "").split(" ");
      const later = words.find((w) => w in EXTENDS);
      if (later === undefined) return false;
      const kept = EXTENDS[later];
      return (kept === "" || mnemonic(actual.text) === kept) && expected?.length === actual.length;
    }),
    rule(
      "LOCK MOV CRn is MOV CR(n+8) on AMD processors only",
      ({ bytes, expected, actual }) =>
        hasPrefix(bytes, 0xf0) &&
        /,cr(8|9|1\d)|mov cr(8|9|1\d)/.test(normalize(expected?.text ?? "")) &&
        /cr[0-7]/.test(actual.text),
    ),
    rule(
      "objdump takes the MMX register of 66 F2/F3 0F D6 for XMM",
      ({ bytes, expected, actual }) =>
        hasPrefix(bytes, 0x66) && /^mov(q2dq|dq2q)$/.test(mnemonic(actual.text)) &&
        mnemonic(expected?.text ?? "") === mnemonic(actual.text),
    ),
    rule(
      "objdump knows SWAPGS, RDFSBASE and its kin outside 64-bit mode, where they are #UD",
      ({ mode, expected, actual }) =>
        mode !== 64 && bad(actual.text) &&
        /^(swapgs|(rd|wr)[fg]sbase)$/.test(mnemonic(expected?.text ?? "")),
    ),
    rule(
      "F2, F3 or 66 before VMMCALL: VMGEXIT of later processors, or refused",
      ({ actual }) => mnemonic(actual.text) === "vmmcall",
    ),
    rule(
      "objdump prints no size for INVPCID's, INVEPT's and INVVPID's operand",
      (m) =>
        /^inv(pcid|ept|vpid)$/.test(mnemonic(m.actual.text)) &&
        normalize(m.actual.text).replace("XMMWORD PTR ", "") === normalize(m.expected?.text ?? ""),
    ),
    rule(
      "objdump prints a prefix with which the processor refuses the instruction (#UD)",
      ({ bytes, expected, actual }) =>
        bad(actual.text) && hasPrefix(bytes, 0x66, 0xf2, 0xf3) &&
        REFUSED.test(mnemonic(expected?.text ?? "")),
    ),
    rule(
      "objdump refuses what the processor runs (prefixes and ModRM.rm that it ignores)",
      ({ expected, actual }) =>
        bad(expected?.text ?? "") &&
        /^(wbinvd|invd|bsf|bsr|[lms]fence)$/.test(mnemonic(actual.text)),
    ),
    rule(
      "undocumented x87 aliases and SALC",
      ({ bytes, mode, expected, actual }) =>
        bad(expected?.text ?? "(bad)") && !bad(actual.text) &&
        undocumented(afterPrefixes(bytes, mode)),
    ),
    rule(
      "objdump ends a line at REX before FWAIT",
      ({ bytes, mode, actual }) =>
        mode === 64 && afterPrefixes(bytes, mode)[0] === 0x9b && /fwait$/.test(actual.text),
    ),
    rule(
      "66 that REX.W overrides: printed as data16 by one and not by the other",
      ({ bytes, expected, actual }) =>
        hasPrefix(bytes, 0x66) && expected?.length === actual.length &&
        withoutData16(expected?.text ?? "") === withoutData16(actual.text),
    ),
    rule(
      "66 48 90 is NOP, not XCHG RAX,RAX",
      ({ expected, actual }) =>
        / nop$/.test(actual.text) && /xchg +rax,rax$/.test(expected?.text ?? ""),
    ),
    rule(
      "objdump lets 66 win over REX.W in far pointers, MOVSXD and x87 images; SDM 2 2.2.1.2",
      ({ bytes, expected, actual }) => {
        const theirs = withoutData16(expected?.text ?? ""), ours = withoutData16(actual.text);
        const same = [
          theirs.replace("DWORD", "FWORD"),
          theirs.replace("WORD", "DWORD"),
          theirs.replace(/(r\d+)w$/, "$1d"),
          theirs.replace(/,([a-ds][xpi])$/, ",e$1"),
          theirs.replace(/(fnstenv|fldenv|fnsave|frstor)w/, "$1"),
        ];
        return hasPrefix(bytes, 0x66) && expected?.length === actual.length && same.includes(ours);
      },
    ),
  ];
}

const PREFIX_WORDS =
  /^(data16|addr16|addr32|data32|repz|repnz|rep|lock|bnd|notrack|xacquire|xrelease|[c-gs]s|rex\S*) /;

const withoutData16 = (text: string) => normalize(text).replace(/\bdata16 /, "");

/** The first word of a line that is no prefix. */
function mnemonic(text: string): string {
  text = normalize(text);
  while (PREFIX_WORDS.test(text)) text = text.replace(PREFIX_WORDS, "");
  return text.split(" ")[0];
}

function bad(text: string): boolean {
  return text.includes("(bad)");
}

function hasPrefix(bytes: Uint8Array, ...prefixes: number[]): boolean {
  for (let at = 0; IS_PREFIX.has(bytes[at]); at++) if (prefixes.includes(bytes[at])) return true;
  return false;
}

/** Opcode byte and the byte behind it. */
function afterPrefixes(bytes: Uint8Array, mode: Mode): [number, number] {
  let at = 0;
  while (IS_PREFIX.has(bytes[at])) at++;
  if (mode === 64 && (bytes[at] & 0xf0) === 0x40) at++;
  return [bytes[at], bytes[at + 1]];
}

/** Runs the comparison and prints the differences in groups. */
export async function runExhaustive(
  mode: Mode,
  sample: number,
  show: number,
  disassemble: Disassemble = subject,
): Promise<DisassemblySummary> {
  const allowed = allowedDifferences(), groups = new Map<string, number>();
  let shown = 0;
  const summary = await compareAll(disassemble, mode, exhaustive(mode, sample), (m) => {
    const found = allowed.find((a) => a.applies(m));
    if (found) return ++found.hits > 0;
    const key = `${mnemonic(m.expected?.text ?? "nothing")} / ${mnemonic(m.actual.text)}`;
    groups.set(key, (groups.get(key) ?? 0) + 1);
    const first = groups.get(key)! <= 2;
    if (first && shown++ < show) console.log(mismatchText(m));
    return false;
  });
  const largest = [...groups].sort((a, b) => b[1] - a[1]).slice(0, 40);
  for (const [key, count] of largest) console.log(String(count).padStart(8), key);
  for (const a of allowed) if (a.hits) console.log(String(a.hits).padStart(8), "allowed:", a.id);
  return summary;
}

/** A mismatch in one line. */
export function mismatchText(m: Mismatch): string {
  const line = (l: { length: number; text: string } | undefined) =>
    l ? `"${normalize(l.text)}" (${l.length})` : "nothing";
  return `${m.mode}-bit ${m.bytes.toHex()}: objdump ${line(m.expected)}, ours ${line(m.actual)}`;
}

if (import.meta.main) {
  const option = (name: string, otherwise: string) => {
    const at = Deno.args.indexOf(name);
    return at < 0 ? otherwise : Deno.args[at + 1];
  };
  const reason = unavailable();
  if (reason) {
    console.error(reason);
    Deno.exit(2);
  }
  for (const mode of option("--mode", "16,32,64").split(",").map(Number) as Mode[]) {
    const s = await runExhaustive(
      mode,
      Number(option("--sample", "1")),
      Number(option("--show", "40")),
    );
    console.log(
      `${mode}-bit: ${s.sequences} sequences, ${s.mismatches} differ, ${s.seconds.toFixed(1)} s`,
    );
    if (s.mismatches) Deno.exitCode = 1;
  }
}

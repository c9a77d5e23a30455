/**
 * Binutils' objdump as an oracle for lengths and disassembly, in bulk. Needs `objdump` on PATH.
 *
 * Two ways in: {@linkcode dump} decodes what stands at given offsets of an image;
 * {@linkcode compareAll} packs instructions back to back at the lengths that our disassembler gives,
 * so that objdump prints one line for each (about a million a second), and decodes alone, between
 * NOPs, whatever came out of step.
 */
import type { Mode } from "./state.ts";

/** One disassembled instruction. */
export interface Line {
  length: number;
  text: string;
}

/** The disassembler under test. */
export type Disassemble = (bytes: Uint8Array, mode: Mode, address: number) => Line;

const MACHINES: Record<Mode, string[]> = {
  16: ["-mi8086"],
  32: ["-mi386"],
  64: ["-mi386:x86-64"],
};

/** Bytes of an image at most: 16-bit branch targets must not wrap. */
const IMAGE: Record<Mode, number> = { 16: 0xf000, 32: 0xf000, 64: 0x80000 };

/** Why objdump cannot be used, or undefined. */
export function unavailable(): string | undefined {
  try {
    const { success } = new Deno.Command("objdump", { args: ["--version"], stdout: "null" })
      .outputSync();
    return success ? undefined : "objdump --version fails";
  } catch (error) {
    return `objdump (package binutils): ${(error as Error).message}`;
  }
}

function command(mode: Mode, path: string): Deno.Command {
  // Intel's ways where the vendors' 64-bit encodings differ (66 before near branches, MOVSXD).
  const syntax = mode === 64 ? "intel,intel64" : "intel";
  const args = ["-D", "-b", "binary", ...MACHINES[mode], "-M", syntax, "-w", "--no-show-raw-insn"];
  return new Deno.Command("objdump", { args: [...args, path], stdout: "piped", stderr: "piped" });
}

/** objdump's text for an image. */
async function print(image: Uint8Array, mode: Mode): Promise<string> {
  const path = await Deno.makeTempFile({ suffix: ".bin" });
  try {
    await Deno.writeFile(path, image);
    const { success, stdout, stderr } = await command(mode, path).output();
    if (!success) throw new Error(`objdump: ${new TextDecoder().decode(stderr)}`);
    return new TextDecoder("latin1").decode(stdout);
  } finally {
    await Deno.remove(path);
  }
}

/** Calls back with address and text of each line. */
function scan(text: string, line: (address: number, text: string) => void): void {
  let at = text.indexOf("<.data>:\n") + 9;
  while (at < text.length) {
    let end = text.indexOf("\n", at);
    if (end < 0) end = text.length;
    const tab = text.indexOf("\t", at);
    if (tab > at && tab < end) {
      line(parseInt(text.slice(at, tab - 1), 16), text.slice(tab + 1, end));
    }
    at = end + 1;
  }
}

/** The instructions of an image that begin at the given ascending offsets; undefined where none does. */
export async function dump(
  image: Uint8Array,
  mode: Mode,
  offsets: ArrayLike<number>,
): Promise<(Line | undefined)[]> {
  const found: (Line | undefined)[] = new Array(offsets.length).fill(undefined);
  let n = 0, open: Line | undefined, start = 0;
  scan(await print(image, mode), (address, text) => {
    if (open) open.length = address - start;
    open = undefined;
    while (n < offsets.length && offsets[n] < address) n++;
    if (n === offsets.length || offsets[n] !== address) return;
    open = found[n++] = { length: image.length - address, text };
    start = address;
  });
  return found;
}

/** Bytes from one instruction to the next where each stands alone. */
const SLOT = 32;

/** Each sequence alone, followed by NOPs; its address is 32 times its index. */
export function dumpSlots(
  sequences: readonly Uint8Array[],
  mode: Mode,
): Promise<(Line | undefined)[]> {
  const image = new Uint8Array(sequences.length * SLOT).fill(0x90);
  const offsets = sequences.map((bytes, n) => {
    image.set(bytes.subarray(0, 15), n * SLOT);
    return n * SLOT;
  });
  return dump(image, mode, offsets);
}

/** The disassembly of one instruction at address 0, synchronously, for messages. */
export function disassembleOne(bytes: Uint8Array, mode: Mode): string {
  const path = Deno.makeTempFileSync({ suffix: ".bin" });
  try {
    const image = new Uint8Array(SLOT).fill(0x90);
    image.set(bytes);
    Deno.writeFileSync(path, image);
    const { stdout } = command(mode, path).outputSync();
    let text = "";
    scan(new TextDecoder("latin1").decode(stdout), (at, line) => text ||= at === 0 ? line : "");
    return normalize(text);
  } catch {
    return ""; // a help for the reader, not worth a failure
  } finally {
    Deno.removeSync(path);
  }
}

/**
 * Brings both sides to one form. The closed list of what is not compared:
 * 1. the number of spaces, and spaces at the end;
 * 2. objdump's comment with the address that a RIP-relative operand means ("# 0x1234");
 * 3. objdump's name for the section at a branch target ("<.data+0x12>");
 * 4. its remarks "(8087 only)" and "(287 only)".
 */
export function normalize(text: string): string {
  const comment = text.indexOf("#"), name = text.indexOf("<");
  if (comment >= 0) text = text.slice(0, comment);
  if (name >= 0) text = text.slice(0, name);
  return text.replace(/\((8087|287) only\)/, "").replace(/\s+/g, " ").trimEnd();
}

/** A difference in length or text. */
export interface Mismatch {
  bytes: Uint8Array;
  mode: Mode;
  address: number;
  /** Undefined: objdump has no line there. */
  expected?: Line;
  actual: Line;
}

/** Result of {@linkcode compareAll}. */
export interface DisassemblySummary {
  sequences: number;
  mismatches: number;
  seconds: number;
}

/**
 * Holds a disassembler against objdump.
 *
 * @param sequences bytes of an instruction each, with enough bytes behind it for the longest reading
 * @param onMismatch called for each difference; returns true if it is allowed and shall not count
 */
export async function compareAll(
  disassemble: Disassemble,
  mode: Mode,
  sequences: Iterable<Uint8Array>,
  onMismatch: (m: Mismatch) => boolean | void,
): Promise<DisassemblySummary> {
  const started = performance.now();
  const work = new Comparison(disassemble, mode, onMismatch);
  for (const bytes of sequences) if (work.add(bytes)) await work.flush();
  await work.flush();
  await work.finish();
  const { total, mismatches } = work;
  return { sequences: total, mismatches, seconds: (performance.now() - started) / 1000 };
}

class Comparison {
  total = 0;
  mismatches = 0;
  readonly #limit: number;
  #image: Uint8Array;
  #end = 0;
  #packed: { bytes: Uint8Array; at: number; text: string }[] = [];
  #alone: Uint8Array[] = [];
  #running: Promise<void> = Promise.resolve();

  constructor(
    readonly disassemble: Disassemble,
    readonly mode: Mode,
    readonly onMismatch: (m: Mismatch) => boolean | void,
  ) {
    this.#limit = IMAGE[mode];
    this.#image = new Uint8Array(this.#limit);
  }

  /** Adds a sequence; true when it is time to flush. */
  add(bytes: Uint8Array): boolean {
    this.total++;
    const { length, text } = this.disassemble(bytes, this.mode, this.#end);
    if (text.includes("(bad)") || length > bytes.length) this.#alone.push(bytes);
    else {
      const at = this.#end;
      for (let i = 0; i < length; i++) this.#image[at + i] = bytes[i];
      this.#packed.push({ bytes, at, text });
      this.#end += length;
    }
    return this.#end > this.#limit - 64 || this.#alone.length > 30_000;
  }

  /** Starts objdump on what has gathered; one runs while the next gathers. */
  async flush(): Promise<void> {
    await this.#running;
    const packed = this.#packed, alone = this.#alone;
    const image = this.#image.slice(0, this.#end + 1); // a NOP ends the last instruction
    image[this.#end] = 0x90;
    this.#packed = [];
    this.#alone = [];
    this.#end = 0;
    this.#running = this.#judge(packed, image, alone);
  }

  finish(): Promise<void> {
    return this.#running;
  }

  async #judge(
    packed: { bytes: Uint8Array; at: number; text: string }[],
    image: Uint8Array,
    alone: Uint8Array[],
  ): Promise<void> {
    const lines = await dump(image, this.mode, packed.map((p) => p.at));
    for (let n = 0; n < packed.length; n++) {
      const line = lines[n], { at, text } = packed[n];
      const length = (packed[n + 1]?.at ?? image.length - 1) - at;
      const same = line?.length === length &&
        (line.text === text || normalize(line.text) === normalize(text));
      if (!same) alone.push(packed[n].bytes);
    }
    const step = this.mode === 64 ? 30_000 : 0xf000 / SLOT;
    for (let from = 0; from < alone.length; from += step) {
      await this.#judgeAlone(alone.slice(from, from + step));
    }
  }

  async #judgeAlone(sequences: Uint8Array[]): Promise<void> {
    const lines = await dumpSlots(sequences, this.mode);
    sequences.forEach((bytes, n) => {
      const expected = lines[n], address = n * SLOT;
      const actual = this.disassemble(bytes, this.mode, address);
      const bad = (line: Line | undefined) => !line || line.text.includes("(bad)");
      if (bad(expected) && bad(actual)) return; // the length of what is no instruction has no meaning
      const same = expected?.length === actual.length &&
        normalize(expected.text) === normalize(actual.text);
      if (same) return;
      if (!this.onMismatch({ bytes, mode: this.mode, address, expected, actual })) {
        this.mismatches++;
      }
    });
  }
}

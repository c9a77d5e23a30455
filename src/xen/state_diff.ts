/**
 * What differs between two saved states of a host: in their blocks by the names of fields, in what the
 * hardware keeps of a vCPU by the manual's names, in memory by domain and guest frame.
 *
 * @module
 */
import type { HvmOps } from "../hvm/ops.ts";
import { hvmOps } from "../hvm/vendors.ts";
import type { Plain } from "../machine/record.ts";
import type { SavedBlock, SavedBlocks } from "../machine/state_block.ts";
import { counted } from "../machine/text.ts";
import type { CellField } from "../machine/wasm/cells.ts";
import { HVM_BLOCK } from "./hvm.ts";
import { P2M_BLOCK } from "./p2m.ts";
import { type StateContents, unpackState } from "./state_file.ts";
import type { CpuModel } from "../machine/vendors.ts";

/** One place where two states differ. */
export interface StateDifference {
  /** Whose it is: "clock", "domain 1 pit", "domain 1 memory", … */
  readonly block: string;
  /** Where in it: "counters[0].start", "rip", "guest frame 0x105 + 0x3f8". */
  readonly path: string;
  /** What is there in the one and in the other, in words; "nothing" where one has no such place. */
  readonly values: readonly [string, string];
}

const FRAME = 4096, SHOWN_BYTES = 8;
const NO_BYTES = new Uint8Array(FRAME);
const hex = (value: number | bigint) => `0x${value.toString(16)}`;

/** A saved state, to be looked into. */
class Saved {
  readonly blocks: SavedBlocks;
  readonly frames: Uint32Array;
  readonly #data: Uint8Array;
  readonly #index = new Map<number, number>();

  constructor({ record, frames, data }: StateContents) {
    this.blocks = record as unknown as SavedBlocks;
    this.frames = frames;
    this.#data = data;
    frames.forEach((frame, n) => this.#index.set(frame, n));
  }

  /** The bytes of a machine frame; of one that there is not, zeroes. */
  frame(frame: number): Uint8Array {
    const n = this.#index.get(frame);
    return n === undefined ? NO_BYTES : this.#data.subarray(n * FRAME, (n + 1) * FRAME);
  }
  /** The machine frame of each guest frame of a domain, -1 for none. */
  guestFrames(domain: string): Int32Array {
    const { record } = this.blocks[`${domain} ${P2M_BLOCK}`] ?? {};
    if (record) return new Int32Array((record as { frames: Uint8Array }).frames.slice().buffer);
    const { type, memory } = this.blocks[domain]?.configuration ?? {};
    return type === "bare" ? Int32Array.from({ length: +memory / FRAME }, (_, n) => n) : none;
  }
  /** Who has a machine frame, in words. */
  owner(frame: number): string {
    const { record } = this.blocks.frames ?? {};
    if (!record) return "machine";
    const owner = new Int16Array((record as { owners: Uint8Array }).owners.slice().buffer)[frame];
    return owner > 0 ? `domain ${owner}` : owner === 0 ? "nobody" : "hypervisor";
  }
}
const none = new Int32Array(0);

/** @throws {RecordError} for bytes that are no state, of another version, or damaged */
export function diffStates(a: Uint8Array, b: Uint8Array): StateDifference[] {
  const found: StateDifference[] = [],
    sides = [new Saved(unpackState(a)), new Saved(unpackState(b))];
  const [one, other] = sides;
  for (const name of keysOf(one.blocks, other.blocks)) {
    const differ = (path: string, values: [string, string]) =>
      found.push({ block: name, path, values });
    // What changes while a host runs is named by its field alone.
    const { record: x, ...before } = one.blocks[name] ?? {} as SavedBlock;
    const { record: y, ...after } = other.blocks[name] ?? {} as SavedBlock;
    diffPlain(before as Plain, after as Plain, "", differ);
    diffPlain(x, y, "", differ);
  }
  return [...found, ...diffMemory(one, other)];
}

const keysOf = (a: object, b: object) => new Set([...Object.keys(a), ...Object.keys(b)]);
type Differ = (path: string, values: [string, string]) => void;

function diffPlain(a: Plain | undefined, b: Plain | undefined, path: string, differ: Differ): void {
  if (Object.is(a, b)) return;
  if (a instanceof Uint8Array && b instanceof Uint8Array && a.length === b.length) {
    const at = firstDifference(a, b);
    if (at >= 0) differ(`${path}[${hex(at)}]`, [bytesText(a, at), bytesText(b, at)]);
  } else if (isHolder(a) && isHolder(b) && Array.isArray(a) === Array.isArray(b)) {
    const [x, y] = [a, b] as Readonly<Record<string, Plain>>[];
    for (const key of keysOf(x, y)) {
      const inside = Array.isArray(a) ? `${path}[${key}]` : path ? `${path}.${key}` : key;
      diffPlain(x[key], y[key], inside, differ);
    }
  } else differ(path, [plainText(a), plainText(b)]);
}

const isHolder = (value: Plain | undefined): value is object & Plain =>
  typeof value === "object" && value !== null && !(value instanceof Uint8Array);

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i;
  return -1;
}
const bytesText = (bytes: Uint8Array, at: number) =>
  Array.from(bytes.subarray(at, at + SHOWN_BYTES), (b) => b.toString(16).padStart(2, "0")).join(
    " ",
  );

function plainText(value: Plain | undefined): string {
  if (value === undefined) return "nothing";
  if (typeof value === "bigint") return hex(value);
  if (typeof value === "number" && value > 9 && Number.isInteger(value)) {
    return `${value} (${hex(value)})`;
  }
  if (value instanceof Uint8Array) return counted(value.length, "byte");
  return isHolder(value)
    ? JSON.stringify(value, (_, v) => typeof v === "bigint" ? hex(v) : v).slice(0, 80)
    : String(value);
}

/** What the machine's memory holds: of domains by guest frames, then what the hypervisor keeps there. */
function diffMemory(a: Saved, b: Saved): StateDifference[] {
  const found: StateDifference[] = [], seen = new Set<number>();
  const domains = [...keysOf(a.blocks, b.blocks)].filter((name) => /^domain \d+$/.test(name));
  for (const domain of domains) {
    const [x, y] = [a.guestFrames(domain), b.guestFrames(domain)];
    for (let n = 0; n < Math.max(x.length, y.length); n++) {
      const [left, right] = [x[n] ?? -1, y[n] ?? -1];
      if (left >= 0 && left === right) seen.add(left);
      if (left < 0 && right < 0) continue;
      const at = firstDifference(a.frame(left), b.frame(right));
      if (at < 0) continue;
      found.push({
        block: `${domain} memory`,
        path: `guest frame ${hex(n)} + ${hex(at)}`,
        values: [bytesText(a.frame(left), at), bytesText(b.frame(right), at)],
      });
    }
    const vcpus = [...keysOf(a.blocks, b.blocks)].filter((name) =>
      name.startsWith(`${domain} vcpu `) && name.endsWith(` ${HVM_BLOCK}`)
    );
    for (const name of vcpus) diffVcpu(a, b, name, seen, found);
  }
  for (const frame of new Set([...a.frames, ...b.frames].sort((x, y) => x - y))) {
    if (seen.has(frame)) continue;
    const at = firstDifference(a.frame(frame), b.frame(frame));
    if (at < 0) continue;
    found.push({
      block: `${a.owner(frame)} own memory`,
      path: `machine frame ${hex(frame)} + ${hex(at)}`,
      values: [bytesText(a.frame(frame), at), bytesText(b.frame(frame), at)],
    });
  }
  return found;
}

/** What the hardware and the hypervisor keep of a vCPU in two frames. */
function diffVcpu(
  a: Saved,
  b: Saved,
  block: string,
  seen: Set<number>,
  found: StateDifference[],
): void {
  const where = ({ blocks }: Saved, name: string) =>
    blocks[block]?.configuration[name] as number | undefined;
  const cpu = a.blocks.host?.configuration.cpu as CpuModel;
  if (cpu !== b.blocks.host?.configuration.cpu) return;
  const whose = block.slice(0, -HVM_BLOCK.length - 1);
  const { fields }: HvmOps = hvmOps(cpu);
  for (
    const [name, known] of [["control structure", fields.control], [
      "save area",
      fields.area,
    ]] as const
  ) {
    const [x, y] = [where(a, name), where(b, name)];
    if (x === undefined || y === undefined) continue;
    const [left, right] = [a.frame(x / FRAME), b.frame(y / FRAME)];
    // The rest of the frame is shown as any other.
    if (diffFields(left, right, known, `${whose} ${name}`, found) && x === y) seen.add(x / FRAME);
  }
}

/** True if all that differs has a name. */
function diffFields(
  a: Uint8Array,
  b: Uint8Array,
  fields: readonly CellField[],
  block: string,
  found: StateDifference[],
): boolean {
  const [x, y] = [a.slice(), b.slice()];
  for (const { name, at, width } of fields) {
    const [left, right] = [a, b].map((bytes) => numberOf(bytes.subarray(at, at + width)));
    if (left !== right) found.push({ block, path: name, values: [hex(left), hex(right)] });
    for (const bytes of [x, y]) bytes.fill(0, at, at + width);
  }
  return firstDifference(x, y) < 0;
}

const numberOf = (bytes: Uint8Array): bigint =>
  bytes.reduceRight((sum, byte) => sum << 8n | BigInt(byte), 0n);

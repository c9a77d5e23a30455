/**
 * What a guest can see of itself, as text and hashes: two digests say whether two ways of running a
 * guest came to the same, and where they differ. Nothing of the vendor's structures is in it.
 *
 * @module
 */
import { decodePlain, encodePlain, type Plain } from "../devices/record.ts";
import { CPU } from "../machine/state.ts";
import { HvmEngine } from "../xen/hvm.ts";
import type { GuestDomain } from "./domain.ts";
import { FrameHashes, type Hash, hashBytes, hashText, placed, plus } from "./hash.ts";
import { registerLines } from "./state.ts";
import { grouped, hex, INSPECT } from "./values.ts";

/** A part of a guest's state in lines. */
export interface DigestBlock {
  /** "time", "registers", "events", "msrs", or a device's name. */
  readonly name: string;
  readonly lines: readonly string[];
}

/** A digest as it is written to a file. */
export interface DigestRecord {
  readonly blocks: readonly DigestBlock[];
  /** Two hexadecimal words a guest frame, in order. */
  readonly frames: readonly string[];
}

/** Where two digests differ: a line of a block, or a guest frame. */
export interface DigestDifference {
  readonly block: string;
  /** Each side's line; undefined where there is none. */
  readonly lines: readonly [string | undefined, string | undefined];
}

/** The state of a guest as the guest can see it. */
export class GuestDigest {
  private constructor(
    readonly blocks: readonly DigestBlock[],
    /** Hashes of guest frames by their number: two words each, zero for a frame of zeroes. */
    private readonly frames: Uint32Array,
  ) {}

  /** Of a domain as it stands. */
  static of(domain: GuestDomain): GuestDigest {
    const { inner, vcpu } = domain, { memory } = inner;
    const hashes = FrameHashes.of(inner.host.machine);
    hashes.update();
    const frames = new Uint32Array(memory.size / 4096 * 2);
    for (let gfn = 0; gfn < memory.size / 4096; gfn++) {
      const machine = memory.machineAddress(gfn * 4096);
      if (machine >= 0) frames.set(hashes.frame(machine / 4096), 2 * gfn);
    }
    return new GuestDigest([
      { name: "time", lines: [`instructions ${inner.count}`, `time ${inner.cpu.now}`] },
      { name: "registers", lines: registerLines(vcpu.file) },
      { name: "events", lines: eventLines(domain) },
      { name: "msrs", lines: msrLines(domain) },
      ...deviceBlocks(domain),
    ], frames);
  }

  /** From what {@linkcode GuestDigest.toJSON} gave. */
  static from({ blocks, frames }: DigestRecord): GuestDigest {
    const words = frames.flatMap((frame) => frame.split(" ").map((word) => parseInt(word, 16)));
    return new GuestDigest(blocks, Uint32Array.from(words));
  }
  toJSON(): DigestRecord {
    const { blocks, frames } = this;
    const texts = Array.from(
      { length: frames.length / 2 },
      (_, n) => `${frames[2 * n].toString(16)} ${frames[2 * n + 1].toString(16)}`,
    );
    return { blocks, frames: texts };
  }

  /** Of all of it, as 16 hexadecimal digits. */
  get hash(): string {
    let sum: Hash = hashBytes(new TextEncoder().encode(JSON.stringify(this.blocks)));
    for (let n = 0; n < this.frames.length / 2; n++) {
      sum = plus(sum, placed(n, [this.frames[2 * n], this.frames[2 * n + 1]]));
    }
    return hashText(sum);
  }

  /** Guest frames whose contents differ. */
  differingFrames(other: GuestDigest): number[] {
    const frames: number[] = [];
    const count = Math.max(this.frames.length, other.frames.length) / 2;
    for (let n = 0; n < count; n++) {
      const same = (at: number) => (this.frames[at] ?? 0) === (other.frames[at] ?? 0);
      if (!same(2 * n) || !same(2 * n + 1)) frames.push(n);
    }
    return frames;
  }

  /** All that differs: lines of blocks first, then guest frames. */
  differences(other: GuestDigest): DigestDifference[] {
    const found: DigestDifference[] = [];
    const names = new Set([...this.blocks, ...other.blocks].map((b) => b.name));
    for (const name of names) {
      const lines = ({ blocks }: GuestDigest) => blocks.find((b) => b.name === name)?.lines ?? [];
      const [a, b] = [lines(this), lines(other)];
      for (let i = 0; i < Math.max(a.length, b.length); i++) {
        if (a[i] !== b[i]) found.push({ block: name, lines: [a[i], b[i]] });
      }
    }
    for (const frame of this.differingFrames(other)) {
      const text = `guest frame ${hex(frame)}`;
      found.push({ block: "memory", lines: [text, text] });
    }
    return found;
  }

  [INSPECT](): string {
    const used = this.frames.filter((word, i) => i % 2 === 0 && word !== 0).length;
    return `guest state ${this.hash}: ${this.blocks.map((b) => b.name).join(" ")}, ${
      grouped(used)
    } frames in use`;
  }
}

/** Differences in a few lines for a person: at most `limit` of them. */
export function differenceText(
  differences: readonly DigestDifference[],
  names: readonly [string, string],
  limit = 10,
): string {
  const frames = differences.filter((d) => d.block === "memory");
  const lines = differences.filter((d) => d.block !== "memory");
  const shown = lines.slice(0, limit).flatMap(({ block, lines: [a, b] }) => [
    `${block}: ${names[0]}: ${a ?? "nothing"}`,
    `${" ".repeat(block.length)}  ${names[1]}: ${b ?? "nothing"}`,
  ]);
  if (lines.length > limit) shown.push(`and ${lines.length - limit} more lines`);
  if (frames.length) {
    const some = frames.slice(0, limit).map((f) => f.lines[0]!.replace("guest frame ", ""));
    const more = frames.length > limit ? " …" : "";
    shown.push(`memory: ${grouped(frames.length)} guest frames: ${some.join(" ")}${more}`);
  }
  return shown.join("\n");
}

/** What waits to be delivered, and what holds it back. */
function eventLines({ inner }: GuestDomain): string[] {
  const { engine, cpu } = inner;
  if (engine instanceof HvmEngine) {
    const { ops, vcpu } = engine;
    const { sti, movSs, nmi } = ops.interruptShadow(vcpu);
    return [
      `pending ${JSON.stringify(ops.pendingEvent(vcpu) ?? null)}`,
      `shadow ${+sti | +movSs << 1 | +nmi << 3}`,
      `activity ${ops.getActivity(vcpu)}`,
    ];
  }
  const activities = ["active", "hlt", "shutdown", "wait-for-sipi"];
  return [
    "pending null",
    `shadow ${cpu.i32[CPU.interruptibility >> 2]}`,
    `activity ${activities[cpu.i32[CPU.activity >> 2]]}`,
  ];
}

/** MSRs that the hypervisor remembers for the guest. */
function msrLines({ inner: { engine } }: GuestDomain): string[] {
  if (!(engine instanceof HvmEngine)) return [];
  return [...engine.msrs].sort((a, b) => a[0] - b[0]).map(([n, value]) =>
    `msr ${hex(n)} ${value.toString(16)}`
  );
}

function deviceBlocks({ devices }: GuestDomain): DigestBlock[] {
  // In the order of their keys, as they are saved.
  const record = (state: object) => decodePlain(encodePlain(state as Plain));
  return devices.devices.map(({ name, state }) => ({ name, lines: flatten("", record(state)) }));
}

/** `path value` for each part of a record. */
function flatten(path: string, value: Plain): string[] {
  if (value instanceof Uint8Array) {
    const bytes = value.length > 64 ? hashText(hashBytes(value)) : value.toHex();
    return [`${path} ${value.length} bytes ${bytes}`];
  }
  if (typeof value !== "object" || value === null) return [`${path} ${value}`];
  const inside =
    Array.isArray(value) && value.length > 16 && value.every((v) => typeof v !== "object")
      ? [[0, value.join(" ")] as const]
      : Object.entries(value);
  return inside.flatMap(([key, part]) =>
    flatten(path ? `${path}.${key}` : String(key), part as Plain)
  );
}

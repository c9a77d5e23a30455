/**
 * What a guest can see of itself, as text and hashes: two digests say whether two ways of running a
 * guest came to the same, and where they differ. Nothing of the vendor's structures is in it.
 *
 * @module
 */
import { type GuestDomain, subjectOf } from "./domain.ts";
import { counted, hex, INSPECT } from "./values.ts";
import { framesDigest, linesDigest, visibleFrames, visibleSections } from "./views/visible.ts";
import type { VisibleSection } from "./views/visible_chips.ts";

export type { VisibleSection };

/** A digest as it is written to a file. */
export interface DigestRecord {
  /** Registers, console and chips. */
  readonly blocks: readonly VisibleSection[];
  /** Two hexadecimal words a guest frame, in order. */
  readonly frames: readonly string[];
}

/** Where two digests differ: a line of a block, or a guest frame. */
export interface DigestDifference {
  /** Name of the block; "memory" for a guest frame. */
  readonly block: string;
  /** Each side's line; undefined where there is none. */
  readonly lines: readonly [string | undefined, string | undefined];
}

/** The state of a guest as the guest can see it. */
export class GuestDigest {
  /** Registers, console and chips, in lines. */
  readonly blocks: readonly VisibleSection[];
  /** Hashes of guest frames by their number: two words each, zero for a frame of zeroes. */
  readonly #frames: Uint32Array;

  private constructor(
    blocks: readonly VisibleSection[],
    frames: Uint32Array,
  ) {
    this.blocks = blocks;
    this.#frames = frames;
  }

  /** Of a domain as it stands; looking changes nothing. */
  static of(domain: GuestDomain): GuestDigest {
    const subject = subjectOf(domain);
    return new GuestDigest(visibleSections(subject), visibleFrames(subject.inner));
  }

  /** From what {@linkcode GuestDigest.toJSON} gave. */
  static from({ blocks, frames }: DigestRecord): GuestDigest {
    const words = frames.flatMap((frame) => frame.split(" ").map((word) => parseInt(word, 16)));
    return new GuestDigest(blocks, Uint32Array.from(words));
  }
  /** As it is written to a file; {@linkcode GuestDigest.from} takes it back. */
  toJSON(): DigestRecord {
    const { blocks } = this, frames = this.#frames;
    const texts = Array.from(
      { length: frames.length / 2 },
      (_, n) => `${frames[2 * n].toString(16)} ${frames[2 * n + 1].toString(16)}`,
    );
    return { blocks, frames: texts };
  }

  /** Of each block and of "memory", as 12 hexadecimal digits each. */
  get sections(): Readonly<Record<string, string>> {
    const blocks = this.blocks.map(({ name, lines }) => [name, linesDigest(lines)]);
    return Object.fromEntries([...blocks, ["memory", framesDigest(this.#frames)]]);
  }
  /** Of all of it, as 12 hexadecimal digits. */
  get hash(): string {
    return linesDigest(Object.entries(this.sections).map((section) => section.join(" ")));
  }

  /** Guest frames whose contents differ. */
  differingFrames(other: GuestDigest): number[] {
    const frames: number[] = [];
    const count = Math.max(this.#frames.length, other.#frames.length) / 2;
    for (let n = 0; n < count; n++) {
      const same = (at: number) => (this.#frames[at] ?? 0) === (other.#frames[at] ?? 0);
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

  /** @ignore */
  [INSPECT](): string {
    const used = this.#frames.filter((word, i) => i % 2 === 0 && word !== 0).length;
    return `guest state ${this.hash}: ${this.blocks.map((b) => b.name).join(" ")}, ${
      counted(used, "frame")
    } in use`;
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
  if (lines.length > limit) shown.push(`and ${counted(lines.length - limit, "more line")}`);
  if (frames.length) {
    const some = frames.slice(0, limit).map((f) => f.lines[0]!.replace("guest frame ", ""));
    const more = frames.length > limit ? " …" : "";
    shown.push(`memory: ${counted(frames.length, "guest frame")}: ${some.join(" ")}${more}`);
  }
  return shown.join("\n");
}

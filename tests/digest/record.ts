/**
 * Recordings of what guests could see at fixed positions, and how a run compares with one.
 *
 * A recording is JSON: the names of the sections, and for each guest the SHA-256 of its images and a
 * line for each position: instructions, then the sections' digests in their order; "=" for one that is
 * the same as at the position before.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { GuestDigest, runUntil } from "xvm";
import type { GuestDomain } from "../../src/debug/domain.ts";

/** Where a guest was looked at. */
export interface Place {
  /** Instructions that the guest had executed. */
  readonly position: number;
  /** Digests by the names of their sections. */
  readonly sections: Readonly<Record<string, string>>;
}

/** A guest's images by what they are for, as SHA-256. */
export type Images = Readonly<Record<string, string>>;

/** What is recorded of a guest. */
export interface Recorded {
  readonly images: Images;
  readonly places: readonly Place[];
}

/** Recorded guests by their names, "686-pae PVH intel hap". */
export type Recording = Readonly<Record<string, Recorded>>;

/** How a file has it. */
interface Stored {
  readonly sections: readonly string[];
  readonly guests: Readonly<
    Record<string, { readonly images: Images; readonly places: readonly string[] }>
  >;
}

/** Positions in a run. */
export const POSITIONS = 10;

export const sha256 = (bytes: Uint8Array): string =>
  createHash("sha256").update(bytes).digest("hex");

/** @returns nothing recorded, if there is no such file */
export function readRecording(file: string): Recording {
  let text: string;
  try {
    text = Deno.readTextFileSync(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return {};
    throw error;
  }
  const { sections, guests } = JSON.parse(text) as Stored;
  const placesIn = (lines: readonly string[]): Place[] => {
    let last: readonly string[] = [];
    return lines.map((line) => {
      const [position, ...digests] = line.split(" ");
      const own = last = digests.map((digest, n) => digest === "=" ? last[n] : digest);
      return {
        position: Number(position),
        sections: Object.fromEntries(sections.map((name, n) => [name, own[n]])),
      };
    });
  };
  return Object.fromEntries(
    Object.entries(guests).map((
      [name, { images, places }],
    ) => [name, { images, places: placesIn(places) }]),
  );
}

/** @throws if guests have different sections: one recording is made of one tree */
export function writeRecording(file: string, recording: Recording): void {
  const all = Object.values(recording).flatMap(({ places }) => places);
  const sections = Object.keys(all[0]?.sections ?? {});
  const other = all.find((place) => `${Object.keys(place.sections)}` !== `${sections}`);
  if (other) {
    throw new Error(
      `${file}: one guest has the sections ${sections.join(" ")}, and another ${
        Object.keys(other.sections).join(" ")
      }: record all of them anew`,
    );
  }
  const lineOf = ({ position, sections: own }: Place, n: number, places: readonly Place[]) => {
    const before = places[n - 1]?.sections ?? {};
    const digests = sections.map((name) => own[name] === before[name] ? "=" : own[name]);
    return [position, ...digests].join(" ");
  };
  const guests = Object.fromEntries(
    Object.entries(recording).map((
      [name, { images, places }],
    ) => [name, { images, places: places.map(lineOf) }]),
  );
  const stored: Stored = { sections, guests };
  Deno.writeTextFileSync(file, JSON.stringify(stored, null, 2) + "\n");
}

/** Tenths of a run of so many instructions; the last is its end. */
export const tenths = (total: number): number[] =>
  Array.from({ length: POSITIONS }, (_, n) => Math.ceil(total * (n + 1) / POSITIONS));

/**
 * Runs a guest that has not begun through positions, and looks at it there.
 *
 * @throws {Error} naming the position that it does not come to
 */
export async function placesOf(dom: GuestDomain, positions: readonly number[]): Promise<Place[]> {
  const places: Place[] = [];
  for (const position of positions) {
    const end = await runUntil(dom, { until: position });
    const { instructions } = dom.statistics();
    if (instructions !== position) {
      throw new Error(
        `the guest was to come to instruction ${position}; after ${instructions} its run ended: ${end}`,
      );
    }
    places.push({ position, sections: GuestDigest.of(dom).sections });
  }
  return places;
}

/** A position where a run is not as recorded, and the sections that differ. */
export interface Differing {
  readonly position: number;
  readonly sections: readonly string[];
}

/** Where a run differs from what was recorded at the same positions. */
export function differing(recorded: readonly Place[], now: readonly Place[]): Differing[] {
  const found: Differing[] = [];
  for (let n = 0; n < Math.max(recorded.length, now.length); n++) {
    const [a, b] = [recorded[n], now[n]];
    if (a?.position !== b?.position) {
      found.push({ position: (a ?? b).position, sections: ["position"] });
      continue;
    }
    const names = [...new Set([...Object.keys(a.sections), ...Object.keys(b.sections)])];
    const sections = names.filter((name) => a.sections[name] !== b.sections[name]);
    if (sections.length) found.push({ position: a.position, sections });
  }
  return found;
}

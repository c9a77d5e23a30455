/**
 * The repository's small guests, in every way there is to run them, at ten positions each.
 *
 * @module
 */
import { Hypervisor, runUntil } from "xvm";
import { demoGuest } from "../../src/builder/demo.ts";
import type { GuestDomain } from "../../src/debug/domain.ts";
import { type Configuration, configurations, pressKeys } from "../../src/debug/testing/hosts.ts";
import { everyExit } from "../../src/debug/testing/every_exit.ts";
import { longRom } from "../../src/debug/testing/long_rom.ts";
import { debuggedRom, realRom } from "../../src/debug/testing/rom.ts";
import { placesOf, type Recorded, sha256, tenths } from "./record.ts";

/** Where their recording is. */
export const SMALL: string = new URL("small.json", import.meta.url).pathname;

/** Instructions of the longest run: some guests have no end. */
const MOST = 60_000;

interface Small {
  readonly image: (cpu: "intel" | "amd") => Uint8Array;
  /** Gives it what it waits for. */
  readonly start?: (dom: GuestDomain) => void;
}

const GUESTS: Readonly<Record<string, Small>> = {
  "demo": { image: () => demoGuest().image, start: (dom) => pressKeys(dom, "cfmdtq") },
  "every exit": { image: everyExit },
  "64 bits": { image: () => longRom().image },
  "32 bits": { image: () => debuggedRom().image },
  "real mode": { image: () => realRom().image },
};

/** A small guest on one configuration. */
export interface SmallRun {
  /** "demo intel hap". */
  readonly name: string;
  /** At given positions, or at ten up to its end. */
  run(positions?: readonly number[]): Promise<Recorded>;
}

/** All of them. */
export const smallRuns: readonly SmallRun[] = Object.entries(GUESTS).flatMap(([guest, small]) =>
  configurations.map((way) => ({
    name: `${guest} ${way.cpu} ${way.paging}`,
    run: (positions?: readonly number[]) => run(small, way, positions),
  }))
);

async function run(
  { image, start }: Small,
  { cpu, paging }: Configuration,
  positions?: readonly number[],
): Promise<Recorded> {
  const kernel = image(cpu);
  const begin = async (hv: Hypervisor) => {
    const dom = await hv.createDomain({
      ...paging === "bare" ? { type: "bare" } : { type: "hvm", paging },
      kernel,
      memory: "4M",
    });
    start?.(dom);
    return dom;
  };
  const options = { cpu, memory: "32M", seed: 1 };
  await using hv = await Hypervisor.start(options);
  if (!positions) {
    await using first = await Hypervisor.start(options);
    const dom = await begin(first);
    await runUntil(dom, { until: MOST });
    positions = tenths(dom.statistics().instructions);
  }
  return {
    images: { kernel: sha256(kernel) },
    places: await placesOf(await begin(hv), positions),
  };
}

/**
 * What the law of saved states is tried on: the repository's small guests and real kernels, in every way
 * there is to run them.
 *
 * @module
 */
import { type Hypervisor, runUntil } from "xvm";
import { filesOf, KERNELS, startBoot } from "../../scripts/boots.ts";
import { demoGuest } from "../../src/builder/demo.ts";
import { type GuestDomain, subjectOf } from "../../src/debug/domain.ts";
import { hostUnder } from "../../src/debug/hypervisor.ts";
import { type Configuration, configurations, hostOf } from "../../src/debug/testing/hosts.ts";
import { crowdOf } from "../../src/debug/testing/crowd.ts";
import { everyExit } from "../../src/debug/testing/every_exit.ts";
import type { Domain } from "../../src/xen/domain.ts";
import type { Host } from "../../src/xen/host.ts";

/** A host with one domain, and what is under the two. */
export interface Running {
  readonly hv: Hypervisor;
  readonly dom: GuestDomain;
  readonly host: Host;
  readonly inner: Domain;
}
type Opened = Pick<Running, "hv" | "dom">;

export const running = ({ hv, dom }: Opened): Running => ({
  hv,
  dom,
  host: hostUnder(hv),
  inner: subjectOf(dom).inner,
});

/** A guest on one configuration. */
export interface Subject {
  /** "686-pae PVH intel hap". */
  readonly name: string;
  readonly way: Configuration;
  /** Instructions that are worth looking into, and those within which a stop has to come. */
  readonly length: number;
  readonly reach: number;
  /** Keys that it answers. */
  readonly keys: string;
  /** Files that it needs. */
  readonly files: readonly string[];
  /** At its first instruction; each on a host of its own. */
  open(): Promise<Running>;
}

type Guest = Pick<Subject, "length" | "reach" | "keys" | "files"> & {
  open(way: Configuration): Promise<Opened>;
};

const SMALL = { length: 400_000, reach: 15_000, files: [] };
const KERNEL = { length: 400_000_000, reach: 1_000_000, keys: "" };
const CHOSEN = ["686-pae PVH", "cloud PVH"];
/** Ways to run a guest of several vCPUs, on so many processors. */
const CROWDS: readonly (Configuration & { readonly vcpus: number; readonly cpus: number })[] = [
  ...configurations.map((way, n) => ({
    ...way,
    vcpus: 2,
    cpus: way.paging === "bare" ? 2 : 1 + n % 2,
  })),
  ...configurations.map((way, n) => ({
    ...way,
    vcpus: 4,
    cpus: way.paging === "bare" ? 4 : 4 >> n % 3,
  })),
  { cpu: "intel", paging: "hap", vcpus: 8, cpus: 4 },
  { cpu: "amd", paging: "shadow", vcpus: 8, cpus: 2 },
  { cpu: "amd", paging: "bare", vcpus: 8, cpus: 8 },
  { cpu: "amd", paging: "hap", vcpus: 16, cpus: 4 },
];

const guests: Readonly<Record<string, Guest>> = {
  "demo": { ...SMALL, keys: "cmftdcmftdq", open: (way) => hostOf(way, demoGuest().image) },
  "every exit": { ...SMALL, keys: "", open: (way) => hostOf(way, everyExit(way.cpu)) },
  ...Object.fromEntries(
    KERNELS.filter(({ name }) => CHOSEN.includes(name)).map((kernel): [string, Guest] => [
      kernel.name,
      {
        ...KERNEL,
        files: Object.values(filesOf({ kernel })),
        open: ({ cpu, paging }) =>
          paging === "bare"
            ? startBoot({ kernel: { ...kernel, type: "bare" }, cpu, paging: "hap" }, "own")
            : startBoot({ kernel, cpu, paging }, "own"),
      },
    ]),
  ),
};

/** Real kernels of several vCPUs, from where they are up: they are booted once. */
const LARGE = [
  { kernel: "686-pae PVH", cpu: "intel", paging: "hap", vcpus: 2, cpus: 1 },
  { kernel: "cloud PVH", cpu: "amd", paging: "hap", vcpus: 2, cpus: 2 },
] as const;
const UP = "GUEST-READY";

function large({ kernel: wanted, vcpus, cpus, ...way }: (typeof LARGE)[number]): Subject {
  const kernel = KERNELS.find(({ name }) => name === wanted)!;
  let up: Uint8Array | undefined;
  return {
    ...KERNEL,
    length: 40_000_000,
    name: `${wanted} ${vcpus} vCPUs on ${cpus} ${way.cpu} ${way.paging}`,
    way,
    files: Object.values(filesOf({ kernel })),
    async open() {
      const { hv, dom } = await startBoot({ kernel, ...way, vcpus, cpus }, "own");
      if (up) hv.load(up);
      else {
        await runUntil(dom, { until: UP });
        up = hv.save();
      }
      return running({ hv, dom });
    },
  };
}

/** Lengths of turns: what can come between is in the short ones, what a turn is saved for in the long ones. */
const INTERLEAVES = [{ min: 1, max: 30 }, { min: 200, max: 2000 }] as const;

/** All of them. */
export const subjects: readonly Subject[] = [
  ...Object.entries(guests).flatMap(([name, guest]) =>
    configurations.map((way) => ({
      ...guest,
      name: `${name} ${way.cpu} ${way.paging}`,
      way,
      open: async () => running(await guest.open(way)),
    }))
  ),
  ...CROWDS.map(({ vcpus, cpus, ...way }, n): Subject => ({
    ...SMALL,
    keys: "",
    name: `crowd ${vcpus} vCPUs on ${cpus} ${way.cpu} ${way.paging}`,
    way,
    open: async () => running(await crowdOf(way, vcpus, { cpus, interleave: INTERLEAVES[n % 2] })),
  })),
  ...LARGE.map(large),
];

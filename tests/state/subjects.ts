/**
 * What the law of saved states is tried on: the repository's small guests and real kernels, in every way
 * there is to run them.
 *
 * @module
 */
import type { Hypervisor } from "xvm";
import { filesOf, KERNELS, startBoot } from "../../scripts/boots.ts";
import { demoGuest } from "../../src/builder/demo.ts";
import { type GuestDomain, subjectOf } from "../../src/debug/domain.ts";
import { hostUnder } from "../../src/debug/hypervisor.ts";
import { type Configuration, configurations, hostOf } from "../../src/debug/testing/hosts.ts";
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

/** All of them. */
export const subjects: readonly Subject[] = Object.entries(guests).flatMap(([name, guest]) =>
  configurations.map((way) => ({
    ...guest,
    name: `${name} ${way.cpu} ${way.paging}`,
    way,
    open: async () => running(await guest.open(way)),
  }))
);

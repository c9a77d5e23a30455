/** What every domain is made by: a plan for its type, and the ground that the plan lays. */
import type { GuestType } from "../abi/boot/images.ts";
import type { CpuidEdit, CpuidModel } from "../machine/cpuid.ts";
import type { ClockName, Domain, DomainMemory } from "../xen/domain.ts";
import type { Host } from "../xen/host.ts";
import type { PlatformEvents } from "../xen/platform.ts";
import type { Board } from "./board.ts";
import type { BootModule, LoadedGuest, NamedBytes } from "./load.ts";

/** What a domain is made from. */
export interface DomainConfig {
  readonly name: string;
  readonly type: GuestType;
  readonly kernel: NamedBytes;
  readonly ramdisk?: NamedBytes;
  readonly modules?: readonly BootModule[];
  readonly cmdline?: string;
  /** Bytes. */
  readonly memory: number;
  /** Bytes up to which one that knows Xen may grow by itself; `memory` if not given. */
  readonly maxMemory?: number;
  readonly vcpus: number;
  readonly paging: "hap" | "shadow";
  /** The processor the guest sees: a model, and changes of its features and leaves. */
  readonly cpuid?: CpuidEdit & { readonly model?: CpuidModel };
  /** It knows Xen: hypercalls, event channels, and the rest of its interface. */
  readonly xen?: boolean;
  /** It may write to the hypervisor's own console, as a debug build of Xen lets all domains. */
  readonly xenConsole?: boolean;
  /** Its time is its own, or the host's. */
  readonly clock?: ClockName;
  readonly consolePorts?: readonly number[];
  /** Bytes of console output that are kept. */
  readonly consoleMemory?: number;
  /** Share of the processor beside others, 1 to 65535; and most of it in percent, 0: no cap. */
  readonly weight?: number;
  readonly cap?: number;
  /** Bytes of machine memory for shadow tables; none given: Xen's rule. */
  readonly shadowMemory?: number;
}

/** What differs in a board between the plans. */
export type BoardEvents = Pick<PlatformEvents, "changed" | "signalled" | "priority" | "a20"> & {
  /** A processor's time-stamp counter less the domain's time. */
  tscOffset(processor: number): bigint;
};

/** Where a domain stands: its memory, and then a processor. */
export interface Ground {
  readonly id: number;
  readonly memory: DomainMemory;
  /** Gives it a processor, when its kernel is in memory; what its board tells that processor. */
  equip(domain: Domain, loaded: LoadedGuest): BoardEvents;
  /** With its platform in place: the engine, and the processor as the kernel is to find it. */
  enter(domain: Domain, board: Board, loaded: LoadedGuest): void;
  /** Gives back what it took, when the domain could not be made. */
  release(): void;
}

/** How a type of domain is made. */
export interface Plan {
  /** What runs it. */
  readonly engine: "bare" | "hvm";
  /** It shares the host with no other. */
  readonly alone: boolean;
  /** What of a configuration it would ignore: what was asked for, and why it cannot be. */
  refuses(
    config: Omit<DomainConfig, "kernel">,
  ): readonly (readonly [what: string, why: string] | false)[];
  ground(host: Host, config: DomainConfig): Ground;
}

/** What a domain that knows nothing of Xen would ignore, and maxima that are none. */
export const refusesOfXen = (
  { memory, maxMemory, xen, xenConsole }: Omit<DomainConfig, "kernel">,
): ReturnType<Plan["refuses"]> => [
  !xen && maxMemory !== undefined && [
    "maxMemory was given",
    "only a domain that knows Xen can grow",
  ],
  !xen && !!xenConsole && ["xenConsole was given", "only a domain that knows Xen has calls for it"],
  maxMemory !== undefined && maxMemory < memory && [
    `${maxMemory} bytes were given as maxMemory`,
    `it begins with ${memory}`,
  ],
];

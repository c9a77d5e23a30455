/**
 * What a domain has of Xen's interface: shared_info, event channels, timers, parameters. A domain without
 * it is on a computer that says nothing of a hypervisor.
 */
import { type AbiWidth, offsetOf } from "../abi/layout.ts";
import { HVM_PARAM } from "../abi/xen/hvm/params.ts";
import { SHUTDOWN } from "../abi/xen/sched.ts";
import { SHARED_INFO } from "../abi/xen/xen.ts";
import { ioApicPins } from "../machine/apic/io.ts";
import { flag, list, orNull, record, tuple, u32, u64, whole } from "../machine/shape.ts";
import { refuse, type StateRegister } from "../machine/state_block.ts";
import type { DomainConsole } from "./console_log.ts";
import { CallCounts } from "./call_counts.ts";
import type { Domain, ShutdownReason } from "./domain.ts";
import { type ChannelOwner, EventChannels } from "./event_channels.ts";
import { GrantTable } from "./grants.ts";
import { Fifo } from "./fifo.ts";
import type { Physmap } from "./physmap.ts";
import type { PlatformWatch } from "./platform_watch.ts";
import { SharedMemory } from "./shared_memory.ts";
import { TwoLevel } from "./two_level.ts";
import { type SavedWatchdogs, Watchdogs, WATCHDOGS_SHAPE } from "./watchdogs.ts";
import { type SavedXenVcpu, XEN_VCPU_SHAPE, XenVcpu } from "./xen_vcpu.ts";

/** How upcalls come to vCPUs without a vector of their own (HVM_PARAM_CALLBACK_IRQ). */
type Callback =
  | { readonly by: "nothing" }
  | { readonly by: "gsi"; readonly gsi: number }
  | { readonly by: "vector"; readonly vector: number };

interface SavedInterface {
  readonly width: number;
  readonly ringSpoke: boolean;
  readonly params: readonly (readonly [number, bigint])[];
  readonly assists: readonly number[];
  readonly watchdogs: SavedWatchdogs;
  readonly shutdown: number | null;
  readonly vcpus: readonly SavedXenVcpu[];
}

/** What domains come to one another by: domain 0's, too, which has no more than that. */
export interface Peer {
  readonly id: number;
  readonly channels: EventChannels;
  readonly grants: GrantTable;
}

export class XenInterface implements ChannelOwner, Peer {
  readonly memory: SharedMemory;
  readonly vcpus: readonly XenVcpu[];
  readonly channels: EventChannels;
  readonly grants: GrantTable;
  /** What hypercalls its guest has made. */
  readonly calls: CallCounts = new CallCounts();
  /** Of shared_info and of what hypercalls without a width of their own share: it is as the guest's code was. */
  width: AbiWidth = 32;
  /** What the guest has switched on by vm_assist. */
  readonly assists: Set<number> = new Set();
  readonly watchdogs: Watchdogs;
  /** The first reason to shut down that the guest has given; undefined: none yet. */
  #shutdown: number | undefined;
  /** HVM_PARAM_*, by number; those that are not there are 0. */
  readonly params: Map<number, bigint> = new Map();
  /** The guest wrote to its console's ring last, and not to a port. */
  ringSpoke = false;
  /** Its writes to the hypervisor's own console, if it may make any. */
  console: DomainConsole | undefined;
  #callback: Callback = { by: "nothing" };
  #deadline: number | undefined;

  constructor(
    readonly domain: Domain,
    /** Machine address of shared_info: a frame of the domain's. */
    readonly sharedInfo: number,
    readonly physmap: Physmap,
  ) {
    physmap.share(sharedInfo / 4096);
    this.memory = new SharedMemory(domain.host.machine);
    this.watchdogs = new Watchdogs(() => domain.now, () => this.timersChanged());
    this.vcpus = domain.vcpus.map((vcpu) => new XenVcpu(this, vcpu));
    const { memory, vcpus } = this;
    this.grants = new GrantTable(
      domain.id,
      memory,
      physmap.p2m.frames,
      physmap,
      (id) => this.tableOf(id),
      (frame) => physmap.share(frame),
    );
    this.channels = new EventChannels(this, {
      twoLevel: new TwoLevel(memory, () => this.#bits, vcpus),
      fifo: new Fifo(memory, physmap, vcpus),
    });
    domain.host.peers.set(domain.id, this);
  }
  get #bits() {
    const { sharedInfo, width } = this;
    return {
      pending: sharedInfo + offsetOf(SHARED_INFO, "evtchn_pending", width),
      mask: sharedInfo + offsetOf(SHARED_INFO, "evtchn_mask", width),
      width,
    };
  }

  /** Somebody looks on at its events and grants. */
  set watch(watch: PlatformWatch | undefined) {
    this.channels.watch = this.grants.watch = watch;
  }

  /** xen_domain_handle_t: 16 bytes that name it in the world; the id, here. */
  get handle(): Uint8Array {
    const bytes = new Uint8Array(16);
    new DataView(bytes.buffer).setUint32(12, this.id);
    return bytes;
  }
  get id(): number {
    return this.domain.id;
  }
  get vcpuCount(): number {
    return this.vcpus.length;
  }
  get count(): number {
    return this.domain.host.machine.count;
  }
  channelsOf(domain: number): EventChannels | undefined {
    return this.domain.host.peers.get(domain)?.channels;
  }
  tableOf(domain: number): GrantTable | undefined {
    return this.domain.host.peers.get(domain)?.grants;
  }
  polled(port: number): void {
    for (const vcpu of this.vcpus) vcpu.poll(port);
  }

  bound(domain: number): void {
    // Domain 0 has no time of its own, and its answers take none.
    if (domain !== this.id && domain !== 0) this.domain.keepHostTime();
  }

  /** shared_info is as wide as the guest's code was when it said where it wants hypercalls or upcalls. */
  latchWidth(width: AbiWidth): void {
    if (width === this.width) return;
    this.width = width;
    this.updateWallClock();
    for (const vcpu of this.vcpus) vcpu.updateTime();
  }
  /** Writes when system time was 0, in shared_info. */
  updateWallClock(): void {
    const { memory, width, sharedInfo } = this, { unixTime } = this.domain.host.world;
    const place = (field: "wc_version" | "wc_sec" | "wc_nsec" | "wc_sec_hi" | "arch.wc_sec_hi") =>
      sharedInfo + offsetOf(SHARED_INFO, field, width);
    const version = memory.word(place("wc_version")) & ~1;
    memory.setWord(place("wc_version"), version + 1);
    memory.setWord(place("wc_sec"), unixTime);
    memory.setWord(place("wc_nsec"), 0);
    memory.setWord(
      place(width === 64 ? "wc_sec_hi" : "arch.wc_sec_hi"),
      Math.floor(unixTime / 2 ** 32),
    );
    memory.setWord(place("wc_version"), version + 2);
  }

  /** HVM_PARAM_CALLBACK_IRQ: bits 63:56 say how, the rest what. */
  setCallback(value: bigint): void {
    this.assertLine(false);
    this.#callback = callbackOf(value);
    // Who has a vector of its own is told by it, whether there is something or not, as Xen does.
    for (const vcpu of this.vcpus) {
      if (vcpu.apicVector ? vcpu.online : vcpu.raised) this.assertUpcall(vcpu);
    }
  }
  /** The vector by which upcalls come; -1 where they come otherwise, or not at all. */
  get callbackVector(): number {
    return this.#callback.by === "vector" ? this.#callback.vector : -1;
  }
  /** A vCPU's upcall_pending was set. */
  assertUpcall(on: XenVcpu): void {
    if (on.apicVector) on.raiseVector();
    else if (on.vcpu.id === 0) this.assertLine(true);
  }
  /** An interrupt was injected into a vCPU: whoever looks on is told if it is its upcall. */
  injected(on: XenVcpu, vector: number): void {
    const upcall = vector === this.callbackVector || (on.apicVector && vector === on.apicVector);
    // By a line it comes by whatever vector the guest has given that.
    const byLine = this.#callback.by === "gsi" && on.vcpu.id === 0 && on.raised;
    if (upcall || byLine) this.channels.delivered(on.vcpu.id, vector);
  }
  /** The line of an interrupt controller by which upcalls come, if they do. */
  assertLine(level: boolean): void {
    if (this.#callback.by === "gsi") this.domain.platform?.setLine(this.#callback.gsi, level);
  }

  /** A timer was set. */
  timersChanged(): void {
    this.#deadline = undefined;
    // Whoever runs takes the host's timer along; who does not, is looked at by the deadline.
    for (const vcpu of this.domain.vcpus) if (vcpu.running) vcpu.engine.poke();
  }
  /** The domain's own time (ns) at which a timer is due; Infinity: none is set. */
  get deadline(): number {
    if (this.#deadline === undefined) {
      let earliest = this.watchdogs.deadline;
      for (const { deadline } of this.vcpus) earliest = Math.min(earliest, deadline);
      this.#deadline = earliest;
    }
    return this.#deadline;
  }
  run(now: number): void {
    if (this.deadline > now) return;
    if (this.watchdogs.rings(now)) this.shutDown(SHUTDOWN.watchdog, "SCHEDOP_watchdog");
    for (const vcpu of this.vcpus) vcpu.run(now);
    this.#deadline = undefined;
  }

  /** The guest says why it will shut down: the first time counts. */
  noteShutdown(reason: number): void {
    this.#shutdown ??= reason & 0xff;
  }
  /** It does. `by` says by what call. */
  shutDown(reason: number, by: string): void {
    this.noteShutdown(reason);
    const code = this.#shutdown!;
    const [name, ours, more] = REASONS[code] ?? ["unknown", "crash", ""];
    this.domain.end(ours, `${by}: ${name} (${code})${more}`);
  }

  /** The domain is no more. */
  destroy(): void {
    this.channels.closeAll();
    for (const vcpu of this.vcpus) vcpu.destroy();
    this.grants.destroy();
    this.domain.host.peers.delete(this.id);
  }

  register(blocks: StateRegister): void {
    blocks.register<SavedInterface>({
      name: "xen",
      version: 1,
      configuration: () => ({ "shared_info": this.sharedInfo }),
      shape: record({
        width: whole(32, 64),
        ringSpoke: flag,
        params: list(tuple(u32, u64)),
        assists: list(whole(0, 63)),
        watchdogs: WATCHDOGS_SHAPE,
        shutdown: orNull(whole(0, 255)),
        vcpus: tuple(...this.vcpus.map(() => XEN_VCPU_SHAPE)),
      }),
      save: () => ({
        width: this.width,
        ringSpoke: this.ringSpoke,
        params: [...this.params].sort(([a], [b]) => a - b),
        assists: [...this.assists].sort((a, b) => a - b),
        watchdogs: this.watchdogs.save(),
        shutdown: this.#shutdown ?? null,
        vcpus: this.vcpus.map((vcpu) => vcpu.save()),
      }),
      check: ({ width }) => {
        if (width !== 32 && width !== 64) refuse(`xen: width is ${width}, expected 32 or 64`);
      },
      load: ({ width, ringSpoke, params, assists, watchdogs, shutdown, vcpus }) => {
        this.ringSpoke = ringSpoke;
        this.width = width as AbiWidth;
        this.params.clear();
        for (const [number, value] of params) this.params.set(number, value);
        this.assists.clear();
        for (const type of assists) this.assists.add(type);
        this.watchdogs.load(watchdogs);
        this.#shutdown = shutdown ?? undefined;
        this.#callback = callbackOf(this.params.get(HVM_PARAM.CALLBACK_IRQ) ?? 0n);
        vcpus.forEach((saved, n) => this.vcpus[n].load(saved));
        this.#deadline = undefined;
      },
    });
    this.channels.register(blocks);
    this.grants.register(blocks);
    this.physmap.register(blocks);
    this.console?.register(blocks);
    this.calls.register(blocks);
  }
}

/** Reasons to shut down by their codes (SHUTDOWN_*): name, our word for it, and what it means here. */
const REASONS: Readonly<Record<number, readonly [string, ShutdownReason, string]>> = {
  [SHUTDOWN.poweroff]: ["poweroff", "poweroff", ""],
  [SHUTDOWN.reboot]: ["reboot", "reset", ""],
  [SHUTDOWN.suspend]: ["suspend", "suspend", ", to be saved: nothing here resumes it"],
  [SHUTDOWN.crash]: ["crash", "crash", ""],
  [SHUTDOWN.watchdog]: ["watchdog", "watchdog", ""],
  [SHUTDOWN.soft_reset]: [
    "soft reset",
    "soft-reset",
    ", for a new kernel: nothing here resumes it",
  ],
};

/** HVM_PARAM_CALLBACK_TYPE_*. */
const VIA = { gsi: 0, vector: 2 } as const;

/** A GSI that there is not, and a line of a bus that there is not, lead nowhere. */
function callbackOf(value: bigint): Callback {
  const kind = Number(value >> 56n), number = Number(value & 0xffn);
  if (kind === VIA.vector) return { by: "vector", vector: number };
  if (kind !== VIA.gsi || number === 0 || number >= ioApicPins) return { by: "nothing" };
  return { by: "gsi", gsi: number };
}

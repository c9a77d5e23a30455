/**
 * Event channels of a domain (Xen public/event_channel.h): its ports, what each is bound to, and who is
 * told when an event comes. How an event shows itself in guest memory is the {@linkcode EventAbi}'s.
 *
 * All operations give 0 or an errno of Xen's, negative; none throws for what a guest asks.
 */
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { NR_VIRQS, VCPU_VIRQS, VIRQ } from "../abi/xen/xen.ts";
import { amount, checkOrder, list, record, u32, whole, word } from "../machine/shape.ts";
import { type Fifo, FIFO_SHAPE, type SavedFifo } from "./fifo.ts";
import type { StateRegister } from "../machine/state_block.ts";
import type { PlatformWatch } from "./platform_watch.ts";
import { refuse } from "./refusal.ts";

const { EACCES, EEXIST, EINVAL, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP } = XEN_ERRNO;

/** A domain has at most so many ports, port 0 with them, whatever its ABI has room for (xl's default). */
const MOST_PORTS = 1024;
/** Ports are known in so many at a time. */
const BUCKET = 128;
/** Physical interrupts that a domain may name. */
const PIRQS = 256;

/** What a port is bound to: EVTCHNSTAT_*. */
export type ChannelState = "closed" | "unbound" | "interdomain" | "pirq" | "virq" | "ipi";

/** A port. */
export interface Channel {
  readonly port: number;
  state: ChannelState;
  /** The vCPU that is told. */
  vcpu: number;
  /** Unbound: the domain that may bind it. Interdomain: the peer's. */
  domain: number;
  /** Interdomain: the peer's port. */
  peer: number;
  /** Of a virq, its number. */
  virq: number;
  /** Of a pirq. */
  pirq: number;
  /** 0, the highest, to 15; FIFO only. */
  priority: number;
  /** Events that came. */
  sent: number;
  /** Of these: while another was pending already; while it was masked. */
  merged: number;
  masked: number;
  /** Who sent the last one, and at which instruction of the host; -1 if none came. */
  lastBy: number;
  lastAt: number;
}

/** How events show themselves to a guest: bits (two-level) or queues (FIFO), in its memory. */
export interface EventAbi {
  readonly name: "two-level" | "fifo";
  /** Ports that it has room for. */
  readonly ports: number;
  /** A port that is closed cannot be given to anybody yet. */
  isBusy(port: number): boolean;
  isPending(port: number): boolean;
  isMasked(port: number): boolean;
  /** The event is pending now; true if it was already. Tells the vCPU where nothing hides it. */
  raise(channel: Channel): boolean;
  clear(port: number): void;
  mask(port: number): void;
  /** An event that is pending is told of then. */
  unmask(channel: Channel): void;
  /** Errno. */
  setPriority(channel: Channel, priority: number): number;
}

/** What the channels of a domain are given. */
export interface ChannelOwner {
  /** Its domain's id. */
  readonly id: number;
  /** Number of its vCPUs. */
  readonly vcpuCount: number;
  /** The channels of another domain, or its own; undefined if there is none of that id. */
  channelsOf(domain: number): EventChannels | undefined;
  /** Instructions of the host. */
  readonly count: number;
  /** A port is pending now: whoever polls it goes on. */
  polled(port: number): void;
  /** A port was bound to one of a domain's. */
  bound(domain: number): void;
}

/** Whether a domain has a VIRQ once, told to its first vCPU unless it says otherwise. */
const isGlobal = (virq: number): boolean => !VCPU_VIRQS.includes(virq);

/** The ABIs that a domain can have. */
export interface EventAbis {
  readonly twoLevel: EventAbi;
  /** Undefined where there is no guest that could choose it. */
  readonly fifo?: Fifo;
}

/** Who sends an event, and through which port. */
interface Sent {
  readonly by: EventChannels;
  readonly channel: Channel;
}
/** `TIMER`. */
export const virqName = (virq: number): string =>
  Object.entries(VIRQ).find(([, number]) => number === virq)?.[0] ?? `${virq}`;

const u16 = whole(0, 0xffff);
const SAVED = record({
  abi: word("two-level", "fifo"),
  known: whole(BUCKET),
  channels: list(record({
    port: u16,
    state: word("unbound", "interdomain", "pirq", "virq", "ipi"),
    vcpu: u16,
    domain: u16,
    peer: u32,
    virq: u16,
    pirq: u16,
    priority: u16,
    sent: amount,
    merged: amount,
    masked: amount,
    lastBy: whole(-2, 0xffff),
    lastAt: whole(-1),
  })),
});

interface SavedChannels {
  readonly abi: EventAbi["name"];
  readonly known: number;
  readonly channels: readonly Channel[];
}

export class EventChannels {
  /** By port; those that are not there are closed. Port 0 is nobody's. */
  readonly #channels: (Channel | undefined)[] = [undefined];
  /** Called when an event comes on a port whose consumer is here, in the hypervisor's own process. */
  readonly handlers: Map<number, () => void> = new Map();
  /** Asked of each event before it shows, and told of upcalls. */
  watch: PlatformWatch | undefined;

  /** Ports below it can be asked about. */
  #known = BUCKET;
  #abi: EventAbi;

  constructor(readonly owner: ChannelOwner, readonly abis: EventAbis) {
    this.#abi = abis.twoLevel;
  }

  /** How events show themselves. */
  get abi(): EventAbi {
    return this.#abi;
  }

  /** Those that are not closed, by port. */
  get all(): readonly Channel[] {
    return this.#channels.filter((channel) => channel !== undefined);
  }
  /** Undefined if it is closed. */
  get(port: number): Channel | undefined {
    return this.#channels[port];
  }
  /** A port that can be asked about, in use or not. */
  isPort(port: number): boolean {
    return port < this.#known;
  }

  #free(): number {
    const most = Math.min(this.abi.ports, MOST_PORTS);
    for (let port = 1; port < most; port++) {
      if (this.#channels[port] || this.abi.isBusy(port)) continue;
      if (port >= this.#known) this.#known += BUCKET;
      return port;
    }
    return refuse(-ENOSPC, "ports used up", most);
  }
  #open(port: number, state: ChannelState, fields: Partial<Channel>): Channel {
    return this.#channels[port] = {
      port,
      state,
      vcpu: 0,
      domain: 0,
      peer: 0,
      virq: 0,
      pirq: 0,
      priority: DEFAULT_PRIORITY,
      sent: 0,
      merged: 0,
      masked: 0,
      lastBy: -1,
      lastAt: -1,
      ...fields,
    };
  }

  /** A port that domain `remote` may bind; negative: errno. */
  allocUnbound(remote: number): number {
    const port = this.#free();
    if (port > 0) this.#open(port, "unbound", { domain: remote });
    return port;
  }
  /** A port joined to an unbound one of domain `remote`; negative: errno. */
  bindInterdomain(remote: number, remotePort: number): number {
    const peers = this.owner.channelsOf(remote);
    if (!peers) return refuse(-XEN_ERRNO.ESRCH, "no domain", remote);
    const port = this.#free();
    if (port < 0) return port;
    const peer = peers.get(remotePort);
    if (peer?.state !== "unbound") return refuse(-EINVAL, "peer closed", remote, remotePort);
    if (peer.domain !== this.owner.id) {
      return refuse(-EINVAL, "peer for another", remote, remotePort, peer.domain);
    }
    const channel = this.#open(port, "interdomain", { domain: remote, peer: remotePort });
    peer.state = "interdomain";
    peer.domain = this.owner.id;
    peer.peer = port;
    this.owner.bound(remote);
    peers.owner.bound(this.owner.id);
    // What was sent to the port while it was unbound is lost: one is told as if it had come.
    this.#deliver(channel, remote);
    return port;
  }
  /** A port for a VIRQ of a vCPU; negative: errno. */
  bindVirq(virq: number, vcpu: number): number {
    if (virq >= NR_VIRQS) return refuse(-EINVAL, "no virq", virq);
    if (isGlobal(virq) && vcpu !== 0) return refuse(-EINVAL, "global virq", virq, vcpu);
    if (vcpu >= this.owner.vcpuCount) return refuse(-ENOENT, "no vcpu", vcpu);
    if (this.ofVirq(virq, vcpu)) return refuse(-EEXIST, "virq bound", virq, vcpu);
    const port = this.#free();
    if (port > 0) this.#open(port, "virq", { virq, vcpu });
    return port;
  }
  /** A port by which the domain's vCPUs tell one of them something; negative: errno. */
  bindIpi(vcpu: number): number {
    if (vcpu >= this.owner.vcpuCount) return refuse(-ENOENT, "no vcpu", vcpu);
    const port = this.#free();
    if (port > 0) this.#open(port, "ipi", { vcpu });
    return port;
  }
  /** A port for a physical interrupt: none ever comes. Negative: errno. */
  bindPirq(pirq: number): number {
    if (pirq >= PIRQS) return refuse(-EINVAL, "no pirq", pirq);
    if (this.all.some((channel) => channel.state === "pirq" && channel.pirq === pirq)) {
      return refuse(-EEXIST, "pirq bound", pirq);
    }
    const port = this.#free();
    if (port > 0) this.#open(port, "pirq", { pirq });
    return port;
  }
  /** The port that a VIRQ is bound to: a global one's, or a vCPU's. */
  ofVirq(virq: number, vcpu: number): Channel | undefined {
    return this.#channels.find((channel) =>
      channel?.state === "virq" && channel.virq === virq &&
      (isGlobal(virq) || channel.vcpu === vcpu)
    );
  }

  close(port: number): number {
    const channel = this.get(port);
    if (!channel) return refuse(-EINVAL, "port closed", port);
    if (this.handlers.has(port)) return refuse(-EINVAL, "port served", port);
    this.#close(channel);
    return 0;
  }
  #close(channel: Channel): void {
    const { port } = channel;
    this.#channels[port] = undefined;
    this.handlers.delete(port);
    this.abi.clear(port);
    if (channel.state !== "interdomain") return;
    const peer = this.owner.channelsOf(channel.domain)?.get(channel.peer);
    if (!peer) return;
    peer.state = "unbound";
    peer.domain = this.owner.id;
    peer.peer = 0;
  }
  /** All ports, as when the domain is no more; the ABI is the two-level one again. */
  closeAll(): void {
    for (const channel of this.all) this.#close(channel);
    this.abis.fifo?.destroy();
    this.#abi = this.abis.twoLevel;
  }

  /** EVTCHNOP_init_control: the first one makes FIFO the ABI. 0 or an errno. */
  initControl(vcpu: number, guestFrame: bigint, offset: number): number {
    const { fifo } = this.abis;
    if (!fifo) return -ENOSYS;
    const result = fifo.initControl(vcpu, guestFrame, offset);
    if (result < 0 || this.#abi === fifo) return result;
    // What the old ABI had pending is not lost.
    for (const { port } of this.all) if (this.#abi.isPending(port)) fifo.inherit(port);
    this.#abi = fifo;
    return 0;
  }
  /** EVTCHNOP_expand_array: 0 or an errno. */
  expandArray(guestFrame: bigint): number {
    const { fifo } = this.abis;
    if (!fifo || this.#abi !== fifo) return -EOPNOTSUPP;
    return fifo.expandArray(guestFrame, (port) => this.get(port));
  }

  /** The guest sends an event by a port of its own: errno. */
  send(port: number): number {
    const channel = this.get(port);
    if (!channel) return refuse(-EINVAL, "port closed", port);
    if (this.handlers.has(port)) return refuse(-EINVAL, "port served", port);
    switch (channel.state) {
      case "interdomain": {
        const peers = this.owner.channelsOf(channel.domain);
        const peer = peers?.get(channel.peer);
        return peers && peer ? peers.#deliver(peer, this.owner.id, { by: this, channel }) : 0;
      }
      case "ipi":
        return this.#deliver(channel, this.owner.id, { by: this, channel });
      // Nobody hears it, and that is no error.
      case "unbound":
        return 0;
      default:
        return refuse(-EINVAL, "port not sent", port);
    }
  }
  /** The hypervisor raises a VIRQ, if it is bound. */
  raiseVirq(virq: number, vcpu = 0): void {
    const channel = this.ofVirq(virq, vcpu);
    if (channel) this.#deliver(channel, HYPERVISOR);
  }
  /** Somebody from outside raises an event, as if its peer had sent it. */
  raise(port: number, from: number = HYPERVISOR): boolean {
    const channel = this.get(port);
    if (channel) this.#deliver(channel, from);
    return channel !== undefined;
  }
  /** An event comes on a port: 0, or what somebody who looks on refuses it with. */
  #deliver(channel: Channel, from: number, sent?: Sent): number {
    const { port } = channel;
    if (this.watch || sent?.by.watch) {
      const refused = this.#refused(channel, from, sent);
      if (refused !== undefined) return refused;
    }
    channel.sent++;
    channel.lastBy = from;
    channel.lastAt = this.owner.count;
    const handler = this.handlers.get(port);
    if (handler) {
      handler();
      return 0;
    }
    if (this.abi.isMasked(port)) channel.masked++;
    if (this.abi.raise(channel)) channel.merged++;
    else this.owner.polled(port);
    return 0;
  }
  /** Asks whoever looks on at the sender, then whoever does here. */
  #refused(channel: Channel, from: number, sent: Sent | undefined): number | undefined {
    const { port, state, vcpu, virq } = channel, { abi, owner } = this;
    const pending = abi.isPending(port), masked = abi.isMasked(port);
    const how = {
      virq: state === "virq" ? virqName(virq) : undefined,
      target: vcpu,
      pending,
      masked,
      lost: pending || masked,
    };
    if (sent && sent.by !== this) {
      const refused = sent.by.watch?.("event-send", 0, {
        port: sent.channel.port,
        state,
        incoming: false,
        domain: owner.id,
        peer: port,
        ...how,
      });
      if (refused !== undefined) return refused;
    }
    const own = sent?.by === this, peer = sent?.channel.port ?? channel.peer;
    return this.watch?.("event-send", vcpu, {
      port,
      state,
      incoming: !own,
      ...from >= 0 && { domain: from },
      ...state === "interdomain" && { peer },
      ...how,
    });
  }
  /** An upcall has come to a vCPU: which of its ports it is for. */
  delivered(vcpu: number, vector: number): void {
    if (!this.watch) return;
    for (const { port, state, domain, peer, virq, vcpu: on } of this.all) {
      if (on !== vcpu || !this.abi.isPending(port) || this.abi.isMasked(port)) continue;
      this.watch("event-delivery", vcpu, {
        port,
        state,
        ...state === "interdomain" && { domain, peer },
        virq: state === "virq" ? virqName(virq) : undefined,
        vector,
      });
    }
  }

  bindVcpu(port: number, vcpu: number): number {
    if (vcpu >= this.owner.vcpuCount) return refuse(-ENOENT, "no vcpu", vcpu);
    const channel = this.get(port);
    if (!channel) return refuse(-EINVAL, "port closed", port);
    if (this.handlers.has(port)) return refuse(-EINVAL, "port served", port);
    const ofVcpu = channel.state === "virq" && !isGlobal(channel.virq);
    if (ofVcpu || channel.state === "ipi") return refuse(-EINVAL, "port bound", port);
    channel.vcpu = vcpu;
    return 0;
  }
  unmask(port: number): number {
    if (!this.isPort(port)) return refuse(-EINVAL, "port unknown", port);
    const channel = this.get(port);
    if (channel) this.abi.unmask(channel);
    return 0;
  }
  setPriority(port: number, priority: number): number {
    if (!this.isPort(port)) return refuse(-EINVAL, "port unknown", port);
    if (this.#abi === this.abis.twoLevel) return -ENOSYS;
    const channel = this.get(port);
    if (!channel) return refuse(-EACCES, "port closed", port);
    return this.abi.setPriority(channel, priority);
  }

  register(blocks: StateRegister): void {
    const { fifo } = this.abis;
    blocks.register<SavedChannels>({
      name: "event channels",
      version: 1,
      shape: SAVED,
      save: () => ({
        abi: this.#abi.name,
        known: this.#known,
        channels: this.all.map((channel) => ({ ...channel })),
      }),
      check: ({ channels }) =>
        checkOrder("event channels", channels.map(({ port }) => [port, port])),
      load: ({ abi, known, channels }) => {
        this.#abi = abi === "fifo" && fifo ? fifo : this.abis.twoLevel;
        this.#known = known;
        this.#channels.length = 1;
        for (const channel of channels) this.#channels[channel.port] = { ...channel };
      },
    });
    if (!fifo) return;
    blocks.register<SavedFifo>({
      name: "event queues",
      version: 1,
      shape: FIFO_SHAPE,
      save: () => fifo.save(),
      load: (saved) => fifo.load(saved),
    });
  }
}

/** Who sent an event that is the hypervisor's own. */
const HYPERVISOR = -2;
/** EVTCHN_FIFO_PRIORITY_DEFAULT. */
const DEFAULT_PRIORITY = 7;

/**
 * The event channels of a domain that knows Xen, as scripts see and use them.
 *
 * @module
 */
import {
  type Channel,
  type ChannelState,
  type EventChannels,
  virqName,
} from "../../xen/event_channels.ts";
import type { BreakOptions, Breakpoint } from "../events/breakpoint.ts";
import type { Stop } from "../events/stop.ts";
import type { Subject } from "../subject.ts";
import { Picture } from "./picture.ts";
import { grouped, INSPECT, tableText } from "../values.ts";
import { toCount } from "../check.ts";

/** Makes a breakpoint of the domain. */
export type BreakOn = (kind: string, filter: object, options: BreakOptions) => Breakpoint;

/** A channel as it stands now; it follows what becomes of it. */
export class EventChannel {
  /** Its number in the domain. */
  readonly port: number;
  readonly #subject: Subject;
  readonly #breakOn: BreakOn;

  /** @ignore Made by `dom.eventChannels`. */
  constructor(subject: Subject, port: number, breakOn: BreakOn) {
    this.port = port;
    this.#subject = subject;
    this.#breakOn = breakOn;
  }
  get #channels(): EventChannels {
    return channelsOf(this.#subject);
  }
  get #channel(): Channel | undefined {
    return this.#channels.get(this.port);
  }

  /** What it is bound to. */
  get state(): ChannelState {
    return this.#channel?.state ?? "closed";
  }
  /** The other end's domain and port; of an unbound one the domain that may bind it. */
  get peer(): { readonly domain: number; readonly port?: number } | undefined {
    const { state, domain = 0, peer = 0 } = this.#channel ?? {};
    if (state === "interdomain") return { domain, port: peer };
    return state === "unbound" ? { domain } : undefined;
  }
  /** The VIRQ's name: "TIMER". */
  get virq(): string | undefined {
    const { state, virq = 0 } = this.#channel ?? {};
    return state === "virq" ? virqName(virq) : undefined;
  }
  /** The vCPU that is told. */
  get vcpu(): number {
    return this.#channel?.vcpu ?? 0;
  }
  /** An event has come that the guest has not taken. */
  get pending(): boolean {
    return this.#channel !== undefined && this.#channels.abi.isPending(this.port);
  }
  /** The guest is not told of events. */
  get masked(): boolean {
    return this.#channel !== undefined && this.#channels.abi.isMasked(this.port);
  }
  /** 0, the highest, to 15; it counts with the FIFO ABI. */
  get priority(): number {
    return this.#channel?.priority ?? 0;
  }
  /** Events that came. */
  get sent(): number {
    return this.#channel?.sent ?? 0;
  }
  /** Of these: how many came while another was pending, of which the guest was not told. */
  get merged(): number {
    return this.#channel?.merged ?? 0;
  }
  /** Of these: how many came while it was masked. */
  get sentMasked(): number {
    return this.#channel?.masked ?? 0;
  }
  /** Who sent the last: a domain's number, "hypervisor", or "script"; undefined: none came. */
  get lastBy(): number | "hypervisor" | undefined {
    const { lastBy = -1 } = this.#channel ?? {};
    return lastBy === -1 ? undefined : lastBy < 0 ? "hypervisor" : lastBy;
  }
  /** When: instructions the host had retired; undefined: none came. */
  get lastAt(): number | undefined {
    const { lastAt = -1 } = this.#channel ?? {};
    return lastAt < 0 ? undefined : lastAt;
  }

  /** @throws {Error} where it is closed */
  #open(what: string): Channel {
    const channel = this.#channel;
    if (channel) return channel;
    throw new Error(
      `eventChannels.get(${this.port}).${what}: domain ${this.#subject.name} has no such port open`,
    );
  }
  #enter(what: string): void {
    const { host, id } = this.#subject;
    host.world.enter("event channel", id, { port: this.port, what });
  }
  /** Whatever the guest waits for, it looks again. */
  #look(): void {
    this.#subject.host.wake();
  }
  /** An event comes, as if its peer had sent it. @throws {Error} where it is closed */
  raise(): void {
    this.#open("raise");
    this.#enter("raise");
    this.#channels.raise(this.port);
    this.#look();
  }
  /** The guest is not told of events from now on. @throws {Error} where it is closed */
  mask(): void {
    this.#open("mask");
    this.#enter("mask");
    this.#channels.abi.mask(this.port);
  }
  /** The guest is told again, at once of what has come. @throws {Error} where it is closed */
  unmask(): void {
    this.#open("unmask");
    this.#enter("unmask");
    this.#channels.unmask(this.port);
    this.#look();
  }
  /**
   * The next events that come or go through it are dropped, or their sender is refused.
   *
   * @param how `times`: so many, all if not given; `status`: the errno that the sender gets, dropped
   *   without a word if not given
   * @returns the breakpoint that does it, which `delete()` ends
   */
  deny(how: { readonly times?: number; readonly status?: string | number } = {}): Breakpoint {
    this.#open("deny");
    const { status } = how,
      times = how.times === undefined
        ? Infinity
        : toCount(how.times, "deny times", 1, Number.MAX_SAFE_INTEGER);
    let left = times;
    const b: Breakpoint = this.#breakOn("event-send", { port: this.port }, {
      condition: "denied",
      action: (stop: Stop) => {
        if (--left <= 0) b.delete();
        return status === undefined ? stop.skip() : stop.deny(status);
      },
    });
    return b;
  }

  /** @ignore */
  [INSPECT](): string {
    return `${
      tableText(HEAD, [rowOf(this)])
    }\n  raise() mask() unmask() deny({ times, status }) peer`;
  }
}

const HEAD = [
  "port",
  "state",
  "peer",
  "vcpu",
  "pending",
  "masked",
  "priority",
  "sent",
  "merged",
  "when masked",
  "last by",
  "at instruction",
];
function rowOf(c: EventChannel): (string | number)[] {
  const { peer } = c;
  const whom = peer
    ? `domain ${peer.domain}${peer.port === undefined ? "" : `:${peer.port}`}`
    : c.virq;
  return [
    c.port,
    c.state,
    whom ?? "",
    c.vcpu,
    c.pending ? "yes" : "",
    c.masked ? "yes" : "",
    c.priority,
    c.sent,
    c.merged,
    c.sentMasked,
    c.lastBy === undefined ? "" : typeof c.lastBy === "number" ? `domain ${c.lastBy}` : c.lastBy,
    c.lastAt === undefined ? "" : grouped(c.lastAt),
  ];
}

/** The event channels of a domain: a live table. */
export class EventChannelTable implements Iterable<EventChannel> {
  readonly #subject: Subject;
  readonly #breakOn: BreakOn;

  /** @ignore Made with its domain. */
  constructor(subject: Subject, breakOn: BreakOn) {
    this.#subject = subject;
    this.#breakOn = breakOn;
  }
  /** How events show themselves to the guest: by bits, or by queues. */
  get abi(): "two-level" | "fifo" {
    return channelsOf(this.#subject).abi.name;
  }
  /** How many are open. */
  get size(): number {
    return channelsOf(this.#subject).all.length;
  }
  /** The channel of a port, open or not. */
  get(port: number): EventChannel {
    return new EventChannel(this.#subject, toCount(port, "port", 1, 2 ** 17 - 1), this.#breakOn);
  }
  /** What joins the domain to others, channels and grants: it prints in 80 columns, `svg()` draws it. */
  picture(): Picture {
    this.#subject.mustLive("eventChannels.picture");
    return new Picture(this.#subject.host, this.#subject.id);
  }
  /** Those that are open, by port. */
  *[Symbol.iterator](): IterableIterator<EventChannel> {
    for (const { port } of channelsOf(this.#subject).all) yield this.get(port);
  }
  /** @ignore */
  [INSPECT](): string {
    const rows = [...this].map(rowOf);
    if (rows.length === 0) return "no event channels";
    return `${
      tableText(HEAD, rows)
    }\n  ${this.abi} ABI; get(port).raise() mask() unmask() deny(…) peer; picture()`;
  }
}

/** @throws {Error} for a domain that does not know Xen, or is no more */
function channelsOf(subject: Subject): EventChannels {
  subject.mustLive("eventChannels");
  const { inner: { xen, name } } = subject;
  if (!xen) throw new Error(`eventChannels: domain ${name} knows nothing of Xen (xen: true)`);
  return xen.channels;
}

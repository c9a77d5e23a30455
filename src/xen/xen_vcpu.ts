/** What Xen's interface has for each vCPU: where its vcpu_info lies, how it is told of events, its timers. */
import { offsetOf, View } from "../abi/layout.ts";
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { VCPU_INFO, VCPU_TIME_INFO, VIRQ, XEN_PVCLOCK } from "../abi/xen/xen.ts";
import { flag, list, orNull, record, time, whole, word } from "../machine/shape.ts";
import type { XenInterface } from "./interface.ts";
import type { SharedMemory } from "./shared_memory.ts";
import type { Vcpu } from "./vcpu.ts";

/** What a vCPU waits for by a hypercall: any upcall, or an event on one of some ports; or it has come. */
export type Waits = "no" | "block" | "poll" | "over";
/** Timers of a vCPU. */
export type TimerName = "singleShot" | "periodic" | "poll";
const TIMERS: readonly TimerName[] = ["singleShot", "periodic", "poll"];

/** What is saved of it. */
export interface SavedXenVcpu {
  readonly registered: number | null;
  readonly raised: boolean;
  readonly apicVector: number;
  readonly waits: Waits;
  readonly polled: readonly number[];
  readonly timers: Readonly<Record<TimerName, number>>;
  readonly period: number;
}
const u16 = whole(0, 0xffff);
export const XEN_VCPU_SHAPE = record({
  registered: orNull(time),
  raised: flag,
  apicVector: u16,
  waits: word("no", "block", "poll", "over"),
  polled: list(u16),
  timers: record(Object.fromEntries(TIMERS.map((name) => [name, time]))),
  period: time,
});

export class XenVcpu {
  /** Machine address of a vcpu_info that the guest has registered; undefined: it is in shared_info. */
  registered: number | undefined;
  /** Set when upcall_pending is, until it is found clear again: what the guest does there is its own. */
  raised = false;
  /** HVMOP_set_evtchn_upcall_vector: upcalls come by its local APIC; 0: as the domain's. */
  apicVector = 0;
  waits: Waits = "no";
  /** The ports it polls. */
  polled: readonly number[] = [];
  /** The domain's own time (ns) at which each timer is due; Infinity: not set. */
  readonly timers: Record<TimerName, number> = {
    singleShot: Infinity,
    periodic: Infinity,
    poll: Infinity,
  };
  /** Of the periodic timer (ns). */
  period = Infinity;

  constructor(readonly xen: XenInterface, readonly vcpu: Vcpu) {}

  get #memory(): SharedMemory {
    return this.xen.memory;
  }
  /** Machine address of its vcpu_info. */
  get info(): number {
    return this.registered ?? this.xen.sharedInfo + this.vcpu.id * VCPU_INFO_SIZE;
  }
  /** Machine address of evtchn_pending_sel. */
  get selector(): number {
    return this.info + offsetOf(VCPU_INFO, "evtchn_pending_sel", this.xen.width);
  }

  /** There is something to look at: the vCPU is told, unless it was and has not looked since. */
  notify(): void {
    if (this.#memory.byte(this.info) !== 0) return;
    this.#memory.setByte(this.info, 1);
    this.raised = true;
    this.xen.assertUpcall(this);
    this.unblock();
  }
  /** What it waited for by a hypercall has come, or its time is over. */
  unblock(): void {
    if (this.waitsForEvent) this.waits = "over";
    this.vcpu.engine.poke();
  }
  get waitsForEvent(): boolean {
    return this.waits === "block" || this.waits === "poll";
  }
  /** It runs on, for whatever reason. */
  endWait(): void {
    if (this.waits === "no") return;
    this.waits = "no";
    this.polled = [];
    this.setTimer("poll", Infinity);
  }
  /** An event has come on a port. */
  poll(port: number): void {
    if (this.waits === "poll" && this.polled.includes(port)) this.unblock();
  }
  /** The vector by which an upcall is to be delivered now; -1: none. */
  get vector(): number {
    this.look();
    return !this.raised || this.apicVector ? -1 : this.xen.callbackVector;
  }
  /** The guest has looked, or it has not yet. A line by which it was told is let go then. */
  look(): void {
    if (!this.raised || this.#memory.byte(this.info) !== 0) return;
    this.raised = false;
    if (this.vcpu.id === 0) this.xen.assertLine(false);
  }

  /** From now on its vcpu_info lies at an offset of a frame of the guest's: once. 0 or an errno. */
  registerInfo(guestFrame: bigint, offset: number): number {
    const within = offset <= 4096 - VCPU_INFO_SIZE && offset % 8 === 0;
    if (!within || this.registered !== undefined) return -XEN_ERRNO.EINVAL;
    const frame = this.xen.physmap.take(guestFrame);
    if (frame < 0) return -XEN_ERRNO.EINVAL;
    const { machine } = this.#memory, at = frame * 4096 + offset;
    const old = machine.ram.slice(this.info, this.info + VCPU_INFO_SIZE);
    this.registered = at;
    machine.write(at, old);
    // Nothing is lost: all is looked at once more.
    this.#memory.setWord(this.selector, 0xffff_ffff);
    if (this.xen.width === 64) this.#memory.setWord(this.selector + 4, 0xffff_ffff);
    this.#memory.setByte(at, 0);
    this.notify();
    this.updateTime();
    return 0;
  }
  /** The domain is no more. */
  destroy(): void {
    if (this.registered === undefined) return;
    this.xen.physmap.letGo(Math.floor(this.registered / 4096));
    this.registered = undefined;
  }
  setPeriodic(period: number): number {
    this.period = period;
    this.setTimer("periodic", this.xen.domain.now + period);
    return 0;
  }

  /** Writes vcpu_time_info: its time-stamp counter counts the domain's nanoseconds, from where it was set. */
  updateTime(): void {
    const { domain: { now }, memory } = this.xen, view = new View(VCPU_TIME_INFO, this.xen.width);
    const at = this.info + offsetOf(VCPU_INFO, "time", this.xen.width);
    const version = memory.word(at) & ~1;
    memory.setWord(at, version + 1);
    view.setAll({
      version: version + 1,
      tsc_timestamp: BigInt.asUintN(64, this.vcpu.engine.tsc),
      system_time: BigInt(now),
      // ((tsc << 1) * 2^31) >> 32: a nanosecond a tick.
      tsc_to_system_mul: 0x8000_0000,
      tsc_shift: 1,
      flags: XEN_PVCLOCK.TSC_STABLE_BIT,
    });
    memory.machine.write(at, view.raw);
    memory.setWord(at, version + 2);
  }

  setTimer(name: TimerName, at: number): void {
    if (this.timers[name] === at) return;
    this.timers[name] = at;
    this.xen.timersChanged();
  }
  /** The domain's own time (ns) at which the next of its timers is due. */
  get deadline(): number {
    return Math.min(this.timers.singleShot, this.timers.periodic, this.timers.poll);
  }
  /** Does what is due by then. */
  run(now: number): void {
    if (this.timers.poll <= now) this.unblock();
    if (this.timers.singleShot <= now) {
      this.setTimer("singleShot", Infinity);
      this.xen.channels.raiseVirq(VIRQ.TIMER, this.vcpu.id);
    }
    if (this.timers.periodic <= now) {
      const missed = Math.floor((now - this.timers.periodic) / this.period);
      this.setTimer("periodic", this.timers.periodic + (missed + 1) * this.period);
      this.xen.channels.raiseVirq(VIRQ.TIMER, this.vcpu.id);
    }
  }

  save(): SavedXenVcpu {
    return {
      registered: this.registered ?? null,
      raised: this.raised,
      apicVector: this.apicVector,
      waits: this.waits,
      polled: [...this.polled],
      timers: { ...this.timers },
      period: this.period,
    };
  }
  load(saved: SavedXenVcpu): void {
    this.registered = saved.registered ?? undefined;
    this.raised = saved.raised;
    this.apicVector = saved.apicVector;
    this.waits = saved.waits;
    this.polled = [...saved.polled];
    Object.assign(this.timers, saved.timers);
    this.period = saved.period;
  }
}

/** The same at both widths. */
const VCPU_INFO_SIZE = 64;

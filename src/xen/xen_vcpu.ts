/**
 * What Xen's interface has for each vCPU: where its vcpu_info lies, how it is told of events, what it
 * waits for, its timers, and what it is told of time.
 */
import { type AbiWidth, offsetOf, View } from "../abi/layout.ts";
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { VCPU_INFO, VCPU_TIME_INFO, VIRQ, XEN_PVCLOCK } from "../abi/xen/xen.ts";
import {
  flag,
  list,
  orNull,
  record,
  type Shape,
  time,
  u64,
  whole,
  word,
} from "../machine/shape.ts";
import type { GuestHandles } from "./guest_handles.ts";
import type { HvmEngine } from "./hvm.ts";
import type { XenInterface } from "./interface.ts";
import { GuestRunstate, RUNSTATE_SHAPE, type SavedRunstate } from "./runstate.ts";
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
  readonly timeArea: bigint;
  readonly raised: boolean;
  readonly apicVector: number;
  readonly unheard: boolean;
  readonly waits: Waits;
  readonly deaf: boolean;
  readonly polled: readonly number[];
  readonly timers: Readonly<Record<TimerName, number>>;
  readonly period: number;
  readonly ticked: number;
  readonly initialised: boolean;
  readonly up: boolean;
  readonly asleep: boolean;
  readonly runstate: SavedRunstate;
}
const u16 = whole(0, 0xffff);
export const XEN_VCPU_SHAPE: Shape = record({
  registered: orNull(time),
  timeArea: u64,
  raised: flag,
  apicVector: u16,
  unheard: flag,
  waits: word("no", "block", "poll", "over"),
  deaf: flag,
  polled: list(u16),
  timers: record(Object.fromEntries(TIMERS.map((name) => [name, time]))),
  period: time,
  ticked: time,
  initialised: flag,
  up: flag,
  asleep: flag,
  runstate: RUNSTATE_SHAPE,
});

export class XenVcpu {
  /** Machine address of a vcpu_info that the guest has registered; undefined: it is in shared_info. */
  registered: number | undefined;
  /** Linear address of a second vcpu_time_info; 0: the guest wants none. */
  #timeArea = 0n;
  /** Set when upcall_pending is, until it is found clear again: what the guest does there is its own. */
  raised = false;
  /** HVMOP_set_evtchn_upcall_vector: upcalls come by its local APIC; 0: as the domain's. */
  apicVector = 0;
  /** Its local APIC was off when it was told by that, or has forgotten it. */
  #unheard = false;
  waits: Waits = "no";
  /** An interrupt was pending when it began to wait, with IF clear: it does not end the wait. */
  #deaf = false;
  /** The ports it polls. */
  polled: readonly number[] = [];
  /** The domain's own time (ns) at which each timer is due, not before now; Infinity: not set. */
  readonly timers: Record<TimerName, number> = {
    singleShot: Infinity,
    periodic: Infinity,
    poll: Infinity,
  };
  /** Of the periodic timer (ns); Infinity: there is none. */
  period = Infinity;
  /** When the periodic timer last rang. */
  #ticked = 0;
  /** It has registers to begin with: VCPUOP_initialise or a start-up gave them, and no INIT since. */
  initialised: boolean;
  /** VCPUOP_up: it comes online as soon as it is looked at. */
  #up = false;
  /** It waited for an interrupt when VCPUOP_down took it offline. */
  #asleep = false;
  /** What it does, as the guest is told. */
  readonly runstate: GuestRunstate;

  constructor(readonly xen: XenInterface, readonly vcpu: Vcpu) {
    this.initialised = vcpu.online;
    this.runstate = new GuestRunstate(this, vcpu.online ? "runnable" : "offline");
  }

  get #memory(): SharedMemory {
    return this.xen.memory;
  }
  /** What executes it: who knows Xen is in a hardware virtual machine. */
  get engine(): HvmEngine {
    return this.vcpu.engine as HvmEngine;
  }
  /** The guest's memory, by its linear addresses. */
  get handles(): GuestHandles {
    return this.engine.call!.memory;
  }
  /** Machine address of its vcpu_info. */
  get info(): number {
    return this.registered ?? this.xen.sharedInfo + this.vcpu.id * VCPU_INFO_SIZE;
  }
  /** Machine address of evtchn_pending_sel. */
  get selector(): number {
    return this.info + offsetOf(VCPU_INFO, "evtchn_pending_sel", this.xen.width);
  }

  // --- upcalls ---

  /** There is something to look at: the vCPU is told, unless it was and has not looked since. */
  notify(): void {
    if (this.#memory.byte(this.info) !== 0) return;
    this.#memory.setByte(this.info, 1);
    this.raised = true;
    this.xen.assertUpcall(this);
    // By its local APIC, or a line, it is woken as by any other interrupt.
    if (!this.apicVector && this.xen.callbackVector >= 0) this.unblock();
  }
  /**
   * The domain's vector, by which an upcall is to be delivered now; -1: none. Xen delivers it also where
   * the vCPU's own was raised in its local APIC.
   */
  get vector(): number {
    this.look();
    return this.raised ? this.xen.callbackVector : -1;
  }
  /** The guest has looked, or it has not yet. A line by which it was told is let go then. */
  look(): void {
    if (!this.raised) return;
    if (this.#memory.byte(this.info) !== 0) {
      if (this.#unheard) this.raiseVector();
      return;
    }
    this.raised = this.#unheard = false;
    if (this.vcpu.id === 0) this.xen.assertLine(false);
  }

  /** From now on its vcpu_info lies at an offset of a frame of the guest's: once. 0 or an errno. */
  registerInfo(guestFrame: bigint, offset: number, by: XenVcpu): number {
    const { width } = this.xen;
    if (offset > 4096 - VCPU_INFO_SIZE || offset % (width / 8) !== 0) return -XEN_ERRNO.ENXIO;
    if (this.registered !== undefined || (this !== by && this.online)) return -XEN_ERRNO.EINVAL;
    const frame = this.xen.physmap.take(guestFrame);
    if (frame < 0) return -XEN_ERRNO.EINVAL;
    const { machine } = this.#memory, at = frame * 4096 + offset;
    machine.write(at, machine.ram.slice(this.info, this.info + VCPU_INFO_SIZE));
    this.registered = at;
    // Nothing is lost: all is looked at once more.
    this.#memory.setWord(this.selector, 0xffff_ffff);
    if (width === 64) this.#memory.setWord(this.selector + 4, 0xffff_ffff);
    this.notify();
    return 0;
  }

  /** By its own vector; while its local APIC is off, again and again until that hears it. */
  raiseVector(): void {
    this.#unheard = !this.vcpu.port?.raise(this.apicVector);
  }
  /** The domain is no more. */
  destroy(): void {
    if (this.registered === undefined) return;
    this.xen.physmap.letGo(Math.floor(this.registered / 4096));
    this.registered = undefined;
  }

  // --- what it waits for ---

  /** It waits: for any upcall, or for an event on one of some ports until a time (ns) of its own. */
  wait(kind: "block" | "poll", ports: readonly number[] = [], until = Infinity): void {
    this.waits = kind;
    this.polled = ports;
    this.#deaf = this.engine.interruptPending;
    this.setTimer("poll", until);
  }
  get waitsForEvent(): boolean {
    return this.waits === "block" || this.waits === "poll";
  }
  /** What it waited for by a hypercall has come, or its time is over. */
  unblock(): void {
    if (this.waitsForEvent) this.waits = "over";
    this.vcpu.engine.poke();
  }
  /** Its wait by a hypercall is over, by an interrupt too, whatever its IF. */
  get ready(): boolean {
    return this.waits === "over" ||
      (this.waitsForEvent && !this.#deaf && this.engine.interruptPending);
  }
  /** An event has come on a port. Who polls several hears of any. */
  poll(port: number): void {
    const { polled } = this;
    if (this.waits === "poll" && (polled.length !== 1 || polled[0] === port)) this.unblock();
  }
  /** It is on the processor, and runs on for whatever reason. */
  runs(): void {
    this.runstate.runs();
    if (this.waits !== "no") this.#endWait();
  }
  #endWait(): void {
    this.waits = "no";
    this.polled = [];
    this.setTimer("poll", Infinity);
  }
  /** In words, for whom it stands in the way; undefined: it does not wait by a hypercall. */
  get described(): string | undefined {
    if (this.waits === "block") return "in SCHEDOP_block";
    if (this.waits !== "poll") return undefined;
    return `in SCHEDOP_poll of ${
      this.polled.length ? `ports ${this.polled.join(", ")}` : "no port"
    }`;
  }

  // --- coming and going ---

  /** It is up, or about to be. */
  get online(): boolean {
    return this.vcpu.online || this.#up;
  }
  /** VCPUOP_up. */
  goUp(): void {
    if (this.online) return;
    this.#up = true;
    this.vcpu.engine.poke();
  }
  /** VCPUOP_down: it goes on from here when it is up again. */
  goDown(): void {
    this.#up = false;
    this.#asleep ||= this.vcpu.blocked;
    if (this.vcpu.online) this.vcpu.goOffline();
  }
  /** It was told to come up, and does. */
  comesUp(): boolean {
    const up = this.#up;
    this.#up = false;
    return up;
  }
  /** It has come up, and waits as it did. */
  fallsAsleep(): boolean {
    const asleep = this.#asleep;
    this.#asleep = false;
    return asleep;
  }
  /** INIT has come, or a start-up. */
  begins(initialised: boolean): void {
    this.initialised = initialised;
    this.#up = this.#asleep = false;
    this.#unheard = this.raised && this.apicVector !== 0;
    this.#endWait();
  }

  // --- time ---

  /**
   * Writes vcpu_time_info: its time-stamp counter counts the domain's nanoseconds, from where it was
   * set. The version is odd meanwhile.
   */
  updateTime(): void {
    const { domain: { now }, memory, vcpus } = this.xen, { processor } = this.vcpu;
    const view = new View(VCPU_TIME_INFO, this.xen.width);
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
      // Processors run one after the other: of two, one may be behind the other by a leg.
      flags: vcpus.every(({ vcpu }) => vcpu.processor === processor)
        ? XEN_PVCLOCK.TSC_STABLE_BIT
        : 0,
    });
    memory.machine.write(at, view.raw);
    memory.setWord(at, version + 2);
    this.#copyTime(view);
  }
  /** The same in the second place. */
  #copyTime(view: View<typeof VCPU_TIME_INFO["fields"]>): void {
    const area = this.#timeArea;
    if (!area) return;
    const { handles } = this;
    handles.begin();
    const version = () => handles.write(area, view.bytes("version"));
    if (!version()) return;
    handles.write(area, view.raw);
    view.set("version", view.get("version") + 1);
    version();
  }
  /** The guest wants vcpu_time_info at a linear address as well; 0: no more. */
  registerTime(area: bigint): void {
    this.#timeArea = area;
    this.updateTime();
  }
  /** The guest wants what it does kept at a linear address. */
  registerRunstate(area: bigint, width: AbiWidth): void {
    this.runstate.register(area, width);
  }

  // --- timers ---

  /** The domain's own time (ns) that a guest names; what is past is due now, what is too far never. */
  timeOf(named: bigint): number {
    const { now } = this.xen.domain;
    return named > NEVER ? Infinity : Math.max(now, Number(named));
  }
  setTimer(name: TimerName, at: number): void {
    if (this.timers[name] === at) return;
    this.timers[name] = at;
    this.xen.timersChanged();
  }
  /** Rings every `period` ns, beginning with the last time that it rang. */
  setPeriodic(period: number): void {
    this.period = period;
    this.#tick(this.xen.domain.now);
  }
  stopPeriodic(): void {
    this.period = Infinity;
    this.setTimer("periodic", Infinity);
  }
  #tick(now: number): void {
    if (now >= this.#ticked + this.period) {
      this.#ticked = now;
      this.timerEvent();
    }
    const next = this.#ticked + this.period;
    this.setTimer("periodic", next > NEVER ? Infinity : next);
  }
  timerEvent(): void {
    this.xen.channels.raiseVirq(VIRQ.TIMER, this.vcpu.id);
  }
  /** The domain's own time (ns) at which the next of its timers is due. */
  get deadline(): number {
    const { singleShot, periodic, poll } = this.timers;
    return Math.min(singleShot, periodic, poll);
  }
  /** Does what is due by then. */
  run(now: number): void {
    if (this.timers.poll <= now) {
      this.setTimer("poll", Infinity);
      this.unblock();
    }
    if (this.timers.singleShot <= now) {
      this.setTimer("singleShot", Infinity);
      this.timerEvent();
    }
    if (this.timers.periodic <= now) this.#tick(now);
  }

  save(): SavedXenVcpu {
    return {
      registered: this.registered ?? null,
      timeArea: this.#timeArea,
      raised: this.raised,
      apicVector: this.apicVector,
      unheard: this.#unheard,
      waits: this.waits,
      deaf: this.#deaf,
      polled: [...this.polled],
      timers: { ...this.timers },
      period: this.period,
      ticked: this.#ticked,
      initialised: this.initialised,
      up: this.#up,
      asleep: this.#asleep,
      runstate: this.runstate.save(),
    };
  }
  load(saved: SavedXenVcpu): void {
    this.registered = saved.registered ?? undefined;
    this.#timeArea = saved.timeArea;
    this.raised = saved.raised;
    this.apicVector = saved.apicVector;
    this.#unheard = saved.unheard;
    this.waits = saved.waits;
    this.#deaf = saved.deaf;
    this.polled = [...saved.polled];
    Object.assign(this.timers, saved.timers);
    this.period = saved.period;
    this.#ticked = saved.ticked;
    this.initialised = saved.initialised;
    this.#up = saved.up;
    this.#asleep = saved.asleep;
    this.runstate.load(saved.runstate);
  }
}

/** The same at both widths. */
const VCPU_INFO_SIZE = 64;
/** Times beyond it (ns) do not come: 104 days. */
const NEVER = Number.MAX_SAFE_INTEGER;

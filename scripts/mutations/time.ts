/**
 * Mistakes in what Xen's interface has of time, waits and vCPUs.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const XEN = "src/xen", CALLS = `${XEN}/calls`;
const VCPU_TEST = `${CALLS}/vcpu_op_test.ts`, SCHED_TEST = `${CALLS}/sched_op_test.ts`;
const CLOCK_TEST = `${XEN}/clock_test.ts`;
const WAY = "(intel hap, 64 bits)";

const TIME =
  `vcpu_time_info: an odd version while it is written, anew when the counter is set, in a second place too ${WAY}`;
const RUNSTATE =
  `what a vCPU does, asked for and in a place that is kept, marked while it is written ${WAY}`;
const INFO = `VCPUOP_register_vcpu_info: where, once, by whom; what is pending goes along ${WAY}`;
const DOWN =
  `VCPUOP_down: it goes on where it was, one that waited waits, and the last takes the domain along ${WAY}`;
const TIMERS = `timers: single-shot, periodic, and set_timer_op's rules ${WAY}`;
const VCPUS_SAVED =
  "vCPUs, their timers and what they are told are saved; loaded, all goes on as it would have";
const POLLED =
  `SCHEDOP_poll: an event on a masked port ends it; of one port its own, of several any ${WAY}`;
const POLL_TIME = `SCHEDOP_poll: until a system time, or not at all if that is past ${WAY}`;
const BLOCK =
  `SCHEDOP_block: until an upcall, whatever IF is; not while one is to be delivered ${WAY}`;
const WAITS_SAVED = `waits are saved in their midst, and loaded go on as they would have ${WAY}`;
const OWN = `clock "own": its time stands while another runs; nothing is stolen ${WAY}`;
const HOST =
  `clock "host": its time is the machine's; what others have of it, and pauses, are stolen ${WAY}`;
const BOUND =
  `a channel bound to another domain's puts both on the host's time, from where each was ${WAY}`;

export const TIME_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf(`${XEN}/xen_vcpu.ts`, VCPU_TEST, [
    [
      "time's version is not odd while it is written",
      "memory.setWord(at, version + 1);",
      "memory.setWord(at, version);",
      TIME,
    ],
    ["the second place of time is forgotten", "this.#copyTime(view);", "", TIME],
    [
      "vcpu_info moves without what is pending",
      "machine.write(at, machine.ram.slice(this.info, this.info + VCPU_INFO_SIZE));",
      "",
      INFO,
    ],
    [
      "a vCPU that comes up does not wait as it did",
      "this.#asleep ||= this.vcpu.blocked;",
      "",
      DOWN,
    ],
    ["a periodic timer rings once", "this.#ticked = now;", "this.#ticked = Infinity;", TIMERS],
    [
      "the periodic timer is lost at save",
      "Object.assign(this.timers, saved.timers);",
      "",
      VCPUS_SAVED,
    ],
  ]),
  ...mutationsOf(`${CALLS}/vcpu_op.ts`, VCPU_TEST, [
    [
      "a timer that is past does not ring",
      "if (past) call.vcpu.timerEvent();",
      "",
      TIMERS,
    ],
    [
      "a time far ahead is believed",
      "at < 0n || at - BigInt(domain.now) >= FAR",
      "at < 0n",
      TIMERS,
    ],
  ]),
  ...mutationsOf(`${XEN}/runstate.ts`, VCPU_TEST, [
    [
      "a runstate is not marked while it is written",
      'view.set("state_entry_time", since | XEN_RUNSTATE_UPDATE);',
      "",
      RUNSTATE,
    ],
    [
      "a runstate's time is that of the next state",
      "account.time[account.state] += at - account.since;\n  account.state = state;",
      "account.state = state;\n  account.time[account.state] += at - account.since;",
      RUNSTATE,
    ],
    [
      "where a runstate is kept is lost at save",
      "this.#area = area;\n    this.#stale = stale;",
      "",
      VCPUS_SAVED,
    ],
  ]),
  ...mutationsOf(`${XEN}/runstate.ts`, CLOCK_TEST, [
    [
      "steal on a domain's own clock",
      'return state === "runnable" && this.of.xen.domain.hasOwnTime ? "running" : state;',
      "return state;",
      OWN,
    ],
    ["a pause is not stolen", 'if (stood) change(account, "offline", from);', "", HOST],
  ]),
  ...mutationsOf(`${XEN}/domain.ts`, CLOCK_TEST, [
    [
      "a bound domain's time jumps",
      "this.#clock = this.now - this.#machineTime;\n    this.#goes",
      "this.#clock = 0;\n    this.#goes",
      BOUND,
    ],
    ["whose time it is, is lost at save", "this.#onHostTime = s.host;", "", BOUND],
  ]),
  ...mutationsOf(`${XEN}/interface.ts`, CLOCK_TEST, [[
    "a domain bound to another keeps its own time",
    "this.domain.keepHostTime();",
    "{}",
    BOUND,
  ]]),
  ...mutationsOf(`${XEN}/xen_vcpu.ts`, SCHED_TEST, [
    [
      "poll is not woken by its port",
      "(polled.length !== 1 || polled[0] === port)",
      "polled.length !== 1",
      POLLED,
    ],
    [
      "poll of one port is woken by any",
      "(polled.length !== 1 || polled[0] === port)",
      "true",
      POLLED,
    ],
    ["poll's time is forgotten", 'this.setTimer("poll", until);', "", POLL_TIME],
    [
      "an upcall does not end a wait",
      "if (!this.apicVector && this.xen.callbackVector >= 0) this.unblock();",
      "",
      BLOCK,
    ],
    ["a wait is lost at save", "this.waits = saved.waits;", "", WAITS_SAVED],
  ]),
  ...mutationsOf(`${XEN}/event_channels.ts`, SCHED_TEST, [[
    "an event that is pending already wakes who polls",
    "else this.owner.polled(port);",
    "this.owner.polled(port);",
    POLLED,
  ]]),
  ...mutationsOf(`${XEN}/watchdogs.ts`, SCHED_TEST, [[
    "a watchdog does not ring",
    "const rang = this.#due.some((due) => due !== null && due <= now);",
    "const rang = false;",
    `SCHEDOP_watchdog: two, set anew or given back; one that rings ends the domain ${WAY}`,
  ]]),
  ...mutationsOf(`${XEN}/scheduler.ts`, SCHED_TEST, [[
    "a vCPU that yields has the next turn, too",
    "share.yields = true;",
    "share.yields = false;",
    `SCHEDOP_yield: others have their turn ${WAY}`,
  ]]),
];

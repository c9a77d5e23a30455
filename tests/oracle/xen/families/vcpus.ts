/** vcpu_op, sched_op, timers and vm_assist. */
import { VCPU_HVM_CONTEXT, VCPU_HVM_MODE } from "../../../../src/abi/xen/hvm/hvm_vcpu.ts";
import { HVMOP } from "../../../../src/abi/xen/hvm/hvm_op.ts";
import { HVM_PARAM } from "../../../../src/abi/xen/hvm/params.ts";
import { SCHEDOP } from "../../../../src/abi/xen/sched.ts";
import { VCPUOP } from "../../../../src/abi/xen/vcpu.ts";
import { offsetOf } from "../../../../src/abi/layout.ts";
import { VCPU_INFO, VIRQ, VMASST_TYPE } from "../../../../src/abi/xen/xen.ts";
import { EVTCHNOP } from "../../../../src/abi/xen/event_channel.ts";
import { ARENA, OWN, SECOND_ENTRY } from "../guest.ts";
import { AT, frameOf, PAGE, type Writer } from "../writer.ts";
import { badHandle } from "./handles.ts";
import { sharedWindows } from "./events.ts";

const VCPUS = [0, 0, 1, 1, 1, 2, 63, 128, 8192, 0xffff_ffff];

type Operation = keyof typeof VCPUOP;

function vcpuOp(
  w: Writer,
  operation: Operation,
  kind: string,
  vcpu: number,
  arg: Parameters<Writer["call"]>[0]["args"][number],
  windows: Parameters<Writer["call"]>[0]["windows"] = [],
) {
  w.call({
    hypercall: "vcpu_op",
    operation,
    kind: `vcpu ${vcpu}, ${kind}`,
    args: [VCPUOP[operation].number, vcpu, arg],
    windows,
  });
}

/** Where and how a second vCPU begins: flat 32-bit code. */
const GOOD = {
  "cpu_regs.x86_32.eip": SECOND_ENTRY,
  "cpu_regs.x86_32.eflags": 2,
  "cpu_regs.x86_32.cr0": 0x11,
  "cpu_regs.x86_32.cs_limit": 0xffff_ffff,
  "cpu_regs.x86_32.ds_limit": 0xffff_ffff,
  "cpu_regs.x86_32.ss_limit": 0xffff_ffff,
  "cpu_regs.x86_32.es_limit": 0xffff_ffff,
  "cpu_regs.x86_32.tr_limit": 0x67,
  "cpu_regs.x86_32.cs_ar": 0xc9b,
  "cpu_regs.x86_32.ds_ar": 0xc93,
  "cpu_regs.x86_32.ss_ar": 0xc93,
  "cpu_regs.x86_32.es_ar": 0xc93,
  "cpu_regs.x86_32.tr_ar": 0x8b,
} as const;

/** States that Xen looks at; not all are refused. */
const CHANGES: readonly (readonly [string, Readonly<Record<string, number>>])[] = [
  ["mode 2", { mode: 2 }],
  ["pad", { pad: 1 }],
  ["pad1", { "cpu_regs.x86_32.pad1": 1 }],
  ["VM86", { "cpu_regs.x86_32.eflags": 0x20002 }],
  ["EFER with LMA", { "cpu_regs.x86_32.efer": 0x400 }],
  ["EFER with a reserved bit", { "cpu_regs.x86_32.efer": 2 }],
  ["CR0 with PG alone", { "cpu_regs.x86_32.cr0": 0x8000_0010 }],
  ["CR4 with a reserved bit", { "cpu_regs.x86_32.cr4": 0x8000_0000 }],
  ["code not present", { "cpu_regs.x86_32.cs_ar": 0xc1b }],
  ["code is data", { "cpu_regs.x86_32.cs_ar": 0xc93 }],
  ["code with S clear", { "cpu_regs.x86_32.cs_ar": 0xc8b }],
  ["stack is read-only", { "cpu_regs.x86_32.ss_ar": 0xc91 }],
  ["stack not present", { "cpu_regs.x86_32.ss_ar": 0xc13 }],
  ["data not present", { "cpu_regs.x86_32.ds_ar": 0xc13 }],
  ["data is system", { "cpu_regs.x86_32.es_ar": 0xc82 }],
  ["EIP beyond the limit", {
    "cpu_regs.x86_32.cs_limit": 0xff,
    "cpu_regs.x86_32.cs_ar": 0x49b,
  }],
  ["limit's low bits clear with G", { "cpu_regs.x86_32.cs_limit": 0xffff_f000 }],
  ["limit's high bits without G", { "cpu_regs.x86_32.ds_ar": 0x493 }],
  ["task not busy", { "cpu_regs.x86_32.tr_ar": 0x89 }],
  ["task is data", { "cpu_regs.x86_32.tr_ar": 0x93 }],
  ["DPL of code 3", { "cpu_regs.x86_32.cs_ar": 0xcfb }],
  ["DPL of stack 3", { "cpu_regs.x86_32.ss_ar": 0xcf3 }],
  ["attribute bits 15:12", { "cpu_regs.x86_32.cs_ar": 0x1c9b }],
  ["L and D", { "cpu_regs.x86_32.cs_ar": 0xe9b }],
  ["64 bits, no registers", { mode: VCPU_HVM_MODE["64B"] }],
];

function begin(
  w: Writer,
  vcpu: number,
  kind: string,
  change: Readonly<Record<string, number>>,
): void {
  const arg = w.struct(AT.arg, VCPU_HVM_CONTEXT, {
    mode: VCPU_HVM_MODE["32B"],
    ...GOOD,
    ...change,
  });
  vcpuOp(w, "initialise", kind, vcpu, arg);
}

/** States for the second vCPU, which never runs: until one is taken. */
export function initialise(w: Writer): void {
  const r = w.random;
  if (r.chance(0.1)) {
    const { kind, handle } = badHandle(w);
    return vcpuOp(w, "initialise", kind, 1, handle);
  }
  const [kind, change] = r.pick(CHANGES);
  begin(w, 1, kind, change);
}

/** The second vCPU begins well; the others cannot. */
function good(w: Writer): void {
  const r = w.random, vcpu = r.pick(VCPUS);
  if (r.chance(0.1)) {
    const { kind, handle } = badHandle(w);
    return vcpuOp(w, "initialise", kind, vcpu, handle);
  }
  const [kind, change] = vcpu === 1 || r.chance(0.5) ? ["good", {}] as const : r.pick(CHANGES);
  begin(w, vcpu, kind, change);
}

function plain(
  operation: "up" | "down" | "is_up" | "stop_periodic_timer" | "stop_singleshot_timer",
) {
  return (w: Writer): void => {
    // A vCPU that goes down by itself would be the end of the program.
    const vcpu = w.random.pick(operation === "down" ? VCPUS.filter((n) => n !== 0) : VCPUS);
    vcpuOp(w, operation, "plain", vcpu, 0);
  };
}

/** An NMI comes as one to the first vCPU; the second has no handler, and is asked with an argument. */
function nmi(w: Writer): void {
  const vcpu = w.random.pick(VCPUS);
  const arg = vcpu === 1 || w.random.chance(0.3) ? { at: AT.arg } : 0;
  vcpuOp(w, "send_nmi", arg === 0 ? "plain" : "an argument", vcpu, arg);
}

function area(
  operation:
    | "register_runstate_memory_area"
    | "register_vcpu_time_memory_area"
    | "get_runstate_info"
    | "get_physid",
) {
  return (w: Writer): void => {
    const r = w.random, vcpu = r.pick(VCPUS);
    const bad = r.chance(0.15) ? badHandle(w) : undefined;
    if (
      operation === "register_runstate_memory_area" ||
      operation === "register_vcpu_time_memory_area"
    ) {
      // Each vCPU has an area of its own; what is in it is time.
      const [kind, v] = r.pick(
        [["an area", ARENA + AT.info + 0x800 + (vcpu & 1) * 64], ["NULL", 0], [
          "no memory",
          0xf000_0000,
        ]] as const,
      );
      const arg = bad?.handle ?? w.struct(AT.arg, VCPUOP[operation].arg, { "addr.v": v });
      return vcpuOp(w, operation, bad?.kind ?? kind, vcpu, arg);
    }
    w.step({ do: "fill", at: AT.arg, length: 64, byte: 0xcc });
    vcpuOp(w, operation, bad?.kind ?? "plain", vcpu, bad?.handle ?? { at: AT.arg }, [
      {
        what: "argument",
        at: AT.arg,
        length: 48,
        mask: operation === "get_physid" ? [[0, 8]] : [[4, 44]],
      },
    ]);
  };
}

function info(w: Writer): void {
  const r = w.random, vcpu = r.pick(VCPUS);
  const bad = r.chance(0.1) ? badHandle(w) : undefined;
  const offset = r.pick([0, 64, 4096 - 64, 4096 - 56, 4, 4096, 0xffff_ffc0]);
  const [what, mfn] = r.pick(
    [["a page", frameOf(AT.info) + (vcpu & 1)], ["no page", 0xf_0000], [
      "beyond all",
      2 ** 45,
    ]] as const,
  );
  const arg = bad?.handle ??
    w.struct(AT.arg, VCPUOP.register_vcpu_info.arg, { mfn, offset, rsvd: r.pick([0, 0, 1]) });
  vcpuOp(w, "register_vcpu_info", bad?.kind ?? `${what}, offset ${offset}`, vcpu, arg, [
    { what: "info 0", at: AT.info, length: 8 },
    { what: "info 1", at: AT.info + PAGE, length: 8 },
  ]);
}

function periodic(w: Writer): void {
  const r = w.random, vcpu = r.pick(VCPUS);
  const bad = r.chance(0.1) ? badHandle(w) : undefined;
  // Long: no tick falls into the program.
  const period = r.pick([0n, 1n, 999_999n, 3_600_000_000_000n, 1n << 60n, (1n << 64n) - 1n]);
  const arg = bad?.handle ?? w.struct(AT.arg, VCPUOP.set_periodic_timer.arg, { period_ns: period });
  vcpuOp(w, "set_periodic_timer", bad?.kind ?? `${period} ns`, vcpu, arg);
  w.call({
    hypercall: "vcpu_op",
    operation: "stop_periodic_timer",
    kind: `vcpu ${vcpu}, plain`,
    args: [VCPUOP.stop_periodic_timer.number, vcpu, 0],
  });
}

function singleshot(w: Writer): void {
  const r = w.random, vcpu = r.pick(VCPUS);
  const bad = r.chance(0.1) ? badHandle(w) : undefined;
  const [kind, timeout] = r.pick([["in the past", 1n], ["0", 0n], ["far", 1n << 60n]] as const);
  const flags = r.pick([0, 1, 1, 2, 3]);
  const arg = bad?.handle ??
    w.struct(AT.arg, VCPUOP.set_singleshot_timer.arg, { timeout_abs_ns: timeout, flags });
  vcpuOp(w, "set_singleshot_timer", bad?.kind ?? `${kind}, flags ${flags}`, vcpu, arg);
  vcpuOp(w, "stop_singleshot_timer", "plain", vcpu, 0);
}

function unknownVcpu(w: Writer): void {
  w.call({
    hypercall: "vcpu_op",
    operation: "unknown",
    kind: "unknown",
    args: [w.random.pick([14, 15, 100, 0xffff_ffff]), w.random.pick([0, 1, 99]), { at: AT.arg }],
  });
}

function sched(
  operation: keyof typeof SCHEDOP | "unknown",
  kind: string,
  w: Writer,
  args: Parameters<Writer["call"]>[0]["args"],
) {
  const number = operation === "unknown"
    ? w.random.pick([8, 9, 100, 0xffff_ffff])
    : SCHEDOP[operation].number;
  w.call({ hypercall: "sched_op", operation, kind, args: [number, ...args] });
}

const SCHED: Readonly<
  Record<Exclude<keyof typeof SCHEDOP, "block"> | "unknown", (w: Writer) => void>
> = {
  yield: (w) => sched("yield", "plain", w, [0]),
  /** The program goes on: only what Xen refuses. */
  shutdown(w) {
    const bad = badHandle(w);
    sched("shutdown", bad.kind, w, [bad.handle]);
  },
  poll(w) {
    const r = w.random;
    const count = r.pick([0, 1, 1, 2, 128, 129, 0xffff_ffff]);
    const slot = r.pick([1, 5, 1023, 1024, 4096, 0x20000, 0xffff_ffff]);
    w.words(AT.list, slot, 3);
    const [when, timeout] = r.pick(
      [["in the past", 1n], ["in the past", 2n], ["far in the past", 1000n]] as const,
    );
    const bad = r.chance(0.1) ? badHandle(w) : undefined;
    const list = r.chance(0.1) ? 0xf000_0000 : ARENA + AT.list;
    const arg = bad?.handle ??
      w.struct(AT.arg, SCHEDOP.poll.arg, { ports: list, nr_ports: count, timeout });
    sched(
      "poll",
      bad?.kind ??
        `${count} ports, first ${slot}, ${when}${list === 0xf000_0000 ? ", bad list" : ""}`,
      w,
      [arg],
    );
  },
  remote_shutdown(w) {
    const domain = w.random.pick([0, 0x7ff0, 0x7000, 0x7ff2]);
    const bad = w.random.chance(0.2) ? badHandle(w) : undefined;
    const arg = bad?.handle ??
      w.struct(AT.arg, SCHEDOP.remote_shutdown.arg, { domain_id: domain, reason: 0 });
    sched("remote_shutdown", bad?.kind ?? `domain ${domain.toString(16)}`, w, [arg]);
  },
  shutdown_code(w) {
    const reason = w.random.pick([0, 1, 2, 3, 5, 6, 255, 0xffff_ffff]);
    const bad = w.random.chance(0.2) ? badHandle(w) : undefined;
    const arg = bad?.handle ?? w.struct(AT.arg, SCHEDOP.shutdown_code.arg, { reason });
    sched("shutdown_code", bad?.kind ?? `reason ${reason}`, w, [arg]);
  },
  watchdog(w) {
    // A new one of 0 seconds ends the domain at once.
    const r = w.random,
      id = r.pick([0, 0, 0, 1, 1, 2, 2, 3, 100]),
      timeout = id === 0 ? 3600 : r.pick([0, 3600, 100_000, 0xffff_ffff]);
    const bad = r.chance(0.1) ? badHandle(w) : undefined;
    const arg = bad?.handle ?? w.struct(AT.arg, SCHEDOP.watchdog.arg, { id, timeout });
    sched("watchdog", bad?.kind ?? `id ${id}, ${timeout} s`, w, [arg]);
  },
  pin_override(w) {
    const arg = w.struct(AT.arg, SCHEDOP.pin_override.arg, { pcpu: w.random.pick([0, -1]) });
    sched("pin_override", "plain", w, [arg]);
  },
  unknown: (w) => sched("unknown", "unknown", w, [{ at: AT.arg }]),
};

function assist(w: Writer): void {
  const r = w.random, cmd = r.pick([0, 0, 1, 2]);
  const [name, type] = r.pick(
    [...Object.entries(VMASST_TYPE), ["6", 6], ["31", 31], ["64", 64], [
      "all ones",
      0xffff_ffff,
    ]] as [string, number][],
  );
  w.call({ hypercall: "vm_assist", kind: `cmd ${cmd}, ${name}`, args: [cmd, type] });
}

/** set_timer_op: in the past it comes at once, as VIRQ_TIMER if that is bound. */
function timer(w: Writer): void {
  const r = w.random;
  const [kind, timeout] = r.pick(
    [["0", 0n], ["in the past", 1n], ["far", 1n << 60n], ["negative", (1n << 64n) - 1n]] as const,
  );
  const args = w.width === 64 ? [timeout] : [timeout & 0xffff_ffffn, timeout >> 32n];
  w.call({ hypercall: "set_timer_op", kind, args });
}

const MS = 1_000_000;

/** Timers of each kind, bound to a channel; the event is waited for. */
export function ticks(w: Writer): void {
  const r = w.random, windows = sharedWindows(w);
  const info = AT.shared + offsetOf(VCPU_INFO, "time", w.width);
  const virq = w.struct(AT.arg, EVTCHNOP.bind_virq.arg, { virq: VIRQ.TIMER, vcpu: 0 });
  w.call({
    hypercall: "event_channel_op",
    operation: "bind_virq",
    kind: "VIRQ TIMER, vcpu 0",
    args: [EVTCHNOP.bind_virq.number, virq],
    windows: [{ what: "argument", at: AT.arg, length: 12 }],
  });
  const port = w.slot();
  w.step({ do: "copy", to: port, from: AT.arg + 8, length: 4 });
  const clear = () => {
    w.longs(windows[2].at, 0, 0);
    w.longs(AT.shared + w.width / 8, 0);
    w.set(AT.shared, [0]);
  };
  /** set_timer_op for `ns` from now. */
  const alarm = (ns: number, kind: string) => {
    w.step({ do: "later", to: AT.more, info, ns });
    const args = w.width === 64
      ? [{ natural: AT.more }]
      : [{ word: AT.more }, { word: AT.more + 4 }];
    w.call({ hypercall: "set_timer_op", kind, args });
  };
  const ways: Readonly<Record<string, () => void>> = {
    "set_timer, past": () =>
      w.call({
        hypercall: "set_timer_op",
        kind: "in the past",
        args: w.width === 64 ? [1] : [1, 0],
      }),
    "set_timer, 2 ms": () => alarm(2 * MS, "2 ms"),
    "singleshot, past"() {
      const arg = w.struct(AT.arg, VCPUOP.set_singleshot_timer.arg, {
        timeout_abs_ns: 1,
        flags: 0,
      });
      vcpuOp(w, "set_singleshot_timer", "in the past, flags 0", 0, arg);
    },
    "singleshot, 2 ms"() {
      w.struct(AT.arg, VCPUOP.set_singleshot_timer.arg, { flags: 1 });
      // Far enough that it is not past when Xen looks.
      w.step({ do: "later", to: AT.arg, info, ns: 100 * MS });
      vcpuOp(w, "set_singleshot_timer", "in 100 ms, flags 1", 0, { at: AT.arg });
    },
    "periodic, 1 ms"() {
      const arg = w.struct(AT.arg, VCPUOP.set_periodic_timer.arg, { period_ns: MS });
      vcpuOp(w, "set_periodic_timer", "1 ms", 0, arg);
    },
    "block"() {
      // Long enough that the alarm comes after the vCPU blocks.
      alarm(200 * MS, "200 ms");
      w.call({
        hypercall: "sched_op",
        operation: "block",
        kind: "until an alarm",
        args: [SCHEDOP.block.number, 0],
      });
    },
    "poll for the alarm's port"() {
      alarm(200 * MS, "200 ms");
      w.step({ do: "copy", to: AT.list, from: port, length: 4 });
      const arg = w.struct(AT.arg, SCHEDOP.poll.arg, {
        ports: ARENA + AT.list,
        nr_ports: 1,
        timeout: 0,
      });
      w.call({
        hypercall: "sched_op",
        operation: "poll",
        kind: "until an alarm",
        args: [SCHEDOP.poll.number, arg],
      });
    },
    "poll until a time"() {
      const arg = w.struct(AT.arg, SCHEDOP.poll.arg, { ports: ARENA + AT.list, nr_ports: 0 });
      w.step({
        do: "later",
        to: AT.arg + offsetOf(SCHEDOP.poll.arg, "timeout", w.width),
        info,
        ns: 5 * MS,
      });
      w.call({
        hypercall: "sched_op",
        operation: "poll",
        kind: "no ports, 5 ms",
        args: [SCHEDOP.poll.number, arg],
      });
      ways["set_timer, past"]();
    },
  };
  for (let i = 0; i < 8; i++) {
    clear();
    const way = r.pick(Object.keys(ways));
    ways[way]();
    w.label(
      { do: "wait", at: AT.shared, mask: 0xff, value: 1, turns: 1 << 24 },
      "timer",
      way,
      "arrived",
    );
    for (const { what, at, length } of windows) {
      w.label({ do: "dump", at, length }, "timer", way, what);
    }
    if (way.startsWith("periodic")) {
      w.call({
        hypercall: "vcpu_op",
        operation: "stop_periodic_timer",
        kind: "vcpu 0, plain",
        args: [VCPUOP.stop_periodic_timer.number, 0, 0],
      });
    }
  }
  const close = w.struct(AT.arg, EVTCHNOP.close.arg, {}, { port: { slot: port, length: 4 } });
  w.call({
    hypercall: "event_channel_op",
    operation: "close",
    kind: "virq port",
    args: [EVTCHNOP.close.number, close],
  });
}

const MOVES: readonly (readonly [number, (w: Writer) => void])[] = [
  [4, good],
  [3, plain("up")],
  [3, plain("down")],
  [3, plain("is_up")],
  [1, plain("stop_periodic_timer")],
  [1, plain("stop_singleshot_timer")],
  [1, nmi],
  [2, area("get_runstate_info")],
  [2, area("register_runstate_memory_area")],
  [2, area("register_vcpu_time_memory_area")],
  [2, area("get_physid")],
  [4, info],
  [3, periodic],
  [3, singleshot],
  [1, unknownVcpu],
  ...Object.values(SCHED).map((move) => [2, move] as const),
  [2, assist],
  [2, timer],
];
const WEIGHED = MOVES.flatMap(([weight, move]) => Array(weight).fill(move) as typeof move[]);

export const vcpuMove = (w: Writer): void => w.random.pick(WEIGHED)(w);

/** The second vCPU yields for as long as it is up. */
export const keepSecondUp = (w: Writer): void => w.words(OWN.run, 1);

/** Upcalls by a vector: without a way to tell the vCPU, events do not wake it. Interrupts stay closed. */
export function setCallback(w: Writer): void {
  const arg = w.struct(AT.arg, HVMOP.set_param.arg, {
    domid: 0x7ff0,
    index: HVM_PARAM.CALLBACK_IRQ,
    value: 2n << 56n | 0x30n,
  });
  w.call({
    hypercall: "hvm_op",
    operation: "set_param",
    kind: "domain self, CALLBACK_IRQ 200000000000030",
    args: [HVMOP.set_param.number, arg],
  });
}

/**
 * Event channels: ports of all kinds in the state that earlier calls left, both ABIs. The channels lead
 * from the domain to itself.
 *
 * @module
 */
import {
  EVTCHN_FIFO,
  EVTCHN_FIFO_CONTROL_BLOCK,
  EVTCHNOP,
} from "../../../../src/abi/xen/event_channel.ts";
import { XENMEM } from "../../../../src/abi/xen/memory.ts";
import { HVMOP } from "../../../../src/abi/xen/hvm/hvm_op.ts";
import { HVM_PARAM, HVM_PARAM_CALLBACK_TYPE } from "../../../../src/abi/xen/hvm/params.ts";
import { DOMID, NR_VIRQS, SHARED_INFO, VIRQ } from "../../../../src/abi/xen/xen.ts";
import { layoutOf, offsetOf } from "../../../../src/abi/layout.ts";
import { ARENA, OWN } from "../guest.ts";
import { absolute, AT, frameOf, PAGE, type Window, type Writer } from "../writer.ts";
import { badHandle, domid } from "./handles.ts";

/** A port that the program got, and what it was then. */
interface Port {
  readonly slot: number;
  /** For the domain itself to bind to. */
  readonly open?: boolean;
  kind: "unbound" | "interdomain" | "virq" | "pirq" | "ipi" | "closed";
}

/** What a program knows of its channels. */
export interface Events {
  readonly ports: Port[];
  fifo: boolean;
  /** Interrupts come: who was told is looked at, too. */
  readonly delivery?: boolean;
}

type Operation = keyof typeof EVTCHNOP;

/** Vectors that events come by. */
const VECTOR = 0x30, VECTORS = 4;

/** What can be seen of the two-level ABI: both vCPUs' words, pending and masks of the first ports. */
export function sharedWindows(w: Writer): Window[] {
  const place = (path: "evtchn_pending" | "evtchn_mask") =>
    AT.shared + offsetOf(SHARED_INFO, path, w.width);
  const upcall = w.width === 64 ? 16 : 8;
  return [
    { what: "vcpu_info 0", at: AT.shared, length: upcall },
    { what: "vcpu_info 1", at: AT.shared + 64, length: upcall },
    { what: "pending", at: place("evtchn_pending"), length: 16 },
    { what: "mask", at: place("evtchn_mask"), length: 16 },
  ];
}

/** What can be seen of the FIFO ABI: control blocks and the first ports' words. */
function fifoWindows(w: Writer): Window[] {
  const { size } = layoutOf(EVTCHN_FIFO_CONTROL_BLOCK, w.width);
  return [
    { what: "vcpu_info 0", at: AT.shared, length: 2 },
    { what: "vcpu_info 1", at: AT.shared + 64, length: 2 },
    { what: "control 0", at: AT.control, length: size },
    { what: "control 1", at: AT.control + PAGE, length: size },
    { what: "events", at: AT.events, length: 4 * 48 },
  ];
}

/** Interrupts that were counted, from the first of the vectors in use. */
const counted: Window = {
  what: "interrupts",
  at: OWN.interrupts + 4 * VECTOR,
  length: 4 * VECTORS,
};

const seen = (w: Writer, e: Events): Window[] => [
  ...(e.fifo ? fifoWindows(w) : sharedWindows(w)),
  ...(e.delivery ? [counted] : []),
];

/** shared_info at its place in the arena. */
export function mapShared(w: Writer): void {
  const arg = w.struct(AT.arg, XENMEM.add_to_physmap.arg, {
    domid: DOMID.SELF,
    space: 0,
    gpfn: frameOf(AT.shared),
  });
  w.call({
    hypercall: "memory_op",
    operation: "add_to_physmap",
    kind: "shared_info",
    args: [XENMEM.add_to_physmap.number, arg],
    windows: sharedWindows(w),
  });
}

/** A port that the program got, for a call. */
const portOf = (port: Port) => ({
  kind: `${port.kind} port`,
  value: 0,
  slot: port.slot as number | undefined,
  port: port as Port | undefined,
});

/** A port for a call: one that the program got, or a number. */
function somePort(w: Writer, e: Events, wanted?: Port["kind"]): {
  kind: string;
  value: number;
  slot?: number;
  port?: Port;
} {
  const r = w.random;
  const fitting = wanted ? e.ports.filter(({ kind }) => kind === wanted) : e.ports;
  if (fitting.length > 0 && r.chance(0.8)) {
    return portOf(r.pick(fitting));
  }
  const [kind, value] = r.pick(
    [
      ["port 0", 0],
      ["free port", 900],
      ["port beyond the word", w.width === 64 ? 4096 : 1024],
      ["port beyond all", 0x20000],
      ["port of all ones", 0xffff_ffff],
    ] as const,
  );
  return { kind, value };
}

const portFrom = (field: string, slot?: number) =>
  slot === undefined ? {} : { [field]: { slot, length: 4 } };

/** Calls one operation, now and then with a bad handle, and keeps the port that comes of it. */
function act(
  w: Writer,
  e: Events,
  operation: Operation,
  kind: string,
  values: Readonly<Record<string, number>>,
  from: Readonly<Record<string, { slot: number; length: number }>> = {},
  got?: { field: string; kind: Port["kind"]; open?: boolean },
): void {
  const { number, arg: type } = EVTCHNOP[operation];
  if (w.random.chance(0.04)) {
    const bad = badHandle(w);
    return w.call({
      hypercall: "event_channel_op",
      operation,
      kind: bad.kind,
      args: [number, bad.handle],
      windows: seen(w, e),
    });
  }
  const handle = w.struct(AT.arg, type as never, values as never, from);
  const { size } = layoutOf(type as never, w.width);
  w.call({
    hypercall: "event_channel_op",
    operation,
    kind,
    args: [number, handle],
    windows: [
      // The domain's own number differs from run to run.
      { what: "argument", at: AT.arg, length: size, mask: domids(operation, kind) },
      ...seen(w, e),
    ],
  });
  if (!got) return;
  const slot = w.slot();
  const port = AT.arg + offsetOf(type as never, got.field as never, w.width);
  w.step({ do: "copy", to: slot, from: port, length: 4 });
  e.ports.push({ slot, kind: got.kind, open: got.open });
}

/** Where an argument holds domids, given or found. */
function domids(operation: Operation, kind: string): readonly (readonly [number, number])[] {
  if (operation === "alloc_unbound") return [[0, 4]];
  if (operation === "bind_interdomain" || operation === "reset") return [[0, 2]];
  if (operation !== "status") return [];
  return /(virq|ipi) port/.test(kind) ? [[0, 2]] : [[0, 2], [16, 2]];
}

const vcpu = (w: Writer): { kind: string; value: number } => {
  const value = w.random.pick([0, 0, 0, 1, 1, 2, 128, 0xffff_ffff]);
  return { kind: `vcpu ${value}`, value };
};

const MOVES: Readonly<Record<Operation, (w: Writer, e: Events) => void>> = {
  alloc_unbound(w, e) {
    const dom = domid(w, "dom"), remote = domid(w, "remote_dom");
    act(
      w,
      e,
      "alloc_unbound",
      `${dom.kind}, remote ${remote.kind}`,
      {
        dom: dom.value,
        remote_dom: remote.value,
      },
      { ...dom.from, ...remote.from },
      { field: "port", kind: "unbound" },
    );
  },
  bind_interdomain(w, e) {
    const r = w.random, open = e.ports.filter(({ kind, open }) => kind === "unbound" && open);
    const good = open.length > 0 && r.chance(0.6);
    const remote = good
      ? { kind: "domain self", value: DOMID.SELF, from: {} }
      : domid(w, "remote_dom");
    const port = good
      ? portOf(r.pick(open))
      : somePort(w, e, r.chance(0.7) ? "unbound" : undefined);
    act(w, e, "bind_interdomain", `${remote.kind}, ${port.kind}`, {
      remote_dom: remote.value,
      // Domain 0's ports are its own affair: none that exists is asked for.
      remote_port: remote.kind === "domain 0" ? 0xfffff : port.value,
    }, {
      ...remote.from,
      ...(remote.kind === "domain 0" ? {} : portFrom("remote_port", port.slot)),
    }, { field: "local_port", kind: "interdomain" });
    if (good && port.port) port.port.kind = "interdomain";
  },
  bind_virq(w, e) {
    const virq = w.random.below(NR_VIRQS + 2), cpu = vcpu(w);
    const name = Object.entries(VIRQ).find(([, n]) => n === virq)?.[0] ?? `${virq}`;
    act(w, e, "bind_virq", `VIRQ ${name}, ${cpu.kind}`, { virq, vcpu: cpu.value }, {}, {
      field: "port",
      kind: "virq",
    });
  },
  bind_pirq(w, e) {
    const pirq = w.random.pick([0, 1, 4, 9, 16, 40, 300, 0xffff_ffff]);
    const flags = w.random.pick([0, 0, 1, 2]);
    act(w, e, "bind_pirq", `pirq ${pirq}`, { pirq, flags }, {}, { field: "port", kind: "pirq" });
  },
  bind_ipi(w, e) {
    const cpu = vcpu(w);
    act(w, e, "bind_ipi", cpu.kind, { vcpu: cpu.value }, {}, { field: "port", kind: "ipi" });
  },
  close(w, e) {
    const port = somePort(w, e);
    act(w, e, "close", port.kind, { port: port.value }, portFrom("port", port.slot));
    if (port.port) port.port.kind = "closed";
  },
  send(w, e) {
    const port = somePort(w, e);
    act(w, e, "send", port.kind, { port: port.value }, portFrom("port", port.slot));
  },
  status(w, e) {
    const dom = domid(w, "dom"), port = somePort(w, e);
    act(w, e, "status", `${dom.kind}, ${port.kind}`, { dom: dom.value, port: port.value }, {
      ...dom.from,
      ...portFrom("port", port.slot),
    });
  },
  bind_vcpu(w, e) {
    const port = somePort(w, e), cpu = vcpu(w);
    act(
      w,
      e,
      "bind_vcpu",
      `${port.kind}, ${cpu.kind}`,
      { port: port.value, vcpu: cpu.value },
      portFrom("port", port.slot),
    );
  },
  unmask(w, e) {
    const port = somePort(w, e);
    act(w, e, "unmask", port.kind, { port: port.value }, portFrom("port", port.slot));
  },
  reset(w, e) {
    const dom = domid(w, "dom");
    act(w, e, "reset", dom.kind, { dom: dom.value }, dom.from);
    if (dom.kind !== "domain self" && dom.kind !== "domain own") return;
    for (const port of e.ports) port.kind = "closed";
    e.fifo = false;
  },
  init_control(w, e) {
    const r = w.random, cpu = vcpu(w);
    const offset = r.pick([0, 0, 0, 8, 4, 4, PAGE - 72, PAGE - 64, PAGE, 0xffff_fff8]);
    const [what, gfn] = r.pick(
      [["a page", 0], ["a page", 0], ["no page", 0xf_0000], ["beyond all", 2 ** 45]] as const,
    );
    const control_gfn = gfn || frameOf(AT.control + (cpu.value & 1) * PAGE);
    act(w, e, "init_control", `${what}, offset ${offset}, ${cpu.kind}`, {
      control_gfn,
      offset,
      vcpu: cpu.value,
    });
    const works = what === "a page" && cpu.value < 2 && offset % 8 === 0 && offset <= PAGE - 72;
    if (works) e.fifo = true;
  },
  expand_array(w, e) {
    const [kind, gfn] = w.random.pick(
      [["a page", 0], ["no page", 0xf_0000], ["beyond all", 2 ** 45]] as const,
    );
    const array_gfn = gfn || frameOf(AT.events + PAGE * w.random.below(4));
    act(w, e, "expand_array", kind, { array_gfn });
  },
  set_priority(w, e) {
    const port = somePort(w, e), priority = w.random.pick([0, 1, 7, 8, 15, 16, 0xffff_ffff]);
    act(
      w,
      e,
      "set_priority",
      `${port.kind}, priority ${priority}`,
      { port: port.value, priority },
      portFrom("port", port.slot),
    );
  },
};

/** The guest's own part: masks and pending bits as it likes, a queue that it has read. */
function own(w: Writer, e: Events): void {
  const r = w.random;
  if (e.fifo) {
    // Everything was taken: the queues are empty, no word is linked.
    w.step({ do: "fill", at: AT.control, length: 2 * PAGE, byte: 0 });
    w.step({ do: "fill", at: AT.events, length: 4 * 64, byte: 0 });
    if (r.chance(0.6)) {
      const port = r.below(16);
      w.words(AT.events + 4 * port, 1 << EVTCHN_FIFO.MASKED);
    }
  } else {
    const at = (path: "evtchn_pending" | "evtchn_mask") =>
      AT.shared + offsetOf(SHARED_INFO, path, w.width);
    if (r.chance(0.6)) w.words(at("evtchn_mask"), r.pick([0, 0, 0xffff_ffff, r.u32()]), 0);
    if (r.chance(0.6)) w.words(at("evtchn_pending"), r.pick([0, 0, r.u32() & r.u32()]), 0);
    if (r.chance(0.6)) w.longs(AT.shared + w.width / 8, 0);
    if (r.chance(0.6)) w.longs(AT.shared + 64 + w.width / 8, 0);
  }
  if (r.chance(0.6)) w.set(AT.shared, [0]);
  if (r.chance(0.6)) w.set(AT.shared + 64, [0]);
}

const USUAL: readonly Operation[] = [
  "alloc_unbound",
  "alloc_unbound",
  "bind_interdomain",
  "bind_interdomain",
  "bind_virq",
  "bind_pirq",
  "bind_ipi",
  "close",
  "close",
  "send",
  "send",
  "send",
  "status",
  "status",
  "bind_vcpu",
  "unmask",
  "unmask",
];
const RARE: readonly Operation[] = ["set_priority", "expand_array", "init_control", "reset"];

export function newEvents(delivery = false): Events {
  return { ports: [], fifo: false, delivery };
}

/** One call, or one write of the guest's. */
export function event(w: Writer, e: Events): void {
  const r = w.random;
  if (r.chance(0.15)) own(w, e);
  if (r.chance(0.01)) {
    // 14 is how Xen continues a reset.
    const number = r.pick([15, 16, 100, 0xffff_ffff]);
    return w.call({
      hypercall: "event_channel_op",
      operation: "unknown",
      kind: "unknown",
      args: [number, { at: AT.arg }],
    });
  }
  if (e.fifo && r.chance(0.1)) {
    return MOVES[r.pick(["set_priority", "set_priority", "expand_array"] as const)](w, e);
  }
  if (!e.fifo && r.chance(0.04)) return MOVES[r.pick(RARE)](w, e);
  if (e.fifo && r.chance(0.01)) return MOVES[r.pick(["init_control", "reset"] as const)](w, e);
  MOVES[r.pick(USUAL)](w, e);
}

/** The FIFO ABI for both vCPUs, with one page of events. */
export function startFifo(w: Writer, e: Events): void {
  for (const vcpu of [0, 1]) {
    act(w, e, "init_control", `a page, offset 0, vcpu ${vcpu}`, {
      control_gfn: frameOf(AT.control + vcpu * PAGE),
      offset: 0,
      vcpu,
    });
    e.fifo = true;
  }
  act(w, e, "expand_array", "a page", { array_gfn: frameOf(AT.events) });
}

/** By which vector events come: the domain's for all vCPUs, or the first vCPU's own through its APIC. */
function vector(w: Writer): void {
  const r = w.random, vector = VECTOR + r.below(VECTORS), own = r.chance(0.4);
  const { number } = own ? HVMOP.set_evtchn_upcall_vector : HVMOP.set_param;
  const handle = own
    ? w.struct(AT.arg, HVMOP.set_evtchn_upcall_vector.arg, { vcpu: 0, vector })
    : w.struct(AT.arg, HVMOP.set_param.arg, {
      domid: DOMID.SELF,
      index: HVM_PARAM.CALLBACK_IRQ,
      value: BigInt(HVM_PARAM_CALLBACK_TYPE.VECTOR) << 56n | BigInt(vector),
    });
  w.call({
    hypercall: "hvm_op",
    operation: own ? "set_evtchn_upcall_vector" : "set_param",
    kind: own ? "vcpu 0, a vector" : "CALLBACK_IRQ, a vector",
    args: [number, handle],
    windows: [...sharedWindows(w), counted],
  });
}

/** The local APIC's registers (SDM volume 3, table 12-1). */
const APIC = 0xfee0_0000, SPURIOUS = 0xf0;

/** Interrupts are open, and counted; each ends what told the vCPU. */
export function startDelivery(w: Writer): void {
  mapShared(w);
  w.words(OWN.upcall, ARENA + AT.shared, 1);
  w.words(absolute(APIC + SPURIOUS), 0x1ff);
  vector(w);
  w.step({ do: "interrupts", open: true });
}

/** One event's move, or one of how it comes. */
export function deliver(w: Writer, e: Events): void {
  const r = w.random;
  if (r.chance(0.05)) return vector(w);
  if (r.chance(0.1)) w.step({ do: "interrupts", open: r.chance(0.7) });
  event(w, e);
}

/**
 * Event channels: operations, states, and both ABIs by which events are seen.
 * Source: Xen public/event_channel.h.
 *
 * @module
 */
import { array, group, struct, union } from "../layout.ts";
import { op, type Operations } from "./operation.ts";

/** What a port is (`evtchn_status.status`). */
export const EVTCHNSTAT = {
  /** Free. */
  closed: 0,
  /** Waits for a domain to bind to it. */
  unbound: 1,
  interdomain: 2,
  pirq: 3,
  virq: 4,
  ipi: 5,
} as const;

/** Flags of bind_pirq. */
export const BIND_PIRQ__WILL_SHARE = 1;

/** A free port of `dom` for `remote_dom` to bind to. */
const evtchn_alloc_unbound = struct("evtchn_alloc_unbound", {
  dom: "u16",
  remote_dom: "u16",
  port: "u32",
});
/** Connects a free port of the caller with an unbound one of `remote_dom`; the local end starts pending. */
const evtchn_bind_interdomain = struct("evtchn_bind_interdomain", {
  remote_dom: "u16",
  remote_port: "u32",
  local_port: "u32",
});
/** A port for a VIRQ: a global one at vCPU 0, the others once on each vCPU. */
const evtchn_bind_virq = struct("evtchn_bind_virq", { virq: "u32", vcpu: "u32", port: "u32" });
const evtchn_bind_pirq = struct("evtchn_bind_pirq", { pirq: "u32", flags: "u32", port: "u32" });
/** A port that one vCPU of the domain is told by; it stays there. */
const evtchn_bind_ipi = struct("evtchn_bind_ipi", { vcpu: "u32", port: "u32" });
/** Frees a port; the other end of an interdomain channel becomes unbound. */
const evtchn_close = struct("evtchn_close", { port: "u32" });
const evtchn_send = struct("evtchn_send", { port: "u32" });
const evtchn_status = struct("evtchn_status", {
  dom: "u16",
  port: "u32",
  status: "u32",
  vcpu: "u32",
  u: union({
    unbound: group({ dom: "u16" }),
    interdomain: group({ dom: "u16", port: "u32" }),
    pirq: "u32",
    virq: "u32",
  }),
});
/** Which vCPU is told; not for IPIs and for VIRQs of one vCPU. */
const evtchn_bind_vcpu = struct("evtchn_bind_vcpu", { port: "u32", vcpu: "u32" });
/** Clears the mask and delivers what is pending. */
const evtchn_unmask = struct("evtchn_unmask", { port: "u32" });
/** Closes all ports of a domain and goes back to the two-level ABI. */
const evtchn_reset = struct("evtchn_reset", { dom: "u16" });
/** A vCPU's control block of the FIFO ABI. */
const evtchn_init_control = struct("evtchn_init_control", {
  control_gfn: "u64",
  /** Bytes into the frame; a multiple of 8. */
  offset: "u32",
  vcpu: "u32",
  link_bits: "u8",
  _pad: array("u8", 7),
});
/** One more page of event words. */
const evtchn_expand_array = struct("evtchn_expand_array", { array_gfn: "u64" });
const evtchn_set_priority = struct("evtchn_set_priority", { port: "u32", priority: "u32" });

/** event_channel_op(cmd, argument). */
export const EVTCHNOP = {
  bind_interdomain: op(0, evtchn_bind_interdomain, { out: ["local_port"] }),
  bind_virq: op(1, evtchn_bind_virq, { out: ["port"] }),
  bind_pirq: op(2, evtchn_bind_pirq, { out: ["port"] }),
  close: op(3, evtchn_close),
  send: op(4, evtchn_send),
  status: op(5, evtchn_status, { out: ["status", "vcpu", "u"] }),
  alloc_unbound: op(6, evtchn_alloc_unbound, { out: ["port"] }),
  bind_ipi: op(7, evtchn_bind_ipi, { out: ["port"] }),
  bind_vcpu: op(8, evtchn_bind_vcpu),
  unmask: op(9, evtchn_unmask),
  reset: op(10, evtchn_reset),
  init_control: op(11, evtchn_init_control, { out: ["link_bits"] }),
  expand_array: op(12, evtchn_expand_array),
  set_priority: op(13, evtchn_set_priority),
} as const satisfies Operations;

/** Argument of event_channel_op_compat, the form before interface 0x00030202. */
export const EVTCHN_OP = struct("evtchn_op", {
  cmd: "u32",
  u: union({
    alloc_unbound: evtchn_alloc_unbound,
    bind_interdomain: evtchn_bind_interdomain,
    bind_virq: evtchn_bind_virq,
    bind_pirq: evtchn_bind_pirq,
    bind_ipi: evtchn_bind_ipi,
    close: evtchn_close,
    send: evtchn_send,
    status: evtchn_status,
    bind_vcpu: evtchn_bind_vcpu,
    unmask: evtchn_unmask,
  }),
});

/** Ports of the two-level ABI, by the guest's width: one selector word of words of bits. */
export const EVTCHN_2L_NR_CHANNELS = { 32: 1024, 64: 4096 } as const;

/** The FIFO ABI: bits and fields of an event word, priorities, and how many ports there are. */
export const EVTCHN_FIFO = {
  PRIORITY_MAX: 0,
  PRIORITY_DEFAULT: 7,
  PRIORITY_MIN: 15,
  MAX_QUEUES: 16,
  /** Bit numbers of an event word. */
  PENDING: 31,
  MASKED: 30,
  LINKED: 29,
  BUSY: 28,
  LINK_BITS: 17,
  LINK_MASK: 0x1ffff,
  NR_CHANNELS: 0x20000,
} as const;

/** What a vCPU reads to find the heads of its queues. */
export const EVTCHN_FIFO_CONTROL_BLOCK = struct("evtchn_fifo_control_block", {
  /** A bit for each priority that has events. */
  ready: "u32",
  _rsvd: "u32",
  head: array("u32", EVTCHN_FIFO.MAX_QUEUES),
});

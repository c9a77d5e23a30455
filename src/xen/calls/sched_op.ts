/** sched_op (Xen public/sched.h): a vCPU gives its turn away, waits, or ends its domain. */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { SCHEDOP } from "../../abi/xen/sched.ts";
import { VCPU_INFO } from "../../abi/xen/xen.ts";
import { offsetOf } from "../../abi/layout.ts";
import type { Call } from "../call.ts";
import { BLOCKED, BUDGET } from "../engine.ts";
import { type Handler, operations } from "./operations.ts";

const { EFAULT, EINVAL, EPERM, ESRCH } = XEN_ERRNO;

/** Ports that can be polled at a time. */
const PORTS = 128;

/** The vCPU waits, unless something is to be delivered now. */
function wait(call: Call, ...how: Parameters<Call["vcpu"]["wait"]>): number {
  if (!call.engine.awake) {
    call.vcpu.wait(...how);
    call.leaves = BLOCKED;
  }
  return 0;
}

/** The ports to poll; a number: what the call gives at once, because one is pending, or is none. */
function portsOf(call: Call, from: bigint, count: number): number[] | number {
  const { channels } = call.xen, ports: number[] = [];
  for (let n = 0; n < count; n++) {
    const bytes = call.read(from + BigInt(4 * n), 4);
    if (!bytes) return -EFAULT;
    const port = new DataView(bytes.buffer).getUint32(0, true);
    if (!channels.get(port) || channels.handlers.has(port)) return -EINVAL;
    if (channels.abi.isPending(port)) return 0;
    ports.push(port);
  }
  return ports;
}

export const schedOp: Handler = operations(SCHEDOP, {
  yield: (call) => {
    call.vcpu.vcpu.yield();
    call.leaves = BUDGET;
    return 0;
  },
  block: (call) => {
    const { vcpu, xen } = call;
    // Xen lets events in, though only paravirtual guests can have kept them out so.
    xen.memory.setByte(vcpu.info + offsetOf(VCPU_INFO, "evtchn_upcall_mask", xen.width), 0);
    return wait(call, "block");
  },
  poll: (call, args) => {
    const count = args.get("nr_ports"), until = args.get("timeout");
    if (count > PORTS) return -EINVAL;
    if (call.engine.awake) return 0;
    const ports = portsOf(call, args.get("ports"), count);
    if (typeof ports === "number") return ports;
    const time = until === 0n ? Infinity : call.vcpu.timeOf(BigInt.asIntN(64, until));
    return wait(call, "poll", ports, time);
  },
  shutdown: ({ xen }, args) => {
    xen.shutDown(args.get("reason"), "SCHEDOP_shutdown");
    return 0;
  },
  shutdown_code: ({ xen }, args) => {
    xen.noteShutdown(args.get("reason"));
    return 0;
  },
  // A guest has no say over others, nor over itself in this way.
  remote_shutdown: ({ xen }, args) => xen.domain.host.has(args.get("domain_id")) ? -EPERM : -ESRCH,
  watchdog: ({ xen }, args) => xen.watchdogs.set(args.get("id"), args.get("timeout")),
});

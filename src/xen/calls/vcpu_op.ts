/** vcpu_op and set_timer_op (Xen public/vcpu.h): timers of vCPUs, and where Xen tells them something. */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { VCPU_SSHOTTMR, VCPUOP } from "../../abi/xen/vcpu.ts";
import type { Call } from "../call.ts";
import type { XenVcpu } from "../xen_vcpu.ts";
import { type Handler, operations } from "./operations.ts";

const { EINVAL, ENOENT, ETIME } = XEN_ERRNO;

/** Shortest period of a periodic timer (ns). */
const SHORTEST = 1_000_000;

/** The vCPU that the second argument names. */
const of = (call: Call): XenVcpu => call.xen.vcpus[call.low(1)];

const ops = operations(VCPUOP, {
  is_up: (call) => of(call).vcpu.online ? 1 : 0,
  set_periodic_timer: (call, args) => {
    const period = Number(args.get("period_ns"));
    if (period < SHORTEST) return -EINVAL;
    return of(call).setPeriodic(period);
  },
  stop_periodic_timer: (call) => of(call).setPeriodic(Infinity),
  set_singleshot_timer: (call, args) => {
    const at = Number(args.get("timeout_abs_ns")), vcpu = of(call);
    if (vcpu !== call.vcpu || at === 0) return -EINVAL;
    if (args.get("flags") & VCPU_SSHOTTMR.future && at < call.xen.domain.now) return -ETIME;
    vcpu.setTimer("singleShot", at);
    return 0;
  },
  stop_singleshot_timer: (call) => {
    const vcpu = of(call);
    if (vcpu !== call.vcpu) return -EINVAL;
    vcpu.setTimer("singleShot", Infinity);
    return 0;
  },
  register_vcpu_info: (call, args) => of(call).registerInfo(args.get("mfn"), args.get("offset")),
}, { at: 2 });

export const vcpuOp: Handler = (call) => of(call) ? ops(call) : -ENOENT;

/** set_timer_op(timeout): the system time (ns) of VIRQ_TIMER; 0: never. */
export const setTimerOp: Handler = (call) => {
  const at = call.width === 64 ? call.wide(0) : BigInt(call.low(1)) << 32n | BigInt(call.low(0));
  call.vcpu.setTimer("singleShot", at === 0n ? Infinity : Number(BigInt.asIntN(64, at)));
  return 0;
};

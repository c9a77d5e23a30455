/** vcpu_op and set_timer_op (Xen public/vcpu.h): vCPUs come and go, their timers, and where Xen tells them something. */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { VCPU_HVM_CONTEXT } from "../../abi/xen/hvm/hvm_vcpu.ts";
import { VCPUOP } from "../../abi/xen/vcpu.ts";
import type { Call } from "../call.ts";
import { OFFLINE } from "../engine.ts";
import { beginWith } from "../vcpu_context.ts";
import type { XenVcpu } from "../xen_vcpu.ts";
import { type Handler, operations } from "./operations.ts";

const { EEXIST, EFAULT, EINVAL, ENOENT } = XEN_ERRNO;

/** Periods of a periodic timer (ns). */
const SHORTEST = 1_000_000n, LONGEST = 2n ** 62n - 1n;

/** The vCPU that the second argument names. */
const of = (call: Call): XenVcpu => call.xen.vcpus[call.low(1)];
/** The last that is online takes its domain with it. */
function goDown(call: Call): number {
  const vcpu = of(call), { xen } = call;
  if (xen.vcpus.every((other) => other === vcpu || !other.online)) {
    xen.domain.end("poweroff", "VCPUOP_down of its last vCPU");
  } else if (vcpu === call.vcpu) call.leaves = OFFLINE;
  else vcpu.goDown();
  return 0;
}

const ops = operations(VCPUOP, {
  initialise: (call) => {
    const vcpu = of(call), context = call.get(VCPU_HVM_CONTEXT, call.wide(2));
    if (!context) return -EFAULT;
    return vcpu.initialised ? -EEXIST : beginWith(vcpu, context);
  },
  up: (call) => {
    const vcpu = of(call);
    if (!vcpu.initialised) return -EINVAL;
    vcpu.goUp();
    return 0;
  },
  down: goDown,
  is_up: (call) => of(call).online ? 1 : 0,
  get_runstate_info: (call, args) => {
    args.raw.set(of(call).runstate.now(call.width));
    return 0;
  },
  register_runstate_memory_area: (call, args) => {
    of(call).registerRunstate(args.get("addr.h"), call.width);
    return 0;
  },
  register_vcpu_time_memory_area: (call, args) => {
    of(call).registerTime(args.get("addr.h"));
    return 0;
  },
  set_periodic_timer: (call, args) => {
    const period = args.get("period_ns");
    if (period < SHORTEST || period > LONGEST) return -EINVAL;
    of(call).setPeriodic(Number(period));
    return 0;
  },
  stop_periodic_timer: (call) => {
    of(call).stopPeriodic();
    return 0;
  },
  set_singleshot_timer: (call, args) => {
    const at = args.get("timeout_abs_ns"), past = at < BigInt(call.xen.domain.now);
    // Xen has no ETIME for what is past, whatever the flags: its event comes at once.
    call.vcpu.setTimer("singleShot", past ? Infinity : call.vcpu.timeOf(at));
    if (past) call.vcpu.timerEvent();
    return 0;
  },
  stop_singleshot_timer: (call) => {
    call.vcpu.setTimer("singleShot", Infinity);
    return 0;
  },
  register_vcpu_info: (call, args) => {
    const vcpu = of(call);
    const result = vcpu.registerInfo(args.get("mfn"), args.get("offset"), call.vcpu);
    vcpu.updateTime();
    return result;
  },
  send_nmi: (call) => {
    if (call.wide(2) !== 0n) return -EINVAL;
    of(call).engine.nmi();
    of(call).vcpu.engine.poke();
    return 0;
  },
}, { at: 2 });

/** A vCPU's one-shot timer is its own. */
const OWN: readonly number[] = [
  VCPUOP.set_singleshot_timer.number,
  VCPUOP.stop_singleshot_timer.number,
];

/** The vCPU is looked at before the argument. */
export const vcpuOp: Handler = (call) => {
  const vcpu = of(call), number = call.low(0);
  if (!vcpu) return -ENOENT;
  if (OWN.includes(number) && vcpu !== call.vcpu) return -EINVAL;
  // For domain 0 alone, with each vCPU pinned to a processor.
  if (number === VCPUOP.get_physid.number) return -EINVAL;
  return ops(call);
};

/** Times further ahead than this (ns), 13 days, are taken for a mistake: the event comes soon. */
const FAR = 2n ** 50n, SOON = 100_000_000;

/** set_timer_op(timeout): the system time (ns) of VIRQ_TIMER; 0: never. */
export const setTimerOp: Handler = (call) => {
  const { vcpu, xen: { domain } } = call;
  const at = BigInt.asIntN(
    64,
    call.width === 64 ? call.wide(0) : call.wide(1) << 32n | call.wide(0),
  );
  const mistaken = at < 0n || at - BigInt(domain.now) >= FAR;
  vcpu.setTimer(
    "singleShot",
    at === 0n ? Infinity : mistaken ? domain.now + SOON : vcpu.timeOf(at),
  );
  return 0;
};

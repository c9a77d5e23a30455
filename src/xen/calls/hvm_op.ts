/** hvm_op (Xen public/hvm/hvm_op.h): parameters of the domain, and how its vCPUs are told of events. */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { HVMOP } from "../../abi/xen/hvm/hvm_op.ts";
import { HVM_NR_PARAMS, HVM_PARAM } from "../../abi/xen/hvm/params.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import type { Call } from "../call.ts";
import { type Handler, operations } from "./operations.ts";

const { EINVAL, ENOENT, EPERM, ESRCH } = XEN_ERRNO;

/** What a guest may set of its own parameters. */
const SETTABLE: ReadonlySet<number> = new Set([
  HVM_PARAM.CALLBACK_IRQ,
  HVM_PARAM.VM86_TSS,
  HVM_PARAM.VM86_TSS_SIZED,
  HVM_PARAM.ACPI_IOPORTS_LOCATION,
  HVM_PARAM.VM_GENERATION_ID_ADDR,
  HVM_PARAM.STORE_EVTCHN,
  HVM_PARAM.CONSOLE_EVTCHN,
]);
/** What it may read. */
const READABLE: ReadonlySet<number> = new Set([
  ...SETTABLE,
  HVM_PARAM.STORE_PFN,
  HVM_PARAM.CONSOLE_PFN,
]);

/** 0 if a parameter is the caller's to use, else an errno. */
function parameter(call: Call, domid: number, index: number, allowed: ReadonlySet<number>): number {
  if (index >= HVM_NR_PARAMS) return -EINVAL;
  if (domid !== DOMID.SELF && domid !== call.xen.id) {
    return call.xen.channelsOf(domid) ? -EPERM : -ESRCH;
  }
  return allowed.has(index) ? 0 : -EPERM;
}

export const hvmOp: Handler = operations(HVMOP, {
  set_param: (call, args) => {
    const index = args.get("index"), value = args.get("value");
    const refused = parameter(call, args.get("domid"), index, SETTABLE);
    if (refused) return refused;
    call.xen.params.set(index, value);
    if (index === HVM_PARAM.CALLBACK_IRQ) {
      call.xen.latchWidth(call.width);
      call.xen.setCallback(value);
    }
    return 0;
  },
  get_param: (call, args) => {
    const index = args.get("index");
    const refused = parameter(call, args.get("domid"), index, READABLE);
    if (refused) return refused;
    args.set("value", call.xen.params.get(index) ?? 0n);
    return 0;
  },
  get_time: ({ xen }, args) => {
    args.set("now", BigInt(Math.floor(xen.domain.now)));
    return 0;
  },
  set_evtchn_upcall_vector: ({ xen }, args) => {
    const vcpu = xen.vcpus[args.get("vcpu")], vector = args.get("vector");
    // Those below are the processor's own.
    if (vector < 0x10) return -EINVAL;
    if (!vcpu) return -ENOENT;
    vcpu.apicVector = vector;
    if (vcpu.raised) vcpu.xen.assertUpcall(vcpu);
    return 0;
  },
});

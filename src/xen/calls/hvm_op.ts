/** hvm_op (Xen public/hvm/hvm_op.h): parameters of the domain, and how its vCPUs are told of events. */
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { HVMMEM, HVMOP } from "../../abi/xen/hvm/hvm_op.ts";
import { HVM_NR_PARAMS, HVM_PARAM } from "../../abi/xen/hvm/params.ts";
import type { Call } from "../call.ts";
import { exists, isSelf, ofSelf } from "./domid.ts";
import { type Handler, operations } from "./operations.ts";

const { EINVAL, ENODEV, ENOENT, ENOSYS, EOPNOTSUPP, EPERM, ESRCH } = XEN_ERRNO;

// --- parameters ---

/** How a parameter is set: what is kept of the value, or a negative errno. */
type Setter = (call: Call, value: bigint) => bigint | number;
const kept: Setter = (_, value) => value;

/** Bytes of a task-state segment, and of the most of one that is of use: with both of its bitmaps. */
const TSS = 104n, TSS_MOST = TSS + 0x100n / 8n + 0x1_0000n / 8n + 1n;
/** What a VM86_TSS without a size is taken for. */
const TSS_OLD = 128n;

/** VM86_TSS_SIZED: an address, and the size in bits 63:32. */
const vm86Tss: Setter = (call, value) => {
  const size = value >> 32n;
  if (size < TSS) return misused(call, "HVM_PARAM_VM86_TSS_SIZED");
  return (size > TSS_MOST ? TSS_MOST : size) << 32n | BigInt.asUintN(32, value);
};
/** It is a guest's death to give what can only be a mistake. */
function misused({ xen }: Call, what: string): number {
  xen.domain.end("crash", `${what} makes no sense`);
  return -EINVAL;
}

/** What a guest may set of its own parameters. */
const SETTABLE: ReadonlyMap<number, Setter> = new Map<number, Setter>([
  [HVM_PARAM.CALLBACK_IRQ, kept],
  [HVM_PARAM.VM86_TSS, (call, value) => {
    if (value >> 32n) return misused(call, "HVM_PARAM_VM86_TSS");
    return TSS_OLD << 32n | value;
  }],
  [HVM_PARAM.VM86_TSS_SIZED, vm86Tss],
  // The power management timer is at its place, and at no other.
  [HVM_PARAM.ACPI_IOPORTS_LOCATION, () => -ENODEV],
  [HVM_PARAM.VM_GENERATION_ID_ADDR, kept],
  [HVM_PARAM.STORE_EVTCHN, kept],
  [HVM_PARAM.CONSOLE_EVTCHN, kept],
  [
    HVM_PARAM.X87_FIP_WIDTH,
    (_, value) => value === 0n || value === 4n || value === 8n ? value : -EINVAL,
  ],
]);
/** What it may read. */
const READABLE: ReadonlySet<number> = new Set([
  ...SETTABLE.keys(),
  HVM_PARAM.STORE_PFN,
  HVM_PARAM.CONSOLE_PFN,
  HVM_PARAM.ALTP2M,
]);
/** Parameters that there were. */
const DEPRECATED: ReadonlySet<number> = new Set([
  HVM_PARAM.PAE_ENABLED,
  HVM_PARAM.DM_DOMAIN,
  HVM_PARAM.MEMORY_EVENT_CR0,
  HVM_PARAM.MEMORY_EVENT_CR3,
  HVM_PARAM.MEMORY_EVENT_CR4,
  HVM_PARAM.MEMORY_EVENT_INT3,
  HVM_PARAM.NESTEDHVM,
  HVM_PARAM.MEMORY_EVENT_SINGLE_STEP,
  HVM_PARAM.BUFIOREQ_EVTCHN,
  HVM_PARAM.MEMORY_EVENT_MSR,
]);
/** Both are one: an address without its size, and with it. */
const stored = (index: number): number =>
  index === HVM_PARAM.VM86_TSS ? HVM_PARAM.VM86_TSS_SIZED : index;

/** 0 if a parameter is the caller's to use, else an errno. */
function parameter(call: Call, domid: number, index: number, allowed: boolean): number {
  if (index >= HVM_NR_PARAMS) return -EINVAL;
  if (!exists(call, domid)) return -ESRCH;
  // Domain 0 is none of these.
  if (domid === 0) return -EINVAL;
  if (!isSelf(call, domid)) return -EPERM;
  if (DEPRECATED.has(index)) return -EINVAL;
  return allowed ? 0 : -EPERM;
}

// --- the rest ---

/** Most bytes of a trace record, and the bits of its event. */
const TRACE = { extra: 28, event: 0xfff } as const;

export const hvmOp: Handler = operations(HVMOP, {
  set_param: (call, args) => {
    const index = args.get("index"), given = args.get("value"), setter = SETTABLE.get(index);
    const refused = parameter(call, args.get("domid"), index, setter !== undefined);
    if (refused) return refused;
    const value = setter!(call, given);
    if (typeof value === "number") return value;
    call.xen.params.set(stored(index), value);
    if (index === HVM_PARAM.CALLBACK_IRQ) {
      call.xen.latchWidth(call.width);
      call.xen.setCallback(value);
    }
    return 0;
  },
  get_param: (call, args) => {
    const index = args.get("index");
    const refused = parameter(call, args.get("domid"), index, READABLE.has(index));
    if (refused) return refused;
    const value = call.xen.params.get(stored(index)) ?? 0n;
    args.set("value", index === HVM_PARAM.VM86_TSS ? BigInt.asUintN(32, value) : value);
    return 0;
  },
  flush_tlbs: (call) => {
    if (call.wide(1) !== 0n) return -EINVAL;
    // Shadow tables are never behind the guest's.
    for (const cpu of call.xen.memory.machine.cpus) cpu.flushTlb();
    return 0;
  },
  pagetable_dying: (call, args) => {
    const domid = args.get("domid");
    if (!exists(call, domid)) return -ESRCH;
    if (!isSelf(call, domid)) return -EOPNOTSUPP;
    // Shadows are told; it is a hint: they go when they are needed no longer anyway.
    return call.engine.shadow ? 0 : -EINVAL;
  },
  get_time: ({ xen }, args) => {
    args.set("now", BigInt(Math.floor(xen.domain.now)));
    return 0;
  },
  xentrace: (_, args) =>
    args.get("extra_bytes") > TRACE.extra || args.get("event") > TRACE.event ? -EINVAL : 0,
  set_mem_access: () => -ENOSYS,
  get_mem_access: () => -ENOSYS,
  get_mem_type: (call, args) => {
    const refused = ofSelf(call, args.get("domid"));
    if (refused) return refused;
    const { physmap, physmap: { p2m } } = call.xen, guest = physmap.frameNumber(args.get("pfn"));
    const isThere = p2m.machineFrame(guest) >= 0;
    const ram = p2m.writable(guest) ? HVMMEM.ram_rw : HVMMEM.ram_ro;
    args.set("mem_type", isThere ? ram : HVMMEM.mmio_dm);
    return 0;
  },
  set_evtchn_upcall_vector: ({ xen }, args) => {
    const vcpu = xen.vcpus[args.get("vcpu")], vector = args.get("vector");
    // Those below are the processor's own.
    if (vector < 0x10) return -EINVAL;
    if (!vcpu) return -ENOENT;
    vcpu.apicVector = vector;
    // Told at once, whether there is something or not, as Xen does.
    vcpu.xen.assertUpcall(vcpu);
    return 0;
  },
  // Nobody watches it.
  guest_request_vm_event: (call) => call.wide(1) === 0n ? 0 : -EINVAL,
  // There is one map of its memory.
  altp2m: () => -EOPNOTSUPP,
});

/** Hypercalls of guests in hardware virtual machines: who may make them, and what each leads to. */
import { HYPERCALL_STUB_SIZE } from "../abi/xen/cpuid.ts";
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { type HypercallName, HYPERCALLS } from "../abi/xen/hypercalls.ts";
import type { AbiWidth } from "../abi/layout.ts";
import { eventChannelOp } from "./calls/event_channel_op.ts";
import { grantTableOp } from "./calls/grant_table_op.ts";
import { hvmOp } from "./calls/hvm_op.ts";
import { consoleIo } from "./calls/console_io.ts";
import { memoryOp } from "./calls/memory_op.ts";
import { mmuextOp } from "./calls/mmuext_op.ts";
import { multicallOf } from "./calls/multicall.ts";
import type { Handler } from "./calls/operations.ts";
import {
  argoOp,
  dmOp,
  domctl,
  hypfsOp,
  pagingDomctl,
  platformOp,
  sysctl,
  xenpmuOp,
} from "./calls/privileged.ts";
import { schedOp } from "./calls/sched_op.ts";
import { setTimerOp, vcpuOp } from "./calls/vcpu_op.ts";
import { vmAssist } from "./calls/vm_assist.ts";
import { xenVersion } from "./calls/xen_version.ts";
import type { Call } from "./call.ts";
import { takeBroken } from "./refusal.ts";
import type { HvmEngine } from "./hvm.ts";

/** What there is; all others are ENOSYS. */
const HANDLERS: Readonly<Partial<Record<HypercallName, Handler>>> = {
  xen_version: xenVersion,
  event_channel_op: eventChannelOp,
  grant_table_op: grantTableOp,
  hvm_op: hvmOp,
  memory_op: memoryOp,
  sched_op: schedOp,
  set_timer_op: setTimerOp,
  vcpu_op: vcpuOp,
  vm_assist: vmAssist,
  console_io: consoleIo,
  mmuext_op: mmuextOp,
  platform_op: platformOp,
  sysctl,
  domctl,
  arch_1: pagingDomctl,
  dm_op: dmOp,
  hypfs_op: hypfsOp,
  argo_op: argoOp,
  xenpmu_op: xenpmuOp,
  multicall: multicallOf((call, number) => make(call, Number(number))),
};
const BY_NUMBER: readonly (Handler | undefined)[] = Object.entries(HYPERCALLS).reduce(
  (list: (Handler | undefined)[], [name, { number }]) => {
    list[number] = HANDLERS[name as HypercallName];
    return list;
  },
  [],
);

/** Makes a hypercall by its number, and counts it when it is made. */
function make(call: Call, number: number): number {
  const handler = BY_NUMBER[number], command = call.low(0);
  const result = handler ? handler(call) : -XEN_ERRNO.ENOSYS;
  if (!call.again) call.xen.calls.add(number, command, result);
  return result;
}

/** Makes the hypercall at which the guest has left: the result, in RAX; one to be made again has its number there. */
export function hypercall(e: HvmEngine, call: Call): void {
  const { gprs } = e.hvm, wide = e.ops.in64BitMode(e.hvm);
  call.begin(wide ? 64 : 32);
  // All of RAX counts, where it is there.
  const number = wide && gprs[1] ? -1 : gprs[0] >>> 0;
  const command = call.low(0);
  // What was refused outside of hypercalls is none of its.
  takeBroken();
  const result = e.ops.getCpl(e.hvm) > 0 ? -XEN_ERRNO.EPERM : make(call, number);
  const broken = takeBroken();
  if (broken) call.refused = { ...broken, number, command, result, count: e.vcpu.count };
  if (call.again) return;
  gprs[0] = result | 0;
  gprs[1] = wide ? Math.floor(result / 2 ** 32) : 0;
  call.onMade?.(result);
}

const INT3 = 0xcc;
/** The hypercall page: a stub for each number, which puts it into EAX (Xen's hvm: 32 bytes each). */
export function hypercallPage(instruction: readonly number[]): Uint8Array {
  const page = new Uint8Array(4096).fill(INT3);
  const IRET = HYPERCALLS.iret.number;
  for (let n = 0; n < 4096 / HYPERCALL_STUB_SIZE; n++) {
    const at = n * HYPERCALL_STUB_SIZE;
    // MOV EAX, n; the hypercall; RET. A guest of a virtual machine has no use for iret: UD2.
    page.set(
      n === IRET ? [0x0f, 0x0b] : [0xb8, n, 0, 0, 0, ...instruction, 0xc3],
      at,
    );
  }
  return page;
}

/** The first of Xen's MSRs, as its CPUID leaf tells: the hypercall page's. */
export const XEN_HYPERCALL_MSR = 0x4000_0000;

/** WRMSR of the hypercall page's MSR: bits 11:0 choose the page, of which there is one. False: #GP(0). */
export function writeHypercallPage(e: HvmEngine, value: bigint): boolean {
  const { xen } = e.domain, guest = value >> 12n;
  if (!xen || value & 0xfffn) return false;
  xen.latchWidth(modeWidth(e));
  const frame = guest < 2n ** 31n ? e.p2m.machineFrame(e.p2m.canonical(Number(guest))) : -1;
  if (frame < 0 || !e.p2m.writable(Number(guest))) return false;
  e.p2m.machine.write(frame * 4096, hypercallPage(e.ops.hypercallInstruction));
  return true;
}
const modeWidth = (e: HvmEngine): AbiWidth => e.ops.in64BitMode(e.hvm) ? 64 : 32;

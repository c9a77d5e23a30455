/**
 * All hypercalls: number, arguments, and sub-operations by name. Decoding, dispatch, traces, statistics
 * and documentation read this table.
 *
 * Sources: Xen public/xen.h and the headers of each call; xen/include/hypercall-defs.c for which kind of
 * domain has which.
 *
 * @module
 */
import { type AbiType, type AbiWidth, struct } from "../layout.ts";
import { TRAP_INFO } from "./arch_x86.ts";
import { CALLBACKOP } from "./callback.ts";
import { EVTCHN_OP, EVTCHNOP } from "./event_channel.ts";
import { GNTTABOP } from "./grant_table.ts";
import { HVMOP } from "./hvm/hvm_op.ts";
import { MEMOP, XENMEM } from "./memory.ts";
import { XENNMI } from "./nmi.ts";
import type { Direction, Operations } from "./operation.ts";
import { PHYSDEV_OP, PHYSDEVOP } from "./physdev.ts";
import { SCHEDOP } from "./sched.ts";
import { VCPUOP } from "./vcpu.ts";
import { XENVER } from "./version.ts";
import { MMU_UPDATE, MMUEXT_OP, MULTICALL_ENTRY } from "./xen.ts";

/** One argument of a hypercall. */
export interface HypercallArgument {
  readonly name: string;
  /** `u64`: two registers of a 32-bit caller, the lower half first. */
  readonly type: "u16" | "u32" | "i32" | "ulong" | "u64" | "handle";
  /** What a handle leads to; `operation`: what the sub-operation says; undefined: bytes, or untold. */
  readonly to?: AbiType | "operation";
  /** For an array: the argument that counts its elements. */
  readonly count?: string;
  readonly direction?: Direction;
}

/** A hypercall. */
export interface Hypercall {
  readonly number: number;
  /** By the caller's width. */
  readonly args: Readonly<Record<AbiWidth, readonly HypercallArgument[]>>;
  /** Sub-operations; the first argument chooses. */
  readonly operations?: Operations;
  /** Bits of the first argument that choose; all if left out. */
  readonly operationMask?: number;
  /** `all`: HVM and PVH domains have it as PV ones do; the others answer ENOSYS there. */
  readonly domains: "all" | "pv";
  /** For domain 0 and tool stacks alone. */
  readonly privileged?: true;
}

const scalar = (type: HypercallArgument["type"]) => (name: string): HypercallArgument => ({
  name,
  type,
});
const u16 = scalar("u16"), u32 = scalar("u32"), i32 = scalar("i32");
const u64 = scalar("u64"), ulong = scalar("ulong");
const to = (
  name: string,
  to?: HypercallArgument["to"],
  count?: string,
  direction?: Direction,
): HypercallArgument => ({ name, type: "handle", to, count, direction });

type More = Pick<Hypercall, "operations" | "operationMask" | "privileged">;
const call = (domains: Hypercall["domains"]) =>
<const M extends More>(
  number: number,
  args: readonly HypercallArgument[],
  more?: M,
): Hypercall & M => ({ number, domains, args: { 32: args, 64: args }, ...more as M });
const all = call("all"), pv = call("pv");
/** A call (cmd, argument) whose argument depends on the command. */
const cmdArg = [i32("cmd"), to("arg", "operation")];

/** A buffer of dm_op. */
export const XEN_DM_OP_BUF = struct("xen_dm_op_buf", { h: "handle", size: "ulong" });

/** Hypercalls by name. */
export const HYPERCALLS = {
  set_trap_table: pv(0, [to("traps", TRAP_INFO)]),
  mmu_update: pv(1, [
    to("reqs", MMU_UPDATE, "count"),
    u32("count"),
    to("done_out", "u32", undefined, "out"),
    u32("foreigndom"),
  ]),
  set_gdt: pv(2, [to("frames", "ulong"), u32("entries")]),
  stack_switch: pv(3, [ulong("ss"), ulong("esp")]),
  set_callbacks: {
    number: 4,
    domains: "pv",
    args: {
      32: [
        ulong("event_selector"),
        ulong("event_address"),
        ulong("failsafe_selector"),
        ulong("failsafe_address"),
      ],
      64: [ulong("event_address"), ulong("failsafe_address"), ulong("syscall_address")],
    },
  },
  fpu_taskswitch: pv(5, [i32("set")]),
  sched_op_compat: pv(6, [i32("cmd"), ulong("arg")]),
  platform_op: all(7, [to("op")], { privileged: true }),
  set_debugreg: pv(8, [i32("regno"), ulong("value")]),
  get_debugreg: pv(9, [i32("regno")]),
  update_descriptor: pv(10, [u64("pa"), u64("desc")]),
  memory_op: all(12, [ulong("cmd"), to("arg", "operation")], {
    operations: XENMEM,
    operationMask: MEMOP.CMD_MASK,
  }),
  multicall: all(13, [to("call_list", MULTICALL_ENTRY, "nr_calls", "inout"), u32("nr_calls")]),
  update_va_mapping: pv(14, [ulong("va"), u64("val"), ulong("flags")]),
  set_timer_op: all(15, [u64("timeout")]),
  event_channel_op_compat: pv(16, [to("op", EVTCHN_OP, undefined, "inout")]),
  xen_version: all(17, cmdArg, { operations: XENVER }),
  console_io: all(18, [u32("cmd"), u32("count"), to("buffer", "u8", "count", "inout")]),
  physdev_op_compat: pv(19, [to("op", PHYSDEV_OP, undefined, "inout")]),
  grant_table_op: all(20, [u32("cmd"), to("args", "operation", "count"), u32("count")], {
    operations: GNTTABOP,
  }),
  vm_assist: all(21, [u32("cmd"), u32("type")]),
  update_va_mapping_otherdomain: pv(22, [ulong("va"), u64("val"), ulong("flags"), u16("domid")]),
  iret: pv(23, []),
  vcpu_op: all(24, [i32("cmd"), u32("vcpuid"), to("arg", "operation")], { operations: VCPUOP }),
  set_segment_base: pv(25, [u32("which"), ulong("base")]),
  mmuext_op: all(26, [
    to("uops", MMUEXT_OP, "count"),
    u32("count"),
    to("pdone", "u32", undefined, "out"),
    u32("foreigndom"),
  ]),
  xsm_op: all(27, [to("op")], { privileged: true }),
  nmi_op: pv(28, cmdArg, { operations: XENNMI }),
  sched_op: all(29, cmdArg, { operations: SCHEDOP }),
  callback_op: pv(30, cmdArg, { operations: CALLBACKOP }),
  xenoprof_op: pv(31, [i32("op"), to("arg")], { privileged: true }),
  event_channel_op: all(32, cmdArg, { operations: EVTCHNOP }),
  physdev_op: all(33, cmdArg, { operations: PHYSDEVOP }),
  hvm_op: all(34, [ulong("cmd"), to("arg", "operation")], { operations: HVMOP }),
  sysctl: all(35, [to("op")], { privileged: true }),
  domctl: all(36, [to("op")], { privileged: true }),
  kexec_op: pv(37, [ulong("op"), to("arg")], { privileged: true }),
  tmem_op: pv(38, [to("op")], { privileged: true }),
  argo_op: all(39, [u32("cmd"), to("arg1"), to("arg2"), ulong("arg3"), ulong("arg4")]),
  xenpmu_op: all(40, [u32("op"), to("arg")]),
  dm_op: all(41, [u16("domid"), u32("nr_bufs"), to("bufs", XEN_DM_OP_BUF, "nr_bufs")], {
    privileged: true,
  }),
  hypfs_op: all(42, [u32("cmd"), to("arg1"), ulong("arg2"), to("arg3"), ulong("arg4")], {
    privileged: true,
  }),
  /** x86's own: machine checks. */
  arch_0: pv(48, [to("mc")], { privileged: true }),
  /** x86's own: how a domctl on paging goes on. */
  arch_1: all(49, [to("op")], { privileged: true }),
} as const satisfies Readonly<Record<string, Hypercall>>;
/** A hypercall's name. */
export type HypercallName = keyof typeof HYPERCALLS;

/** Numbers are below it: a hypercall page has stubs for so many. */
export const NR_HYPERCALLS = 64;

const byNumber: (readonly [HypercallName, Hypercall])[] = [];
for (const [name, row] of Object.entries(HYPERCALLS)) {
  byNumber[row.number] = [name as HypercallName, row];
}

/** The name and the row of a number; undefined for one that nobody has. */
export const hypercallOf = (number: number): readonly [HypercallName, Hypercall] | undefined =>
  byNumber[number];

/**
 * Registers of arguments, first to last; the number is in RAX, and so is the result. A domain's 32-bit
 * code uses the 32-bit ones whatever the domain's kernel is.
 */
export const HYPERCALL_REGISTERS = {
  32: ["rbx", "rcx", "rdx", "rsi", "rdi", "rbp"],
  64: ["rdi", "rsi", "rdx", "r10", "r8", "r9"],
} as const;

/** The arguments of a call, from the values of their registers: each cut to its type. */
export function argumentsIn(
  { args }: Hypercall,
  width: AbiWidth,
  registers: readonly bigint[],
): bigint[] {
  let next = 0;
  const word = () => BigInt.asUintN(width, registers[next++]);
  return args[width].map(({ type }) => {
    const value = word();
    if (type === "u16") return BigInt.asUintN(16, value);
    if (type === "u32") return BigInt.asUintN(32, value);
    if (type === "i32") return BigInt.asIntN(32, value);
    return type === "u64" && width === 32 ? value | word() << 32n : value;
  });
}

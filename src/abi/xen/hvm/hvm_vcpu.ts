/**
 * The state in which a vCPU of an HVM or PVH domain starts.
 * Source: Xen public/hvm/hvm_vcpu.h.
 *
 * @module
 */
import { array, struct, union } from "../../layout.ts";

/** Which registers `cpu_regs` has. */
export const VCPU_HVM_MODE = { "32B": 0, "64B": 1 } as const;

/** Attributes (`_ar`): bits 3:0 type, 4 S, 6:5 DPL, 7 P, 8 AVL, 9 L, 10 D/B, 11 G. */
const vcpu_hvm_x86_32 = struct("vcpu_hvm_x86_32", {
  eax: "u32",
  ecx: "u32",
  edx: "u32",
  ebx: "u32",
  esp: "u32",
  ebp: "u32",
  esi: "u32",
  edi: "u32",
  eip: "u32",
  eflags: "u32",
  cr0: "u32",
  cr3: "u32",
  cr4: "u32",
  pad1: "u32",
  efer: "u64",
  cs_base: "u32",
  ds_base: "u32",
  ss_base: "u32",
  es_base: "u32",
  tr_base: "u32",
  cs_limit: "u32",
  ds_limit: "u32",
  ss_limit: "u32",
  es_limit: "u32",
  tr_limit: "u32",
  cs_ar: "u16",
  ds_ar: "u16",
  ss_ar: "u16",
  es_ar: "u16",
  tr_ar: "u16",
  pad2: array("u16", 3),
});

/** Starts in long mode with flat segments. */
const vcpu_hvm_x86_64 = struct("vcpu_hvm_x86_64", {
  rax: "u64",
  rcx: "u64",
  rdx: "u64",
  rbx: "u64",
  rsp: "u64",
  rbp: "u64",
  rsi: "u64",
  rdi: "u64",
  rip: "u64",
  rflags: "u64",
  cr0: "u64",
  cr3: "u64",
  cr4: "u64",
  efer: "u64",
});

/** Argument of vcpu_op initialise. */
export const VCPU_HVM_CONTEXT = struct("vcpu_hvm_context", {
  mode: "u32",
  pad: "u32",
  cpu_regs: union({ x86_32: vcpu_hvm_x86_32, x86_64: vcpu_hvm_x86_64 }),
});

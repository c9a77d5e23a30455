/** Where the host's processor decides whose virtualization extensions it has. */
import type { HvmOps } from "./ops.ts";
import { svmOps } from "./svm/ops.ts";
import { vmxOps } from "./vmx/ops.ts";
import type { CpuModel } from "../machine/vendors.ts";

/** By which guests call the hypervisor, whoever made the processor: they are of one length. */
export const HYPERCALL_INSTRUCTIONS: readonly (readonly number[])[] = [vmxOps, svmOps].map(
  ({ hypercallInstruction }) => hypercallInstruction,
);

/** The table of a processor model. */
export function hvmOps(model: CpuModel): HvmOps {
  return model === "intel" ? vmxOps : svmOps;
}

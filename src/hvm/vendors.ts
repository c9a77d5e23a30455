/** Where the host's processor decides whose virtualization extensions it has. */
import type { CpuModel } from "../machine/cpu.ts";
import type { HvmOps } from "./ops.ts";
import { svmOps } from "./svm/ops.ts";
import { vmxOps } from "./vmx/ops.ts";

/** The table of a processor model. */
export function hvmOps(model: CpuModel): HvmOps {
  return model === "intel" ? vmxOps : svmOps;
}

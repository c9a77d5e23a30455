/** Where the host's processor decides whose virtualization extensions it has. */
import type { CpuModel } from "../machine/cpu.ts";
import type { HvmOps } from "./ops.ts";
import { vmxOps } from "./vmx.ts";

/** The table of a processor model. @throws if that vendor's extensions are not there yet */
export function hvmOps(model: CpuModel): HvmOps {
  if (model === "intel") return vmxOps;
  throw new Error(
    `cpu "${model}": its virtualization extensions are not available yet; start the host with ` +
      `cpu "intel"`,
  );
}

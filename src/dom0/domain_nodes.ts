/** What xenstore says of a domain when it is made, as tool stacks write it (docs/misc/xenstore-paths). */
import { GNTTAB } from "../abi/xen/grant_table.ts";
import { HVM_PARAM } from "../abi/xen/hvm/params.ts";
import type { Domain } from "../xen/domain.ts";
import type { PermissionText } from "./client.ts";
import { domainPath } from "./paths.ts";

/** A node: who owns it is first among its permissions. */
interface InitialNode {
  readonly path: string;
  readonly value: string;
  readonly permissions: readonly PermissionText[];
}

/** Nodes below its own part that are the domain's, to write. */
const OWN = [
  "data",
  "drivers",
  "feature",
  "attr",
  "error",
  "control/shutdown",
  "control/feature-poweroff",
  "control/feature-reboot",
  "control/feature-suspend",
  "control/sysrq",
  "device/suspend/event-channel",
] as const;

/** Of a domain that knows Xen. */
export function domainNodes({ id, name, memory, vcpus, xen }: Domain): InitialNode[] {
  const home = domainPath(id), kilobytes = `${memory.size / 1024}`;
  const port = (param: number) => `${xen!.params.get(param) ?? 0n}`;
  const readable: readonly PermissionText[] = ["n0", `r${id}`];
  const known: Readonly<Record<string, string>> = {
    "": "",
    name,
    domid: `${id}`,
    "memory/target": kilobytes,
    "memory/static-max": kilobytes,
    "store/port": port(HVM_PARAM.STORE_EVTCHN),
    "store/ring-ref": `${GNTTAB.RESERVED_XENSTORE}`,
    "console/port": port(HVM_PARAM.CONSOLE_EVTCHN),
    "console/ring-ref": `${GNTTAB.RESERVED_CONSOLE}`,
    "console/type": "xenconsoled",
    cpu: "",
    ...Object.fromEntries(vcpus.map((vcpu) => [`cpu/${vcpu.id}/availability`, "online"])),
    device: "",
    control: "",
    "control/platform-feature-multiprocessor-suspend": "1",
    "control/platform-feature-xs_reset_watches": "1",
  };
  const path = (below: string) => below ? `${home}/${below}` : home;
  return [
    ...Object.entries(known).map(([below, value]) => ({
      path: path(below),
      value,
      permissions: readable,
    })),
    ...OWN.map((below) => ({
      path: path(below),
      value: "",
      permissions: [`n${id}`] as const,
    })),
  ];
}

/** What a domain that knows Xen is given of it: shared pages, parameters, CPUID leaves. */
import { XEN_SPECIAL } from "../abi/boot/e820.ts";
import { GNTTAB } from "../abi/xen/grant_table.ts";
import { HVM_PARAM } from "../abi/xen/hvm/params.ts";
import {
  XEN_CPUID_FIRST_LEAF,
  XEN_CPUID_LEAF_OF as LEAF,
  XEN_CPUID_MAX_NUM_LEAVES,
  XEN_CPUID_SIGNATURE,
  XEN_CPUID_TSC,
  XEN_HVM_CPUID,
} from "../abi/xen/cpuid.ts";
import { XEN_VERSION } from "../xen/calls/xen_version.ts";
import type { CpuidEdit } from "../machine/cpuid.ts";
import { DomainConsole } from "../xen/console_log.ts";
import type { Domain } from "../xen/domain.ts";
import type { Frames } from "../xen/frames.ts";
import { XEN_HYPERCALL_MSR } from "../xen/hypercalls.ts";
import { XenInterface } from "../xen/interface.ts";
import { Physmap } from "../xen/physmap.ts";
import type { P2M } from "../xen/p2m.ts";
import { type E820Range, encodeE820 } from "./e820.ts";
import type { DomainConfig } from "./plan.ts";

/** Leaves 40000000h to 40000005h; ids of domain and vCPU are put in when they are asked for. */
export function xenLeaves(domain: number): CpuidEdit {
  const { EBX: ebx, ECX: ecx, EDX: edx } = XEN_CPUID_SIGNATURE;
  const leaf = (n: number) => `0x${(XEN_CPUID_FIRST_LEAF + n).toString(16)}`;
  return {
    features: { hypervisor: true },
    leaves: {
      [leaf(LEAF.signature)]: {
        eax: XEN_CPUID_FIRST_LEAF + XEN_CPUID_MAX_NUM_LEAVES,
        ebx,
        ecx,
        edx,
      },
      [leaf(LEAF.version)]: { eax: XEN_VERSION.major << 16 | XEN_VERSION.minor },
      [leaf(LEAF.hypercall)]: {
        eax: 1,
        ebx: XEN_HYPERCALL_MSR,
      },
      // The time-stamp counter counts the domain's own nanoseconds; it was started once.
      [`${leaf(LEAF.time)}.0`]: {
        eax: XEN_CPUID_TSC.reliable | XEN_CPUID_TSC.rdtscp,
        ecx: KHZ,
        edx: 1,
      },
      [`${leaf(LEAF.time)}.1`]: { ecx: 0x8000_0000, edx: 1 },
      [`${leaf(LEAF.time)}.2`]: { eax: KHZ },
      [`${leaf(LEAF.hvm)}.0`]: {
        eax: XEN_HVM_CPUID.IOMMU_MAPPINGS | XEN_HVM_CPUID.VCPU_ID_PRESENT |
          XEN_HVM_CPUID.DOMID_PRESENT |
          XEN_HVM_CPUID.UPCALL_VECTOR,
        ecx: domain,
      },
    },
  };
}
/** Of the time-stamp counter: a nanosecond a tick. */
const KHZ = 1_000_000;

/** Pages that a domain may have beside what it was given (LIBXL_MAXMEM_CONSTANT of libxl: 1 MiB). */
const SPARE_PAGES = 256;

/**
 * Gives it Xen's interface: shared_info, the pages of console and xenstore with their channels.
 *
 * @param map what its addresses are
 */
export function equipXen(
  domain: Domain,
  p2m: P2M,
  frames: Frames,
  map: readonly E820Range[],
  { memory, maxMemory = memory, xenConsole }: DomainConfig,
): void {
  const special = SHARED_PAGES.map(([page]) => XEN_SPECIAL.base / 4096 + page);
  for (const guest of special) p2m.map(guest, frames.allocate(domain.id));
  const physmap = new Physmap(p2m, encodeE820(map), maxMemory / 4096 + SPARE_PAGES);
  const xen = domain.xen = new XenInterface(domain, frames.allocate(domain.id) * 4096, physmap);
  if (xenConsole) xen.console = new DomainConsole(domain.host.log, domain.id);
  xen.grants.grow(1);
  SHARED_PAGES.forEach(([, reserved, frame, event], n) => {
    xen.grants.seed(reserved, 0, special[n]);
    xen.params.set(frame, BigInt(special[n]));
    xen.params.set(event, BigInt(xen.channels.allocUnbound(0)));
  });
  xen.updateWallClock();
  for (const vcpu of xen.vcpus) vcpu.updateTime();
}
const { STORE_PFN, STORE_EVTCHN, CONSOLE_PFN, CONSOLE_EVTCHN } = HVM_PARAM;
/** Place among the special pages, the grant of it to domain 0, and the parameters that tell of it. */
const SHARED_PAGES = [
  [4, GNTTAB.RESERVED_XENSTORE, STORE_PFN, STORE_EVTCHN],
  [7, GNTTAB.RESERVED_CONSOLE, CONSOLE_PFN, CONSOLE_EVTCHN],
] as const;

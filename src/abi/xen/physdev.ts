/**
 * Operations on physical devices and interrupts; an unprivileged domain is refused most of them.
 * Source: Xen public/physdev.h.
 *
 * @module
 */
import { array, group, struct, union } from "../layout.ts";
import { op, type Operations } from "./operation.ts";

/** Flags of irq_status_query. */
export const XENIRQSTAT = { needs_eoi: 1 << 0, shared: 1 << 1 } as const;
/** What map_pirq and get_free_pirq are for. */
export const MAP_PIRQ_TYPE = { MSI: 0, GSI: 1, UNKNOWN: 2, MSI_SEG: 3, MULTI_MSI: 4 } as const;

const physdev_eoi = struct("physdev_eoi", { irq: "u32" });
const physdev_pirq_eoi_gmfn = struct("physdev_pirq_eoi_gmfn", { gmfn: "ulong" });
const physdev_irq_status_query = struct("physdev_irq_status_query", { irq: "u32", flags: "u32" });
const physdev_set_iopl = struct("physdev_set_iopl", { iopl: "u32" });
const physdev_set_iobitmap = struct("physdev_set_iobitmap", { bitmap: "handle", nr_ports: "u32" });
const physdev_apic = struct("physdev_apic", { apic_physbase: "ulong", reg: "u32", value: "u32" });
const physdev_irq = struct("physdev_irq", { irq: "u32", vector: "u32" });
const physdev_map_pirq = struct("physdev_map_pirq", {
  domid: "u16",
  type: "i32",
  index: "i32",
  pirq: "i32",
  bus: "i32",
  devfn: "i32",
  entry_nr: "i32",
  table_base: "u64",
});
const physdev_unmap_pirq = struct("physdev_unmap_pirq", { domid: "u16", pirq: "i32" });
const physdev_manage_pci = struct("physdev_manage_pci", { bus: "u8", devfn: "u8" });
const physdev_restore_msi = struct("physdev_restore_msi", { bus: "u8", devfn: "u8" });
const physdev_manage_pci_ext = struct("physdev_manage_pci_ext", {
  bus: "u8",
  devfn: "u8",
  is_extfn: "u32",
  is_virtfn: "u32",
  physfn: group({ bus: "u8", devfn: "u8" }),
});
const physdev_setup_gsi = struct("physdev_setup_gsi", {
  gsi: "i32",
  triggering: "u8",
  polarity: "u8",
});
const physdev_get_free_pirq = struct("physdev_get_free_pirq", { type: "i32", pirq: "u32" });
const physdev_pci_mmcfg_reserved = struct("physdev_pci_mmcfg_reserved", {
  address: "u64",
  segment: "u16",
  start_bus: "u8",
  end_bus: "u8",
  flags: "u32",
});
/** `optarr` follows it: the PXM first, when `flags` says so. */
const physdev_pci_device_add = struct("physdev_pci_device_add", {
  seg: "u16",
  bus: "u8",
  devfn: "u8",
  flags: "u32",
  physfn: group({ bus: "u8", devfn: "u8" }),
  optarr: array("u32", 0),
});
const physdev_pci_device = struct("physdev_pci_device", { seg: "u16", bus: "u8", devfn: "u8" });
const physdev_dbgp_op = struct("physdev_dbgp_op", {
  op: "u8",
  bus: "u8",
  u: union({ pci: physdev_pci_device }),
});

/** physdev_op(cmd, argument). */
export const PHYSDEVOP = {
  irq_status_query: op(5, physdev_irq_status_query, { out: ["flags"] }),
  set_iopl: op(6, physdev_set_iopl),
  set_iobitmap: op(7, physdev_set_iobitmap),
  apic_read: op(8, physdev_apic, { out: ["value"], privileged: true }),
  apic_write: op(9, physdev_apic, { privileged: true }),
  alloc_irq_vector: op(10, physdev_irq, { out: ["vector"], privileged: true }),
  free_irq_vector: op(11, physdev_irq, { privileged: true }),
  eoi: op(12, physdev_eoi),
  map_pirq: op(13, physdev_map_pirq, { inout: ["pirq", "entry_nr"] }),
  unmap_pirq: op(14, physdev_unmap_pirq),
  manage_pci_add: op(15, physdev_manage_pci, { privileged: true }),
  manage_pci_remove: op(16, physdev_manage_pci, { privileged: true }),
  pirq_eoi_gmfn_v1: op(17, physdev_pirq_eoi_gmfn),
  restore_msi: op(19, physdev_restore_msi, { privileged: true }),
  manage_pci_add_ext: op(20, physdev_manage_pci_ext, { privileged: true }),
  setup_gsi: op(21, physdev_setup_gsi, { privileged: true }),
  get_free_pirq: op(23, physdev_get_free_pirq, { out: ["pirq"] }),
  pci_mmcfg_reserved: op(24, physdev_pci_mmcfg_reserved, { privileged: true }),
  pci_device_add: op(25, physdev_pci_device_add, { privileged: true }),
  pci_device_remove: op(26, physdev_pci_device, { privileged: true }),
  restore_msi_ext: op(27, physdev_pci_device, { privileged: true }),
  pirq_eoi_gmfn_v2: op(28, physdev_pirq_eoi_gmfn),
  dbgp_op: op(29, physdev_dbgp_op, { privileged: true }),
  prepare_msix: op(30, physdev_pci_device, { privileged: true }),
  release_msix: op(31, physdev_pci_device, { privileged: true }),
} as const satisfies Operations;

/** Obsolete since interface 0x00030202: a pirq's channel was unmasked. */
export const PHYSDEVOP_IRQ_UNMASK_NOTIFY = 4;

/** Argument of physdev_op_compat, the form before interface 0x00030202. */
export const PHYSDEV_OP = struct("physdev_op", {
  cmd: "u32",
  u: union({
    irq_status_query: physdev_irq_status_query,
    set_iopl: physdev_set_iopl,
    set_iobitmap: physdev_set_iobitmap,
    apic_op: physdev_apic,
    irq_op: physdev_irq,
  }),
});

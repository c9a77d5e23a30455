/**
 * Feature bits that xen_version's get_features reports, and that a kernel's notes ask for.
 * Source: Xen public/features.h.
 *
 * @module
 */

/** Bit numbers, counted over all submaps of 32. */
export const XENFEAT = {
  writable_page_tables: 0,
  writable_descriptor_tables: 1,
  auto_translated_physmap: 2,
  supervisor_mode_kernel: 3,
  pae_pgdir_above_4gb: 4,
  mmu_pt_update_preserve_ad: 5,
  highmem_assist: 6,
  gnttab_map_avail_bits: 7,
  hvm_callback_vector: 8,
  hvm_safe_pvclock: 9,
  hvm_pirqs: 10,
  dom0: 11,
  memory_op_vnode_supported: 13,
  ARM_SMCCC_supported: 14,
  linux_rsdp_unrestricted: 15,
  not_direct_mapped: 16,
  direct_mapped: 17,
} as const;
/** Submaps of 32 bits. */
export const XENFEAT_NR_SUBMAPS = 1;

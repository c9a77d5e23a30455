/**
 * How a guest finds Xen: CPUID leaves from 0x40000000 on, in steps of 0x100 where another interface
 * stands first.
 * Source: Xen public/arch-x86/cpuid.h.
 *
 * @module
 */

export const XEN_CPUID_FIRST_LEAF = 0x4000_0000;
/** Leaves up to this one, counted from the first. */
export const XEN_CPUID_MAX_NUM_LEAVES = 5;

/** "XenVMMXenVMM" in leaf 0: EBX, ECX, EDX. */
export const XEN_CPUID_SIGNATURE = {
  EBX: 0x566e_6558,
  ECX: 0x6558_4d4d,
  EDX: 0x4d4d_566e,
} as const;

/**
 * What each leaf holds, counted from the first: 0 the last leaf and the signature; 1 version (EAX: major,
 * minor); 2 hypercall pages (EAX), the first of Xen's MSRs (EBX), features (ECX, EDX); 3 time, in three
 * sub-leaves; 4 HVM; 5 PV.
 */
export const XEN_CPUID_LEAF_OF = {
  signature: 0,
  version: 1,
  hypercall: 2,
  time: 3,
  hvm: 4,
  pv: 5,
} as const;

/** Leaf 2 ECX. */
export const XEN_CPUID_FEAT1 = { MMU_PT_UPDATE_PRESERVE_AD: 1 << 0 } as const;

/** Leaf 3, sub-leaf 0, EAX (the header gives the bits without names). */
export const XEN_CPUID_TSC = { emulated: 1 << 0, reliable: 1 << 1, rdtscp: 1 << 2 } as const;

/** Leaf 4, sub-leaf 0, EAX. */
export const XEN_HVM_CPUID = {
  APIC_ACCESS_VIRT: 1 << 0,
  X2APIC_VIRT: 1 << 1,
  IOMMU_MAPPINGS: 1 << 2,
  /** EBX has the vCPU's number. */
  VCPU_ID_PRESENT: 1 << 3,
  /** ECX has the domain's number. */
  DOMID_PRESENT: 1 << 4,
  EXT_DEST_ID: 1 << 5,
  UPCALL_VECTOR: 1 << 6,
} as const;

/** Leaf 5, sub-leaf 0, EBX. */
export const XEN_CPUID_MACHINE_ADDRESS_WIDTH_MASK = 0xff;

/** Bytes from one stub of the hypercall page to the next (public/arch-x86/xen-x86_64.h). */
export const HYPERCALL_STUB_SIZE = 32;

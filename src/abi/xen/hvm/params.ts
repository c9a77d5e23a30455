/**
 * Parameters of HVM domains.
 * Source: Xen public/hvm/params.h.
 *
 * @module
 */

/** Index of hvm_op's set_param and get_param. */
export const HVM_PARAM = {
  /** How events reach vCPU 0: type in bits 63:56 (HVM_PARAM_CALLBACK_TYPE), 0 for not at all. */
  CALLBACK_IRQ: 0,
  STORE_PFN: 1,
  STORE_EVTCHN: 2,
  PAE_ENABLED: 4,
  IOREQ_PFN: 5,
  BUFIOREQ_PFN: 6,
  VIRIDIAN: 9,
  TIMER_MODE: 10,
  HPET_ENABLED: 11,
  IDENT_PT: 12,
  DM_DOMAIN: 13,
  ACPI_S_STATE: 14,
  VM86_TSS: 15,
  VPT_ALIGN: 16,
  CONSOLE_PFN: 17,
  CONSOLE_EVTCHN: 18,
  ACPI_IOPORTS_LOCATION: 19,
  MEMORY_EVENT_CR0: 20,
  MEMORY_EVENT_CR3: 21,
  MEMORY_EVENT_CR4: 22,
  MEMORY_EVENT_INT3: 23,
  NESTEDHVM: 24,
  MEMORY_EVENT_SINGLE_STEP: 25,
  BUFIOREQ_EVTCHN: 26,
  PAGING_RING_PFN: 27,
  MONITOR_RING_PFN: 28,
  SHARING_RING_PFN: 29,
  MEMORY_EVENT_MSR: 30,
  TRIPLE_FAULT_REASON: 31,
  IOREQ_SERVER_PFN: 32,
  NR_IOREQ_SERVER_PAGES: 33,
  VM_GENERATION_ID_ADDR: 34,
  ALTP2M: 35,
  X87_FIP_WIDTH: 36,
  VM86_TSS_SIZED: 37,
  MCA_CAP: 38,
} as const;
/** A parameter's name. */
export type HvmParamName = keyof typeof HVM_PARAM;
export const HVM_NR_PARAMS = 39;

/** Bits 63:56 of CALLBACK_IRQ: a GSI, an INTx line (domain, bus, devfn, pin), or a vector in bits 7:0. */
export const HVM_PARAM_CALLBACK_TYPE = { GSI: 0, PCI_INTX: 1, VECTOR: 2 } as const;
export const HVM_PARAM_CALLBACK_IRQ_TYPE_MASK = 0xff00_0000_0000_0000n;

/** TIMER_MODE: what becomes of ticks that a vCPU missed. */
export const HVMPTM = {
  delay_for_missed_ticks: 0,
  no_delay_for_missed_ticks: 1,
  no_missed_ticks_pending: 2,
  one_missed_tick_pending: 3,
} as const;

/** ALTP2M. */
export const XEN_ALTP2M = { disabled: 0, mixed: 1, external: 2, limited: 3 } as const;

/** MCA_CAP: local machine checks. */
export const XEN_HVM_MCA_CAP_LMCE = 1n;

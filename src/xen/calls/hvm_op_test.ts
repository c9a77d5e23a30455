// hvm_op: which parameters are a guest's to set and to read, and what else it may ask of its machine.
import { assert, assertEquals } from "@std/assert";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { HVMMEM, HVMOP } from "../../abi/xen/hvm/hvm_op.ts";
import { HVM_NR_PARAMS, HVM_PARAM, type HvmParamName } from "../../abi/xen/hvm/params.ts";
import { XENMEM } from "../../abi/xen/memory.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import {
  ARGUMENT,
  CALL_WAYS,
  CallGuest,
  type CallWay,
  callWayName,
} from "../../debug/testing/calls.ts";

const { EFAULT, EINVAL, ENODEV, ENOENT, ENOSYS, EOPNOTSUPP, EPERM, ESRCH } = XEN_ERRNO;
const { SELF } = DOMID, NOWHERE = 0x4000_0000;

class Guest {
  private constructor(readonly guest: CallGuest) {}
  static async make(way: CallWay, more: Parameters<typeof CallGuest.make>[1] = {}) {
    return new Guest(await CallGuest.make(way, more));
  }
  set(index: number, value: number | bigint, domid: number = SELF) {
    return this.guest.op("hvm_op", HVMOP.set_param, { domid, index, value }).result;
  }
  /** Its value; an errno. */
  get(index: number, domid: number = SELF): bigint | number {
    const { result, out } = this.guest.op("hvm_op", HVMOP.get_param, { domid, index, value: 0x77 });
    // What is not told stays as it was.
    if (result !== 0) assertEquals(out.get("value"), 0x77n);
    return result === 0 ? out.get("value") : result!;
  }
}

/** What a guest may do with each parameter of its own: "s"et, "g"et; "-": neither; "x": it is no more. */
const RULES: Readonly<Record<HvmParamName, string>> = {
  CALLBACK_IRQ: "sg",
  STORE_PFN: "g",
  STORE_EVTCHN: "sg",
  PAE_ENABLED: "x",
  IOREQ_PFN: "-",
  BUFIOREQ_PFN: "-",
  VIRIDIAN: "-",
  TIMER_MODE: "-",
  HPET_ENABLED: "-",
  IDENT_PT: "-",
  DM_DOMAIN: "x",
  ACPI_S_STATE: "-",
  VM86_TSS: "g",
  VPT_ALIGN: "-",
  CONSOLE_PFN: "g",
  CONSOLE_EVTCHN: "sg",
  ACPI_IOPORTS_LOCATION: "g",
  MEMORY_EVENT_CR0: "x",
  MEMORY_EVENT_CR3: "x",
  MEMORY_EVENT_CR4: "x",
  MEMORY_EVENT_INT3: "x",
  NESTEDHVM: "x",
  MEMORY_EVENT_SINGLE_STEP: "x",
  BUFIOREQ_EVTCHN: "x",
  PAGING_RING_PFN: "-",
  MONITOR_RING_PFN: "-",
  SHARING_RING_PFN: "-",
  MEMORY_EVENT_MSR: "x",
  TRIPLE_FAULT_REASON: "-",
  IOREQ_SERVER_PFN: "-",
  NR_IOREQ_SERVER_PAGES: "-",
  VM_GENERATION_ID_ADDR: "sg",
  ALTP2M: "g",
  X87_FIP_WIDTH: "sg",
  VM86_TSS_SIZED: "g",
  MCA_CAP: "-",
};
/** Those that are set by rules of their own. */
const OWN_RULES: ReadonlySet<string> = new Set([
  "VM86_TSS",
  "VM86_TSS_SIZED",
  "ACPI_IOPORTS_LOCATION",
]);

for (const way of CALL_WAYS) {
  const name = callWayName(way);

  Deno.test(`hvm_op: each parameter by its rule (${name})`, async () => {
    const guest = await Guest.make(way);
    for (const [name, index] of Object.entries(HVM_PARAM) as [HvmParamName, number][]) {
      const rule = RULES[name], no = rule === "x" ? -EINVAL : -EPERM;
      const value = name === "X87_FIP_WIDTH" ? 8n : 0x1_0000_0005n;
      if (!OWN_RULES.has(name)) {
        assertEquals(guest.set(index, value), rule.includes("s") ? 0 : no, `set ${name}`);
      }
      const got = guest.get(index);
      if (!rule.includes("g")) assertEquals(got, no, `get ${name}`);
      else if (rule.includes("s")) assertEquals(got, value, name);
      else assert(typeof got === "bigint", name);
    }
    // Numbers without a name.
    for (const index of [3, 7, 8]) {
      assertEquals([guest.set(index, 0), guest.get(index)], [-EPERM, -EPERM]);
    }
    for (const index of [HVM_NR_PARAMS, 0xffff_ffff]) {
      assertEquals([guest.set(index, 0), guest.get(index, 77)], [-EINVAL, -EINVAL]);
    }
  });

  Deno.test(`hvm_op: parameters of others (${name})`, async () => {
    const guest = await Guest.make(way), { host } = guest.guest.guest;
    const beside = await CallGuest.make(way, { host }), index = HVM_PARAM.STORE_EVTCHN;
    assertEquals([guest.get(index, guest.guest.domain.id)], [guest.get(index)]);
    const others = [[77, ESRCH], [DOMID.XEN, ESRCH], [0, EINVAL], [
      beside.domain.id,
      EPERM,
    ]] as const;
    for (const [domid, errno] of others) {
      assertEquals([guest.set(index, 1, domid), guest.get(index, domid)], [-errno, -errno]);
    }
    assertEquals(guest.get(HVM_PARAM.PAE_ENABLED, beside.domain.id), -EPERM);
    for (
      const { number } of [HVMOP.set_param, HVMOP.get_param, HVMOP.get_time, HVMOP.get_mem_type]
    ) {
      assertEquals(guest.guest.call("hvm_op", number, NOWHERE), -EFAULT);
    }
  });

  Deno.test(`hvm_op: values that parameters take (${name})`, async () => {
    const guest = await Guest.make(way), { VM86_TSS, VM86_TSS_SIZED, X87_FIP_WIDTH } = HVM_PARAM;
    for (const width of [0, 4, 8]) assertEquals(guest.set(X87_FIP_WIDTH, width), 0);
    for (const width of [2, 16]) assertEquals(guest.set(X87_FIP_WIDTH, width), -EINVAL);
    assertEquals(guest.set(HVM_PARAM.ACPI_IOPORTS_LOCATION, 1), -ENODEV);
    // Lines that there are not, while an upcall is due.
    guest.guest.xen.vcpus[0].notify();
    for (const via of [23n, 24n, 255n, 0x1ffn, 0xffff_ffffn, 1n << 56n | 3n, 7n << 56n | 5n]) {
      assertEquals([guest.set(HVM_PARAM.CALLBACK_IRQ, via), guest.get(HVM_PARAM.CALLBACK_IRQ)], [
        0,
        via,
      ]);
    }
    assertEquals(guest.set(VM86_TSS, 0xfee0_0000), 0);
    assertEquals([guest.get(VM86_TSS), guest.get(VM86_TSS_SIZED)], [
      0xfee0_0000n,
      128n << 32n | 0xfee0_0000n,
    ]);
    const sized = 104n << 32n | 0x1000n;
    assertEquals([guest.set(VM86_TSS_SIZED, sized), guest.get(VM86_TSS_SIZED)], [0, sized]);
    assertEquals(guest.get(VM86_TSS), 0x1000n);
    const most = 104 + 32 + 8192 + 1;
    assertEquals(guest.set(VM86_TSS_SIZED, 1n << 60n | 0x2000n), 0);
    assertEquals(guest.get(VM86_TSS_SIZED), BigInt(most) << 32n | 0x2000n);
    // A guest that errs here is at its end.
    for (const [index, value] of [[VM86_TSS, 1n << 32n], [VM86_TSS_SIZED, 103n << 32n]] as const) {
      const other = await Guest.make(way);
      other.set(index, value);
      assertEquals(other.guest.domain.state.kind, "shutdown");
      assert(/^crash /.test(other.guest.domain.describe()), other.guest.domain.describe());
    }
  });

  Deno.test(`hvm_op: kinds of memory, times, hints, and what is not there (${name})`, async () => {
    const guest = await Guest.make(way), { p2m } = guest.guest.engine;
    const call = (number: number, at: number = ARGUMENT) => guest.guest.call("hvm_op", number, at);
    const kind = (pfn: number | bigint, domid: number = SELF) => {
      const { result, out } = guest.guest.op("hvm_op", HVMOP.get_mem_type, { domid, pfn });
      return result === 0 ? out.get("mem_type") : result;
    };
    p2m.protect(0x171, { read: true, write: false, execute: true });
    guest.guest.op("memory_op", XENMEM.remove_from_physmap, { domid: SELF, gpfn: 0x172 });
    const kinds = [0x170, 0x171, 0x172, 1n << 40n].map((pfn) => kind(pfn));
    assertEquals(kinds, [HVMMEM.ram_rw, HVMMEM.ram_ro, HVMMEM.mmio_dm, HVMMEM.mmio_dm]);
    assertEquals([kind(0, 0), kind(0, 77)], [-EPERM, -ESRCH]);
    assertEquals([call(HVMOP.flush_tlbs.number), call(HVMOP.flush_tlbs.number, 0)], [-EINVAL, 0]);
    const request = HVMOP.guest_request_vm_event.number;
    assertEquals([call(request), call(request, 0)], [-EINVAL, 0]);
    const dying = (domid: number) =>
      guest.guest.op("hvm_op", HVMOP.pagetable_dying, { domid }).result;
    const { pagetable_dying } = HVMOP;
    assertEquals(
      [dying(SELF), dying(0), dying(77), call(pagetable_dying.number, NOWHERE)],
      [way.paging === "shadow" ? 0 : -EINVAL, -EOPNOTSUPP, -ESRCH, -EFAULT],
    );
    const trace = (extra_bytes: number, event: number) =>
      guest.guest.op("hvm_op", HVMOP.xentrace, { extra_bytes, event }).result;
    assertEquals([trace(28, 0xfff), trace(29, 0), trace(0, 0x1000)], [0, -EINVAL, -EINVAL]);
    assertEquals([call(HVMOP.altp2m.number, NOWHERE), call(12), call(13), call(99)], [
      -EOPNOTSUPP,
      -ENOSYS,
      -ENOSYS,
      -ENOSYS,
    ]);
    const upcall = (vcpu: number, vector: number) =>
      guest.guest.op("hvm_op", HVMOP.set_evtchn_upcall_vector, { vcpu, vector }).result;
    assertEquals([upcall(0, 0x10), upcall(7, 15), upcall(7, 16)], [0, -EINVAL, -ENOENT]);
    const time = guest.guest.op("hvm_op", HVMOP.get_time).out.get("now");
    assert(guest.guest.op("hvm_op", HVMOP.get_time).out.get("now") > time);
  });

  Deno.test(`hvm_op: flush_tlbs makes what the guest changed in its tables be seen (${name})`, async () => {
    const guest = await Guest.make(way), { guest: inside } = guest.guest;
    const call = way.cpu === "intel" ? "vmcall" : "vmmcall", wide = way.width === 64;
    // The last page of the address space leads elsewhere; its translation has been used before.
    const page = wide ? "0xfffffffffffff000" : "0xfffff000", entry = 0x7000 + 8 * 511;
    const [number, sub, arg] = wide ? ["rax", "rdi", "rsi"] : ["eax", "ebx", "ecx"];
    const address = wide ? "rbp" : "ebp";
    inside.enter(
      wide ? "long" : "pae",
      `mov ${address}, ${page}
      mov edx, [${address}]
      mov dword [${entry}], 0x170003
      mov ${number}, 34
      mov ${sub}, 5
      xor ${arg}, ${arg}
      ${call}
      mov edx, [${address}]
      hlt`,
    );
    inside.write(0x17_0000, Uint8Array.of(0x77, 0, 0, 0));
    inside.run();
    assertEquals([inside.reg("rax"), inside.reg("rdx")], [0n, 0x77n]);
  });
}

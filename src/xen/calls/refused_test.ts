// Hypercalls that a guest of a virtual machine is refused, each in its order; and where it finds Xen.
import { assertEquals } from "@std/assert";
import { type StructOf, View } from "../../abi/layout.ts";
import { DOMCTL, XEN_DOMCTL, XEN_DOMCTL_INTERFACE_VERSION } from "../../abi/xen/domctl.ts";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { EVTCHNOP } from "../../abi/xen/event_channel.ts";
import { XENFEAT } from "../../abi/xen/features.ts";
import { type HypercallName, HYPERCALLS } from "../../abi/xen/hypercalls.ts";
import { PHYSDEVOP } from "../../abi/xen/physdev.ts";
import { PLATFORM_OP, XENPF_INTERFACE_VERSION } from "../../abi/xen/platform.ts";
import { SYSCTL, XEN_SYSCTL_INTERFACE_VERSION } from "../../abi/xen/sysctl.ts";
import { XENVER } from "../../abi/xen/version.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import { ARGUMENT, CALL_WAYS, CallGuest, callWayName } from "../../debug/testing/calls.ts";

const { E2BIG, EACCES, EBUSY, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH } = XEN_ERRNO;
const { SELF } = DOMID, NOWHERE = 0x4000_0000;

/** A call whose argument is a structure with these fields. */
function given(
  guest: CallGuest,
  name: HypercallName,
  type: StructOf,
  values: Readonly<Record<string, number>>,
) {
  // deno-lint-ignore no-explicit-any
  const view = new View(type, guest.width).setAll(values as any);
  guest.guest.write(ARGUMENT, view.raw);
  return guest.call(name, ARGUMENT);
}

for (const way of CALL_WAYS) {
  const name = callWayName(way);

  Deno.test(`domain 0's hypercalls: unreadable, of another version, refused (${name})`, async () => {
    const guest = await CallGuest.make(way), { id } = guest.domain;
    const rows = [
      ["platform_op", PLATFORM_OP, XENPF_INTERFACE_VERSION],
      ["sysctl", SYSCTL, XEN_SYSCTL_INTERFACE_VERSION],
      ["domctl", DOMCTL, XEN_DOMCTL_INTERFACE_VERSION],
    ] as const;
    for (const [call, type, interface_version] of rows) {
      const ask = (values: Readonly<Record<string, number>>) =>
        given(guest, call, type as StructOf, values);
      assertEquals(guest.call(call, NOWHERE), -EFAULT, call);
      assertEquals(guest.call(call, 0x20_0000 - 64), -EFAULT, call);
      assertEquals(ask({}), -EACCES, call);
      assertEquals(ask({ interface_version }), -EPERM, call);
    }
    const domctl = (cmd: keyof typeof XEN_DOMCTL, domain: number) =>
      given(guest, "domctl", DOMCTL as StructOf, {
        cmd: XEN_DOMCTL[cmd],
        interface_version: XEN_DOMCTL_INTERFACE_VERSION,
        domain,
      });
    const asked = [
      domctl("pausedomain", id),
      domctl("pausedomain", 0),
      domctl("pausedomain", 77),
      domctl("pausedomain", SELF),
      domctl("createdomain", 77),
      domctl("test_assign_device", DOMID.INVALID),
      domctl("test_assign_device", 77),
    ];
    const errors = [EPERM, EPERM, ESRCH, ESRCH, EPERM, EPERM, ESRCH];
    assertEquals(asked, errors.map((errno) => -errno));
    const paging = (values: Readonly<Record<string, number>>) =>
      given(guest, "arch_1", DOMCTL as StructOf, values);
    const interface_version = XEN_DOMCTL_INTERFACE_VERSION, cmd = XEN_DOMCTL.shadow_op;
    assertEquals(
      [
        guest.call("arch_1", NOWHERE),
        paging({}),
        paging({ interface_version }),
        paging({ interface_version, cmd, domain: 77 }),
        paging({ interface_version, cmd, domain: id }),
      ],
      [-EFAULT, -EOPNOTSUPP, -EOPNOTSUPP, -ESRCH, -EPERM],
    );
  });

  Deno.test(`device models', page tables', and what is switched off (${name})`, async () => {
    const guest = await CallGuest.make(way),
      beside = await CallGuest.make(way, { host: guest.guest.host });
    const dm = (domid: number, count: number, at = ARGUMENT) =>
      guest.call("dm_op", domid, count, at);
    assertEquals([dm(77, 3), dm(77, 1, NOWHERE), dm(77, 1), dm(SELF, 0)], [
      -E2BIG,
      -EFAULT,
      -ESRCH,
      -ESRCH,
    ]);
    assertEquals([dm(0, 0), dm(guest.domain.id, 0), dm(beside.domain.id, 0)], [
      -EINVAL,
      -EPERM,
      -EPERM,
    ]);
    const mmuext = (domid: number) => guest.call("mmuext_op", ARGUMENT, 0, 0, domid);
    const domains = [SELF, guest.domain.id, beside.domain.id, 0, DOMID.IO, 77];
    assertEquals(domains.map(mmuext), [-EINVAL, -ESRCH, -EINVAL, -EPERM, -EPERM, -ESRCH]);
    assertEquals([guest.call("hypfs_op", 0, NOWHERE), guest.call("xsm_op", ARGUMENT)], [
      -EPERM,
      -ENOSYS,
    ]);
    assertEquals([guest.call("argo_op"), guest.call("xenpmu_op")], [-EOPNOTSUPP, -EOPNOTSUPP]);
    for (const { number } of Object.values(PHYSDEVOP)) {
      assertEquals(guest.call("physdev_op", number, NOWHERE), -ENOSYS);
    }
    for (const [call, { domains }] of Object.entries(HYPERCALLS)) {
      if (domains === "pv") assertEquals(guest.call(call as HypercallName, 0, 0), -ENOSYS, call);
    }
    for (const number of [0x8000_0000, 0xffff_ffff]) assertEquals(guest.call(number), -ENOSYS);
  });

  Deno.test(`a reset that goes on is none of a guest's (${name})`, async () => {
    const guest = await CallGuest.make(way);
    const ask = (dom: number) => {
      guest.argument(EVTCHNOP.reset, { dom });
      return guest.call("event_channel_op", 14, ARGUMENT);
    };
    assertEquals([ask(SELF), ask(guest.domain.id), ask(0), ask(77)], [
      -EBUSY,
      -EBUSY,
      -EPERM,
      -ESRCH,
    ]);
    assertEquals(guest.call("event_channel_op", 14, NOWHERE), -EFAULT);
  });

  Deno.test(`xen_version: what is told, and what is denied (${name})`, async () => {
    const guest = await CallGuest.make(way), fill = new Uint8Array(1024).fill(0xcc);
    const ask = (what: keyof typeof XENVER, at = ARGUMENT) => {
      guest.guest.write(ARGUMENT, fill);
      return guest.call("xen_version", XENVER[what].number, at);
    };
    const written = () => {
      const bytes = guest.domain.memory.read(ARGUMENT, 1024);
      return 1024 - [...bytes].reverse().findIndex((byte) => byte !== 0xcc);
    };
    const lengths = {
      extraversion: 16,
      capabilities: 1024,
      changeset: 64,
      guest_handle: 16,
      commandline: 9,
    };
    for (const [what, length] of Object.entries(lengths)) {
      assertEquals([ask(what as keyof typeof XENVER), written()], [0, length], what);
      assertEquals(ask(what as keyof typeof XENVER, NOWHERE), -EFAULT, what);
    }
    ask("commandline");
    assertEquals(new TextDecoder().decode(guest.domain.memory.read(ARGUMENT, 9)), "<denied>\0");
    assertEquals([ask("pagesize"), ask("pagesize", 0), ask("build_id", NOWHERE)], [
      -EINVAL,
      4096,
      -EPERM,
    ]);
    assertEquals(ask("version", NOWHERE), 4 << 16 | 17);
    guest.guest.write(ARGUMENT, new Uint8Array(8));
    assertEquals(guest.call("xen_version", XENVER.get_features.number, ARGUMENT), 0);
    const map = new DataView(guest.domain.memory.read(ARGUMENT + 4, 4).buffer).getUint32(0, true);
    const bits = Object.entries(XENFEAT).filter(([, bit]) => map >>> bit & 1).map(([name]) => name);
    assertEquals(bits, [
      "writable_page_tables",
      "auto_translated_physmap",
      "hvm_callback_vector",
      "hvm_safe_pvclock",
      "memory_op_vnode_supported",
      "not_direct_mapped",
    ]);
    guest.call("xen_version", XENVER.platform_parameters.number, ARGUMENT);
    const bytes = guest.domain.memory.read(ARGUMENT, way.width / 8);
    const start = way.width === 64 ? [0, 0, 0, 0, 0, 0x80, 0xff, 0xff] : [0, 0, 0, 0];
    assertEquals([...bytes], start);
  });

  Deno.test(`CPUID leaves tell Xen, the domain and the vCPU (${name})`, async () => {
    const guest = await CallGuest.make(way, { vcpus: 2 }), { id } = guest.domain;
    const leaf = (n: number, subleaf = 0, vcpu = 0) => {
      const engine = guest.domain.vcpus[vcpu].engine as typeof guest.engine;
      const { eax, ebx, ecx, edx } = engine.cpuidLeaf(0x4000_0000 + n, subleaf);
      return [eax, ebx, ecx, edx];
    };
    assertEquals(leaf(0), [0x4000_0005, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e]);
    assertEquals([leaf(1), leaf(2)], [[4 << 16 | 17, 0, 0, 0], [1, 0x4000_0000, 0, 0]]);
    assertEquals([leaf(4), leaf(4, 0, 1), leaf(4, 1)], [[0x5c, 0, id, 0], [0x5c, 1, id, 0], [
      0,
      0,
      0,
      0,
    ]]);
    assertEquals([leaf(3), leaf(3, 2)], [[6, 0, 1_000_000, 1], [1_000_000, 0, 0, 0]]);
    for (const n of [5, 6, 0x64, 0xff]) assertEquals(leaf(n), [0, 0, 0, 0]);
  });

  if (way.width === 64) {
    Deno.test(`of a handle, and of a number, what 64 bits have more (${name})`, async () => {
      const guest = await CallGuest.make(way), { number } = XENVER.extraversion;
      // Bits 63:48 of an address lead nowhere: they are not looked at.
      for (const high of [0x8000n, 0x1n, 0xffffn]) {
        assertEquals(guest.call("xen_version", number, high << 48n | BigInt(ARGUMENT)), 0);
      }
      const { ops, hvm } = guest.engine;
      assertEquals(guest.call("xen_version", 0), 4 << 16 | 17);
      ops.setRegister(hvm, "rax", 1n << 32n | 17n);
      ops.setRegister(hvm, "rdi", 0n);
      guest.guest.enter("long", `${way.cpu === "intel" ? "vmcall" : "vmmcall"}\nhlt`, {
        regs: { rsp: 0xb000n, rax: 1n << 32n | 17n, rdi: 0n },
      });
      guest.guest.run();
      assertEquals(BigInt.asIntN(64, guest.guest.reg("rax")), -BigInt(ENOSYS));
    });
  }
}

// Guests that know Xen: where they find it, their calls, and events between them.
import { assert, assertEquals } from "@std/assert";
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { EVTCHNOP, EVTCHNSTAT } from "../abi/xen/event_channel.ts";
import { HVMOP } from "../abi/xen/hvm/hvm_op.ts";
import { HVM_PARAM } from "../abi/xen/hvm/params.ts";
import { HYPERCALLS } from "../abi/xen/hypercalls.ts";
import { XENMEM } from "../abi/xen/memory.ts";
import { DOMID, VIRQ } from "../abi/xen/xen.ts";
import { XENVER } from "../abi/xen/version.ts";
import { ARGUMENT, CALL_WAYS, CallGuest, callWayName } from "../debug/testing/calls.ts";
import { AT } from "../debug/testing/ways.ts";
import { hypercallPage, XEN_HYPERCALL_MSR } from "./hypercalls.ts";
import { hostHash, loadHost, saveHost } from "./state.ts";

const { EFAULT, EINVAL, ENOSYS, EPERM, ESRCH } = XEN_ERRNO;
const { SELF } = DOMID;

for (const way of CALL_WAYS.filter(({ width }) => width === 32)) {
  Deno.test(`user code may call nothing (${callWayName(way)})`, async () => {
    const { guest } = await CallGuest.make(way), { xen_version } = HYPERCALLS;
    const user = (attributes: number, selector: number) => ({
      selector,
      base: 0n,
      limit: 0xffff_ffff,
      attributes: attributes | 0x60,
    });
    guest.enter(
      "flat32",
      `mov eax, ${xen_version.number}\nxor ebx, ebx\n${
        way.cpu === "intel" ? "vmcall" : "vmmcall"
      }\nhlt`,
    );
    const data = user(0xc093, 19), { ops, hvm } = guest.engine!;
    for (const name of ["ds", "es", "ss", "fs", "gs"] as const) ops.setSegment(hvm, name, data);
    ops.setSegment(hvm, "cs", user(0xc09b, 11));
    // The stack of the handler of #GP, to which HLT comes.
    guest.write64(AT.tss, BigInt(AT.stack) << 32n, 16n);
    assertEquals([guest.run(), guest.reg("rbx"), guest.reg("rax") & 0xffff_ffffn], [
      "blocked",
      13n,
      BigInt.asUintN(32, -BigInt(EPERM)),
    ]);
  });
}

for (const way of CALL_WAYS) {
  const other = way.cpu === "intel" ? "vmmcall" : "vmcall";
  Deno.test(`a guest that does not find its processor's vendor calls by either instruction (${callWayName(way)})`, async () => {
    const models = ["common", way.cpu === "intel" ? "amd" : "intel"] as const;
    for (const model of models) {
      const call = await CallGuest.make(way, { cpuid: { model } }), { guest } = call;
      const exits = () => call.domain.exits.hypercall ?? 0;
      for (const instruction of ["vmcall", "vmmcall"]) {
        const before = exits();
        guest.enter(
          way.width === 64 ? "long" : "pae",
          `mov eax, ${HYPERCALLS.xen_version.number}\nxor ebx, ebx\nxor edi, edi\n${instruction}\nmov ebx, 99\nhlt`,
        );
        guest.run();
        assertEquals([guest.reg("rax"), guest.reg("rbx"), exits() - before], [0x4_0011n, 99n, 1]);
      }
      // What is undefined otherwise stays so.
      guest.enter(way.width === 64 ? "long" : "pae", "ud2\nhlt");
      guest.run();
      assertEquals(guest.reg("rbx"), 6n);
    }
    // One that finds the vendor has that one's.
    const { guest } = await CallGuest.make(way);
    guest.enter(way.width === 64 ? "long" : "pae", `${other}\nhlt`);
    guest.run();
    assertEquals(guest.reg("rbx"), 6n);
  });

  const name = callWayName(way);

  Deno.test(`xen_version: answers, texts and features; unknown calls are ENOSYS (${name})`, async () => {
    const guest = await CallGuest.make(way);
    assertEquals(guest.call("xen_version", XENVER.version.number), 4 << 16 | 17);
    assertEquals(guest.call("xen_version", XENVER.extraversion.number, ARGUMENT), 0);
    const text = new TextDecoder().decode(guest.domain.memory.read(ARGUMENT, 5));
    assertEquals(text, ".xvm\0");
    const { result, out } = guest.op("xen_version", XENVER.get_features, { submap_idx: 0 });
    assertEquals([result, out.get("submap") >>> 8 & 1], [0, 1]);
    assertEquals(
      guest.op("xen_version", XENVER.get_features, { submap_idx: 1 }).result,
      -EINVAL,
    );
    assertEquals(guest.call("xen_version", 99), -ENOSYS);
    for (const number of [11, 63, 64, 4096, 0xffff_ffff]) assertEquals(guest.call(number), -ENOSYS);
  });

  Deno.test(`what a guest's tables do not allow is EFAULT (${name})`, async () => {
    const guest = await CallGuest.make(way);
    const outside = 0x4000_0000;
    assertEquals(guest.call("xen_version", XENVER.extraversion.number, outside), -EFAULT);
    assertEquals(guest.call("event_channel_op", EVTCHNOP.send.number, outside), -EFAULT);
    // The second half of the argument lies where nothing is mapped.
    const last = 0x1f_fffc;
    assertEquals(guest.call("event_channel_op", EVTCHNOP.alloc_unbound.number, last), -EFAULT);
  });

  Deno.test(`the hypercall page is written where the MSR says, and nowhere else (${name})`, async () => {
    const guest = await CallGuest.make(way), { engine } = guest;
    const page = () => guest.domain.memory.read(0x10_0000, 4096);
    const wrmsr = (value: bigint) => {
      guest.guest.enter(
        way.width === 64 ? "long" : "pae",
        `mov ecx, ${XEN_HYPERCALL_MSR}\nmov eax, ${value & 0xffff_ffffn}\nmov edx, ${
          value >> 32n
        }\nwrmsr\nmov ebx, 99\nhlt`,
      );
      guest.guest.run();
      return guest.guest.reg("rbx");
    };
    assertEquals(wrmsr(0x10_0000n), 99n);
    assertEquals(page(), hypercallPage(engine.ops.hypercallInstruction));
    const xor = HYPERCALLS.xen_version.number * 32;
    assertEquals(page()[xor + 1], HYPERCALLS.xen_version.number);
    // Another page's number, and a place without memory: #GP.
    assertEquals([wrmsr(0x10_0001n), wrmsr(0x3000_0000n), wrmsr(1n << 40n)], [13n, 13n, 13n]);
  });

  Deno.test(`event channels between two domains: bound, sent, masked, lost and closed (${name})`, async () => {
    const one = await CallGuest.make(way);
    const two = await CallGuest.make(way, { host: one.guest.host });
    const op = <O extends (typeof EVTCHNOP)[keyof typeof EVTCHNOP]>(
      guest: CallGuest,
      operation: O,
      values: Readonly<Record<string, number>>,
    ) => guest.op("event_channel_op", operation, values);
    const offered = op(one, EVTCHNOP.alloc_unbound, { dom: SELF, remote_dom: two.domain.id });
    assertEquals(offered.result, 0);
    const port = offered.out.get("port");
    const bound = op(two, EVTCHNOP.bind_interdomain, {
      remote_dom: one.domain.id,
      remote_port: port,
    });
    assertEquals(bound.result, 0);
    const peer = bound.out.get("local_port");
    // A port that is bound, one that is for another, and a domain that is not there.
    const again = { remote_dom: one.domain.id, remote_port: port };
    assertEquals(op(two, EVTCHNOP.bind_interdomain, again).result, -EINVAL);
    assertEquals(
      op(two, EVTCHNOP.bind_interdomain, { remote_dom: 77, remote_port: 1 }).result,
      -ESRCH,
    );
    assertEquals(op(one, EVTCHNOP.alloc_unbound, { dom: two.domain.id }).result, -EPERM);
    const status = op(one, EVTCHNOP.status, { dom: SELF, port }).out;
    assertEquals(
      [status.get("status"), status.get("u.interdomain.dom"), status.get("u.interdomain.port")],
      [EVTCHNSTAT.interdomain, two.domain.id, peer],
    );
    // Binding has told the binder; the other is told by a send.
    const { channels } = one.xen, [vcpu] = one.xen.vcpus;
    assertEquals(channels.abi.isPending(port), false);
    assertEquals(op(two, EVTCHNOP.send, { port: peer }).result, 0);
    assertEquals(channels.abi.isPending(port), true);
    assertEquals(one.xen.memory.byte(vcpu.info), 1);
    assert(one.xen.memory.bit(vcpu.selector, Math.floor(port / way.width)));
    op(two, EVTCHNOP.send, { port: peer });
    assertEquals([channels.get(port)!.sent, channels.get(port)!.merged], [2, 1]);
    assertEquals(channels.get(port)!.lastBy, two.domain.id);
    assertEquals(op(one, EVTCHNOP.close, { port }).result, 0);
    assertEquals(two.xen.channels.get(peer)!.state, "unbound");
    assertEquals(op(two, EVTCHNOP.send, { port: peer }).result, 0);
    assertEquals(op(one, EVTCHNOP.close, { port }).result, -EINVAL);
    // The death of a domain is the end of its channels.
    const more = op(two, EVTCHNOP.alloc_unbound, { dom: SELF, remote_dom: one.domain.id });
    const remote_port = more.out.get("port");
    const third = op(one, EVTCHNOP.bind_interdomain, { remote_dom: two.domain.id, remote_port });
    two.domain.destroy();
    const left = third.out.get("local_port");
    assertEquals(op(one, EVTCHNOP.status, { dom: SELF, port: left }).out.get("status"), 1);
    assertEquals(op(one, EVTCHNOP.status, { dom: two.domain.id, port: 1 }).result, -ESRCH);
  });

  Deno.test(`a masked event shows when it is unmasked; an upcall comes by the callback's vector (${name})`, async () => {
    const guest = await CallGuest.make(way), { channels, vcpus: [vcpu], memory } = guest.xen;
    const { out } = guest.op("event_channel_op", EVTCHNOP.bind_ipi, { vcpu: 0 });
    const port = out.get("port");
    const via = 2n << 56n | 0x20n;
    assertEquals(
      guest.op("hvm_op", HVMOP.set_param, {
        domid: SELF,
        index: HVM_PARAM.CALLBACK_IRQ,
        value: via,
      }).result,
      0,
    );
    channels.abi.mask(port);
    assertEquals(guest.op("event_channel_op", EVTCHNOP.send, { port }).result, 0);
    assertEquals([memory.byte(vcpu.info), vcpu.vector, channels.get(port)!.masked], [0, -1, 1]);
    assertEquals(guest.op("event_channel_op", EVTCHNOP.unmask, { port }).result, 0);
    assertEquals([memory.byte(vcpu.info), vcpu.vector], [1, 0x20]);
    // Its handler notes the vector and halts.
    guest.guest.enter(way.width === 64 ? "long" : "pae", "sti\nnop\nnop\nmov ebx, 99\nhlt");
    assertEquals(guest.guest.run(), "blocked");
    assertEquals(guest.guest.reg("rbx"), 0x20n);
    // What the guest has cleared asks for nothing.
    memory.setByte(vcpu.info, 0);
    assertEquals([vcpu.vector, vcpu.raised], [-1, false]);
  });

  Deno.test(`a callback by GSI is a line that is up until the guest has looked (${name})`, async () => {
    const guest = await CallGuest.make(way), lines: [number, boolean][] = [];
    const { platform } = guest.domain, setLine = platform!.setLine.bind(platform);
    platform!.setLine = (gsi, level) => {
      lines.push([gsi, level]);
      setLine(gsi, level);
    };
    const set = (value: bigint) =>
      guest.op("hvm_op", HVMOP.set_param, {
        domid: SELF,
        index: HVM_PARAM.CALLBACK_IRQ,
        value,
      }).result;
    assertEquals(set(11n), 0);
    const port = guest.op("event_channel_op", EVTCHNOP.bind_ipi, { vcpu: 0 }).out.get("port");
    assertEquals(guest.op("event_channel_op", EVTCHNOP.send, { port }).result, 0);
    assertEquals(lines, [[11, true]]);
    guest.call("xen_version", 0);
    assertEquals(lines, [[11, true]]);
    guest.xen.memory.setByte(guest.xen.vcpus[0].info, 0);
    guest.call("xen_version", 0);
    assertEquals(lines, [[11, true], [11, false]]);
    // No controller has such a line: nothing comes.
    for (const gsi of [24n, 0xffn, 0x1ffn, 0xffff_ffffn, 0x100n]) {
      assertEquals(set(gsi), 0);
      const count = lines.length;
      guest.xen.vcpus[0].notify();
      guest.xen.memory.setByte(guest.xen.vcpus[0].info, 0);
      guest.call("xen_version", 0);
      assertEquals(lines.length, count, `${gsi}`);
    }
    // A vector in its place, while an upcall is due.
    assertEquals(set(11n), 0);
    guest.op("event_channel_op", EVTCHNOP.unmask, { port });
    guest.xen.vcpus[0].notify();
    assertEquals(set(2n << 56n | 0x30n), 0);
    assertEquals([lines.at(-1), guest.xen.vcpus[0].vector], [[11, false], 0x30]);
  });

  Deno.test(`shared_info is seen where the guest maps it, and gives its place back (${name})`, async () => {
    const guest = await CallGuest.make(way), { p2m } = guest.engine;
    const before = p2m.frames.free;
    const add = (gpfn: number) =>
      guest.op("memory_op", XENMEM.add_to_physmap, { domid: SELF, space: 0, idx: 0, gpfn }).result;
    assertEquals(add(0x180), 0);
    assertEquals(p2m.machineFrame(0x180), guest.xen.sharedInfo / 4096);
    assertEquals(p2m.frames.free, before + 1);
    assertEquals(add(0x181), 0);
    assertEquals(p2m.machineFrame(0x180), -1);
    assertEquals(p2m.frames.free, before + 2);
    assertEquals(add(0x181), 0);
    assertEquals(p2m.frames.free, before + 2);
    assertEquals(add(2 ** 23), -EINVAL);
  });
}

Deno.test("channels, parameters and timers are saved; loaded, the guest goes on as it would have", async () => {
  const guest = await CallGuest.make(CALL_WAYS[0]), { host } = guest.guest;
  guest.op("event_channel_op", EVTCHNOP.bind_virq, { virq: VIRQ.TIMER, vcpu: 0 });
  guest.call("set_timer_op", 5_000_000, 0);
  const saved = saveHost(host), before = hostHash(host);
  const on = () => {
    guest.guest.idle(3);
    return [hostHash(host), guest.xen.channels.all.map(({ port, sent }) => [port, sent])];
  };
  const first = on();
  loadHost(host, saved);
  assertEquals(hostHash(host), before);
  assertEquals(on(), first);
  assertEquals(guest.xen.channels.ofVirq(VIRQ.TIMER, 0)!.sent, 1);
});

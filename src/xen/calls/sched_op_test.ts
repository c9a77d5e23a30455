// A vCPU gives its turn away, waits, and ends its domain.
import { assert, assertEquals } from "@std/assert";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { EVTCHNOP } from "../../abi/xen/event_channel.ts";
import { HVM_PARAM } from "../../abi/xen/hvm/params.ts";
import { SCHEDOP } from "../../abi/xen/sched.ts";
import { VCPUOP } from "../../abi/xen/vcpu.ts";
import { VIRQ } from "../../abi/xen/xen.ts";
import { ARGUMENT, CALL_WAYS, CallGuest, callWayName } from "../../debug/testing/calls.ts";
import { AT } from "../../debug/testing/ways.ts";
import { hostHash, loadHost, saveHost } from "../state.ts";

const { EFAULT, EINVAL, ENOSPC, ENOSYS, EPERM, ESRCH } = XEN_ERRNO;
const PORTS = 0x3_2000, SECOND = 1e9, CALLBACK = 2n << 56n | 0x20n;

const bindIpi = (guest: CallGuest) =>
  guest.op("event_channel_op", EVTCHNOP.bind_ipi, { vcpu: 0 }).out.get("port");
/** SCHEDOP_poll of ports. */
function poll(
  guest: CallGuest,
  ports: readonly number[],
  more: Record<string, number | bigint> = {},
) {
  guest.guest.write(PORTS, new Uint8Array(Uint32Array.from(ports).buffer));
  const values = { ports: PORTS, nr_ports: ports.length, ...more };
  return guest.op("sched_op", SCHEDOP.poll, values).result;
}
const plain = (guest: CallGuest, operation: { number: number }) =>
  guest.call("sched_op", operation.number, ARGUMENT);
const shutDown = (guest: CallGuest, reason: number) =>
  guest.op("sched_op", SCHEDOP.shutdown, { reason }).result;
const waits = (guest: CallGuest) => guest.xen.vcpus[0].waits;
const events = (guest: CallGuest) => {
  guest.xen.params.set(HVM_PARAM.CALLBACK_IRQ, CALLBACK);
  guest.xen.setCallback(CALLBACK);
};
/** An event by a port, as from another. */
const raise = (guest: CallGuest, port: number) => void guest.xen.channels.raise(port);

for (const way of CALL_WAYS) {
  const name = callWayName(way), mode = way.width === 64 ? "long" : "pae";

  Deno.test(`SCHEDOP_block: until an upcall, whatever IF is; not while one is to be delivered (${name})`, async () => {
    const guest = await CallGuest.make(way), port = bindIpi(guest);
    events(guest);
    assertEquals(plain(guest, SCHEDOP.block), undefined);
    assertEquals([guest.domain.state.kind, guest.xen.vcpus[0].described], [
      "blocked",
      "in SCHEDOP_block",
    ]);
    raise(guest, port);
    assertEquals([guest.goOn(), waits(guest)], [0, "no"]);
    // It is pending, and IF keeps it out: another event tells nobody anything, so it waits.
    assertEquals(plain(guest, SCHEDOP.block), undefined);
    raise(guest, port);
    assertEquals(guest.goOn(), undefined);
    // An interrupt that comes in its wait ends it, too; one that was there does not.
    const { port: apic } = guest.engine;
    guest.domain.platform!.mmioWrite(0xfee0_00f0, 4, 0x1ff, 0);
    apic.raise(0x40);
    assertEquals(guest.goOn(), undefined, "it had begun with an upcall pending");
    guest.xen.memory.setByte(guest.xen.vcpus[0].info, 0);
    guest.xen.vcpus[0].notify();
    assertEquals(guest.goOn(), 0);
    // With IF set it does not wait: the handler of the upcall has its turn.
    const call = way.cpu === "intel" ? "vmcall" : "vmmcall";
    guest.guest.write(AT.code, guest.guest.assemble(mode, `sti\n${call}\ncli\nhlt`));
    assertEquals(plain(guest, SCHEDOP.block) === undefined, false);
    assertEquals(guest.guest.reg("rbx") & 0xffn, 0x20n);
  });

  Deno.test(`SCHEDOP_block: an upcall by a vector of its own, or none at all (${name})`, async () => {
    const guest = await CallGuest.make(way), port = bindIpi(guest), [vcpu] = guest.xen.vcpus;
    assertEquals(plain(guest, SCHEDOP.block), undefined);
    // Nobody said how upcalls come: none does.
    raise(guest, port);
    assertEquals(guest.goOn(), undefined);
    guest.xen.memory.setByte(vcpu.info, 0);
    guest.xen.memory.setWord(vcpu.selector, 0);
    guest.xen.channels.abi.clear(port);
    guest.domain.platform!.mmioWrite(0xfee0_00f0, 4, 0x1ff, 0);
    vcpu.apicVector = 0x60;
    raise(guest, port);
    assertEquals(guest.goOn(), 0);
    // A timer of its own ends it by its event.
    const other = await CallGuest.make(way);
    events(other);
    other.op("event_channel_op", EVTCHNOP.bind_virq, { virq: VIRQ.TIMER, vcpu: 0 });
    const timeout_abs_ns = other.domain.now + 50_000;
    other.op("vcpu_op", VCPUOP.set_singleshot_timer, { timeout_abs_ns }, [0]);
    assertEquals(plain(other, SCHEDOP.block), undefined);
    other.guest.host.idle();
    assertEquals(other.goOn(), 0);
    assert(other.domain.now >= timeout_abs_ns && other.domain.now < timeout_abs_ns + 1000);
  });

  Deno.test(`SCHEDOP_poll: what is refused, and what ends it at once (${name})`, async () => {
    const guest = await CallGuest.make(way), port = bindIpi(guest), bad = 0x4000_0000;
    assertEquals(guest.call("sched_op", SCHEDOP.poll.number, bad), -EFAULT);
    assertEquals(poll(guest, [port], { nr_ports: 129, ports: bad }), -EINVAL);
    assertEquals(poll(guest, [port], { ports: bad }), -EFAULT);
    for (const none of [0, port + 1, 131072, 0xffff_ffff]) {
      assertEquals(poll(guest, [none]), -EINVAL);
      assertEquals(poll(guest, [port, none]), -EINVAL);
    }
    guest.xen.channels.abi.mask(port);
    raise(guest, port);
    // One that is pending ends it, masked or not, before the rest is looked at.
    assertEquals(poll(guest, [port, 0xffff_ffff]), 0);
    guest.xen.channels.abi.clear(port);
    assertEquals([guest.call("sched_op", 99, 0), plain(guest, SCHEDOP.pin_override)], [
      -ENOSYS,
      -EPERM,
    ]);
  });

  Deno.test(`SCHEDOP_poll: an event on a masked port ends it; of one port its own, of several any (${name})`, async () => {
    const guest = await CallGuest.make(way),
      ports = [bindIpi(guest), bindIpi(guest), bindIpi(guest)];
    const { abi } = guest.xen.channels, [first, second, third] = ports;
    events(guest);
    for (const port of ports) abi.mask(port);
    const clear = () => ports.forEach((port) => abi.clear(port));
    assertEquals(poll(guest, [first]), undefined);
    assertEquals(guest.xen.vcpus[0].described, `in SCHEDOP_poll of ports ${first}`);
    raise(guest, second);
    assertEquals(guest.goOn(), undefined);
    raise(guest, first);
    assertEquals([guest.goOn(), waits(guest)], [0, "no"]);
    clear();
    // An upcall ends it as it ends all.
    abi.unmask(guest.xen.channels.get(third)!);
    assertEquals(poll(guest, [first]), undefined);
    raise(guest, third);
    assertEquals(guest.goOn(), 0);
    clear();
    abi.mask(third);
    assertEquals(poll(guest, [first, second]), undefined);
    raise(guest, third);
    assertEquals(guest.goOn(), 0);
    // What is pending already is no event, though it is sent again.
    assertEquals(poll(guest, [first, second]), undefined);
    raise(guest, third);
    assertEquals(guest.goOn(), undefined);
    raise(guest, second);
    assertEquals(guest.goOn(), 0);
  });

  Deno.test(`SCHEDOP_poll: until a system time, or not at all if that is past (${name})`, async () => {
    const guest = await CallGuest.make(way), port = bindIpi(guest), { host } = guest.guest;
    guest.xen.channels.abi.mask(port);
    for (const ports of [[], [port], [port, port]]) {
      const timeout = guest.domain.now + 70_000;
      assertEquals(poll(guest, ports, { timeout }), undefined);
      host.idle();
      assertEquals(guest.goOn(), 0);
      assert(guest.domain.now >= timeout && guest.domain.now < timeout + 1000);
      assertEquals(guest.xen.vcpus[0].timers.poll, Infinity);
      for (const past of [1n, -1n]) {
        const { now } = guest.domain;
        assertEquals(poll(guest, ports, { timeout: past }) ?? (host.idle(), guest.goOn()), 0);
        assert(guest.domain.now >= now && guest.domain.now - now < 1000);
      }
    }
    // The event comes first, and the time is nobody's any more.
    const timeout = guest.domain.now + 70_000;
    assertEquals(poll(guest, [port], { timeout }), undefined);
    raise(guest, port);
    assertEquals(guest.goOn(), 0);
    assertEquals(guest.xen.deadline, Infinity);
  });

  Deno.test(`SCHEDOP_yield: others have their turn (${name})`, async () => {
    const guest = await CallGuest.make(way),
      other = await CallGuest.make(way, {
        host: guest.guest.host,
      });
    const call = way.cpu === "intel" ? "vmcall" : "vmmcall", rounds = 50;
    const b = way.width === 64 ? "edi" : "ebx";
    const code =
      `mov ebp, ${rounds}\nmore: mov eax, 29\nxor ${b}, ${b}\n${call}\ndec ebp\njnz more\nhlt`;
    for (const { guest: one } of [guest, other]) one.enter(mode, code);
    const { host } = guest.guest, seen: number[] = [];
    while (host.runOnce(Infinity) && seen.length < 1000) {
      seen.push(host.processors[0].current!.domain.id);
    }
    // One after the other, as long as there are two.
    const changes = seen.filter((id, n) => n > 0 && id !== seen[n - 1]).length;
    assert(changes >= 2 * rounds - 2, `${changes} changes of ${seen.length} turns`);
    assertEquals([plain(guest, SCHEDOP.yield), guest.domain.state.kind], [0, "blocked"]);
  });

  Deno.test(`SCHEDOP_watchdog: two, set anew or given back; one that rings ends the domain (${name})`, async () => {
    const guest = await CallGuest.make(way), { host } = guest.guest;
    const set = (id: number, timeout: number) =>
      guest.op("sched_op", SCHEDOP.watchdog, { id, timeout }).result;
    assertEquals([set(1, 5), set(3, 5), set(0xffff_ffff, 5)], [-EINVAL, -EINVAL, -EINVAL]);
    assertEquals([set(0, 10), set(0, 20), set(0, 30)], [1, 2, -ENOSPC]);
    const { watchdogs } = guest.xen;
    assert(Math.abs(watchdogs.deadline - 10 * SECOND) < 10_000);
    assertEquals([set(1, 40), Math.round(watchdogs.deadline / SECOND)], [0, 20]);
    assertEquals([set(2, 0), Math.round(watchdogs.deadline / SECOND)], [0, 40]);
    assertEquals([set(2, 5), set(0, 6)], [-EINVAL, 2]);
    // It waits for ever, and is ended in time.
    events(guest);
    assertEquals(plain(guest, SCHEDOP.block), undefined);
    const saved = saveHost(host);
    const again = await CallGuest.make(way);
    loadHost(again.guest.host, saved);
    for (const { domain, guest: { host } } of [guest, again]) {
      while (host.idle()) host.runOnce(1000);
      assertEquals(domain.describe(), "watchdog (SCHEDOP_watchdog: watchdog (4))");
      assert(Math.abs(domain.now - 6 * SECOND) < 100_000, `${domain.now}`);
    }
    const now = await CallGuest.make(way);
    assertEquals(now.op("sched_op", SCHEDOP.watchdog, { id: 0, timeout: 0 }).result, undefined);
    assertEquals(now.domain.state.kind, "shutdown");
  });
}

for (const way of CALL_WAYS.filter(({ paging }) => paging === "hap")) {
  Deno.test(`SCHEDOP_shutdown: its reasons, the first of which counts (${callWayName(way)})`, async () => {
    const ends = ["poweroff", "reset", "suspend", "crash", "watchdog", "soft-reset", "crash"];
    for (const [reason, wanted] of ends.entries()) {
      const guest = await CallGuest.make(way);
      assertEquals(shutDown(guest, reason + 256), undefined);
      const { state } = guest.domain;
      assert(state.kind === "shutdown" && state.detail.includes(`SCHEDOP_shutdown: `));
      assertEquals([state.reason, state.detail.includes(`(${reason})`)], [wanted, true]);
    }
    const guest = await CallGuest.make(way);
    const code = (reason: number) => guest.op("sched_op", SCHEDOP.shutdown_code, { reason }).result;
    assertEquals([code(3), code(0)], [0, 0]);
    shutDown(guest, 0);
    assertEquals(guest.domain.describe(), "crash (SCHEDOP_shutdown: crash (3))");
    const other = await CallGuest.make(way);
    const remote = (domain_id: number) =>
      other.op("sched_op", SCHEDOP.remote_shutdown, { domain_id, reason: 0 }).result;
    assertEquals([0, other.domain.id, 7, 0x7ff0].map(remote), [-EPERM, -EPERM, -ESRCH, -ESRCH]);
  });
}

Deno.test("a vCPU that waits by a hypercall for what cannot come is told so", async () => {
  const [way] = CALL_WAYS, guest = await CallGuest.make(way), port = bindIpi(guest);
  assertEquals(poll(guest, [port]), undefined);
  const { host } = guest.guest,
    ended = new Promise<void>((resolve) => {
      guest.domain.onState.add(({ kind }) => kind === "shutdown" && resolve());
    });
  host.wake();
  await ended;
  assertEquals(
    guest.domain.describe(),
    `hang (vCPU 0 in SCHEDOP_poll of ports ${port}, with nothing left that could wake it)`,
  );
});

for (const way of CALL_WAYS.filter(({ cpu, width }) => (cpu === "intel") === (width === 64))) {
  Deno.test(`waits are saved in their midst, and loaded go on as they would have (${callWayName(way)})`, async () => {
    const guest = await CallGuest.make(way), port = bindIpi(guest), { host } = guest.guest;
    events(guest);
    guest.xen.channels.abi.mask(port);
    const timeout = guest.domain.now + 40_000;
    assertEquals(poll(guest, [port], { timeout }), undefined);
    const saved = saveHost(host), before = hostHash(host);
    const ways: Readonly<Record<string, () => void>> = {
      event: () => raise(guest, port),
      time: () => void host.idle(),
      upcall: () => guest.xen.vcpus[0].notify(),
    };
    for (const [, end] of Object.entries(ways)) {
      const ends: unknown[] = [];
      for (let n = 0; n < 2; n++) {
        loadHost(host, saved);
        assertEquals([hostHash(host), waits(guest)], [before, "poll"]);
        assertEquals(saveHost(host), saved);
        assertEquals(guest.goOn(), undefined);
        end();
        const over = saveHost(host);
        assertEquals(guest.goOn(), 0);
        ends.push(hostHash(host));
        // What it waited for has come, and it has not gone on.
        loadHost(host, over);
        assertEquals(guest.goOn(), 0);
        ends.push(hostHash(host));
      }
      assertEquals(new Set(ends).size, 1);
    }
  });
}

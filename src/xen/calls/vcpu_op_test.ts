// vCPUs that come and go, their timers, and what Xen tells them of time.
import { assert, assertEquals } from "@std/assert";
import { offsetOf, View } from "../../abi/layout.ts";
import { MSR } from "../../abi/x86/msr.ts";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { EVTCHNOP } from "../../abi/xen/event_channel.ts";
import { VCPU_HVM_CONTEXT } from "../../abi/xen/hvm/hvm_vcpu.ts";
import { RUNSTATE, VCPU_RUNSTATE_INFO, VCPUOP, XEN_RUNSTATE_UPDATE } from "../../abi/xen/vcpu.ts";
import { VCPU_INFO, VCPU_TIME_INFO, VIRQ, VMASST_CMD, VMASST_TYPE } from "../../abi/xen/xen.ts";
import {
  ARGUMENT,
  CALL_WAYS,
  CallGuest,
  type CallWay,
  callWayName,
} from "../../debug/testing/calls.ts";
import { AT } from "../../debug/testing/ways.ts";
import { hostHash, loadHost, saveHost } from "../state.ts";
import { diffStates } from "../state_diff.ts";

const { EEXIST, EFAULT, EINVAL, ENOENT, ENOSYS, ENXIO } = XEN_ERRNO;
const MILLISECOND = 1_000_000;
/** Where areas lie, and code of a second vCPU. */
const AREA = 0x3_1000, INFO = 0x32, OTHER_CODE = 0x3_8000, NOTE = 0x3_9000;

/** A vcpu_op with an argument of these fields. */
const op = <O extends (typeof VCPUOP)[keyof typeof VCPUOP]>(
  guest: CallGuest,
  operation: O,
  values: Readonly<Record<string, number | bigint>> = {},
  vcpu = 0,
) => guest.op("vcpu_op", operation, values, [vcpu]).result;
/** One without. */
const plain = (guest: CallGuest, operation: { number: number }, vcpu = 0, argument = 0) =>
  guest.call("vcpu_op", operation.number, vcpu, argument);
const set = (guest: CallGuest, values: Readonly<Record<string, number | bigint>>) =>
  op(guest, VCPUOP.set_singleshot_timer, values);

const bindTimer = (guest: CallGuest) =>
  guest.op("event_channel_op", EVTCHNOP.bind_virq, { virq: VIRQ.TIMER, vcpu: 0 }).out.get("port");

const read = (guest: CallGuest, at: number) =>
  new View(VCPU_RUNSTATE_INFO, guest.width, guest.domain.memory.read(at, 48));
const times = (view: ReturnType<typeof read>) =>
  [0, 1, 2, 3].map((n) => Number(view.get("time", n)));

/** What a second vCPU begins with, in the mode of a width. */
function context(width: 32 | 64, values: Readonly<Record<string, number | bigint>> = {}) {
  const view = new View(VCPU_HVM_CONTEXT, width);
  // deno-lint-ignore no-explicit-any
  const all = (fields: Record<string, number | bigint>) => view.setAll(fields as any);
  const at = (prefix: string, fields: Readonly<Record<string, number | bigint>>) =>
    all(Object.fromEntries(Object.entries(fields).map(([key, value]) => [prefix + key, value])));
  view.set("mode", width === 64 ? 1 : 0);
  if (width === 64) {
    at("cpu_regs.x86_64.", {
      rip: OTHER_CODE,
      rbx: 0x1122_3344_5566n,
      rflags: 2,
      cr0: 0x8000_0031n,
      cr3: AT.root,
      cr4: 0x20,
      efer: 0x100,
    });
  } else {
    const flat = (name: string, ar: number) => ({ [`${name}_limit`]: -1, [`${name}_ar`]: ar });
    at("cpu_regs.x86_32.", {
      eip: OTHER_CODE,
      ebx: 0x3344_5566,
      eflags: 2,
      cr0: 0x11,
      ...flat("cs", 0xc9b),
      ...flat("ds", 0xc93),
      ...flat("ss", 0xc92),
      ...flat("es", 0),
      tr_limit: 0x67,
      tr_ar: 0x8b,
    });
  }
  all(values as Record<string, number | bigint>);
  return view;
}

/** Initialises its second vCPU so. */
function initialise(guest: CallGuest, view: ReturnType<typeof context>): number | undefined {
  guest.guest.write(ARGUMENT, view.raw);
  return plain(guest, VCPUOP.initialise, 1, ARGUMENT);
}

/** The second vCPU stores EBX, adds one to a word for ever after, or halts. */
function otherCode(guest: CallGuest, { width }: CallWay, code: string) {
  const bytes = guest.guest.assemble(width === 64 ? "long" : "pae", code);
  guest.guest.write(OTHER_CODE, bytes);
}
const note = (guest: CallGuest) =>
  new DataView(guest.domain.memory.read(NOTE, 4).buffer).getUint32(0, true);
/** Lets others than the first vCPU run. */
function run(guest: CallGuest, turns: number): void {
  for (let n = 0; n < turns; n++) if (!guest.guest.host.runOnce(1000)) return;
}

for (const way of CALL_WAYS) {
  const name = callWayName(way), { width } = way;

  Deno.test(`vcpu_op: what is refused (${name})`, async () => {
    const guest = await CallGuest.make(way, { vcpus: 2 });
    const bad = 0x4000_0000;
    for (const vcpu of [2, 63, 8192, 0xffff_ffff]) {
      assertEquals(plain(guest, VCPUOP.set_periodic_timer, vcpu, bad), -ENOENT);
    }
    assertEquals(guest.call("vcpu_op", 99, 0, 0), -ENOSYS);
    assertEquals(plain(guest, VCPUOP.get_runstate_info, 0, bad), -EFAULT);
    for (const period_ns of [0n, 999_999n, 2n ** 62n]) {
      assertEquals(op(guest, VCPUOP.set_periodic_timer, { period_ns }), -EINVAL);
    }
    const timeout = { timeout_abs_ns: 10n ** 9n };
    assertEquals(op(guest, VCPUOP.set_singleshot_timer, timeout, 1), -EINVAL);
    assertEquals(plain(guest, VCPUOP.stop_singleshot_timer, 1), -EINVAL);
    assertEquals(plain(guest, VCPUOP.get_physid, 0, ARGUMENT), -EINVAL);
    assertEquals(plain(guest, VCPUOP.send_nmi, 0, 4), -EINVAL);
    assertEquals(plain(guest, VCPUOP.up, 1), -EINVAL);
    assertEquals(plain(guest, VCPUOP.initialise, 1, bad), -EFAULT);
    assertEquals(plain(guest, VCPUOP.initialise, 0, ARGUMENT), -EEXIST);
    assertEquals([0, 1].map((n) => plain(guest, VCPUOP.is_up, n)), [1, 0]);
  });

  Deno.test(`VCPUOP_register_vcpu_info: where, once, by whom; what is pending goes along (${name})`, async () => {
    const guest = await CallGuest.make(way, { vcpus: 2 });
    const register = (mfn: number, offset: number, vcpu = 0) =>
      op(guest, VCPUOP.register_vcpu_info, { mfn, offset }, vcpu);
    const step = width / 8;
    for (const offset of [4096 - 64 + step, 4096, step - 1, 2]) {
      assertEquals(register(INFO, offset), -ENXIO);
    }
    assertEquals(register(0x1000, 64), -EINVAL);
    const port = bindTimer(guest), { xen, xen: { memory, vcpus } } = guest;
    xen.channels.raiseVirq(VIRQ.TIMER);
    assertEquals(memory.byte(vcpus[0].info), 1);
    const arch = offsetOf(VCPU_INFO, "arch", width);
    memory.setWord(vcpus[0].info + arch, 0x1234);
    assertEquals(register(INFO, 64 + step), 0);
    assertEquals(register(INFO, 128), -EINVAL);
    const info = new View(VCPU_INFO, width, guest.domain.memory.read(INFO * 4096 + 64 + step, 64));
    assertEquals(info.get("evtchn_upcall_pending"), 1);
    assertEquals([info.raw[arch], info.raw[arch + 1]], [0x34, 0x12], "all of it goes along");
    assertEquals(info.get("evtchn_pending_sel"), 2n ** BigInt(width) - 1n);
    assert(xen.channels.abi.isPending(port));
    assertEquals([info.get("time.version") & 1, info.get("time.tsc_shift")], [0, 1]);
    // Of a vCPU that is down, nobody has told anything yet.
    assertEquals(register(INFO, 512, 1), 0);
    assertEquals(guest.domain.memory.read(INFO * 4096 + 512, 1)[0], 1);
    // Not of another that is up.
    const other = await CallGuest.make(way, { vcpus: 2 });
    otherCode(other, way, "again: jmp again");
    assertEquals(initialise(other, context(width)), 0);
    assertEquals(plain(other, VCPUOP.up, 1), 0);
    assertEquals(op(other, VCPUOP.register_vcpu_info, { mfn: INFO, offset: 0 }, 1), -EINVAL);
  });

  Deno.test(`VCPUOP_initialise: it begins with what it was given, once, and what cannot be is refused (${name})`, async () => {
    const guest = await CallGuest.make(way, { vcpus: 2 });
    otherCode(guest, way, `mov [${NOTE}], ebx\nhlt`);
    const regs = `cpu_regs.x86_${width}.`;
    const wrong: Readonly<Record<string, number | bigint>>[] = [{ mode: 2 }, { pad: 1 }];
    if (width === 64) {
      wrong.push(
        { [`${regs}rip`]: 1n << 47n },
        { [`${regs}cr0`]: 0x31 },
        { [`${regs}cr4`]: 0 },
        { [`${regs}efer`]: 0 },
        { [`${regs}efer`]: 0x102 },
        { [`${regs}cr4`]: 0x8000_0020n },
      );
    } else {
      const ar = { null: 0, absent: 0xc1b, data: 0xc93, code: 0xc99, user: 0xcfb, readonly: 0xc91 };
      wrong.push(
        { [`${regs}pad1`]: 1 },
        { [`${regs}cs_ar`]: ar.null },
        { [`${regs}cs_ar`]: ar.absent },
        { [`${regs}cs_ar`]: ar.data },
        { [`${regs}cs_ar`]: ar.user },
        { [`${regs}cs_ar`]: 0x1c9b },
        { [`${regs}ds_ar`]: ar.code },
        { [`${regs}ds_ar`]: 0xcf3 },
        { [`${regs}es_ar`]: 0x8b },
        { [`${regs}ss_ar`]: ar.readonly },
        { [`${regs}ss_ar`]: 0xcf3 },
        { [`${regs}tr_ar`]: 0x83 },
        { [`${regs}tr_ar`]: ar.null },
        { [`${regs}cs_limit`]: 7, [`${regs}eip`]: 0x8000 },
        { [`${regs}efer`]: 0x400n },
        { [`${regs}efer`]: 2n },
        { [`${regs}cr4`]: 0x8000_0000 },
      );
    }
    for (const values of wrong) {
      assertEquals(
        initialise(guest, context(width, values)),
        -EINVAL,
        JSON.stringify(Object.keys(values)),
      );
    }
    // The time-stamp counter is the first vCPU's.
    guest.engine.msrs.set(MSR.TSC_ADJUST, 5000n);
    assertEquals(initialise(guest, context(width)), 0);
    assertEquals(initialise(guest, context(width)), -EEXIST);
    const [, other] = guest.domain.vcpus;
    assertEquals(other.engine.tsc, guest.engine.tsc);
    assertEquals([plain(guest, VCPUOP.is_up, 1), other.online], [0, false]);
    assertEquals(plain(guest, VCPUOP.up, 1), 0);
    assertEquals(plain(guest, VCPUOP.is_up, 1), 1);
    run(guest, 5);
    assertEquals(note(guest), 0x3344_5566);
    assertEquals([other.blocked, other.halted], [true, true]);
  });

  Deno.test(`VCPUOP_down: it goes on where it was, one that waited waits, and the last takes the domain along (${name})`, async () => {
    const guest = await CallGuest.make(way, { vcpus: 2 });
    otherCode(guest, way, `again: inc dword [${NOTE}]\njmp again`);
    assertEquals(initialise(guest, context(width)), 0);
    assertEquals(plain(guest, VCPUOP.up, 1), 0);
    run(guest, 5);
    const [, other] = guest.domain.vcpus;
    assertEquals(plain(guest, VCPUOP.down, 1), 0);
    const first = note(guest);
    assert(first > 0 && !other.online);
    run(guest, 5);
    assertEquals(note(guest), first);
    assertEquals(plain(guest, VCPUOP.up, 1), 0);
    run(guest, 5);
    assert(note(guest) > first);
    // Behind a HLT.
    const two = await CallGuest.make(way, { vcpus: 2 });
    const tables = (at: number, base: number) => {
      const bytes = new DataView(new ArrayBuffer(10));
      bytes.setUint16(0, 0xfff, true);
      bytes.setUint32(2, base, true);
      two.guest.write(at, new Uint8Array(bytes.buffer));
    };
    tables(NOTE + 16, AT.gdt);
    tables(NOTE + 32, AT.idt);
    otherCode(
      two,
      way,
      `mov esp, ${AT.stack - 0x100}\nlgdt [${NOTE + 16}]\nlidt [${NOTE + 32}]
      hlt\nmov dword [${NOTE}], 7\nhlt`,
    );
    initialise(two, context(width));
    plain(two, VCPUOP.up, 1);
    run(two, 5);
    assertEquals([plain(two, VCPUOP.down, 1), plain(two, VCPUOP.up, 1)], [0, 0]);
    run(two, 5);
    assertEquals([note(two), two.domain.vcpus[1].blocked], [0, true]);
    // An NMI ends that.
    assertEquals(plain(two, VCPUOP.send_nmi, 1), 0);
    run(two, 5);
    const { ops, hvm } = two.xen.vcpus[1].engine;
    assertEquals([note(two), ops.getRegister(hvm, "rbx")], [0, 2n]);
    assertEquals(plain(two, VCPUOP.down, 1), 0);
    assertEquals(plain(two, VCPUOP.down, 0), undefined);
    assertEquals(two.domain.state.kind, "shutdown");
    assertEquals(two.domain.describe(), "poweroff (VCPUOP_down of its last vCPU)");
  });

  Deno.test(`VCPUOP_down of itself: it is back from the call when another has it up (${name})`, async () => {
    const guest = await CallGuest.make(way, { vcpus: 2 }),
      call = way.cpu === "intel" ? "vmcall" : "vmmcall";
    const [a, b] = width === 64 ? ["rdi", "rsi"] : ["ebx", "ecx"];
    // Another has the first up after a while.
    otherCode(
      guest,
      way,
      `mov eax, 24\nmov ${a}, ${VCPUOP.up.number}\nmov ${b}, 0\nmov ebp, 30000
      later: dec ebp\njnz later\n${call}\nhlt`,
    );
    initialise(guest, context(width));
    assertEquals(plain(guest, VCPUOP.up, 1), 0);
    assertEquals(plain(guest, VCPUOP.down, 0), 0);
    assert(guest.domain.vcpus[1].count > 60_000);
    assertEquals(guest.domain.vcpus[0].blocked, true);
  });

  Deno.test(`timers: single-shot, periodic, and set_timer_op's rules (${name})`, async () => {
    const guest = await CallGuest.make(way), { channels, vcpus: [vcpu] } = guest.xen;
    const port = bindTimer(guest), sent = () => channels.get(port)!.sent;
    const due = () => vcpu.timers.singleShot, { domain } = guest;
    guest.guest.host.machine.cpu.idle += 100;
    // At once, whatever the flags: what is past, and 0.
    assertEquals([set(guest, { timeout_abs_ns: 1 }), sent(), due()], [0, 1, Infinity]);
    assertEquals([set(guest, { timeout_abs_ns: 0, flags: 1 }), sent()], [0, 2]);
    const at = domain.now + MILLISECOND;
    assertEquals([set(guest, { timeout_abs_ns: at }), due(), sent()], [0, at, 2]);
    assertEquals([plain(guest, VCPUOP.stop_singleshot_timer), due()], [0, Infinity]);
    const timer = (time: bigint) =>
      width === 64
        ? guest.call("set_timer_op", time)
        : guest.call("set_timer_op", time & 0xffff_ffffn, time >> 32n & 0xffff_ffffn);
    const later = BigInt(domain.now) + 2n ** 33n;
    assertEquals([timer(later), due()], [0, Number(later)]);
    assertEquals([timer(0n), due()], [0, Infinity]);
    assertEquals([timer(5n), sent(), due()], [0, 3, Infinity]);
    for (const mistake of [-1n, 1n << 63n, BigInt(domain.now) + 2n ** 50n + 10_000n]) {
      assertEquals(timer(mistake), 0);
      const ahead = due() - domain.now;
      assert(ahead <= 100_000_000 && ahead > 99_900_000, `${ahead}`);
    }
    assertEquals(timer(BigInt(domain.now) + 2n ** 50n - 10_000n), 0);
    assert(due() > 2 ** 49);
    assertEquals(timer(0n), 0);
    // Periodic: it last rang long ago, so at once; then on time.
    domain.vcpus[0].cpu.idle += 2 * MILLISECOND;
    const start = sent();
    assertEquals(op(guest, VCPUOP.set_periodic_timer, { period_ns: MILLISECOND }), 0);
    assertEquals(sent(), start + 1);
    const next = vcpu.timers.periodic;
    guest.guest.idle(3);
    assertEquals([sent(), vcpu.timers.periodic], [start + 4, next + 3 * MILLISECOND]);
    assertEquals([plain(guest, VCPUOP.stop_periodic_timer), vcpu.timers.periodic], [0, Infinity]);
  });

  Deno.test(`what a vCPU does, asked for and in a place that is kept, marked while it is written (${name})`, async () => {
    const guest = await CallGuest.make(way), { machine } = guest.guest.host;
    const info = () => {
      assertEquals(plain(guest, VCPUOP.get_runstate_info, 0, ARGUMENT), 0);
      return read(guest, ARGUMENT);
    };
    const one = info();
    assertEquals(one.get("state"), RUNSTATE.running);
    // All of the domain's time is somewhere; alone, it waits for no processor.
    const sum = (view: typeof one) => times(view).reduce((a, b) => a + b);
    const within = (value: number) => value >= 0 && value < 100;
    assert(within(guest.domain.now - sum(one)), `${sum(one)}`);
    assertEquals([one.get("time", 1), one.get("time", 3)], [0n, 0n]);
    assertEquals(op(guest, VCPUOP.register_runstate_memory_area, { "addr.h": AREA }), 0);
    assertEquals(read(guest, AREA).get("state"), RUNSTATE.blocked, "behind the call it halts");
    // It waits for a millisecond, and finds so much more in the place.
    const before = read(guest, AREA), { domain, xen: { vcpus: [vcpu] } } = guest;
    const until = domain.now + MILLISECOND;
    bindTimer(guest);
    set(guest, { timeout_abs_ns: until });
    const waits = () => guest.call("sched_op", 1, 0);
    guest.xen.setCallback(2n << 56n | 0x20n);
    const writes: number[] = [], write = machine.write.bind(machine);
    const top = domain.memory.machineAddress(AREA) + (width === 64 ? 15 : 11);
    machine.write = (at, bytes) => {
      write(at, bytes);
      if (at <= top && at + bytes.length > top) writes.push(machine.ram[top]);
    };
    assertEquals(waits(), undefined);
    // When it runs, and when it waits.
    assertEquals(writes, [0, 0]);
    const blocked = read(guest, AREA);
    assertEquals(blocked.get("state"), RUNSTATE.blocked);
    assert(within(domain.now - Number(blocked.get("state_entry_time"))));
    guest.guest.idle(1);
    const after = read(guest, AREA);
    assertEquals(after.get("state"), RUNSTATE.blocked, "behind the call it halts");
    const more = times(after)[2] - times(before)[2];
    assert(more > MILLISECOND * 0.99 && more <= MILLISECOND, `${more}`);
    assertEquals(sum(after), Number(after.get("state_entry_time")));
    // The flag is there while it is written, and no other time.
    const { enable, disable } = VMASST_CMD, { runstate_update_flag: flag } = VMASST_TYPE;
    assertEquals(guest.call("vm_assist", enable, flag), 0);
    writes.length = 0;
    const byte = Number(XEN_RUNSTATE_UPDATE >> 56n);
    vcpu.registered = undefined;
    guest.xen.memory.setByte(vcpu.info, 0);
    assertEquals(waits(), undefined);
    assertEquals(writes.slice(-3), [byte, byte, 0]);
    assertEquals(guest.call("vm_assist", disable, flag), 0);
    // No place: nothing is written any more.
    assertEquals(op(guest, VCPUOP.register_runstate_memory_area, { "addr.h": 0 }), 0);
    writes.length = 0;
    assertEquals(waits(), undefined);
    assertEquals(writes, []);
    machine.write = write;
  });

  Deno.test(`vm_assist: what there is of it (${name})`, async () => {
    const guest = await CallGuest.make(way), flag = VMASST_TYPE.runstate_update_flag;
    for (const type of [0, 2, 4, 6, 32, 64, 0xffff_ffff]) {
      for (const command of [0, 1, 2]) {
        assertEquals(guest.call("vm_assist", command, type), -EINVAL);
      }
    }
    assertEquals(guest.call("vm_assist", 2, flag), -ENOSYS);
    assertEquals([guest.call("vm_assist", 0, flag), guest.xen.assists.has(flag)], [0, true]);
    assertEquals([guest.call("vm_assist", 1, flag), guest.xen.assists.has(flag)], [0, false]);
    assertEquals(guest.call("nmi_op", 0, ARGUMENT), -ENOSYS);
  });

  Deno.test(`vcpu_time_info: an odd version while it is written, anew when the counter is set, in a second place too (${name})`, async () => {
    const guest = await CallGuest.make(way), { machine } = guest.guest.host;
    const { vcpus: [vcpu] } = guest.xen;
    const at = vcpu.info + (width === 64 ? 32 : 32),
      second = guest.domain.memory.machineAddress(AREA);
    const written: [number, number][] = [], write = machine.write.bind(machine);
    machine.write = (to, bytes) => {
      write(to, bytes);
      for (const place of [at, second]) {
        if (to >= place && to < place + 32) written.push([place, machine.words[place >>> 2]]);
      }
    };
    const info = (place: number) =>
      new View(VCPU_TIME_INFO, width, machine.ram.slice(place, place + 32));
    const first = info(at).get("version");
    assertEquals(first & 1, 0);
    assertEquals(op(guest, VCPUOP.register_vcpu_time_memory_area, { "addr.h": AREA }), 0);
    const odd = first + 1, even = first + 2;
    assertEquals(written.filter(([place]) => place === at).map(([, v]) => v), [odd, odd, even]);
    assertEquals(written.filter(([place]) => place === second).map(([, v]) => v), [odd, odd, even]);
    // Now is the time at which it was written, and what has passed since.
    const now = () => {
      const view = info(at), passed = guest.engine.tsc - view.get("tsc_timestamp");
      const scaled = (passed << BigInt(view.get("tsc_shift"))) *
          BigInt(view.get("tsc_to_system_mul")) >> 32n;
      return Number(view.get("system_time") + scaled);
    };
    assertEquals(now(), guest.domain.now);
    const mode = width === 64 ? "long" : "pae";
    guest.guest.write(
      AT.code,
      guest.guest.assemble(mode, `mov ecx, 0x10\nxor edx, edx\nmov eax, 77\nwrmsr\nhlt`),
    );
    guest.call("xen_version", 0);
    assertEquals([info(at).get("version"), info(second).get("version")], [even + 2, even + 2]);
    assert(guest.engine.tsc < 1000n, `${guest.engine.tsc}`);
    assertEquals(now(), guest.domain.now);
    assertEquals(info(at).raw, info(second).raw);
    machine.write = write;
  });
}

Deno.test("vCPUs, their timers and what they are told are saved; loaded, all goes on as it would have", async () => {
  for (
    const way of CALL_WAYS.filter(({ cpu, paging }) => (cpu === "intel") === (paging === "hap"))
  ) {
    const guest = await CallGuest.make(way, { vcpus: 2 }), { host } = guest.guest, { width } = way;
    otherCode(guest, way, `again: inc dword [${NOTE}]\njmp again`);
    initialise(guest, context(width));
    const port = bindTimer(guest);
    op(guest, VCPUOP.register_runstate_memory_area, { "addr.h": AREA });
    guest.call("vm_assist", 0, VMASST_TYPE.runstate_update_flag);
    op(guest, VCPUOP.register_vcpu_time_memory_area, { "addr.h": AREA + 128 });
    op(guest, VCPUOP.set_periodic_timer, { period_ns: 1_500_000 });
    // It is up from here on, and has not run.
    const saved: Uint8Array[] = [];
    guest.argument(VCPUOP.set_singleshot_timer, { timeout_abs_ns: guest.domain.now + 700_000 });
    guest.call("vcpu_op", VCPUOP.set_singleshot_timer.number, 0, ARGUMENT);
    plain(guest, VCPUOP.up, 1);
    const on = (time: number) => {
      const end = host.now + time;
      while (host.now < end) if (!host.runOnce(Math.min(997, end - host.now))) host.idle();
      return [hostHash(host), guest.xen.channels.get(port)!.sent, note(guest)];
    };
    const wanted: unknown[] = [];
    for (let n = 0; n < 6; n++) {
      guest.domain.pause();
      saved.push(saveHost(host));
      guest.domain.resume();
      wanted.push(on(400_000));
    }
    assert(guest.xen.channels.get(port)!.sent >= 2);
    // What is loaded is not what was here last.
    guest.xen.vcpus[0].registerRunstate(0n, width);
    guest.xen.vcpus[0].registerTime(0n);
    for (let n = 0; n < 6; n++) {
      loadHost(host, saved[n]);
      assertEquals(diffStates(saveHost(host), saved[n]), []);
      assertEquals(saveHost(host), saved[n]);
      guest.domain.resume();
      assertEquals(on(400_000), wanted[n]);
    }
  }
});

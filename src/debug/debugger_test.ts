import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { GuestStopped } from "./waits.ts";
import { demoGuest } from "../builder/demo.ts";
import type { StopOf } from "./events/verbs.ts";
import { Hypervisor } from "./hypervisor.ts";
import { hostOf, kernel, virtual } from "./testing/hosts.ts";

const all = ["bare", "hvm", "hvm on AMD", "shadow"] as const;

async function demo(how: typeof all[number] = "hvm") {
  const hv = await Hypervisor.demo({
    type: how === "bare" ? "bare" : "hvm",
    cpu: how === "hvm on AMD" ? "amd" : "intel",
    paging: how === "shadow" ? "shadow" : "hap",
  });
  const [dom] = hv.domains;
  return { hv, dom, vcpu: dom.vcpus[0], close: () => hv.close() };
}

for (const type of all) {
  Deno.test(`until() runs to a symbol and stops before its instruction (${type})`, async () => {
    const { dom, vcpu, close } = await demo(type);
    const stop = await dom.until("execute", { address: "high" });
    assertEquals(stop.address, dom.symbols!.address("high"));
    assertEquals(vcpu.regs.rip, stop.address);
    assertEquals(dom.state, "paused");
    await close();
  });

  Deno.test(`until() goes on from the place where the domain stands to the next time there (${type})`, async () => {
    const { hv, dom, vcpu, close } = await demo(type);
    for (let n = 0; n < 4; n++) {
      const { address } = await dom.until("execute", { address: "timer" });
      assertEquals([address, vcpu.memory.u32("ticks")], [vcpu.regs.rip, n]);
      if (n > 1) hv.load(hv.save());
    }
    await close();
  });

  Deno.test(`step() executes exactly so many instructions, and stops at a handler (${type})`, async () => {
    const { dom, vcpu, close } = await demo(type);
    const before = vcpu.position.count;
    await vcpu.step(100);
    assertEquals(vcpu.position.count - before, 100);
    dom.console.write("d");
    await dom.until("execute", { address: "divide" });
    await vcpu.step(3);
    const stop = await vcpu.step();
    assertEquals(stop.kind, "step");
    assertEquals(vcpu.regs.rip, dom.symbols!.address("divide_error"));
    assertEquals(vcpu.why().text.slice(0, 3), "#DE");
    await close();
  });

  Deno.test(`a watch tells old and new value after the write, and counts nothing twice (${type})`, async () => {
    const { dom, vcpu, close } = await demo(type);
    const ticks = dom.symbols!.address("ticks")!;
    await dom.until("execute", { address: "main" });
    for (let n = 0n; n < 3n; n++) {
      const stop = await dom.until("watch", { address: ticks, length: 4 });
      assertEquals([stop.old, stop.value, stop.write, stop.length], [n, n + 1n, true, 4]);
      assertEquals(vcpu.memory.u32(ticks), Number(n) + 1);
    }
    const physical = await dom.until("watch", {
      address: ticks - 0xc0000000n,
      length: 4,
      physical: true,
    });
    assertEquals([physical.value, physical.address], [4n, ticks]);
    assertEquals(physical.physical, ticks - 0xc0000000n);
    dom.console.write("f");
    const read = await dom.until("watch", { address: "next_page", read: true, write: false });
    assertEquals([read.write, read.value, read.length], [false, 0xd0000000n, 4]);
    const failed = dom.until("watch", { address: "next_page", read: true }, () => {
      throw new Error("from a predicate");
    });
    dom.console.write("f");
    await assertRejects(() => failed, Error, "from a predicate");
    await close();
  });

  Deno.test(`stepOver() passes a call, stepOut() leaves it (${type})`, async () => {
    const { dom, vcpu, close } = await demo(type);
    await dom.until("execute", { address: "show_cpu" });
    const [line] = vcpu.disassemble(undefined, 1);
    await dom.until("execute", { address: "put_char" });
    const back = vcpu.memory.u32(vcpu.regs.rsp);
    const stack = vcpu.regs.rsp;
    await vcpu.stepOut();
    assertEquals(vcpu.regs.rip, BigInt(back));
    assertEquals(vcpu.regs.rsp, stack + 4n);
    assert(line.text.startsWith("xor"));
    await dom.until("execute", { address: BigInt(back) - 5n });
    await vcpu.stepOver();
    assertEquals(vcpu.regs.rip, BigInt(back));
    await close();
  });

  Deno.test(`a breakpoint with hits, a predicate and once acts when they say so (${type})`, async () => {
    const { dom, vcpu, close } = await demo(type);
    let asked = 0;
    const b = dom.break("execute", { address: "timer" }, {
      predicate: () => ++asked > 2,
      hits: 2,
      once: true,
    });
    const stop = await dom.continue();
    assertEquals([stop?.kind, asked, b.hits, b.deleted], ["execute", 4, 2, true]);
    assertEquals(vcpu.memory.u32("ticks"), 3);
    assertEquals(dom.breakpoints.length, 0);
    await close();
  });

  Deno.test(`until() throws GuestStopped when the guest ends first; tryUntil() returns it (${type})`, async () => {
    const { dom, close } = await demo(type);
    dom.console.write("q");
    const ended = await dom.tryUntil("execute", { address: "page_fault" });
    assert(ended instanceof GuestStopped);
    assertEquals(ended.reason, "poweroff");
    assertEquals((await dom.ended).ok, true);
    await assertRejects(() => dom.until("execute", { address: "main" }), Error, "has ended");
    await close();
  });

  Deno.test(`observation changes nothing: same counts and hash with and without (${type})`, async () => {
    const run = async (watch: boolean) => {
      const { hv, dom, vcpu, close } = await demo(type);
      const seen: string[] = [];
      if (watch) {
        dom.trace(
          "watch",
          { address: "ticks", length: 4, read: true },
          (e) => void seen.push(e.kind),
        );
        dom.trace("execute", { address: "put_char" }, (e) => void seen.push(e.kind));
        dom.trace("execute", { address: "page_fault" }, (e) => void seen.push(e.kind));
      }
      dom.console.write("f");
      const result: string[] = [];
      for (const n of [5000, 4000, 3000, 1, 500]) {
        await vcpu.step(n);
        result.push(
          `${vcpu.position.count} ${vcpu.position.time} ${hv.stateHash()} ${dom.stateHash()}`,
        );
      }
      await close();
      return { result, seen };
    };
    const without = await run(false), withIt = await run(true);
    assertEquals(withIt.result, without.result);
    assert(withIt.seen.length > 200, `${withIt.seen.length} events`);
  });

  Deno.test(`a whole run that is observed ends as one that nobody looks at (${type})`, async () => {
    const run = async (observed: boolean) => {
      const { dom, vcpu, close } = await demo(type);
      if (observed) {
        dom.trace("watch", { address: "ticks", length: 4, read: true });
        dom.trace("execute", { address: "put_char" });
        dom.trace("step");
        if (type !== "bare") dom.trace("io");
      }
      let keys = "fdtq";
      dom.console.onOutput(() => {
        if (!dom.console.text.endsWith("demo> ")) return;
        dom.console.write(keys[0]);
        keys = keys.slice(1);
      });
      dom.unpause();
      await dom.ended;
      const { count, time } = vcpu.position;
      const result = `${count} ${time} ${dom.stateHash()} ${dom.console.text}`;
      await close();
      return result;
    };
    assertEquals(await run(true), await run(false));
  });

  Deno.test(`save, load, save is byte-equal, and a run from there is the same (${type})`, async () => {
    const { hv, dom, vcpu, close } = await demo(type);
    await dom.until("execute", { address: "timer" });
    dom.console.write("f");
    const saved = hv.save();
    const run = async () => {
      await vcpu.step(2000);
      return `${vcpu.position.count} ${vcpu.position.time} ${dom.stateHash()} ${vcpu.regs.rip}`;
    };
    const first = await run();
    hv.load(saved);
    assertEquals(hv.save(), saved);
    assertEquals(await run(), first);
    await close();
  });

  Deno.test(`registers read, write and refuse (${type})`, async () => {
    const { vcpu, close } = await demo(type);
    const { regs } = vcpu;
    regs.rax = 0x1122334455667788n;
    assertEquals([regs.eax, regs.ax, regs.al, regs.ah], [0x55667788n, 0x7788n, 0x88n, 0x77n]);
    regs.ah = 1n;
    assertEquals(regs.rax, 0x1122334455660188n);
    regs.eax = 5n;
    assertEquals(regs.rax, 5n);
    assertThrows(() => regs.rax = 1n << 64n, RangeError, "64 bits");
    assertThrows(() => (regs as unknown as { rax: string }).rax = "x", TypeError, "rax");
    assertThrows(() => regs.raxx = 1n, TypeError, "did you mean rax?");
    regs.rflags = 0x246n;
    assertEquals(regs.text.rflags, "PF ZF IF");
    regs.xmm3 = 1n << 100n;
    assertEquals(regs.xmm3, 1n << 100n);
    await close();
  });
}

Deno.test("a bare and a virtual guest are in the same state at the same place", async () => {
  const states: string[] = [];
  for (const type of all) {
    const { dom, vcpu, close } = await demo(type);
    // What CPUID and MSRs say is shown before; the timer is not in it yet.
    await dom.until("execute", { address: "main" });
    states.push(JSON.stringify([vcpu.regs.rip, vcpu.regs.rsp, vcpu.regs.cr3].map(String)));
    await close();
  }
  assertEquals([states[1], states[2]], [states[0], states[0]]);
});

Deno.test("kinds of exit that the host's processor lacks are refused, others it alone has stop", async () => {
  const intel = await demo("hvm"), amd = await demo("hvm on AMD");
  assertThrows(() => intel.dom.break("iret"), Error, 'no exits of kind "iret": VMX');
  assertThrows(() => amd.dom.break("rdrand"), Error, 'no exits of kind "rdrand": SVM');
  const stop = await amd.dom.until("iret");
  assertEquals(amd.vcpu.disassemble(undefined, 1)[0].text.slice(0, 4), "iret");
  assertEquals(amd.vcpu.raw!.exitCode, 0x74n);
  assertEquals(stop.kind, "iret");
  await Promise.all([intel.close(), amd.close()]);
});

Deno.test("exits of a virtual guest: filters, answers, statistics", async () => {
  const { dom, vcpu, close } = await demo();
  const cpuid = dom.break("cpuid", { leaf: 0 }, (x) => x.reply({ ebx: 0x44434241 }));
  const out = await dom.until("io", { port: [0x3f8, 0x3f8], write: true });
  assertEquals([out.port, out.size, out.value], [0x3f8, 1, 0x78]);
  assert(vcpu.disassemble(undefined, 1)[0].text.startsWith("out"));
  assertEquals(vcpu.why().check, "io");
  const cr3 = await dom.until("cr", { cr: 3, write: true });
  assertEquals(cr3.value, 0x103000n);
  assert(dom.console.text.includes("ABCDineIntel"), dom.console.text);
  assertEquals(cpuid.hits, 1);
  dom.console.write("m");
  dom.break("msr", { write: true, msr: 0x175 }, { action: (x) => x.deny(), once: true });
  const gp = await dom.until("execute", { address: "unexpected" });
  assertEquals(gp.kind, "execute");
  assert(dom.exits.io > 10);
  assert(dom.statistics().exits.cpuid >= 1);
  await close();
});

Deno.test("stops() goes from one to the next, skip() and the answer at a stop take effect", async () => {
  const { dom, close } = await demo();
  let text = "";
  for await (const s of dom.stops("io", { port: 0x3f8, write: true })) {
    text += String.fromCharCode(s.value);
    if (text.length % 2 === 0) s.skip();
    if (text.length === 8) break;
  }
  assertEquals(text, "xvm demo");
  dom.console.write("q");
  await dom.continue();
  assert(dom.console.text.startsWith("xmdm guest"), dom.console.text);
  await close();
});

for (const c of virtual) {
  Deno.test(`an answer at a stop counts, and takes time, as one in an action (${c.cpu}, ${c.paging})`, async () => {
    const image = kernel("mov eax, 1\ncpuid\nwbinvd\nrdtsc\nmov esi, eax\nhlt");
    const come = async (answerIn: "a stop" | "an action" | "another's turn") => {
      await using host = await hostOf(c, image, { memory: "4M" });
      const { hv, dom } = host;
      const other = await hv.createDomain({
        name: "other",
        kernel: kernel("nop\ncpuid\nhlt"),
        memory: "4M",
      });
      const cpuid = (stop: StopOf<"cpuid">) => stop.reply({ ebx: 1 });
      const wbinvd = (stop: StopOf<"wbinvd">) => stop.skip();
      if (answerIn === "an action") {
        dom.break("cpuid", {}, cpuid);
        dom.break("wbinvd", {}, wbinvd);
      } else if (answerIn === "a stop") {
        cpuid(await dom.until("cpuid"));
        wbinvd(await dom.until("wbinvd"));
      } else {
        const stop = await dom.until("cpuid");
        other.trace("cpuid", {}, () => void cpuid(stop));
        await other.until("hlt");
        wbinvd(await dom.until("wbinvd"));
      }
      if (answerIn !== "another's turn") await other.until("hlt");
      await dom.until("hlt");
      return {
        ...dom.statistics(),
        others: other.statistics().instructions,
        tsc: dom.vcpus[0].regs.rsi,
      };
    };
    const inAction = await come("an action");
    assertEquals([inAction.instructions, inAction.others, inAction.tsc], [5, 2, 4n]);
    assertEquals(await come("a stop"), inAction);
    assertEquals(await come("another's turn"), inAction);
  });
}

Deno.test("a device in a script answers; an asynchronous action lets the guest wait", async () => {
  const { dom, vcpu, close } = await demo();
  const written: number[] = [];
  dom.ioreq.serve({ port: [0x43, 0x43] }, { write: (_, value) => written.push(value) });
  dom.ioreq.serve({ port: [0x3fd, 0x3fd] }, { read: () => Promise.resolve(0x60) });
  dom.break("io", { port: 0x43 }, async (x) => {
    await new Promise((r) => setTimeout(r, 5));
    return x.continue();
  });
  await dom.until("execute", { address: "main" });
  assertEquals(written, [0x34]);
  assert(vcpu.position.count > 0);
  await close();
});

Deno.test("what does not fit is refused by name", async () => {
  const { dom, close } = await demo("bare");
  assertThrows(() => dom.break("cr", { cr: 3 }), Error, "bare processor");
  assertThrows(() => dom.break("exec" as "execute", { address: 0 }), TypeError, '"execute"');
  assertThrows(() => dom.break("execute", { adress: 0 } as never), TypeError, "it has: address");
  assertThrows(() => dom.break("execute", { address: "nosuch" }), RangeError, "nosuch");
  assertThrows(() => dom.memory.read(2 ** 30, 4), RangeError, "memory ends");
  assertThrows(() => dom.memory.read(1.5, 4), RangeError, "safe integer");
  await close();
  const hv = await Hypervisor.start();
  await assertRejects(() => hv.createDomain({ kernel: "/nonexistent" }), Error, "/nonexistent");
  await assertRejects(() => hv.createDomain({ kernal: "x" } as never), TypeError, '"kernel"');
  await assertRejects(() => hv.createDomain({ kernel: "x", type: "pv" }), Error, "not available");
  await hv.close();
  await assertRejects(() => Hypervisor.start({ memory: "12Q" }), RangeError, "256M");
});

Deno.test("a breakpoint of one domain is none of another's on the same host", async () => {
  const hv = await Hypervisor.demo({ memory: "128M" });
  const [first] = hv.domains;
  const { demoGuest } = await import("../builder/demo.ts");
  const kernel = demoGuest().image;
  const second = await hv.createDomain({ name: "second", kernel, memory: "16M" });
  second.setSymbols(first.symbols!);
  let seen = 0;
  first.trace("execute", { address: "put_char" }, () => void seen++);
  first.trace("watch", { address: "ticks", length: 4 });
  const both = [first, second].map((d) => d.console.shows("demo> "));
  second.unpause();
  first.unpause();
  await Promise.all(both);
  first.pause();
  second.pause();
  assertEquals(first.console.text, second.console.text);
  assertEquals(seen, first.console.text.length);
  const stop = await second.until("execute", { address: "timer" });
  assertEquals(stop.vcpu.domain, second);
  assertEquals(first.state, "paused");
  second.destroy();
  assertEquals(hv.domains.length, 1);
  await first.until("cr", { cr: 3, write: true });
  await hv.close();
});

Deno.test("dom.cpuid is a table that is edited before and during a run, and saved with the host", async () => {
  for (const type of ["hvm", "bare"] as const) {
    await using hv = await Hypervisor.demo({ type });
    const [dom] = hv.domains;
    assert(dom.cpuid.has("rdrand") && dom.cpuid.has("apic"), type);
    assertEquals(dom.cpuid.read(1).edx >>> 9 & 1, 1);
    const state = hv.save();
    dom.cpuid.set("rdrand", false);
    dom.cpuid.set(0x4000_0000, { ebx: 0x206d_7678 });
    dom.cpuid.edit("sse4.2=0,cmpxchg16=0");
    assertEquals(dom.cpuid.read(1).ecx & (1 << 30 | 1 << 20 | 1 << 13), 0);
    assertEquals(dom.cpuid.read(0x4000_0000).ebx, 0x206d_7678);
    await dom.vcpus[0].step(100);
    dom.cpuid.set("smap", false);
    assert(!dom.cpuid.has("smap"));
    assertThrows(() => dom.cpuid.set("avx", true), TypeError, "avx cannot be switched on");
    assertThrows(() => dom.cpuid.set("sse9", true), TypeError, '"sse9" is no feature');
    assertThrows(() => dom.cpuid.edit("7.0.efx=1"), TypeError, "efx");
    assert(Deno.inspect(dom.cpuid).includes("0x40000000  00000000  206d7678"));
    assert(dom.cpuid.text("7").includes("fsgsbase"));
    hv.load(state);
    assert(dom.cpuid.has("rdrand") && dom.cpuid.has("smap") && dom.cpuid.has("sse4_2"));
  }
});

Deno.test("createDomain takes CPUID as a model, as xl's text, or as a table; others are refused", async () => {
  const { image } = demoGuest();
  const make = async (cpuid: unknown) => {
    await using hv = await Hypervisor.start({ memory: "64M" });
    const dom = await hv.createDomain({ kernel: image, memory: "16M", cpuid: cpuid as string });
    return [dom.cpuid.model, dom.cpuid.has("popcnt"), dom.cpuid.has("x2apic")];
  };
  assertEquals(await make("nehalem"), ["nehalem", true, false]);
  assertEquals(await make("host,x2apic=0"), ["intel", true, false]);
  assertEquals(await make({ model: "common", features: { popcnt: false } }), [
    "common",
    false,
    true,
  ]);
  await assertRejects(() => make("i486"), TypeError, 'no model "i486"');
  await assertRejects(() => make({ feature: {} }), TypeError, "feature");
  await assertRejects(() => make({ features: { vmx: true } }), TypeError, "vmx cannot be switched");
});

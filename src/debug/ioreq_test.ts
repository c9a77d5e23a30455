// Devices in scripts: whose answer is whose, and what becomes of answers that are late, wrong or missing.
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { type Configuration, hostOf, kernel, settle, virtual } from "./testing/hosts.ts";
import { type GuestDomain, subjectOf } from "./domain.ts";
import { GuestStopped } from "./waits.ts";

/** An answer that comes when the test says so. */
class Later<T> {
  resolve!: (value: T) => void;
  reject!: (error: unknown) => void;
  readonly promise = new Promise<T>((resolve, reject) => {
    this.resolve = resolve;
    this.reject = reject;
  });
}

const word = (dom: GuestDomain, at: number) =>
  new DataView(dom.memory.read(at, 4).buffer).getUint32(0, true);

function each(name: string, test: (c: Configuration) => Promise<void>): void {
  for (const c of virtual) Deno.test(`${name} (${c.cpu}, ${c.paging})`, () => test(c));
}

each(
  "late answers go to the request they are for: ports and memory, all sizes, both ways, REP",
  async (c) => {
    await using host = await hostOf(
      c,
      kernel(`
      mov dx, 0x500
      in al, dx
      mov [0x200000], al
      in ax, dx
      mov [0x200004], ax
      in eax, dx
      mov [0x200008], eax
      mov eax, 0x11223344
      out dx, al
      out dx, ax
      out dx, eax
      mov al, [0xd0000000]
      mov [0x20000c], al
      mov ax, [0xd0000000]
      mov [0x200010], ax
      mov eax, [0xd0000000]
      mov [0x200014], eax
      mov dword [0xd0000004], 0x55667788
      add dword [0xd0000008], 1
      mov edi, 0x200020
      mov ecx, 4
      cld
      rep insb
      mov esi, 0x200020
      mov ecx, 2
      rep outsw
      mov esi, 0xd0000000
      mov edi, 0xd0000010
      mov ecx, 3
      rep movsb
      hlt`),
    );
    const { dom } = host, asked: string[] = [];
    let n = 0;
    const handlers = (what: string) => ({
      read: async (address: number, size: number) => {
        asked.push(`${what} read ${address.toString(16)} ${size}`);
        await settle(1);
        return Number(BigInt.asUintN(8 * size, 0x0a0b_0c00n + BigInt(++n)));
      },
      write: async (address: number, value: number, size: number) => {
        asked.push(`${what} write ${address.toString(16)} ${size} ${value.toString(16)}`);
        await settle(1);
      },
    });
    dom.ioreq.serve({ port: [0x500, 0x503] }, handlers("port"));
    dom.ioreq.serve({ mmio: [0xd000_0000, 0xd000_00ff] }, handlers("memory"));
    await dom.until("hlt");
    assertEquals(
      asked,
      [
        "port read 500 1",
        "port read 500 2",
        "port read 500 4",
        "port write 500 1 44",
        "port write 500 2 3344",
        "port write 500 4 11223344",
        "memory read d0000000 1",
        "memory read d0000000 2",
        "memory read d0000000 4",
        "memory write d0000004 4 55667788",
        "memory read d0000008 4",
        "memory write d0000008 4 a0b0c08",
        ...[9, 10, 11, 12].map(() => "port read 500 1"),
        "port write 500 2 908",
        "port write 500 2 b0a",
        ...[0, 1, 2].flatMap((i) => [
          `memory read d000000${i} 1`,
          `memory write d000001${i} 1 ${(12 + i).toString(16)}`,
        ]),
      ].map((line) => line),
    );
    assertEquals(
      [0x200000, 0x200004, 0x200008, 0x20000c, 0x200010, 0x200014].map((at) => word(dom, at)),
      [1, 0xc02, 0xa0b0c03, 4, 0xc05, 0xa0b0c06],
    );
  },
);

each(
  "an access across two devices, or a device and a page, goes to each in its bytes",
  async (c) => {
    await using host = await hostOf(
      c,
      kernel(`
      mov dx, 0x502
      in eax, dx
      mov [0x200000], eax
      out dx, eax
      mov eax, [0xd0000ffe]
      mov [0x200004], eax
      mov [0xd0000ffe], eax
      hlt`),
    );
    const { dom } = host, asked: string[] = [];
    const device = (name: string, late: boolean) => ({
      read: (address: number, size: number) => {
        asked.push(`${name} read ${address.toString(16)} ${size}`);
        const value = address & 0xff;
        return late ? settle(1).then(() => value) : value;
      },
      write: (address: number, value: number, size: number) => {
        asked.push(`${name} write ${address.toString(16)} ${size} ${value.toString(16)}`);
        return late ? settle(1) : undefined;
      },
    });
    dom.ioreq.serve({ port: [0x500, 0x503] }, device("low", false));
    dom.ioreq.serve({ port: [0x504, 0x507] }, device("high", true));
    dom.ioreq.serve({ mmio: [0xd000_0000, 0xd000_0fff] }, device("below", true));
    dom.ioreq.serve({ mmio: [0xd000_1000, 0xd000_1fff] }, device("above", false));
    await dom.until("hlt");
    assertEquals([word(dom, 0x200000), word(dom, 0x200004)], [0x05040302, 0x0100fffe]);
    const lines = (names: [string, string], at: number) =>
      ["read", "write"].flatMap((dir) =>
        [0, 1, 2, 3].map((i) => {
          const value = dir === "write" ? ` ${((at + i) & 0xff).toString(16)}` : "";
          return `${names[i >> 1]} ${dir} ${(at + i).toString(16)} 1${value}`;
        })
      );
    // In which order the processor reads the bytes of two pages is its own affair.
    const expected = [...lines(["low", "high"], 0x502), ...lines(["below", "above"], 0xd000_0ffe)];
    assertEquals(asked.toSorted(), expected.toSorted());
  },
);

/** Reads a byte at a port, then four at an address, a port again, and writes. */
const READS = kernel(`
  mov dx, 0x500
  first: in al, dx
  mov ebx, eax
  second: in al, dx
  mov ecx, eax
  mov al, [0xd0000000]
  hlt`);

each("an answer that comes after its access was given up is dropped, with a word", async (c) => {
  const ways: [string, (dom: GuestDomain) => void][] = [
    ["the instruction pointer was moved", (dom) => dom.vcpus[0].regs.rip += 1n],
    ["saved before, loaded now", (dom) => subjectOf(dom.vcpus[0].domain).inner.host],
  ];
  for (const [way, giveUp] of ways) {
    await using host = await hostOf(c, READS);
    const { hv, dom } = host, answers: Later<number>[] = [], asked: number[] = [];
    const begin = hv.save();
    dom.ioreq.serve({ port: [0x500, 0x500] }, {
      read: (address) => {
        asked.push(address);
        answers.push(new Later());
        return answers.at(-1)!.promise;
      },
    });
    const run = dom.continue();
    await settle();
    assertEquals(asked.length, 1, way);
    dom.pause();
    assertEquals(await run, null);
    if (way.startsWith("saved")) hv.load(begin);
    else giveUp(dom);
    const end = dom.until("hlt");
    await settle();
    // The second access, or the first once more: not the same request.
    assertEquals(asked.length, 2, way);
    answers[0].resolve(0x11);
    await settle();
    assertEquals(asked.length, 2, way);
    assertEquals(dom.ioreq.dropped.length, 1, way);
    assertMatch(dom.ioreq.dropped[0], /late answer to the read of 1 byte at port 0x500 is dropped/);
    for (const value of [0x22, 0x33]) {
      answers.at(-1)!.resolve(value);
      await settle();
    }
    const { regs } = await end;
    assertEquals(Number(regs.ecx & 0xffn), way.startsWith("saved") ? 0x33 : 0x22, way);
  }
});

each(
  "a stop that is answered otherwise makes no request; one given up makes no other's answer",
  async (c) => {
    await using host = await hostOf(c, READS);
    const { dom } = host, asked: number[] = [];
    dom.ioreq.serve({ port: [0x500, 0x500] }, { read: (a) => void asked.push(a) });
    const stop = await dom.until("io", { port: 0x500 });
    stop.skip();
    const second = await dom.until("io", { port: 0x500 });
    second.reply({ value: 0x77 });
    const end = await dom.until("hlt");
    assertEquals(asked, []);
    assertEquals(end.regs.ecx & 0xffn, 0x77n);
  },
);

each(
  "skip() passes over an instruction whose access or fault made the guest leave",
  async (c) => {
    await using host = await hostOf(
      c,
      kernel(`
      mov eax, 1
      mov eax, [0xd0000000]
      inc eax
      mov dword [0xd0000004], 0x55667788
      inc eax
      movzx eax, byte [0xd0000000 + eax * 4]
      inc eax
      ud2
      inc eax
      hlt`),
    );
    const { dom } = host, places: bigint[] = [];
    for (const [kind, n] of [["mmio", 2], ["nested-page-fault", 1], ["exception", 1]] as const) {
      for (let i = 0; i < n; i++) {
        const stop =
          await (kind === "exception" ? dom.until("exception", { vector: 6 }) : dom.until(kind));
        places.push(stop.regs.rip);
        stop.skip();
      }
    }
    const end = await dom.until("hlt");
    assertEquals(end.regs.eax & 0xffff_ffffn, 5n);
    assertEquals(places.map((at, i) => i ? Number(at - places[i - 1]) : 0), [0, 6, 11, 9]);
  },
);

each(
  "wrong answers are errors that say what was given and what was expected; the request comes again",
  async (c) => {
    const wrong: [unknown, typeof RangeError | typeof TypeError, string][] = [
      [0x1ff, RangeError, "the read of 1 byte at port 0x500 takes a whole number from 0 to 0xff"],
      [-1, RangeError, "answered -1"],
      [1.5, RangeError, "answered 1.5"],
      ["5", TypeError, "the string 5"],
      [5n, TypeError, "the bigint 5"],
      [{}, TypeError, "a Object"],
    ];
    for (const late of [false, true]) {
      await using host = await hostOf(c, READS);
      const { dom, hv } = host;
      let give: () => unknown = () => 0;
      dom.ioreq.serve({ port: [0x500, 0x500] }, {
        read: () => late ? settle(1).then(give) as Promise<number> : give() as number,
      });
      dom.ioreq.serve({ mmio: [0xd000_0000, 0xd000_0003] }, {
        read: () => late ? settle(1).then(give) as Promise<number> : give() as number,
      });
      const before = dom.vcpus[0].regs.rip;
      for (const [value, type, text] of wrong) {
        give = () => value;
        await assertRejects(() => dom.continue(), type, text);
        assertEquals([dom.state, dom.vcpus[0].regs.rip], ["paused", before + 4n], text);
        hv.save();
      }
      give = () => {
        throw new Error("no such register");
      };
      await assertRejects(() => dom.continue(), Error, "at port 0x500: no such register");
      let n = 0;
      give = () => ++n;
      const failing = await dom.until("execute", { address: before + 8n });
      assertEquals([failing.regs.eax & 0xffn], [2n]);
      // In the middle of an emulated instruction, too.
      give = () => 256;
      await assertRejects(() => dom.continue(), RangeError, "guest-physical 0xd0000000");
      give = () => 9;
      assertEquals((await dom.until("hlt")).regs.eax & 0xffn, 9n);
    }
  },
);

each(
  "while a device never answers the guest can be paused, stepped no further, saved and destroyed",
  async (c) => {
    for (const type of ["port", "memory", "write"] as const) {
      const code = { port: "in al, dx", memory: "mov al, [0xd0000000]", write: "out dx, al" }[type];
      await using host = await hostOf(c, kernel(`mov dx, 0x500\nmov ebx, 5\n${code}\nhlt`));
      const { dom, hv } = host;
      const never = () => new Promise<number>(() => {});
      const end = dom.ioreq.serve({ port: [0x500, 0x500], mmio: [0xd000_0000, 0xd000_0000] }, {
        read: never,
        write: never,
      });
      const run = dom.until("hlt");
      await settle();
      const time = dom.statistics().time;
      await settle();
      assertEquals(dom.statistics().time, time, "no time passes");
      dom.pause();
      const stopped = await assertRejects(() => run, GuestStopped);
      assertEquals(stopped.reason, "paused");
      assertEquals(dom.vcpus[0].regs.ebx, 5n);
      const step = dom.vcpus[0].step();
      await settle();
      dom.pause();
      await assertRejects(() => step, GuestStopped, "paused");
      // Loaded, the device is asked again: by now it is the platform's.
      const saved = hv.save();
      end();
      hv.load(saved);
      assertEquals(hv.save(), saved);
      await dom.until("hlt");
      hv.load(saved);
      dom.ioreq.serve({ port: [0x500, 0x500], mmio: [0xd000_0000, 0xd000_0000] }, {
        read: never,
        write: never,
      });
      const last = dom.continue();
      await settle();
      dom.destroy();
      assertEquals((await last)?.kind, "end");
    }
  },
);

Deno.test("a device that is paused over its answer gives it when the guest goes on", async () => {
  for (const c of virtual) {
    await using host = await hostOf(c, READS);
    const { dom } = host, answers: Later<number>[] = [];
    dom.ioreq.serve({ port: [0x500, 0x500] }, {
      read: () => {
        answers.push(new Later());
        return answers.at(-1)!.promise;
      },
    });
    const run = dom.continue();
    await settle();
    dom.pause();
    await run;
    answers[0].resolve(0x42);
    await settle();
    assertEquals([dom.state, answers.length], ["paused", 1]);
    const end = dom.until("hlt");
    await settle();
    assert(answers.length === 2);
    answers[1].resolve(0x43);
    const { regs } = await end;
    assertEquals([regs.ebx & 0xffn, regs.ecx & 0xffn], [0x42n, 0x43n]);
    assertEquals(dom.ioreq.dropped, []);
  }
});

each("devices in scripts print with what they are at", async (c) => {
  await using host = await hostOf(
    c,
    kernel(`
      mov dx, 0x500
      in al, dx
      mov word [0xd0000004], 0x5566
      hlt`),
  );
  const { dom } = host, seen: unknown[] = [], texts: string[] = [];
  const look = async () => {
    await settle(1);
    seen.push(...dom.ioreq.requests);
    texts.push(Deno.inspect(dom.ioreq));
  };
  dom.ioreq.serve({ port: [0x500, 0x503] }, { read: () => look().then(() => 7) });
  const away = dom.ioreq.serve({ mmio: [0xd000_0000, 0xd000_0fff] }, { write: look });
  assertEquals(dom.ioreq.servers.map(({ port, mmio }) => [port, mmio]), [
    [[0x500, 0x503], undefined],
    [undefined, [0xd000_0000, 0xd000_0fff]],
  ]);
  await dom.until("hlt");
  const waiting = { vcpu: 0, state: "inprocess" };
  assertEquals(seen, [
    { ...waiting, type: "port", dir: "read", address: 0x500, size: 1, value: undefined },
    { ...waiting, type: "mmio", dir: "write", address: 0xd000_0004, size: 2, value: 0x5566 },
  ]);
  assertMatch(texts[0], /ports 0x500 to 0x503\n.*addresses 0xd0000000 to 0xd0000fff/);
  assertMatch(texts[1], /write mmio 0xd0000004 +2 +0x5566 +inprocess/);
  away();
  assertEquals([dom.ioreq.servers.length, dom.ioreq.requests], [1, []]);
});

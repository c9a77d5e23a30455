// What somebody waits for while the host is put into a saved state, or until a signal ends the wait.
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import type { GuestDomain } from "../domain.ts";
import { GuestStopped } from "../waits.ts";
import { configurations, hostOf, kernel, virtual } from "../testing/hosts.ts";

const turn = () => new Promise((resolve) => setTimeout(resolve, 2));
/** Counts for ever, and says so at a port. */
const GUEST = "again: inc eax\nout 0x80, al\njmp again";

type Wait = (dom: GuestDomain, signal: AbortSignal) => Promise<unknown>;
const WAITS: Record<string, Wait> = {
  until: (dom, signal) => dom.until("execute", { address: 0x1 }, { signal }),
  "until with a predicate": (dom) => dom.until("execute", { address: 0x1 }, () => true),
  tryUntil: async (dom, signal) => {
    const result = await dom.tryUntil("execute", { address: 0x1 }, { signal });
    if (result instanceof GuestStopped) throw result;
  },
  wait: (dom, signal) => dom.wait("execute", { address: 0x1 }, { signal }),
  "a loop over stops": (dom, signal) => dom.stops("execute", { address: 0x1 }, { signal }).next(),
  continue: (dom) => dom.continue(),
  "console.shows": (dom, signal) => dom.console.shows("never", { signal }),
  ended: (dom) => dom.ended,
};

for (const c of configurations) {
  Deno.test(`who waits while the host is put into a saved state is told why it is over (${c.cpu}, ${c.paging})`, async () => {
    await using host = await hostOf(c, kernel(GUEST));
    const { hv, dom } = host, saved = hv.save();
    for (const [name, wait] of Object.entries(WAITS)) {
      const controller = new AbortController();
      const waiting = wait(dom, controller.signal);
      const over = assertRejects(
        () => waiting,
        GuestStopped,
        "put into a saved state before",
        name,
      );
      dom.unpause();
      await turn();
      dom.pause();
      hv.load(saved);
      assertEquals((await over).reason, "loaded", name);
      assertEquals([dom.statistics().instructions, dom.breakpoints], [0, []], name);
      // The signal is nobody's any longer: what runs now goes on.
      dom.unpause();
      controller.abort();
      await turn();
      assertEquals(dom.state, "running", name);
      dom.pause();
      await turn();
    }
  });

  Deno.test(`a signal ends a wait with its reason, and pauses what until let run (${c.cpu}, ${c.paging})`, async () => {
    await using host = await hostOf(c, kernel(GUEST));
    const { dom } = host;
    for (const name of ["until", "tryUntil", "wait", "a loop over stops", "console.shows"]) {
      const controller = new AbortController(), reason = new Error(`enough of ${name}`);
      const waiting = assertRejects(
        () => WAITS[name](dom, controller.signal),
        Error,
        reason.message,
      );
      dom.unpause();
      await turn();
      controller.abort(reason);
      assertEquals(await waiting, reason);
      const runs = name === "wait" || name === "console.shows";
      assertEquals(dom.state, runs ? "running" : "paused", name);
      dom.pause();
      await turn();
      // One that was given before: nothing begins.
      const { instructions } = dom.statistics();
      await assertRejects(() => WAITS[name](dom, controller.signal), Error, reason.message);
      await turn();
      assertEquals([dom.statistics().instructions, dom.state], [instructions, "paused"], name);
    }
  });
}

Deno.test("what until and shows take besides is checked", async () => {
  await using host = await hostOf(virtual[0], kernel(GUEST));
  const { dom } = host;
  const wrong = [
    () => dom.until("cr", {}, { signal: 1 } as never),
    () => dom.until("cr", {}, { timeout: 1 } as never),
    () => dom.wait("cr", {}, { predicate: 1 } as never),
    () => dom.console.shows("x", { signal: {} } as never),
  ];
  for (const call of wrong) await assertRejects(call, TypeError, "");
  assertEquals(dom.breakpoints, []);
});

for (const c of virtual) {
  Deno.test(`a device's answer that is owed when the host is put into a saved state is dropped, and asked for again (${c.cpu}, ${c.paging})`, async () => {
    await using host = await hostOf(c, kernel("mov dx, 0x300\nin al, dx\nmov ebx, eax\nhlt"));
    const { hv, dom } = host, before = hv.save();
    const answers: ((value: number) => void)[] = [];
    dom.ioreq.serve({ port: [0x300, 0x300] }, {
      read: () => new Promise<number>((resolve) => answers.push(resolve)),
    });
    const asked = async (times: number) => {
      for (let n = 0; n < 200 && answers.length < times; n++) await turn();
      assertEquals(answers.length, times);
    };
    for (const place of ["before the access", "at the access"]) {
      const first = answers.length, running = dom.continue();
      const over = assertRejects(() => running, GuestStopped, "put into a saved state");
      await asked(first + 1);
      assert(dom.blocked);
      hv.load(place === "at the access" ? hv.save() : before);
      assertEquals((await over).reason, "loaded");
      const dropped = dom.ioreq.dropped.length;
      answers[first](0x11);
      await turn();
      assertMatch(
        dom.ioreq.dropped[dropped],
        /^the late answer to the read of 1 byte at port 0x300 is dropped: the host was put into a saved state$/,
      );
      dom.pause();
      const done = dom.until("hlt");
      done.catch(() => {});
      await asked(first + 2);
      answers[first + 1](0x22);
      assertEquals((await done).regs.rbx & 0xffn, 0x22n, place);
      hv.load(before);
    }
  });
}

for (const c of virtual) {
  Deno.test(`what devices have answered of an instruction is asked once, a load between or not (${c.cpu}, ${c.paging})`, async () => {
    const code = kernel("mov esi, 0xf0000000\nmov edi, 0xf0001000\nmovsd\nhlt");
    await using one = await hostOf(c, code);
    await using fresh = await hostOf(c, code);
    const [a, b] = [one, fresh].map(({ dom }) => {
      const told = { reads: 0, writes: [] as number[], answer: () => {} };
      dom.ioreq.serve({ mmio: [0xf000_0000, 0xf000_0fff] }, {
        read: () => 0x1234 + told.reads++,
      });
      dom.ioreq.serve({ mmio: [0xf000_1000, 0xf000_1fff] }, {
        write: (_, value) => {
          told.writes.push(value);
          return new Promise<void>((resolve) => told.answer = resolve);
        },
      });
      return told;
    });
    const until = async (done: () => boolean) => {
      for (let n = 0; n < 200 && !done(); n++) await turn();
      assert(done());
    };
    void one.dom.continue().catch(() => {});
    await until(() => a.writes.length === 1);
    const saved = one.hv.save();
    for (const [{ hv, dom }, told, reads, asked] of [[one, a, 1, 2], [fresh, b, 0, 1]] as const) {
      hv.load(saved);
      assertEquals(hv.save(), saved);
      dom.pause();
      const halts = dom.until("hlt");
      halts.catch(() => {});
      await until(() => told.writes.length === asked);
      told.answer();
      await halts;
      assertEquals([told.reads, told.writes], [reads, Array(asked).fill(0x1234)]);
    }
  });
}

Deno.test("the end after a load is asked for anew", async () => {
  await using host = await hostOf(virtual[0], kernel("mov al, 3\nout 0xf4, al\nagain: jmp again"));
  const { hv, dom } = host, saved = hv.save(), first = dom.ended;
  hv.load(saved);
  assertEquals((await assertRejects(() => first, GuestStopped)).reason, "loaded");
  await dom.continue();
  assertEquals((await dom.ended).reason, "exit");
});

import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import type { GuestDomain } from "./domain.ts";
import { Hypervisor } from "./hypervisor.ts";

const NEVER = /stands still until (the action of breakpoint|its device).* is done: .*never come/;

/** All ways of awaiting a domain's progress. */
const WAYS: Readonly<Record<string, (dom: GuestDomain) => Promise<unknown>>> = {
  until: (dom) => dom.until("execute", { address: "timer" }),
  tryUntil: (dom) => dom.tryUntil("execute", { address: "timer" }),
  wait: (dom) => dom.wait("execute", { address: "timer" }),
  stops: (dom) => dom.stops("execute", { address: "timer" }).next(),
  continue: (dom) => dom.continue(),
  step: (dom) => dom.vcpus[0].step(),
  stepOver: (dom) => dom.vcpus[0].stepOver(),
  stepOut: (dom) => dom.vcpus[0].stepOut(),
  stepExit: (dom) => dom.vcpus[0].stepExit(),
  shows: (dom) => dom.console.shows("never shown"),
  ended: (dom) => dom.ended,
};

for (const [cpu, type] of [["intel", "bare"], ["intel", "hvm"], ["amd", "hvm"]] as const) {
  Deno.test(`an action cannot await its own domain's progress (${cpu}, ${type})`, async () => {
    await using hv = await Hypervisor.demo({ cpu, type });
    const [dom] = hv.domains;
    for (const [name, way] of Object.entries(WAYS)) {
      if (name === "stepExit" && type === "bare") continue;
      for (const later of [false, true]) {
        const b = dom.break("execute", { address: "put_char" }, {
          once: true,
          action: async () => {
            if (later) await new Promise((resolve) => setImmediate(resolve));
            await way(dom);
          },
        });
        const error = await assertRejects(() => dom.continue(), Error, undefined, name);
        // Steps of a domain that runs are refused for that already.
        assertMatch(
          error.message,
          /is running; pause it first/.test(error.message) ? /step/ : NEVER,
        );
        assertEquals(dom.state, "paused", name);
        b.delete();
      }
    }
    // It is there to go on.
    await dom.until("execute", { address: "timer" });
  });
}

Deno.test("a device cannot await its own domain's progress", async () => {
  // The domain awaits whatever has a `then`.
  const lazily = (start: () => Promise<unknown>) => ({
    then: (...then: Parameters<Promise<unknown>["then"]>) => start().then(...then),
  });
  for (const cpu of ["intel", "amd"] as const) {
    for (const name of ["until", "shows", "ended"]) {
      for (const how of [async (start: () => Promise<unknown>) => await start(), lazily]) {
        await using hv = await Hypervisor.demo({ cpu });
        const [dom] = hv.domains;
        const answer = () => how(() => WAYS[name](dom)) as Promise<undefined>;
        dom.ioreq.serve({ port: [0x3f8, 0x3ff] }, { read: answer, write: answer });
        const { cause, message } = await assertRejects(() => dom.continue(), Error);
        assertMatch(`${message}: ${(cause as Error)?.message}`, NEVER, name);
      }
    }
  }
});

Deno.test("nobody stands still for a trace: it may await the end of its domain", async () => {
  for (const type of ["bare", "hvm"] as const) {
    await using hv = await Hypervisor.demo({ type });
    const [dom] = hv.domains;
    let reason: string | undefined;
    dom.trace("execute", { address: "put_char" }, {
      once: true,
      action: async () => reason = (await dom.ended).reason,
    });
    await dom.until("execute", { address: "timer" });
    dom.destroy();
    await dom.ended;
    await null;
    assertEquals(reason, "destroyed");
  }
});

Deno.test("what an action begins and does not await comes, and so does another domain's", async () => {
  await using hv = await Hypervisor.demo({ memory: "96M" });
  const [dom] = hv.domains;
  let next: Promise<unknown> | undefined;
  dom.break("execute", { address: "put_char" }, {
    once: true,
    action: (stop) => {
      next = dom.wait("execute", { address: "timer" });
      return stop.continue();
    },
  });
  dom.unpause();
  while (!next) await new Promise((resolve) => setImmediate(resolve));
  await next;
  // After it is done, too.
  let after: Promise<unknown> | undefined;
  dom.break("execute", { address: "timer" }, {
    once: true,
    action: async (stop) => {
      await null;
      setTimeout(() => after = dom.until("execute", { address: "timer" }), 20);
      return stop.continue();
    },
  });
  dom.unpause();
  while (!after) await new Promise((resolve) => setTimeout(resolve, 5));
  await after;
});

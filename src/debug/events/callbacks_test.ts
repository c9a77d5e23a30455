import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { hostUnder, Hypervisor } from "../hypervisor.ts";

/** What nobody caught while `fn` ran, and shortly after. */
async function strays(fn: () => Promise<void>): Promise<string[]> {
  const messages: string[] = [];
  const onError = (event: ErrorEvent) => {
    event.preventDefault();
    const { message, cause } = event.error as Error;
    messages.push(cause ? `${message}: ${(cause as Error).message}` : message);
  };
  const onRejection = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    messages.push(`rejection: ${event.reason.message}`);
  };
  addEventListener("error", onError);
  addEventListener("unhandledrejection", onRejection);
  try {
    await fn();
    await new Promise((resolve) => setTimeout(resolve, 5));
  } finally {
    removeEventListener("error", onError);
    removeEventListener("unhandledrejection", onRejection);
  }
  return messages;
}

for (const cpu of ["intel", "amd"] as const) {
  Deno.test(`${cpu}: a trace whose action rejects says so once, and is off`, async () => {
    await using hv = await Hypervisor.demo({ cpu });
    const [dom] = hv.domains;
    let calls = 0;
    const trace = dom.trace("io", {}, () => {
      calls++;
      return Promise.reject(new Error("no"));
    });
    const told = await strays(async () => {
      await dom.until("hlt");
      await dom.until("hlt");
    });
    assertEquals(told, ["trace 1 (io): its action failed, and it is off now: no"]);
    const before = calls;
    assertEquals([before, trace.enabled], [1, false]);
    assertEquals(await strays(() => dom.until("hlt").then(() => {})), []);
    assertEquals(calls, before);
    trace.enabled = true;
    assertEquals((await strays(() => dom.until("hlt").then(() => {}))).length, 1, "on again");
  });

  Deno.test(`${cpu}: a device whose answer rejects stops the domain, and whoever waits is told`, async () => {
    await using hv = await Hypervisor.demo({ cpu });
    const [dom] = hv.domains;
    const fail = (what: string) => () => Promise.reject(new Error(what));
    dom.ioreq.serve({ port: [0x3f8, 0x3ff] }, { read: fail("read"), write: fail("write") });
    const told = await strays(async () => {
      for (let i = 0; i < 3; i++) {
        const error = await assertRejects(() => dom.until("hlt"), Error);
        assertMatch(error.message, /failed at the (read|write) of .*: (read|write)$/);
        assertEquals(dom.state, "paused");
      }
    });
    assertEquals(told, []);
    assertMatch(
      (await strays(async () => {
        dom.unpause();
        while (dom.state === "running") await new Promise((resolve) => setTimeout(resolve, 1));
      })).join(),
      /^a device in a script failed at [^:]*: (read|write): (read|write)$/,
      "nobody waited",
    );
  });
}

Deno.test("a listener of the console that rejects says so once, and hears no more", async () => {
  await using hv = await Hypervisor.demo();
  const [dom] = hv.domains;
  dom.console.onOutput(() => Promise.reject(new Error("no")));
  const told = await strays(async () => {
    for (let i = 0; i < 3; i++) await dom.until("hlt");
  });
  assertEquals(told, ["console.onOutput: the listener failed, and hears no more: no"]);
});

Deno.test("a host whose slices are over as soon as they begin gets on all the same", async () => {
  for (const type of ["bare", "hvm"] as const) {
    await using hv = await Hypervisor.demo({ type });
    const [dom] = hv.domains;
    hostUnder(hv).attention = { due: () => true, begin() {}, end() {} };
    const start = dom.vcpus[0].position.count;
    await dom.until("execute", { address: "timer" });
    assert(dom.vcpus[0].position.count > start);
  }
});

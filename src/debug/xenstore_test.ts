// Requests to xenstore under the debugger: seen with their answers, by path, refused; the tree in print.
import { assert, assertEquals, assertThrows } from "@std/assert";
import { XS } from "../abi/xen/io/xs_wire.ts";
import { XenstoreError } from "../dom0/client.ts";
import { hostHash } from "../xen/state.ts";
import { GuestDomain } from "./domain.ts";
import { Hypervisor } from "./hypervisor.ts";
import { CALL_WAYS, type CallWay, callWayName } from "./testing/calls.ts";
import { introduced } from "./testing/rings.ts";

async function watched(way: CallWay) {
  const made = await introduced(way);
  return { ...made, dom: new GuestDomain(made.guest.guest.built, undefined, () => {}) };
}

for (const way of CALL_WAYS) {
  const name = callWayName(way);

  Deno.test(`requests to xenstore are traced with their answers, by request and path (${name})`, async () => {
    const { dom, rings, domain0 } = await watched(way), own = `/local/domain/${dom.id}`;
    const seen: string[] = [], data: string[] = [];
    dom.trace("xenstore", {}, (e) => void seen.push(e.describe()));
    dom.trace("xenstore", { path: `${own}/data/` }, ({ request }) => void data.push(request));
    const failed = dom.trace("xenstore", { error: "EACCES" });
    const named = dom.trace("xenstore", { request: "read", path: "/local/*/name" });
    rings.ask(XS.READ, "name\0");
    rings.ask(XS.WRITE, "data/note\0hello");
    rings.ask(XS.WRITE, "name\0other");
    rings.ask(XS.READ, "data/none\0");
    rings.ask(XS.WATCH, "data\0token\0");
    domain0.store.write(`${own}/data/x`, "1");
    assertEquals(seen, [
      `xenstore read ${own}/name = "way"`,
      `xenstore write ${own}/data/note "hello" = "OK"`,
      `xenstore write ${own}/name "other" = EACCES`,
      `xenstore read ${own}/data/none = ENOENT`,
      `xenstore watch ${own}/data "token" = "OK"`,
    ]);
    assertEquals([data, failed.hits, named.hits], [["write", "read"], 1, 1]);
  });

  Deno.test(`a request is refused, or the guest stops behind it (${name})`, async () => {
    const { dom, rings, guest } = await watched(way);
    const b = dom.break("xenstore", { request: "read" }, (x) => x.deny("ENOENT"));
    const traced = dom.trace("xenstore", { error: "ENOENT" });
    assertEquals(rings.ask(XS.READ, "name\0"), [XS.ERROR, "ENOENT\0"]);
    assertEquals([b.hits, traced.hits], [1, 1]);
    b.delete();
    assertEquals(rings.ask(XS.READ, "name\0"), [XS.READ, "way"]);
    const stops = dom.break("xenstore");
    assertThrows(() => rings.ask(XS.READ, "name\0"));
    assertEquals([dom.stop?.kind, guest.domain.state.kind], ["xenstore", "paused"]);
    stops.delete();
    guest.domain.resume();
    assertEquals(guest.goOn(), 0);
  });

  Deno.test(`looking at xenstore changes nothing (${name})`, async () => {
    const run = async (look: boolean) => {
      const { dom, rings, guest, domain0 } = await watched(way);
      if (look) {
        dom.trace("xenstore");
        dom.break("xenstore", {}, () => "continue");
      }
      const answers = [rings.ask(XS.READ, "name\0"), rings.ask(XS.MKDIR, "data/a\0")];
      if (look) {
        const text = Deno.inspect(domain0.store);
        assert(text.includes('name = "way"') && text.includes("(n0"), text);
      }
      return { answers, hash: hostHash(guest.guest.host) };
    };
    assertEquals(await run(true), await run(false));
  });
}

Deno.test("hv.xenstore is there with the first domain that knows Xen, and says what was refused", async () => {
  await using hv = await Hypervisor.start({ memory: "64M" });
  assertThrows(() => hv.xenstore, Error, "xen: true");
  const { domain0: { store }, guest } = await introduced();
  const path = `/local/domain/${guest.domain.id}/data`;
  const heard: string[] = [];
  store.watch(path, (event) => void heard.push(event.path));
  store.write(`${path}/a`, "1");
  assertEquals([store.list(path), store.read(`${path}/a`)], [["a"], "1"]);
  assertEquals(heard, [path, `${path}/a`]);
  assertThrows(() => store.read(`${path}/b`), XenstoreError, "ENOENT");
  assertEquals(
    await store.transaction((nodes) => {
      nodes.write(`${path}/b`, "2");
      return nodes.read(`${path}/b`);
    }),
    "2",
  );
  assertEquals(store.tree(path).split("\n").map((line) => line.trim().split("  ")[0]), [
    path,
    'a = "1"',
    'b = "2"',
  ]);
});

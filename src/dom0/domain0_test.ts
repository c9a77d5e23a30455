// Domain 0 beside a guest that knows Xen: its console and xenstore, over pages and channels of that guest.
import { assertEquals } from "@std/assert";
import { HVM_PARAM } from "../abi/xen/hvm/params.ts";
import { XS } from "../abi/xen/io/xs_wire.ts";
import { CALL_WAYS, callWayName } from "../debug/testing/calls.ts";
import { introduced } from "../debug/testing/rings.ts";
import { hostHash, loadHost, saveHost } from "../xen/state.ts";
import { CONSOLE_PAGE, XENSTORE_PAGE } from "./pages.ts";
import { bytesOfText, textOf } from "./text.ts";

const { STORE_PFN, STORE_EVTCHN, CONSOLE_PFN, CONSOLE_EVTCHN } = HVM_PARAM;

for (const way of CALL_WAYS) {
  const name = callWayName(way);

  Deno.test(`a guest asks xenstore over its ring, and is told of an answer (${name})`, async () => {
    const { guest, domain0, rings } = await introduced(way), { id } = guest.domain;
    assertEquals(rings.ask(XS.READ, "domid\0"), [XS.READ, `${id}`]);
    assertEquals(rings.pending(STORE_EVTCHN), true);
    assertEquals(rings.ask(XS.READ, "name\0"), [XS.READ, "way"]);
    assertEquals(rings.ask(XS.WRITE, "name\0other"), [XS.ERROR, "EACCES\0"]);
    assertEquals(rings.ask(XS.WRITE, "data/note\0hello"), [XS.WRITE, "OK\0"]);
    assertEquals(domain0.store.read(`/local/domain/${id}/data/note`), "hello");
    guest.domain.destroy();
    assertEquals(domain0.store.list("/local/domain"), []);
    assertEquals([domain0.grants.maps, domain0.channels.all], [[], []]);
  });

  Deno.test(`a guest's console is its domain's: written, and typed to where it wrote last (${name})`, async () => {
    const { guest, rings } = await introduced(way), { domain } = guest;
    const typed = () => textOf(rings.take(CONSOLE_PFN, CONSOLE_PAGE.input));
    domain.input(bytesOfText("early"));
    assertEquals(typed(), "");
    rings.put(CONSOLE_PFN, CONSOLE_EVTCHN, CONSOLE_PAGE.output, bytesOfText("login: "));
    assertEquals(textOf(domain.output.since(0)), "login: ");
    domain.input(bytesOfText("root\n"));
    assertEquals([typed(), rings.pending(CONSOLE_EVTCHN)], ["root\n", true]);
    domain.emit(0x3e);
    domain.input(bytesOfText("serial"));
    assertEquals(typed(), "");
  });
}

Deno.test("what domain 0 has of a guest is saved: loaded, both go on as they would have", async () => {
  const { guest, domain0, rings } = await introduced(), { host } = guest.guest;
  rings.ask(XS.WATCH, "data\0token\0");
  const saved = saveHost(host), hash = hostHash(host);
  const on = () => {
    domain0.store.write(`/local/domain/${guest.domain.id}/data/x`, "1");
    rings.put(CONSOLE_PFN, CONSOLE_EVTCHN, CONSOLE_PAGE.output, bytesOfText("more"));
    return [textOf(rings.take(STORE_PFN, XENSTORE_PAGE.replies).subarray(16)), hostHash(host)];
  };
  const first = on();
  assertEquals(String(first[0]).includes("data/x\0token\0"), true);
  loadHost(host, saved);
  assertEquals(hostHash(host), hash);
  assertEquals(on(), first);
});

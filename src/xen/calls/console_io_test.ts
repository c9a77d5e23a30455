// console_io: the hypervisor's own console, for those domains that may write there.
import { assertEquals } from "@std/assert";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { CONSOLEIO } from "../../abi/xen/xen.ts";
import { ARGUMENT, CALL_WAYS, CallGuest, callWayName } from "../../debug/testing/calls.ts";
import { loadHost, saveHost } from "../state.ts";

const { EFAULT, EPERM } = XEN_ERRNO;
const NOWHERE = 0x4000_0000;

for (const way of CALL_WAYS) {
  const name = callWayName(way);
  const write = (guest: CallGuest, text: string) => {
    const bytes = new TextEncoder().encode(text);
    guest.guest.write(0x10_0000, bytes);
    return guest.call("console_io", CONSOLEIO.write, bytes.length, 0x10_0000);
  };

  Deno.test(`console_io: nobody writes to Xen's console unless he may (${name})`, async () => {
    const guest = await CallGuest.make(way), { log } = guest.domain.host;
    for (const command of [CONSOLEIO.write, CONSOLEIO.read, 77]) {
      for (const count of [0, 16, 0xffff_ffff]) {
        assertEquals(guest.call("console_io", command, count, NOWHERE), -EPERM);
      }
    }
    assertEquals([write(guest, "text\n"), log.text], [-EPERM, ""]);
  });

  Deno.test(`console_io: lines with the domain's number, cleaned, cut, kept up to a bound (${name})`, async () => {
    const guest = await CallGuest.make(way, { xenConsole: true }), { log } = guest.domain.host;
    const beside = await CallGuest.make(way, { host: guest.guest.host, xenConsole: true });
    const lines: string[] = [], [one, two] = [guest.domain.id, beside.domain.id];
    log.onLine.add((line) => lines.push(line));
    assertEquals([write(guest, "one\ntw"), write(beside, "ot\x00her\x1b\tline\n")], [0, 0]);
    assertEquals([write(guest, "o\n"), write(guest, "")], [0, 0]);
    assertEquals(lines, [`(d${one}) one`, `(d${two}) other\tline`, `(d${one}) two`]);
    write(guest, `${"x".repeat(450)}\n`);
    assertEquals(lines.slice(3).map((line) => line.length - `(d${one}) `.length), [199, 199, 52]);
    assertEquals(log.text, lines.map((line) => `${line}\n`).join(""));
    assertEquals(guest.call("console_io", CONSOLEIO.write, 1, NOWHERE), -EFAULT);
    assertEquals(guest.call("console_io", CONSOLEIO.read, 1, ARGUMENT), -EPERM);
    assertEquals(guest.call("console_io", 77, 1, ARGUMENT), -EPERM);
    // Much at once is written in several goes; what is kept stays bounded.
    const exits = guest.engine.vcpu.exits.hypercall ?? 0;
    for (let n = 0; n < 9; n++) write(guest, "y".repeat(0x1_8000) + "\n");
    assertEquals(guest.engine.vcpu.exits.hypercall! - exits, 18);
    for (let n = 0; n < 3; n++) log.line("z".repeat(1 << 19));
    assertEquals([log.bytes.since(0).length, log.text.at(-2)], [1 << 20, "z"]);
  });
}

Deno.test("console_io: a line that is begun is saved", async () => {
  const guest = await CallGuest.make(CALL_WAYS[0], { xenConsole: true }), { host } = guest.guest;
  const write = (text: string) => guest.xen.console!.write(new TextEncoder().encode(text));
  write("be");
  const saved = saveHost(host);
  write("come\n");
  loadHost(host, saved);
  write("gun\n");
  assertEquals(host.log.text.split("\n").map((line) => line.slice(5)), ["become", "begun", ""]);
});

import { assertEquals } from "@std/assert";
import { firstUse } from "./uses.ts";

Deno.test("firstUse() says whether an input reads a name before it gives it a value", () => {
  const uses: Record<string, string> = {
    "hv = await Hypervisor.start()": "write hv",
    "const hv: Hypervisor = await Hypervisor.start(); hv.domains": "write hv",
    "await using hv = await Hypervisor.start()": "write hv",
    "hv = await restart(hv)": "read hv",
    "const cpu = hv.cpus[0]; hv = other": "read hv",
    "const { hv } = await make()": "write hv",
    "[dom, hv] = [1, 2]": "write dom",
    "hv ??= 1": "read hv",
    "for (hv of hosts) hv.close()": "write hv",
    "import { hv } from './mine.ts'": "write hv",
    "function hv() {}": "write hv",
    "({ hv: 1 }).hv; hv: for (;;) break hv": "nothing",
    "`hv`": "nothing",
    "({ hv })": "read hv",
    "`${dom.name}`": "read dom",
    "hv(": "nothing",
  };
  for (const [text, wanted] of Object.entries(uses)) {
    const first = firstUse(text, ["hv", "dom"]);
    assertEquals(first ? `${first.use} ${first.name}` : "nothing", wanted, text);
  }
});

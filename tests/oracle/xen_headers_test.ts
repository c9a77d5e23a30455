import { assert, assertEquals } from "@std/assert";
import { array, struct } from "../../src/abi/layout.ts";
import { abiFiles, differences, headersFolder, MODULES, unavailable } from "./xen_headers.ts";

const missing = await unavailable();
const note = missing ? ` (skipped: ${missing})` : "";
const ignore = missing !== undefined;
if (missing) console.warn(`skipped: ${missing}`);

for (const width of [32, 64] as const) {
  Deno.test({
    name: `src/abi/xen says what Xen's headers say, ${width}-bit${note}`,
    ignore,
    async fn() {
      const { compared, wrong } = await differences((await headersFolder())!, width);
      assertEquals(wrong, []);
      assert(compared > 1500, `${compared} compared`);
    },
  });

  Deno.test({
    name: `the comparison finds a wrong number, offset, size and sign, ${width}-bit${note}`,
    ignore,
    async fn() {
      const { wrong } = await differences((await headersFolder())!, width, {
        "a.ts": {
          VIRQ: { TIMER: 1 },
          SEND: struct("evtchn_send", { port: "i32" }),
          CLOSE: struct("evtchn_bind_vcpu", { vcpu: "u32", port: "u32" }),
          RING: struct("xencons_interface", { in: array("u8", 1000) }),
        },
      });
      assertEquals(wrong, [
        "VIRQ_TIMER is 0; we say 1",
        "(__typeof__(((struct evtchn_send *)0)->port))-1 < 0 is 0; we say 1",
        "offsetof(struct evtchn_bind_vcpu, vcpu) is 4; we say 0",
        "offsetof(struct evtchn_bind_vcpu, port) is 0; we say 4",
        "sizeof(struct xencons_interface) is 3088; we say 1000",
        "sizeof(((struct xencons_interface *)0)->in) is 1024; we say 1000",
      ]);
    },
  });
}

Deno.test("every file of src/abi/xen takes part", async () => {
  assertEquals(Object.keys(MODULES).sort(), await abiFiles());
});

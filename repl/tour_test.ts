import { assert, assertStringIncludes } from "@std/assert";
import { TOUR } from "./commands/tour.ts";
import { prelude } from "./prelude.ts";
import { Session } from "./session.ts";

Deno.test("every command of the tour works on the demo guest as written", async () => {
  let out = "";
  const session = new Session({ print: (text) => void (out += text) });
  prelude(session, { demo: true });
  try {
    for (const input of TOUR.flatMap((it) => it.type)) {
      const before = out.length;
      assert((await session.enter(input)).ok, `${input}: ${out.slice(before)}`);
    }
  } finally {
    session.evaluator.close();
  }
  for (
    const wanted of [
      "execute 0xc01000d5 <main>",
      "cr3 <- 0x103000 (mov)",
      "watch write of 4 bytes",
      "exception #PF(0x2) at 0xd0000000",
      "=> guest-physical 0x200000, 4 KiB page",
      "exitQualification",
    ]
  ) {
    assertStringIncludes(out, wanted);
  }
});

import { assertEquals, assertStringIncludes } from "@std/assert";
import { Hypervisor } from "../../mod.ts";
import { Session } from "../session.ts";

async function withDemo(fn: (enter: (input: string) => Promise<string>) => Promise<void>) {
  await using hv = await Hypervisor.demo();
  let printed = "";
  const session = new Session({ print: (text) => void (printed += text) });
  session.use(hv as never);
  try {
    await fn(async (input) => {
      printed = "";
      const { ok } = await session.enter(input);
      return (ok ? "" : "! ") + printed.trimEnd();
    });
  } finally {
    session.evaluator.close();
  }
}

Deno.test("a condition is checked when it is typed", () =>
  withDemo(async (enter) => {
    const refused = {
      "b timer if stop.valu === 1": `! if: an event of kind "execute" has no valu; it has: `,
      "b io if stop.vaule === 1":
        `it has: kind, regs, vcpu, position, raw, breakpoints, describe, port`,
      "b timer if stop.regs.raxx": "! if: stop.regs has no raxx",
      "b timer if rax === 1n": "! if: nothing is named rax; write stop.regs.rax",
      "until io if port === 1": "! if: nothing is named port; write stop.port",
      "trace cr if nosuch": "! if: nothing is named nosuch",
      "b timer if stop.": "! ",
    };
    for (const [input, says] of Object.entries(refused)) {
      assertStringIncludes(await enter(input), says);
    }
    assertEquals(await enter("bl"), "no breakpoints");
    const allowed = [
      "b timer if stop.regs.rax === 1n && [1, 2].some((x) => x > 1)",
      "b io if stop['port'] === 0x3f8 && ((s) => s.any)(stop)",
      "b any if stop.port === 1 || stop.gpa === 2n",
    ];
    for (const input of allowed) assertStringIncludes(await enter(input), "breakpoint ");
    assertStringIncludes(
      (await enter("bl")).split("\n")[1],
      "stop.regs.rax === 1n && [1, 2].some((x) => x > 1)",
    );
  }));

Deno.test("ranges and vectors are written as one says them", () =>
  withDemo(async (enter) => {
    assertEquals(
      await enter("b io port=0x3f8-0x3ff write"),
      "breakpoint 1: io port=0x3f8-0x3ff write",
    );
    assertEquals(
      await enter("b mmio address=0xfee00000-0xfee00fff"),
      [
        "breakpoint 2: mmio address=0xfee00000-0xfee00fff",
      ].join(),
    );
    assertEquals(await enter("b #PF"), "breakpoint 3: exception vector=0xe");
    assertEquals(await enter("b exception #GP"), "breakpoint 4: exception vector=0xd");
    assertEquals(await enter("b exception vector=#UD"), "breakpoint 5: exception vector=6");
    assertEquals(await enter("b msr msr=efer"), "breakpoint 6: msr msr=0xc0000080");
    assertStringIncludes(await enter("b io port=0x3ff-0x3f8"), "! io filter port: [first, last]");
    assertStringIncludes(await enter("b cr cr=33"), "! cr filter cr: 0, 3, 4 or 8 was expected");
    assertStringIncludes(await enter("b io port=0x3f8.."), "is no number, symbol or range");
    assertStringIncludes(await enter("until io port=0x3f8-0x3ff write"), "io write port 0x3fb");
  }));

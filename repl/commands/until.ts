import { exitEvents } from "../../src/debug/kinds.ts";
import type { Command } from "./command.ts";
import { printStop } from "./format.ts";
import { wanted } from "./parse.ts";

export const until: Command = {
  name: "until",
  usage: "until KIND [FILTER…] [if CONDITION]   until ADDRESS",
  summary: "Run until an exit of a kind, or until an address is reached",
  help: `  until cr cr=3 write
  until io port=0x3f8 if stop.value === 0x41
  until start_kernel
  until #PF

Kinds, of which .help KIND tells more: ${exitEvents.join(" ")}

API: await dom.until("cr", { cr: 3, write: true }); it throws GuestStopped when the guest ends first,
where dom.tryUntil() returns that`,
  async run(call, context) {
    const { kind, filter, condition } = await wanted(call, context);
    printStop(await context.domain().until(kind, filter, condition?.predicate), context);
  },
};

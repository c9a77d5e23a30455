import { CommandError, type StopView } from "../context.ts";
import type { Command } from "./command.ts";
import { printStop } from "./format.ts";
import { EXIT_KINDS } from "./kinds.ts";
import { address, filter } from "./parse.ts";

export const until: Command = {
  name: "until",
  usage: "until KIND [FILTER…] [if CONDITION]   until ADDRESS",
  summary: "Run until an exit of a kind, or until an address is reached",
  help: `  until cr cr=3 write
  until io port=0x3f8 if stop.value === 0x41
  until start_kernel

Kinds: ${EXIT_KINDS.join(" ")}

API: await dom.until("cr", { cr: 3, write: true }); it throws GuestStopped when the guest ends first,
where dom.tryUntil() returns that`,
  async run({ words, rest }, context) {
    const [first] = words;
    if (!first) {
      throw new CommandError(
        `until: a kind or an address is missing; kinds: ${EXIT_KINDS.join(" ")}`,
      );
    }
    const isKind = EXIT_KINDS.includes(first);
    const { filter: fields, predicate } = await filter(rest.slice(first.length), context);
    const stop = isKind
      ? await context.domain().until(first, fields, predicate as (stop: StopView) => boolean)
      : await context.domain().until(
        "execute",
        { address: await address(first, context), ...fields },
        predicate as (stop: StopView) => boolean,
      );
    printStop(stop, context);
  },
};

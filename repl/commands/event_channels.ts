import type { Command } from "./command.ts";
import { count } from "./parse.ts";

export const eventChannels: Command = {
  name: "ec",
  usage: "ec [PORT]   ec picture",
  summary: "The domain's event channels, or one of them",
  help:
    `Of each port: its state, its peer or VIRQ, the vCPU that is told, whether an event is pending or
the port masked, how many events came, how many of them the guest was not told of (another was pending
already: merged; or the port was masked), who sent the last, and at which instruction of the host.

  ec
  ec 5
  ec picture                        the domains that it is joined to, and by what
  dom.eventChannels.get(5).raise()
  b event-send port=5 lost

API: dom.eventChannels`,
  run({ words: [port] }, context) {
    const table = context.domain().eventChannels as
      | { get(port: number): unknown; picture(): unknown }
      | undefined;
    if (port === "picture") return context.print(`${context.show(table?.picture())}\n`);
    const shown = port === undefined ? table : table?.get(count(port, 0, "ec"));
    context.print(`${context.show(shown)}\n`);
  },
};

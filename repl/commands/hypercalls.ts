import type { Command } from "./command.ts";

export const hypercalls: Command = {
  name: "hypercalls",
  usage: "hypercalls",
  summary: "Hypercalls by name and operation, counted, with their errors",
  help:
    `What hypercalls the domain has made since it was created: of each name and operation how many, and
how many of them failed, by the errno's name. It is always counted; .help hypercall tells how to look
at single ones:

  trace hypercall
  b hypercall event_channel_op sub=send

API: dom.hypercalls`,
  run(_, context) {
    context.print(`${context.show(context.domain().hypercalls)}\n`);
  },
};

import type { Command } from "./command.ts";

export const grants: Command = {
  name: "gnt",
  usage: "gnt [REF]",
  summary: "The domain's grants, and what it has mapped of others; or one grant",
  help:
    `Of each reference in use: the guest frame, flags, the domain that may use it, who has mapped it
and where, and how often it was copied. Then the grants of other domains that this one has mapped.

  gnt
  b grant-map by=0
  dom.break("grant-map", { ref: 8 }, (x) => x.deny("general_error"))

API: dom.grants`,
  run({ words: [ref] }, context) {
    const table = context.domain().grants as { get(ref: number): unknown } | undefined;
    context.print(`${context.show(ref === undefined ? table : table?.get(Number(ref)))}\n`);
  },
};

/**
 * Two domains that talk over an event channel and a granted page; what they did, as Xen's tables and
 * counters have it.
 *
 * `deno task xvm run scripts/two_domains.ts [--rounds N] [--cpu intel|amd] [--paging hap|shadow] [--help]`
 *
 * @module
 */
import { talkers, talkersOptions } from "./talkers.ts";

const options = talkersOptions(
  "Two domains that talk over an event channel and a granted page:\n\n" +
    "  deno task xvm run scripts/two_domains.ts [OPTIONS]",
);
await using both = await talkers(options);
const { hv, asks, answers } = both;
// When half of it is done.
const half = answers.break("grant-map", {}, {
  hits: Math.ceil(options.rounds / 2),
  once: true,
  action: () => {
    console.log(asks.eventChannels);
    console.log(asks.grants);
    console.log(hv.picture());
    return "continue";
  },
});
await both.run();
half.delete();
const { instructions } = hv.cpus[0], { done } = both.counts(asks);
console.log(
  `\n${done} numbers answered, ${Math.round(Number(instructions) / done)} instructions each`,
);
console.log(answers.hypercalls);

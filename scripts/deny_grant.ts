/**
 * A fault injector: the Nth mapping of a grant is refused, with any status; then what the guest that was
 * refused made of it.
 *
 * `deno task xvm run scripts/deny_grant.ts [--nth N] [--status NAME] [--help]`
 *
 * @module
 */
import { talkers, talkersOptions, wholeOf } from "./talkers.ts";

const options = talkersOptions(
  "Refuses the Nth mapping of a grant between two domains that talk:\n\n" +
    "  deno task xvm run scripts/deny_grant.ts [OPTIONS]",
  {
    nth: "which mapping is refused (7)",
    status: "what the guest is told: a GNTST_* by name (no_device_space)",
  },
);
const nth = wholeOf(options.own.nth, "nth", 7), status = options.own.status ?? "no_device_space";
await using both = await talkers(options);
const { answers } = both;
answers.break("grant-map", { by: answers.id }, {
  hits: nth,
  once: true,
  action: (map) => {
    console.log(`mapping ${nth}, at instruction ${map.position.count}: ${map.describe()}`);
    console.log(`refused: ${status}`);
    return map.deny(status);
  },
});
await both.run();
const { done, refused } = both.counts(answers);
console.log(`the guest was refused ${refused} times, tried again, and gave ${done} answers`);

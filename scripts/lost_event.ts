/**
 * Finds an event that is lost: one that comes while another is pending on its port, or while the port is
 * masked, of which the guest is not told. Shows who sent it, and from where.
 *
 * `deno task xvm run scripts/lost_event.ts [--help]`
 *
 * @module
 */
import { GuestStopped } from "xvm";
import { talkers, talkersOptions } from "./talkers.ts";

const options = talkersOptions(
  "Finds the first event that is lost between two domains, one of which sends each twice:\n\n" +
    "  deno task xvm run scripts/lost_event.ts [OPTIONS]",
);
await using both = await talkers({ ...options, hasty: true });
const { asks, answers } = both;
answers.unpause();
const lost = await asks.tryUntil("event-send", { lost: true });
if (lost instanceof GuestStopped) console.log("no event was lost");
else {
  console.log(lost);
  const [from, to, port] = lost.incoming ? [answers, asks, lost.port] : [asks, answers, lost.peer!];
  console.log(`${from.name} has sent it; at ${to.name} the one before is not taken yet:`);
  console.log(to.eventChannels.get(port));
  console.log(from.vcpus[0].disassemble(from.vcpus[0].regs.rip, 2));
}

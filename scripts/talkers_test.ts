// Two domains of ours that talk, on both vendors and pagings: to the end, twice the same, seen or not.
import { assert, assertEquals } from "@std/assert";
import { talkers } from "./talkers.ts";

for (const cpu of ["intel", "amd"] as const) {
  for (const paging of ["hap", "shadow"] as const) {
    const name = `${cpu}, ${paging}`, options = { cpu, paging, rounds: 50 };

    Deno.test(`two domains talk over a channel and a granted page; looking changes nothing (${name})`, async () => {
      const run = async (look: boolean) => {
        await using both = await talkers(options);
        const { hv, asks, answers } = both;
        const traces = look
          ? [asks, answers].flatMap((dom) => [
            dom.trace("hypercall"),
            dom.trace("event-send"),
            dom.trace("event-delivery"),
            dom.trace("grant-map"),
            dom.trace("grant-unmap"),
            dom.trace("any"),
          ])
          : [];
        await both.run();
        if (look) {
          assert(
            traces[0].hits > 100 && traces[1].hits >= 100,
            `${traces.map((t) => t.hits)}`,
          );
        }
        return [hv.stateHash(), both.counts(asks).done, both.counts(answers).done];
      };
      const plain = await run(false);
      assertEquals(plain.slice(1), [50, 50]);
      assertEquals(await run(true), plain);
    });

    Deno.test(`the guest whose third mapping is refused maps again (${name})`, async () => {
      await using both = await talkers(options);
      const { answers } = both;
      answers.break("grant-map", {}, {
        hits: 3,
        once: true,
        action: (map) => map.deny("bad_page"),
      });
      await both.run();
      assertEquals(both.counts(answers), { done: 50, refused: 1 });
    });

    Deno.test(`an event that is sent twice is lost once, and found (${name})`, async () => {
      await using both = await talkers({ ...options, hasty: true });
      const { asks, answers } = both;
      answers.unpause();
      const lost = await asks.until("event-send", { lost: true });
      assertEquals([lost.pending, lost.masked, lost.domain], [true, false, answers.id]);
      const at = lost.incoming
        ? asks.eventChannels.get(lost.port)
        : answers.eventChannels.get(lost.peer!);
      assertEquals([at.merged, at.pending], [1, true]);
    });
  }
}

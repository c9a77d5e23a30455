import type { Command } from "./command.ts";

export const go: Command = {
  name: "go",
  usage: "go",
  summary: "Let the domain run behind the prompt; ctrl-C on an empty line pauses it",
  help:
    `The prompt comes back at once. Console text and stops appear above it; c waits for the next stop.

API: dom.unpause(), dom.pause()`,
  async run(_, context) {
    await context.domain().unpause();
  },
};

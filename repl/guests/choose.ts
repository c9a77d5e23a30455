import { Select } from "@cliffy/prompt";
import { guestsCommand } from "./command.ts";
import { RECIPES } from "./images.ts";

/** `xvm guests`: as `guestsCommand`, but asks which image when `fetch` names none at a terminal. */
export async function guests(words: string[]): Promise<number> {
  const [verb, ...names] = words;
  const asks = verb === "fetch" && names.every((it) => it.startsWith("-")) &&
    Deno.stdin.isTerminal();
  if (!asks) return await guestsCommand(words);
  const chosen = await Select.prompt({
    message: "Which guest image?",
    options: RECIPES.map(({ name, about }) => ({
      name: `${name.padEnd(12)} ${about}`,
      value: name,
    })),
  });
  return await guestsCommand([...words, chosen]);
}

/**
 * Guest images from Debian's packages.
 *
 *     deno run -A scripts/guests.ts list
 *     deno run -A scripts/guests.ts fetch 686 tiny-i386
 *     deno run -A scripts/guests.ts fetch all [--force]
 */
import { guestsCommand } from "../repl/guests/command.ts";

if (import.meta.main) Deno.exit(await guestsCommand(Deno.args));

import { GuestsError } from "./apt.ts";
import { fetchGuests, guestsFolder, listGuests } from "./images.ts";

const HELP = `usage: xvm guests [list]
       xvm guests fetch NAME... | all [--force]

Makes guest images from Debian's packages into $XVM_GUESTS, or ~/.cache/xvm/guests.
Needs apt-get, apt-cache and dpkg-deb; no root; leaves the host's package configuration alone.`;

/**
 * `xvm guests [list | fetch NAME...]`.
 *
 * @returns The exit status: 0 done, 1 failed with one message on standard error, 2 bad arguments.
 */
export async function guestsCommand(args: readonly string[]): Promise<number> {
  const [verb = "list", ...rest] = args;
  const names = rest.filter((arg) => !arg.startsWith("-"));
  const options = rest.filter((arg) => arg.startsWith("-"));
  const wrong = options.find((option) => option !== "--force");
  if (verb === "--help" || verb === "-h" || verb === "help") {
    console.log(HELP);
    return 0;
  }
  if (wrong || !["list", "fetch"].includes(verb) || (verb === "fetch" && names.length === 0)) {
    console.error(wrong ? `unknown option ${wrong}` : `unknown or unfinished: guests ${verb}`);
    console.error(HELP);
    return 2;
  }
  try {
    if (verb === "list") console.log(await guestsTable());
    else {
      const report = (line: string) => console.error(line);
      await fetchGuests(names, { force: options.includes("--force"), report });
    }
    return 0;
  } catch (error) {
    if (!(error instanceof GuestsError)) throw error;
    console.error(error.message);
    return 1;
  }
}

/** The list of guests as text: a line each, `*` where the images are there. */
export async function guestsTable(folder: string = guestsFolder()): Promise<string> {
  const lines = [`guest images in ${folder} (* = made)`];
  for (const { recipe, present } of await listGuests(folder)) {
    const made = recipe.products.every((p) => present.some(({ path }) => path.endsWith(`/${p}`)));
    lines.push(`${made ? "*" : " "} ${recipe.name.padEnd(11)} ${recipe.about}`);
    for (const { path, entry } of present) {
      const size = `${(entry.size / 1e6).toFixed(1)} MB`.padStart(8);
      const name = path.slice(folder.length + 1).padEnd(20);
      lines.push(`    ${name} ${size}  ${entry.sha256.slice(0, 16)}  ${entry.version}`);
    }
  }
  return lines.join("\n");
}

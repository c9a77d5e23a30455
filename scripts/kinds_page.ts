/**
 * Writes docs/kinds.md from the rows of the kinds: `deno run -A scripts/kinds_page.ts`.
 *
 * @module
 */
import { kindHelp } from "../src/debug/kind_help.ts";
import { type Kind, kinds } from "../src/debug/kinds.ts";

const HEAD = `# Kinds of exits and events

What \`break\`, \`until\`, \`trace\` and \`wait\` take, and at the prompt \`b\`, \`until\` and \`trace\`. This page is
written by \`deno task kinds\` from the rows of src/hvm/exit_kinds.ts and src/debug/kinds.ts; \`.help KIND\`
shows one of them.
`;

function section(kind: Kind): string {
  const { meaning, help, filter, fields, reply, deny, where, example } = kindHelp(kind);
  const rows = [
    ["Who has it", where],
    ...filter.map(([key, may]) => [`Filter \`${key}\``, may]),
    ["Events have", fields.join(", ")],
    ["Reply", reply && `\`{ ${reply} }\``],
    ["`deny()`", deny && `injects ${deny}`],
    ["Example", `\`${example}\``],
  ].filter(([, text]) => text);
  return [
    `## ${kind}`,
    `${meaning[0].toUpperCase()}${meaning.slice(1)}.${help ? ` ${help}` : ""}`,
    rows.map(([name, text]) => `- ${name}: ${text}`).join("\n"),
  ].join("\n\n");
}

/** The whole page. */
export const kindsPage = (): string => `${HEAD}\n${kinds.map(section).join("\n\n")}\n`;

if (import.meta.main) {
  await Deno.writeTextFile(new URL("../docs/kinds.md", import.meta.url), kindsPage());
}

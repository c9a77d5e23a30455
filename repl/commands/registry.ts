/**
 * All commands, and which inputs call one.
 *
 * @module
 */
import { attach } from "./attach.ts";
import { backtrace } from "./backtrace.ts";
import { break_ } from "./break.ts";
import { breakpoints } from "./breakpoints.ts";
import { cpuid } from "./cpuid.ts";
import type { Call, Command } from "./command.ts";
import { compare } from "./compare.ts";
import { continue_ } from "./continue.ts";
import { delete_ } from "./delete.ts";
import { diff } from "./diff.ts";
import { disassemble } from "./disassemble.ts";
import { domain, vcpu, weight } from "./domain.ts";
import { eventChannels } from "./event_channels.ts";
import { examine } from "./examine.ts";
import { edit } from "./edit.ts";
import { exit } from "./exit.ts";
import { exitStep } from "./exit_step.ts";
import { exits } from "./exits.ts";
import { find } from "./find.ts";
import { go } from "./go.ts";
import { grants } from "./grants.ts";
import { helpCommand } from "./help.ts";
import { hypercalls } from "./hypercalls.ts";
import { load } from "./load.ts";
import { out } from "./out.ts";
import { over } from "./over.ts";
import { pageTables } from "./page_tables.ts";
import { parseCall } from "./parse.ts";
import { raw } from "./raw.ts";
import { registers } from "./registers.ts";
import { reverseContinue, reverseStep } from "./reverse.ts";
import { save } from "./save.ts";
import { schedule } from "./schedule.ts";
import { step } from "./step.ts";
import { trace } from "./trace.ts";
import { until } from "./until.ts";
import { watch } from "./watch.ts";
import { why } from "./why.ts";
import { xenstore } from "./xenstore.ts";

/** Every command, in the order of `.help`. */
export const COMMANDS: readonly Command[] = [
  step,
  over,
  out,
  exitStep,
  continue_,
  go,
  until,
  break_,
  breakpoints,
  delete_,
  watch,
  trace,
  registers,
  examine,
  edit,
  find,
  disassemble,
  backtrace,
  pageTables,
  why,
  exits,
  hypercalls,
  eventChannels,
  grants,
  xenstore,
  raw,
  compare,
  diff,
  cpuid,
  domain,
  vcpu,
  schedule,
  weight,
  reverseStep,
  reverseContinue,
  helpCommand(() => COMMANDS),
  load,
  save,
  attach,
  exit,
];

const BY_NAME = new Map(
  COMMANDS.flatMap((it) => [it.name, ...it.aliases ?? []].map((name) => [name, it] as const)),
);

/** Words that call commands, those with a dot too. */
export const COMMAND_NAMES: readonly string[] = [...BY_NAME.keys()];

/** Whether the word calls a command: a short one may have a dot too, as no variable has. */
export function isCommand(word: string): boolean {
  return BY_NAME.has(word) || BY_NAME.has(word.replace(/^\./, ""));
}

/** What telling a command from code needs of the language. */
export interface Language {
  /** Whether the text parses. */
  isValid(text: string): boolean;
  /** Whether prompt code finds something under the name. */
  isDefined(name: string): boolean;
}

/** A command with how it is called. */
export interface Invocation {
  command: Command;
  call: Call;
  /** The word as it was written: `.s` where `s` is a variable. */
  word: string;
}

/**
 * The command that `line` calls, or null when it is code. A command never hides what a user named: a
 * line that is valid code, and whose first word is defined or being assigned, is code. With a dot before
 * it a word is always a command.
 */
export function commandOf(line: string, language: Language): Invocation | null {
  const call = parseCall(line);
  if (!call) return null;
  const word = call.name;
  if (word.startsWith(".")) {
    const name = BY_NAME.has(word) ? word : word.slice(1);
    const command = BY_NAME.get(name);
    return command ? { command, call: { ...call, name }, word } : null;
  }
  const command = BY_NAME.get(word);
  if (!command) return null;
  // An assignment, maybe one whose end is still to come.
  if (/^(=(?!=)|[-+*/%&|^<>?]{1,3}=|=>)/.test(call.rest)) return null;
  if (language.isValid(line) && language.isDefined(word)) return null;
  return { command, call, word };
}

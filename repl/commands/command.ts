import type { Context } from "../context.ts";

/** A command of the prompt: a short word, what it does, and its help. */
export interface Command {
  /** The word; a dot-command has its dot. */
  name: string;
  /** Other words for it. */
  aliases?: string[];
  /** How it is written. */
  usage: string;
  /** One line for the table of commands. */
  summary: string;
  /** What `.help NAME` shows besides: what it does, the API behind it, examples. */
  help: string;
  /** The input that Enter on an empty line stands for after it; nothing when it is left out. */
  repeat?: string;
  /** Does it, or throws; false when it failed and has said so itself. */
  run(call: Call, context: Context): Promise<boolean | void> | boolean | void;
}

/** How a command was called. */
export interface Call {
  /** The word that was used. */
  name: string;
  /** `16xg` of `x/16xg`. */
  suffix: string;
  /** All behind the word. */
  rest: string;
  /** The same in words; brackets and quotes keep a word together. */
  words: string[];
}

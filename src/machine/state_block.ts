/**
 * State registers itself: who owns a part of a computer's state registers a block of it, and saving,
 * loading, hashing, comparing and showing walk the registry. What is in no block is lost by a load.
 *
 * What is derived is no state (translations, predecoded code, shadow tables), nor what observes
 * (breakpoints, traces, symbols), nor what lies outside: what a device in a script remembers, and the
 * answers it still owes. It is asked again. The contents of memory are state, and no block: they are
 * hashed and saved by frames.
 *
 * @module
 */
import { type Hash, hashBytes, plus, ZERO } from "./hash.ts";
import { encodePlain, type Plain, RecordError } from "./record.ts";
import { record, type Shape, table, whole } from "./shape.ts";

/** A part of the state, with a record of type `T`. */
export interface StateBlock<T> {
  /** Unique on its computer. */
  readonly name: string;
  /** Of the record's meaning; a block of another version is refused. */
  readonly version: number;
  readonly shape: Shape;
  /** What is no state, and has to be the same where the state is loaded; in words for a message. */
  readonly configuration?: () => Configuration;
  /** False: it says how somebody looks at the computer, and is no part of its hash. */
  readonly hashed?: false;
  /** The record as it is now. */
  readonly save: () => T;
  /**
   * Refuses what has the shape, and is no state.
   *
   * @param beside the saved record of another block; of the same part, if this is one's
   * @throws {RecordError}
   */
  readonly check?: (saved: T, beside: (name: string) => Plain | undefined) => void;
  /** Puts a record in place that was checked; it cannot fail. */
  readonly load: (saved: T) => void;
}

type Configuration = Readonly<Record<string, string | number>>;

/** A block as it is saved. */
export interface SavedBlock {
  readonly version: number;
  readonly configuration: Configuration;
  readonly record: Plain;
}
export type SavedBlocks = Readonly<Record<string, SavedBlock>>;

/** Where blocks are registered. */
export interface StateRegister {
  /** @throws {Error} if there is a block of that name */
  register<T>(block: StateBlock<T>): void;
}

/** A copy of numbers as bytes. */
export const bytesOf = (numbers: ArrayBufferView): Uint8Array =>
  new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength).slice();

/** Refuses a state. */
export const refuse = (text: string): never => {
  throw new RecordError(text);
};

const SAVED = table(
  record({ version: whole(), configuration: table(() => {}), record: () => {} }),
);

/** The blocks of a computer, in the order in which they are loaded. */
export class StateRegistry implements StateRegister {
  // Each has a type of record of its own.
  // deno-lint-ignore no-explicit-any
  readonly #blocks = new Map<string, StateBlock<any>>();

  register<T>(block: StateBlock<T>): void {
    const { name } = block;
    if (this.#blocks.has(name)) throw new Error(`a block "${name}" is registered already`);
    this.#blocks.set(name, block);
  }
  /** Puts a block in place of the one of its name. */
  replace<T>(block: StateBlock<T>): void {
    this.#blocks.set(block.name, block);
  }
  /** A part whose blocks come and go together: their names begin with its own. */
  part(part: string): StateRegister {
    const nameOf = (name: string) => name ? `${part} ${name}` : part;
    return {
      register: (block) =>
        this.register({
          ...block,
          name: nameOf(block.name),
          check: (saved, beside) => block.check?.(saved, (name) => beside(nameOf(name))),
        }),
    };
  }
  /** Takes a part's blocks away. */
  drop(part: string): void {
    for (const name of this.#blocks.keys()) {
      if (name === part || name.startsWith(`${part} `)) this.#blocks.delete(name);
    }
  }

  /** Of all blocks, whatever their order. */
  get hash(): Hash {
    let sum = ZERO;
    for (const { name, hashed, save } of this.#blocks.values()) {
      if (hashed !== false) sum = plus(sum, hashBytes(encodePlain([name, save()])));
    }
    return sum;
  }

  save(): SavedBlocks {
    return Object.fromEntries(
      [...this.#blocks].map(([name, { version, configuration, save }]) => [
        name,
        { version, configuration: configuration?.() ?? {}, record: save() },
      ]),
    );
  }

  /**
   * Checks all blocks: that the same are there and here, their versions, the configuration they are
   * of, and their records.
   *
   * @returns puts them in place
   * @throws {RecordError} saying what was expected
   */
  prepare(given: Plain): () => void {
    SAVED(given, "the saved state");
    const saved = given as unknown as SavedBlocks;
    const beside = (name: string) => Object.hasOwn(saved, name) ? saved[name].record : undefined;
    for (const [name, block] of this.#blocks) {
      if (!Object.hasOwn(saved, name)) refuse(`the saved state has no block "${name}"`);
      const { version, configuration } = saved[name];
      if (version !== block.version) {
        refuse(`block "${name}" has version ${version}; this xvm reads version ${block.version}`);
      }
      sameConfiguration(name, configuration, block.configuration?.() ?? {});
    }
    const unknown = Object.keys(saved).find((name) => !this.#blocks.has(name));
    if (unknown !== undefined) refuse(`the saved state has a block "${unknown}", unknown here`);
    const put = [...this.#blocks.values()].map(({ name, shape, check, load }) => {
      const { record } = saved[name];
      shape(record, name);
      check?.(record, beside);
      return () => load(record);
    });
    return () => put.forEach((each) => each());
  }
}

function sameConfiguration(name: string, there: Configuration, here: Configuration): void {
  for (const key of new Set([...Object.keys(here), ...Object.keys(there)])) {
    if (there[key] === here[key]) continue;
    refuse(
      `the saved state is of another configuration: ${name} has ${key} ${there[key]} there, and ` +
        `${
          here[key]
        } here; a host is made from the same options, and its domains in the same order`,
    );
  }
}

/**
 * The variables of the prompt. They outlive the input that declares them, can be declared again, and
 * are seen by every function made at the prompt, earlier or later: they are properties of the global
 * object, or, where that has something of the name already which the program itself may need, of an
 * object that shadows it for prompt code alone.
 *
 * @module
 */

/** A name that an input declares at its top level. */
export interface Declaration {
  name: string;
  /** As `const`: imports too. As `let`: classes too. */
  kind: "var" | "let" | "const" | "function";
}

/** What was there before any prompt. */
const RESERVED: ReadonlySet<string> = namesOf(globalThis);

/** The variables of one prompt. */
export class Variables {
  /** What prompt code sees before the global object. */
  readonly shadow: Record<string, unknown> = Object.create(null);
  readonly #declared = new Set<string>();
  readonly #provided = new Set<string>();

  /** Whether prompt code has to look at {@linkcode Variables.shadow} at all. */
  shadows(declarations: readonly Declaration[] = []): boolean {
    return declarations.some(({ name }) => RESERVED.has(name)) ||
      Object.keys(this.shadow).length > 0;
  }

  /** Names declared at the prompt. */
  names(): string[] {
    return [...this.#declared].filter((name) => Object.hasOwn(this.#home(name), name));
  }

  /** Whether prompt code finds something under the name. */
  has(name: string): boolean {
    return name in this.shadow || name in globalThis;
  }

  /** Whether prompt code itself made what it finds under the name, by declaration or assignment. */
  isOwn(name: string): boolean {
    if (this.#declared.has(name) && Object.hasOwn(this.#home(name), name)) return true;
    return this.has(name) && !this.#provided.has(name) && !RESERVED.has(name);
  }

  /** What prompt code finds under the name; undefined where it finds nothing, or nothing yet. */
  get(name: string): unknown {
    try {
      return name in this.shadow ? this.shadow[name] : Reflect.get(globalThis, name);
    } catch {
      return undefined; // not initialized
    }
  }

  /** Makes names known to prompt code that did not come from it; what was declared there stays. */
  provide(names: Record<string, unknown>): void {
    for (const [name, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(names))) {
      if (this.#declared.has(name) && Object.hasOwn(this.#home(name), name)) continue;
      this.#provided.add(name);
      Object.defineProperty(globalThis, name, { ...descriptor, configurable: true });
    }
  }

  /**
   * Begins an input that declares these. A `let` or `const` keeps what its name meant before until it
   * is initialized; the function returned gives that back where it never came to it.
   */
  declare(declarations: readonly Declaration[]): () => void {
    const undo = declarations.map(({ name, kind }) => {
      const home = this.#home(name);
      const before = Object.getOwnPropertyDescriptor(home, name);
      this.#declared.add(name);
      if (kind === "var" || kind === "function") {
        setVariable(home, name, this.get(name));
        return () => {};
      }
      const pending = this.#pending(home, name, kind, before);
      Object.defineProperty(home, name, pending);
      return () => {
        if (Object.getOwnPropertyDescriptor(home, name)?.get !== pending.get) return;
        delete home[name];
        if (before) Object.defineProperty(home, name, before);
      };
    });
    return () => undo.forEach((it) => it());
  }

  /** Takes away what was declared. */
  clear(): void {
    for (const name of this.names()) delete this.#home(name)[name];
  }

  /** Gives values to declared functions. */
  define(functions: Record<string, unknown>): void {
    for (const [name, value] of Object.entries(functions)) {
      this.#declared.add(name);
      // It was written with a name that is told from the variable's: see rewrite.ts.
      Object.defineProperty(value, "name", { value: name, configurable: true });
      setVariable(this.#home(name), name, value);
    }
  }

  #home(name: string): Record<string, unknown> {
    return RESERVED.has(name) ? this.shadow : globalThis as unknown as Record<string, unknown>;
  }

  /** A variable whose declaration has not run yet: the first value it is given is its own. */
  #pending(
    home: Record<string, unknown>,
    name: string,
    kind: "let" | "const",
    before: PropertyDescriptor | undefined,
  ): PropertyDescriptor {
    return {
      configurable: true,
      enumerable: true,
      get: () => {
        if (before) return before.get ? before.get.call(globalThis) : before.value;
        if (home === this.shadow && name in globalThis) return Reflect.get(globalThis, name);
        throw new ReferenceError(`Cannot access '${name}' before initialization`);
      },
      set: kind === "let"
        ? (value) => setVariable(home, name, value)
        : (value) => setConstant(home, name, value),
    };
  }
}

function setVariable(home: object, name: string, value: unknown): void {
  Object.defineProperty(home, name, {
    configurable: true,
    enumerable: true,
    writable: true,
    value,
  });
}

/** An accessor: what is not writable would take an assignment without a word. */
function setConstant(home: object, name: string, value: unknown): void {
  Object.defineProperty(home, name, {
    configurable: true,
    enumerable: true,
    get: () => value,
    set: () => {
      throw new TypeError(`Assignment to constant variable '${name}'.`);
    },
  });
}

/** All names that an object answers to, inherited ones too. */
function namesOf(object: object): Set<string> {
  const names = new Set<string>();
  for (let it: object | null = object; it; it = Object.getPrototypeOf(it)) {
    for (const name of Object.getOwnPropertyNames(it)) names.add(name);
  }
  return names;
}

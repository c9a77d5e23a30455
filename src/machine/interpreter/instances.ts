/** A processor's instances of the compiled modules, and its table of their functions. */
import type { CpuModel } from "../vendors.ts";
import { type Form, formName } from "../isa/semantics/meaning.ts";
import type { HostFunctions, SystemFunctions, WasmFunction } from "../linkage.ts";
import { CODE_MODE } from "../state.ts";
import { isForeign } from "../virtualization.ts";
import { groupOf } from "./groups.ts";
import type { InterpreterKind } from "./hot.ts";
import { groupModule, interpreter, systemModule } from "./modules.ts";
import type { Mode } from "./predecode.ts";

/** Memories 0 to 2: the processor's own, and the computer's. */
export interface Memories {
  readonly cpu: WebAssembly.Memory;
  readonly ram: WebAssembly.Memory;
  readonly frames: WebAssembly.Memory;
}

/** Forms of what does not decode. */
const special = (key: string): Form => ({ key, cc: -1, operandSize: 32, operands: [], sizes: [] });
type Special = "undefined" | "tooLong" | "unsupported" | "foreign";
const SPECIAL: Readonly<Record<Special, Form>> = {
  undefined: special("decode.undefined"),
  tooLong: special("decode.tooLong"),
  unsupported: special("decode.unsupported"),
  foreign: special("decode.foreign"),
};

/** Modes that have an interpreter of their own; the others share one. */
const KINDS: Partial<Record<Mode, InterpreterKind>> = {
  [CODE_MODE.flat32]: "flat32",
  [CODE_MODE.flat64]: "flat64",
};
const kindOf = (mode: Mode): InterpreterKind => KINDS[mode] ?? "general";

/** An interpreter, and its place in the table. */
interface Interpreter {
  readonly run: WasmFunction;
  readonly index: number;
}

export class Instances {
  readonly system: SystemFunctions;
  readonly #table = new WebAssembly.Table({ element: "anyfunc", initial: 16384 });
  readonly #imports: WebAssembly.Imports;
  #next = 1;
  readonly #cold = new Map<string, number>();
  readonly #groups = new Map<string, WebAssembly.Exports>();
  readonly #interpreters: Interpreter[] = [];

  constructor(readonly model: CpuModel, memories: Memories, host: HostFunctions) {
    this.#imports = { machine: { ...memories, cold: this.#table }, host };
    const { exports } = new WebAssembly.Instance(systemModule(model), this.#imports);
    this.#imports.system = exports as WebAssembly.ModuleImports;
    this.system = exports as unknown as SystemFunctions;
  }

  /** Table index of the cold function of a form; its group is compiled if need be. */
  cold(form: Form): number {
    const name = formName(form);
    let index = this.#cold.get(name);
    if (index === undefined) {
      const own = groupOf(form.key), group = own && isForeign(own, this.model) ? undefined : own;
      const none = own ? SPECIAL.foreign : SPECIAL.unsupported;
      const key = group ? name : formName(none);
      const f = this.#group(group ?? "special")[key] as WasmFunction | undefined;
      if (!f) throw new Error(`no handler for the form ${name} in group ${group}`);
      index = this.#next++;
      this.#table.set(index, f);
      this.#cold.set(name, index);
    }
    return index;
  }
  /** The same of bytes that are no instruction. */
  coldSpecial(name: Special): number {
    return this.cold(SPECIAL[name]);
  }

  #group(name: string): WebAssembly.Exports {
    let exports = this.#groups.get(name);
    if (!exports) {
      exports = new WebAssembly.Instance(groupModule(name), this.#imports).exports;
      this.#groups.set(name, exports);
    }
    return exports;
  }

  /** The interpreter for code of a mode. */
  interpreter(mode: Mode): Interpreter {
    return this.#interpreters[mode] ?? this.#makeInterpreter(kindOf(mode));
  }
  #makeInterpreter(kind: InterpreterKind): Interpreter {
    const { exports } = new WebAssembly.Instance(interpreter(kind), this.#imports);
    const made = { run: exports.interpret as unknown as WasmFunction, index: this.#next++ };
    this.#table.set(made.index, made.run);
    for (const mode of Object.values(CODE_MODE)) {
      if (kindOf(mode) === kind) this.#interpreters[mode] = made;
    }
    return made;
  }
}

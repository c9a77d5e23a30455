/** The Wasm modules of a processor: system functions, cold groups, interpreters. Made when needed. */
import { buildAccess } from "../mmu/access.ts";
import { buildWalk } from "../mmu/walk.ts";
import { buildFlags } from "../isa/flags.ts";
import { encodings } from "../isa/encodings.ts";
import { type Form, formName } from "../isa/semantics/meaning.ts";
import { groupOf, groups, integerGroup } from "./groups.ts";
import { buildWideArithmetic } from "../isa/semantics/multiply.ts";
import { buildLinearAddresses } from "../system/segmentation/linear.ts";
import { buildRuns } from "../system/segmentation/runs.ts";
import { machineModule, noteFault } from "../linkage.ts";
import type { Callable, Module } from "../wasm/module.ts";
import { HOOKS, type Virtualization, virtualization } from "../virtualization.ts";
import { buildCheckIp, buildCold } from "./cold.ts";
import { formsOf } from "./forms.ts";
import { type InterpreterKind, interpreterModule } from "./hot.ts";
import { buildSystemParts } from "./parts.ts";
import { CPU_MODELS, type CpuModel } from "../vendors.ts";

/** Compiled modules are shared by all processors of this process. */
const compiled = new Map<string, WebAssembly.Module>();
/** Functions of module S by model: what all models have, and what only its own group may call. */
const signatures = new Map<CpuModel, { shared: Callable[]; own: Callable[] }>();

function compile(name: string, bytes: () => Uint8Array<ArrayBuffer>): WebAssembly.Module {
  let module = compiled.get(name);
  if (!module) compiled.set(name, module = new WebAssembly.Module(bytes()));
  return module;
}

/** Module S: what every other module may call. One for each vendor's virtualization extensions. */
export function systemModule(model: CpuModel): WebAssembly.Module {
  return compile(`system ${model}`, () => {
    const m = machineModule();
    const before = new Set(m.names()), own = new Set<string>();
    buildSystem(m, noting(virtualization[model], own));
    const all = m.names().filter((n) => !before.has(n)).map((n) => m.get(n));
    const shared = all.filter((f) => !own.has(f.name));
    checkShared(shared);
    signatures.set(model, { shared, own: all.filter((f) => own.has(f.name)) });
    return m.bytes();
  });
}

/** All functions of module S. */
export function buildSystem(m: Module, extensions: Virtualization): void {
  buildFlags(m);
  buildNestedAndWalk(m, extensions);
  buildAccess(m);
  buildLinearAddresses(m);
  buildCheckIp(m, noteFault);
  buildRuns(m);
  buildWideArithmetic(m);
  buildSystemParts(m, extensions);
}

/** The same parts, with the names of the functions that only they have noted in `own`. */
function noting(extensions: Virtualization, own: Set<string>): Virtualization {
  const noted = (part: (m: Module) => void) => (m: Module) => {
    const before = new Set(m.names());
    part(m);
    for (const name of m.names()) if (!before.has(name) && !HOOKS.has(name)) own.add(name);
  };
  const { nested, hooks, functions } = extensions;
  return {
    ...extensions,
    nested: noted(nested),
    hooks: noted(hooks),
    functions: noted(functions),
  };
}

/** Modules compiled for one model serve the other: both must offer the same. */
function checkShared(functions: readonly Callable[]): void {
  const text = (f: Callable) => `${f.name}(${f.params}) -> (${f.results})`;
  const now = functions.map(text).sort();
  for (const { shared } of signatures.values()) {
    const then = shared.map(text).sort();
    const odd = now.filter((x) => !then.includes(x)).concat(then.filter((x) => !now.includes(x)));
    if (odd.length) throw new Error(`module S differs between models: ${odd.join(", ")}`);
  }
}

function buildNestedAndWalk(m: Module, extensions: Virtualization): void {
  // Walk and access call each other by name: bodies that come first are declared here.
  m.declareLater("nested", ["i64", "i32", "i64"], ["i64"]);
  m.declareLater("reservedBits", ["i64", "i32", "i32", "i32", "i32"], ["i32"]);
  m.declareLater("dropWrites", [], []);
  m.declareLater("flushTlb", [], []);
  buildWalk(m, extensions.pml4Reserved);
  extensions.nested(m);
}

/** Declares imports of the functions of module S that all models have. */
function importSystem(m: Module): void {
  if (signatures.size === 0) systemModule(CPU_MODELS[0]);
  const [{ shared }] = signatures.values();
  for (const s of shared) m.importFunction("system", s.name, s.params, s.results);
}

/** The same, and what the extensions that `group` belongs to have besides. */
function importFor(m: Module, group: string): void {
  importSystem(m);
  for (const [model, { group: own }] of Object.entries(virtualization)) {
    if (own !== group) continue;
    systemModule(model as CpuModel);
    for (const s of signatures.get(model as CpuModel)!.own) {
      m.importFunction("system", s.name, s.params, s.results);
    }
  }
}

/** The module of a group's cold handlers. */
export function groupModule(name: string): WebAssembly.Module {
  return compile(`group ${name}`, () => {
    const group = groups[name];
    const m = machineModule();
    importFor(m, name);
    group.functions?.(m);
    for (const key of Object.keys(group.semantics)) {
      // Forms of what does not decode stand in no table.
      if (key.startsWith("decode.")) {
        buildCold(
          m,
          { key, cc: -1, operandSize: 32, operands: [], sizes: [] },
          group.semantics[key],
        );
      }
    }
    for (const form of coldForms(name)) buildCold(m, form, group.semantics[form.key]);
    return m.bytes();
  });
}

/** All forms of a group that the table can give rise to. */
export function coldForms(group: string): Iterable<Form> {
  const forms = new Map<string, Form>();
  for (const e of encodings) {
    if (groupOf(e.key) !== group) continue;
    for (const form of formsOf(e)) forms.set(formName(form), form);
  }
  return forms.values();
}

/** The interpreter for a kind of code. */
export function interpreter(kind: InterpreterKind): WebAssembly.Module {
  return compile(
    `interpreter ${kind}`,
    () => interpreterModule(kind, importSystem, integerGroup.semantics),
  );
}

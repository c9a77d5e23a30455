/** The Wasm modules of a processor: system functions, cold groups, interpreters. Made when needed. */
import { buildAccess } from "../mmu/access.ts";
import { buildNested } from "../mmu/nested.ts";
import { buildWalk } from "../mmu/walk.ts";
import { buildFlags } from "../isa/flags.ts";
import { encodings } from "../isa/encodings.ts";
import { type Form, formName } from "../isa/semantics/meaning.ts";
import { groupOf, groups, integerGroup } from "../isa/semantics/index.ts";
import { buildWideArithmetic } from "../isa/semantics/multiply.ts";
import { buildLinearAddresses } from "../segmentation/linear.ts";
import { buildRuns } from "../segmentation/runs.ts";
import { machineModule, noteFault } from "../system.ts";
import type { Callable, Module } from "../wasm/module.ts";
import { buildCheckIp, buildCold } from "./cold.ts";
import { coldForm } from "./forms.ts";
import { type InterpreterKind, interpreterModule } from "./hot.ts";
import { buildSystemParts } from "./parts.ts";

/** Compiled modules are shared by all processors of this process. */
const compiled = new Map<string, WebAssembly.Module>();
let signatures: Callable[] = [];

function compile(name: string, bytes: () => Uint8Array<ArrayBuffer>): WebAssembly.Module {
  let module = compiled.get(name);
  if (!module) compiled.set(name, module = new WebAssembly.Module(bytes()));
  return module;
}

/** Module S: what every other module may call. */
export function systemModule(): WebAssembly.Module {
  return compile("system", () => {
    const m = machineModule();
    const before = new Set(m.names());
    buildFlags(m);
    buildNestedAndWalk(m);
    buildAccess(m);
    buildLinearAddresses(m);
    buildCheckIp(m, noteFault);
    buildRuns(m);
    buildWideArithmetic(m);
    buildSystemParts(m);
    signatures = m.names().filter((n) => !before.has(n)).map((n) => m.get(n));
    return m.bytes();
  });
}

function buildNestedAndWalk(m: Module): void {
  // Walk and access call each other by name: bodies that come first are declared here.
  m.declareLater("nested", ["i64", "i32", "i64"], ["i64"]);
  m.declareLater("reservedBits", ["i64", "i32", "i32", "i32", "i32"], ["i32"]);
  m.declareLater("dropWrites", [], []);
  m.declareLater("flushTlb", [], []);
  m.declareLater("eptWalk", ["i64", "i32", "i64"], ["i64"]);
  m.declareLater("eptMisconfigured", ["i64", "i32", "i32"], ["i32"]);
  buildWalk(m);
  buildNested(m);
}

/** Declares imports of all functions of module S. */
export function importSystem(m: Module): void {
  systemModule();
  for (const s of signatures) m.importFunction("system", s.name, s.params, s.results);
}

/** The module of a group's cold handlers. */
export function groupModule(name: string): WebAssembly.Module {
  return compile(`group ${name}`, () => {
    const group = groups[name];
    const m = machineModule();
    importSystem(m);
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
function coldForms(group: string): Iterable<Form> {
  const forms = new Map<string, Form>();
  for (const e of encodings) {
    if (groupOf(e.key) !== group) continue;
    for (const mode of [32, 64]) {
      if (mode === 64 ? e.attributes.i64 : e.attributes.o64) continue;
      for (const size of mode === 64 ? [16, 32, 64] : [16, 32]) {
        for (const memory of [false, true]) {
          const form = coldForm(e, memory, size, mode);
          if (memory && !form.operands.includes("M")) continue;
          forms.set(formName(form), form);
        }
      }
    }
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

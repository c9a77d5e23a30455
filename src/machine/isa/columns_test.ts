import { assertEquals } from "@std/assert";
import { flagBits } from "../../abi/x86/registers.ts";
import { hotHandler } from "../interpreter/hot_lookup.ts";
import { CPU, V } from "../state.ts";
import type { Callable, Module } from "../wasm/module.ts";
import { formsOf } from "../interpreter/forms.ts";
import { columnsOf, encodings, type Implied } from "./encodings.ts";
import { FLAG_KIND } from "./flags.ts";
import { groupOf, groups } from "../interpreter/groups.ts";
import { formName } from "./semantics/meaning.ts";
import {
  FLAG_CELLS,
  impliedBy,
  PRIVILEGE_CELL,
  type Recorded,
  RecordedFunc,
  recordGroup,
} from "./testing_recorder.ts";

let groupsRecorded: ReturnType<typeof recordGroup>[] | undefined;
const recorded = () => groupsRecorded ??= Object.keys(groups).map(recordGroup);
const all = () => recorded().flatMap(({ records }) => records);
const name = (r: Recorded) => formName(r.form);

/** What the forms of a key and condition do, taken together. */
const byKey = () => Map.groupBy(all(), ({ form }) => `${form.key}.${form.cc}`);

const letters = (texts: Iterable<string | undefined>) =>
  Object.keys(flagBits).filter((l) => [...texts].some((t) => t?.includes(l))).join("");

Deno.test("every row has a meaning, and rows of a key say the same of it", () => {
  const alike = [
    ...["privilege", "guard", "iopl", "pm", "exit", "read", "written", "undefined", "lazy"],
    ...["flow", "hot"],
  ] as const;
  for (const { key, cc, attributes } of encodings) {
    assertEquals(typeof groupOf(key), "string", key);
    const row = columnsOf(key, cc)! as unknown as Record<string, unknown>;
    for (const column of alike) {
      const own = (attributes as unknown as Record<string, unknown>)[column];
      assertEquals([key, column, own], [key, column, row[column]]);
    }
  }
});

Deno.test("privilege, mode, intercepts and flags of the table are those of the semantics", () => {
  for (const [key, records] of byKey()) {
    const { form } = records[0], row = columnsOf(form.key, form.cc);
    const uses = records.flatMap((r) => r.uses);
    const any = (column: "privilege" | "iopl" | "pm") => uses.some((u) => u[column]);
    if (!row) continue;
    // What is undefined may change or not.
    const defined = (text: string) =>
      letters([...text].filter((l) => row.written.includes(l) && !row.undefined.includes(l)));
    assertEquals({
      key,
      privilege: any("privilege"),
      guard: uses.find((u) => u.guard)?.guard ?? "",
      iopl: any("iopl"),
      pm: any("pm"),
      exit: [...new Set(uses.flatMap((u) => u.exit ?? []))].sort(),
      read: letters(uses.map((u) => u.read)),
      written: defined(letters(uses.map((u) => u.written))),
    }, {
      key,
      privilege: row.privilege !== "",
      guard: row.guard,
      iopl: row.iopl,
      pm: row.pm !== "",
      exit: row.exit.toSorted(),
      read: letters([row.read]),
      written: defined(row.written),
    });
  }
});

Deno.test("flags, CPL and protection are looked at through the doors of Meaning alone", () => {
  for (const r of all()) {
    const touched = [...r.f.reads, ...r.f.writes].filter((c) => FLAG_CELLS.includes(c));
    assertEquals([name(r), touched], [name(r), []]);
    assertEquals([name(r), r.modeFault], [name(r), false]);
    if (r.uses.some((u) => u.iopl)) continue;
    assertEquals([name(r), r.faultCells.has(PRIVILEGE_CELL)], [name(r), false]);
  }
});

Deno.test("general registers, RIP and the ways out are reached through Meaning alone", () => {
  for (const { form, f } of all()) {
    const touched = [...f.reads, ...f.writes].filter((c) => c >= CPU.rax && c < CPU.rip + 8);
    assertEquals([formName(form), touched, f.returns], [formName(form), [], 0]);
  }
});

Deno.test("what has hot handlers touches cells through Meaning alone", () => {
  for (const { module, records } of recorded()) {
    for (const { form, f } of records) {
      if (!hotHandler(form, "b", FLAG_KIND.explicit, false).plain) continue;
      // V.amd stays as it is while the machine runs.
      const cells = [...f.reads, ...f.writes].filter((c) => c !== V.amd);
      const calls = [...f.calls].filter((callee) => !isPure(module, callee));
      assertEquals([formName(form), cells, calls], [formName(form), [], []]);
    }
  }
});

/** A function that works on its arguments alone. */
function isPure(module: Module, callee: string): boolean {
  const f = module.get(callee);
  return f instanceof RecordedFunc && !f.reads.size && !f.writes.size && !f.calls.size;
}

Deno.test("a function that changes flags is called by those alone that say so", () => {
  for (const { module, records } of recorded()) {
    for (const r of records) {
      const written = columnsOf(r.form.key, r.form.cc)?.written ?? "";
      const callers = [...r.f.calls].filter((callee) => changesFlags(module, callee));
      // A fault of the new task is delivered in it.
      const tasks = columnsOf(r.form.key, r.form.cc)?.exit.includes("task-switch");
      if (written === "" && !tasks) assertEquals([name(r), callers], [name(r), []]);
    }
  }
});

const changesFlags = (module: Module, callee: string) =>
  reached(module, callee).some((f) => FLAG_CELLS.some((c) => f.writes.has(c)));

Deno.test("what the table says of state beside operands and flags, semantics look at and change", () => {
  const found = new Map<string, ReturnType<typeof impliedOf>>();
  for (const { module, records } of recorded()) {
    for (const r of records) found.set(name(r), impliedOf(module, r));
  }
  for (const e of encodings) {
    const forms = [...formsOf(e)].flatMap((form) => found.get(formName(form)) ?? []);
    const sorted = (names: Iterable<string>) => [...new Set(names)].sort();
    assertEquals({
      row: `${e.key} ${e.opcode}`,
      in: sorted(forms.flatMap((x) => x.in)),
      out: sorted(forms.flatMap((x) => x.out)),
    }, {
      row: `${e.key} ${e.opcode}`,
      in: sorted(e.attributes.in),
      out: sorted(e.attributes.out),
    });
  }
});

/** State that a form looks at and changes, itself, through doors and through functions. */
function impliedOf(module: Module, { f, uses }: Recorded): { in: Implied[]; out: Implied[] } {
  const all = [f, ...[...f.calls].flatMap((callee) => reached(module, callee))];
  const names = (cells: Iterable<number>) => [...cells].flatMap((c) => impliedBy(c) ?? []);
  return {
    in: [...uses.flatMap((u) => u.in ?? []), ...all.flatMap((g) => names(g.reads))],
    out: [...uses.flatMap((u) => u.out ?? []), ...all.flatMap((g) => names(g.writes))],
  };
}

/** Flags only change their form; what a task, a guest or its host saves and loads is its own. */
const APART = new Set(["materialize", "switchTask", "intercept", "vmentry", "vmrun"]);
const reachedFrom = new WeakMap<Callable, RecordedFunc[]>();

/** A function and all that it calls, but those. */
function reached(module: Module, callee: string): RecordedFunc[] {
  const first = module.get(callee), known = reachedFrom.get(first);
  if (known) return known;
  const into = new Set<RecordedFunc>();
  const visit = (name: string) => {
    const f = module.get(name);
    if (APART.has(name) || !(f instanceof RecordedFunc) || into.has(f)) return;
    into.add(f);
    f.calls.forEach(visit);
  };
  visit(callee);
  reachedFrom.set(first, [...into]);
  return [...into];
}

Deno.test("lazy flags are left in the kind that the table names, always", () => {
  for (const r of all()) {
    const kind = columnsOf(r.form.key, r.form.cc)?.lazy;
    if (!kind) continue;
    assertEquals([name(r), r.lazy.filter((l) => l.kind !== kind)], [name(r), []]);
    assertEquals([name(r), r.lazy.some((l) => l.always)], [name(r), true]);
  }
});

Deno.test("what never goes on behind itself jumps, returns or calls", () => {
  for (const [key, records] of byKey()) {
    const row = columnsOf(records[0].form.key, records[0].form.cc);
    if (!row) continue;
    const on = records.some((r) => r.fallsThrough);
    if (!on) assertEquals([key, row.flow !== ""], [key, true]);
    else assertEquals([key, row.flow === "" || row.flow === "call"], [key, true]);
  }
});

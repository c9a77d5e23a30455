/**
 * Conditions of breakpoints: what stands behind `if`, checked when it is typed. A name that does not
 * exist would stop never, or throw at the hit, which may be an hour away.
 *
 * @module
 */
import { type Node, parseExpressionAt } from "acorn";
import { CommandError, type Context } from "../context.ts";

/** A condition: what is asked at each match, and how it was written. */
export interface Condition {
  readonly condition: string;
  readonly predicate: (stop: unknown) => boolean;
}

// deno-lint-ignore no-explicit-any
type AnyNode = Node & Record<string, any>;

/** What every stop has besides the fields of its kind. */
const COMMON = ["kind", "regs", "vcpu", "position", "raw", "breakpoints", "describe"];

/**
 * A condition on `stop`, an event of `kind`.
 *
 * @throws {CommandError} for a name that is defined nowhere, or a field that no such event has
 */
export async function conditionOf(
  text: string,
  kind: string,
  context: Context,
): Promise<Condition> {
  const condition = text.trim();
  let tree: AnyNode | undefined;
  try {
    tree = parseExpressionAt(`(${condition}\n)`, 0, { ecmaVersion: "latest" });
  } catch {
    // TypeScript, or wrong: the evaluator says which.
  }
  if (tree) await check(tree, kind, context);
  const predicate = await context.evaluate(`(stop) => (${condition}\n)`);
  return { condition, predicate: predicate as Condition["predicate"] };
}

async function check(tree: AnyNode, kind: string, context: Context): Promise<void> {
  const { fieldNames } = await import("../../mod.ts");
  const fields = [...COMMON, ...fieldNames(kind)];
  // What `stop` will be, as far as it is known before: names that lead to what has to exist.
  const { regs } = context.vcpu();
  const stop: Record<string, unknown> = Object.fromEntries(fields.map((name) => [name, undefined]));
  Object.assign(stop, { regs, vcpu: context.vcpu(), position: { count: 0, time: 0 } });
  const names = new Set<string>(), bound = new Set(["stop", "undefined", "arguments"]);
  for (const node of nodes(tree)) {
    if (node.type === "MemberExpression" && !node.computed) checkMember(node, stop, kind);
    if (/Function/.test(node.type)) { for (const p of node.params) patternNames(p, bound); }
    if (node.type === "Identifier" && !node.isProperty) names.add(node.name);
  }
  for (const name of names) {
    if (bound.has(name)) continue;
    if (await context.evaluate(`typeof ${name}`) !== "undefined") continue;
    const hint = fields.includes(name)
      ? `; write stop.${name}`
      : name in regs
      ? `; write stop.regs.${name}`
      : "";
    throw new CommandError(`if: nothing is named ${name}${hint}`);
  }
}

/** Refuses `stop.valu`, and `stop.regs.raxx`. */
function checkMember(node: AnyNode, stop: Record<string, unknown>, kind: string): void {
  const path: string[] = [];
  let at = node;
  for (; at.type === "MemberExpression" && !at.computed; at = at.object) {
    path.unshift(at.property.name);
  }
  if (at.type !== "Identifier" || at.name !== "stop") return;
  let object: unknown = stop, said = "stop";
  for (const name of path) {
    if (typeof object !== "object" || object === null) return;
    if (!(name in object)) {
      const known = object === stop ? `; it has: ${Object.keys(stop).join(", ")}` : "";
      const what = object === stop ? `an event of kind "${kind}"` : said;
      throw new CommandError(`if: ${what} has no ${name}${known}`);
    }
    object = object === stop || said === "stop.regs"
      ? (object as Record<string, unknown>)[name]
      : undefined;
    said += `.${name}`;
  }
}

/** All nodes of a tree; identifiers that only name a property are marked. */
function* nodes(node: AnyNode): Generator<AnyNode> {
  if (node.type === "MemberExpression" && !node.computed) node.property.isProperty = true;
  if (node.type === "Property" && !node.computed && !node.shorthand) node.key.isProperty = true;
  yield node;
  for (const value of Object.values(node)) {
    for (const child of Array.isArray(value) ? value : [value]) {
      if (child && typeof child.type === "string") yield* nodes(child);
    }
  }
}

/** Names that a parameter binds. */
function patternNames(pattern: AnyNode, names: Set<string>): void {
  for (const node of nodes(pattern)) {
    if (node.type === "Identifier" && !node.isProperty) names.add(node.name);
  }
}

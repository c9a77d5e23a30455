/**
 * How an input uses names that are there before it: the first thing it does with them.
 *
 * @module
 */
import { type AnyNode, children } from "./rewrite.ts";
import { programOf } from "./source.ts";

/**
 * What `text` does first, in the order in which it runs, with any of the names: reads one, or gives one
 * a value by assignment or declaration. What a function does counts where it is written. Null when the
 * text names none of them, or cannot be parsed.
 */
export function firstUse(
  text: string,
  names: readonly string[],
): { name: string; use: "read" | "write" } | null {
  const program = programOf(text);
  for (const { name, use } of program ? usesOf(program as AnyNode) : []) {
    if (names.includes(name)) return { name, use };
  }
  return null;
}

interface Use {
  name: string;
  use: "read" | "write";
}

function* usesOf(node: AnyNode): Generator<Use> {
  switch (node.type) {
    case "Identifier":
      yield { name: node.name, use: "read" };
      return;
    case "AssignmentExpression":
      if (node.operator !== "=") break;
      yield* usesOf(node.right);
      yield* targets(node.left);
      return;
    case "VariableDeclarator":
      if (node.init) yield* usesOf(node.init);
      yield* targets(node.id);
      return;
    case "ForInStatement":
    case "ForOfStatement":
      yield* usesOf(node.right);
      yield* node.left.type === "VariableDeclaration" ? usesOf(node.left) : targets(node.left);
      yield* usesOf(node.body);
      return;
    case "MemberExpression":
      yield* usesOf(node.object);
      if (node.computed) yield* usesOf(node.property);
      return;
    case "Property":
    case "MethodDefinition":
    case "PropertyDefinition":
      if (node.computed) yield* usesOf(node.key);
      if (node.value) yield* usesOf(node.value);
      return;
    case "FunctionDeclaration":
    case "ClassDeclaration":
      if (node.id) yield { name: node.id.name, use: "write" };
      for (const child of children(node)) if (child !== node.id) yield* usesOf(child);
      return;
    case "ImportSpecifier":
    case "ImportDefaultSpecifier":
    case "ImportNamespaceSpecifier":
      yield { name: node.local.name, use: "write" };
      return;
    case "LabeledStatement":
      yield* usesOf(node.body);
      return;
    case "BreakStatement":
    case "ContinueStatement":
      return;
  }
  for (const child of children(node)) yield* usesOf(child);
}

/** What is given values by a pattern, and what is read on the way. */
function* targets(node: AnyNode): Generator<Use> {
  switch (node.type) {
    case "Identifier":
      yield { name: node.name, use: "write" };
      return;
    case "ObjectPattern":
      for (const it of node.properties) {
        if (it.computed) yield* usesOf(it.key);
        yield* targets(it.value ?? it.argument);
      }
      return;
    case "ArrayPattern":
      for (const it of node.elements) if (it) yield* targets(it);
      return;
    case "AssignmentPattern":
      yield* usesOf(node.right);
      yield* targets(node.left);
      return;
    case "RestElement":
      yield* targets(node.argument);
      return;
    default:
      yield* usesOf(node);
  }
}

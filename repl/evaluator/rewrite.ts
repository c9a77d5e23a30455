/**
 * What the engine is given in place of a program of the prompt: one expression, which declares at the
 * top level by assigning to variables that stay (variables.ts), gives the value of its last statement,
 * and asks for ctrl-C in loops, functions and awaits. Lines stay where they are.
 *
 * @module
 */
import type { Node, Program } from "acorn";
import type { Declaration } from "./variables.ts";

/** The global that rewritten code calls; see evaluator.ts. */
export const HOOKS = "__xvm__";

/** The value of the last statement that has one. */
const VALUE = "__xvm_value__";
/**
 * Ends the name of a declared function, where the variable of that name is another thing. It is a zero
 * width non-joiner, so that the function's text reads as it was written.
 */
const INNER = "\u200c";

/** A program, rewritten. */
export interface Rewritten {
  /** An expression: its value is `{ value }`, or a promise of that where `isAsync`. */
  js: string;
  declarations: Declaration[];
  isAsync: boolean;
}

/** A node whose kind says what it has. */
// deno-lint-ignore no-explicit-any
export type AnyNode = Node & Record<string, any>;

/** A replacement of `js.slice(start, end)`. */
interface Edit {
  start: number;
  end: number;
  text: string;
  /** Whether it closes what an earlier edit opened. */
  closes?: true;
}

/** Where a node stands. */
interface Place {
  /** Outside of every function: `var` and `await` are the program's. */
  outside: boolean;
  /** Directly in the program: `let`, `const`, `class` and `function` are the program's. */
  top: boolean;
  /** The value of a statement here may be the program's. */
  counts: boolean;
  /** In a list of statements, where another can be put in front. */
  listed: boolean;
}

const TOP: Place = { outside: true, top: true, counts: true, listed: true };
const INSIDE: Place = { outside: false, top: false, counts: false, listed: false };

/** Within a statement that neither is a list nor makes a scope for `var`. */
const plain = (place: Place): Place => ({ ...place, top: false, listed: false });

const LOOPS = new Set([
  "ForStatement",
  "ForInStatement",
  "ForOfStatement",
  "WhileStatement",
  "DoWhileStatement",
]);
const FUNCTIONS = new Set(["FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression"]);
/** What has its own `var` and no `await`, and is no function. */
const CLASS_PARTS = new Set(["StaticBlock", "PropertyDefinition"]);
/** Statements whose value is undefined, not that of the one before, when they run nothing that has one. */
const COMPOUND = new Set([
  ...LOOPS,
  "IfStatement",
  "SwitchStatement",
  "TryStatement",
  "WithStatement",
]);

/** Rewrites a whole program. */
export function rewriteProgram(js: string, program: Program): Rewritten {
  const rewriter = new Rewriter(js);
  return rewriter.program(program as AnyNode);
}

/** Only puts in what asks for ctrl-C: for text that code hands to `eval` and `Function`. */
export function addChecks(js: string, program: Program): string {
  const rewriter = new Rewriter(js);
  rewriter.visit(program as AnyNode, INSIDE);
  return rewriter.result();
}

class Rewriter {
  readonly #edits: Edit[] = [];
  readonly #declarations = new Map<string, Declaration["kind"]>();
  readonly #functions = new Set<string>();
  #isAsync = false;

  constructor(private readonly js: string) {}

  program(program: AnyNode): Rewritten {
    const directives: AnyNode[] = program.body.filter((it: AnyNode) => it.directive !== undefined);
    this.#list(program.body.slice(directives.length), TOP);
    const last = directives.at(-1);
    const functions = [...this.#functions].map((name) => `${name}:${name}${INNER}`);
    const begin = `;let ${VALUE}=${last ? last.expression.raw : "void 0"};` +
      (functions.length ? `${HOOKS}.define({${functions}});` : "");
    this.#edits.unshift({ start: last?.end ?? 0, end: last?.end ?? 0, text: begin });
    const [before, after] = this.#isAsync ? ["(async()=>{", "})()"] : ["(()=>{", "})()"];
    return {
      js: `${before}${this.result()}\nreturn{value:${VALUE}}${after}`,
      declarations: [...this.#declarations].map(([name, kind]) => ({ name, kind })),
      isAsync: this.#isAsync,
    };
  }

  result(): string {
    return apply(this.js, this.#edits);
  }

  #insert(at: number, text: string): void {
    this.#edits.push({ start: at, end: at, text });
  }

  #close(at: number, text: string): void {
    this.#edits.push({ start: at, end: at, text, closes: true });
  }

  #replace(start: number, end: number, text: string): void {
    this.#edits.push({ start, end, text });
  }

  #list(statements: AnyNode[], place: Place): void {
    for (const statement of statements) {
      if (place.counts && COMPOUND.has(unlabelled(statement).type)) {
        this.#insert(statement.start, `${VALUE}=void 0;`);
      }
      this.visit(statement, { ...place, listed: true });
    }
  }

  visit(node: AnyNode, place: Place): void {
    if (STATEMENTS[node.type]?.(this, node, place)) return;
    this.#check(node);
    this.#hook(node, place);
    const within = FUNCTIONS.has(node.type) || CLASS_PARTS.has(node.type) ? INSIDE : plain(place);
    for (const child of children(node)) this.visit(child, within);
  }

  #check(node: AnyNode): void {
    const check = `${HOOKS}.check();`;
    if (LOOPS.has(node.type)) {
      if (node.body.type === "BlockStatement") this.#insert(node.body.start + 1, check);
      else {
        this.#insert(node.body.start, `{${check}`);
        this.#close(node.body.end, "}");
      }
    }
    // Nor can code catch ctrl-C, and go on.
    if (node.type === "CatchClause") this.#insert(node.body.start + 1, check);
    if (!FUNCTIONS.has(node.type)) return;
    if (node.body.type === "BlockStatement") this.#insert(afterDirectives(node.body), check);
    else {
      // A parenthesis before the expression is not in the tree.
      const start = this.js.lastIndexOf("=>", node.body.start) + 2;
      this.#insert(start, `(${HOOKS}.check(),`);
      this.#close(node.end, ")");
    }
  }

  /** Calls of hooks in place of what the engine would do itself. */
  #hook(node: AnyNode, { outside }: Place): void {
    if (node.type === "AwaitExpression") {
      this.#isAsync ||= outside;
      this.#insert(node.start + "await".length, ` ${HOOKS}.await(`);
      this.#close(node.end, ")");
    }
    if (node.type === "ForOfStatement" && node.await) {
      this.#isAsync ||= outside;
      this.#insert(node.right.start, `${HOOKS}.iterate(`);
      this.#close(node.right.end, ")");
    }
    if (node.type === "ImportExpression") {
      this.#replace(node.start, node.start + "import".length, `${HOOKS}.import`);
    }
    const called = node.callee?.type === "Identifier" ? node.callee.name : "";
    const [first] = node.arguments ?? [];
    if (called === "eval" && node.type === "CallExpression" && first) {
      if (first.type === "SpreadElement") return;
      this.#insert(first.start, `${HOOKS}.code(eval,`);
      this.#close(first.end, ")");
    }
    if (called === "Function" && node.end > node.callee.end) {
      this.#replace(node.start, node.callee.end, `${HOOKS}.functionBy(Function)`);
    }
  }

  /** Puts `text` before the semicolon of a statement, and the semicolon where there is none. */
  #endStatement(node: AnyNode, text: string): void {
    const semicolon = this.js[node.end - 1] === ";";
    this.#close(semicolon ? node.end - 1 : node.end, semicolon ? text : `${text};`);
  }

  expressionStatement(node: AnyNode, place: Place): boolean {
    if (!place.counts) return false;
    this.#insert(node.start, `${VALUE}=(0,`); // behind a comma a function is not named by this
    this.#endStatement(node, ")");
    this.visit(node.expression, plain(place));
    return true;
  }

  tryStatement(node: AnyNode, place: Place): boolean {
    this.visit(node.block, plain(place));
    if (node.handler) this.visit(node.handler, plain(place));
    if (node.finalizer) this.visit(node.finalizer, { ...plain(place), counts: false });
    return true;
  }

  block(node: AnyNode, place: Place): boolean {
    this.#list(node.body, { ...place, top: false });
    return true;
  }

  switchCase(node: AnyNode, place: Place): boolean {
    if (node.test) this.visit(node.test, plain(place));
    this.#list(node.consequent, { ...place, top: false });
    return true;
  }

  /** Declares what the program's own declarations bind, and makes them assignments. */
  declaration(node: AnyNode, place: Place, at: "statement" | "init" | "each"): boolean {
    this.#isAsync ||= place.outside && node.kind === "await using";
    if (!(node.kind === "var" ? place.outside : place.top)) return false;
    const kind = node.kind === "var" || node.kind === "let" ? node.kind : "const";
    const first = node.declarations[0];
    this.#replace(node.start, first.start, place.listed && at === "statement" ? ";" : "");
    if (at === "statement") this.#endStatement(node, "");
    for (const declarator of node.declarations as AnyNode[]) {
      const { id, init, start, end } = declarator;
      for (const name of boundNames(id)) this.#declarations.set(name, kind);
      if (init && id.type !== "Identifier") {
        this.#insert(start, "(");
        this.#close(end, ")");
      }
      if (!init && kind === "let") this.#close(id.end, "=void 0");
      if (!init && kind === "var" && at !== "each") this.#replace(id.start, id.end, "void 0");
      for (const child of children(declarator)) this.visit(child, plain(place));
    }
    return true;
  }

  /** A loop whose head declares a `var`: no block has it for its own. */
  loop(node: AnyNode, place: Place): boolean {
    const head = node.type === "ForStatement" ? node.init : node.left;
    if (head?.type !== "VariableDeclaration" || head.kind !== "var" || !place.outside) return false;
    this.#check(node);
    this.#hook(node, place);
    this.declaration(head, plain(place), node.type === "ForStatement" ? "init" : "each");
    for (const child of children(node)) if (child !== head) this.visit(child, plain(place));
    return true;
  }

  class(node: AnyNode, place: Place): boolean {
    if (!place.top) return false;
    this.#declarations.set(node.id.name, "let");
    this.#insert(node.start, `;${node.id.name}=`);
    this.#close(node.end, ";");
    for (const child of children(node)) this.visit(child, plain(place));
    return true;
  }

  function(node: AnyNode, place: Place): boolean {
    const { name, end } = node.id;
    if (place.top) {
      this.#declarations.set(name, "function");
      this.#functions.add(name);
      this.#insert(end, INNER);
    } else if (place.outside && place.listed && !node.async && !node.generator) {
      // In a block it is a variable of the whole program too, once it was run past (ECMA-262, B.3.2).
      this.#declarations.set(name, "var");
      this.#close(node.end, `;${HOOKS}.define({${name}});`);
    }
    return false;
  }

  import(node: AnyNode): boolean {
    this.#isAsync = true;
    const source = node.source.raw;
    const attributes = node.attributes?.map((it: AnyNode) =>
      `${this.js.slice(it.key.start, it.key.end)}:${it.value.raw}`
    );
    const options = attributes?.length ? `,{with:{${attributes}}}` : "";
    const names: string[] = [];
    let whole = "";
    for (const it of node.specifiers as AnyNode[]) {
      this.#declarations.set(it.local.name, "const");
      if (it.type === "ImportNamespaceSpecifier") whole = it.local.name;
      else if (it.type === "ImportDefaultSpecifier") names.push(`default: ${it.local.name}`);
      else names.push(`${it.imported.name ?? it.imported.raw}: ${it.local.name}`);
    }
    const load = `await ${HOOKS}.await(${HOOKS}.import(${source}${options}))`;
    const imported = names.map((it) => it.slice(0, it.lastIndexOf(":")));
    const keys = imported.map((it) => /^["']/.test(it) ? it : JSON.stringify(it));
    const from = (module: string) => `${HOOKS}.exports(${module},${source},[${keys}])`;
    const text = whole
      ? `${whole} = ${load};` + (names.length ? `({ ${names.join(", ")} } = ${from(whole)});` : "")
      : names.length
      ? `;({ ${names.join(", ")} } = ${from(load)});`
      : `${load};`;
    this.#replace(node.start, node.end, text);
    return true;
  }

  export(node: AnyNode, place: Place): boolean {
    const { declaration } = node;
    if (!declaration) {
      // Nobody imports from the prompt; what is exported again is loaded all the same.
      if (node.source) this.import({ ...node, specifiers: [] } as AnyNode);
      else this.#replace(node.start, node.end, ";");
      return true;
    }
    this.#replace(node.start, declaration.start, "");
    const named = node.type === "ExportNamedDeclaration" || declaration.id &&
        ["ClassDeclaration", "FunctionDeclaration"].includes(declaration.type);
    if (named) this.visit(declaration, place);
    else {
      this.#insert(declaration.start, `;${VALUE}=(0,`);
      this.#close(declaration.end, ");");
      const type = declaration.type.replace(/Declaration$/, "Expression");
      this.visit({ ...declaration, type }, plain(place));
    }
    return true;
  }
}

/** What is done with a statement; true when its children are done with too. */
const STATEMENTS: Record<string, (it: Rewriter, node: AnyNode, place: Place) => boolean> = {
  ExpressionStatement: (it, node, place) => it.expressionStatement(node, place),
  BlockStatement: (it, node, place) => it.block(node, place),
  SwitchCase: (it, node, place) => it.switchCase(node, place),
  TryStatement: (it, node, place) => it.tryStatement(node, place),
  VariableDeclaration: (it, node, place) => it.declaration(node, place, "statement"),
  ForStatement: (it, node, place) => it.loop(node, place),
  ForInStatement: (it, node, place) => it.loop(node, place),
  ForOfStatement: (it, node, place) => it.loop(node, place),
  ClassDeclaration: (it, node, place) => it.class(node, place),
  FunctionDeclaration: (it, node, place) => it.function(node, place),
  ImportDeclaration: (it, node) => it.import(node),
  ExportNamedDeclaration: (it, node, place) => it.export(node, place),
  ExportDefaultDeclaration: (it, node, place) => it.export(node, place),
  ExportAllDeclaration: (it, node, place) => it.export(node, place),
};

function unlabelled(node: AnyNode): AnyNode {
  return node.type === "LabeledStatement" ? unlabelled(node.body) : node;
}

/** The names that a pattern binds. */
function boundNames(pattern: AnyNode): string[] {
  switch (pattern?.type) {
    case "Identifier":
      return [pattern.name];
    case "ObjectPattern":
      return pattern.properties.flatMap((it: AnyNode) => boundNames(it.value ?? it.argument));
    case "ArrayPattern":
      return pattern.elements.flatMap((it: AnyNode | null) => it ? boundNames(it) : []);
    case "AssignmentPattern":
      return boundNames(pattern.left);
    case "RestElement":
      return boundNames(pattern.argument);
    default:
      return [];
  }
}

function afterDirectives(block: AnyNode): number {
  const directives = block.body.filter((it: AnyNode) => it.directive !== undefined);
  return directives.at(-1)?.end ?? block.start + 1;
}

/** The nodes directly below a node, in the order of the text. */
export function* children(node: AnyNode): Generator<AnyNode> {
  for (const value of Object.values(node)) {
    for (const child of Array.isArray(value) ? value : [value]) {
      if (child && typeof child.type === "string") yield child;
    }
  }
}

function apply(js: string, edits: Edit[]): string {
  // At one place what closes comes first, the inner before the outer; the rest keeps its order.
  const ordered = edits.map((edit, i) => ({ edit, rank: edit.closes ? -1 - i : i }))
    .sort((a, b) => a.edit.start - b.edit.start || a.rank - b.rank);
  let result = "", at = 0;
  for (const { edit } of ordered) {
    if (edit.start < at) continue;
    result += js.slice(at, edit.start) + edit.text;
    at = edit.end;
  }
  return result + js.slice(at);
}

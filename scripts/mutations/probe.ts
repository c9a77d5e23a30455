/**
 * Builds all that is generated: that a mutated tree still loads is no question of its tests.
 *
 * @module
 */
import { groups } from "../../src/machine/interpreter/groups.ts";
import { INTERPRETER_KINDS } from "../../src/machine/interpreter/hot.ts";
import { groupModule, interpreter, systemModule } from "../../src/machine/interpreter/modules.ts";
import "../../mod.ts";

for (const model of ["intel", "amd"] as const) systemModule(model);
for (const name of Object.keys(groups)) groupModule(name);
for (const kind of INTERPRETER_KINDS) interpreter(kind);

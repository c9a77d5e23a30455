/**
 * Nodes as they are saved.
 *
 * @module
 */
import { bytes, list, text, tuple, whole } from "../machine/shape.ts";
import {
  loadPermissions,
  PERMISSIONS_SHAPE,
  type SavedPermissions,
  savePermissions,
} from "./permissions.ts";
import type { StoreNode } from "./store.ts";

export type SavedNode = readonly [
  value: Uint8Array,
  permissions: SavedPermissions,
  children: readonly string[],
  generation: number,
];

export const SAVED_NODE = tuple(bytes(), PERMISSIONS_SHAPE, list(text), whole(1, 2 ** 52));

export const saveNode = ({ value, permissions, children, generation }: StoreNode): SavedNode => [
  value,
  savePermissions(permissions),
  children,
  generation,
];

export const loadNode = ([value, permissions, children, generation]: SavedNode): StoreNode => ({
  value,
  permissions: loadPermissions(permissions),
  children,
  generation,
});

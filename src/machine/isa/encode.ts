/**
 * The encoder and the assembler: the decoder's inverse, from the same table.
 * @module
 */
export { encode, type EncodeFields } from "./encode_instruction.ts";
export {
  assemble,
  type Assembled,
  type AssembledLine,
  AssembleError,
  type AssembleOptions,
} from "./encode_assembler.ts";

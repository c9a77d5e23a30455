/**
 * Rows of MMX and SSE to SSE4.2 (SDM vol. 2, appendix A; format in encodings.ts).
 * @module
 */

/** The rows of this group. */
export const simdRows: string = `
emms  np 0f 77  -  mmx
`;

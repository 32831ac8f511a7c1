/** bfloat16, the way statistics travel: the upper half of a float32. */

const bits = new Uint32Array(1);
const floats = new Float32Array(bits.buffer);

export function toNumber(bfloat16: number): number {
  bits[0] = bfloat16 << 16;
  return floats[0] as number;
}

/** Every bfloat16 by its bits. */
export function allNumbers(): Float32Array {
  const words = new Uint32Array(65536);
  for (let index = 0; index < words.length; index++) words[index] = index << 16;
  return new Float32Array(words.buffer);
}

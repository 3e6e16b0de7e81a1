// The arrays of the page, which come as one compressed text.

async function inflated(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

const KINDS = { float32: Float32Array, float16: Uint16Array, int16: Int16Array, uint8: Uint8Array };

function arrayAt(buffer, { at, shape, type }) {
  const data = new KINDS[type](buffer, at, sizeOf(shape));
  return { shape, data: type === "float16" ? Float32Array.from(data, wide) : data };
}

function wide(bits) {
  const [sign, exponent, rest] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 0) return sign * rest * 2 ** -24;
  if (exponent === 31) return rest ? NaN : sign * Infinity;
  return sign * (1 + rest / 1024) * 2 ** (exponent - 15);
}

const rowAt = (array, row) => {
  const width = array.data.length / array.shape[0];
  return array.data.subarray(row * width, (row + 1) * width);
};

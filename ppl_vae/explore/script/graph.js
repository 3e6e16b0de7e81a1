// The decoder: tensors {shape, data} and the operators that its graph is made of, arguments in the order of torch's schema.

const sizeOf = (shape) => shape.reduce((a, b) => a * b, 1);
const tensor = (shape, data) => ({ shape, data: data || new Float32Array(sizeOf(shape)) });
const axis = (x, dim) => (dim < 0 ? dim + x.shape.length : dim);

function stepsOf(shape) {
  const found = new Array(shape.length).fill(1);
  for (let d = shape.length - 2; d >= 0; d--) found[d] = found[d + 1] * shape[d + 1];
  return found;
}

// A view of data, copied out: element (i, j, ...) is data[offset + i * steps[0] + j * steps[1] + ...].
function strided(data, shape, steps, offset = 0) {
  const out = new Float32Array(sizeOf(shape));
  const at = new Array(shape.length).fill(0);
  let from = offset;
  for (let i = 0; i < out.length; i++) {
    out[i] = data[from];
    for (let d = shape.length - 1; d >= 0; d--) {
      from += steps[d];
      if (++at[d] < shape[d]) break;
      from -= steps[d] * shape[d];
      at[d] = 0;
    }
  }
  return tensor(shape, out);
}

function expanded(x, shape) {
  const lead = shape.length - x.shape.length;
  const full = shape.map((n, d) => (n === -1 ? x.shape[d - lead] : n));
  if (full.length === x.shape.length && full.every((n, d) => n === x.shape[d])) return x;
  const own = stepsOf(x.shape);
  return strided(x.data, full, full.map((n, d) => (d < lead || x.shape[d - lead] === 1 ? 0 : own[d - lead])));
}

function sharedShape(a, b) {
  const rank = Math.max(a.length, b.length);
  const at = (shape, d) => shape[d - rank + shape.length] ?? 1;
  return Array.from({ length: rank }, (_, d) => (at(a, d) === 1 ? at(b, d) : at(a, d)));
}

function pairwise(f) {
  return (a, b, ...rest) => {
    if (typeof a === "number" && typeof b === "number") return f(a, b, ...rest);
    const x = typeof a === "number" ? tensor([], [a]) : a;
    const y = typeof b === "number" ? tensor([], [b]) : b;
    const shape = sharedShape(x.shape, y.shape);
    const [p, q] = [expanded(x, shape).data, expanded(y, shape).data];
    const out = tensor(shape);
    for (let i = 0; i < out.data.length; i++) out.data[i] = f(p[i], q[i], ...rest);
    return out;
  };
}

const single = (f) => (x, ...rest) => tensor(x.shape, Float32Array.from(x.data, (v) => f(v, ...rest)));

function reshaped(x, sizes) {
  const known = sizes.reduce((a, b) => (b === -1 ? a : a * b), 1);
  return tensor(sizes.map((n) => (n === -1 ? x.data.length / known : n)), x.data);
}

function permuted(x, dims) {
  const own = stepsOf(x.shape);
  const order = dims.map((d) => axis(x, d));
  return strided(x.data, order.map((d) => x.shape[d]), order.map((d) => own[d]));
}

function sliced(x, dim, start, end, step = 1) {
  const d = axis(x, dim ?? 0);
  const n = x.shape[d];
  const place = (v) => Math.max(0, Math.min(n, v < 0 ? v + n : v));
  const [from, to] = [place(start ?? 0), place(end ?? n)];
  const own = stepsOf(x.shape);
  const shape = x.shape.map((m, e) => (e === d ? Math.max(0, Math.ceil((to - from) / step)) : m));
  return strided(x.data, shape, own.map((s, e) => (e === d ? s * step : s)), from * own[d]);
}

function joined(parts, dim = 0) {
  const d = axis(parts[0], dim);
  const shape = parts[0].shape.map((n, e) => (e === d ? parts.reduce((sum, x) => sum + x.shape[e], 0) : n));
  const out = tensor(shape);
  const outer = sizeOf(shape.slice(0, d));
  let to = 0;
  for (let o = 0; o < outer; o++) {
    for (const x of parts) {
      const block = x.data.length / outer;
      out.data.set(x.data.subarray(o * block, (o + 1) * block), to);
      to += block;
    }
  }
  return out;
}

const inserted = (x, dim) => {
  const d = dim < 0 ? dim + x.shape.length + 1 : dim;
  return tensor([...x.shape.slice(0, d), 1, ...x.shape.slice(d)], x.data);
};

const chosen = (x, dim, index) => {
  const d = axis(x, dim);
  const part = sliced(x, d, index, index === -1 ? undefined : index + 1);
  return tensor(part.shape.filter((_, e) => e !== d), part.data);
};

// Rows of x by rows of w: (..., K) and (N, K) to (..., N).
function byRows(x, w, bias) {
  const [N, K] = w.shape;
  const out = tensor([...x.shape.slice(0, -1), N]);
  const rows = x.data.length / K;
  for (let r = 0; r < rows; r++) {
    for (let n = 0; n < N; n++) {
      let sum = bias ? bias.data[n] : 0;
      for (let k = 0, a = r * K, b = n * K; k < K; k++, a++, b++) sum += x.data[a] * w.data[b];
      out.data[r * N + n] = sum;
    }
  }
  return out;
}

function product(a, b) {
  if (a.shape.length === 1) return chosen(product(inserted(a, 0), b), b.shape.length === 1 ? 0 : -2, 0);
  if (b.shape.length === 1) return chosen(product(a, inserted(b, 1)), -1, 0);
  if (b.shape.length === 2) return byRows(a, permuted(b, [1, 0]));
  const lead = sharedShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const [n, k, m] = [a.shape.at(-2), a.shape.at(-1), b.shape.at(-1)];
  const [p, q] = [expanded(a, [...lead, n, k]), expanded(b, [...lead, k, m])];
  const parts = Array.from({ length: sizeOf(lead) }, (_, i) =>
    byRows(tensor([n, k], p.data.subarray(i * n * k, (i + 1) * n * k)),
      permuted(tensor([k, m], q.data.subarray(i * k * m, (i + 1) * k * m)), [1, 0])));
  return reshaped(joined(parts, 0), [...lead, n, m]);
}

// Along some axes: f gets the values of each group one after the other.
function reduced(x, dims, keep, f) {
  const all = x.shape.map((_, d) => d);
  const over = dims === null || dims === undefined || dims.length === 0 ? all : [].concat(dims).map((d) => axis(x, d));
  const rest = all.filter((d) => !over.includes(d));
  const moved = permuted(x, [...rest, ...over]);
  const group = sizeOf(over.map((d) => x.shape[d]));
  const shape = keep ? x.shape.map((n, d) => (over.includes(d) ? 1 : n)) : rest.map((d) => x.shape[d]);
  return tensor(shape, Float32Array.from({ length: moved.data.length / group }, (_, i) =>
    f(moved.data.subarray(i * group, (i + 1) * group))));
}

const total = (values) => values.reduce((a, b) => a + b, 0);
const logTotal = (values) => {
  const most = Math.max(...values);
  return most + Math.log(values.reduce((a, v) => a + Math.exp(v - most), 0));
};

function normalized(x, groups, eps) {
  const out = tensor(x.shape);
  const n = x.data.length / groups;
  for (let g = 0; g < groups; g++) {
    const part = x.data.subarray(g * n, (g + 1) * n);
    const mean = total(part) / n;
    const scale = 1 / Math.sqrt(part.reduce((a, v) => a + (v - mean) ** 2, 0) / n + eps);
    part.forEach((v, i) => { out.data[g * n + i] = (v - mean) * scale; });
  }
  return out;
}

const both = (value) => (value.length === 1 ? [value[0], value[0]] : value);

function conv2d(x, w, bias, stride, padding, dilation, groups) {
  const [B, C, H, W] = x.shape;
  const [O, c, kh, kw] = w.shape;
  const [[sy, sx], [py, px], [dy, dx]] = [both(stride), both(padding), both(dilation)];
  const oh = Math.floor((H + 2 * py - dy * (kh - 1) - 1) / sy) + 1;
  const ow = Math.floor((W + 2 * px - dx * (kw - 1) - 1) / sx) + 1;
  const out = tensor([B, O, oh, ow]);
  const per = O / groups;
  for (let b = 0, to = 0; b < B; b++) for (let o = 0; o < O; o++) for (let y = 0; y < oh; y++) for (let z = 0; z < ow; z++, to++) {
    let sum = bias ? bias.data[o] : 0;
    for (let i = 0; i < c; i++) {
      const plane = (b * C + Math.floor(o / per) * c + i) * H * W;
      for (let ky = 0; ky < kh; ky++) {
        const iy = y * sy - py + ky * dy;
        if (iy < 0 || iy >= H) continue;
        for (let kx = 0; kx < kw; kx++) {
          const ix = z * sx - px + kx * dx;
          if (ix >= 0 && ix < W) sum += x.data[plane + iy * W + ix] * w.data[((o * c + i) * kh + ky) * kw + kx];
        }
      }
    }
    out.data[to] = sum;
  }
  return out;
}

function convTransposed(x, w, bias, stride, padding, extra, groups, dilation) {
  const [B, C, H, W] = x.shape;
  const [, o, kh, kw] = w.shape;
  const [[sy, sx], [py, px], [ey, ex], [dy, dx]] = [both(stride), both(padding), both(extra), both(dilation)];
  const [oh, ow] = [(H - 1) * sy - 2 * py + dy * (kh - 1) + ey + 1, (W - 1) * sx - 2 * px + dx * (kw - 1) + ex + 1];
  const out = tensor([B, o * groups, oh, ow]);
  if (bias) out.data.forEach((_, i) => { out.data[i] = bias.data[Math.floor(i / (oh * ow)) % (o * groups)]; });
  const per = C / groups;
  for (let b = 0, from = 0; b < B; b++) for (let i = 0; i < C; i++) for (let y = 0; y < H; y++) for (let z = 0; z < W; z++, from++) {
    const value = x.data[from];
    if (value === 0) continue;
    for (let j = 0; j < o; j++) {
      const plane = (b * o * groups + Math.floor(i / per) * o + j) * oh * ow;
      for (let ky = 0; ky < kh; ky++) {
        const ty = y * sy - py + ky * dy;
        if (ty < 0 || ty >= oh) continue;
        for (let kx = 0; kx < kw; kx++) {
          const tx = z * sx - px + kx * dx;
          if (tx >= 0 && tx < ow) out.data[plane + ty * ow + tx] += value * w.data[((i * o + j) * kh + ky) * kw + kx];
        }
      }
    }
  }
  return out;
}

function upsampled(x, size, scales) {
  const [B, C, H, W] = x.shape;
  const [oh, ow] = size ?? [Math.floor(H * scales[0]), Math.floor(W * scales[1])];
  const out = tensor([B, C, oh, ow]);
  for (let p = 0, to = 0; p < B * C; p++) for (let y = 0; y < oh; y++) for (let z = 0; z < ow; z++, to++) {
    out.data[to] = x.data[(p * H + Math.floor((y * H) / oh)) * W + Math.floor((z * W) / ow)];
  }
  return out;
}

// Abramowitz and Stegun 7.1.26, to 1.5e-7.
function erf(v) {
  const t = 1 / (1 + 0.3275911 * Math.abs(v));
  const poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(v) * (1 - poly * Math.exp(-v * v));
}

const sigmoid = (v) => 1 / (1 + Math.exp(-v));
const clamped = (v, low, high) => Math.max(low ?? -Infinity, Math.min(high ?? Infinity, v));
const scaled = (x, w, b) => {
  const times = w ? operators.mul(x, w) : x;
  return b ? operators.add(times, b, 1) : times;
};

const operators = {
  abs: single(Math.abs), cos: single(Math.cos), exp: single(Math.exp), expm1: single(Math.expm1), log: single(Math.log),
  log1p: single(Math.log1p), neg: single((v) => -v), reciprocal: single((v) => 1 / v), relu: single((v) => Math.max(v, 0)),
  rsqrt: single((v) => 1 / Math.sqrt(v)), sigmoid: single(sigmoid), sign: single(Math.sign), silu: single((v) => v * sigmoid(v)), sin: single(Math.sin),
  sqrt: single(Math.sqrt), square: single((v) => v * v), tanh: single(Math.tanh),
  clamp: single(clamped), clamp_min: single((v, low) => Math.max(v, low)), clamp_max: single((v, high) => Math.min(v, high)),
  hardtanh: single(clamped), leaky_relu: single((v, slope) => (v > 0 ? v : slope * v)),
  elu: single((v, alpha, scale, inner) => scale * (v > 0 ? v : alpha * Math.expm1(inner * v))),
  gelu: single((v, how) => (how === "tanh"
    ? (v / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)))
    : (v / 2) * (1 + erf(v / Math.SQRT2)))),
  softplus: single((v, beta, threshold) => (v * beta > threshold ? v : Math.log1p(Math.exp(v * beta)) / beta)),
  add: pairwise((a, b, alpha = 1) => a + alpha * b), sub: pairwise((a, b, alpha = 1) => a - alpha * b),
  rsub: pairwise((a, b, alpha = 1) => b - alpha * a), mul: pairwise((a, b) => a * b), div: pairwise((a, b) => a / b),
  pow: pairwise((a, b) => a ** b), maximum: pairwise(Math.max), minimum: pairwise(Math.min),
  gt: pairwise((a, b) => (a > b ? 1 : 0)), ge: pairwise((a, b) => (a >= b ? 1 : 0)), lt: pairwise((a, b) => (a < b ? 1 : 0)),
  le: pairwise((a, b) => (a <= b ? 1 : 0)),
  where: (which, a, b) => {
    const shape = sharedShape(which.shape, sharedShape(a.shape, b.shape));
    const [w, x, y] = [which, a, b].map((each) => expanded(each, shape).data);
    return tensor(shape, Float32Array.from(w, (on, i) => (on ? x[i] : y[i])));
  },
  broadcast_tensors: (parts) => {
    const shape = parts.map((x) => x.shape).reduce(sharedShape);
    return parts.map((x) => expanded(x, shape));
  },
  argmax: (x, dim, keep) => reduced(x, dim === null ? null : [dim], keep, (values) => values.indexOf(Math.max(...values))),
  cat: joined, stack: (parts, dim) => joined(parts.map((x) => inserted(x, dim)), dim),
  clone: (x) => x, contiguous: (x) => x, expand: expanded, view: reshaped, reshape: reshaped,
  flatten: (x, start, end) => {
    const [s, e] = [axis(x, start), axis(x, end)];
    return reshaped(x, [...x.shape.slice(0, s), sizeOf(x.shape.slice(s, e + 1)), ...x.shape.slice(e + 1)]);
  },
  unflatten: (x, dim, sizes) => {
    const d = axis(x, dim);
    const rest = sizes.reduce((a, b) => (b === -1 ? a : a * b), 1);
    return reshaped(x, [...x.shape.slice(0, d), ...sizes.map((n) => (n === -1 ? x.shape[d] / rest : n)), ...x.shape.slice(d + 1)]);
  },
  squeeze: (x, dim) => tensor(x.shape.filter((n, d) => d !== axis(x, dim) || n !== 1), x.data),
  unsqueeze: inserted, permute: permuted,
  transpose: (x, a, b) => {
    const dims = x.shape.map((_, d) => d);
    [dims[axis(x, a)], dims[axis(x, b)]] = [axis(x, b), axis(x, a)];
    return permuted(x, dims);
  },
  t: (x) => (x.shape.length < 2 ? x : permuted(x, [1, 0])),
  select: chosen, slice: sliced,
  split: (x, size, dim) => Array.from({ length: Math.ceil(x.shape[axis(x, dim)] / size) }, (_, i) =>
    sliced(x, dim, i * size, (i + 1) * size)),
  split_with_sizes: (x, sizes, dim) => sizes.map((n, i) => {
    const start = total(sizes.slice(0, i));
    return sliced(x, dim, start, start + n);
  }),
  unbind: (x, dim) => Array.from({ length: x.shape[axis(x, dim)] }, (_, i) => chosen(x, dim, i)),
  getitem: (list, index) => list.at(index), sym_size: (x, dim) => x.shape[axis(x, dim)],
  linear: byRows, matmul: product,
  addmm: (bias, a, b, beta, alpha) => operators.add(operators.mul(bias, beta), product(a, b), alpha),
  conv2d, conv_transpose2d: convTransposed, upsample: upsampled,
  layer_norm: (x, shape, w, b, eps) => scaled(normalized(x, x.data.length / sizeOf(shape), eps), w, b),
  group_norm: (x, groups, w, b, eps) => {
    const wide = (v) => v && tensor([v.data.length, ...x.shape.slice(2).map(() => 1)], v.data);
    return scaled(normalized(x, x.shape[0] * groups, eps), wide(w), wide(b));
  },
  softmax: (x, dim) => single(Math.exp)(operators.sub(x, reduced(x, [dim], true, logTotal), 1)),
  logsumexp: (x, dims, keep) => reduced(x, dims, keep, logTotal),
  sum: (x, dims, keep) => reduced(x, dims, keep, total),
  mean: (x, dims, keep) => reduced(x, dims, keep, (values) => total(values) / values.length),
};

// The function that the steps of a graph make: of input tensors the last value.
function functionOf(steps, constants) {
  const unknown = steps.map(([name]) => name).filter((name) => !(name in operators));
  if (unknown.length) throw new Error(`operators that this page has not: ${unknown.join(", ")}`);
  return (...inputs) => {
    const values = [...inputs, ...constants];
    const value = (given) => {
      if (Array.isArray(given)) return given.map(value);
      return given !== null && typeof given === "object" ? values[given.v] : given;
    };
    for (const [name, ...given] of steps) values.push(operators[name](...given.map(value)));
    return values.at(-1);
  };
}

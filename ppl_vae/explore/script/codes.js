// Codes: how they are made up, what decodes them, and ways between them. A decoder takes codes and gives their data in time.

const PROBABILITIES = 135;

class Codes {
  constructor(content, buffer) {
    const array = (told) => arrayAt(buffer, told);
    Object.assign(this, { content, array, event: content.event, dims: content.dims, choices: content.choices, compared: content.compared, levels: content.levels });
    this.centre = array(content.centre).data;
    this.quantiles = array(content.quantiles);
    this.data = array(content.data.codes);
    this.count = content.data.rows.length;
    this.labels = content.data.labels && array(content.data.labels).data;
    this.classes = content.data.classes;
    this.values = this.readings(content.data.x);
    const decoder = content.decoder;
    this.exact = decoder.kind !== "nearest";
    this.decode = { graph: graphDecoder, nearest: nearestDecoder, live: liveDecoder }[decoder.kind](this, decoder);
  }

  // Data as they were packed: pictures as levels, tables as numbers, texts as they are.
  readings(told) {
    if (Array.isArray(told)) return (row) => told[row];
    const array = this.array(told);
    if (this.event.kind !== "image") return (row) => rowAt(array, row);
    const [low, high] = [this.event.low[0], this.event.high[0]];
    return (row) => Float32Array.from(rowAt(array, row), (level) => low + ((high - low) * level) / 255);
  }

  code(row) { return Float32Array.from(rowAt(this.data, row)); }

  className(row) { return this.labels && this.labels[row] >= 0 ? this.classes[this.labels[row]] : ""; }

  name(row) {
    const label = this.className(row);
    return `row ${this.content.data.rows[row]}${label ? ` (${label})` : ""}`;
  }

  // z at a probability, and the probability of z, of a dimension by its place in the order.
  quantile(dim, u) {
    const found = rowAt(this.quantiles, dim);
    const at = Math.max(0, Math.min(PROBABILITIES - 1, u * PROBABILITIES - 0.5));
    const below = Math.min(PROBABILITIES - 2, Math.floor(at));
    return found[below] + (at - below) * (found[below + 1] - found[below]);
  }

  probability(dim, z) {
    const found = rowAt(this.quantiles, dim);
    if (z <= found[0]) return 0.5 / PROBABILITIES;
    for (let i = 1; i < PROBABILITIES; i++) {
      if (z < found[i]) return (i - 0.5 + (z - found[i - 1]) / (found[i] - found[i - 1])) / PROBABILITIES;
    }
    return 1 - 0.5 / PROBABILITIES;
  }

  // The range of a dimension: of the prior, and of the data; or of nearly all of the data.
  range(dim, left = 0) {
    const [found, place] = [rowAt(this.quantiles, dim), this.dims[dim].place];
    const values = Array.from({ length: this.count }, (_, row) => this.data.data[row * this.content.size + place]).sort((a, b) => a - b);
    const skipped = Math.floor(left * this.count);
    const low = Math.min(found[0], values[skipped]);
    const high = Math.max(found[PROBABILITIES - 1], values[this.count - 1 - skipped]);
    return low < high ? [low, high] : [low - 1, high + 1];
  }

  usual(dim) {
    this.ranges ??= this.dims.map((_, i) => this.range(i, 0.01));
    return this.ranges[dim];
  }

  moved(code, changes) {
    const found = Float32Array.from(code);
    for (const [dim, z] of changes) found[this.dims[dim].place] = z;
    return found;
  }

  chosen(code, block, value) {
    const found = Float32Array.from(code);
    for (let i = 0; i < block.size; i++) found[block.start + i] = i === value ? 1 : 0;
    return found;
  }

  choice(code, block) {
    const part = Array.from(code.subarray(block.start, block.start + block.size));
    return part.indexOf(Math.max(...part));
  }

  distance(a, b) { return Math.sqrt(this.compared.reduce((sum, place) => sum + (a[place] - b[place]) ** 2, 0)); }

  nearest(code, count, among = this.data) {
    const found = Array.from({ length: among.shape[0] }, (_, row) => [this.distance(code, rowAt(among, row)), row]);
    return found.sort((a, b) => a[0] - b[0]).slice(0, count);
  }

  // From a to b in the free numbers; all else is that of a.
  between(a, b, t, path) {
    const places = this.dims.map((dim) => dim.place);
    const found = Float32Array.from(a);
    const length = (code) => Math.sqrt(places.reduce((sum, p) => sum + code[p] ** 2, 0));
    const [na, nb] = [length(a), length(b)];
    const cosine = places.reduce((sum, p) => sum + a[p] * b[p], 0) / Math.max(na * nb, 1e-30);
    const angle = Math.acos(Math.max(-1, Math.min(1, cosine)));
    const arc = path === "spherical" && Math.sin(angle) >= 1e-4 && na > 0 && nb > 0 && t > 0 && t < 1;
    for (const p of places) {
      found[p] = arc
        ? (((1 - t) * na + t * nb) * ((Math.sin((1 - t) * angle) * a[p]) / na + (Math.sin(t * angle) * b[p]) / nb)) / Math.sin(angle)
        : (1 - t) * a[p] + t * b[p];
    }
    return found;
  }

  mean(label) {
    const found = new Float64Array(this.content.size);
    let count = 0;
    for (let row = 0; row < this.count; row++) {
      if (this.labels[row] !== label) continue;
      count += 1;
      rowAt(this.data, row).forEach((z, place) => { found[place] += z; });
    }
    return found.map((z) => z / Math.max(1, count));
  }

  // A code and the difference of two classes' means, so many times, in the free numbers.
  towards(code, minus, plus, strength) {
    const [from, to] = [this.mean(minus), this.mean(plus)];
    return this.moved(code, this.dims.map(({ place }, dim) => [dim, code[place] + strength * (to[place] - from[place])]));
  }
}

const BATCH = 16; // codes between two moments in which the page answers
const pause = () => new Promise((done) => setTimeout(done));

function graphDecoder(codes, { steps, constants }) {
  const run = functionOf(steps, constants.map(codes.array));
  const width = Math.max(1, codes.levels.length);
  return async (list, kept) => {
    const found = [];
    for (let start = 0; start < list.length; start += BATCH) {
      if (start) await pause();
      const part = list.slice(start, start + BATCH);
      const x = tensor([part.length, codes.content.size]);
      const mask = tensor([part.length, width]);
      part.forEach((code, i) => {
        x.data.set(code, i * codes.content.size);
        mask.data.set(kept[start + i] ?? kept[0], i * width);
      });
      const out = run(x, mask);
      part.forEach((_, i) => found.push(rowAt(out, i).slice()));
    }
    return found;
  };
}

function nearestDecoder(codes, decoder) {
  const among = codes.array(decoder.codes);
  const values = codes.readings(decoder.x);
  codes.gap = (code) => codes.nearest(code, 1, among)[0][0];
  codes.stops = among.shape[0];
  return async (list) => list.map((code) => values(codes.nearest(code, 1, among)[0][1]));
}

const ASKED = 128; // codes in one question to the server

function liveDecoder(codes) {
  const ask = async (part, kept) => {
    const body = JSON.stringify({ codes: part.map((code) => Array.from(code)), kept: part.map((_, i) => kept[i] ?? kept[0]) });
    const headers = { "Content-Type": "application/json", Authorization: `Bearer ${codes.content.token}` };
    const answer = await fetch("decode", { method: "POST", headers, body });
    if (!answer.ok) throw new Error(`the server does not decode: ${await answer.text()}`);
    const found = (await answer.json()).x;
    return codes.event.kind === "image" || codes.event.kind === "table" ? found.map((x) => Float32Array.from(x)) : found;
  };
  return async (list, kept) => {
    const parts = [];
    for (let start = 0; start < list.length; start += ASKED) {
      parts.push(...(await ask(list.slice(start, start + ASKED), kept.length > 1 ? kept.slice(start, start + ASKED) : kept)));
    }
    return parts;
  };
}

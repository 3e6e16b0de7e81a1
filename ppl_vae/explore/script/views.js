// The parts of the page. Each knows how to draw itself for the state; a part that the page has not is left out.

const byId = (id) => document.getElementById(id);
const GRID = 11;
const GAP = 3; // pixels between the cells of the plane
const NEAR = 10;
const WAY = 7;

// Decodes for one part: what is asked later makes what was asked before void.
class Asked {
  constructor(codes) { this.codes = codes; this.turn = 0; }

  async values(list, kept) {
    const turn = ++this.turn;
    const found = await this.codes.decode(list, Array.isArray(kept[0]) ? kept : [kept]);
    return turn === this.turn ? found : null;
  }
}

// New tiles in place of the old; the focus stays at its place among them.
function fill(element, tiles) {
  const place = Array.from(element.children).indexOf(document.activeElement);
  element.replaceChildren(...tiles);
  if (place >= 0) tiles[Math.min(place, tiles.length - 1)].focus({ preventScroll: true });
}

// Two canvases on the same two dimensions: what a grid decodes to, and where the codes of data lie.
function planeView(page) {
  const { codes, state } = page;
  const [plane, scatter] = [byId("plane"), byId("codes")];
  if (!scatter) return null;
  const asked = new Asked(codes);
  const steps = codes.exact ? GRID : 9;
  const flat = codes.dims.length < 2;
  const rows = flat ? 1 : steps;
  const image = codes.event.kind === "image" ? codes.event.shape : null;
  const cell = image ? [Math.max(image[2], Math.ceil(36 / image[2]) * image[2]), Math.max(image[1], Math.ceil(36 / image[1]) * image[1])] : [48, 48];
  let cells = null;

  function paint() {
    if (!plane) return;
    [plane.width, plane.height] = [steps * (cell[0] + GAP) - GAP, rows * (cell[1] + GAP) - GAP];
    const context = plane.getContext("2d");
    context.imageSmoothingEnabled = !image;
    cells?.forEach((value, i) =>
      context.drawImage(picture(codes.event, value), (i % steps) * (cell[0] + GAP), Math.floor(i / steps) * (cell[1] + GAP), ...cell));
    const [u, v] = where();
    context.strokeStyle = inkOf("--mark");
    context.lineWidth = 3;
    const x = Math.max(0, Math.min(steps - 1, Math.floor(u * steps))) * (cell[0] + GAP);
    const y = Math.max(0, Math.min(rows - 1, Math.floor((1 - v) * rows))) * (cell[1] + GAP);
    context.strokeRect(x + 1.5, y + 1.5, cell[0] - 3, cell[1] - 3);
  }

  function where() {
    const u = codes.probability(state.across, state.code[codes.dims[state.across].place]);
    return [u, flat ? 0.5 : codes.probability(state.up, state.code[codes.dims[state.up].place])];
  }

  function at(u, v) {
    const changes = [[state.across, codes.quantile(state.across, u)]];
    if (!flat) changes.push([state.up, codes.quantile(state.up, v)]);
    return codes.moved(state.code, changes);
  }

  async function decode() {
    if (!plane) return;
    const list = Array.from({ length: steps * rows }, (_, i) =>
      at(((i % steps) + 0.5) / steps, 1 - (Math.floor(i / steps) + 0.5) / rows));
    const found = await asked.values(list, state.kept);
    if (found) { cells = found; paint(); }
  }

  // Places of all data in the scatter, in its own units.
  const SIZE = 480;
  const EDGE = 48;
  const placeOf = (code, row) => {
    const inside = (value) => Math.max(-0.01, Math.min(1.01, value)); // the farthest few stand at the edge
    const [low, high] = codes.usual(state.across);
    const x = inside((code[codes.dims[state.across].place] - low) / (high - low));
    if (flat) return [EDGE + x * (SIZE - 2 * EDGE), SIZE / 2 + (((row * 37) % 61) / 61 - 0.5) * SIZE * 0.4];
    const [bottom, top] = codes.usual(state.up);
    const y = inside((code[codes.dims[state.up].place] - bottom) / (top - bottom));
    return [EDGE + x * (SIZE - 2 * EDGE), SIZE - EDGE - y * (SIZE - 2 * EDGE)];
  };

  function scattered() {
    [scatter.width, scatter.height] = [2 * SIZE, 2 * SIZE];
    const context = scatter.getContext("2d");
    context.scale(2, 2);
    context.font = "13px system-ui, sans-serif";
    context.fillStyle = inkOf("--soft");
    const [low, high] = codes.usual(state.across);
    context.fillText(codes.dims[state.across].name, SIZE / 2, SIZE - 8);
    context.fillText(short(low), EDGE, SIZE - 8);
    context.textAlign = "right";
    context.fillText(short(high), SIZE - EDGE + 6, SIZE - 8);
    context.textAlign = "left";
    if (!flat) {
      const [bottom, top] = codes.usual(state.up);
      context.fillText(codes.dims[state.up].name, 4, SIZE / 2);
      context.fillText(short(bottom), 4, SIZE - EDGE);
      context.fillText(short(top), 4, EDGE);
    }
    context.strokeStyle = inkOf("--line");
    context.strokeRect(EDGE - 6, EDGE - 12, SIZE - 2 * EDGE + 12, SIZE - 2 * EDGE + 18);
    context.globalAlpha = 0.65;
    const radius = Math.max(2, Math.min(5, 90 / Math.sqrt(codes.count)));
    for (let row = 0; row < codes.count; row++) {
      const [x, y] = placeOf(rowAt(codes.data, row), row);
      context.fillStyle = codes.labels ? colour(codes.labels[row]) : inkOf("--accent");
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
    const [x, y] = placeOf(state.code, state.datum < 0 ? 0 : state.datum);
    context.strokeStyle = inkOf("--ink");
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x, y, 9, 0, 2 * Math.PI);
    context.moveTo(x - 14, y); context.lineTo(x - 5, y); context.moveTo(x + 5, y); context.lineTo(x + 14, y);
    context.moveTo(x, y - 14); context.lineTo(x, y - 5); context.moveTo(x, y + 5); context.lineTo(x, y + 14);
    context.stroke();
  }

  const relative = (canvas, event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const goTo = (u, v) => {
    const inside = (p) => Math.max(0.5 / PROBABILITIES, Math.min(1 - 0.5 / PROBABILITIES, p));
    page.move(at(inside(u), inside(v)), { quiet: true });
  };
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  if (plane) {
    plane.addEventListener("pointerdown", (event) => {
      plane.setPointerCapture(event.pointerId);
      const [u, v] = relative(plane, event);
      goTo(u, 1 - v);
    });
    plane.addEventListener("pointermove", (event) => {
      if (!plane.hasPointerCapture(event.pointerId)) return;
      const [u, v] = relative(plane, event);
      goTo(u, 1 - v);
    });
    plane.addEventListener("keydown", (event) => {
      const step = ARROWS[event.key];
      if (!step) return;
      event.preventDefault();
      const cellOf = (p, n, d) => (Math.max(0, Math.min(n - 1, Math.floor(p * n) + d)) + 0.5) / n;
      const [u, v] = where();
      goTo(cellOf(u, steps, step[0]), flat ? 0.5 : cellOf(v, steps, step[1]));
    });
  }
  scatter.addEventListener("pointerdown", (event) => {
    const [u, v] = relative(scatter, event).map((p) => p * SIZE);
    const gap = (row) => {
      const [x, y] = placeOf(rowAt(codes.data, row), row);
      return (x - u) ** 2 + (y - v) ** 2;
    };
    let best = 0;
    for (let row = 1; row < codes.count; row++) if (gap(row) < gap(best)) best = row;
    page.pick(best);
  });
  scatter.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step) return;
    event.preventDefault();
    const [x, y] = placeOf(state.code, state.datum < 0 ? 0 : state.datum);
    let [best, least] = [-1, Infinity];
    for (let row = 0; row < codes.count; row++) {
      const [p, q] = placeOf(rowAt(codes.data, row), row);
      const [ahead, aside] = step[0] ? [(p - x) * step[0], q - y] : [(y - q) * step[1], p - x];
      const cost = ahead ** 2 + 4 * aside ** 2;
      if (row !== state.datum && ahead > 0 && cost < least) [best, least] = [row, cost];
    }
    if (best >= 0) page.pick(best);
  });

  for (const [id, key] of [["across", "across"], ["up", "up"]]) {
    const select = byId(id);
    if (!select) continue;
    codes.dims.forEach((dim, i) => select.append(make("option", { value: i }, dim.name)));
    select.addEventListener("change", () => {
      state[key] = Number(select.value);
      page.refresh();
    });
  }
  if (codes.labels) {
    const used = [...new Set(codes.labels)].filter((label) => label >= 0).sort((a, b) => a - b).slice(0, 30);
    byId("legend").replaceChildren(...used.map((label) => {
      const dot = make("span", { class: "dot" });
      dot.style.background = colour(label);
      return make("span", {}, dot, codes.classes[label]);
    }));
  }
  return {
    now() {
      for (const id of ["across", "up"]) if (byId(id)) byId(id).value = state[id];
      paint();
      scattered();
    },
    late: decode,
  };
}

function sliderView(page) {
  const { codes, state } = page;
  if (!byId("sliders")) return null;
  const rows = codes.dims.map((dim, i) => {
    const [low, high] = codes.range(i);
    const input = make("input", { type: "range", min: low, max: high, step: "any", id: `dim-${i}` });
    const told = make("output", { for: `dim-${i}` });
    const kl = dim.kl === null ? "" : `${dim.kl.toFixed(2)} nats`;
    const label = make("label", { for: `dim-${i}`, class: dim.active ? "" : "idle" }, make("b", {}, dim.name), make("small", {}, kl));
    input.addEventListener("input", () => page.move(codes.moved(state.code, [[i, Number(input.value)]]), { quiet: true }));
    input.addEventListener("change", () => page.tell());
    const place = i < 12 ? byId("sliders") : byId("more-sliders");
    place.append(make("div", { class: "slider" }, label, input, told));
    return { input, told };
  });
  return {
    now() {
      rows.forEach(({ input, told }, i) => {
        const z = state.code[codes.dims[i].place];
        if (document.activeElement !== input || Math.abs(Number(input.value) - z) > 1e-6) input.value = z;
        told.value = z.toFixed(2);
      });
    },
  };
}

function dataView(page) {
  const { codes, state } = page;
  const row = byId("row");
  const rows = codes.content.data.rows;
  row.max = rows.at(-1);
  row.addEventListener("change", () => {
    const gap = (one) => Math.abs(one - Number(row.value));
    page.pick(rows.reduce((best, one, i) => (gap(one) < gap(rows[best]) ? i : best), 0));
  });
  byId("previous").addEventListener("click", () => page.pick((state.datum - 1 + codes.count) % codes.count));
  byId("next").addEventListener("click", () => page.pick((state.datum + 1) % codes.count));
  return {
    now() { row.value = state.datum < 0 ? "" : rows[state.datum]; },
    late() {
      fill(byId("near"), codes.nearest(state.code, Math.min(NEAR, codes.count)).map(([, near]) =>
        tile(codes.event, codes.values(near), codes.className(near) || `row ${codes.content.data.rows[near]}`,
          `take ${codes.name(near)}`, () => page.pick(near))));
    },
  };
}

function betweenView(page) {
  const { codes, state } = page;
  const slider = byId("between");
  if (!slider) return null;
  const asked = new Asked(codes);
  let drawn = "";
  const go = (t) => {
    state.t = t;
    page.move(codes.between(codes.code(state.a), codes.code(state.b), t, state.path), { keep: true });
  };
  slider.addEventListener("input", () => go(Number(slider.value)));
  byId("path").addEventListener("change", (event) => { state.path = event.target.value; go(state.t); });
  for (const end of ["a", "b"]) {
    byId(`as-${end}`).addEventListener("click", () => {
      state[end] = state.datum >= 0 ? state.datum : codes.nearest(state.code, 1)[0][1];
      page.refresh();
    });
  }
  return {
    now() {
      slider.value = state.t;
      byId("path").value = state.path;
      byId("ends").textContent = `A is ${codes.name(state.a)}; B is ${codes.name(state.b)}.`;
    },
    async late() {
      const key = [state.a, state.b, state.path, state.kept].join(" ");
      if (key === drawn) return;
      const ts = Array.from({ length: WAY }, (_, i) => i / (WAY - 1));
      const list = ts.map((t) => codes.between(codes.code(state.a), codes.code(state.b), t, state.path));
      const found = await asked.values(list, state.kept);
      if (!found) return;
      drawn = key;
      fill(byId("way"), found.map((value, i) =>
        tile(codes.event, value, i === 0 ? "A" : i === WAY - 1 ? "B" : ts[i].toFixed(2), `${ts[i].toFixed(2)} of the way from A to B`, () => go(ts[i]))));
    },
  };
}

function attributeView(page) {
  const { codes, state } = page;
  const slider = byId("strength");
  if (!slider) return null;
  const asked = new Asked(codes);
  const go = (strength) => {
    state.strength = strength;
    page.move(codes.towards(state.base, state.minus, state.plus, strength), { base: true });
  };
  slider.addEventListener("input", () => go(Number(slider.value)));
  for (const key of ["minus", "plus"]) {
    byId(key).addEventListener("change", (event) => {
      state[key] = Number(event.target.value);
      page.refresh();
    });
  }
  return {
    now() {
      slider.value = state.strength;
      for (const key of ["minus", "plus"]) byId(key).value = state[key];
    },
    async late() {
      const strengths = [-2, -1, 0, 1, 2];
      const found = await asked.values(strengths.map((s) => codes.towards(state.base, state.minus, state.plus, s)), state.kept);
      if (!found) return;
      fill(byId("strengths"), found.map((value, i) =>
        tile(codes.event, value, String(strengths[i]), `strength ${strengths[i]}`, () => go(strengths[i]))));
    },
  };
}

function choiceView(page, block) {
  const { codes, state } = page;
  const strip = byId(`choice-${block.start}`);
  if (!strip) return null;
  const asked = new Asked(codes);
  const count = Math.min(block.size, 40);
  return {
    async late() {
      const list = Array.from({ length: count }, (_, value) => codes.chosen(state.code, block, value));
      const found = await asked.values(list, state.kept);
      if (!found) return;
      const now = codes.choice(state.code, block);
      fill(strip, found.map((x, value) => {
        const name = block.names[value] ?? String(value);
        const button = tile(codes.event, x, name, `${block.name} ${name}`, () => page.move(codes.chosen(state.code, block, value), { keep: true }));
        button.setAttribute("aria-pressed", String(value === now));
        return button;
      }));
    },
  };
}

function componentView(page) {
  const { codes, state } = page;
  const told = codes.content.components;
  if (!told) return null;
  const all = codes.array(told.codes);
  const asked = new Asked(codes);
  let values = null;
  return {
    async late() {
      const list = told.weights.map((_, i) => rowAt(all, i));
      values ??= await asked.values(list, state.kept);
      if (!values) return;
      const now = codes.nearest(state.code, 1, all)[0][1];
      fill(byId("components"), values.map((value, i) => {
        const weight = `${(100 * told.weights[i]).toFixed(1)} %`;
        const button = tile(codes.event, value, `${i}: ${weight}`, `component ${i}, weight ${weight}`, () => page.move(Float32Array.from(list[i])));
        button.setAttribute("aria-pressed", String(i === now));
        return button;
      }));
    },
  };
}

function levelView(page) {
  const { codes, state } = page;
  if (!byId("descent")) return null;
  const asked = new Asked(codes);
  codes.levels.forEach((_, i) => byId(`level-${i}`).addEventListener("change", (event) => {
    state.kept[i] = event.target.checked ? 1 : 0;
    page.refresh();
  }));
  return {
    now() { codes.levels.forEach((_, i) => { byId(`level-${i}`).checked = state.kept[i] === 1; }); },
    async late() {
      const kept = codes.levels.map((_, last) => codes.levels.map((__, i) => (i <= last ? 1 : 0)));
      const found = await asked.values(kept.map(() => state.code), kept);
      if (!found) return;
      fill(byId("descent"), found.map((value, last) => {
        const names = codes.levels.slice(0, last + 1).join(", ");
        return tile(codes.event, value, names, `keep ${names} alone`, () => { state.kept = kept[last]; page.refresh(); });
      }));
    },
  };
}

function loadingView(page) {
  const { codes } = page;
  if (!codes.content.loadings) return null;
  const all = codes.array(codes.content.loadings);
  return {
    now() {
      fill(byId("loadings"), Array.from({ length: all.shape[0] }, (_, i) => {
        const canvas = loadingOf(codes.event, Array.from(rowAt(all, i)));
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", `loading of ${codes.dims[i].name}`);
        return make("figure", { class: "tile" }, canvas, make("span", { class: "caption" }, codes.dims[i].name));
      }));
    },
  };
}

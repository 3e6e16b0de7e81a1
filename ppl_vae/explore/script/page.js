// The page itself: its state, which its address keeps, and what follows from a move.

class Page {
  constructor(codes) {
    this.codes = codes;
    this.state = {
      code: Float32Array.from(codes.centre), base: Float32Array.from(codes.centre), datum: -1, kept: codes.levels.length ? codes.levels.map(() => 1) : [1],
      across: 0, up: Math.min(1, codes.dims.length - 1), a: 0, b: Math.min(1, codes.count - 1), t: 0, path: "linear",
      minus: 0, plus: Math.min(1, codes.classes.length - 1), strength: 0,
    };
    this.asked = new Asked(codes);
    this.views = [planeView, sliderView, dataView, betweenView, attributeView, componentView, levelView, loadingView]
      .map((view) => view(this))
      .concat(codes.choices.map((choice) => choiceView(this, choice)))
      .filter((view) => view);
    this.buttons();
  }

  // A new code. The datum beside it stays, unless another is picked; an attribute starts from the code, unless it made it.
  move(code, { quiet = false, base = false, keep = false } = {}) {
    const { state } = this;
    state.code = code;
    if (!base) [state.base, state.strength] = [code, 0];
    if (!keep) state.t = 0;
    this.refresh({ quiet });
  }

  pick(row) {
    this.state.datum = row;
    this.move(this.codes.code(row));
  }

  async refresh({ quiet = false } = {}) {
    const { codes, state } = this;
    this.views.forEach((view) => view.now?.());
    clearTimeout(this.later);
    this.later = setTimeout(() => this.late(), 150);
    const found = await this.attempt(() => this.asked.values([state.code], state.kept));
    if (!found) return;
    [this.shown] = found;
    show(codes.event, byId("decoded"), this.shown, "what the code decodes to");
    this.beside();
    if (!quiet) this.tell();
    this.keep();
    document.documentElement.dataset.shown = this.summary();
  }

  async late() {
    for (const view of this.views) if (view.late) await this.attempt(() => view.late());
    if (document.documentElement.dataset.ready !== "yes") document.documentElement.dataset.ready = "yes";
    this.tell();
  }

  async attempt(work) {
    try {
      return await work();
    } catch (error) {
      byId("trouble").textContent = `Something went wrong: ${error.message}`;
      return null;
    }
  }

  beside() {
    const { codes, state } = this;
    const figure = byId("datum-figure");
    figure.hidden = state.datum < 0;
    if (state.datum < 0) return;
    show(codes.event, byId("datum"), codes.values(state.datum), `the datum, ${codes.name(state.datum)}`);
    const moved = codes.distance(state.code, rowAt(codes.data, state.datum)) > 1e-6;
    const caption = `The datum: ${codes.name(state.datum)}`;
    figure.querySelector("figcaption").textContent = moved ? `${caption} (the code has moved)` : caption;
  }

  // What is shown, in words.
  summary() {
    const { codes, state } = this;
    const numbers = codes.dims.slice(0, 4).map((dim) => `${dim.name} = ${state.code[dim.place].toFixed(2)}`);
    const rest = codes.dims.length > 4 ? ` and ${codes.dims.length - 4} more` : "";
    const values = codes.choices.map((block) => {
      const place = codes.choice(state.code, block);
      return `${block.name} = ${block.names[place] ?? place}`;
    });
    const gap = codes.exact ? 0 : codes.gap(state.code);
    const near = gap > 1e-6 ? ` This is the nearest of ${codes.stops} decodings, ${gap.toFixed(2)} away.` : "";
    const told = [...values, ...(numbers.length ? [numbers.join(", ") + rest] : [])].join("; ");
    return `The code at ${told}.${near}`;
  }

  tell() {
    const told = this.summary();
    if (byId("told").textContent !== told) byId("told").textContent = told;
  }

  // The state in the address, and back.
  keep() {
    const { codes, state } = this;
    const round = (value) => Number(value.toPrecision(7));
    const code = codes.compared.map((place) => round(state.code[place])).join(",");
    const parts = { z: code, d: state.datum, x: state.across, y: state.up, a: state.a, b: state.b, t: round(state.t), p: state.path, k: state.kept.join("") };
    const hash = `#${Object.entries(parts).map(([key, value]) => `${key}=${value}`).join("&")}`;
    this.kept = hash;
    try {
      history.replaceState(null, "", hash);
    } catch {
      location.hash = hash;
    }
  }

  restore() {
    const { codes, state } = this;
    const given = Object.fromEntries(location.hash.slice(1).split("&").map((part) => part.split("=", 2)));
    const whole = (text, most, otherwise) => {
      const value = Number(text ?? "x");
      return Number.isInteger(value) && value >= 0 && value <= most ? value : otherwise;
    };
    state.datum = whole(given.d, codes.count - 1, -1);
    state.across = whole(given.x, codes.dims.length - 1, state.across);
    state.up = whole(given.y, codes.dims.length - 1, state.up);
    state.a = whole(given.a, codes.count - 1, state.a);
    state.b = whole(given.b, codes.count - 1, state.b);
    if (given.p === "linear" || given.p === "spherical") state.path = given.p;
    const t = Number(given.t);
    state.t = t >= 0 && t <= 1 ? t : 0;
    const kept = (given.k ?? "").split("").map(Number);
    if (kept.length === state.kept.length && kept.every((one) => one === 0 || one === 1)) state.kept = kept;
    const values = (given.z ?? "").split(",").map(Number);
    const code = state.datum < 0 ? Float32Array.from(codes.centre) : codes.code(state.datum);
    if (values.length === codes.compared.length && values.every(Number.isFinite) && given.z) {
      codes.compared.forEach((place, i) => { code[place] = values[i]; });
    }
    this.move(code, { keep: true });
  }

  buttons() {
    const { codes, state } = this;
    byId("centre").addEventListener("click", () => {
      state.datum = -1;
      this.move(Float32Array.from(codes.centre));
    });
    byId("draw").addEventListener("click", () => {
      state.datum = -1;
      if (codes.dims.length) this.move(codes.moved(state.code, codes.dims.map((_, dim) => [dim, codes.quantile(dim, Math.random())])));
      else this.pick(Math.floor(Math.random() * codes.count));
    });
    byId("link").addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(location.href);
        byId("told").textContent = "The address of this state was copied.";
      } catch {
        byId("told").textContent = "The address of this page holds its state: copy it from the address bar.";
      }
    });
    const png = byId("png");
    png.hidden = codes.event.kind === "text";
    png.addEventListener("click", () => savePicture(codes.event, this.shown, `${codes.content.title}.png`));
    window.addEventListener("hashchange", () => { if (location.hash !== this.kept) this.restore(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.refresh({ quiet: true }));
  }
}

// A picture in so many whole steps of its pixels that it is large enough to be looked at.
function savePicture(event, value, name) {
  const small = picture(event, value);
  const times = Math.max(1, Math.ceil(256 / Math.max(small.width, small.height)));
  const canvas = canvasOf(times * small.width, times * small.height);
  const context = canvas.getContext("2d");
  if (event.kind !== "image") {
    context.fillStyle = inkOf("--ground");
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  make("a", { href: canvas.toDataURL("image/png"), download: name }).click();
}

// How far this browser's decodings are from those of the fit, as a share of the range.
async function difference(codes) {
  const { check } = codes.content.decoder;
  const [given, wanted] = [codes.array(check.codes), codes.array(check.x)];
  const list = Array.from({ length: given.shape[0] }, (_, row) => rowAt(given, row));
  const found = await codes.decode(list, [codes.levels.length ? codes.levels.map(() => 1) : [1]]);
  const columns = codes.event.low.length;
  let most = 0;
  found.forEach((x, row) => x.forEach((v, i) => {
    const span = codes.event.high[columns === 1 ? 0 : i] - codes.event.low[columns === 1 ? 0 : i];
    most = Math.max(most, Math.abs(v - rowAt(wanted, row)[i]) / (span > 0 ? span : 1));
  }));
  return most;
}

async function start() {
  const content = JSON.parse(byId("content").textContent);
  const codes = new Codes(content, await inflated(byId("numbers").textContent));
  const told = {
    graph: "The decoder is in this page: any code is decoded here.",
    live: "Codes are decoded by the server that this page came from.",
    nearest: `The nearest of ${codes.stops} decodings is shown, for the model cannot run in a page: ${content.decoder.why}.`,
  }[content.decoder.kind];
  byId("source").textContent = told;
  if (content.decoder.kind === "graph") {
    const most = await difference(codes);
    if (!(most <= 1 / 510)) throw new Error(`this browser's decodings differ from the fit's by ${most.toPrecision(2)} of the range`);
    byId("source").textContent = `${told} Decodings differ from those of the fit by at most ${most.toPrecision(1)} of the range.`;
  }
  new Page(codes).restore();
}

start().catch((error) => { byId("trouble").textContent = `Something went wrong: ${error.message}`; });

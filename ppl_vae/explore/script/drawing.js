// What data look like: a picture, bars of columns, a drawing, a series, or a text.

const COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#9c6ade", "#8c6d46", "#d66ba0", "#7f7f7f", "#a8a032", "#35a7b5"];
const colour = (place) => (place < 0 ? "#9a9a9a" : COLOURS[place % COLOURS.length]);
const SIDE = 96; // pixels of what has none of its own

const inkOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function make(name, attributes = {}, ...content) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") element.addEventListener("click", value);
    else if (key === "class") element.className = value;
    else element.setAttribute(key, value);
  }
  element.append(...content);
  return element;
}

function canvasOf(width, height) {
  const canvas = make("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas;
}

// A datum as a canvas: pictures in their own pixels, others in a square.
function picture(event, value) {
  if (event.kind === "image") return imageOf(event, value);
  const canvas = canvasOf(2 * SIDE, 2 * SIDE);
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  if (event.kind === "table") bars(context, event, value);
  else strokes(context, event.kind === "drawing" ? value : [value.map((y, x) => [x, -y])], event.kind === "drawing");
  return canvas;
}

function imageOf(event, value, shade = grey) {
  const [channels, height, width] = event.shape;
  const canvas = canvasOf(width, height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const rgb = channels === 1 ? shade(event, value[i]) : [0, 1, 2].map((c) => grey(event, value[c * width * height + i])[0]);
    pixels.data.set([...rgb, 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function grey(event, value) {
  const level = Math.max(0, Math.min(255, Math.round((255 * (value - event.low[0])) / (event.high[0] - event.low[0]))));
  return [level, level, level];
}

const share = (event, value, column) => {
  const span = event.high[column] - event.low[column];
  return span > 0 ? Math.max(0, Math.min(1, (value - event.low[column]) / span)) : 0.5;
};

function bars(context, event, value) {
  const width = SIDE / value.length;
  context.fillStyle = inkOf("--accent");
  value.forEach((v, i) => {
    const height = Math.max(1, share(event, v, i) * (SIDE - 4));
    if (Number.isFinite(v)) context.fillRect(i * width, SIDE - height, Math.max(0.5, width * 0.8), height);
  });
}

function strokes(context, lines, alike) {
  const points = lines.flat();
  if (!points.length) return;
  const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const spans = [Math.max(...xs) - left || 1, Math.max(...ys) - top || 1];
  const [sx, sy] = alike ? [Math.max(...spans), Math.max(...spans)] : spans;
  context.strokeStyle = inkOf("--ink");
  context.lineWidth = 1.4;
  context.lineCap = context.lineJoin = "round";
  const room = SIDE - 12;
  const [dx, dy] = [6 + (room * (1 - spans[0] / sx)) / 2, 6 + (room * (1 - spans[1] / sy)) / 2];
  for (const line of lines) {
    context.beginPath();
    line.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](dx + ((x - left) / sx) * room, dy + ((y - top) / sy) * room));
    context.stroke();
  }
}

const short = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "missing");

function cellOf(event, value, column) {
  const names = event.levels[column];
  return names ? names[Math.max(0, Math.min(names.length - 1, Math.round(value)))] ?? short(value) : short(value);
}

// A datum, large: fills an element.
function show(event, element, value, label) {
  if (event.kind === "text") {
    element.replaceChildren(make("p", { class: "text" }, value || "(empty)"));
  } else if (event.kind === "table") {
    element.replaceChildren(tableOf(event, value, label));
  } else {
    const canvas = picture(event, value);
    canvas.className = event.kind === "image" ? "pixels" : "lines";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
    element.replaceChildren(canvas);
  }
}

function tableOf(event, value, label) {
  const rows = event.columns.map((name, i) => {
    const bar = make("span", { class: "bar" });
    bar.style.width = `${100 * share(event, value[i], i)}%`;
    return make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, cellOf(event, value[i], i)), make("td", { class: "track" }, bar));
  });
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, make("table", {}, make("tbody", {}, ...rows)));
}

// A datum, small: a button with a caption.
function tile(event, value, caption, label, press) {
  const inside = event.kind === "text" ? make("span", { class: "words" }, value || "(empty)") : picture(event, value);
  if (event.kind !== "text") inside.className = event.kind === "image" ? "pixels" : "lines";
  const button = make("button", { type: "button", class: "tile", "aria-label": label, onclick: press }, inside);
  button.append(make("span", { class: "caption" }, caption));
  return button;
}

function loadingOf(event, value) {
  const most = Math.max(...value.map(Math.abs)) || 1;
  if (event.kind === "image") {
    const shade = (_, v) => {
      const t = v / most;
      return t > 0 ? [255 - 205 * t, 255 - 140 * t, 255 - 30 * t] : [255 + 40 * t, 255 + 190 * t, 255 + 200 * t];
    };
    const canvas = imageOf({ ...event, shape: [1, event.shape[1], event.shape[2]] }, value, shade);
    canvas.className = "pixels";
    return canvas;
  }
  const canvas = canvasOf(2 * SIDE, 2 * SIDE);
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  const width = SIDE / value.length;
  value.forEach((v, i) => {
    context.fillStyle = v > 0 ? "#3f7fd0" : "#d0553f";
    context.fillRect(i * width, SIDE / 2, Math.max(0.5, width * 0.8), (-v / most) * (SIDE / 2 - 2));
  });
  canvas.className = "lines";
  return canvas;
}

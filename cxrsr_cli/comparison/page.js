"use strict";
// A viewer of 8 to 16 bits. Distances are in pixels of the source, unless a name says otherwise:
// "grid" is the grid that both images are drawn on, "level" halves it so many times.
(() => {
const byId = id => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const canvas = byId("canvas"), overlay = byId("overlay"), viewer = byId("viewer");
const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
const clamp = (value, low, high) => value < low ? low : value > high ? high : value;
const MAX_DECODERS = 6, MAX_CACHED_PIXELS = 96e6, SLOW_FRAME_MS = 60, DRAFT_END_MS = 200;
const MAX_ZOOM = 64, GRIP_PIXELS = { mouse: 8, pen: 12, touch: 24 };

// ---- tiles -------------------------------------------------------------------------------
const cache = new Map(), decoding = new Set(), wanted = new Map();
let cachedPixels = 0, isIncomplete = false;

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text), bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

async function inflate(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The reverse of tiles.encode_tile.
function predictAgain(bytes, rows, columns) {
  const count = rows * columns, values = new Uint16Array(count);
  for (let row = 0, i = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, i++) {
      const left = column ? values[i - 1] : 0, above = row ? values[i - columns] : 0;
      const corner = row && column ? values[i - columns - 1] : 0;
      const smaller = left < above ? left : above, larger = left < above ? above : left;
      const bits = bytes[i] | bytes[count + i] << 8;
      values[i] = clamp(left + above - corner, smaller, larger) + ((bits >>> 1) ^ -(bits & 1));
    }
  }
  return values;
}

const sideAt = (pixels, level) => Math.ceil(pixels / 2 ** level);

// Return the values of a tile, or null and have it decoded.
function tile(index, level, row, column) {
  const key = `tile-${index}-${level}-${row}-${column}`, values = cache.get(key);
  if (values) {
    cache.delete(key);  // the last one used is the last one in the map
    cache.set(key, values);
    return values;
  }
  isIncomplete = true;
  wanted.set(key, { index, level, row, column });
  return null;
}

function decodeWanted() {
  for (const [key, { index, level, row, column }] of wanted) {
    if (decoding.size >= MAX_DECODERS) break;
    const element = byId(key);
    if (!element || decoding.has(key)) continue;
    decoding.add(key);
    const layer = data.layers[index];
    const rows = Math.min(data.tile, sideAt(layer.rows, level) - row * data.tile);
    const columns = Math.min(data.tile, sideAt(layer.columns, level) - column * data.tile);
    inflate(element.textContent).then(bytes => {
      decoding.delete(key);
      cache.set(key, predictAgain(bytes, rows, columns));
      cachedPixels += rows * columns;
      schedule();
    });
  }
  wanted.clear();
  for (const [key, values] of cache) {
    if (cachedPixels <= MAX_CACHED_PIXELS) break;
    cache.delete(key);
    cachedPixels -= values.length;
  }
}

// Return stored values less the smallest legal one, of a level that the page has. What is not
// decoded yet is taken from a coarser level.
function read(index, level, left, top, width, height) {
  const layer = data.layers[index], result = new Float32Array(width * height);
  const last = [sideAt(layer.columns, level) - 1, sideAt(layer.rows, level) - 1], T = data.tile;
  const steps = data.steps[level ? 1 : 0], coarser = layer.levels.filter(other => other > level).pop();
  const right = clamp(left + width - 1, 0, last[0]), bottom = clamp(top + height - 1, 0, last[1]);
  for (let row = Math.floor(clamp(top, 0, last[1]) / T); row * T <= bottom; row++) {
    for (let column = Math.floor(clamp(left, 0, last[0]) / T); column * T <= right; column++) {
      const values = tile(index, level, row, column);
      const columns = Math.min(T, last[0] + 1 - column * T);
      const x0 = column ? Math.max(0, column * T - left) : 0;
      const x1 = (column + 1) * T > last[0] ? width : Math.min(width, (column + 1) * T - left);
      const y0 = row ? Math.max(0, row * T - top) : 0;
      const y1 = (row + 1) * T > last[1] ? height : Math.min(height, (row + 1) * T - top);
      if (x1 <= x0 || y1 <= y0) continue;
      let other = null, first = [0, 0], otherWidth = 0, shift = 0;
      if (!values) {
        if (coarser === undefined) continue;
        shift = coarser - level;
        first = [clamp(left + x0, 0, last[0]) >> shift, clamp(top + y0, 0, last[1]) >> shift];
        otherWidth = (clamp(left + x1 - 1, 0, last[0]) >> shift) - first[0] + 1;
        const otherHeight = (clamp(top + y1 - 1, 0, last[1]) >> shift) - first[1] + 1;
        other = read(index, coarser, first[0], first[1], otherWidth, otherHeight);
      }
      for (let y = y0; y < y1; y++) {
        const sourceY = clamp(top + y, 0, last[1]);
        for (let x = x0; x < x1; x++) {
          const sourceX = clamp(left + x, 0, last[0]);
          result[y * width + x] = values
            ? values[(sourceY - row * T) * columns + sourceX - column * T] / steps
            : other[((sourceY >> shift) - first[1]) * otherWidth + (sourceX >> shift) - first[0]];
        }
      }
    }
  }
  return result;
}

// ---- images on a grid --------------------------------------------------------------------
function reduced(index, level, left, top, width, height) {
  const stored = data.layers[index].levels.find(other => other <= level), side = 2 ** (level - stored);
  if (side === 1) return read(index, level, left, top, width, height);
  const fine = read(index, stored, left * side, top * side, width * side, height * side);
  const result = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let j = 0; j < side; j++) {
        for (let i = 0, at = (y * side + j) * width * side + x * side; i < side; i++) sum += fine[at + i];
      }
      result[y * width + x] = sum / (side * side);
    }
  }
  return result;
}

// Keys' cubic with a = -0.5, cut and renormalised at the border: as networks/resampling.upsample.
function taps(start, count, factor, length) {
  const index = new Int32Array(4 * count), weight = new Float64Array(4 * count);
  for (let i = 0; i < count; i++) {
    const centre = (start + i + 0.5) / factor - 0.5, base = Math.floor(centre);
    let sum = 0;
    for (let k = 0; k < 4; k++) {
      const at = base - 1 + k, d = Math.abs(centre - at);
      const value = at < 0 || at >= length || d >= 2 ? 0
        : d <= 1 ? (1.5 * d - 2.5) * d * d + 1 : ((-0.5 * d + 2.5) * d - 4) * d + 2;
      index[4 * i + k] = clamp(at, 0, length - 1);
      weight[4 * i + k] = value;
      sum += value;
    }
    for (let k = 0; k < 4; k++) weight[4 * i + k] /= sum;
  }
  return { index, weight };
}

function enlarged(index, factor, isSmooth, left, top, width, height) {
  const layer = data.layers[index], result = new Float32Array(width * height);
  const across = taps(left, width, factor, layer.columns), down = taps(top, height, factor, layer.rows);
  const x0 = across.index[0], y0 = down.index[0];
  const columns = across.index[4 * width - 1] - x0 + 1, rows = down.index[4 * height - 1] - y0 + 1;
  const input = read(index, 0, x0, y0, columns, rows);
  if (!isSmooth) {
    for (let y = 0; y < height; y++) {
      const from = (Math.floor((top + y) / factor) - y0) * columns - x0;
      for (let x = 0; x < width; x++) result[y * width + x] = input[from + Math.floor((left + x) / factor)];
    }
    return result;
  }
  const rowsDone = new Float32Array(rows * width);
  for (let y = 0; y < rows; y++) {
    for (let x = 0, at = y * columns - x0; x < width; x++) {
      let sum = 0;
      for (let k = 4 * x; k < 4 * x + 4; k++) sum += across.weight[k] * input[at + across.index[k]];
      rowsDone[y * width + x] = sum;
    }
  }
  for (let y = 0; y < height; y++) {
    for (let k = 4 * y; k < 4 * y + 4; k++) {
      const weight = down.weight[k], at = (down.index[k] - y0) * width;
      if (weight) for (let x = 0; x < width; x++) result[y * width + x] += weight * rowsDone[at + x];
    }
  }
  return result;
}

function onGrid(choice, gridScale, level, left, top, width, height) {
  const factor = gridScale / data.layers[choice.index].scale / 2 ** level, halvings = Math.log2(1 / factor);
  return halvings >= 0 && Number.isInteger(halvings)
    ? reduced(choice.index, halvings, left, top, width, height)
    : enlarged(choice.index, factor, choice.isSmooth, left, top, width, height);
}

// ---- grey --------------------------------------------------------------------------------
const count = data.maximum - data.minimum + 1;
const greys = Uint32Array.from({ length: 256 }, (_, grey) => 0xff000000 | grey << 16 | grey << 8 | grey);
let table = new Uint32Array(count);
const windowing = { preset: 0, low: 0, high: 1, curve: null, isInverted: false, difference: 1 };

function makeTable() {
  const { low, high, curve } = windowing;
  for (let i = 0; i < count; i++) {
    const value = (data.minimum + i) * data.slope + data.intercept;
    const share = high > low ? (value - low) / (high - low) : value > low ? 1 : 0;
    let grey = curve ? curve[i] : Math.floor(clamp(share, 0, 1) * 255 + 0.5);
    if (data.inverted !== windowing.isInverted) grey = 255 - grey;
    table[i] = greys[grey];
  }
  if (data.padding) {
    const [first, last] = data.padding.map(value => clamp(value - data.minimum, -1, count));
    for (let i = Math.max(first, 0); i <= Math.min(last, count - 1); i++) table[i] = greys[0];
  }
}

function choosePreset(number) {
  const preset = data.presets[number];
  Object.assign(windowing, { preset: number, low: preset.low, high: preset.high, curve: preset.curve ?? null });
  windowing.difference = Math.max(4, (preset.high - preset.low) / Math.abs(data.slope) / 20);
  byId("preset").value = number;
  makeTable();
  schedule();
}

// Contrast by the distance to the right, brightness by the distance up, in shares of the view.
function changeWindow(right, up) {
  if (view.mode === "difference") {
    windowing.difference = clamp(windowing.difference * 2 ** (-4 * up), 0.5, count);
  } else {
    const width = windowing.high - windowing.low, middle = (windowing.low + windowing.high) / 2;
    const sign = data.inverted !== windowing.isInverted ? 1 : -1;
    const next = Math.max(width * 2 ** (3 * right), Math.abs(data.slope)), moved = middle + sign * up * width;
    Object.assign(windowing, { preset: -1, low: moved - next / 2, high: moved + next / 2, curve: null });
    byId("preset").value = -1;
    makeTable();
  }
  schedule(true);
}

// ---- view --------------------------------------------------------------------------------
const view = {
  mode: "slider", left: { index: 0, isSmooth: true }, right: { index: Math.min(1, data.layers.length - 1), isSmooth: true },
  x: data.columns / 2, y: data.rows / 2, zoom: 0, divider: 0.5, isSmooth: false, hasMarks: true, held: null,
};
let hasPresets = false, ratio = 1, lastCost = 0, draftTimer = 0, isScheduled = false, isDraft = false;

const mode = () => view.held ?? view.mode;
const gridScale = () => Math.max(data.layers[view.left.index].scale, data.layers[view.right.index].scale);

function panes() {
  const width = canvas.width, height = canvas.height, kind = mode();
  if (kind === "side") {
    const isTall = height > width, w = isTall ? width : width >> 1, h = isTall ? height >> 1 : height;
    return [
      { kind: "left", x: 0, y: 0, w, h, middle: [w / 2, h / 2] },
      isTall ? { kind: "right", x: 0, y: h, w, h: height - h, middle: [w / 2, h + h / 2] }
        : { kind: "right", x: w, y: 0, w: width - w, h, middle: [w + w / 2, h / 2] },
    ];
  }
  const middle = [width / 2, height / 2];
  if (kind !== "slider") return [{ kind, x: 0, y: 0, w: width, h: height, middle }];
  const split = Math.round(view.divider * width);
  return [
    { kind: "left", x: 0, y: 0, w: split, h: height, middle },
    { kind: "right", x: split, y: 0, w: width - split, h: height, middle },
  ];
}

const zoomOnCanvas = () => view.zoom * ratio;
const originOf = pane => [pane.middle[0] - view.x * zoomOnCanvas(), pane.middle[1] - view.y * zoomOnCanvas()];

function fit() {
  const pane = panes()[0], isSide = mode() === "side";
  const width = isSide ? pane.w : canvas.width, height = isSide ? pane.h : canvas.height;
  view.zoom = Math.min(width / data.columns, height / data.rows) / ratio;
  view.x = data.columns / 2;
  view.y = data.rows / 2;
  schedule();
}

function zoomTo(zoom, clientX, clientY) {
  const box = viewer.getBoundingClientRect(), at = placeAt(clientX ?? box.x + box.width / 2, clientY ?? box.y + box.height / 2);
  const fitting = Math.min(box.width / data.columns, box.height / data.rows);
  const smallest = 0.25 * Math.min(fitting, gridScale() / Math.max(devicePixelRatio, 1));
  const next = clamp(zoom, smallest, MAX_ZOOM * gridScale());
  view.x = at.x + (view.x - at.x) * view.zoom / next;
  view.y = at.y + (view.y - at.y) * view.zoom / next;
  view.zoom = next;
  schedule(true);
}

// Return the place of the source under a point of the window, and its pane.
function placeAt(clientX, clientY) {
  const box = viewer.getBoundingClientRect(), x = (clientX - box.x) * ratio, y = (clientY - box.y) * ratio;
  const all = panes(), pane = all.find(each => x >= each.x && x < each.x + each.w && y >= each.y && y < each.y + each.h) ?? all[0];
  const [left, top] = originOf(pane);
  return { x: (x - left) / zoomOnCanvas(), y: (y - top) / zoomOnCanvas(), pane };
}

function move(right, down) {
  view.x = clamp(view.x - right / view.zoom, 0, data.columns);
  view.y = clamp(view.y - down / view.zoom, 0, data.rows);
  schedule(true);
}

// ---- drawing -----------------------------------------------------------------------------
// Return for each pixel of the canvas its pixel of the grid, and how far it is to the next one.
function samples(start, length, origin, perPixel, size, isSmooth) {
  const at = new Int32Array(length), share = new Float32Array(length);
  let first = length, end = 0;
  for (let i = 0; i < length; i++) {
    const place = (start + i + 0.5 - origin) * perPixel;
    if (place < 0 || place >= size) continue;
    first = Math.min(first, i);
    end = i + 1;
    const base = isSmooth ? clamp(place - 0.5, 0, size - 1) : Math.floor(place);
    at[i] = Math.floor(base);
    share[i] = base - at[i];
  }
  return { at, share, first, end };
}

function draw(pane, pixels, stride) {
  const scale = gridScale(), zoom = zoomOnCanvas();
  const level = Math.max(0, Math.floor(Math.log2(scale / zoom) + 1e-9)), perPixel = scale / 2 ** level / zoom;
  const size = [Math.ceil(data.columns * scale / 2 ** level), Math.ceil(data.rows * scale / 2 ** level)];
  const isSmooth = perPixel > 1 + 1e-9 || perPixel < 1 - 1e-9 && (level > 0 || view.isSmooth);
  const [left, top] = originOf(pane).map(Math.round);  // whole pixels, so that 1:1 is exact
  const x = samples(pane.x, pane.w, left, perPixel, size[0], isSmooth);
  const y = samples(pane.y, pane.h, top, perPixel, size[1], isSmooth);
  for (let row = 0; row < pane.h; row++) {
    pixels.fill(greys[0], (pane.y + row) * stride + pane.x, (pane.y + row) * stride + pane.x + pane.w);
  }
  if (x.first >= x.end || y.first >= y.end) return;
  const x0 = x.at[x.first], y0 = y.at[y.first];
  const width = Math.min(x.at[x.end - 1] + 2, size[0]) - x0, height = Math.min(y.at[y.end - 1] + 2, size[1]) - y0;
  const grid = choice => onGrid(choice, scale, level, x0, y0, width, height);
  const isDifference = pane.kind === "difference";
  const values = grid(pane.kind === "left" ? view.left : view.right);
  if (isDifference) {
    const others = grid(view.left);
    for (let i = 0; i < values.length; i++) values[i] -= others[i];
  }
  const limit = windowing.difference * (data.inverted !== windowing.isInverted ? -1 : 1);
  for (let row = y.first; row < y.end; row++) {
    const upper = (y.at[row] - y0) * width, lower = Math.min(y.at[row] - y0 + 1, height - 1) * width, v = y.share[row];
    const out = (pane.y + row) * stride + pane.x;
    for (let column = x.first; column < x.end; column++) {
      const i = x.at[column] - x0;
      let value = values[upper + i];
      if (isSmooth) {
        const next = Math.min(i + 1, width - 1), h = x.share[column];
        const above = value + h * (values[upper + next] - value);
        value = above + v * (values[lower + i] + h * (values[lower + next] - values[lower + i]) - above);
      }
      pixels[out + column] = isDifference
        ? greys[clamp(Math.floor((value / limit + 1) * 127.5 + 0.5), 0, 255)]
        : table[clamp(Math.floor(value + 0.5), 0, count - 1)];
    }
  }
}

function render() {
  isScheduled = false;
  if (!hasPresets) return;
  const started = performance.now();
  ratio = Math.max(devicePixelRatio, 1) / (isDraft ? 2 : 1);
  const width = Math.max(1, Math.round(viewer.clientWidth * ratio)), height = Math.max(1, Math.round(viewer.clientHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  if (!view.zoom) return fit();
  isIncomplete = false;
  const image = context.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  for (const pane of panes()) draw(pane, pixels, width);
  context.putImageData(image, 0, 0);
  decodeWanted();
  label();
  canvas.dataset.complete = !isIncomplete && !isDraft;
  if (!isIncomplete) performance.mark("drawn");
  lastCost = performance.now() - started;
}

// Draw soon; while something moves and drawing is slow, with fewer pixels.
function schedule(isMoving = false) {
  if (isMoving && lastCost > SLOW_FRAME_MS) isDraft = true;
  if (isDraft) {
    clearTimeout(draftTimer);
    draftTimer = setTimeout(() => { isDraft = false; schedule(); }, DRAFT_END_MS);
  }
  canvas.dataset.complete = false;
  if (!isScheduled) requestAnimationFrame(render);
  isScheduled = true;
}

// ---- labels, scale bar, findings -----------------------------------------------------------
const shape = (name, attributes, text = "") => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  overlay.append(element);
};
const nameOf = choice => data.layers[choice.index].name
  + (choice.index ? "" : choice.isSmooth ? ", bicubic" : ", pixels");
const rounded = value => Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3));

function label() {
  overlay.replaceChildren();
  const kind = mode(), isSplit = kind === "slider" || kind === "side";
  byId("leftname").textContent = isSplit || kind === "left" ? nameOf(view.left)
    : kind === "right" ? nameOf(view.right) : `${nameOf(view.right)} less ${nameOf(view.left)}`;
  byId("rightname").textContent = isSplit ? nameOf(view.right) : "";
  const centre = (windowing.low + windowing.high) / 2 + data.shift, width = windowing.high - windowing.low + 2 * data.shift;
  byId("state").textContent = [
    kind === "difference" ? `black to white: \u00b1${rounded(windowing.difference)} stored units`
      : `C ${rounded(centre)} W ${rounded(width)}`,
    `${rounded(100 * zoomOnCanvas() / gridScale() * (isDraft ? 2 : 1))} %`,
    isIncomplete ? "sharper pixels follow" : "",
  ].filter(Boolean).join("\n");
  canvas.setAttribute("aria-label", `${byId("leftname").textContent}; ${byId("rightname").textContent}; ${byId("state").textContent}`);
  if (kind === "slider") {
    const x = view.divider * viewer.clientWidth, y = viewer.clientHeight / 2;
    shape("line", { class: "divider", x1: x, x2: x, y1: 0, y2: 2 * y });
    shape("circle", { class: "grip", cx: x, cy: y, r: 7 });
  }
  drawScaleBar();
  if (view.hasMarks) data.findings.forEach(drawFinding);
}

function drawScaleBar() {
  if (!data.spacing) {
    byId("scale").textContent = "no scale: no spacing is stated";
    return;
  }
  const perMillimetre = view.zoom / data.spacing[1], longest = Math.min(240, viewer.clientWidth / 3) / perMillimetre;
  const power = 10 ** Math.floor(Math.log10(longest)), length = power * [5, 2, 1].find(each => each * power <= longest);
  const y = viewer.clientHeight - 30, x = 10 + length * perMillimetre;
  shape("path", { class: "bar", d: `M10 ${y - 5}V${y}H${x}V${y - 5}`, "data-mm": length });
  byId("scale").textContent = `${Number(length.toPrecision(1))} mm ${data.spacing[2]}`;
}

function drawFinding([index, row, column, side], number) {
  for (const pane of panes()) {
    const shown = pane.kind === "left" ? [view.left.index] : pane.kind === "right" ? [view.right.index] : [view.left.index, view.right.index];
    if (mode() !== "slider" && !shown.includes(index)) continue;
    const [left, top] = originOf(pane).map(each => each / ratio);
    const x = left + (column - 0.5) * view.zoom, y = top + (row - 0.5) * view.zoom, size = Math.max(side * view.zoom, 16);
    const isInside = x * ratio >= pane.x && x * ratio < pane.x + pane.w && y * ratio >= pane.y && y * ratio < pane.y + pane.h;
    if (!isInside) continue;
    shape("rect", { class: "finding", x: x - size / 2, y: y - size / 2, width: size, height: size });
    shape("text", { x: x + size / 2 + 3, y: y - size / 2 + 4 }, number + 1);
  }
}

let lastFinding = -1;
function showFinding(number) {
  const [index, row, column, side] = data.findings[number], pane = panes()[0];
  lastFinding = number;
  if (view.left.index !== index) choose("right", index);
  Object.assign(view, { x: column - 0.5, y: row - 0.5, hasMarks: true });
  view.zoom = Math.min(canvas.width, pane.h) / ratio / Math.max(4 * side, 64);
  press();
  schedule();
}

// ---- controls ----------------------------------------------------------------------------
let drag = "pan";

function press() {
  for (const button of byId("modes").children) button.setAttribute("aria-pressed", button.dataset.mode === view.mode);
  for (const button of byId("drags").children) button.setAttribute("aria-pressed", button.dataset.drag === drag);
  byId("invert").setAttribute("aria-pressed", windowing.isInverted);
  byId("smooth").setAttribute("aria-pressed", view.isSmooth);
  byId("marks").setAttribute("aria-pressed", view.hasMarks);
  canvas.classList.toggle("window", drag === "window");
}

function setMode(name) {
  view.mode = name;
  press();
  schedule();
}

function choose(side, index, isSmooth = true) {
  view[side] = { index, isSmooth };
  byId(side).value = index ? index : isSmooth ? "0" : "pixels";
  schedule();
}

function setDivider(share) {
  view.divider = clamp(share, 0, 1);
  byId("divider").value = Math.round(1000 * view.divider);
  schedule(true);
}

const toggles = {
  invert: () => { windowing.isInverted = !windowing.isInverted; makeTable(); },
  smooth: () => { view.isSmooth = !view.isSmooth; },
  marks: () => { view.hasMarks = !view.hasMarks; },
};
const actions = {
  fit, full: () => zoomTo(gridScale() / Math.max(devicePixelRatio, 1)),
  closer: () => zoomTo(view.zoom * 1.25), farther: () => zoomTo(view.zoom / 1.25),
};
for (const [id, toggle] of Object.entries(toggles)) {
  actions[id] = () => { toggle(); press(); schedule(); };
}
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", () => action());
for (const button of byId("modes").children) button.addEventListener("click", () => setMode(button.dataset.mode));
for (const button of byId("drags").children) {
  button.addEventListener("click", () => { drag = button.dataset.drag; press(); });
}
for (const side of ["left", "right"]) {
  const select = byId(side);
  data.layers.forEach((layer, index) => {
    select.add(new Option(nameOf({ index, isSmooth: true }), index));
    if (!index) select.add(new Option(nameOf({ index, isSmooth: false }), "pixels"));
  });
  select.addEventListener("change", () => choose(side, Number(select.value) || 0, select.value !== "pixels"));
  choose(side, view[side].index);
}
data.presets.forEach((preset, number) => byId("preset").add(new Option(preset.name, number)));
byId("preset").add(new Option("as dragged", -1));
byId("preset").addEventListener("change", () => {
  if (byId("preset").value >= 0) choosePreset(Number(byId("preset").value));
});
byId("divider").addEventListener("input", () => setDivider(byId("divider").value / 1000));
document.querySelectorAll("button.finding").forEach((button, number) => {
  button.addEventListener("click", () => showFinding(number));
});

const keys = {
  1: () => setMode("slider"), 2: () => setMode("side"), 3: () => setMode("left"), 4: () => setMode("right"),
  5: () => setMode("difference"), "+": actions.closer, "=": actions.closer, "-": actions.farther, 0: fit, 9: actions.full,
  "[": () => setDivider(view.divider - 0.05), "]": () => setDivider(view.divider + 0.05),
  w: () => choosePreset((windowing.preset + 1) % data.presets.length), i: actions.invert, s: actions.smooth, m: actions.marks,
  n: () => { if (data.findings.length) showFinding((lastFinding + 1) % data.findings.length); },
};
const canvasKeys = {
  ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0), ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40),
  " ": () => { if (!view.held) { view.held = "left"; schedule(); } },
};
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
  const isFree = event.target === canvas || event.target === document.body;
  const action = keys[event.key] ?? (isFree ? canvasKeys[event.key] : undefined);
  if (!action) return;
  event.preventDefault();
  action();
});
addEventListener("keyup", event => {
  if (event.key === " " && view.held) { view.held = null; schedule(); }
});
addEventListener("blur", () => { view.held = null; });

// ---- mouse and touch -----------------------------------------------------------------------
const pointers = new Map();
let gesture = "";

const onDivider = event => mode() === "slider"
  && Math.abs(event.clientX - viewer.getBoundingClientRect().x - view.divider * viewer.clientWidth) < (GRIP_PIXELS[event.pointerType] ?? 8);

canvas.addEventListener("pointerdown", event => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, event);
  gesture = pointers.size > 1 ? "pinch" : event.button === 2 || event.shiftKey ? "window"
    : event.button === 1 ? "pan" : onDivider(event) ? "divide" : drag;
});
canvas.addEventListener("pointermove", event => {
  const before = pointers.get(event.pointerId), box = viewer.getBoundingClientRect();
  canvas.classList.toggle("divide", gesture === "divide" || !before && onDivider(event));
  if (!before) return;
  const right = event.clientX - before.clientX, down = event.clientY - before.clientY;
  if (gesture === "pinch" && pointers.size > 1) {
    const other = [...pointers.values()].find(each => each.pointerId !== event.pointerId);
    const distance = each => Math.hypot(each.clientX - other.clientX, each.clientY - other.clientY) || 1;
    zoomTo(view.zoom * distance(event) / distance(before), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
    move(right / 2, down / 2);
  } else if (gesture === "divide") setDivider((event.clientX - box.x) / box.width);
  else if (gesture === "window") changeWindow(right / box.width, -down / box.height);
  else if (gesture === "pan") move(right, down);
  pointers.set(event.pointerId, event);
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, event => {
    pointers.delete(event.pointerId);
    gesture = pointers.size ? "pan" : "";
  });
}
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  zoomTo(view.zoom * Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.clientX, event.clientY);
}, { passive: false });
canvas.addEventListener("dblclick", fit);
canvas.addEventListener("contextmenu", event => event.preventDefault());

// ---- begin -------------------------------------------------------------------------------
let isTouched = false;
for (const name of ["wheel", "pointerdown", "keydown"]) addEventListener(name, () => { isTouched = true; }, { once: true });
new ResizeObserver(() => {
  if (!isTouched) view.zoom = 0;
  schedule();
}).observe(viewer);
if (!document.readyState.startsWith("complete")) {
  // Tiles arrive while the page is read.
  const timer = setInterval(() => { if (isIncomplete) schedule(); }, 100);
  addEventListener("load", () => { clearInterval(timer); schedule(); });
}
press();
Promise.all(data.presets.map(async preset => {
  if (preset.curve) preset.curve = await inflate(preset.curve);
})).then(() => {
  hasPresets = true;
  choosePreset(0);
});
})();

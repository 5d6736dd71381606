// Draws the panels of the page from the numbers in #data, and answers to the pointer and the keyboard.
// No library, no network, no statistics: means and bands come ready. A curve is {steps, x, y, low, high, n, seeds}, arrays of one length.
"use strict";

const {groups, panels} = JSON.parse(document.getElementById("data").textContent);
const charts = panels.map((panel, index) => ({panel, host: document.getElementById("panel-" + index), scale: null}));
const hiddenGroups = new Set();
const shown = {seeds: true, bands: true};
const SHAPES = {
  "o": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0Z", "s": "M-4,-4H4V4H-4Z", "^": "M0,-5L5,4H-5Z",
  "D": "M0,-5.5L5.5,0L0,5.5L-5.5,0Z", "v": "M0,5L5,-4H-5Z",
};

// Numbers as text ---------------------------------------------------------------------------------------------------

const escape = text => String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
const minus = text => text.replace("-", "−");
const counted = value => minus(
  value >= 1e9 ? (value / 1e9).toFixed(2) + "B" : value >= 1e6 ? (value / 1e6).toFixed(2) + "M" :
  value >= 1e3 ? (value / 1e3).toFixed(1) + "k" : value.toFixed(0));

function yText(panel, value) {
  if (panel.percent) return (100 * value).toFixed(1) + "%";
  return minus(value.toFixed(panel.yLabel === "tokens" ? 1 : 3));
}

function tickText(value, step, percent) {
  if (percent) return (100 * value).toFixed(step < 0.00999 ? 1 : 0) + "%";
  if (Math.abs(value) >= 1000) return +(value / (value >= 1e6 ? 1e6 : 1e3)).toFixed(3) + (value >= 1e6 ? "M" : "k");
  return minus(value.toFixed(Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)))));
}

function ticks(low, high, count, whole) {
  const rough = (high - low) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map(f => f * power).find(s => s >= rough * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const made = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) made.push(i * step);
  return {values: made, step};
}

// Scales ------------------------------------------------------------------------------------------------------------

const visible = panel => panel.curves.map((curve, i) => [curve, groups[i], i]).filter(([c, , i]) => c.x.length && !hiddenGroups.has(i));

function extent(arrays) {
  let low = Infinity, high = -Infinity;
  for (const array of arrays) for (const value of array || []) {
    if (value === null) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

// The lines whole, and of bands no more than a third of the lines' height beyond them: as in the picture.
function limits(panel) {
  const curves = visible(panel).map(([curve]) => curve);
  const seeds = shown.seeds && !panel.path ? curves.flatMap(curve => curve.seeds) : [];
  let x = extent([...curves, ...seeds].map(line => line.x)), y = extent([...curves, ...seeds].map(line => line.y));
  if (shown.bands && !panel.path) {
    const beyond = extent(curves.flatMap(curve => [curve.low, curve.high])), room = (y[1] - y[0]) / 3;
    y = [Math.min(y[0], Math.max(y[0] - room, beyond[0])), Math.max(y[1], Math.min(y[1] + room, beyond[1]))];
  }
  const pad = ([low, high], share) => {
    const margin = share * (high - low) || 0.05 * Math.abs(high) || 0.5;
    return [low - margin, high + margin];
  };
  return {x: pad(x, panel.path ? 0.05 : 0.02), y: pad(y, 0.06)};
}

// Drawing -----------------------------------------------------------------------------------------------------------

function path(x, y, scale) {
  let d = "", pen = "M";
  for (let i = 0; i < x.length; i++) {
    if (x[i] === null || y[i] === null) { pen = "M"; continue; }
    d += pen + scale.x(x[i]).toFixed(1) + "," + scale.y(y[i]).toFixed(1);
    pen = "L";
  }
  return d;
}

function area(curve, scale) {
  const there = curve.x.map((_, i) => i).filter(i => curve.low[i] !== null);
  const pick = values => there.map(i => values[i]);
  if (there.length < 2) return "";
  const back = [pick(curve.x).reverse(), pick(curve.low).reverse()];
  return path(pick(curve.x), pick(curve.high), scale) + path(...back, scale).replace("M", "L") + "Z";
}

function marker(shape, x, y, attributes) {
  return `<path d="${SHAPES[shape]}" transform="translate(${x.toFixed(1)},${y.toFixed(1)})" ${attributes}/>`;
}

function drawCurve(panel, curve, group, scale) {
  const colour = group.colour, made = [];
  if (shown.bands && !panel.path) made.push(`<path class="band" d="${area(curve, scale)}" fill="${colour}"/>`);
  if (shown.seeds && !panel.path) {
    for (const seed of curve.seeds) {
      const y = seed.raw || (curve.seeds.length > 1 ? seed.y : []);
      made.push(`<path class="seed" d="${path(seed.x, y, scale)}" stroke="${colour}"/>`);
    }
  }
  made.push(`<path class="mean" d="${path(curve.x, curve.y, scale)}" stroke="${colour}" stroke-dasharray="${group.dashes}"/>`);
  const at = i => [scale.x(curve.x[i]), scale.y(curve.y[i])], last = curve.x.length - 1;
  if (panel.evaluated) curve.x.forEach((_, i) => made.push(marker(group.marker, ...at(i), `fill="${colour}"`)));
  if (panel.path) made.push(marker(group.marker, ...at(0), `class="start" stroke="${colour}"`), marker(group.marker, ...at(last), `fill="${colour}"`));
  return made.join("");
}

function draw(chart) {
  const {panel, host} = chart;
  if (!visible(panel).length) {
    chart.scale = null;
    host.innerHTML = `<div class="none">${panel.curves.some(c => c.x.length) ? "all hidden" : "not in these runs"}</div>`;
    return;
  }
  const width = host.clientWidth, wide = host.parentElement.classList.contains("wide");
  const height = Math.round(wide ? Math.max(280, Math.min(innerHeight * 0.7, width * 0.6)) : Math.max(230, Math.min(420, width * 0.62)));
  const em = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
  const {x, y} = limits(panel), yTicks = ticks(...y, height / em / 45), xTicks = ticks(...x, width / em / 90, panel.xLabel === "step");
  const yTexts = yTicks.values.map(v => tickText(v, yTicks.step, panel.percent));
  const left = em * (30 + 7.5 * Math.max(...yTexts.map(text => text.length))), right = 14 * em, top = 10, bottom = 40 * em;
  const scale = {
    x: v => left + (v - x[0]) / (x[1] - x[0]) * (width - left - right),
    y: v => height - bottom - (v - y[0]) / (y[1] - y[0]) * (height - top - bottom),
    left, right: width - right, top, bottom: height - bottom, width,
  };
  chart.scale = scale;
  const clip = `clip-${panel.key.replace(/\W/g, "-")}`;
  const grid = [
    ...yTicks.values.map((v, i) => `<path class="grid" d="M${left},${scale.y(v)}H${scale.right}"/><text x="${left - 6}" y="${scale.y(v) + 4 * em}" text-anchor="end">${yTexts[i]}</text>`),
    ...xTicks.values.map(v => `<path class="grid" d="M${scale.x(v)},${top}V${scale.bottom}"/><text x="${scale.x(v)}" y="${scale.bottom + 16 * em}" text-anchor="middle">${tickText(v, xTicks.step)}</text>`),
  ].join("");
  const axes = `<path class="axis" d="M${left},${top}V${scale.bottom}H${scale.right}" fill="none"/>` +
    `<text x="${(left + scale.right) / 2}" y="${height - 6 * em}" text-anchor="middle">${escape(panel.xLabel)}</text>` +
    `<text transform="translate(${12 * em},${(top + scale.bottom) / 2}) rotate(-90)" text-anchor="middle">${escape(panel.yLabel)}</text>`;
  const curves = visible(panel).map(([curve, group]) => drawCurve(panel, curve, group, scale)).join("");
  host.innerHTML = `<svg height="${height}" viewBox="0 0 ${width} ${height}" tabindex="0" role="img" aria-label="${escape(panel.title)}">` +
    `<clipPath id="${clip}"><rect x="${left - 6}" y="${top - 6}" width="${scale.right - left + 12}" height="${scale.bottom - top + 12}"/></clipPath>` +
    `${grid}${axes}<g clip-path="url(#${clip})">${curves}</g><g class="pointed"></g></svg>`;
}

const drawAll = () => { unpoint(); charts.forEach(draw); };

// Reading off -------------------------------------------------------------------------------------------------------

const nearest = (values, wanted) => values.reduce((best, v, i) => Math.abs(v - wanted) < Math.abs(values[best] - wanted) ? i : best, 0);

// The step nearest to the pointer; on a path, of the point nearest to it.
function stepAt(chart, px, py) {
  let best = Infinity, step = null;
  for (const [curve] of visible(chart.panel)) curve.x.forEach((x, i) => {
    const dx = chart.scale.x(x) - px, dy = chart.panel.path ? chart.scale.y(curve.y[i]) - py : 0;
    if (dx * dx + dy * dy < best) { best = dx * dx + dy * dy; step = curve.steps[i]; }
  });
  return step;
}

// Marks a step in every panel, and says its values in the one that is read.
function point(read, step) {
  unpoint();
  read.step = step;
  for (const chart of charts) {
    const layer = chart.scale && chart.host.querySelector(".pointed");
    if (!layer) continue;
    const {panel, scale} = chart, rows = [];
    let made = "", at = null;
    for (const [curve, group] of visible(panel)) {
      const i = nearest(curve.steps, step);
      if (curve.steps[i] !== step) continue;
      const x = scale.x(curve.x[i]);
      at = at ?? x;
      made += marker(group.marker, x, scale.y(curve.y[i]), `class="dot" fill="${group.colour}"`);
      rows.push(row(panel, curve, group, i));
    }
    if (!panel.path && at !== null) made = `<path class="cross" d="M${at},${scale.top}V${scale.bottom}"/>` + made;
    layer.innerHTML = made;
    if (chart === read && rows.length) tip(chart, at, `step ${step}`, rows);
  }
}

function row(panel, curve, group, i) {
  const interval = panel.path || curve.low[i] === null ? "" : ` [${yText(panel, curve.low[i])}, ${yText(panel, curve.high[i])}]`;
  const seeds = curve.n[i] < group.seeds ? ` ${curve.n[i]} of ${group.seeds} seeds` : "";
  const x = panel.path ? `${curve.x[i].toFixed(1)} tokens, ` : panel.xLabel === "step" ? "" : `${counted(curve.x[i])} tokens, `;
  return `<tr><td><svg width="12" height="12" viewBox="-6 -6 12 12"><path d="${SHAPES[group.marker]}" fill="${group.colour}"/></svg></td>` +
    `<td>${escape(group.label)}</td><td class="number">${x}${yText(panel, curve.y[i])}${interval}${seeds}</td></tr>`;
}

function tip(chart, x, title, rows) {
  const box = document.createElement("div");
  box.className = "tip";
  box.setAttribute("role", "status");
  box.innerHTML = `<b>${title}</b><table>${rows.join("")}</table>`;
  const figure = chart.host.parentElement;
  figure.append(box);
  const room = figure.clientWidth - box.offsetWidth - 4, beside = x + 24 > room ? x - box.offsetWidth - 4 : x + 24;
  box.style.left = Math.max(4, Math.min(room, beside)) + "px";
  box.style.top = chart.host.offsetTop + 12 + "px";
}

function unpoint() {
  document.querySelectorAll(".tip").forEach(box => box.remove());
  document.querySelectorAll(".pointed").forEach(layer => layer.replaceChildren());
}

// Events ------------------------------------------------------------------------------------------------------------

for (const chart of charts) {
  const {host} = chart;
  const follow = event => {
    if (!chart.scale) return;
    const box = host.getBoundingClientRect(), step = stepAt(chart, event.clientX - box.left, event.clientY - box.top);
    if (step !== null) point(chart, step);
  };
  host.addEventListener("pointermove", follow);
  host.addEventListener("pointerdown", follow);
  host.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") unpoint(); });
  host.addEventListener("focusout", unpoint);
  host.addEventListener("keydown", event => {
    const way = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (event.key === "Escape") unpoint();
    if (!way || !chart.scale) return;
    event.preventDefault();
    const steps = [...new Set(visible(chart.panel).flatMap(([curve]) => curve.steps))].sort((a, b) => a - b);
    const from = chart.step === undefined ? (way > 0 ? -1 : steps.length) : nearest(steps, chart.step);
    point(chart, steps[Math.max(0, Math.min(steps.length - 1, from + way))]);
  });
  host.parentElement.querySelector("button").addEventListener("click", event => {
    event.target.setAttribute("aria-pressed", host.parentElement.classList.toggle("wide"));
    drawAll();
  });
}

const names = [...document.querySelectorAll(".legend button")];
function hide(isHidden) {
  names.forEach((button, i) => {
    hiddenGroups[isHidden(i) ? "add" : "delete"](i);
    button.setAttribute("aria-pressed", !isHidden(i));
  });
  drawAll();
}
names.forEach((button, i) => {
  button.addEventListener("click", () => { const before = new Set(hiddenGroups); hide(j => before.has(j) !== (i === j)); });
  button.addEventListener("dblclick", () => hide(j => j !== i));
});
document.querySelectorAll(".legend input").forEach(box => box.addEventListener("change", () => {
  shown[box.name] = box.checked;
  drawAll();
}));

document.querySelectorAll(".panels, .switches").forEach(element => { element.hidden = false; });
drawAll();
const across = document.querySelector(".panels");
let drawnAt = across.getBoundingClientRect().width;
new ResizeObserver(([entry]) => {
  if (entry.contentRect.width !== drawnAt) {
    drawnAt = entry.contentRect.width;
    requestAnimationFrame(drawAll);
  }
}).observe(across);

"use strict";
/* Draws the charts of the page's data block. Knows lines, axes and units; all words come from the data. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const narrow = document.documentElement.clientWidth < 640, LEFT = narrow ? 54 : 66, RIGHT = narrow ? 50 : 62, ROOM = narrow ? 12 : 22;
  const dark = matchMedia("(prefers-color-scheme: dark)"), print = matchMedia("print");
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  /* ---- number formats ---- */
  const digits = v => v === 0 || v >= 9.995 ? v.toFixed(0) : v >= 0.95 ? v.toFixed(1) : v.toFixed(2);
  const grouped = (v, places) => v.toLocaleString("en-US", {maximumFractionDigits: places});
  function duration(s) {
    if (s >= 3600) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
    if (s >= 99.5) return Math.floor(Math.round(s) / 60) + " min " + Math.round(s) % 60 + " s";
    for (const [unit, scale] of [["s", 1], ["ms", 1e-3], ["us", 1e-6]])
      if (s >= scale * 0.9995 || unit === "us") return digits(s / scale) + " " + unit;
  }
  const written = {
    s: duration,
    cores: v => v.toFixed(2) + " cores",
    "/s": v => grouped(v, v < 10 ? 1 : 0) + "/s",
    "": v => grouped(v, 1),
  };
  const show = (v, unit) => v == null ? "\u2013" : written[unit || ""](v);
  const short = v => v >= 1e6 ? grouped(v / 1e6, 1) + " M" : v >= 1e4 ? grouped(v / 1e3, 1) + " k" : grouped(v, 2);

  /* Merge lines with different x values into one table. Equal x values share a row: a gap (null) of a line reaches to
     the neighbouring rows, and there the line needs its own value. */
  function merged(lines) {
    const order = lines.flatMap((line, l) => line.x.map((x, i) => [x, l, i]));
    order.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
    const table = [[], ...lines.map(() => [])];
    let start = 0, used = [];
    for (const [x, l, i] of order) {
      if (!table[0].length || table[0][table[0].length - 1] !== x) { start = table[0].length; used = lines.map(() => 0); }
      const row = start + used[l]++;
      table[0][row] = x;
      table[l + 1][row] = lines[l].y[i];
    }
    for (const column of table) column.length = table[0].length;
    return table;
  }

  /* Return the index in ascending xs of the value in force at x (step), or of the nearest one. */
  function placeOf(xs, x, step) {
    let low = 0, high = xs.length - 1;
    while (low < high) { const mid = (low + high + 1) >> 1; xs[mid] <= x ? low = mid : high = mid - 1; }
    if (!step && low + 1 < xs.length && xs[low + 1] - x < x - xs[low]) low += 1;
    return low;
  }

  function sign(line) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const shape = document.createElementNS(svg.namespaceURI, line.kind === "points" ? "circle" : "line");
    const at = line.kind === "points" ? {cx: 10, cy: 4.5, r: 2.5, fill: colour(line.colour)}
      : {x1: 1, x2: 19, y1: 4.5, y2: 4.5, stroke: colour(line.colour), "stroke-width": line.kind === "bars" ? 8 : 2.5,
         "stroke-dasharray": line.kind === "bars" ? "3 3" : (line.dash || []).join(" ")};
    for (const [k, v] of Object.entries(at)) shape.setAttribute(k, v);
    svg.setAttribute("viewBox", "0 0 20 9");
    svg.append(shape);
    return svg;
  }

  /* The heading of a chart, with the value of each line under the pointer. */
  function heading(place, title, lines, aside) {
    const top = document.createElement("div"), name = document.createElement("h3");
    top.className = lines.length > 4 ? "top many" : "top";
    name.textContent = title;
    top.append(name);
    if (aside) {
      const small = document.createElement("small");
      small.textContent = aside;
      name.append(" ", small);
    }
    const values = lines.map(line => {
      const item = document.createElement("span"), value = document.createElement("b");
      item.className = "readout";
      item.append(sign(line), line.label, " ", value);
      top.append(item);
      return value;
    });
    const at = document.createElement("span");
    at.className = "at";
    top.append(at);
    place.replaceChildren(top);
    return {values, at};
  }

  const WHOLE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].flatMap(e => [1, 2, 5].map(f => f * 10 ** e));
  const axis = (more, grid) => ({
    stroke: colour("soft"), font: "12px system-ui, sans-serif", ticks: {show: false}, gap: 6,
    grid: {show: grid, stroke: colour("grid"), width: 1}, ...more,
  });
  const tint = (name, alpha) => colour(name) + alpha;

  function series(line) {
    const base = {label: line.label, stroke: colour(line.colour), width: line.width || 1.6, scale: line.axis || "y",
      dash: line.dash && line.dash.length ? line.dash : undefined, spanGaps: false, points: {show: false}};
    if (line.kind === "step") base.paths = uPlot.paths.stepped({align: 1});
    if (line.kind === "bars") Object.assign(base, {paths: uPlot.paths.bars({size: [0.7, 14]}), fill: tint(line.colour, "66"), width: 1});
    if (line.kind === "points") Object.assign(base, {paths: () => null, points: {show: true, size: 3.5, width: 0, fill: colour(line.colour)}});
    if (line.fill) base.fill = tint(line.colour, "1f");
    if (line.counts) base.points = {show: true, size: 4, width: 0, fill: colour(line.colour)};
    return base;
  }

  /* A limit far above the values would flatten the lines: it is then given in words only. */
  const peak = panel => Math.max(0, ...panel.lines.filter(l => l.axis !== "right").map(l => l.y.reduce((a, b) => Math.max(a, b), 0)));
  const near = panel => panel.limit != null && panel.limit <= 4 * Math.max(peak(panel), 1);

  function drawLimit(u, panel) {
    if (!near(panel)) return;
    const y = Math.round(u.valToPos(panel.limit, "y", true)), {left, top, width} = u.bbox, ctx = u.ctx, d = devicePixelRatio;
    if (y < top) return;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("bad");
    ctx.lineWidth = 1.5 * d;
    ctx.setLineDash([7 * d, 4 * d]);
    ctx.beginPath(); ctx.moveTo(left, y); ctx.lineTo(left + width, y); ctx.stroke();
    ctx.font = `600 ${11.5 * d}px system-ui, sans-serif`;
    ctx.textAlign = "right";
    ctx.textBaseline = "alphabetic";  // uPlot leaves its own, and the line would then touch the words
    ctx.fillText("limit " + grouped(panel.limit, 0), left + width - 4 * d, y - 6 * d);
    ctx.restore();
  }

  /* Marks: a numbered line in every panel; the first panel also shows their labels. */
  function drawMarks(u, marks, named) {
    const {left, top, width, height} = u.bbox, ctx = u.ctx, d = devicePixelRatio;
    let row = 0, last = -Infinity;
    ctx.save();
    marks.forEach((mark, i) => {
      const x = Math.round(u.valToPos(mark.at, "x", true));
      if (x < left - 1 || x > left + width + 1) return;
      ctx.strokeStyle = colour("soft");
      ctx.lineWidth = d;
      ctx.setLineDash([3 * d, 3 * d]);
      ctx.beginPath(); ctx.moveTo(x, top); ctx.lineTo(x, top + height); ctx.stroke();
      ctx.setLineDash([]);
      ctx.font = `600 ${11 * d}px system-ui, sans-serif`;
      const text = named ? `${i + 1}  ${mark.label}` : `${i + 1}`, wide = ctx.measureText(text).width + 10 * d;
      const turned = x + wide > left + width, from = turned ? x - wide : x;
      row = from < last ? row + 1 : 0;
      last = from + wide + 4 * d;
      const y = top + row * 19 * d;
      ctx.fillStyle = colour("ink");
      ctx.beginPath(); ctx.roundRect(from, y, wide, 16 * d, 3 * d); ctx.fill();
      ctx.fillStyle = colour("paper");
      ctx.textAlign = "left";
      ctx.textBaseline = "middle";
      ctx.fillText(text, from + 5 * d, y + 8.5 * d);
    });
    ctx.restore();
  }

  /* ---- panels on one time axis ---- */
  const charts = [];
  let zoomed = null, button = null;

  function zoom(min, max) {
    const full = [0, data.time.span];
    zoomed = min == null || max - min >= full[1] ? null : [Math.max(min, 0), Math.min(max, full[1])];
    const [low, high] = zoomed || full;
    for (const chart of charts) if (chart.onTime) chart.plot.setScale("x", {min: low, max: high});
    button.hidden = !zoomed;
  }

  function timePanel(panel, index, count, room) {
    const place = document.getElementById("chart-" + panel.id), last = index === count - 1;
    const far = panel.limit != null && !near(panel) ? `limit ${grouped(panel.limit, 0)}, far above` : "";
    const {values, at} = heading(place, panel.title, panel.lines, far);
    const table = merged(panel.lines.map(l => panel.log ? {...l, y: l.y.map(v => v == null ? null : Math.max(v, 1e-6))} : l));
    const right = panel.lines.filter(l => l.axis === "right"), unit = panel.unit || "";
    const range = (u, low, high) => [0, Math.max(high || 0, near(panel) ? panel.limit : 0, 1e-9) * 1.12];
    const yRange = panel.lines.some(l => l.unit === "cores") ? (u, low, high) => [0, Math.max(high || 0, 1) * 1.1] : range;
    const plot = new uPlot({
      width: place.clientWidth - ROOM, height: last ? 190 : 162, legend: {show: false},
      padding: [6, right.length ? 0 : room, 0, 0],
      scales: {
        x: {time: false, range: (u, min, max) => [min, max]},
        y: panel.log ? {distr: 3, log: 10} : {range: yRange},
        right: {range: (u, low, high) => [0, Math.max(high || 0, 1) * 1.12]},
      },
      series: [{}, ...panel.lines.map(series)],
      axes: [
        axis({values: (u, ticks) => ticks.map(t => last ? grouped(t, 6) + (t === ticks[0] ? " s" : "") : ""), size: last ? 28 : 8}, true),
        axis({size: LEFT, values: (u, ticks) => ticks.map(t => t == null ? "" : unit === "s" ? duration(t) : short(t)),
          space: panel.log ? 22 : 32, ...(panel.log || yRange !== range ? {} : {incrs: WHOLE})}, true),
        ...(right.length ? [axis({side: 1, scale: "right", size: RIGHT, space: 32, stroke: colour(right[0].colour),
          values: (u, ticks) => ticks.map(t => short(t) + (right[0].unit || ""))}, false)] : []),
      ],
      cursor: {
        y: false, points: {show: false}, drag: {x: true, y: false, setScale: false, dist: 4},
        sync: {key: "time", scales: ["x", null], filters: {pub: kind => kind === "mousemove" || kind === "mouseleave"}},
        bind: {dblclick: () => () => { zoom(null); return null; }},
      },
      hooks: {
        draw: [u => { drawLimit(u, panel); drawMarks(u, data.time.marks, index === 0 && !narrow); }],
        setSelect: [u => {
          if (u.select.width < 4) return;
          const from = u.posToVal(u.select.left, "x"), to = u.posToVal(u.select.left + u.select.width, "x");
          u.setSelect({left: 0, top: 0, width: 0, height: 0}, false);
          zoom(from, to);
        }],
        setCursor: [u => {
          const inside = u.cursor.left >= 0, x = inside ? u.posToVal(u.cursor.left, "x") : null;
          at.textContent = inside && index === 0 ? "at " + duration(Math.max(x, 0)) : "";
          panel.lines.forEach((line, i) => {
            const row = inside ? placeOf(line.x, x, line.kind === "step") : 0;
            const n = inside && line.counts && line.y[row] != null ? ` of ${line.counts[row]}` : "";
            values[i].textContent = inside ? show(line.y[row], line.unit || unit) + n : "";
          });
        }],
      },
    }, table, place);
    charts.push({plot, place, onTime: true});
  }

  /* ---- percentile curves: the x axis is 1 / (1 - percentile) ---- */
  const SHARES = [[1, "0 %"], [2, "50 %"], [10, "90 %"], [100, "99 %"], [1e3, "99.9 %"], [1e4, "99.99 %"], [1e5, "99.999 %"], [1e6, "99.9999 %"]];
  const oneIn = (p, count) => Math.min(p >= 100 ? Infinity : 1 / (1 - p / 100), Math.max(count, 1));

  function curves(chart) {
    const place = document.getElementById("chart-" + chart.id);
    const lines = chart.lines.map(l => ({...l, x: l.p.map(p => oneIn(p, l.count)), y: l.y.map(v => Math.max(v, 1e-6)), kind: "step"}));
    const {values, at} = heading(place, chart.title, lines);
    const table = merged(lines);
    const most = Math.max(10, ...lines.map(l => l.x[l.x.length - 1]));
    const plot = new uPlot({
      width: place.clientWidth - ROOM, height: 300, legend: {show: false}, padding: [10, 24, 0, 0],
      scales: {x: {time: false, distr: 3, log: 10, range: () => [1, most]}, y: {distr: 3, log: 10}},
      series: [{}, ...lines.map(l => ({...series({...l, kind: "line", width: l.width || 1.9}), points: {show: false}}))],
      axes: [
        axis({splits: () => SHARES.map(s => s[0]).filter(s => s <= most && !(narrow && s === 2 && most > 1e3)), filter: (u, s) => s, size: 30,
          values: (u, ticks) => ticks.map(t => (SHARES.find(s => s[0] === t) || [0, ""])[1])}, true),
        axis({size: LEFT, space: 26, values: (u, ticks) => ticks.map(t => t == null ? "" : duration(t))}, true),
      ],
      cursor: {y: false, points: {show: false}, drag: {x: false, y: false}},
      hooks: {setCursor: [u => {
        const inside = u.cursor.left >= 0, x = inside ? u.posToVal(u.cursor.left, "x") : null;
        at.textContent = inside ? "at " + grouped(100 * (1 - 1 / x), x < 50 ? 0 : x < 500 ? 1 : x < 5e3 ? 2 : 4) + " %" : "";
        lines.forEach((line, i) => {
          const row = inside ? Math.min(placeOf(line.x, x, true) + (x > line.x[placeOf(line.x, x, true)] ? 1 : 0), line.x.length - 1) : 0;
          values[i].textContent = inside ? duration(line.y[row]) : "";
        });
      }]},
    }, table, place);
    charts.push({plot, place, onTime: false});
  }

  function build() {
    for (const chart of charts.splice(0)) chart.plot.destroy();
    if (data.time) {
      const panels = data.time.panels, host = panels.length && document.getElementById("chart-" + panels[0].id).parentElement;
      if (host && !button) {
        button = document.createElement("button");
        button.className = "reset";
        button.type = "button";
        button.textContent = "reset zoom";
        button.addEventListener("click", () => zoom(null));
        host.append(button);
      }
      const room = panels.some(p => p.lines.some(l => l.axis === "right")) ? RIGHT : 16;
      panels.forEach((panel, i) => timePanel(panel, i, panels.length, room));
      if (panels.length) zooming();
    }
    (data.curves || []).forEach(curves);
  }
  const zooming = () => zoomed ? zoom(...zoomed) : zoom(null);

  let waiting = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      for (const {plot, place} of charts) if (plot.width !== place.clientWidth - ROOM) plot.setSize({width: place.clientWidth - ROOM, height: plot.height});
    });
  }).observe(document.querySelector("main"));
  dark.addEventListener("change", build);
  print.addEventListener("change", build);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => { d.open = true; }));
  build();
  window.loadsim = {charts, zoom};
})();

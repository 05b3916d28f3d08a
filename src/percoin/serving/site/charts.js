"use strict";
// Pictures as SVG, without a library: candles with signals, curves, intervals.
const charts = (() => {
  const SPACE = "http://www.w3.org/2000/svg";
  const CLASSES = ["SHORT", "NO_TRADE", "LONG"];

  const svg = (name, attributes = {}, ...children) => {
    const node = document.createElementNS(SPACE, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const text = (x, y, words, kind) => svg("text", { x, y, class: kind }, words);
  const line = (x1, y1, x2, y2, kind) => svg("line", { x1, y1, x2, y2, class: kind });
  const scale = (low, high, start, end) => (value) =>
    Math.round((start + ((value - low) / (high - low)) * (end - start)) * 10) / 10;

  // Round values between two, about so many of them.
  const ticks = (low, high, wanted) => {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((times) => times * power >= rough);
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k += 1) found.push(k * step);
    return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
  };

  const stamp = (ms) => new Date(ms).toISOString().slice(0, 16).replace("T", " ");
  const shortStamp = (ms, span) => {
    const full = stamp(ms);
    return span > 5 * 864e5 ? full.slice(0, 10) : full.slice(5, 16);
  };
  const price = (value) => {
    const size = Math.abs(value);
    // The ticks of the cheapest coins are millionths of a cent.
    const tiny = size > 0 ? Math.min(12, 5 - Math.floor(Math.log10(size))) : 6;
    const digits = size >= 1000 ? 2 : size >= 1 ? 4 : Math.max(6, tiny);
    return value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: digits });
  };

  const timeAxis = (times, x, y, width) => {
    const wanted = Math.max(2, Math.floor(width / 130));
    const places = new Set();
    for (let k = 0; k < wanted; k += 1) places.add(Math.round(((k + 0.5) / wanted) * (times.length - 1)));
    const parts = [];
    for (const place of places) {
      parts.push(text(x(place), y, shortStamp(times[place], times.at(-1) - times[0]), "middle"));
    }
    return parts;
  };

  // The place of the pointer on a chart, as the number of a bar.
  const follow = (root, n, left, right, width, onPlace) => {
    root.addEventListener("pointermove", (event) => {
      const box = root.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * width;
      const place = Math.round(((at - left) / (right - left)) * n - 0.5);
      onPlace(Math.min(Math.max(place, 0), n - 1));
    });
    root.addEventListener("pointerleave", () => onPlace(null));
  };

  const OUTCOMES = { right: "came true", wrong: "did not come true", open: "not known yet", void: "no outcome" };

  // An outcome is the label that the rule of training gave later.
  const outcome = (signal) => {
    if (signal.void) return "void";
    if (!signal.label) return "open";
    return signal.label === signal.pred ? "right" : "wrong";
  };

  const CONE_STEPS = 12;
  // Where the price is expected to go from its last close: the bands widen with the root of time.
  // Cone: {close, bands, words}; x0 and x1 are its ends.
  const drawCone = (cone, x0, x1, y) => {
    const root = svg("g", { class: "cone" }, svg("title", {}, cone.words));
    for (const { lower, upper } of Object.values(cone.bands)) {
      const edge = (end) => Array.from({ length: CONE_STEPS + 1 }, (_, k) => {
        const part = k / CONE_STEPS;
        const at = Math.round((x0 + part * (x1 - x0)) * 10) / 10;
        return `${at} ${y(cone.close * (end / cone.close) ** Math.sqrt(part))}`;
      });
      root.append(svg("path", { d: `M${[...edge(upper), ...edge(lower).reverse()].join("L")}z` }));
    }
    return root;
  };

  // Bars: columns as of /api/bars. Signals: as of /api/history. Levels: name to price. Cone: of
  // the newest bar, or null.
  const candles = (bars, signals, levels, cone, width, onRead) => {
    const n = bars.open_time.length;
    const height = Math.max(300, Math.min(430, width * 0.42));
    const [left, edge, top, bottom] = [4, width - 78, 10, height - 26];
    // A cone of few bars would be too narrow to see among many.
    const coneWidth = cone ? Math.max((edge - left) * 0.07, ((edge - left) / n) * cone.n_bars) : 0;
    const right = edge - coneWidth;
    const span = bars.open_time[1] - bars.open_time[0] || 1;
    const near = (value) => value > Math.min(...bars.low) * 0.9 && value < Math.max(...bars.high) * 1.1;
    const shown = Object.entries(levels).filter(([, value]) => typeof value === "number" && near(value));
    const wide = cone ? Object.values(cone.bands).flatMap(({ lower, upper }) => [lower, upper]).filter(near) : [];
    const low = Math.min(...bars.low, ...shown.map(([, value]) => value), ...wide);
    const high = Math.max(...bars.high, ...shown.map(([, value]) => value), ...wide);
    const margin = (high - low || high) * 0.06;
    const y = scale(low - margin, high + margin, bottom - 34, top);
    const x = (place) => Math.round((left + ((place + 0.5) / n) * (right - left)) * 10) / 10;
    const half = Math.max(0.7, ((right - left) / n) * 0.34);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img" });
    root.append(svg("title", {}, `Candles of ${n} bars with past signals`));

    const axis = ticks(low, high, 5);
    for (const tick of axis.found) {
      root.append(line(left, y(tick), edge, y(tick), "gridline"));
      root.append(text(edge + 8, y(tick) + 4, price(tick), ""));
    }
    if (cone) root.append(drawCone(cone, x(n - 1), edge, y));
    root.append(...timeAxis(bars.open_time, x, height - 6, right - left));

    const most = Math.max(...bars.volume) || 1;
    const paths = { volume: "", wick: "", up: "", fall: "" };
    for (let k = 0; k < n; k += 1) {
      const at = x(k);
      const [from, to] = [y(bars.open[k]), y(bars.close[k])];
      const deep = (bars.volume[k] / most) * 30;
      paths.volume += `M${at - half} ${bottom}v${-deep}h${2 * half}v${deep}z`;
      paths.wick += `M${at} ${y(bars.high[k])}V${Math.min(from, to)}M${at} ${Math.max(from, to)}V${y(bars.low[k])}`;
      const kind = bars.close[k] >= bars.open[k] ? "up" : "fall";
      paths[kind] += `M${at - half} ${from}H${at + half}V${to}H${at - half}z`;
    }
    for (const [kind, d] of Object.entries(paths)) root.append(svg("path", { d, class: kind }));

    for (const [name, value] of shown) {
      const kind = name === "entry" ? "NO_TRADE" : name === "stop" ? "SHORT" : "LONG";
      root.append(svg("g", { class: kind },
        line(edge - 150, y(value), edge, y(value), "level"),
        text(edge - 4, y(value) - 4, `${name} ${price(value)}`, "level-text end")));
    }

    // A signal belongs to the bar at whose close it was made.
    const places = new Map(bars.open_time.map((time, k) => [time + span, k]));
    const byPlace = new Map();
    const wing = Math.max(2.6, Math.min(5, ((right - left) / n) * 0.8));
    for (const signal of signals) {
      const place = places.get(Date.parse(signal.ts));
      if (place === undefined) continue;
      byPlace.set(place, signal);
      if (signal.pred === "NO_TRADE") continue;
      const isLong = signal.pred === "LONG";
      const tip = isLong ? y(bars.low[place]) + 5 : y(bars.high[place]) - 5;
      const base = isLong ? tip + 1.8 * wing : tip - 1.8 * wing;
      const at = x(place);
      root.append(svg("path", {
        d: `M${at} ${tip}L${at - wing} ${base}H${at + wing}z`,
        class: `mark ${signal.pred} ${outcome(signal)}`,
      }, svg("title", {}, `${signal.pred}: ${OUTCOMES[outcome(signal)]}`)));
    }

    const cross = line(0, top, 0, bottom, "cross");
    root.append(cross);
    follow(root, n, left, right, width, (place) => {
      cross.style.visibility = place === null ? "hidden" : "visible";
      if (place === null) return onRead("");
      cross.setAttribute("x1", x(place));
      cross.setAttribute("x2", x(place));
      const signal = byPlace.get(place);
      const said = signal ? `, said ${signal.pred} (${OUTCOMES[outcome(signal)]})` : "";
      return onRead(
        `${stamp(bars.open_time[place])}  open ${price(bars.open[place])}  high ${price(bars.high[place])}  ` +
        `low ${price(bars.low[place])}  close ${price(bars.close[place])}${said}`);
    });
    return root;
  };

  // Probabilities of the three classes over time; signals oldest first.
  const probabilities = (signals, width, onRead) => {
    const n = signals.length;
    const height = 200;
    const [left, right, top, bottom] = [4, width - 44, 8, height - 26];
    const y = scale(0, 1, bottom, top);
    const x = (place) => Math.round((left + ((place + 0.5) / n) * (right - left)) * 10) / 10;
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img" });
    root.append(svg("title", {}, `Probabilities of the last ${n} answers of a model`));
    for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
      root.append(line(left, y(tick), right, y(tick), "gridline"));
      root.append(text(right + 8, y(tick) + 4, `${tick * 100} %`, ""));
    }
    const times = signals.map((signal) => Date.parse(signal.ts));
    root.append(...timeAxis(times, x, height - 6, right - left));
    for (const name of CLASSES) {
      const d = signals.map((signal, k) => `${k ? "L" : "M"}${x(k)} ${y(signal.probabilities[name])}`).join("");
      root.append(svg("path", { d, class: `curve ${name}` }));
      if (n === 1) root.append(svg("circle", { cx: x(0), cy: y(signals[0].probabilities[name]), r: 3, class: `dot ${name}` }));
    }
    follow(root, n, left, right, width, (place) => {
      if (place === null) return onRead("");
      const shares = CLASSES.map((name) => `${name} ${(signals[place].probabilities[name] * 100).toFixed(1)} %`);
      return onRead(`${stamp(times[place])}  ${shares.join("  ")}`);
    });
    return root;
  };

  // Rows of {name, value, lower, upper, kind} on one scale, with 0 drawn; unit says what it measures.
  const intervals = (rows, unit, width) => {
    const height = 34 * rows.length + 48;
    const ends = rows.flatMap((row) => [row.value, row.lower ?? row.value, row.upper ?? row.value]);
    const low = Math.min(-0.01, ...ends);
    const high = Math.max(0.01, ...ends);
    const labels = Math.min(210, width * 0.4);
    const x = scale(low - (high - low) * 0.06, high + (high - low) * 0.06, labels, width - 8);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img" });
    root.append(svg("title", {}, "Skills with their intervals; 0 is no skill"));
    const axis = ticks(low, high, Math.max(2, Math.floor(width / 150)));
    for (const tick of axis.found) {
      const isZero = Math.abs(tick) < 1e-12;
      root.append(line(x(tick), 4, x(tick), height - 42, isZero ? "zero" : "gridline"));
      root.append(text(x(tick), height - 26, isZero ? "0" : tick.toFixed(axis.digits), "middle"));
    }
    root.append(text(width - 8, height - 6, unit, "end"));
    rows.forEach((row, k) => {
      const at = 22 + 34 * k;
      root.append(text(labels - 12, at + 4, row.name, "strong end"));
      const group = svg("g", { class: row.kind });
      if (row.lower !== null && row.upper !== null) group.append(line(x(row.lower), at, x(row.upper), at, "whisker"));
      group.append(svg("circle", { cx: x(row.value), cy: at, r: 5, class: "dot" }));
      root.append(group);
    });
    return root;
  };

  return { candles, probabilities, intervals, outcome, OUTCOMES, CLASSES, price, stamp };
})();

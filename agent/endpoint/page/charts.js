"use strict";
// Charts: three small uPlot pictures for each pipeline, their legends and their words.
// Lines differ by dash and by label as well as by colour; a chart's accessible name is
// a sentence with the newest values and their range.

const MINUTES = 15;
// Where each value stands in a point, as agent.core.trend.TrendPoint orders them.
const POINT = { at: 0, rate: 1, failed: 2, dropped: 3, p50: 4, p95: 5, p99: 6, lag: 7, drift: 8, version: 9 };

const CHARTS = {
  rate: {
    title: "Throughput in samples per second",
    lines: [
      { of: "rate", name: "answered", ink: "--one", fill: true },
      { of: "failed", name: "failed", ink: "--limit", dash: [2, 3], quiet: true },
      { of: "dropped", name: "dropped", ink: "--two", dash: [6, 4], quiet: true },
    ],
  },
  latency: {
    title: "Latency in milliseconds",
    lines: [
      { of: "p50", name: "p50", ink: "--two" },
      { of: "p95", name: "p95", ink: "--one" },
      { of: "p99", name: "p99", ink: "--three", dash: [5, 3] },
    ],
  },
  drift: {
    title: "Drift: largest score over its threshold",
    lines: [{ of: "drift", name: "score", ink: "--one", fill: true }],
    limit: 1,
    least: 1.15, // so that the threshold is always in the picture
  },
};

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Four digits at most, and no more than an eye needs.
function figure(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toFixed(size < 1e7 ? 2 : 1)} M`;
  if (size >= 10000) return `${(value / 1000).toFixed(1)} k`;
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 0.1 || size === 0) return value.toFixed(2);
  return value.toFixed(3);
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
}

// One chart: `draw(points)` shows a pipeline's trend, a point for every two seconds.
class Chart {
  constructor(holder, kind) {
    this.kind = CHARTS[kind];
    this.plot = holder.querySelector(".plot");
    this.legend = holder.querySelector(".legend");
    this.labels = this.kind.lines.map((line) => this.addLegend(line));
    this.chart = null;
    this.limit = this.kind.limit ?? null;
    this.points = [];
    this.plot.setAttribute("aria-label", `${this.kind.title}: no sample yet.`);
    new ResizeObserver(() => this.resize()).observe(this.plot);
  }

  addLegend(line) {
    const box = document.createElement("span");
    const sign = document.createElement("i");
    sign.style.borderTopColor = `var(${line.ink})`;
    sign.style.borderTopStyle = line.dash ? (line.dash[0] < 4 ? "dotted" : "dashed") : "solid";
    const value = document.createElement("b");
    box.append(sign, `${line.name} `, value);
    this.legend.append(box);
    return { box, value };
  }

  draw(points, limit) {
    this.points = points;
    if (limit !== undefined && limit !== null) this.limit = limit;
    const columns = this.kind.lines.map((line) => points.map((row) => row[POINT[line.of]]));
    this.say(this.points.length - 1);
    this.describe(columns);
    if (columns.every((column) => column.every((value) => value === null))) return;
    const data = [points.map((row) => row[0]), ...columns];
    if (this.chart === null) this.chart = this.create(data);
    else this.chart.setData(data);
  }

  // The legend shows the newest values, or those under the pointer.
  say(index) {
    const row = this.points[index];
    this.kind.lines.forEach((line, at) => {
      const value = row ? row[POINT[line.of]] : null;
      this.labels[at].value.textContent = figure(value);
      this.labels[at].box.hidden = Boolean(line.quiet) && !this.points.some((point) => point[POINT[line.of]]);
    });
  }

  describe(columns) {
    const parts = this.kind.lines.map((line, at) => {
      const known = columns[at].filter((value) => value !== null);
      if (!known.length) return `${line.name} not measured`;
      const range = `between ${figure(Math.min(...known))} and ${figure(Math.max(...known))}`;
      return `${line.name} ${figure(columns[at].at(-1))}, ${range}`;
    });
    const limit = this.limit === null ? "" : ` Limit ${figure(this.limit)}.`;
    this.plot.setAttribute("aria-label", `${this.kind.title}: ${parts.join("; ")}.${limit}`);
  }

  create(data) {
    const axis = {
      stroke: () => ink("--quiet"),
      grid: { stroke: () => ink("--grid"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    const series = this.kind.lines.map((line) => ({
      label: line.name,
      stroke: () => ink(line.ink),
      fill: line.fill ? () => `${ink(line.ink)}1c` : undefined,
      width: 1.5,
      dash: line.dash,
      points: { show: false },
      spanGaps: false,
    }));
    return new uPlot({
      width: this.plot.clientWidth || 300,
      height: this.plot.clientHeight || 132,
      padding: [8, 4, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 } },
      scales: {
        x: { range: (_, low, high) => [Math.max(low, high - MINUTES * 60), high] },
        y: { range: (_, __, high) => [0, this.top(high)] },
      },
      axes: [
        { ...axis, size: 24, space: 70, values: (_, ticks, __, ___, step) => ticks.map((at) => clock(at).slice(0, step < 60 ? 8 : 5)) },
        { ...axis, size: 46, space: 30, values: (_, ticks) => ticks.map((value) => figure(value).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "")) },
      ],
      series: [{}, ...series],
      hooks: {
        draw: [(chart) => this.drawLimit(chart)],
        setCursor: [(chart) => this.say(chart.cursor.idx ?? this.points.length - 1)],
      },
    }, data, this.plot);
  }

  // A limit far above what is measured would press the lines to the ground.
  top(high) {
    const least = this.kind.least ?? 0;
    const seen = Math.max(high || 0, least) * 1.1;
    if (this.limit !== null && this.limit <= seen * 2) return Math.max(seen, this.limit * 1.1);
    return seen || 1;
  }

  drawLimit(chart) {
    if (this.limit === null || this.limit > chart.scales.y.max) return;
    const { ctx, bbox } = chart;
    const y = Math.round(chart.valToPos(this.limit, "y", true));
    ctx.save();
    ctx.strokeStyle = ink("--limit");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    if (this.chart !== null && width > 0 && width !== this.chart.width) this.chart.setSize({ width, height });
  }

  repaint() {
    if (this.chart !== null) this.chart.redraw();
  }
}

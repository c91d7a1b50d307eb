"use strict";
// The board's page: follows /v1/live and writes what it says.
//
// Everything is written as text (textContent), never as markup: model names, labels and
// log fields come from bundles and from the network. An element is touched only if its
// text changes, so a page that stays open costs its browser next to nothing.

const LOST_AFTER_MS = 3000; // the stream ends once a minute on purpose, and begins again
const SILENT_AFTER_MS = 5000; // a state comes every second
const AGAIN_MS = [250, 1000, 2000, 5000];
const HIDDEN_MS = 30000; // nobody looks: let the board alone
const KEPT_POINTS = 450;
const KEPT_EVENTS = 500;
const NOTICES = 3; // shown; the others are folded
const ALL_OPEN = 3; // with more pipelines, cards that need nobody are folded
const LEVELS = { debug: 0, info: 1, warning: 2, error: 3 };
const SIGNS = { debug: "·", info: "i", warning: "▲", error: "✕" };
const STEPS = ["FETCHING", "VERIFYING", "STAGING", "PREFLIGHT", "SHADOWING", "PROBATION", "COMMITTING"];
const RESULTS = { committed: "good", refused: "error", failed: "error", rolled_back: "warning", interrupted: "warning" };

const operator = document.documentElement.dataset.role === "operator";
const byId = (id) => document.getElementById(id);
const cards = new Map();
const trends = new Map();
let newestEvent = 0;
let boardAhead = 0; // the board's clock less ours, in seconds

// --- writing

function write(element, text, level) {
  const shown = text === null || text === undefined ? "" : String(text);
  if (element.textContent !== shown) element.textContent = shown;
  if (level !== undefined && element.dataset.level !== level) element.dataset.level = level;
}

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (className) element.className = className;
  return element;
}

// Builds a list anew only if what it shows has changed.
function fill(element, rows, build) {
  const now = JSON.stringify(rows);
  if (element.dataset.shown === now) return;
  element.dataset.shown = now;
  element.replaceChildren(...rows.map(build));
}

function facts(element, rows) {
  const shown = rows.filter((row) => row[1] !== null && row[1] !== undefined && row[1] !== "");
  const names = JSON.stringify(shown.map((row) => row[0]));
  if (element.dataset.shown !== names) {
    element.dataset.shown = names;
    element.replaceChildren(...shown.flatMap((row) => [make("dt", row[0]), make("dd")]));
  }
  const values = element.querySelectorAll("dd");
  shown.forEach((row, at) => write(values[at], row[1], row[2] ?? ""));
}

function size(bytes) {
  if (!Number.isFinite(bytes)) return "–";
  const units = ["B", "kB", "MB", "GB"];
  let at = 0;
  while (bytes >= 1000 && at < units.length - 1) {
    bytes /= 1000;
    at += 1;
  }
  return `${at && bytes < 100 ? bytes.toFixed(1) : bytes.toFixed(0)} ${units[at]}`;
}

function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

function ago(at) {
  const seconds = Date.now() / 1000 + boardAhead - at;
  return seconds < 0 ? `in ${span(-seconds)}` : seconds < 2 ? "just now" : `${span(seconds)} ago`;
}

function when(at) {
  if (!at) return "";
  const date = new Date(at * 1000);
  const today = new Date().toDateString() === date.toDateString();
  const day = today ? "" : `${date.toLocaleDateString()} `;
  return `${day}${clock(at).slice(0, 5)}`;
}

function moment(at) {
  const element = make("time", when(at));
  if (at) {
    element.dateTime = new Date(at * 1000).toISOString();
    element.title = new Date(at * 1000).toLocaleString();
  }
  return element;
}

const percent = (share) => (share === null || share === undefined ? null : `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`);
const milli = (value) => (value === null || value === undefined ? null : `${figure(value)} ms`);

// --- one pipeline

class Card {
  constructor(name) {
    this.root = byId("pipeline").content.firstElementChild.cloneNode(true);
    this.f = {};
    for (const element of this.root.querySelectorAll("[data-f]")) this.f[element.dataset.f] = element;
    this.root.id = `pipeline-${encodeURIComponent(name)}`;
    this.f.name.id = `${this.root.id}-name`;
    this.root.setAttribute("aria-labelledby", this.f.name.id);
    write(this.f.name, name);
    this.charts = {};
    for (const holder of this.root.querySelectorAll("[data-chart]")) this.charts[holder.dataset.chart] = new Chart(holder, holder.dataset.chart);
    this.name = name;
    this.drawn = -1;
    this.calm = null;
    this.f.more.addEventListener("toggle", () => this.redraw());
    this.f.summary.setAttribute("aria-label", `Details of ${name}`);
    if (operator) this.addActions();
  }

  addActions() {
    const order = JSON.stringify({ pipeline: this.name });
    this.f.actions.append(
      button("Roll back", `Roll back ${this.name}`, `${this.name} goes back to the model before this one, or ends the trial that is under way. What was wanted is held until something else is.`, "POST", "/v1/rollback", order),
      button("New baseline", `Begin the baseline of ${this.name} anew`, `The board forgets what was normal here and learns it again from what comes now. Do this when the place has changed on purpose, not because of an alarm.`, "POST", "/v1/commission", order),
    );
  }

  show(it, readings, few) {
    this.readings = readings;
    this.fold(it.health[1] === "good", few);
    const points = trends.get(it.name) ?? [];
    const newest = points.at(-1);
    this.showHead(it);
    this.showFigures(it, newest);
    this.showStages(it);
    this.showWatch(it.watch);
    this.showLabels(it);
    this.budget = it.budget_ms;
    this.compares = it.watch !== null && (it.watch.compares || it.watch.score !== null);
    if (newest && newest[0] !== this.drawn) this.redraw();
  }

  // What begins to need somebody opens, once: what a person folds stays folded.
  fold(calm, few) {
    this.root.classList.toggle("few", few);
    if (few) this.f.more.open = true;
    else if (this.calm === null || (this.calm && !calm) || this.few) this.f.more.open = !calm;
    this.calm = calm;
    this.few = few;
  }

  redraw() {
    const points = trends.get(this.name) ?? [];
    if (document.hidden || !this.f.more.open || !points.length) return;
    this.drawn = points.at(-1)[0];
    this.charts.rate.draw(points);
    this.charts.latency.draw(points, this.budget);
    this.charts.drift.draw(points);
    const none = this.compares ? "no sample yet" : "nothing to compare with yet";
    const plot = this.charts.drift.plot;
    if (plot.dataset.none !== none) plot.dataset.none = none;
  }

  showHead(it) {
    write(this.f.state, ...it.health);
    const active = it.active;
    write(this.f.model, active ? `${active.model} ${active.version}` : `${it.model}: no model yet`);
    const chosen = active ? `${active.variant} on ${active.executor}` : "";
    write(this.f.how, active ? ` · ${it.runs ? `${it.runs}, standing in for ${chosen}` : chosen}` : "");
    write(this.f.held, it.held ? it.held.text : "", it.held ? it.held.level : "");
    this.f.held.hidden = !it.held;
    const looked = active && active.verified_at ? `, ${when(active.verified_at)} (${ago(active.verified_at)})` : "";
    write(this.f.verified, active ? `Verified: signed by the repository's targets role, bytes hashed again when loaded${looked}. sha256 ${active.sha256.slice(0, 12)}…${it.copy ? ` This model is ${it.copy}.` : ""}${it.integrity ? ` In memory: ${it.integrity}.` : ""}` : "");
    write(this.f.wish, it.ready ? it.wish : `${it.why} ${it.wish}`.trim());
  }

  showFigures(it, newest) {
    const value = (name) => (newest ? newest[POINT[name]] : null);
    for (const name of ["rate", "p50", "p95", "p99"]) write(this.f[name], figure(value(name)));
    write(this.f.budget, it.budget_ms ? `ms, ≤ ${figure(it.budget_ms)}` : "ms");
    this.f.p95.parentElement.dataset.level = it.budget_ms && value("p95") > it.budget_ms ? "error" : "";
    write(this.f.late, it.late === null ? "–" : it.late.toLocaleString());
    const score = it.watch ? it.watch.score : null;
    write(this.f.drift, figure(score));
    write(this.f.compares, score === null ? it.watch && !it.watch.unwatched ? "nothing to compare with yet" : "not watched" : "alarms above 1");
    this.f.drift.parentElement.dataset.level = score !== null && score > 1 ? "warning" : "";
  }

  showStages(it) {
    fill(this.f.stages, it.stages, (stage) => {
      const row = make("tr");
      const head = make("th", stage.stage === "total" ? "whole sample" : stage.stage);
      head.scope = "row";
      row.append(head, ...["p50", "p95", "p99"].map((name) => make("td", figure(stage[name]), "num")));
      return row;
    });
    const lost = Object.entries(it.samples.reasons).map(([reason, count]) => `${count.toLocaleString()} ${reason}`).join(", ");
    facts(this.f.facts, [
      ["samples in", it.samples.in.toLocaleString()],
      ["not answered", lost || "none", it.samples.failed ? "warning" : ""],
      ["source lag", milli(it.lag_ms)],
      ["queue age", milli(it.busy_ms), it.busy_ms > 1000 ? "warning" : ""],
      ["processor", pace(this.readings), this.readings?.throttled.some((row) => row[1]) ? "warning" : ""],
      ["last swap's pause", it.gap_ms ? milli(it.gap_ms) : null],
      ["worker", it.worker.pid ? `pid ${it.worker.pid}, ${size(it.worker.rss_bytes)}` : "none", it.worker.pid ? "" : "warning"],
      ["restarts", it.restarts || null, "warning"],
      ["dropped by sinks", it.sink_dropped || null, "warning"],
    ]);
  }

  showWatch(watch) {
    const alarms = watch ? watch.alarms : [];
    fill(this.f.alarms, alarms, (alarm) => {
      const row = make("li");
      const head = make("span", null, "row");
      head.append(chip(alarm.level === "error" ? "critical" : "warning", alarm.level), moment(alarm.at));
      row.append(head, make("span", alarm.text));
      return row;
    });
    const moved = watch ? watch.moved : [];
    const largest = Math.max(3, ...moved.flatMap((it) => it.features.map((row) => Math.abs(row.shift ?? 0))));
    this.f["features-table"].hidden = !moved.length;
    // A feature stands in both lists where there are two: each says what it is beside.
    const rows = moved.flatMap((it) => [it.beside, ...it.features.map((row) => ({ ...row, largest }))]);
    fill(this.f.features, rows, (row) => (typeof row === "string" ? besideRow(row) : featureRow(row)));
    write(this.f.watch, watchWords(watch));
  }

  showLabels(it) {
    const labels = it.labels;
    const total = labels.reduce((sum, row) => sum + row.count, 0);
    this.f["labels-table"].hidden = !labels.length;
    fill(this.f.labels, labels, (entry) => {
      const row = make("tr");
      const head = make("th", entry.label ?? "all others");
      head.scope = "row";
      const cell = make("td");
      cell.append(bar(0, (100 * entry.count) / total, "bar"));
      row.append(head, cell, make("td", percent(entry.count / total), "num"), make("td", entry.count.toLocaleString(), "num quiet"));
      return row;
    });
    const unnamed = labels.length === 1 && labels[0].label === null;
    const since = it.active ? `of ${it.active.model} ${it.active.version} since the agent began` : "";
    write(this.f["labels-note"], labels.length ? `${total.toLocaleString()} answers ${since}.${unnamed ? " They go by no name here: the model has no labels, or the board is in privacy mode." : ""}` : "No answer yet.");
  }
}

function besideRow(beside) {
  const row = make("tr", null, "beside");
  const head = make("th", `beside ${beside}`);
  head.scope = "rowgroup";
  head.colSpan = 4;
  row.append(head);
  return row;
}

function featureRow(feature) {
  const row = make("tr");
  const head = make("th", feature.feature);
  head.scope = "row";
  const share = (feature.shift ?? 0) / feature.largest;
  const shift = feature.shift === null ? "–" : `${feature.shift > 0 ? "+" : feature.shift < 0 ? "−" : ""}${Math.abs(feature.shift).toFixed(2)}`;
  const cell = make("td");
  cell.append(bar(share < 0 ? 50 + share * 50 : 50, Math.abs(share) * 50, "bar middle"));
  row.append(head, make("td", shift, "num"), cell, make("td", figure(feature.psi), "num"));
  return row;
}

// Beside the latency: a processor that is slowed down makes every model slow.
function pace(readings) {
  const slow = readings.throttled.filter((row) => row[1]).map((row) => row[0].replaceAll("_", " "));
  const parts = [readings.frequency_mhz === null ? null : `${figure(readings.frequency_mhz)} MHz`, readings.throttled.length ? slow.join(", ") || "not throttled" : null];
  return parts.filter((part) => part !== null).join(", ");
}

function watchWords(watch) {
  if (!watch) return "The input of this model is not watched.";
  if (watch.unwatched) return watch.unwatched;
  const parts = watch.anchors.map((anchor) => anchor.text);
  if (!watch.alarms.length && watch.anchors.some((anchor) => anchor.valid)) parts.unshift("No alarm.");
  const every = watch.interval > 1 ? `one sample in ${watch.interval}` : "every sample";
  const cost = watch.share > 0 && watch.share < 0.001 ? "under 0.1 %" : percent(watch.share);
  if (!watch.samples) parts.push("No sample was watched yet.");
  else parts.push(`Watches ${every}, at ${cost} of the time; ${watch.samples.toLocaleString()} so far.`);
  if (watch.accuracy !== null) parts.push(`Estimated share of right answers: ${percent(watch.accuracy)}.`);
  if (watch.repeated) parts.push(`${watch.repeated.toLocaleString()} inputs were the same as the one before.`);
  if (watch.invalid) parts.push(`${watch.invalid.toLocaleString()} inputs were not numbers that a sensor gives.`);
  return parts.join(" ");
}

function chip(text, level) {
  const element = make("span", text, "chip");
  element.dataset.level = level;
  return element;
}

function bar(from, width, className) {
  const holder = make("span", null, className);
  const inner = make("span");
  inner.style.left = `${from}%`;
  inner.style.width = `${width}%`;
  holder.append(inner);
  return holder;
}

// --- the whole board

function showState(state) {
  boardAhead = state.now - Date.now() / 1000;
  for (const it of state.pipelines) addPoints(it.name, it.points);
  showTop(state);
  showNotices(state.notices);
  showPipelines(state.pipelines, state.readings);
  showUpdate(state.update);
  showReadings(state.readings);
}

function showNotices(notices) {
  const rest = notices.slice(NOTICES);
  byId("notices-box").hidden = !notices.length;
  byId("notices-more").hidden = !rest.length;
  write(byId("notices-more").firstElementChild, `and ${rest.length} more`);
  fill(byId("notices"), notices.slice(0, NOTICES), noticeLine);
  fill(byId("notices-rest"), rest, noticeLine);
}

function noticeLine(notice) {
  const line = make("p", null, "notice");
  line.dataset.level = notice.level;
  line.append(make("b", `${SIGNS[notice.level]} ${notice.level}`), notice.text);
  if (notice.since) line.append(" Since ", moment(notice.since), ".");
  return line;
}

function showTop(state) {
  const count = state.pipelines.length;
  const ready = state.pipelines.filter((it) => it.ready).length;
  const warnings = state.notices.filter((notice) => notice.level !== "info").length;
  const troubled = warnings > 0;
  const all = count > 1 ? `all ${count} answer` : "answers";
  const words = !count ? "no pipeline" : ready < count ? `${ready} of ${count} answer` : troubled ? `${all}, ${warnings} to look at` : all;
  const grave = ready < count || state.notices.some((notice) => notice.level === "error");
  write(byId("overall"), words, !count ? "wait" : grave ? "error" : troubled ? "warning" : "good");
  write(byId("board"), state.board);
  write(byId("version"), `agent ${state.version}`);
  const title = `${grave ? "✕ " : troubled ? "▲ " : ""}${state.board || "Tinyward"} · ${words}`;
  if (document.title !== title) document.title = title;
}

function showPipelines(pipelines, readings) {
  const names = pipelines.map((it) => it.name);
  byId("no-pipelines").hidden = names.length > 0;
  for (const [name, card] of cards) {
    if (!names.includes(name)) {
      card.root.remove();
      cards.delete(name);
    }
  }
  for (const it of pipelines) {
    if (!cards.has(it.name)) {
      cards.set(it.name, new Card(it.name));
      byId("pipelines").append(cards.get(it.name).root);
    }
    cards.get(it.name).show(it, readings, names.length <= ALL_OPEN);
  }
  byId("overview").hidden = names.length < 2;
  if (names.length > 1) showOverview(pipelines);
}

function showOverview(pipelines) {
  const rows = pipelines.map((it) => {
    const newest = (trends.get(it.name) ?? []).at(-1) ?? [];
    const model = it.active ? `${it.active.model} ${it.active.version}` : it.model;
    const drift = figure(it.watch ? it.watch.score : null);
    return [it.name, ...it.health, drift, model, figure(newest[POINT.rate]), figure(newest[POINT.p95]), it.late === null ? "–" : it.late.toLocaleString()];
  });
  fill(byId("overview-rows"), rows, (cells) => {
    const row = make("tr");
    const head = make("th");
    head.scope = "row";
    const link = make("a", cells[0]);
    link.href = `#${cards.get(cells[0]).root.id}`;
    link.addEventListener("click", () => {
      cards.get(cells[0]).f.more.open = true;
    });
    head.append(link);
    const state = make("td");
    state.append(chip(cells[1], cells[2]));
    row.append(head, state, make("td", cells[3], "num"), make("td", cells[4]), ...cells.slice(5).map((text) => make("td", text, "num wide")));
    return row;
  });
}

function showUpdate(update) {
  const at = STEPS.indexOf(update.phase);
  fill(byId("steps"), STEPS.map((name, index) => [name, index < at, index === at]), ([name, past, now]) => {
    const item = make("li", name.toLowerCase());
    item.title = name.toLowerCase();
    if (past) item.dataset.past = "";
    if (now) item.setAttribute("aria-current", "step");
    return item;
  });
  write(byId("update-text"), update.text);
  const share = byId("update-share");
  share.hidden = update.share === null;
  if (update.share !== null) share.value = update.share;
  const sources = { tuf: "the signed repository", push: "operators, by push", ddi: "the fleet server (DDI)" };
  facts(byId("update-facts"), [
    ["decided by", sources[update.orchestrator] ?? update.orchestrator],
    ["last look", update.last_look ? `${when(update.last_look)} (${ago(update.last_look)})` : "none yet"],
    ["next look", update.next_look ? ago(update.next_look) : null],
    ["last refusal", update.refusal],
    ...serverFacts(update.server),
  ]);
  fill(byId("reports"), update.reports, (report) => {
    const row = make("li");
    const text = make("span", report.text);
    if (report.reason) text.append(" ", make("code", report.reason));
    row.append(chip(report.result.replaceAll("_", " "), RESULTS[report.result] ?? "wait"), text, moment(report.at));
    return row;
  });
  if (!update.reports.length) write(byId("reports"), "No update has ended on this board yet.");
  showAside(update.aside);
}

// Who orders about this board: where, how long it is silent, what it ordered.
function serverFacts(server) {
  if (!server) return [];
  return [
    ["fleet server", server.url],
    ["last answer", server.last_poll ? `${when(server.last_poll)} (${ago(server.last_poll)})` : "none yet"],
    ["asked again", server.next_poll ? ago(server.next_poll) : "being asked now"],
    ["open order", server.order || "none"],
    ["not told yet", server.untold],
    ["server trouble", server.trouble, "warning"],
  ];
}

function showAside(aside) {
  byId("aside-box").hidden = !aside.length;
  fill(byId("aside"), aside, (entry) => {
    const row = make("li");
    const text = make("span", `${entry.sha256.slice(0, 12)}… since ${when(entry.at)}`);
    row.append(chip(entry.reason, "warning"), text);
    if (operator) row.append(button("Try again", "Let this bundle be tried again", `The bundle ${entry.sha256.slice(0, 12)}… was set aside because of "${entry.reason}". It will be tried again when it is wanted.`, "DELETE", `/v1/quarantine/${entry.sha256}`));
    return row;
  });
}

function showReadings(it) {
  const slow = it.throttled.filter((row) => row[1]).map((row) => row[0].replaceAll("_", " "));
  const traffic = it.received_bytes_per_s === null ? null : `${size(it.received_bytes_per_s)}/s in, ${size(it.sent_bytes_per_s)}/s out`;
  const waited = it.memory_stalled_percent > 0 ? `, waited for in ${figure(it.memory_stalled_percent)} % of the time` : "";
  const worn = Math.max(0, ...it.disk_wear.map((row) => row[1]));
  facts(byId("readings"), [
    ["model", [it.model, it.power_mode].filter(Boolean).join(", ")],
    ["processor", it.cpu_percent === null ? null : `${figure(it.cpu_percent)} % busy, load ${figure(it.load_1min)}`],
    ["clock", it.frequency_mhz === null ? null : `${figure(it.frequency_mhz)} MHz`],
    ["throttled", it.throttled.length ? slow.join(", ") || "no" : "this board does not tell", slow.length ? "warning" : ""],
    ...it.temperatures.slice(0, 6).map(([name, celsius]) => [`${name} temperature`, `${figure(celsius)} °C`, celsius >= 80 ? "warning" : ""]),
    ["memory", it.memory_percent === null ? null : `${figure(it.memory_percent)} % used, ${size(it.memory_available_bytes)} free${waited}`, it.memory_percent > 90 || it.memory_stalled_percent > 10 ? "warning" : ""],
    ["disk", it.disk_percent === null ? null : `${figure(it.disk_percent)} % used, ${size(it.disk_free_bytes)} free`, it.disk_percent > 90 ? "warning" : ""],
    ["disk's life", worn ? `up to ${percent(worn)} used` : null, worn >= 0.8 ? "warning" : ""],
    ["time", it.clock_synchronised === null ? null : it.clock_synchronised ? "synchronised" : "kept by nobody", it.clock_synchronised === false ? "warning" : ""],
    ["network", traffic],
    ["receipts", it.receipts, /lost|aside|not written/.test(it.receipts ?? "") ? "warning" : ""],
    ["paid for", it.paid],
    ["agent", it.daemon_rss_bytes ? `${size(it.daemon_rss_bytes)} of memory` : null],
    ...Object.entries(it.engines).map(([name, version]) => ["engine", `${name} ${version}`]),
  ]);
}

// --- trends and events

function addPoints(name, points) {
  const kept = trends.get(name) ?? [];
  const last = kept.length ? kept.at(-1)[0] : 0;
  // A board whose clock was set back begins its pictures anew.
  if (points.length && points.at(-1)[0] < last - 60) kept.length = 0;
  kept.push(...points.filter((point) => !kept.length || point[0] > last));
  kept.splice(0, Math.max(0, kept.length - KEPT_POINTS));
  trends.set(name, kept);
}

function addEvents(events) {
  const list = byId("events");
  for (const event of events) {
    newestEvent = event.id;
    const row = make("li");
    const level = make("span", `${SIGNS[event.level] ?? ""} ${event.level}`, "level");
    level.dataset.level = event.level;
    const time = make("time", clock(event.at));
    time.dateTime = new Date(event.at * 1000).toISOString();
    time.title = new Date(event.at * 1000).toLocaleString();
    const fields = Object.entries(event.fields).filter((row) => row[1] !== "").map(([key, value]) => `${key}=${value}`).join("  ");
    row.dataset.level = event.level;
    row.dataset.story = event.story;
    const line = make("details");
    const summary = make("summary", event.text);
    line.append(summary, make("code", event.name), make("span", ` ${fields}`, "fields"));
    row.append(time, level, line);
    // The phases of an update are one line, the newest: they push no alarm away.
    const before = event.story && list.querySelector(`li[data-story="${CSS.escape(event.story)}"]`);
    if (before) before.remove();
    list.prepend(row);
  }
  while (list.children.length > KEPT_EVENTS) list.lastElementChild.remove();
  filterEvents();
}

function filterEvents() {
  const least = LEVELS[byId("events-level").value];
  let shown = 0;
  for (const row of byId("events").children) {
    row.hidden = LEVELS[row.dataset.level] < least;
    shown += row.hidden ? 0 : 1;
  }
  byId("no-events").hidden = shown > 0;
}

// --- orders of an operator

function button(text, title, words, method, path, body) {
  const element = make("button", text);
  element.type = "button";
  element.setAttribute("aria-label", title);
  element.addEventListener("click", () => ask({ title, words, method, path, body }));
  return element;
}

function ask(order) {
  write(byId("ask-title"), `${order.title}?`);
  write(byId("ask-text"), order.words);
  write(byId("ask-answer"), "");
  const yes = byId("ask-yes");
  yes.hidden = false;
  yes.disabled = false;
  yes.onclick = () => send(order);
  byId("ask").showModal();
  byId("ask-no").focus(); // the harmless one
}

async function send(order) {
  const yes = byId("ask-yes");
  yes.disabled = true;
  try {
    const headers = order.body ? { "Content-Type": "application/json" } : {};
    const answer = await fetch(order.path, { method: order.method, headers, body: order.body });
    if (answer.ok) {
      byId("ask").close();
      return;
    }
    const problem = await answer.json();
    write(byId("ask-answer"), `Not done: ${problem.detail}. ${problem.todo}`);
  } catch {
    write(byId("ask-answer"), "Not done, or not known: the board did not answer.");
  }
  yes.hidden = true;
}

// --- the connection

class Stream {
  constructor() {
    this.source = null;
    this.failures = 0;
    this.heardAt = 0;
    this.waits = 0;
    setInterval(() => this.judge(), 1000);
  }

  open() {
    this.close();
    const points = [...trends.values()].map((kept) => (kept.length ? kept.at(-1)[0] : 0));
    const since = points.length ? Math.floor(Math.min(...points)) : 0;
    this.source = new EventSource(`/v1/live?after=${newestEvent}&since=${since}`);
    this.source.addEventListener("trend", (event) => {
      const row = JSON.parse(event.data);
      addPoints(row.pipeline, row.points);
    });
    this.source.addEventListener("state", (event) => {
      this.hear();
      showState(JSON.parse(event.data));
    });
    this.source.addEventListener("events", (event) => addEvents(JSON.parse(event.data)));
    this.source.addEventListener("error", () => this.again());
  }

  close() {
    clearTimeout(this.waits);
    if (this.source !== null) this.source.close();
    this.source = null;
  }

  again() {
    this.close();
    if (document.hidden && this.paused) return;
    const pause = AGAIN_MS[Math.min(this.failures, AGAIN_MS.length - 1)];
    this.failures += 1;
    this.waits = setTimeout(() => this.open(), pause);
  }

  hear() {
    this.failures = 0;
    this.heardAt = performance.now();
    this.judge();
  }

  // Says honestly how old what is shown is.
  judge() {
    const silent = performance.now() - this.heardAt;
    const late = this.source === null || this.source.readyState !== 1 ? LOST_AFTER_MS : SILENT_AFTER_MS;
    const never = this.heardAt === 0;
    const lost = silent > late;
    document.body.classList.toggle("lost", lost && !never);
    if (this.paused) write(byId("link-text"), "paused while hidden");
    else if (!lost && !never) write(byId("link-text"), "live");
    else if (never && silent < LOST_AFTER_MS) write(byId("link-text"), "connecting");
    else write(byId("link-text"), never ? "no connection; trying again" : `connection lost; this is ${span(silent / 1000)} old`);
    byId("link").dataset.level = never && silent < LOST_AFTER_MS ? "wait" : lost || never ? "error" : "good";
    if (lost && !never && this.source !== null && this.source.readyState === 1) this.again();
  }

  follow() {
    let timer = 0;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(timer);
      if (document.hidden) {
        timer = setTimeout(() => {
          this.paused = true;
          this.close();
        }, HIDDEN_MS);
      } else if (this.paused) {
        this.paused = false;
        this.open();
      }
    });
    this.open();
  }
}

byId("events-level").addEventListener("change", filterEvents);
byId("ask-no").addEventListener("click", () => byId("ask").close());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const card of cards.values()) for (const chart of Object.values(card.charts)) chart.repaint();
});
if (operator) byId("update-actions").append(button("Look now", "Look for updates now", "The board asks its repository and its inbox what should run, now instead of at the next look.", "POST", "/v1/updates"));
new Stream().follow();

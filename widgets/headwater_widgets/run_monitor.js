// Runs as they happen. The kernel sends the whole state; only what says something else is drawn again.

const STATES = {
  idle: ["idle", ""], running: ["running", "running"], pausing: ["pausing", "running"],
  paused: ["paused", ""], stopping: ["stopping", "running"],
};
const MODES = [["run", "Run once: load what is new, catch up"], ["follow", "Follow: go on until stopped"], ["full", "Full: read all tables again"]];
const WIDTH = 400;
const HEIGHT = 80;
// Seconds between two points that belong to different runs.
const GAP = 4;

function render({ model, el }) {
  const send = (message) => model.send(message);
  const ui = frame(el, "Runs");
  const pill = h("span", { class: "hw-pill" });
  ui.chip.replaceWith(pill);
  const mode = h("select", { class: "hw-input", "aria-label": "what to run" }, MODES.map(([value, text]) => h("option", { value }, text)));
  const start = button("Start", "hw-primary", () => {
    ui.complain("");
    send({ kind: "start", mode: mode.value });
  });
  const pause = button("Pause", "", () => send({ kind: pause.textContent === "Pause" ? "pause" : "resume" }));
  const stop = button("Stop", "hw-danger", () => send({ kind: "stop" }));
  const tools = h("div", { class: "hw-tools" }, mode, start, pause, stop);
  const tiles = h("div", { class: "hw-tiles" });
  const charts = h("div", { class: "hw-charts" });
  const messages = h("div", { class: "hw-block" });
  const progress = h("div", { class: "hw-block" });
  const history = h("div", { class: "hw-block" });
  ui.body.append(tools, tiles, charts, messages, progress, history);
  let state = "idle";

  function button(text, kind, onclick) {
    return h("button", { class: `hw-button ${kind}`, onclick }, text);
  }

  function show(said) {
    state = said.state;
    const running = state !== "idle" && state !== "paused";
    const failed = !running && said.failure;
    const [word, kind] = STATES[state];
    pill.textContent = failed ? "failed" : running ? `${said.mode}: ${word}` : word;
    pill.className = `hw-pill hw-pill-${failed ? "failed" : kind}`;
    say(said, running);
    start.disabled = running;
    mode.disabled = running;
    pause.disabled = !(state === "running" || state === "paused");
    pause.textContent = state === "paused" ? "Resume" : "Pause";
    stop.disabled = state === "idle" || state === "pausing";
    stop.textContent = state === "stopping" ? "Stop now" : "Stop";
    refresh(tiles, tileTexts(said, running), (all) => all.map(tile));
    refresh(charts, said.points, (points) => [
      chart("rows per second into the raw log", points.map((p) => [p[0], p[1]]), compact, ""),
      chart("lag behind the source", points.map((p) => [p[0], p[3]]), span, "hw-chart-lag"),
    ]);
    refresh(messages, problems(said), showMessages);
    refresh(progress, [said.tables, said.counts, running ? said.loading : {}], showProgress);
    refresh(history, said.pulse ? said.pulse.runs : [], showHistory);
  }

  // One short line for eyes and screen readers; it changes with the state, not with every figure.
  function say(said, running) {
    const other = said.pulse && said.pulse.holder && !running ? `run by ${said.pulse.holder}` : "";
    const last = said.pulse && said.pulse.runs[0];
    const text = running ? said.stage || "working" : other || (last ? `last run ${last[2]}` : "not run yet");
    if (ui.status.textContent !== text) ui.status.textContent = text;
  }

  function tileTexts(said, running) {
    const pulse = said.pulse || {};
    const wal = pulse.wal;
    const lag = said.lag === null ? "–" : said.lag === 0 ? "none" : running ? span(said.lag) : span(Math.floor(said.lag));
    const held = wal ? bytes(wal.retained_bytes) : "–";
    const room = !wal ? (said.away || pulse.away ? "the source cannot be asked" : "nothing is kept for us yet")
      : wal.room_bytes === null ? "no bound is known" : `room for ${bytes(Math.max(0, wal.room_bytes))} more${wal.seconds === null ? "" : `, for ${span(wal.seconds)}`}`;
    const share = wal && wal.room_bytes !== null ? wal.retained_bytes / Math.max(1, wal.retained_bytes + Math.max(0, wal.room_bytes)) : null;
    return [
      ["Rows per second", compact(said.speed), `${number(said.counts[1])} rows of ${plural(said.counts[0], "table")}`, null, ""],
      ["Lag", lag, pulse.behind === null || pulse.behind === undefined ? "" : pulse.behind === 0 ? "the raw log holds all of it" : `${bytes(pulse.behind)} of log not in the raw log`, null, ""],
      ["Log the source keeps for us", held, room, share, wal ? wal.level : ""],
      ["Raw log", pulse.entries ? plural(pulse.entries, "entry", "entries") : "empty", pulse.position ? `at ${pulse.position}` : "not run yet", null, ""],
    ];
  }

  function tile([name, value, more, share, level]) {
    const meter = share === null ? null : h("div", { class: `hw-meter hw-meter-${level}`, role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(share * 100) },
      h("div", { style: `width:${Math.min(100, share * 100).toFixed(1)}%` }));
    return h("div", { class: "hw-tile" }, h("div", { class: "hw-tile-name" }, name), h("div", { class: "hw-tile-value" }, value), h("div", { class: "hw-tile-more", title: printable(more) }, printable(more)), meter);
  }

  // Both charts over the same time, the lines broken where nothing ran.
  function chart(title, points, text, kind) {
    const [first, last] = points.length ? [points[0][0], points[points.length - 1][0]] : [0, 1];
    const known = points.filter((p) => p[1] !== null);
    const highest = Math.max(...known.map((p) => p[1]), 0);
    const x = (at) => (((at - first) / Math.max(1, last - first)) * WIDTH).toFixed(1);
    const y = (value) => (HEIGHT - (value / (highest || 1)) * (HEIGHT - 6)).toFixed(1);
    const runs = [];
    for (const point of known) {
      const run = runs[runs.length - 1];
      if (run && point[0] - run[run.length - 1][0] < GAP) run.push(point);
      else runs.push([point]);
    }
    const newest = known.length ? text(known[known.length - 1][1]) : "–";
    const label = known.length ? `${title}: now ${newest}, at most ${text(highest)} in the last ${span(last - first)}` : `${title}: no figures yet`;
    const lines = [0, 0.5, 1].map((part) => h("svg:line", { class: "hw-chart-grid", x1: 0, x2: WIDTH, y1: y(highest * part), y2: y(highest * part) }));
    const drawn = runs.filter((run) => run.length > 1).flatMap((run) => {
      const line = run.map(([at, value]) => `${x(at)},${y(value)}`).join(" ");
      return [h("svg:polygon", { class: "hw-chart-area", points: `${x(run[0][0])},${HEIGHT} ${line} ${x(run[run.length - 1][0])},${HEIGHT}` }),
        h("svg:polyline", { class: "hw-chart-line", points: line })];
    });
    const svg = h("svg:svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, lines, drawn);
    const foot = known.length > 1 ? [`at most ${text(highest)}`, `last ${span(last - first)}`] : ["starts with a run", ""];
    return h("div", { class: `hw-chart ${kind}` },
      h("div", { class: "hw-row" }, h("span", { class: "hw-tile-name" }, title), h("b", { style: "margin-left:auto" }, known.length ? newest : "")),
      svg, h("div", { class: "hw-row hw-says" }, foot[0], h("span", { style: "margin-left:auto" }, foot[1])));
  }

  // What needs somebody: the run's failure, the log that fills up, what was said on the way.
  function problems(said) {
    const found = [];
    if (said.failure) found.push(["error", ...said.failure]);
    if (said.away) found.push(["error", said.away, ""]);
    const wal = said.pulse && said.pulse.wal;
    if (wal && wal.says) found.push([wal.level === "critical" ? "error" : "warn", wal.says, wal.hint]);
    if (said.pulse && said.pulse.away) found.push(["warn", said.pulse.away, "headwater check"]);
    const texts = new Set(found.map((f) => f[1]));
    return [...found, ...said.messages.filter((m) => !texts.has(m.text)).slice(0, 6).map((m) => [m.level, m.text, m.hint])];
  }

  function showMessages(all) {
    if (!all.length) return [];
    return h("div", { class: "hw-messages", role: "log" }, all.map(([level, text, hint]) => problem(text, hint, level)));
  }

  function showProgress([tables, [count], loading]) {
    if (!tables.length) return [];
    const more = loading.tables > loading.loaded ? ` · ${number(loading.loaded)} of ${plural(loading.tables, "table")} loaded` : "";
    return [h("h4", {}, `Tables in this run: ${number(count)}${more}`), h("div", { class: "hw-scroll", tabindex: "0", role: "list", "aria-label": "tables in this run" }, tables.map(oneTable))];
  }

  function oneTable([name, phase, rows, total, size, eta, lake]) {
    const known = phase === "loading" && total > 0;
    const share = phase === "loading" ? (known ? Math.min(0.99, rows / total) : 0.5) : 1;
    const kind = phase === "failed" ? "hw-bar-failed" : phase === "in the lake" ? "hw-bar-done" : "";
    const [inserted, updated, deleted] = lake;
    const done = phase === "in the lake" ? ["+" + compact(inserted), "~" + compact(updated), "−" + compact(deleted)].join(" ") : "";
    const of = known && total > rows ? ` of ~${compact(total)}` : "";
    const said = [`${compact(rows)}${of} rows`, size ? bytes(size) : "", eta === null ? "" : `${span(eta)} left`, phase, done].filter(Boolean).join(" · ");
    return h("div", { class: "hw-progress", role: "listitem" },
      h("span", { class: "hw-name", title: printable(name) }, h("bdi", {}, printable(name))),
      h("div", { class: `hw-bar ${kind}`, role: "progressbar", "aria-label": printable(name), "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": known || phase !== "loading" ? Math.round(share * 100) : undefined },
        h("div", { style: `width:${(share * 100).toFixed(0)}%` })),
      h("span", { class: "hw-soft" }, said));
  }

  function showHistory(runs) {
    if (!runs.length) return [];
    const head = h("tr", {}, ...[["began", ""], ["mode", ""], ["outcome", ""], ["took", "hw-right"], ["tables", "hw-right"], ["rows", "hw-right"], ["models", "hw-right"], ["said", ""]].map(([text, kind]) => h("th", { scope: "col", class: kind }, text)));
    return [h("h4", {}, "History"), h("div", { class: "hw-scroll", tabindex: "0" }, h("table", { class: "hw-history" }, h("thead", {}, head), h("tbody", {}, runs.map(oneRun))))];
  }

  function oneRun([, runMode, outcome, began, seconds, tables, rows, models, error, hint, warnings]) {
    const right = (text) => h("td", { class: "hw-right" }, text);
    const said = error ? [error, hint ? ` · try: ${hint}` : ""].join("") : warnings.join("; ");
    return h("tr", {}, h("td", {}, new Date(began * 1000).toLocaleString()), h("td", {}, runMode),
      h("td", {}, h("span", { class: `hw-pill hw-pill-${outcome}` }, outcome)), right(span(seconds)), right(number(tables)), right(number(rows)), right(models ? number(models) : ""),
      h("td", { class: "hw-soft" }, printable(said)));
  }

  const heard = { state: show, failed: (said) => ui.complain(said.message, said.hint) };
  const hear = (message) => heard[message.kind]?.(message);
  model.on("msg:custom", hear);
  // The source is asked only while somebody can see the answer.
  const seen = setInterval(() => !document.hidden && el.isConnected && send({ kind: "seen" }), 10000);
  send({ kind: "ready" });
  return () => {
    clearInterval(seen);
    model.off("msg:custom", hear);
  };
}

export default { render };

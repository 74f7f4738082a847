// How data was judged. The kernel sends the newest judgement of each table, the worst first.

const VERDICTS = { ok: "all right", warn: "warnings", failed: "failed" };
const OUTCOMES = { passed: "passed", failed: "failed", unjudged: "could not be judged", skipped: "skipped" };
// Tables beyond are found with the filter.
const SHOWN = 100;

function render({ model, el }) {
  const send = (message) => model.send(message);
  const ui = frame(el, "Data quality");
  const search = h("input", { class: "hw-input hw-search", type: "search", placeholder: "table, column or rule", "aria-label": "Filter" });
  const only = h("select", { class: "hw-input", "aria-label": "which tables" },
    [["all", "all tables"], ["wrong", "failed and warnings"], ["failed", "failed"], ["held", "held back"]].map(([v, t]) => h("option", { value: v }, t)));
  const judge = button("Judge now", "hw-primary", () => ask({ kind: "judge" }));
  const full = button("Judge all rows", "", () => ask({ kind: "judge", full: true }));
  const report = button("Open report", "", () => send({ kind: "open" }));
  const again = button("Reload", "", () => ask({ kind: "reload" }));
  const trend = h("div", { class: "hw-trend" });
  const list = h("div", { class: "hw-judged", tabindex: "0", "aria-label": "tables" });
  ui.body.append(h("div", { class: "hw-tools" }, search, only, judge, full, report, again), trend, list);
  const opened = new Map();
  let state = { tables: [], trend: [], count: 0, at: null, busy: false };

  function button(text, kind, onclick) {
    return h("button", { class: `hw-button ${kind}`, onclick }, text);
  }

  function ask(message) {
    ui.complain("");
    send(message);
  }

  function show() {
    const failed = state.tables.filter((t) => t.verdict === "failed").length;
    const warned = state.tables.filter((t) => t.verdict === "warn").length;
    const held = state.tables.filter((t) => t.held).length;
    const verdict = failed ? "failed" : warned ? "warn" : "ok";
    ui.chip.textContent = state.at === null ? "" : VERDICTS[verdict];
    const at = state.at === null ? "not judged yet" : `judged ${new Date(state.at * 1000).toLocaleString()}`;
    const counts = [[failed, "failed"], [warned, "with warnings"], [held, "held back"]].filter(([n]) => n).map(([n, t]) => `${number(n)} ${t}`);
    const found = state.tables.filter(fits);
    const shown = search.value || only.value !== "all" ? `${number(found.length)} shown` : "";
    say(state.busy ? "judging" : [plural(state.count, "table"), ...counts, shown, at].filter(Boolean).join(", "));
    for (const each of [judge, full]) each.disabled = state.busy;
    report.disabled = state.at === null;
    refresh(trend, state.trend, (points) => points.length < 2 ? [] : [bars(points.map((p) => [p[1], p[2]]), 360, 36, `the last ${points.length} judgements, ${points.filter((p) => p[1]).length} with failures`)]);
    refresh(list, [found.slice(0, SHOWN), found.length], ([tables, all]) => [
      ...tables.map(table),
      all > SHOWN ? h("div", { class: "hw-empty" }, `${number(all - SHOWN)} more; filter to see them`) : "",
      all ? "" : h("div", { class: "hw-empty" }, state.at === null ? "headwater quality, or Judge now" : "no table fits"),
    ]);
  }

  function say(text) {
    if (ui.status.textContent !== text) ui.status.textContent = text;
  }

  function fits(t) {
    const text = search.value.trim().toLowerCase();
    const kind = only.value;
    if (kind === "held" ? !t.held : kind === "failed" ? t.verdict !== "failed" : kind === "wrong" ? t.verdict === "ok" : false) return false;
    return !text || t.name.toLowerCase().includes(text) || t.checks.some((c) => `${c[2]} ${c[3]} ${c[4]}`.toLowerCase().includes(text));
  }

  function table(t) {
    const open = opened.get(t.name) ?? t.verdict !== "ok";
    const spark = t.trend.length > 1 ? bars(t.trend, 90, 16, `the last ${t.trend.length} judgements of ${printable(t.name)}`) : null;
    const what = t.scope === "table" ? "all rows" : "what came";
    const details = h("details", { open },
      h("summary", {}, h("b", {}, printable(t.name)), badge(t.verdict, VERDICTS[t.verdict]), t.held ? badge("failed", "held back") : null, spark,
        h("span", { class: "hw-figure" }, `${plural(t.rules, "rule")} over ${plural(t.rows, "row")} (${what})`)),
      h("table", { class: "hw-columns" },
        h("thead", {}, h("tr", {}, ["result", "rule", "columns", "wrong"].map((x) => h("th", { scope: "col" }, x)))),
        h("tbody", {}, t.checks.map(check))));
    details.addEventListener("toggle", () => opened.set(t.name, details.open));
    return details;
  }

  function check([kind, outcome, says, rule, columns, wrong, rows, keys, why]) {
    const of = outcome === "passed" || outcome === "failed" ? `${number(wrong)} of ${number(rows)}` : "";
    const word = kind === "warn" && outcome === "failed" ? "warning" : OUTCOMES[outcome];
    return h("tr", {}, h("td", {}, badge(kind, word)),
      h("td", {}, printable(says), h("div", { class: "hw-says" }, h("code", {}, printable(rule))),
        why ? h("div", { class: "hw-says" }, printable(why)) : null,
        keys.length ? h("div", { class: "hw-says" }, "rows: ", h("code", {}, keys.map(printable).join(" · "))) : null),
      h("td", {}, printable(columns)), h("td", {}, of));
  }

  function badge(kind, text) {
    return h("span", { class: `hw-verdict hw-verdict-${kind}` }, text);
  }

  function bars(counts, width, height, label) {
    const step = Math.min(width / counts.length, 12);
    const most = Math.max(1, ...counts.map(([f, w]) => f + w));
    return h("svg:svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
      counts.map(([f, w], n) => {
        const tall = Math.max(2, ((f + w) / most) * (height - 2));
        return h("svg:rect", { class: `hw-bar-${f ? "failed" : w ? "warn" : "ok"}`, x: n * step, y: height - tall, width: Math.max(step - 1, 0.5), height: tall });
      }));
  }

  function open(html) {
    const url = URL.createObjectURL(new Blob([html], { type: "text/html" }));
    window.open(url, "_blank", "noopener");
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  }

  search.addEventListener("input", show);
  only.addEventListener("change", show);
  const heard = {
    state: (said) => {
      state = said;
      show();
    },
    page: (said) => open(said.html),
    failed: (said) => ui.complain(said.message, said.hint),
  };
  const hear = (message) => heard[message.kind]?.(message);
  model.on("msg:custom", hear);
  show();
  send({ kind: "ready" });
  return () => model.off("msg:custom", hear);
}

export default { render };

// One key through time: its changes, the row after each of them, and the table as it was then.

const OPS = { read: "read by a full load", insert: "insert", update: "update", delete: "delete", truncate: "truncate" };
// Changed columns that a line of the list names.
const NAMED = 3;

function render({ model, el }) {
  const send = (message) => model.send(message);
  const ui = frame(el, "Row");
  const state = { table: null, fields: [], called: {}, masked: new Set(), steps: [], first: 0, at: 0, asked: new Map(), page: null };
  let asks = 0;

  const choice = tableChoice((index) => send({ kind: "choose", index }));
  const inputs = h("span", { class: "hw-row" });
  const explain = h("button", { class: "hw-button hw-primary", type: "submit" }, "Explain");
  const form = h("form", { class: "hw-row hw-key", "aria-label": "key", hidden: true, onsubmit: (event) => {
    event.preventDefault();
    ask([...inputs.querySelectorAll("input")].map((input) => input.value));
  } }, inputs, explain);
  const offered = h("div", { class: "hw-row hw-offered", role: "group", "aria-label": "keys of rows that changed last", hidden: true });
  const note = h("div", { class: "hw-block hw-empty" }, "Choose a table, then a key.");
  const list = h("div", { class: "hw-steps", role: "listbox", tabindex: "0", "aria-label": "changes, in their order" });
  const slider = h("input", { type: "range", min: "0", step: "1", class: "hw-slider", "aria-label": "version of the row", oninput: () => select(Number(slider.value)) });
  const moment = h("div", { class: "hw-moment" });
  const row = h("div", {});
  const facts = h("dl", { class: "hw-facts" });
  const right = h("div", { class: "hw-right", role: "region", "aria-label": "the row after a change" }, moment, slider, row, facts);
  const story = h("div", { class: "hw-split hw-story", hidden: true }, h("div", { class: "hw-left" }, list), right);
  const when = h("input", { class: "hw-input", type: "text", "aria-label": "moment, in UTC", placeholder: "2026-05-01 12:00", spellcheck: "false", autocomplete: "off" });
  const rows = h("div", { class: "hw-scroll hw-wide", tabindex: "0", role: "region", "aria-label": "rows of the table" });
  const pager = h("span", { class: "hw-row" });
  const title = h("h4", {});
  const whenForm = h("form", { class: "hw-row", onsubmit: (event) => (event.preventDefault(), browse(when.value)) }, when,
    h("button", { class: "hw-button", type: "submit" }, "Show the table then"),
    h("button", { class: "hw-button", type: "button", onclick: () => browse((when.value = "")) }, "Now"));
  const table = h("div", { class: "hw-block", hidden: true }, title, h("div", { class: "hw-row" }, whenForm, pager), rows);
  const copy = h("div", { class: "hw-block" });
  ui.body.append(h("div", { class: "hw-tools" }, choice.box, form), offered, note, story, table, copy);

  function ask(fields) {
    ui.complain("");
    send({ kind: "explain", key: fields });
  }

  function browse(at, first = 0) {
    ui.complain("");
    send({ kind: "page", moment: at, first });
  }

  function explainKey(key) {
    // In one text, as it is offered: the kernel reads it.
    ask([key, ...state.fields.slice(1).map(() => "")]);
  }

  // The changes.

  function line(step, n) {
    const named = step.changes.slice(0, NAMED).map(([name, before, after]) => h("div", { class: "hw-change" }, h("span", { class: "hw-soft" }, h("bdi", {}, called(name)), " "),
      step.op === "update" || step.note.startsWith("the key was") ? [plainCell(before), " → "] : null, plainCell(step.op === "delete" || step.op === "truncate" ? before : after)));
    const rest = step.changed - NAMED;
    return h("div", { id: `${id}-${n}`, class: "hw-step", role: "option", "aria-selected": "false", onclick: () => select(n) },
      h("div", { class: "hw-row" }, h("span", { class: `hw-pill hw-op-${step.op}` }, step.op), h("span", {}, step.at || "no time"),
        step.waits ? h("span", { class: "hw-tag hw-tag-warn", title: printable(step.waits) }, "in quarantine") : null),
      step.note || step.key !== state.key ? h("div", { class: "hw-says" }, [printable(step.note), step.key !== state.key ? `as ${printable(step.key)}` : ""].filter(Boolean).join(" · ")) : null,
      step.op === "update" || step.note.startsWith("the key was") ? named : null,
      step.op === "update" && rest > 0 ? h("div", { class: "hw-says" }, `and ${plural(rest, "column")} more`) : null);
  }

  // A value in a line of the list.
  function plainCell(cell) {
    if (!cell || cell[0] === null || cell[0] === "") return cellView(cell);
    const short = [...printable(cell[0])].slice(0, 40).join("");
    return h("bdi", { class: "hw-short" }, short.length < cell[0].length || cell[1] > 40 ? `${short}…` : short);
  }

  function showSteps(said) {
    Object.assign(state, { steps: said.steps, first: said.first, key: said.key, asked: new Map() });
    const found = said.steps.length > 0;
    [...inputs.querySelectorAll("input")].forEach((input, n) => {
      if (said.key) input.value = said.fields[n] ?? "";
    });
    note.hidden = found || !said.key;
    note.textContent = said.key ? `${state.name} has never had the key ${printable(said.key)}.` : "";
    story.hidden = !found;
    showCopies(said.copy);
    list.replaceChildren(said.first ? h("div", { class: "hw-says hw-older" }, `${number(said.first)} older changes: headwater explain shows them`) : "", ...said.steps.map(line));
    slider.max = String(Math.max(0, said.steps.length - 1));
    slider.disabled = said.steps.length < 2;
    status(said.key ? (found ? plural(said.first + said.steps.length, "change") : "never there") : "");
    if (found) select(said.steps.length - 1);
  }

  function select(n) {
    const step = state.steps[n];
    if (!step) return;
    state.at = n;
    slider.value = String(n);
    const which = `version ${n + 1 + state.first} of ${state.steps.length + state.first}`;
    slider.setAttribute("aria-valuetext", `${which}: ${step.op}, ${step.at}`);
    moment.replaceChildren(h("b", {}, which), h("span", { class: "hw-soft" }, ` ${OPS[step.op]} · ${step.at || "no time"}`));
    for (const option of list.querySelectorAll("[aria-selected='true']")) option.setAttribute("aria-selected", "false");
    const now = list.querySelector(`[id='${id}-${n}']`);
    now.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", now.id);
    // Only the list scrolls, not the notebook.
    if (now.offsetTop < list.scrollTop) list.scrollTop = now.offsetTop;
    const beyond = now.offsetTop + now.offsetHeight - list.clientHeight;
    if (beyond > list.scrollTop) list.scrollTop = beyond;
    showFacts(step);
    send({ kind: "row", step: state.first + n });
  }

  list.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    select(Math.min(state.steps.length - 1, Math.max(0, state.at + steps[event.key])));
  });

  function showFacts(step) {
    const lake = step.version === null ? "not in the lake yet" : `version ${step.version} of its changes`;
    const built = step.warehouse === "built" ? (step.run ? `run ${step.run}, ${step.built}` : "built; the record of that run is gone") : step.warehouse || "no build is known";
    const all = [["position", step.position], ["transaction", step.tx], ["entry of the raw log", number(step.entry)], ["raw file", step.file],
      ["lake", step.waits ? `in quarantine: ${step.waits}` : lake], ["warehouse", built]];
    facts.replaceChildren(...all.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, h("bdi", {}, printable(text || "–")))]));
  }

  // The row after a change: what changed stands first in weight, not in place.
  function showRow(said) {
    if (said.step !== state.first + state.at) return;
    const step = state.steps[state.at];
    const whole = (column, side) => (put) => {
      state.asked.set(++asks, put);
      send({ kind: "cell", step: said.step, column, side, ask: asks });
    };
    const gone = said.gone ? h("div", { class: "hw-note" }, step.note === "the key changes" ? "From here on the row has another key." : said.cells.length ? "The row is gone; it was:" : "The row is gone.") : null;
    const body = said.cells.map(([name, now, changed, was]) => h("tr", changed ? { class: "hw-changed" } : {},
      h("th", { scope: "row" }, h("bdi", { title: printable(name) }, called(name)), state.masked.has(name) ? h("span", { class: "hw-tag hw-tag-accent", title: "masked before it was stored" }, "masked") : null),
      h("td", {}, cellView(now, whole(name, said.gone ? "before" : "row"))),
      h("td", {}, changed ? cellView(was, whole(name, "before")) : "")));
    const head = h("tr", {}, ...["column", "value", "before"].map((text) => h("th", { scope: "col" }, text)));
    row.replaceChildren(...[gone, body.length ? h("table", { class: "hw-columns hw-rowview" }, h("thead", {}, head), h("tbody", {}, body)) : null].filter(Boolean),
      h("div", { class: "hw-row" }, state.steps[state.at].moment ? h("button", { class: "hw-button hw-quiet", onclick: () => browse((when.value = step.moment)) }, "The table as of this moment") : ""));
  }

  // The table.

  function showPage(said) {
    const keyed = state.fields.length > 0;
    table.hidden = false;
    whenForm.hidden = !keyed;
    const last = said.first + said.rows.length;
    title.textContent = !keyed ? "its newest changes" : said.moment ? `the table as of ${said.moment}, in UTC` : "the table now";
    const move = (text, first, off) => h("button", { class: "hw-button hw-quiet", disabled: off, onclick: () => browse(said.moment || "", first) }, text);
    pager.replaceChildren(h("span", { class: "hw-soft" }, said.count ? `${number(said.first + 1)}–${number(last)} of ${plural(said.count, keyed ? "row" : "change")}` : "no rows"),
      move("Previous", Math.max(0, said.first - said.most), said.first === 0), move("Next", said.first + said.most, last >= said.count));
    const head = h("tr", {}, keyed ? h("th", { scope: "col" }, "key") : null, ...said.columns.map((name) => h("th", { scope: "col" }, h("bdi", { title: printable(name) }, called(name)))));
    rows.replaceChildren(h("table", { class: "hw-history" }, h("thead", {}, head), h("tbody", {}, said.rows.map((cells, n) => h("tr", {},
      keyed ? h("td", {}, h("button", { class: "hw-button hw-quiet", "aria-label": `explain ${printable(said.keys[n])}`, onclick: () => explainKey(said.keys[n]) }, "Explain")) : null,
      ...cells.map((cell) => h("td", {}, cellView(cell))))))));
    status(`${plural(said.count, keyed ? "row" : "change")}${said.moment ? ` at ${said.moment}` : ""}`);
  }

  function showTable(said) {
    ui.complain("");
    const same = state.name === printable(said.name) && said.key.join() === state.fields.join();
    Object.assign(state, { table: said.index, name: printable(said.name), fields: said.key, called: said.called, masked: new Set(said.masked) });
    choice.show(said.index);
    form.hidden = !said.key.length;
    offered.hidden = !said.keys.length;
    table.hidden = true;
    if (!same) {
      inputs.replaceChildren(...said.key.map((name) => {
        const place = nextId();
        return [h("label", { for: place, class: "hw-label" }, h("bdi", {}, called(name)), said.masked.includes(name) ? h("span", { class: "hw-tag hw-tag-accent", title: "type it as it is stored" }, "masked") : null),
          h("input", { id: place, class: "hw-input", type: "text", placeholder: printable(said.types[name] || ""), spellcheck: "false", autocomplete: "off" })];
      }).flat());
    }
    offered.replaceChildren(h("span", { class: "hw-soft" }, "changed last:"), ...said.keys.map((key) =>
      h("button", { class: "hw-button hw-quiet hw-offer", onclick: () => explainKey(key) }, h("bdi", {}, printable(key)))));
    if (!said.key.length) {
      note.hidden = false;
      story.hidden = true;
      note.textContent = `${state.name} has no key, so one row cannot be followed. These are all of its inserts and deletes, the newest first.`;
      showCopies([["Python", `p.changes(${JSON.stringify(said.name)})`]]);
    }
  }

  function showCopies(said) {
    refresh(copy, said, (all) => (all.length ? [h("h4", {}, "the same elsewhere"), ...copyList(all)] : []));
  }

  // A column as the source calls it.
  function called(name) {
    return printable(state.called[name] ?? name);
  }

  function status(text) {
    ui.status.textContent = text;
  }

  const id = nextId();
  const heard = {
    reading: () => status("reading…"),
    tables(said) {
      const tables = JSON.parse(said.tables);
      choice.fill(said.schemas, tables);
      choice.show(said.chosen);
      ui.chip.textContent = printable(said.pipeline);
      ui.body.hidden = false;
      status(plural(tables.length, "captured table"));
      ui.complain("");
    },
    table: showTable,
    steps: showSteps,
    row: showRow,
    page: showPage,
    cell(said) {
      state.asked.get(said.ask)?.(said.text, said.more);
      state.asked.delete(said.ask);
    },
    failed(said) {
      ui.complain(said.message, said.hint);
      status("");
    },
    problem(said) {
      ui.body.hidden = true;
      ui.complain(said.message, said.hint);
      status("not read");
    },
  };
  const hear = (message) => heard[message.kind]?.(message);
  model.on("msg:custom", hear);
  ui.head.append(h("button", { class: "hw-button hw-quiet", title: "read the raw log again", onclick: () => send({ kind: "reload" }) }, "Reload"));
  send({ kind: "ready" });
  return () => model.off("msg:custom", hear);
}

export default { render };

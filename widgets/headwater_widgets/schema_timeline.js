// The versions of a table's columns on a line, two of them compared, and what waits to be let in.

const WHAT = {
  first: "first seen", added: "added", dropped: "dropped", renamed: "renamed", retyped: "retyped",
  nullable: "null", masked: "mask", key: "key",
};

function render({ model, el }) {
  const send = (message) => model.send(message);
  const ui = frame(el, "Schema");
  const state = { index: null, versions: [], held: [], around: [[], ""] };
  const choice = tableChoice((index) => send({ kind: "choose", index }));
  const held = h("div", { class: "hw-block", hidden: true });
  const line = h("ol", { class: "hw-line", "aria-label": "versions, the newest first" });
  const since = h("select", { class: "hw-input", "aria-label": "compare version", onchange: () => compare() });
  const to = h("select", { class: "hw-input", "aria-label": "with version", onchange: () => compare() });
  const diff = h("div", {});
  const pair = h("div", { class: "hw-right" }, h("div", { class: "hw-row" }, h("span", { class: "hw-soft" }, "from"), since, h("span", { class: "hw-soft" }, "to"), to), diff);
  const split = h("div", { class: "hw-split", hidden: true }, h("div", { class: "hw-left hw-scroll hw-tall", tabindex: "0", role: "region", "aria-label": "versions" }, line), pair);
  const note = h("div", { class: "hw-block hw-empty" }, "Choose a table.");
  ui.body.append(h("div", { class: "hw-tools" }, choice.box), note, held, split);

  function showVersions(said) {
    ui.complain("");
    Object.assign(state, { index: said.index, versions: said.versions, held: said.held });
    choice.show(said.index);
    note.hidden = true;
    split.hidden = false;
    state.around = [said.left, said.away];
    refresh(held, [said.held, ...state.around], showHeld);
    held.hidden = !said.held.length && !said.left.length && !said.away;
    line.replaceChildren(...[...said.versions].reverse().map(item));
    const options = (first) => said.versions.map((v) => v.version).concat(first ? [0] : []).sort((a, b) => b - a)
      .map((n) => h("option", { value: n }, n ? `version ${n}` : "nothing"));
    const newest = said.versions.length;
    since.replaceChildren(...options(true));
    to.replaceChildren(...options(false));
    pick(newest - 1, newest);
    ui.status.textContent = plural(newest, "version");
  }

  function item(version) {
    const begins = version.at || (version.version === 1 ? "with the first load" : version.reload ? "with a load" : "before its first row");
    const place = [begins, version.position, `entry ${number(version.entry)}`].filter(Boolean).join(" · ");
    return h("li", { class: "hw-version" },
      h("button", { class: "hw-button hw-quiet hw-version-name", "aria-label": `show what version ${version.version} changed`, onclick: () => pick(version.version - 1, version.version) }, `version ${version.version}`),
      h("span", { class: "hw-says" }, ` ${plural(version.columns, "column")}`),
      version.reload ? h("span", { class: "hw-tag hw-tag-warn", title: "rows changed without being logged" }, "table read again") : null,
      h("div", { class: "hw-says" }, h("bdi", {}, printable(place))),
      h("ul", { class: "hw-changes" }, version.changes.map(([what, says]) => h("li", {},
        h("span", { class: `hw-tag hw-what-${what}` }, WHAT[what] || what), " ", h("bdi", {}, printable(says))))));
  }

  function pick(from, until) {
    since.value = String(from);
    to.value = String(until);
    compare();
  }

  function compare() {
    send({ kind: "diff", since: Number(since.value), to: Number(to.value) });
    for (const [n, one] of [...line.children].entries()) {
      one.classList.toggle("hw-opened", state.versions.length - n === Number(to.value));
    }
  }

  // What the policies keep out; letting it in is asked twice.
  function showHeld([waits, left, away]) {
    const accept = h("button", { class: "hw-button hw-primary", onclick: () => confirm(true) }, "Accept…");
    const yes = h("button", { class: "hw-button hw-danger", onclick: () => {
      confirm(false);
      accept.disabled = true;
      send({ kind: "accept", index: state.index });
    } }, "Yes, let it in");
    const no = h("button", { class: "hw-button", onclick: () => (confirm(false), accept.focus()) }, "No");
    const asked = h("span", { class: "hw-row", role: "group", "aria-label": "let this change into the lake?", hidden: true },
      h("span", {}, "The lake and the models follow; this cannot be taken back."), yes, no);
    const confirm = (open) => {
      asked.hidden = !open;
      accept.hidden = open;
      if (open) yes.focus();
    };
    const waiting = waits.length ? [h("h4", {}, "held back by the table's policies"), ...waits.map((text) => problem(text, "", "warn")), h("div", { class: "hw-row hw-gap" }, accept, asked)] : [];
    const out = left.length ? [problem(`left out (schema: discard): ${left.join(", ")}`, "schema: evolve, then headwater run --full --table TABLE", "info")] : [];
    return [...waiting, ...out, away ? problem(away, "", "info") : ""];
  }

  const heard = {
    reading: () => (ui.status.textContent = "reading…"),
    tables(said) {
      const tables = JSON.parse(said.tables);
      choice.fill(said.schemas, tables);
      choice.show(said.chosen);
      ui.chip.textContent = printable(said.pipeline);
      ui.body.hidden = false;
      ui.status.textContent = plural(tables.length, "captured table");
      ui.complain("");
    },
    versions: showVersions,
    diff(said) {
      if (said.since !== Number(since.value) || said.to !== Number(to.value)) return;
      refresh(diff, said.diff, (text) => (text ? diffView(text, "what changed between the versions") : h("div", { class: "hw-empty" }, "These are the same.")));
    },
    accepted(said) {
      ui.status.textContent = said.moved.length ? "accepted; the next run builds it" : "nothing was waiting to be accepted";
    },
    failed(said) {
      ui.complain(said.message, said.hint);
      ui.status.textContent = "";
      held.hwSaid = null;
      refresh(held, [state.held, ...state.around], showHeld);
    },
    problem(said) {
      ui.body.hidden = true;
      ui.complain(said.message, said.hint);
      ui.status.textContent = "not read";
    },
  };
  const hear = (message) => heard[message.kind]?.(message);
  model.on("msg:custom", hear);
  ui.head.append(h("button", { class: "hw-button hw-quiet", title: "read the raw log again", onclick: () => send({ kind: "reload" }) }, "Reload"));
  send({ kind: "ready" });
  return () => model.off("msg:custom", hear);
}

export default { render };

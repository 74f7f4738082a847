// The catalogue comes in one message; only the rows in sight are in the page.

const ROW = 30;
const SIZES = [["any size", 0], ["≥ 1 MB", 2 ** 20], ["≥ 100 MB", 100 * 2 ** 20], ["≥ 1 GB", 2 ** 30]];
// Milliseconds without a key until what was typed is tried.
const PAUSE = 250;
// The settings above the columns; all others are below them.
const FIRST = ["mode", "partition", "where"];
const SORTS = [["by name", null], ["by rows", 2], ["by size", 3]];

function render({ model, el }) {
  const send = (message) => model.send(message);
  const ui = frame(el, "Tables");
  const bar = draftBar(send, "reset");
  const state = {
    file: "headwater.yml", schemas: [], tables: [], names: [], fields: [], masks: [], types: [], tried: new Set(),
    chosen: new Set(), changed: new Set(), marks: new Map(),
    tree: true, closed: new Set(), view: [], fitting: [], active: 0, open: null, focus: false,
  };

  // The row of filters.
  const search = h("input", { class: "hw-input hw-search", type: "search", placeholder: "Search tables", "aria-label": "Search tables", spellcheck: "false" });
  const schema = pick("schema", [["all schemas", ""]]);
  const sized = pick("size", SIZES);
  const keyed = pick("key", [["any key", ""], ["has a key", "yes"], ["no key", "no"]]);
  const shown = pick("show", [["all tables", ""], ["selected", "on"], ["not selected", "off"], ["changed", "changed"]]);
  const sort = pick("order", SORTS.map(([label], n) => [label, n]));
  const treeButton = h("button", { class: "hw-button hw-toggle", onclick: () => setTree(true) }, "Tree");
  const listButton = h("button", { class: "hw-button hw-toggle", onclick: () => setTree(false) }, "List");
  const all = h("button", { class: "hw-button", onclick: () => chooseShown(true) }, "Select shown");
  const none = h("button", { class: "hw-button", onclick: () => chooseShown(false) }, "Clear shown");
  const tools = h("div", { class: "hw-tools" }, search, schema, sized, keyed, shown, sort,
    h("span", { class: "hw-join", role: "group", "aria-label": "layout" }, treeButton, listButton), all, none);

  // The list: a tall empty box that scrolls, and the rows that are in sight.
  const rows = h("div", { class: "hw-rows", role: "none" });
  const list = h("div", { class: "hw-list", role: "tree", tabindex: "0", "aria-label": "Tables", "aria-multiselectable": "true" }, rows);
  const empty = h("div", { class: "hw-empty", hidden: true }, "No table fits. Loosen the filters.");
  const detail = h("div", { class: "hw-detail", role: "region", "aria-label": "Settings of a table" });
  const body = h("div", { class: "hw-split" }, h("div", { class: "hw-left" }, list, empty), detail);
  ui.body.append(tools, body, bar.bar);
  showDetail(null);

  function pick(label, options) {
    const choices = options.map(([text, value]) => h("option", { value }, text));
    return h("select", { class: "hw-input", "aria-label": label, onchange: () => refilter() }, choices);
  }

  function setTree(tree) {
    state.tree = tree;
    refilter();
  }

  // The filters as one function; what the inputs say is read once, not once for each of thousands of tables.
  function filter(words) {
    const [place, least, key, show] = [schema.value, Number(sized.value), keyed.value, shown.value];
    return (index) => {
      const table = state.tables[index];
      if (place !== "" && table[0] !== Number(place)) return false;
      if (least > 0 && (table[3] || 0) < least) return false;
      if (key && table[4] !== (key === "yes")) return false;
      if (show === "changed" && !state.changed.has(index)) return false;
      if ((show === "on" || show === "off") && state.chosen.has(index) !== (show === "on")) return false;
      return words.every((word) => state.names[index].includes(word));
    };
  }

  // Tables that fit, under their schemas or in the order asked for.
  function refilter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fitting = [...state.tables.keys()].filter(filter(words));
    const column = SORTS[Number(sort.value)][1];
    if (column !== null) fitting.sort((a, b) => (state.tables[b][column] || 0) - (state.tables[a][column] || 0));
    const before = state.view[state.active];
    state.view = state.tree ? grouped(fitting, words.length > 0) : fitting.map((index) => ({ index, level: 1 }));
    const again = before ? state.view.findIndex((v) => v.index === before.index && v.schema === before.schema) : -1;
    state.active = Math.max(0, again);
    state.fitting = fitting;
    treeButton.setAttribute("aria-pressed", String(state.tree));
    listButton.setAttribute("aria-pressed", String(!state.tree));
    rows.style.height = `${state.view.length * ROW}px`;
    list.style.height = `${Math.min(420, state.view.length * ROW + 8)}px`;
    empty.hidden = state.view.length > 0;
    list.hidden = state.view.length === 0;
    paint();
    say();
  }

  function grouped(fitting, searching) {
    const bySchema = new Map();
    for (const index of fitting) {
      const place = state.tables[index][0];
      const inside = bySchema.get(place);
      inside ? inside.push(index) : bySchema.set(place, [index]);
    }
    const view = [];
    for (const place of [...bySchema.keys()].sort((a, b) => a - b)) {
      const inside = bySchema.get(place);
      view.push({ schema: place, inside, level: 1 });
      if (searching || !state.closed.has(place)) view.push(...inside.map((index, n) => ({ index, level: 2, n, of: inside.length })));
    }
    return view;
  }

  function say() {
    const parts = [`${number(state.chosen.size)} of ${plural(state.tables.length, "table")} selected`];
    if (state.fitting.length !== state.tables.length) parts.push(`${number(state.fitting.length)} shown`);
    if (state.changed.size) parts.push(`${number(state.changed.size)} changed`);
    ui.status.textContent = parts.join(" · ");
    ui.chip.textContent = printable(state.file);
    all.disabled = none.disabled = state.fitting.length === 0;
  }

  function paint() {
    const top = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const most = Math.ceil((list.clientHeight || 420) / ROW) + 8;
    rows.replaceChildren(...state.view.slice(top, top + most).map((item, n) => row(item, top + n)));
    const active = rows.querySelector(".hw-active");
    if (active) list.setAttribute("aria-activedescendant", active.id);
    else list.removeAttribute("aria-activedescendant");
  }

  function row(item, place) {
    const isTable = item.index !== undefined;
    const checked = isTable ? String(state.chosen.has(item.index)) : checkedOf(item.inside);
    const closed = !isTable && state.closed.has(item.schema) && !search.value.trim();
    const given = {
      id: `${id}-${place}`, role: "treeitem", class: `hw-item hw-level${item.level}`, style: `top:${place * ROW}px`,
      "aria-level": item.level, "aria-checked": checked, "aria-selected": String(place === state.active),
      "aria-setsize": item.of || state.view.length, "aria-posinset": (item.n ?? place) + 1,
      "aria-expanded": isTable ? undefined : String(!closed),
      onclick: (event) => clicked(event, item, place),
    };
    const box = h("span", { class: `hw-check hw-check-${checked}`, "data-check": "yes", "aria-hidden": "true" });
    const made = h("div", given, isTable ? null : h("span", { class: "hw-twist", "aria-hidden": "true" }, closed ? "▸" : "▾"), box,
      ...(isTable ? tableCells(item) : schemaCells(item)));
    if (place === state.active) made.classList.add("hw-active");
    if (isTable && item.index === state.open) made.classList.add("hw-opened");
    return made;
  }

  function tableCells(item) {
    const [place, name, count, size, key, note] = state.tables[item.index];
    const [mode, masks] = state.marks.get(item.index) || ["", 0];
    const schemaName = item.level === 1 ? h("span", { class: "hw-soft" }, printable(state.schemas[place]), ".") : null;
    return [
      h("span", { class: "hw-name" }, schemaName, h("bdi", {}, printable(name))),
      note ? h("span", { class: "hw-tag hw-tag-warn", title: printable(note) }, "cannot be copied") : null,
      key ? null : h("span", { class: "hw-tag", title: "rows have no key: they are compared whole" }, "no key"),
      mode ? h("span", { class: "hw-tag" }, mode) : null,
      masks ? h("span", { class: "hw-tag hw-tag-accent" }, plural(masks, "mask")) : null,
      state.changed.has(item.index) ? h("span", { class: "hw-dot", title: "changed, not saved" }, h("span", { class: "hw-hidden" }, "changed")) : null,
      h("span", { class: "hw-figure" }, compact(count)), h("span", { class: "hw-figure" }, bytes(size)),
    ];
  }

  function schemaCells(item) {
    const on = item.inside.filter((index) => state.chosen.has(index)).length;
    const size = item.inside.reduce((sum, index) => sum + (state.tables[index][3] || 0), 0);
    return [
      h("span", { class: "hw-name hw-schema" }, h("bdi", {}, printable(state.schemas[item.schema]))),
      h("span", { class: "hw-soft" }, `${number(on)} of ${number(item.inside.length)}`),
      h("span", { class: "hw-figure" }, ""), h("span", { class: "hw-figure" }, bytes(size)),
    ];
  }

  function checkedOf(inside) {
    const on = inside.filter((index) => state.chosen.has(index)).length;
    return on === 0 ? "false" : on === inside.length ? "true" : "mixed";
  }

  function clicked(event, item, place) {
    state.active = place;
    const onBox = event.target.closest("[data-check]");
    if (onBox) toggle(item);
    else if (item.index === undefined) fold(item);
    else openTable(item.index);
    paint();
  }

  function toggle(item) {
    const wanted = (item.index !== undefined ? [item.index] : item.inside).filter((index) => !state.tables[index][5]);
    choose(wanted, !wanted.every((index) => state.chosen.has(index)));
  }

  function chooseShown(on) {
    choose(state.fitting.filter((index) => !state.tables[index][5]), on);
  }

  function choose(tables, on) {
    const moved = tables.filter((index) => state.chosen.has(index) !== on);
    if (!moved.length) return;
    for (const index of moved) on ? state.chosen.add(index) : state.chosen.delete(index);
    send({ kind: "choose", tables: moved, on });
    paint();
    say();
  }

  function fold(item, closed = !state.closed.has(item.schema)) {
    closed ? state.closed.add(item.schema) : state.closed.delete(item.schema);
    refilter();
  }

  function openTable(index) {
    state.open = index;
    send({ kind: "table", index });
  }

  // Keys: arrows move, space selects, enter opens the settings, escape comes back from them.
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12, Home: -Infinity, End: Infinity };
  list.addEventListener("keydown", (event) => {
    const item = state.view[state.active];
    if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) move(state.active + steps[event.key]);
    else if (event.key === " ") toggle(item);
    else if (event.key === "Enter") item.index === undefined ? fold(item) : (openTable(item.index), (state.focus = true));
    else if (event.key === "ArrowRight" && item.inside) fold(item, false);
    else if (event.key === "ArrowLeft") item.inside ? fold(item, true) : move(state.view.findLastIndex((v, n) => n < state.active && v.inside));
    else if (event.key === "/") search.focus();
    else return;
    event.preventDefault();
  });
  detail.addEventListener("keydown", (event) => event.key === "Escape" && list.focus());
  search.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    list.focus();
    event.preventDefault();
  });
  search.addEventListener("input", refilter);
  list.addEventListener("scroll", paint, { passive: true });
  const id = nextId();

  function move(to) {
    state.active = Math.min(state.view.length - 1, Math.max(0, to));
    const top = state.active * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    paint();
  }

  // The settings of one table.
  function showDetail(said) {
    if (!said) {
      detail.replaceChildren(h("div", { class: "hw-empty" }, "Open a table to choose its columns, masks and mode."));
      return;
    }
    const index = said.index;
    const [place, name, count, size] = state.tables[index];
    const set = (where, text) => send({ kind: "set", index, place: where, text });
    const facts = [`${compact(count)} rows`, bytes(size), said.key.length ? `key: ${said.key.join(", ")}` : "no key"].join(" · ");
    const others = state.fields.filter((field) => !FIRST.includes(field.name));
    const inputs = (names) => h("div", { class: "hw-fields" }, state.fields.filter((field) => names.includes(field.name)).map((field) => {
      const [made] = fieldInputs([field], said.values, set, ui.complain);
      return state.tried.has(field.name) ? tried(index, field.name, made) : made;
    }));
    // What had the focus keeps it, where it is still there.
    const focused = detail.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
    detail.replaceChildren(
      h("h4", { class: "hw-detail-title" }, h("span", { class: "hw-soft" }, printable(state.schemas[place]), "."), h("bdi", {}, printable(name))),
      h("div", { class: "hw-soft" }, facts),
      said.note ? problem(said.note, "", "warn") : "",
      inputs(FIRST),
      columnsTable(index, said.columns),
      h("details", { class: "hw-more", open: others.some((field) => field.name in said.values) }, h("summary", {}, "more settings"), inputs(others.map((field) => field.name))));
    if (focused) [...detail.querySelectorAll("[aria-label]")].find((one) => one.getAttribute("aria-label") === focused)?.focus();
    if (state.focus) detail.querySelector("input, select")?.focus();
    state.focus = false;
  }

  // A setting that is tried on rows of the source while it is typed.
  function tried(index, name, made) {
    const input = made.querySelector("input");
    const shown = h("div", { class: "hw-tried", "aria-live": "polite", "data-tried": name });
    const attempt = () => send({ kind: "try", index, field: name, text: input.value });
    let timer;
    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(attempt, PAUSE);
    });
    input.addEventListener("focus", () => input.value && attempt(), { once: true });
    made.classList.add("hw-group");
    made.append(shown);
    return made;
  }

  function showTried(said) {
    const shown = detail.querySelector(`[data-tried="${said.field}"]`);
    if (!shown || said.index !== state.open) return;
    if (said.reading) return void (shown.textContent ||= "reading…");
    const folders = h("div", { class: "hw-folders" }, (said.folders || []).map((folder) => h("code", { class: "hw-folder" }, h("bdi", {}, lines(folder)))));
    const kept = said.looked === undefined ? null : h("div", {}, `copies ${number(said.kept)} of the first ${plural(said.looked, "row")}`);
    const wrong = said.error ? [h("pre", { class: "hw-pointed" }, lines(said.error)), said.hint ? h("div", { class: "hw-try" }, lines(said.hint)) : null] : [];
    shown.replaceChildren(...[...wrong, said.folders ? folders : null, kept, ...(said.says || []).map((text) => h("div", { class: "hw-says" }, lines(text)))].filter(Boolean));
  }

  function columnsTable(index, columns) {
    const head = h("tr", {}, ...["copy", "key", "column", "type", "becomes", "mask"].map((t) => h("th", { scope: "col" }, t)));
    const types = h("datalist", { id: `${id}-types` }, state.types.map((type) => h("option", { value: type })));
    return h("div", { class: "hw-scroll-x" }, types, h("table", { class: "hw-columns" }, h("thead", {}, head), h("tbody", {}, columns.map((c) => columnRow(index, c)))));
  }

  function columnRow(index, column) {
    const shownName = printable(column.name);
    const copy = h("input", { type: "checkbox", "aria-label": `copy ${shownName}`, onchange: () => send({ kind: "column", index, column: column.name, on: copy.checked }) });
    copy.checked = column.on;
    const key = h("input", { type: "checkbox", "aria-label": `key ${shownName}`, title: "part of what tells rows apart", onchange: () => send({ kind: "key", index, column: column.name, on: key.checked }) });
    key.checked = column.key;
    const cast = h("input", { class: "hw-input hw-cast", type: "text", list: `${id}-types`, placeholder: "as it is", "aria-label": `type of ${shownName}`, spellcheck: "false", autocomplete: "off",
      onchange: () => send({ kind: "cast", index, column: column.name, text: cast.value }) });
    cast.value = column.cast;
    return h("tr", {}, h("td", {}, copy), h("td", {}, key),
      h("td", {}, h("bdi", {}, shownName)),
      h("td", { class: "hw-soft hw-type" }, printable(column.type)),
      h("td", {}, cast),
      h("td", {}, ...maskInputs(index, column, shownName)));
  }

  function maskInputs(index, column, shownName) {
    const [kind, keep] = column.mask;
    const none = column.fixed ? "from a pattern" : "–";
    const options = state.masks.map((m) => h("option", { value: m.name, title: m.says }, m.number ? `${m.name} n` : m.name));
    const select = h("select", { class: "hw-input hw-narrow", "aria-label": `mask ${shownName}` }, h("option", { value: "" }, none), options);
    const count = h("input", { class: "hw-input hw-count", type: "number", min: "1", max: "1000", "aria-label": `characters of ${shownName} that stay` });
    // `redact` is a word of its own and one with a number: the number tells them apart.
    const entries = state.masks.map((m, n) => ({ ...m, n }));
    const now = entries.find((m) => m.name === kind && m.number === Boolean(keep));
    select.selectedIndex = now ? now.n + 1 : 0;
    count.value = keep || 4;
    const chosen = () => state.masks[select.selectedIndex - 1];
    const show = () => (count.hidden = !chosen()?.number);
    const said = () => {
      show();
      send({ kind: "mask", index, column: column.name, mask: chosen()?.name || null, keep: chosen()?.number ? Number(count.value) || 1 : 0 });
    };
    show();
    select.addEventListener("change", said);
    count.addEventListener("change", said);
    return [select, count];
  }

  // What the kernel says.
  const heard = {
    tables(said) {
      ui.complain("");
      const tables = JSON.parse(said.tables);
      Object.assign(state, { file: said.file, schemas: said.schemas, tables, fields: said.fields, masks: said.masks, types: said.types, tried: new Set(said.tried) });
      state.names = tables.map(([place, name]) => `${said.schemas[place]}.${name}`.toLowerCase());
      state.chosen = new Set(said.chosen);
      state.marks = new Map(said.marks.map(([index, ...mark]) => [index, mark]));
      const before = schema.value;
      schema.replaceChildren(h("option", { value: "" }, "all schemas"), ...said.schemas.map((s, n) => h("option", { value: n }, printable(s))));
      schema.value = before;
      ui.body.hidden = false;
      refilter();
      if (state.open !== null) send({ kind: "table", index: state.open });
    },
    draft(said) {
      state.changed = new Set(said.changed);
      for (const [index, ...mark] of said.marks) state.marks.set(index, mark);
      bar.show(said, state.file);
      paint();
      say();
    },
    table(said) {
      state.open = said.index;
      showDetail(said);
      paint();
    },
    tried: showTried,
    saved(said) {
      ui.complain("");
      bar.say(`${said.file} is written; the next run follows it`);
    },
    failed: (said) => ui.complain(said.message, said.hint),
    problem(said) {
      ui.body.hidden = true;
      ui.complain(said.message, said.hint);
      ui.status.textContent = "not read";
    },
  };
  const hear = (message) => heard[message.kind]?.(message);
  model.on("msg:custom", hear);
  const again = h("button", { class: "hw-button hw-quiet", title: "read the file and the source again", onclick: () => send({ kind: "reload" }) }, "Reload");
  ui.head.append(again);
  send({ kind: "ready" });
  return () => model.off("msg:custom", hear);
}

export default { render };

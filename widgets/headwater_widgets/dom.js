// What the views share. Names come from other people's databases: they only ever become text nodes.

const UNITS = [["TB", 2 ** 40], ["GB", 2 ** 30], ["MB", 2 ** 20], ["kB", 2 ** 10]];
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;
// The same signs that the reader of headwater.yml looks for: a password must not even reach the kernel.
const PASSWORD = /:\/\/[^?]*:[^?]*@|[?&](ssl)?password=/i;

// Lines of a diff that are shown.
const DIFF_LINES = 400;

let ids = 0;
function nextId() {
  return `hw-${Date.now().toString(36)}-${ids++}`;
}

// An element: h("button", { class: "x", onclick: f, "aria-label": "y" }, "text", child)
function h(tag, given = {}, ...children) {
  const element = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

// Text with control, invisible and direction-changing characters written as escapes.
function printable(text) {
  return String(text).replace(HIDDEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

// Line ends stay line ends; everything else that cannot be seen is written as an escape.
function lines(text) {
  return text.split("\n").map(printable).join("\n");
}

function bytes(count) {
  if (count === null || count === undefined) return "–";
  for (const [unit, step] of UNITS) {
    if (Math.abs(count) >= step) return `${(count / step).toFixed(1)} ${unit}`;
  }
  return `${Math.round(count)} B`;
}

function number(count) {
  return count === null || count === undefined ? "–" : Math.round(count).toLocaleString("en-US");
}

function compact(count) {
  if (count === null || count === undefined) return "–";
  if (count < 100000) return number(count);
  return new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 }).format(count);
}

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  for (const [unit, step] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * step) return `${Math.round(seconds / step)} ${unit}`;
  }
  return seconds < 10 ? `${Math.max(0, seconds).toFixed(1)} s` : `${Math.round(seconds)} s`;
}

function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

// The frame of a widget. Keys pressed inside are not the notebook's.
function frame(el, title) {
  const status = h("span", { class: "hw-status", role: "status" });
  const chip = h("span", { class: "hw-chip" });
  const head = h("div", { class: "hw-head" }, h("span", { class: "hw-title" }, title), chip, status);
  const alert = h("div", { class: "hw-alert", role: "alert", hidden: true });
  const body = h("div", { class: "hw-body" });
  const root = h("section", { class: "hw", "aria-label": title, "data-lm-suppress-shortcuts": "true" }, head, alert, body);
  root.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(root);
  return {
    root, head, body, chip, status,
    complain(message, hint) {
      alert.hidden = !message;
      alert.replaceChildren(...(message ? [problem(message, hint)] : []));
    },
  };
}

function problem(message, hint, level = "error") {
  const advice = hint ? h("div", { class: "hw-try" }, "try: ", h("code", {}, printable(hint))) : null;
  return h("div", { class: `hw-problem hw-${level}` }, h("div", {}, printable(message)), advice);
}

// Replace what is inside only when it says something else: what a user selected in it stays selected.
function refresh(holder, said, make) {
  const key = JSON.stringify(said);
  if (holder.hwSaid === key) return;
  holder.hwSaid = key;
  holder.replaceChildren(...[make(said)].flat());
}

function diffView(diff, label = "changes of the file") {
  const all = diff.split("\n").slice(2);
  const lines = all.slice(0, DIFF_LINES).map((line) => {
    const kind = line.startsWith("+") ? "add" : line.startsWith("-") ? "del" : line.startsWith("@") ? "at" : "same";
    return h("span", { class: `hw-diff-${kind}` }, printable(line) + "\n");
  });
  return h("pre", { class: "hw-diff", tabindex: "0", "aria-label": label }, lines,
    all.length > DIFF_LINES ? h("span", { class: "hw-diff-at" }, `… and ${number(all.length - DIFF_LINES)} lines more`) : null);
}

// Diff, save and discard at the foot of a form.
function draftBar(send, discard) {
  const shown = h("div", { class: "hw-draft-diff" });
  const note = h("div", { class: "hw-note", hidden: true });
  const save = h("button", { class: "hw-button hw-primary", disabled: true, onclick: () => send({ kind: "save" }) }, "Save");
  const drop = h("button", { class: "hw-button", disabled: true, onclick: () => send({ kind: discard }) }, "Discard");
  const said = h("span", { class: "hw-soft" });
  const bar = h("div", { class: "hw-draft" }, shown, note, h("div", { class: "hw-row" }, save, drop, said));
  return {
    bar,
    show(draft, file) {
      const nothing = !draft.diff && !draft.wrong;
      save.disabled = !draft.diff || Boolean(draft.wrong);
      save.textContent = `Save ${file}`;
      drop.disabled = nothing && !(draft.changed || []).length;
      said.textContent = nothing ? `${file} says what is chosen here` : "";
      note.hidden = !draft.note;
      note.textContent = draft.note || "";
      refresh(shown, [draft.diff, draft.wrong, draft.hint], ([diff, wrong, hint]) =>
        wrong ? problem(wrong, hint) : diff ? diffView(diff) : []);
    },
    say(text) {
      said.textContent = text;
    },
  };
}

// One input for a field of headwater.yml, by its kind; `change(place, text)` gets "" for a field that is not set.
function fieldInput(field, value, place, change, complain) {
  const id = nextId();
  const hint = h("span", { id: `${id}-says`, class: "hw-says" }, field.says.replaceAll("`", ""));
  const label = h("label", { for: id, class: "hw-label" }, field.name, field.required ? h("span", { class: "hw-must", title: "required" }, " *") : null);
  if (field.kind === "secret") return h("div", { class: "hw-field" }, label, secretInput(field, value || "", id, (t) => change(place, t), complain), hint);
  const given = { id, "aria-describedby": `${id}-says`, class: "hw-input" };
  const choices = field.kind === "flag" ? ["true", "false"] : field.choices;
  let input;
  if (choices.length) {
    const none = field.default ? `default (${field.default})` : "not set";
    input = h("select", given, h("option", { value: "" }, none), choices.map((c) => h("option", { value: c }, c)));
  } else {
    const number = field.kind === "number" ? "numeric" : undefined;
    input = h("input", { ...given, type: "text", spellcheck: "false", autocomplete: "off", inputmode: number, placeholder: field.default || field.example });
  }
  input.value = value === undefined ? "" : value;
  input.addEventListener("change", () => {
    if (PASSWORD.test(input.value)) {
      input.value = "";
      complain(`${field.name} had a password in it; nothing was kept`, "say in password where it is: env:HEADWATER_SOURCE_PASSWORD");
      return;
    }
    change(place, input.value);
  });
  return h("div", { class: "hw-field" }, label, input, hint);
}

// Where a secret is: an environment variable or a file. What it is has no place here.
function secretInput(field, value, id, change, complain) {
  const kind = h("select", { class: "hw-input hw-narrow", "aria-label": `${field.name}: where it is` },
    h("option", { value: "env" }, "environment variable"), h("option", { value: "file" }, "file"));
  const example = field.example.replace(/^env:/, "");
  const name = h("input", { id, class: "hw-input", type: "text", spellcheck: "false", autocomplete: "off", "aria-describedby": `${id}-says` });
  const split = /^(env|file):(.*)$/s.exec(value);
  if (split) [kind.value, name.value] = [split[1], split[2]];
  const show = () => (name.placeholder = kind.value === "env" ? example : "/path/to/file");
  const said = () => {
    show();
    const text = name.value.trim();
    if (text && kind.value === "env" && !/^[A-Za-z_][A-Za-z0-9_]*$/.test(text)) {
      // It may be the secret itself: it does not leave this input.
      name.value = "";
      complain(`${field.name}: this is not the name of an environment variable; nothing was kept`, `${example}   (the name, never the secret)`);
      return;
    }
    change(text ? `${kind.value}:${text}` : "");
  };
  show();
  kind.addEventListener("change", said);
  name.addEventListener("change", said);
  return h("div", { class: "hw-secret" }, kind, name);
}

// Fields and groups of fields.
function fieldInputs(fields, values, change, complain, place = []) {
  return fields.map((field) => {
    const value = (values || {})[field.name];
    if (field.kind !== "group") return fieldInput(field, value, [...place, field.name], change, complain);
    const open = value && Object.keys(value).length > 0;
    return h("details", { class: "hw-group", open },
      h("summary", {}, field.name, h("span", { class: "hw-says" }, ` ${field.says.replaceAll("`", "")}`)),
      h("div", { class: "hw-fields" }, fieldInputs(field.fields, value, change, complain, [...place, field.name])));
  });
}

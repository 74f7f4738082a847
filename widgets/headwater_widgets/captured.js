// What the views over captured tables share: the choice of a table, cells, and texts to copy.

// So many of the tables that fit are listed.
const FITTING = 50;

// A search over thousands of names: type words, move with the arrows, choose with enter.
function tableChoice(choose) {
  const id = nextId();
  const input = h("input", {
    class: "hw-input hw-search", type: "text", role: "combobox", "aria-label": "Table", "aria-expanded": "false",
    "aria-controls": id, "aria-autocomplete": "list", placeholder: "Search tables", spellcheck: "false", autocomplete: "off",
  });
  const list = h("div", { id, class: "hw-options", role: "listbox", "aria-label": "Tables", hidden: true });
  let names = [];
  let lower = [];
  let fitting = [];
  let active = 0;
  let chosen = null;

  function open() {
    const words = input.value === names[chosen] ? [] : input.value.toLowerCase().split(/\s+/).filter(Boolean);
    fitting = [];
    let more = 0;
    for (let n = 0; n < lower.length; n++) {
      if (!words.every((word) => lower[n].includes(word))) continue;
      fitting.length < FITTING ? fitting.push(n) : more++;
    }
    active = 0;
    list.replaceChildren(
      ...fitting.map((n, at) => h("div", { id: `${id}-${at}`, class: "hw-option", role: "option", "aria-selected": String(n === chosen), onpointerdown: (event) => (event.preventDefault(), take(n)) }, h("bdi", {}, names[n]))),
      more || !fitting.length ? h("div", { class: "hw-says hw-option-more" }, fitting.length ? `and ${plural(more, "table")} more: type a part of the name` : "no captured table fits") : "");
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark();
  }

  function close() {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function mark() {
    [...list.querySelectorAll(".hw-option")].forEach((option, at) => option.classList.toggle("hw-active", at === active));
    const now = list.querySelector(".hw-active");
    now?.scrollIntoView({ block: "nearest" });
    now ? input.setAttribute("aria-activedescendant", now.id) : input.removeAttribute("aria-activedescendant");
  }

  function take(n) {
    show(n);
    close();
    choose(n);
  }

  function show(n) {
    chosen = n;
    input.value = n === null ? "" : names[n];
  }

  input.addEventListener("input", open);
  input.addEventListener("click", () => list.hidden && (input.select(), open()));
  input.addEventListener("blur", () => (close(), show(chosen)));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") (close(), show(chosen));
    else if (event.key === "Enter") list.hidden ? open() : fitting.length && take(fitting[active]);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (list.hidden) open();
      else active = (active + (event.key === "ArrowDown" ? 1 : fitting.length - 1)) % Math.max(1, fitting.length);
      mark();
    } else return;
    event.preventDefault();
  });
  return {
    box: h("div", { class: "hw-choice" }, input, list),
    show,
    fill(schemas, tables) {
      names = tables.map(([place, name]) => `${printable(schemas[place])}.${printable(name)}`);
      lower = names.map((name) => name.toLowerCase());
    },
  };
}

// A value: [text, characters]; null where nobody knows it. NULL, an empty text and the word NULL differ.
function cellView(cell, whole) {
  if (!cell) return h("span", { class: "hw-null", title: "the column was not there, or the log did not carry it" }, "not known");
  const [text, length] = cell;
  if (text === null) return h("span", { class: "hw-null" }, "NULL");
  if (text === "") return h("span", { class: "hw-null" }, "empty text");
  const shown = h("span", { class: "hw-value" }, h("bdi", {}, lines(text)));
  if ([...text].length >= length) return shown;
  const more = h("button", { class: "hw-button hw-quiet", onclick: () => {
    more.disabled = true;
    whole((all, rest) => {
      shown.replaceChildren(h("bdi", {}, lines(all)), rest > 0 ? h("div", { class: "hw-soft" }, `… and ${number(rest)} more: headwater explain --values`) : "");
      shown.classList.add("hw-whole");
      shown.tabIndex = 0;
      more.remove();
    });
  } }, `show all ${number(length)} characters`);
  return [shown, h("span", { class: "hw-soft" }, "… "), whole ? more : h("span", { class: "hw-says" }, `${number(length)} characters`)];
}

// Lines of [name, text], each with a button that copies it.
function copyList(rows) {
  return rows.map(([name, text]) => {
    const code = h("code", {}, printable(text));
    const button = h("button", { class: "hw-button hw-quiet", "aria-label": `copy: ${name}`, onclick: async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy"), 1500);
      } catch {
        getSelection().selectAllChildren(code); // without a secure context there is no clipboard
      }
    } }, "Copy");
    return h("div", { class: "hw-copy" }, h("span", { class: "hw-soft" }, name), code, button);
  });
}

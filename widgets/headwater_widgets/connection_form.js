// Source, lake and warehouse. What is typed goes to the kernel field by field, and never into the notebook.

const MARKS = { ok: ["✓", "all right"], warn: ["!", "to think about"], fail: ["✗", "to mend"] };
const TITLES = { source: "Source", store: "Lake", warehouse: "Warehouse" };

function render({ model, el }) {
  const send = (message) => model.send(message);
  const ui = frame(el, "Connection");
  const bar = draftBar(send, "reload");
  const form = h("div");
  const test = h("button", { class: "hw-button hw-primary", onclick: () => send({ kind: "test" }) }, "Test connection");
  const verdict = h("span", { class: "hw-soft", role: "status" });
  const findings = h("div", { class: "hw-findings", hidden: true });
  const tools = h("div", { class: "hw-tools" }, test, verdict);
  ui.body.append(form, tools, findings, bar.bar);
  let file = "headwater.yml";

  const change = (place, text) => {
    ui.complain("");
    send({ kind: "set", place, text });
  };

  function section(field, values, front) {
    const first = field.fields.filter((f) => front.includes(f.name));
    const more = field.fields.filter((f) => !front.includes(f.name));
    const inputs = (fields) => fieldInputs(fields, values || {}, change, ui.complain, [field.name]);
    const used = more.filter((f) => values && f.name in values).length;
    return h("fieldset", { class: "hw-section" }, h("legend", {}, TITLES[field.name] || field.name, h("span", { class: "hw-says" }, `  ${field.says.replaceAll("`", "")}`)),
      h("div", { class: "hw-fields" }, inputs(first)),
      more.length ? h("details", { class: "hw-group", open: used > 0 }, h("summary", {}, "More"), h("div", { class: "hw-fields" }, inputs(more))) : null);
  }

  function finding([level, what, found, fix, table]) {
    const [mark, meaning] = MARKS[level];
    const copied = h("button", { class: "hw-button hw-quiet", "aria-label": `copy: ${what}`, onclick: () => copyText(fix, copied) }, "Copy");
    return h("div", { class: "hw-finding" },
      h("span", { class: `hw-mark hw-mark-${level}`, role: "img", "aria-label": meaning }, mark),
      h("div", {}, h("b", {}, printable(table ? `${table}: ${what}` : what)), " ", h("span", { class: "hw-soft" }, printable(found))),
      fix ? copied : h("span"),
      fix ? h("pre", { class: "hw-sql", tabindex: "0" }, fix.split("\n").map(printable).join("\n")) : null);
  }

  // Without a secure context there is no clipboard: then the statement is selected, for the user to copy.
  async function copyText(text, button) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    } catch {
      getSelection().selectAllChildren(button.parentElement.querySelector("pre"));
    }
  }

  const heard = {
    form(said) {
      ui.complain("");
      file = said.file;
      ui.chip.textContent = printable(file);
      refresh(form, [said.sections, said.rest, said.front, said.values], () => [
        ...said.sections.map((f) => section(f, said.values[f.name], said.front[f.name] || [])),
        h("fieldset", { class: "hw-section" }, h("legend", {}, "Pipeline"),
          h("div", { class: "hw-fields" }, fieldInputs(said.rest.filter((f) => f.required), said.values, change, ui.complain)),
          h("details", { class: "hw-group" }, h("summary", {}, "More"), h("div", { class: "hw-fields" }, fieldInputs(said.rest.filter((f) => !f.required), said.values, change, ui.complain)))),
      ]);
    },
    draft(said) {
      bar.show(said, file);
      ui.status.textContent = said.wrong ? "not complete" : said.diff ? "not saved" : "saved";
      test.disabled = Boolean(said.wrong);
    },
    testing() {
      test.disabled = true;
      verdict.textContent = "asking the source …";
    },
    findings(said) {
      test.disabled = false;
      findings.hidden = false;
      const wrong = said.findings.filter(([level]) => level === "fail").length;
      const odd = said.findings.filter(([level]) => level === "warn").length;
      verdict.textContent = (wrong ? `${wrong} to mend` : "ready") + (odd ? `, ${odd} to think about` : "");
      // What needs somebody first; what is well is there to be unfolded.
      const well = said.findings.filter(([level]) => level === "ok");
      const rest = said.findings.filter(([level]) => level !== "ok").sort(([a], [b]) => a.localeCompare(b));
      findings.replaceChildren(...rest.map(finding),
        h("details", { open: !rest.length }, h("summary", { class: "hw-soft" }, `${plural(well.length, "look")} found all well`), ...well.map(finding)));
    },
    saved: (said) => bar.say(`${said.file} is written`),
    failed: (said) => ui.complain(said.message, said.hint),
  };
  const hear = (message) => heard[message.kind]?.(message);
  model.on("msg:custom", hear);
  send({ kind: "ready" });
  return () => model.off("msg:custom", hear);
}

export default { render };

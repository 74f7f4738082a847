// What is wrong for people who do not see well or use no mouse, in one widget: contrast, names, focus.
(root) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  canvas.canvas.width = canvas.canvas.height = 1;
  const rgba = (css) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = css;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((c, n) => c * a + below[n] * (1 - a));
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(rgba(getComputedStyle(at).backgroundColor));
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const wrong = new Set();
  const visible = (element) => element.getClientRects().length > 0 && !element.closest(".hw-hidden");
  for (const element of root.querySelectorAll("*")) {
    if (!visible(element) || element.closest(":disabled, option, svg")) continue;
    const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!text && !element.matches("input:not([type=range], [type=checkbox]), select")) continue;
    const back = behind(element);
    const [a, b] = [light(over(rgba(getComputedStyle(element).color), back)), light(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) wrong.add(`contrast ${ratio.toFixed(1)}: .${element.className || element.tagName} in .${element.parentElement.className}: ${text.slice(0, 30)}`);
  }
  for (const control of root.querySelectorAll("input, select, button, [role=listbox], [role=tree], [tabindex='0']")) {
    const named = control.getAttribute("aria-label") || control.textContent.trim() || [...(control.labels || [])].some((l) => l.textContent.trim());
    if (visible(control) && !named) wrong.add(`no name: ${control.outerHTML.slice(0, 80)}`);
  }
  const ids = [...root.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.add(`id twice: ${id}`);
  for (const attribute of ["aria-controls", "aria-activedescendant", "aria-describedby"]) {
    for (const element of root.querySelectorAll(`[${attribute}]`)) {
      if (!document.getElementById(element.getAttribute(attribute))) wrong.add(`${attribute} to nothing: ${element.outerHTML.slice(0, 80)}`);
    }
  }
  return [...wrong];
}

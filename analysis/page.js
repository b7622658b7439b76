"use strict";
// Shared by the report and the live page.

// Put a figure, by the id of its element, on the cost axis that its reader chose; what differs is in its meta.
function onAxis(figure, id) {
  const chooser = document.querySelector(`select[data-axis-of="${id}"]`);
  const chosen = chooser && figure.layout.meta.axes.find((axis) => axis.key === chooser.value);
  if (!chosen) return;
  chosen.traces.forEach((changed, at) => Object.assign(figure.data[at], changed));
  Object.assign(figure.layout.xaxis, chosen.xaxis, { autorange: true });
  document.querySelector(`[data-caption-of="${id}"]`).textContent = chosen.caption;
}

// Give the drawn figures the width of a sheet, and take it from them again: a printer does not lay them out anew.
const PAPER = { whole: 690, half: 335 };
function onPaper(is) {
  for (const drawn of document.querySelectorAll(".js-plotly-plot")) {
    const width = drawn.closest(".grid") ? PAPER.half : PAPER.whole;
    Plotly.relayout(drawn, is ? { width } : { width: null, autosize: true });
  }
}
window.addEventListener("afterprint", () => onPaper(false));

// Go to the next (1) or the last (-1) heading from where the window stands.
function jump(way) {
  const heads = [...document.querySelectorAll("h2")];
  const next = way > 0
    ? heads.find((head) => head.getBoundingClientRect().top > 80)
    : heads.reverse().find((head) => head.getBoundingClientRect().top < 60);
  if (next) next.scrollIntoView();
}

// Whether a key is a letter for the page and not for a field or the browser.
const isOurs = (event) => !event.target.matches("input, select")
  && !event.metaKey && !event.ctrlKey && !event.altKey;

// The report: draws what comes into view, then the rest when nothing else is to do; keeps rows; takes keys.
const waiting = new Map([...document.querySelectorAll("script[data-figure]")].map((one) => [one.dataset.figure, one]));

const parsed = (data) => JSON.parse(data.textContent);

function draw(id) {
  const data = waiting.get(id);
  if (!data) return;
  waiting.delete(id);
  const figure = parsed(data);
  onAxis(figure, id);
  Plotly.newPlot(id, figure.data, figure.layout, figure.config);
}

function drawAll() {
  for (const id of [...waiting.keys()]) draw(id);
}

// One figure at a time, so that a key or a click never waits for more than one.
function drawNext() {
  const [id] = waiting.keys();
  if (!id) return;
  draw(id);
  idle(drawNext);
}

const idle = window.requestIdleCallback || ((task) => setTimeout(task, 30)); // Safari has none

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target.id);
}, { rootMargin: "300px" });
for (const [id, data] of waiting) {
  const element = document.getElementById(id);
  element.style.minHeight = `${data.dataset.height}px`; // the page does not move when it is drawn
  seen.observe(element);
}
window.addEventListener("load", () => idle(drawNext));
window.addEventListener("beforeprint", () => { drawAll(); onPaper(true); });

document.addEventListener("change", (event) => {
  const id = event.target.dataset.axisOf;
  if (!id) return;
  const figure = parsed(document.querySelector(`script[data-figure="${id}"]`));
  onAxis(figure, id);
  waiting.delete(id);
  Plotly.react(id, figure.data, figure.layout, figure.config);
});

document.addEventListener("keydown", (event) => {
  if ((event.key === "j" || event.key === "k") && isOurs(event)) jump(event.key === "j" ? 1 : -1);
});

// The rows are gzip in base64, unpacked when they are asked for.
const keep = document.querySelector("#keep-rows");
if (keep) keep.onclick = async () => {
  const packed = Uint8Array.from(atob(document.querySelector("#rows").textContent), (sign) => sign.charCodeAt(0));
  const text = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([await new Response(text).blob()], { type: "text/csv" }));
  link.download = `${keep.dataset.name}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
};

// Asks the server what there is, and redraws the parts that differ. All text from users comes escaped from the
// server or is set as text; the page's policy runs no script but this one and plotly.js.

const EVERY = 1000; // milliseconds between two questions; ten times as long while nobody looks
const KEEP = "as the reader left it"; // plotly keeps zoom over a redraw while uirevision stays the same
const PLACES = { progress: "#bar", head: "#top", answer: "#top" };

const known = { etag: "", parts: new Map(), figures: new Map(), configs: new Map(), state: null };
const off = { schedules: new Set(), tasks: new Set() };
let behind = 0; // milliseconds of the server's clock past ours
let lost = null; // since when the server has not answered

const find = (selector) => document.querySelector(selector);
const words = () => find("#words").value.trim().toLowerCase();

// -- the server

async function ask() {
  try {
    const answer = await fetch("state", { headers: known.etag ? { "If-None-Match": known.etag } : {}, cache: "no-store" });
    const date = Date.parse(answer.headers.get("Date"));
    if (!Number.isNaN(date)) behind = date - Date.now();
    if (answer.status === 200) {
      const state = await answer.json();
      known.etag = answer.headers.get("ETag");
      say(state.problem || "");
      take(state);
    } else if (answer.status === 304) {
      if (lost) say(known.state.problem || "");
    } else {
      throw new Error(String(answer.status));
    }
    lost = null;
  } catch {
    lost = lost || new Date();
    say(`The dashboard has not answered since ${lost.toLocaleTimeString()}: is lab dashboard still running? This page goes on when it is back.`);
  }
  tick();
  setTimeout(ask, document.hidden ? 10 * EVERY : EVERY);
}

function say(text) {
  find("#away").textContent = text;
  find("#away").hidden = !text;
}

// -- the parts

function take(state) {
  known.state = { ...known.state, ...state };
  if (state.progress) put({ name: "progress", html: state.progress, figures: {} });
  if (!state.parts) return; // the folder cannot be read now: what was drawn stays
  document.title = `${state.title}: live`;
  const names = new Set(state.parts.map((part) => part.name));
  for (const old of document.querySelectorAll("#top > [data-part], #rest > [data-part]")) {
    if (!names.has(old.dataset.part)) {
      old.remove();
      known.parts.delete(old.dataset.part);
    }
  }
  find("#tools").hidden = !state.schedules.length;
  chips("schedules", state.schedules.filter((one) => one.chip).map((one) => [one.label, one.colour]));
  chips("tasks", state.tasks.length > 1 ? state.tasks.map((task) => [task, ""]) : []);
  state.parts.forEach(put);
  sift();
}

function put(part, place) {
  let element = find(`[data-part="${part.name}"]`);
  if (!element) {
    element = document.createElement("div");
    element.dataset.part = part.name;
    const home = find(PLACES[part.name] || "#rest");
    const before = [...home.children].find((other) => order(other.dataset.part) > place);
    home.insertBefore(element, before || null);
  }
  if (known.parts.get(part.name) !== part.html) swap(element, part);
  known.parts.set(part.name, part.html);
  for (const [id, text] of Object.entries(part.figures)) {
    const figure = known.figures.get(id);
    if (!figure || figure.text !== text) known.figures.set(id, { text, drawn: null });
  }
}

const order = (name) => known.state.parts.findIndex((part) => part.name === name);

// New HTML around the old figures, which keep their zoom, around open details and chosen axes.
function swap(element, part) {
  const open = [...element.querySelectorAll("details")].map((one) => one.open);
  const old = new Map(Object.keys(part.figures).map((id) => [id, document.getElementById(id)]));
  const chosen = new Map([...element.querySelectorAll("select")].map((one) => [one.dataset.axisOf, one.value]));
  element.innerHTML = part.html;
  element.querySelectorAll("select").forEach((one) => { one.value = chosen.get(one.dataset.axisOf) || one.value; });
  element.querySelectorAll("details").forEach((one, at) => { one.open = open[at] || false; });
  for (const [id, figure] of old) if (figure) document.getElementById(id).replaceWith(figure);
  const was = known.parts.has(part.name);
  if (was && (part.name === "answer" || part.name === "ranking")) {
    element.classList.remove("fresh");
    void element.offsetWidth; // the animation begins anew
    element.classList.add("fresh");
  }
}

// -- the filter

function chips(kind, wanted) {
  const home = find(`#${kind}`);
  const text = JSON.stringify(wanted);
  if (home.dataset.of === text) return;
  home.dataset.of = text;
  home.replaceChildren(...wanted.map(([label, colour]) => {
    const button = document.createElement("button");
    button.type = "button";
    if (colour) {
      const dot = document.createElement("i");
      dot.style.background = colour;
      button.append(dot);
    }
    button.append(label);
    button.setAttribute("aria-pressed", String(!off[kind].has(label)));
    button.onclick = () => {
      if (!off[kind].delete(label)) off[kind].add(label);
      button.setAttribute("aria-pressed", String(!off[kind].has(label)));
      sift();
    };
    return button;
  }));
}

function sift() {
  if (!known.state || !known.state.parts) return;
  const asked = words();
  const listed = known.state.schedules;
  const wanted = listed.filter((one) => !off.schedules.has(one.label)
    && (one.label.toLowerCase().includes(asked) || one.text.toLowerCase().includes(asked)));
  const labels = new Set(wanted.map((one) => one.label));
  const keys = new Set(wanted.map((one) => one.key));
  const whole = wanted.length === listed.length;
  for (const row of document.querySelectorAll("[data-schedule]")) {
    row.hidden = !(whole || labels.has(row.dataset.schedule));
  }
  for (const one of document.querySelectorAll("[data-task]")) one.hidden = off.tasks.has(one.dataset.task);
  find("#shown").textContent = whole && !off.tasks.size ? ""
    : `${wanted.length} of ${listed.length} schedules shown. Scores, intervals and p are those of the whole sweep.`;
  const drawn = JSON.stringify([whole ? null : [...keys], [...off.tasks]]);
  for (const [id, figure] of known.figures) {
    const element = document.getElementById(id);
    if (!element) known.figures.delete(id);
    else if (figure.drawn !== drawn && !element.closest("[hidden]")) {
      draw(element, figure.text, whole ? null : keys);
      figure.drawn = drawn;
    }
  }
}

function draw(element, text, keys) {
  const figure = JSON.parse(text);
  if (keys) only(figure, keys);
  onAxis(figure, element.id);
  const chooser = find(`select[data-axis-of="${element.id}"]`);
  figure.layout.uirevision = KEEP + (chooser ? chooser.value : "");
  Plotly.react(element, figure.data, figure.layout, config(element.id));
}

// The same object for a figure at all times: with another one plotly begins anew, and zoom is lost.
function config(id) {
  if (!known.configs.has(id)) {
    const bars = [["png", "svg"].map((format) => keeper(format, id)), ["resetScale2d"]];
    known.configs.set(id, { ...known.state.config, modeBarButtons: bars });
  }
  return known.configs.get(id);
}

// A button that keeps the figure as a file; its icon is the name of the format.
function keeper(format, filename) {
  const scale = format === "png" ? 2 : 1;
  const icon = {
    name: format,
    svg: `<svg xmlns="http://www.w3.org/2000/svg" width="30" height="16" viewBox="0 0 30 16"><text x="15" y="12.5"
      text-anchor="middle" font-size="12" font-weight="600" fill="#767b85">${format.toUpperCase()}</text></svg>`,
  };
  const click = (figure) => Plotly.downloadImage(figure, { format, filename, scale });
  return { name: format, title: `Keep the figure as ${format.toUpperCase()}`, icon, click };
}

// The lines, points and names of these schedules alone; a grey line that is asked for has its colour.
function only(figure, keys) {
  for (const trace of figure.data) {
    if (!trace.meta) continue;
    trace.visible = keys.has(trace.meta.schedule);
    if (trace.line && trace.line.width === 1) trace.line = { color: trace.meta.colour, width: 2 };
  }
  for (const one of figure.layout.annotations || []) if (one.name) one.visible = keys.has(one.name);
}

// -- time and keys

function ago(seconds) {
  if (seconds < 2) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${(seconds / 3600).toFixed(1)} h ago`;
}

function tick() {
  for (const one of document.querySelectorAll("time[data-at]")) {
    one.textContent = ago((Date.now() + behind) / 1000 - Number(one.dataset.at));
  }
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input");
  if (event.key === "Escape") {
    find("#words").value = "";
    find("#words").blur();
    sift();
  } else if (event.key === "/" && !typing) {
    event.preventDefault();
    find("#words").focus();
  } else if ((event.key === "j" || event.key === "k") && isOurs(event)) {
    jump(event.key === "j" ? 1 : -1);
  }
});
document.addEventListener("change", (event) => {
  const figure = known.figures.get(event.target.dataset.axisOf);
  if (!figure) return;
  figure.drawn = null;
  sift();
});
let typed = 0;
find("#words").addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(sift, 120);
});
ask();
setInterval(tick, 1000);

window.addEventListener("beforeprint", () => onPaper(true));

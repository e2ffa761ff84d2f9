// Asks the agent once a second, while the page is looked at, and draws what it says.
// Windows shown: a quarter of an hour, and of a young agent at least two minutes.
const WINDOWS = [24, 180], MODELS = 8;
const view = { chosen: null, filter: "", span: 10, order: "latest", frozen: false, hovered: false, cursor: null, missed: 0, unixOffset: 0, choose };
let live = null, state = null, failure = "", next = null, run = null, answeredAt = 0;

async function ask(path, parameters) {
  const query = new URLSearchParams(parameters).toString();
  const response = await fetch(`/api/v1/${path}${query ? `?${query}` : ""}`, { cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (!response.ok) throw new Error(`${response.status}: ${(await response.json()).message}`);
  return response.json();
}
function isNewRun(source) {
  if (run === source.started_ns) return false;
  run = source.started_ns;
  next = null;
  kept = [];
  windowsOf = new Map();
  return true;
}
async function pollLive() {
  const answer = await ask("live");
  isNewRun(answer.source);
  const offset = answer.source.unix_ms / 1000 - answer.source.now_ns / 1e9;
  // Steady, so that what is drawn does not shake; follows a clock that is set.
  if (Math.abs(offset - view.unixOffset) > 0.5) view.unixOffset = offset;
  live = answer;
  answeredAt = performance.now();
  const requests = await ask("requests", next === null ? { limit: FIRST } : { after: next, limit: KEEP });
  if (requests.source.started_ns === run) {
    next = requests.next;
    view.missed = requests.missed;
    keepRequests(requests.requests);
  }
}
// Windows of each question: of those that are over, the agent is asked once.
let windowsOf = new Map();
async function askHistory(parameters) {
  const key = JSON.stringify(parameters);
  const known = windowsOf.get(key) || new Map();
  const latest = Math.max(0, ...known.keys());
  const answer = await ask("history", latest ? { ...parameters, from: latest } : parameters);
  if (answer.source.started_ns !== run) { windowsOf = new Map(); return answer; }
  for (const window of answer.windows) known.set(window.index, window);
  const oldest = Math.floor(answer.source.now_ns / (answer.window_ms * 1e6)) - WINDOWS[1];
  for (const index of known.keys()) if (index < oldest) known.delete(index);
  windowsOf.set(key, known);
  return { ...answer, windows: [...known.values()] };
}
async function pollHistory() {
  if (!live) return;
  const chosen = view.chosen && JSON.parse(view.chosen);
  const models = live.models.slice(0, MODELS).map((model) => JSON.parse(keyOf(model)));
  // One after the other: a page needs one connection.
  const whole = await ask("history"), one = chosen ? await askHistory(chosen) : null, each = [];
  for (const model of models) each.push(await askHistory(model));
  const windowNs = whole.window_ms * 1e6;
  const last = Math.floor(whole.source.now_ns / windowNs);
  const count = Math.min(Math.max(last - Math.floor(whole.source.started_ns / windowNs) + 1, WINDOWS[0]), WINDOWS[1]);
  const firstIndex = last - count + 1;
  const gridOf = (windows) => {
    const byIndex = new Map(windows.map((window) => [window.index, window]));
    return Array.from({ length: count }, (_, at) => byIndex.get(firstIndex + at) || null);
  };
  const startedAt = whole.source.started_ns / windowNs - firstIndex;
  const times = Array.from({ length: count }, (_, at) => Math.round((firstIndex + at) * (windowNs / 1e9) + view.unixOffset));
  const isAlone = (name) => models.filter(({ model }) => model === name).length === 1;
  const nameOf = ({ model, version, ...where }) => (isAlone(model) ? model : [model, ...Object.values(where)].join(" · "));
  state = {
    windowNs, firstIndex, times, minutes: Math.round((count * windowNs) / 60e9), whole: gridOf(whole.windows), grid: gridOf((one || whole).windows), gpus: whole.gpus,
    perModel: each.map((history, at) => ({ name: nameOf(models[at]), key: JSON.stringify(models[at]), grid: gridOf(history.windows) }))
      .filter((one) => one.grid.some(Boolean) && (!chosen || one.key === view.chosen)),
    // The first window began before the agent, and the last one has only just begun: neither says much of a rate.
    isMeasured: (at) => at > startedAt && (at < count - 1 || whole.source.now_ns - last * windowNs > 2e9),
    spanOf: (at, seconds) => (at === count - 1 ? (whole.source.now_ns - last * windowNs) / 1e9 : seconds),
  };
}
function draw() {
  const nowNs = live ? live.source.now_ns + (failure ? 0 : (performance.now() - answeredAt) * 1e6) : 0;
  document.body.classList.toggle("stale", Boolean(failure));
  drawNotices(live, failure);
  $("state").className = `state ${failure ? "bad" : view.frozen ? "" : live ? "live" : ""}`;
  setText($("state"), failure ? "no answer" : view.frozen ? `frozen at ${clock(view.unixOffset + nowNs / 1e9)}` : live ? "live" : "connecting");
  if (!live) return;
  setText($("host"), live.source.hostname);
  document.title = `${live.source.hostname} · inferprobe`;
  setText($("version"), `inferprobe ${live.source.agent_version}`);
  drawStrip(live, state);
  drawModels(live, view);
  drawRequests(view, nowNs, live.models);
  drawGpus(live);
  drawHistory();
}
function drawHistory() {
  if (!state) return;
  const of = view.chosen ? JSON.parse(view.chosen).model : "All models";
  setText($("heat-note"), `${of}, last ${state.minutes} minutes: darker where more requests are, the line is p99`);
  const more = live.models.length + live.models_omitted - MODELS;
  setText($("charts-note"), `Means of 5 s, last ${state.minutes} minutes. ${view.chosen ? `Of ${of}.` : more > 0 ? `Throughput of the ${MODELS} models with most requests.` : ""}`);
  drawHeat(state.grid, state.times, view.cursor);
  drawCharts(state, view, live);
}
function setCursor(at) {
  if (view.cursor === at) return;
  view.cursor = at;
  if (!state) return;
  drawHeat(state.grid, state.times, at);
  for (const chart of charts.values()) drawLegendOf(chart, at);
}
onPlotCursor = (plot) => setCursor(isKnown(plot.cursor.idx) && plot.cursor.left >= 0 ? plot.cursor.idx : null);
function moveCursors(at) {
  setCursor(at);
  for (const chart of charts.values()) if (chart.plot) chart.plot.setCursor(at === null ? { left: -10, top: -10 } : { left: chart.plot.valToPos(state.times[at], "x"), top: 10 });
}
function choose(key) {
  view.chosen = key;
  const hash = key ? `#${new URLSearchParams(JSON.parse(key))}` : location.pathname;
  history.replaceState(null, "", hash);
  view.force = true;
  draw();
  view.force = false;
  pollHistory().then(drawHistory, () => {});
}
// A link such as /#model=ranker, as an alert has it.
function readHash() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (!wanted.has("model") || !live) return;
  const isMeant = (model) => Object.entries(JSON.parse(keyOf(model))).every(([key, value]) => !wanted.has(key) || wanted.get(key) === value);
  const meant = live.models.find(isMeant);
  if (meant && keyOf(meant) !== view.chosen) choose(keyOf(meant));
}
function freeze() {
  view.frozen = !view.frozen;
  $("freeze").setAttribute("aria-pressed", String(view.frozen));
  draw();
}
function makeChoice(box, options, current, onChoice) {
  const buttons = options.map(([value, text]) => el("button", { type: "button", "aria-pressed": String(value === current), on: { click: () => {
    buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(options[at][0] === value)));
    onChoice(value);
    view.force = true;
    draw();
    view.force = false;
  } } }, text));
  $(box).replaceChildren(...buttons);
  return buttons;
}
async function loop() {
  let count = 0, hashRead = false;
  for (;;) {
    if (!document.hidden && !view.frozen) {
      try {
        await pollLive();
        failure = "";
        draw();
        if (count % 5 === 0 || !state) await pollHistory();
        count += 1;
        if (!hashRead) { hashRead = true; readHash(); }
      } catch (error) {
        const since = live ? ` since ${clock(live.source.unix_ms / 1000)}` : "";
        failure = error instanceof TypeError || error.name === "TimeoutError" ? `The agent does not answer${since}.` : `The agent refuses: ${error.message}`;
      }
      draw();
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}
function begin() {
  readPalette();
  drawLegend();
  makeChoice("spans", [[2, "2 s"], [10, "10 s"], [60, "60 s"]], view.span, (value) => { view.span = value; });
  const orders = makeChoice("orders", [["latest", "Latest"], ["slowest", "Slowest"]], view.order, (value) => { view.order = value; });
  hearRequests(view);
  hearHeat(moveCursors);
  $("freeze").addEventListener("click", freeze);
  $("filter").addEventListener("input", () => { view.filter = $("filter").value; draw(); });
  addEventListener("hashchange", readHash);
  addEventListener("resize", () => { resizeCharts(); draw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readPalette(); draw(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) draw(); });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") { if (view.chosen) choose(null); document.activeElement.blur(); return; }
    if (event.target.matches("input")) return;
    if (event.key === "f") freeze();
    if (event.key === "s") orders[view.order === "slowest" ? 0 : 1].click();
    if (event.key === "/") { event.preventDefault(); $("filter").focus(); }
  });
  // Between two answers only what moves is drawn.
  setInterval(() => { if (live && !view.frozen && !failure && !document.hidden && kept.length) drawLanes(view, live.source.now_ns + (performance.now() - answeredAt) * 1e6); }, 100);
  loop();
}
// After the first paint, so that it does not wait for this.
requestAnimationFrame(() => setTimeout(begin));

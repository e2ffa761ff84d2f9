// Where the requests of each model waited, and why.
const rows = new Map();
// Replicas of a server differ only by their labels.
const keyOf = ({ served, labels }) => JSON.stringify({ ...served, ...labels });
const placeOf = (labels) => Object.entries(labels).map(([key, value]) => `${key} ${value}`);
// In what a replica differs from others that serve a model of this name; empty if it is the only one.
function apart(one, models) {
  const others = models.filter((other) => other.served.model === one.served.model && keyOf(other) !== keyOf(one));
  const differs = (key) => others.some((other) => (other.served[key] ?? other.labels[key]) !== (one.served[key] ?? one.labels[key]));
  const parts = [["server", one.served.server], ["version", `version ${one.served.version}`], ...["pod", "container", "namespace", "port"].map((key) => [key, key in one.labels ? `${key} ${one.labels[key]}` : ""])];
  return parts.filter(([key, text]) => text && differs(key)).map(([, text]) => text).join(" ");
}

function drawLegend() {
  $("legend").replaceChildren(...STAGES.map(([stage, noun]) => el("li", {}, swatch(`var(--${stage})`), noun)));
}
function modelRow(model, choose) {
  const row = { root: el("article", { class: "model" }), expanded: false };
  row.name = el("button", { class: "name", type: "button", "aria-expanded": "false", title: "Show this model alone, with its evidence", on: { click: () => choose(row) } });
  row.where = el("p", { class: "where" });
  row.figures = el("dl", { class: "figures" });
  row.bar = el("div", { class: "bar", role: "img" });
  row.mean = el("span", { class: "mean" });
  row.verdict = el("b");
  row.advice = el("span");
  row.why = el("p", { class: "why" }, row.verdict, row.advice);
  row.root.append(el("div", {}, row.name, row.where), row.figures, el("div", {}, el("div", { class: "barline" }, row.bar, row.mean), row.why));
  return row;
}
function figure(name, value, mark, title) {
  return el("div", { title: title || "" }, el("dt", {}, name), el("dd", { class: mark || (value === UNKNOWN || value === "–" ? "none" : "") }, value));
}
function kindOf(verdict) {
  if (verdict.fails.length) return "fails";
  return { fine: "fine", idle: "idle", unknown: "unknown" }[verdict.cause] || "slow";
}
function updateModel(row, model) {
  const { figures, now, verdict, served } = model;
  setText(row.name, served.model || "(no name)");
  const version = served.version === "default" ? [] : [`version ${served.version}`];
  setText(row.where, [served.server, ...version, ...placeOf(model.labels)].join(" · "));
  const errors = errorShare(figures);
  const items = [
    figure("req/s", rate(figures.per_second)),
    figure("errors", errors === null ? "–" : percent(errors), errors > 0 ? "bad" : "", `${grouped(figures.client_errors)} with 4xx, ${grouped(figures.server_errors)} with 5xx`),
    figure("p50", figures.requests ? duration(figures.p50_ns) : "–"),
    figure("p99", figures.requests ? duration(figures.p99_ns) : "–", "", `of ${grouped(figures.timed)} requests whose duration is known`),
    figure("in flight", isKnown(figures.in_flight) ? grouped(figures.in_flight) : UNKNOWN),
  ];
  if (figures.tokens) {
    items.push(figure("tokens/s", rate(figures.tokens.output_per_second)));
    if (isKnown(figures.tokens.first_token_ns)) items.push(figure("1st token", duration(figures.tokens.first_token_ns), "", "mean time to the first token"));
    if (isKnown(figures.tokens.token_gap_ns)) items.push(figure("per token", duration(figures.tokens.token_gap_ns), "", "mean time from one token to the next"));
  }
  row.figures.replaceChildren(...items);
  const total = Object.values(now.sums_ns).reduce((sum, ns) => sum + ns, 0);
  row.bar.className = now.requests > 0 && now.complete === 0 ? "bar unknown" : "bar";
  fillBar(row.bar, now.sums_ns, total || 1);
  row.bar.setAttribute("aria-label", total ? shares(now.sums_ns, total) : now.requests ? "parts unknown" : "no requests");
  setText(row.mean, isKnown(now.mean_ns) ? `⌀ ${duration(now.mean_ns)}` : now.requests ? UNKNOWN : "");
  row.mean.title = "mean duration";
  const kind = kindOf(verdict);
  row.why.className = `why ${kind}`;
  setText(row.verdict, verdict.headline);
  const focus = verdict.focus;
  const share = focus && kind !== "fine" ? ` · ${focus.noun} takes ${duration(focus.mean_ns)}, ${percent(focus.share)}${isKnown(focus.before_ns) ? `, ${duration(focus.before_ns)} before` : ""}` : "";
  setText(row.advice, share);
  if (row.expanded) updateEvidence(row, model);
}
function updateEvidence(row, model) {
  const { now, before, verdict } = model;
  const mean = (span, stage) => (span && span.complete ? span.sums_ns[stage] / span.complete : null);
  const total = Object.values(now.sums_ns).reduce((sum, ns) => sum + ns, 0);
  const lines = STAGES.filter(([stage]) => mean(now, stage) > 0 || mean(before, stage) > 0).map(([stage, noun]) => el("tr", {},
    el("td", {}, swatch(`var(--${stage})`), noun), el("td", { class: "num" }, isKnown(mean(now, stage)) ? duration(mean(now, stage)) : UNKNOWN),
    el("td", { class: "num" }, total ? percent(now.sums_ns[stage] / total) : "–"), el("td", { class: "num" }, isKnown(mean(before, stage)) ? duration(mean(before, stage)) : "–")));
  const table = el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Part"), el("th", { scope: "col", class: "num" }, "now"), el("th", { scope: "col", class: "num" }, "share"), el("th", { scope: "col", class: "num" }, "minute before"))), el("tbody", {}, ...lines));
  const words = [["because", verdict.headline]];
  if (isKnown(now.readers)) words.push(["readers", `${plural(now.readers, "thread")}, ${isKnown(now.readers_busy) ? `busy ${percent(now.readers_busy)}` : "busy share unknown: a thread has several requests in hand"}`]);
  if (isKnown(now.workers)) words.push(["workers", `${plural(now.workers, "process").replace("processs", "processes")}, busy ${percent(now.workers_busy)}`]);
  if (verdict.ruled_out.length) words.push(["not", verdict.ruled_out.join(", ")]);
  if (verdict.own_word) words.push(["it says", verdict.own_word]);
  if (verdict.advice) words.push(["try", verdict.advice]);
  words.push(["sure", verdict.certainty]);
  row.more.replaceChildren(table, el("dl", {}, ...words.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, text)])));
}
function expand(row, model, isExpanded) {
  row.expanded = isExpanded;
  row.name.setAttribute("aria-expanded", String(isExpanded));
  row.root.classList.toggle("chosen", isExpanded);
  if (row.more) row.more.remove();
  row.more = null;
  if (isExpanded) {
    row.more = el("div", { class: "more" });
    row.root.append(row.more);
    if (model) updateEvidence(row, model);
  }
}
function emptyModels(live) {
  if (live.servers.length) {
    return el("div", { class: "empty" }, el("b", {}, "No request has ended yet."),
      `${plural(live.servers.length, "server")} found: ${live.servers.map((one) => `${one.server} (${one.pids.slice(0, 4).map((pid) => `pid ${pid}`).join(", ") || "no process"})`).join(", ")}. Send one of them a request.`);
  }
  return el("div", { class: "empty" }, el("b", {}, "No inference server found."), el("ul", {},
    el("li", {}, "Start one: it is found within a second. ", el("code", {}, "inferprobe servers"), " lists those that are known by name."),
    el("li", {}, "Or name the port of any other server: ", el("code", {}, "inferprobe --watch-port 8000"), "."),
    el("li", {}, "If it runs already, ", el("code", {}, "inferprobe doctor"), " says what this host does not allow.")));
}
function drawModels(live, view) {
  const box = $("models");
  const wanted = view.filter.toLowerCase();
  const shown = live.models.filter((model) => keyOf(model) === view.chosen || [...Object.values(model.served), ...Object.values(model.labels)].some((name) => name.toLowerCase().includes(wanted)));
  const keys = new Set(shown.map(keyOf));
  for (const [key, row] of rows) if (!keys.has(key)) { row.root.remove(); rows.delete(key); }
  if (!live.models.length) { box.replaceChildren(emptyModels(live)); }
  else if (!shown.length) { box.replaceChildren(el("p", { class: "empty" }, "No model has this in its name.")); }
  else for (const stray of [...box.children]) if (!stray.classList.contains("model")) stray.remove();
  shown.forEach((model, at) => {
    const key = keyOf(model);
    let row = rows.get(key);
    if (!row) { row = modelRow(model, () => view.choose(key === view.chosen ? null : key)); rows.set(key, row); }
    if (row.expanded !== (key === view.chosen)) expand(row, model, key === view.chosen);
    updateModel(row, model);
    // Rows keep their place while one of them has the focus.
    if (box.children[at] !== row.root && !(row.root.isConnected && box.contains(document.activeElement))) box.insertBefore(row.root, box.children[at] || null);
  });
  const hidden = live.models_omitted + live.models.length - shown.length;
  setText($("models-note"), `Mean of the last ${Math.round(live.span_ms / 1000)} s, from first byte readable to last byte sent${hidden ? ` · ${plural(hidden, "model")} not shown` : ""}`);
}

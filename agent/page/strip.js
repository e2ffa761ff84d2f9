// The host in one line, and what is wrong with what is shown.
const tiles = new Map();
function tile(name, value, unit, sub, mark, title) {
  let one = tiles.get(name);
  if (!one) {
    one = { root: el("div"), value: el("dd"), sub: el("dd", { class: "sub" }), spark: el("canvas", { "aria-hidden": "true" }) };
    one.root.append(el("dt", {}, name), one.spark, one.value, one.sub);
    tiles.set(name, one);
    $("strip").append(one.root);
  }
  one.root.className = mark || "";
  one.root.title = title || "";
  one.value.replaceChildren(value, unit ? el("small", {}, ` ${unit}`) : "");
  setText(one.sub, sub);
  return one;
}
function spark(one, values, colour) {
  if (!one || !one.spark.clientWidth) return;
  const { context, width, height } = canvas2d(one.spark);
  const known = values.filter(isKnown);
  const top = Math.max(...known, 0);
  if (known.length < 2 || top === 0) return;
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.beginPath();
  let pen = false;
  values.forEach((value, at) => {
    if (!isKnown(value)) { pen = false; return; }
    const x = (at / (values.length - 1)) * (width - 4) + 2, y = height - 2 - (value / top) * (height - 4);
    if (pen) context.lineTo(x, y); else context.moveTo(x, y);
    pen = true;
  });
  context.stroke();
}
function drawStrip(live, state) {
  const { totals, cost } = live;
  const seconds = `last ${Math.round(live.span_ms / 1000)} s`;
  const share = errorShare(totals);
  const one = tile("Requests", rate(totals.per_second), "/s", seconds);
  const errors = tile("Errors", share === null ? "–" : digits(share * 100), share === null ? "" : "%",
    share === null ? "no request ended" : `${grouped(totals.server_errors)} with 5xx, ${grouped(totals.client_errors)} with 4xx`, totals.server_errors ? "bad" : share > 0 ? "warn" : "");
  const [p99, unit] = totals.requests ? duration(totals.p99_ns).split(" ") : ["–", ""];
  const slow = tile("p99", p99, unit, totals.requests ? `half take at most ${duration(totals.p50_ns)}` : "no request ended", "", "of requests whose duration is known; at most 9 % off");
  tile("In flight", isKnown(totals.in_flight) ? grouped(totals.in_flight) : UNKNOWN, "", "being served now");
  const { ratio, missed_bytes } = live.coverage;
  tile("Coverage", isKnown(ratio) ? coverage(ratio).replace(" %", "") : "–", isKnown(ratio) ? "%" : "", isKnown(ratio) ? `${bytes(missed_bytes)} belong to no request` : "no bytes seen yet", ratio !== null && ratio < 0.999 ? "bad" : "", "share of the bytes on watched sockets that belong to counted requests");
  const lost = live.losses.filter((loss) => loss.metric === "inferprobe_records_lost_total").reduce((sum, loss) => sum + loss.count, 0);
  tile("Not measured", grouped(lost), "", lost ? "since the start: see below" : "nothing lost since the start", "", "records, transfers and connections that did not become part of a request");
  tile("Agent's cost", isKnown(cost.cpus) ? digits(cost.cpus * 100) : "–", isKnown(cost.cpus) ? "% of a CPU" : "", `${bytes(cost.memory_bytes)} of memory`, "", "the agent's process; its programs in the kernel are not in it");
  if (state) {
    const grid = state.whole;
    spark(one, grid.map((window, at) => (state.isMeasured(at) ? (window ? window.requests : 0) / state.spanOf(at, state.windowNs / 1e9) : null)), palette.handler);
    spark(errors, grid.map((window) => (window && window.requests ? (window.server_errors + window.client_errors) / window.requests : null)), palette.bad);
    spark(slow, grid.map((window) => (window ? quantile(window.durations, 0.99) : null)), palette.queue);
  }
  const box = $("losses");
  box.hidden = !live.losses.length;
  setText(box.firstElementChild, `What was not measured, by reason: ${plural(live.losses.length, "counter")}`);
  box.lastElementChild.replaceChildren(...live.losses.map((loss) => el("li", {}, `${grouped(loss.count)} × ${loss.reason}${loss.server ? ` of ${loss.server}` : ""} (${loss.metric})`)));
}
function notice(kind, text, remedy) {
  return el("div", { class: `notice ${kind}` }, el("p", {}, text), remedy ? el("p", {}, ...remedy) : null);
}
function drawNotices(live, failure) {
  const all = [];
  if (failure) all.push(notice("bad", failure, ["What is shown is the last that it said. It is asked again every second."]));
  if (live && live.probes.state === "failed") all.push(notice("bad", `The probes stopped: ${live.probes.reason || "reason unknown"}. Requests are not measured.`, ["Run ", el("code", {}, "inferprobe doctor"), " for the remedy, then restart the agent."]));
  if (live && live.probes.state === "off") all.push(notice("warn", "The probes are switched off: no request is measured.", ["Start the agent without ", el("code", {}, "--no-probes"), "."]));
  const ratio = live && live.coverage.ratio;
  if (isKnown(ratio) && ratio < 0.999) {
    const worst = [...live.servers].filter((one) => isKnown(one.coverage.ratio)).sort((a, b) => b.coverage.missed_bytes - a.coverage.missed_bytes)[0];
    all.push(notice("bad", `Only ${coverage(ratio)} of the bytes on watched sockets belong to counted requests: the figures below miss some.`,
      [worst ? `Most are of ${worst.server}: ${coverage(worst.coverage.ratio)} covered. ` : "", "The reasons are listed under “What was not measured”. ", el("code", {}, "inferprobe doctor"), " says which the host causes."]));
  }
  // Set only if it changed: a screen reader reads it out.
  if ($("notices").textContent !== all.map((one) => one.textContent).join("")) $("notices").replaceChildren(...all);
}

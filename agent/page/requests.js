// The latest requests, as a browser shows its network.
// The first question asks for fewer, so that many pages opened at once cost the agent little memory.
const KEEP = 4096, FIRST = 1000, LISTED = 60;
let kept = [];
function keepRequests(requests) {
  for (const request of requests) {
    // The first moment that is known, and whether it is the arrival.
    request.from = request.arrival_ns ?? request.first_read_ns;
    request.to = request.last_write_ns ?? request.first_write_ns ?? request.last_read_ns;
  }
  kept = kept.concat(requests).slice(-KEEP);
}
const took = (request) => (isKnown(request.arrival_ns) && isKnown(request.last_write_ns) ? request.last_write_ns - request.arrival_ns : null);
const statusMark = (status) => (status >= 500 ? "s5" : status >= 400 ? "s4" : status === 0 ? "s0" : "");
const statusText = (request) => (request.status === 0 ? UNKNOWN : isKnown(request.grpc_status) ? `gRPC ${request.grpc_status}` : String(request.status));
function segments(request) {
  // In the order of its life; one grey piece if the parts are unknown.
  const stages = request.stages_ns;
  if (!stages) return [["", request.to - request.from]];
  return STAGES.map(([stage]) => [stage, stages[stage]]).filter(([, ns]) => ns > 0);
}
function describeRequest(request) {
  const lines = [`${request.served.model} · ${request.served.server} · ${statusText(request)} · ${request.method}`];
  lines.push(`duration ${duration(took(request))}${request.because ? ` · slow because of ${request.because}` : ""}`);
  if (request.stages_ns) for (const [stage, noun] of STAGES) { if (request.stages_ns[stage]) lines.push(`${noun}: ${duration(request.stages_ns[stage])}`); }
  else lines.push("parts unknown: a stage was not observed");
  if (request.stream) lines.push(`${isKnown(request.stream.chunks) ? plural(request.stream.chunks, "chunk") : "chunks unknown"}${isKnown(request.stream.mean_gap_ns) ? `, ${duration(request.stream.mean_gap_ns)} apart` : ""}`);
  if (request.tokens && isKnown(request.tokens.output)) lines.push(`${plural(request.tokens.output, "token")} generated`);
  const { port, ...container } = request.labels;
  const place = [`pid ${request.pid}`, isKnown(request.local_port) ? `port ${port ?? request.local_port}` : "unix socket", ...placeOf(container)];
  lines.push(`${place.join(", ")} · ${bytes(request.request_bytes)} in, ${bytes(request.response_bytes)} out`);
  return lines.join("\n");
}
function chunkTimes(request) {
  const stream = request.stream;
  if (!stream || !isKnown(stream.first_chunk_ns)) return [];
  let at = stream.first_chunk_ns;
  return [at, ...stream.gaps_us.map((gap) => (at += gap * 1000))];
}
const isMeant = (request, view) => (view.chosen ? keyOf(request) === view.chosen : !view.filter || [...Object.values(request.served), ...Object.values(request.labels)].some((name) => name.toLowerCase().includes(view.filter.toLowerCase())));

let hits = [];
function drawLanes(view, nowNs) {
  const { context, width, height, size } = canvas2d($("lanes"));
  const foot = size * 1.3, spanNs = view.span * 1e9, fromNs = nowNs - spanNs;
  const scale = width / spanNs;
  const shown = kept.filter((request) => request.to >= fromNs && request.from <= nowNs && isMeant(request, view)).sort((a, b) => a.from - b.from);
  // Each request goes to the first lane that is free again: the number of lanes is how many ran at once.
  const ends = [], placed = [], gapNs = 1.5 / scale;
  for (const request of shown) {
    let lane = ends.findIndex((end) => end <= request.from);
    if (lane < 0) { lane = ends.length; ends.push(0); }
    ends[lane] = Math.max(request.to, request.from + 1 / scale) + gapNs;
    placed.push([request, lane]);
  }
  const lanes = Math.max(ends.length, 4);
  const step = Math.min((height - foot - 2) / lanes, size * 1.1);
  const thick = Math.max(step - (step > 4 ? 2 : step > 2 ? 0.5 : 0), 0.8);
  context.strokeStyle = palette.line;
  context.fillStyle = palette.dim;
  context.lineWidth = 1;
  const marks = width < 500 ? 2 : 5;
  for (let at = 0; at <= marks; at += 1) {
    const x = Math.round((width * at) / marks) + 0.5;
    context.beginPath(); context.moveTo(x, 0); context.lineTo(x, height - foot); context.stroke();
    const text = at === marks ? "now" : `−${digits((view.span * (marks - at)) / marks)} s`;
    context.textAlign = at === 0 ? "left" : at === marks ? "right" : "center";
    context.fillText(text, x, height - size * 0.2);
  }
  hits = [];
  for (const [request, lane] of placed) {
    const y = 2 + lane * step;
    let x = (request.from - fromNs) * scale;
    const left = x;
    for (const [stage, ns] of segments(request)) {
      const wide = ns * scale;
      context.fillStyle = stage ? palette[stage] : palette.dim;
      context.fillRect(x, y, Math.max(wide, 0.7), thick);
      x += wide;
    }
    if (step > 4) {
      context.fillStyle = palette.ink;
      for (const at of chunkTimes(request)) context.fillRect((at - fromNs) * scale, y, 1, thick);
    }
    if (request.status >= 400) { context.fillStyle = request.status >= 500 ? palette.bad : palette.warn; context.fillRect(left, y + thick - 1.5, Math.max(x - left, 3), 1.5); }
    hits.push([left, y, Math.max(x, left + 3), y + step, request]);
  }
  return { shown, lanes: ends.length };
}
function drawRequests(view, nowNs, models) {
  const { shown, lanes } = drawLanes(view, nowNs);
  const note = shown.length
    ? `${plural(shown.length, "request")} in ${view.span} s, at most ${lanes} at once${view.missed ? ` · ${plural(view.missed, "request")} came too fast to be shown` : ""}`
    : `No request ended in the last ${view.span} s`;
  setText($("requests-note"), note);
  if (view.hovered && !view.force) return;
  const order = view.order === "slowest" ? (a, b) => (took(b) ?? -1) - (took(a) ?? -1) : (a, b) => b.number - a.number;
  const listed = [...shown].sort(order).slice(0, LISTED);
  const longest = Math.max(1, ...listed.map((request) => request.to - request.from));
  const table = $("requests"), body = table.tBodies[0];
  const now = view.unixOffset + nowNs / 1e9;
  while (body.rows.length > listed.length) body.deleteRow(-1);
  const places = listed.map((request) => apart(request, models));
  table.classList.toggle("replicated", places.some(Boolean));
  listed.forEach((request, at) => {
    let row = body.rows[at];
    if (!row) {
      row = body.insertRow();
      row.append(el("td"), el("td", { class: "clip" }), el("td", { class: "clip replica" }), el("td"), el("td", { class: "num" }), el("td", {}, el("div", { class: "bar", role: "img" })));
      row.tabIndex = at === 0 ? 0 : -1;
      row.setAttribute("aria-describedby", "tip");
    }
    if (row.number === request.number && row.longest === longest && row.place === places[at]) { setText(row.cells[0], ago(now, view, request)); return; }
    row.number = request.number;
    row.longest = longest;
    row.place = places[at];
    row.request = request;
    setText(row.cells[0], ago(now, view, request));
    setText(row.cells[1], request.served.model);
    row.cells[1].title = request.served.model;
    setText(row.cells[2], places[at]);
    row.cells[2].title = places[at];
    setText(row.cells[3], statusText(request));
    row.cells[3].className = `status ${statusMark(request.status)}`;
    setText(row.cells[4], duration(took(request)));
    const bar = row.cells[5].firstChild;
    const total = request.to - request.from || 1;
    if (request.stages_ns) fillBar(bar, request.stages_ns, total, longest);
    else {
      const part = el("i");
      part.style.background = "var(--none)";
      part.style.flex = `0 0 ${(100 * total) / longest}%`;
      bar.replaceChildren(part);
    }
    for (const tick of [...bar.querySelectorAll("u")]) tick.remove();
    for (const chunk of chunkTimes(request)) {
      const tick = el("u");
      tick.style.left = `${(100 * (chunk - request.from)) / longest}%`;
      bar.append(tick);
    }
    bar.setAttribute("aria-label", request.stages_ns ? shares(request.stages_ns, total) : "parts unknown");
  });
}
function ago(now, view, request) {
  const seconds = Math.max(0, now - (view.unixOffset + request.to / 1e9));
  return seconds < 10 ? `${seconds.toFixed(1)} s ago` : `${seconds.toFixed(0)} s ago`;
}
function hearRequests(view) {
  const lanes = $("lanes");
  lanes.addEventListener("mousemove", (event) => {
    const box = lanes.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const hit = hits.findLast(([left, top, right, bottom]) => x >= left - 2 && x <= right + 2 && y >= top && y <= bottom);
    showTip(event, hit ? describeRequest(hit[4]) : "");
  });
  lanes.addEventListener("mouseleave", (event) => showTip(event, ""));
  const body = $("requests").tBodies[0];
  body.addEventListener("mousemove", (event) => {
    const row = event.target.closest("tr");
    showTip(event, row && row.request ? describeRequest(row.request) : "");
  });
  // From row to row by the arrow keys; rows stay while one of them has the focus.
  body.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr"), step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!step) return;
    event.preventDefault();
    if (row[step]) row[step].focus();
  });
  body.addEventListener("focusin", (event) => {
    view.hovered = true;
    for (const row of body.rows) row.tabIndex = row === event.target ? 0 : -1;
    const box = event.target.getBoundingClientRect();
    showTip({ clientX: box.left + box.width / 2, clientY: box.bottom }, event.target.request ? describeRequest(event.target.request) : "");
  });
  body.addEventListener("focusout", (event) => { view.hovered = false; showTip(event, ""); });
  body.addEventListener("mouseenter", () => { view.hovered = true; });
  body.addEventListener("mouseleave", (event) => { view.hovered = body.contains(document.activeElement); showTip(event, ""); });
}

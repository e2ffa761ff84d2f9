// Latency as a map: time to the right, duration upwards, darker where more requests are.
const upperNs = (bucket) => 1000 * 2 ** (bucket / 4);
function quantile(durations, share) {
  const total = durations.reduce((sum, [, count]) => sum + count, 0);
  if (!total) return null;
  const rank = Math.max(1, Math.ceil(total * share));
  let below = 0;
  for (const [bucket, count] of durations) { below += count; if (below >= rank) return upperNs(bucket - 0.5); }
  return null;
}
let heatState = null;
function drawHeat(grid, times, cursor) {
  const canvas = $("heat");
  const { context, width, height, size } = canvas2d(canvas);
  const left = size * 4.2, foot = size * 1.5, wide = width - left, high = height - foot - 4;
  let low = Infinity, top = -Infinity, most = 0;
  for (const window of grid) for (const [bucket, count] of window ? window.durations : []) { low = Math.min(low, bucket); top = Math.max(top, bucket); most = Math.max(most, count); }
  context.fillStyle = palette.dim;
  if (most === 0) {
    context.textAlign = "center";
    context.fillText("No request with a known duration in the last 15 minutes", width / 2, height / 2);
    heatState = null;
    return;
  }
  const first = low, last = top;
  low = Math.max(0, low - 2); top += 2;
  if (top - low < 12) { const add = Math.ceil((12 - top + low) / 2); low = Math.max(0, low - add); top += add; }
  const cell = wide / grid.length, step = high / (top - low + 1);
  const y = (bucket) => 2 + high - (bucket - low + 1) * step;
  context.textAlign = "right";
  context.strokeStyle = palette.line;
  let lastY = Infinity;
  for (let power = 3; power < 13; power += 1) for (const lead of [1, 3]) {
    const at = 4 * Math.log2((lead * 10 ** power) / 1000);
    if (at < low || at > top) continue;
    const line = y(at) + step;
    if (lastY - line < size * 1.2) continue;
    lastY = line;
    context.beginPath(); context.moveTo(left, Math.round(line) + 0.5); context.lineTo(width, Math.round(line) + 0.5); context.stroke();
    context.fillText(duration(lead * 10 ** power), left - 6, line + size * 0.25);
  }
  grid.forEach((window, at) => {
    for (const [bucket, count] of window ? window.durations : []) {
      context.globalAlpha = 0.18 + 0.82 * (Math.log1p(count) / Math.log1p(most));
      context.fillStyle = palette.handler;
      context.fillRect(left + at * cell, y(bucket), Math.max(cell - 0.5, 1), Math.max(step - 0.5, 1));
    }
  });
  context.globalAlpha = 1;
  // p99 as a line on top.
  context.strokeStyle = palette.inner_queue;
  context.lineWidth = 1.5;
  context.beginPath();
  let pen = false;
  grid.forEach((window, at) => {
    const p99 = window ? quantile(window.durations, 0.99) : null;
    if (!isKnown(p99)) { pen = false; return; }
    const x = left + (at + 0.5) * cell, line = y(4 * Math.log2(p99 / 1000)) + step / 2;
    if (pen) context.lineTo(x, line); else { context.moveTo(x, line); context.lineTo(x + 1, line); }
    pen = true;
  });
  context.stroke();
  context.lineWidth = 1;
  context.fillStyle = palette.dim;
  const marks = width < 500 ? 3 : 5;
  const moments = Array.from({ length: marks + 1 }, (_, at) => times[Math.round(((grid.length - 1) * at) / marks)]);
  for (const [at, text] of clocks(moments).entries()) {
    context.textAlign = at === 0 ? "left" : at === marks ? "right" : "center";
    context.fillText(text, left + (wide * at) / marks, height - size * 0.25);
  }
  if (cursor !== null) {
    context.strokeStyle = palette.ink;
    context.setLineDash([3, 3]);
    const x = left + (cursor + 0.5) * cell;
    context.beginPath(); context.moveTo(x, 0); context.lineTo(x, height - foot); context.stroke();
    context.setLineDash([]);
  }
  canvas.setAttribute("aria-label", `Requests by duration: from ${duration(upperNs(first - 1))} to ${duration(upperNs(last))}, at most ${plural(most, "request")} of one duration in 5 s`);
  heatState = { left, cell, y, step, grid, times, low, top, high };
}
function hearHeat(onCursor) {
  const canvas = $("heat");
  canvas.addEventListener("mousemove", (event) => {
    if (!heatState) return;
    const box = canvas.getBoundingClientRect();
    const at = Math.floor((event.clientX - box.left - heatState.left) / heatState.cell);
    const bucket = heatState.low + Math.floor((2 + heatState.high - (event.clientY - box.top)) / heatState.step);
    const window = heatState.grid[at];
    if (at < 0 || at >= heatState.grid.length) { onCursor(null); showTip(event, ""); return; }
    onCursor(at);
    const count = (window ? window.durations : []).find(([one]) => one === bucket);
    const p99 = window ? quantile(window.durations, 0.99) : null;
    showTip(event, `${clock(heatState.times[at])}\n${count ? `${plural(count[1], "request")} of ${duration(upperNs(bucket - 1))} to ${duration(upperNs(bucket))}` : "no request of this duration"}${isKnown(p99) ? `\np99 ${duration(p99)} of ${plural(window.requests, "request")}` : ""}`);
  });
  canvas.addEventListener("mouseleave", (event) => { onCursor(null); showTip(event, ""); });
}

// The four dashboards of TorchServe's documentation, with one cursor.
const CHARTS = [
  ["memory", "GPU memory", "GPUMemoryUtilization, GPUMemoryUsed", (value) => `${digits(value)} %`],
  ["latency", "Latency", "HandlerTime, PredictionTime, QueueTime", (value) => duration(value * 1e6)],
  ["throughput", "Throughput", "rate of ts_inference_requests_total", (value) => `${rate(value)}/s`],
  ["errors", "Error rate", "Requests5XX over all requests, of inference", (value) => `${digits(value)} %`],
];
const charts = new Map();
const meanMs = (sum) => (sum && sum.count ? sum.ns / sum.count / 1e6 : null);

function chartData(state, view) {
  const { times, grid, perModel, gpus } = state;
  const devices = [...new Set(gpus.map((reading) => reading.device))];
  const first = state.firstIndex;
  const readings = devices.map((device) => {
    const byIndex = new Map(gpus.filter((one) => one.device === device).map((one) => [Math.floor(one.at_ns / state.windowNs), one]));
    return { name: `GPU ${device}`, readings: times.map((_, at) => byIndex.get(first + at) || null) };
  });
  const sums = (key) => grid.map((window) => (window ? meanMs(window[key]) : null));
  const seconds = state.windowNs / 1e9;
  const perSecond = (windows) => windows.map((window, at) => (state.isMeasured(at) ? (window ? window.requests : 0) / state.spanOf(at, seconds) : null));
  return {
    memory: readings.map((one) => ({ name: one.name, values: one.readings.map((reading) => (reading ? reading.memory_pct : null)), say: (at) => { const reading = one.readings[at]; return reading ? `${isKnown(reading.memory_pct) ? `${digits(reading.memory_pct)} %` : UNKNOWN}, ${isKnown(reading.memory_mib) ? `${grouped(reading.memory_mib)} MiB` : UNKNOWN}` : "–"; } })),
    latency: [["HandlerTime", "handler_time"], ["PredictionTime", "prediction_time"], ["QueueTime", "queue_time"]].map(([name, key]) => ({ name, values: sums(key), dash: key === "prediction_time" ? [6, 4] : undefined })),
    throughput: perModel.map((one) => ({ name: one.name, values: perSecond(one.grid) })),
    errors: [{ name: view.chosen ? JSON.parse(view.chosen).model : "all models", values: grid.map((window) => (window && window.requests ? (100 * window.server_errors) / window.requests : null)) }],
  };
}
function drawCharts(state, view, live) {
  const all = chartData(state, view);
  for (const [key, title, families, say] of CHARTS) {
    const series = all[key];
    let chart = charts.get(key);
    if (!chart) {
      chart = { root: el("div", { class: "chart" }, el("h3", {}, `${title} `, el("small", {}, families))), legend: el("ul"), box: el("div", { class: "plot" }), plot: null, names: "" };
      chart.root.append(chart.legend, chart.box);
      charts.set(key, chart);
      $("charts").append(chart.root);
    }
    chart.series = series;
    chart.say = say;
    if (!series.length) {
      if (chart.plot) { chart.plot.destroy(); chart.plot = null; chart.names = ""; }
      const reason = key !== "memory" ? "No request ended in the last 15 minutes." : live && live.gpus.readable ? "The GPUs are being read." : "No NVIDIA GPU on this host, or its driver cannot be read: inferprobe doctor says which.";
      chart.legend.replaceChildren();
      chart.box.replaceChildren(el("p", { class: "empty" }, reason));
      continue;
    }
    const data = [state.times, ...series.map((one) => one.values)];
    const names = JSON.stringify([series.map((one) => one.name), palette.ink]);
    if (chart.plot && chart.names === names) { chart.plot.setData(data); }
    else {
      if (chart.plot) chart.plot.destroy();
      chart.box.replaceChildren();
      chart.names = names;
      chart.plot = makePlot(key, chart, data, say);
    }
    drawLegendOf(chart, view.cursor);
  }
}
function makePlot(key, chart, data, say) {
  const size = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const axis = { stroke: palette.dim, grid: { stroke: palette.line, width: 1 }, ticks: { show: false }, font: `${size * 0.75}px system-ui` };
  return new uPlot({
    width: chart.box.clientWidth, height: chart.box.clientHeight, legend: { show: false },
    cursor: { sync: { key: "time" }, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { y: { range: (_, low, high) => [0, key === "memory" ? 100 : isKnown(high) && high > 0 ? high * 1.1 : 1] } },
    axes: [{ ...axis, size: size * 2, space: size * 6, values: (_, ticks) => clocks(ticks) }, { ...axis, size: size * 4.6, values: (_, ticks) => ticks.map(say) }],
    series: [{}, ...chart.series.map((one, at) => ({ label: one.name, stroke: SERIES[at % SERIES.length], width: 1.75, dash: one.dash, spanGaps: false, points: { show: (plot, series, from, to) => isLonely(plot.data[series], from, to), size: 4 } }))],
    hooks: { setCursor: [(plot) => onPlotCursor(plot)] },
  }, data, chart.box);
}
// A value without neighbours would be no line.
function isLonely(values, from, to) {
  let known = 0;
  for (let at = from; at <= to; at += 1) { if (isKnown(values[at])) { known += 1; if (at > from && isKnown(values[at - 1])) return false; } }
  return known > 0;
}
let onPlotCursor = () => {};
function drawLegendOf(chart, cursor) {
  if (!chart.series.length) return;
  const items = chart.series.map((one, at) => {
    let index = cursor;
    if (index === null) index = one.values.findLastIndex(isKnown);
    const value = index >= 0 ? one.values[index] : null;
    const text = one.say ? one.say(index) : isKnown(value) ? chart.say(value) : "–";
    return el("li", {}, swatch(SERIES[at % SERIES.length]), one.name, el("b", {}, text));
  });
  chart.legend.replaceChildren(...items);
}
function resizeCharts() {
  for (const chart of charts.values()) if (chart.plot) chart.plot.setSize({ width: chart.box.clientWidth, height: chart.box.clientHeight });
}

// The GPUs, and who uses them.
function drawGpus(live) {
  const { gpus } = live;
  $("gpus").hidden = !gpus.devices.length;
  setText($("gpus-note"), gpus.devices.length ? "" : gpus.readable ? "The driver reports no GPU." : "No NVIDIA GPU on this host, or its driver cannot be read. inferprobe doctor says which.");
  const body = $("gpus").tBodies[0];
  body.replaceChildren(...gpus.devices.map((gpu) => {
    const used = gpu.processes.map((one) => `${one.model || one.server || "other"} (pid ${one.pid}): ${isKnown(one.busy_ratio) ? `busy ${percent(one.busy_ratio)}, ` : ""}${bytes(one.memory_bytes)}`);
    const throttled = gpu.throttled_by.length ? `Throttled: ${gpu.throttled_by.join(", ")}. ` : "";
    return el("tr", {},
      el("td", { title: gpu.uuid }, gpu.mig ? `${gpu.device}, MIG ${gpu.mig}` : gpu.device), el("td", { class: "num" }, percent(gpu.busy_ratio)),
      el("td", { class: "num" }, `${bytes(gpu.memory_used_bytes)} of ${bytes(gpu.memory_total_bytes)}`),
      el("td", { class: "num" }, isKnown(gpu.power_watts) ? `${digits(gpu.power_watts)} of ${isKnown(gpu.power_limit_watts) ? digits(gpu.power_limit_watts) : UNKNOWN} W` : UNKNOWN),
      el("td", { class: "num" }, isKnown(gpu.temperature_celsius) ? `${digits(gpu.temperature_celsius)} °C` : UNKNOWN),
      el("td", {}, throttled, used.join(", ") || "nobody that the driver reports"));
  }));
}

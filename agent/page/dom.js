// Elements. Names come from clients, so text is only ever set as text.
const $ = (id) => document.getElementById(id);
function el(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key === "class") element.className = value;
    else if (key === "on") for (const [name, listener] of Object.entries(value)) element.addEventListener(name, listener);
    else if (key.includes("-") || key === "role" || key === "scope") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
function swatch(colour) {
  const element = el("i", { class: "swatch" });
  element.style.background = colour;
  return element;
}
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// Colours for canvases, read again when the theme changes.
let palette = {};
function readPalette() {
  for (const name of ["ink", "dim", "line", "soft", "card", "bad", "warn", "focus", ...STAGES.map(([stage]) => stage)]) palette[name] = css(`--${name}`);
}
function canvas2d(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const size = parseFloat(getComputedStyle(document.documentElement).fontSize);
  context.font = `${size * 0.78}px system-ui, sans-serif`;
  return { context, width, height, size };
}
function showTip(event, text) {
  const tip = $("tip");
  if (!text) { tip.hidden = true; return; }
  setText(tip, text);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const x = Math.min(event.clientX + 14, innerWidth - box.width - 8);
  const y = event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 16;
  tip.style.transform = `translate(${Math.max(4, x)}px, ${Math.max(4, y)}px)`;
}
// A bar of parts, each as wide as its share.
function fillBar(bar, stages, total, scale) {
  const parts = STAGES.filter(([stage]) => stages[stage] > 0);
  while (bar.children.length > parts.length) bar.lastChild.remove();
  parts.forEach(([stage, noun], at) => {
    const part = bar.children[at] || bar.appendChild(el("i"));
    part.style.background = `var(--${stage})`;
    part.style.flex = `0 0 ${(100 * stages[stage]) / (scale || total)}%`;
    part.title = `${noun}: ${duration(stages[stage])}, ${percent(stages[stage] / total)}`;
  });
}
const shares = (stages, total) => STAGES.filter(([stage]) => stages[stage] / total >= 0.01)
  .map(([stage, noun]) => `${noun} ${percent(stages[stage] / total)}`).join(", ");

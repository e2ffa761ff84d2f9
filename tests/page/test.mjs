// Opens the page of a real agent in a real browser, with three real servers under load, and checks what it shows.
//
// node test.mjs AGENT PYTHON PLAYWRIGHT CHROMIUM FOLDER [PICTURE]: pictures of the page go to FOLDER; with PICTURE, only that
// one is taken. Exit code 0: everything held.
import assert from "node:assert/strict";
import path from "node:path";
import { HOSTILE, children, finish, folder, launch, others, pause, startAgent, startLoad, startServers, until } from "./rig.mjs";

const [picture] = others;
// Loads of which the first paint is taken, and the longest time until it.
const PAINTS = 8, PAINT_MS = 100;

// A tab that keeps what a browser complains about, and every address that it asks.
async function open(browser, url, viewport, colorScheme = "light", path = "") {
  const tab = await browser.newPage({ viewport, colorScheme, reducedMotion: "reduce" });
  tab.complaints = [];
  tab.on("console", (message) => { if (["error", "warning"].includes(message.type())) tab.complaints.push(message.text()); });
  tab.on("pageerror", (error) => tab.complaints.push(String(error)));
  tab.on("request", (one) => { if (!one.url().startsWith(url) && !one.url().startsWith("data:")) tab.complaints.push(`asked ${one.url()}`); });
  await tab.goto(url + path);
  return tab;
}
const names = (tab) => tab.locator(".model .name").allTextContents();
// Other servers of this host may be on the page too.
const OWN = ["ranker", "llama-8b", "embedder", HOSTILE];
const hasOwn = async (tab) => { const shown = await names(tab); return OWN.every((name) => shown.includes(name)); };
const rowOf = (tab, model, server) => tab.locator(".model").filter({ has: tab.getByRole("button", { name: model, exact: true }) }).filter({ hasText: server }).first();
const verdictOf = (tab, model, server) => rowOf(tab, model, server).locator(".why b").textContent();
const overflow = (tab) => tab.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
const firstRow = (tab) => tab.evaluate(() => document.querySelector("#requests tbody tr")?.request.number ?? 0);

async function checkModels(tab) {
  await until("each model, by its name", () => hasOwn(tab));
  assert.equal(await tab.evaluate(() => window.hacked), undefined);
  assert.equal(await tab.locator("img").count(), 0);
  await until("verdict on the busy reader", async () => (await verdictOf(tab, "ranker", "gunicorn")).startsWith("waits to be read: 1 reader, busy"));
}
async function checkMovement(tab) {
  const before = await firstRow(tab);
  await until("rows move", async () => (await firstRow(tab)) > before);
  const legend = () => tab.locator("#charts .chart").nth(2).locator("li b").allTextContents();
  await until("throughput of each model", async () => (await legend()).length >= 4);
  const values = JSON.stringify(await legend());
  await until("throughput moves", async () => JSON.stringify(await legend()) !== values);
  assert.equal(await tab.locator("#charts .chart").count(), 4);
  await tab.locator("#heat").hover({ position: { x: 500, y: 60 } });
  assert(await tab.locator("#tip").isVisible(), "the latency map names what is under the pointer");
  await tab.mouse.move(0, 0);
}
// Which of two replicas served a request: in the list, by keyboard in its description, and alone if it is chosen.
async function checkReplicas(tab, [, chat, , replica]) {
  const places = [chat, replica].map((port) => `port ${port}`);
  await until("both replicas", async () => (await names(tab)).filter((name) => name === "llama-8b").length === 2);
  await until("a place for each", async () => {
    const shown = await tab.locator("#requests tbody td.replica").allTextContents();
    return places.every((place) => shown.includes(place));
  });
  await tab.locator("#requests tbody tr").first().focus();
  await tab.keyboard.press("ArrowDown");
  assert.equal(await tab.evaluate(() => document.activeElement.rowIndex), 2, "an arrow key goes to the next row");
  const described = await tab.locator("#tip").textContent();
  assert(await tab.locator("#tip").isVisible() && /pid \d+, port \d+/.test(described), described);
  await tab.keyboard.press("Escape");
  assert(!(await tab.locator("#tip").isVisible()));
  const portsShown = () => tab.evaluate(() => [...document.querySelectorAll("#requests tbody tr")].map((row) => row.request.labels.port));
  await rowOf(tab, "llama-8b", places[1]).locator(".name").press("Enter");
  await until("only requests of the replica", async () => {
    const ports = await portsShown();
    return ports.length > 0 && ports.every((port) => port === String(replica));
  });
  await tab.keyboard.press("Escape");
}
async function checkKeys(tab) {
  await tab.keyboard.press("s");
  assert.equal(await tab.getByRole("button", { name: "Slowest" }).getAttribute("aria-pressed"), "true");
  await tab.keyboard.press("f");
  const frozen = await firstRow(tab);
  await pause(2500);
  assert.equal(await firstRow(tab), frozen, "frozen rows stay");
  await tab.keyboard.press("f");
  await tab.keyboard.press("s");
  await rowOf(tab, "ranker", "gunicorn").locator(".name").press("Enter");
  await until("evidence", async () => (await tab.locator(".more dd").allTextContents()).some((text) => / of .* requests have all times/.test(text)));
  assert(tab.url().includes("#model=ranker"), tab.url());
  await tab.keyboard.press("Escape");
  assert.equal(await tab.locator(".more").count(), 0);
  await tab.keyboard.press("/");
  await tab.keyboard.type("llama");
  await until("filter", async () => (await names(tab)).every((name) => name.includes("llama")));
}
async function checkLayouts(browser, url) {
  for (const [width, height, scheme] of [[360, 800, "dark"], [1280, 900, "light"], [3840, 2160, "dark"]]) {
    const tab = await open(browser, url, { width, height }, scheme);
    await until("figures", () => hasOwn(tab));
    await until("charts", async () => (await tab.locator(".uplot").count()) >= 3);
    await pause(1500);
    assert(await overflow(tab) <= 0, `${width} px: the page is ${await overflow(tab)} px too wide`);
    await tab.screenshot({ path: path.join(folder, `page-${width}.png`), fullPage: width < 3000 });
    assert.deepEqual(tab.complaints, [], `${width} px`);
    await tab.close();
  }
}
// How long the browser takes for a line of text is not the page's: what it takes more is. The best of several loads,
// because a busy machine delays some.
async function checkPaint(browser, url) {
  const best = { healthz: Infinity, "": Infinity };
  for (let load = 0; load < 2 * PAINTS; load += 1) {
    const path = load % 2 ? "" : "healthz";
    const tab = await open(browser, url, { width: 1280, height: 900 }, "light", path);
    const paint = await until("a paint", () => tab.evaluate(() => performance.getEntriesByType("paint")[0]?.startTime));
    best[path] = Math.min(best[path], paint);
    await tab.close();
  }
  const [text, page] = [best.healthz, best[""]].map(Math.round);
  console.log(`first paint after ${page} ms, of a line of text after ${text} ms`);
  assert(page - text < PAINT_MS, `the page takes ${page - text} ms more than a line of text`);
}
// The policy holds even for a script that is already in the document.
async function checkPolicy(browser, url) {
  const tab = await open(browser, url, { width: 800, height: 600 });
  await tab.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "window.hacked = 1";
    document.body.append(script);
    document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked = 2'>");
  });
  await pause(500);
  assert.equal(await tab.evaluate(() => window.hacked), undefined);
  assert(tab.complaints.some((text) => text.includes("Content Security Policy")), String(tab.complaints));
  await tab.close();
}
async function checkEmpty(browser) {
  const port = await startAgent("agent-without-probes", ["--no-probes"]);
  const tab = await open(browser, `http://127.0.0.1:${port}/`, { width: 1280, height: 900 });
  await until("what to do", async () => (await tab.locator("#models").textContent()).includes("inferprobe doctor"));
  await until("probes are off", async () => (await tab.locator("#notices").textContent()).includes("--no-probes"));
  await until("no GPU", async () => (await tab.locator("#gpus-note").textContent()) !== "" || (await tab.locator("#gpus tbody tr").count()) > 0);
  await tab.screenshot({ path: path.join(folder, "page-empty.png"), fullPage: true });
  assert.deepEqual(tab.complaints, []);
  children.pop().kill("SIGTERM");
  await until("that it does not answer", async () => (await tab.locator("#notices").textContent()).includes("does not answer"));
  await tab.close();
}

async function run() {
  const ports = await startServers();
  const port = await startAgent("agent", ["--no-discover", ...ports.flatMap((one) => ["--watch-port", String(one)])]);
  startLoad(ports, !picture);
  const url = `http://127.0.0.1:${port}/`;
  const browser = await launch();
  try {
    if (picture) {
      await pause(70_000);
      const tab = await open(browser, url, { width: 1180, height: 800 });
      await until("each model", () => hasOwn(tab));
      await until("charts", async () => (await tab.locator(".uplot").count()) >= 3);
      await rowOf(tab, "ranker", "gunicorn").locator(".name").press("Enter");
      // Until the agent knows what it costs.
      await pause(8000);
      await tab.screenshot({ path: picture });
      return;
    }
    const tab = await open(browser, url, { width: 1280, height: 900 });
    await checkModels(tab);
    await checkMovement(tab);
    await checkReplicas(tab, ports);
    await checkKeys(tab);
    assert.deepEqual(tab.complaints, []);
    await tab.close();
    await checkLayouts(browser, url);
    await checkPaint(browser, url);
    await checkPolicy(browser, url);
    await checkEmpty(browser);
  } finally {
    await browser.close();
  }
}
await finish(run, picture ? `wrote ${picture}` : "the page holds");

// Measures what being watched costs the agent: scrapes while ten tabs of its page and three `top`s are open, compared with
// scrapes while as many show a recording instead, which take the same CPU time of the machine, and with none open.
// Groups of scrapes alternate, so that what else the machine does hits all alike.
//
// node watched.mjs AGENT PYTHON PLAYWRIGHT CHROMIUM FOLDER
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import path from "node:path";
import { agent, children, finish, folder, freePort, launch, pause, request, start, startAgent, startLoad, startServers, until } from "./rig.mjs";

const TABS = 10, TOPS = 3, ROUNDS = 4, SCRAPES = 150, EVERY_MS = 50, SETTLE_MS = 6000, RECORDED = "30s";
// Most that the p99 of a scrape and the agent's memory may grow.
const MOST_MS = 5, MOST_MIB = 6;
const KINDS = ["nothing open", "open on a recording", "open on the agent"];

function scrape(port, keepAlive) {
  return new Promise((resolve, reject) => {
    const began = performance.now();
    http.get({ host: "127.0.0.1", port, path: "/metrics", agent: keepAlive }, (response) => {
      response.resume();
      response.on("end", () => resolve(performance.now() - began));
    }).on("error", reject);
  });
}
async function scrapes(port) {
  const keepAlive = new http.Agent({ keepAlive: true, maxSockets: 1 }), times = [];
  for (let number = 0; number < SCRAPES; number += 1) {
    times.push(await scrape(port, keepAlive));
    await pause(EVERY_MS);
  }
  keepAlive.destroy();
  return times;
}
const quantile = (times, share) => times.toSorted((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * share))];
const cpuTicks = (pid) => readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ").slice(11, 13).reduce((sum, ticks) => sum + Number(ticks), 0);
const memoryMib = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;

function startTop(url) {
  const terminal = spawn("script", ["--quiet", "--flush", "--command", `stty cols 120 rows 40; exec '${agent}' top ${url}`, "/dev/null"],
    { stdio: ["pipe", "ignore", "ignore"], env: { ...process.env, TERM: "xterm-256color" } });
  children.push(terminal);
  return terminal;
}
// Has a recording shown from its start.
async function play(recording) {
  const port = await freePort();
  const player = start(agent, ["view", recording, "--listen", `127.0.0.1:${port}`], "view.log");
  await until("the recording", async () => (await request(port, "/healthz")).status === 200);
  return { player, port };
}
async function group(kind, browser, port, pid, recording) {
  const shown = kind === 1 ? await play(recording) : { port };
  const url = `http://127.0.0.1:${shown.port}/`;
  const tabs = [], tops = [];
  for (let number = 0; kind > 0 && number < TABS; number += 1) {
    const tab = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    await tab.goto(url);
    tabs.push(tab);
  }
  for (let number = 0; kind > 0 && number < TOPS; number += 1) tops.push(startTop(url));
  await pause(SETTLE_MS);
  const [began, ticks] = [performance.now(), cpuTicks(pid)];
  const times = await scrapes(port);
  const cpus = (cpuTicks(pid) - ticks) / 100 / ((performance.now() - began) / 1000);
  for (const tab of tabs) {
    assert.equal(await tab.evaluate(() => document.visibilityState), "visible");
    const shows = await tab.locator(".model").count();
    assert(shows >= 3, `each tab shows models, not ${shows}: ${await tab.locator("#notices").textContent()}`);
    await tab.close();
  }
  for (const top of tops) { assert.equal(top.exitCode, null, "each top runs"); top.kill("SIGTERM"); }
  if (shown.player) shown.player.kill("SIGTERM");
  return { times, cpus, memory: memoryMib(pid) };
}
async function run() {
  const ports = await startServers();
  const port = await startAgent("agent", ["--no-discover", ...ports.flatMap((one) => ["--watch-port", String(one)])]);
  const { pid } = children.at(-1);
  startLoad(ports, true);
  await pause(SETTLE_MS);
  const recording = path.join(folder, "watched.jsonl");
  writeFileSync(recording, execFileSync(agent, ["record", RECORDED, "--url", `127.0.0.1:${port}`], { maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "ignore"] }));
  const browser = await launch();
  const groups = KINDS.map(() => []);
  try {
    for (let round = 0; round < ROUNDS; round += 1) for (const kind of KINDS.keys()) groups[kind].push(await group(kind, browser, port, pid, recording));
  } finally {
    await browser.close();
  }
  console.log("| Ten tabs, three tops | scrape p50 | p99 | p99 of each group | agent's CPU | memory |\n|---|---|---|---|---|---|");
  const all = groups.map((of, kind) => {
    const times = of.flatMap((one) => one.times), p99 = quantile(times, 0.99), memory = Math.max(...of.map((one) => one.memory));
    const cpus = of.reduce((sum, one) => sum + one.cpus, 0) / of.length;
    console.log(`| ${KINDS[kind]} | ${quantile(times, 0.5).toFixed(2)} ms | ${p99.toFixed(2)} ms | ${of.map((one) => quantile(one.times, 0.99).toFixed(1)).join(", ")} | ${(cpus * 100).toFixed(1)} % | ${memory.toFixed(1)} MiB |`);
    return { p99, memory };
  });
  const [idle, elsewhere, here] = all;
  assert(here.p99 - elsewhere.p99 <= MOST_MS, "a scrape takes longer while the agent is watched");
  assert(here.memory - groups[0][0].memory <= MOST_MIB, "the agent takes more memory while it is watched");
  assert(idle.p99 > 0);
}
await finish(run, "being watched costs what it may");

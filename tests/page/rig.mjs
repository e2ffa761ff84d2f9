// What the tests of the page share: a real agent, real servers under load, and a browser.
//
// Every script has the arguments AGENT PYTHON PLAYWRIGHT CHROMIUM FOLDER, and further ones of its own; logs go to FOLDER.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createWriteStream, mkdirSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { createRequire } from "node:module";

const [program, python, playwright, chromiumPath, output, ...rest] = process.argv.slice(2).map((one) => path.resolve(one));
const { chromium } = createRequire(import.meta.url)(playwright);
export const agent = program, folder = output, others = rest;
const here = path.dirname(fileURLToPath(import.meta.url));
export const HOSTILE = "<img src=x onerror=\"window.hacked=1\">";
export const children = [];
const timers = [];
let stopped = false;

export function start(command, parameters, log) {
  const child = spawn(command, parameters, { stdio: ["ignore", "ignore", "pipe"], cwd: here, env: { ...process.env, HOME: folder, PYTHONDONTWRITEBYTECODE: "1" } });
  child.stderr.pipe(createWriteStream(path.join(folder, log)));
  children.push(child);
  return child;
}
export function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export async function until(what, holds, seconds = 60) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await holds();
    if (found) return found;
    assert(Date.now() < deadline, `not in ${seconds} s: ${what}`);
    await pause(200);
  }
}
export function request(port, target, body, keepAlive) {
  return new Promise((resolve) => {
    const text = body ? JSON.stringify(body) : "";
    const options = { host: "127.0.0.1", port, path: target, method: body ? "POST" : "GET", agent: keepAlive, headers: body ? { "content-type": "application/json", "content-length": Buffer.byteLength(text) } : {} };
    const sent = http.request(options, (response) => {
      let answer = "";
      response.on("data", (part) => { answer += part; });
      response.on("end", () => resolve({ status: response.statusCode, body: answer }));
    });
    sent.on("error", () => resolve({ status: 0, body: "" }));
    sent.end(text);
  });
}
// Sends a request every so many ms, whether or not the ones before were answered, on at most this many connections.
function load(port, everyMs, connections, target, body) {
  const keepAlive = new http.Agent({ keepAlive: true, maxSockets: connections });
  let open = 0, number = 0;
  timers.push(setInterval(() => {
    if (stopped || open >= connections) return;
    open += 1;
    request(port, target, body(number++), keepAlive).then(() => { open -= 1; });
  }, everyMs));
}

export async function startServers() {
  const ports = [await freePort(), await freePort(), await freePort(), await freePort()];
  const servers = [
    (port) => ["gunicorn", "--workers", "1", "--bind", `127.0.0.1:${port}`, "sync_app:app"],
    (port) => ["uvicorn", "--no-access-log", "--log-level", "error", "--port", String(port), "app:app"],
    (port) => ["hypercorn", "--bind", `127.0.0.1:${port}`, "app:app"],
    // A replica of the second, which has the same models.
    (port) => ["uvicorn", "--no-access-log", "--log-level", "error", "--port", String(port), "app:app"],
  ];
  for (const [at, port] of ports.entries()) {
    start(python, ["-m", ...servers[at](port)], `server-${at}.log`);
    await until(`server on ${port}`, async () => (await request(port, "/health")).status === 200);
  }
  return ports;
}
export async function startAgent(name, parameters) {
  const port = await freePort();
  start(agent, ["serve", "--listen", `127.0.0.1:${port}`, ...parameters], `${name}.log`);
  await until(`${name} on ${port}`, async () => (await request(port, "/healthz")).status === 200);
  return port;
}
export const launch = () => chromium.launch({ executablePath: chromiumPath, args: ["--no-sandbox"] });
export function startLoad([ranker, chat, mixed, replica], isReplicated) {
  // One reader that is busy all the time: six clients, each waits for its answer.
  load(ranker, 5, 6, "/v1/completions", () => ({ model: "ranker", work_ms: 21 }));
  load(chat, 300, 8, "/v1/chat/completions", (number) => ({ model: "llama-8b", stream: true, tokens: 12 + (number % 9), gap_ms: 30 }));
  if (isReplicated) load(replica, 1500, 2, "/v1/chat/completions", () => ({ model: "llama-8b", work_ms: 700 }));
  load(mixed, 60, 4, "/v1/embeddings", () => ({ model: "embedder", work_ms: 4 }));
  load(mixed, 900, 2, "/v1/completions", () => ({ model: HOSTILE, work_ms: 2 }));
}
// A signal ends what was started too.
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => { for (const child of children) child.kill("SIGTERM"); process.exit(1); });
// Runs a check, ends what was started, and this program: exit code 0 if everything held.
export async function finish(check, held) {
  mkdirSync(folder, { recursive: true });
  let failed = null;
  try { await check(); } catch (error) { failed = error; }
  stopped = true;
  for (const timer of timers) clearInterval(timer);
  for (const child of children) child.kill("SIGTERM");
  if (failed) { console.error(failed.stack || failed); process.exit(1); }
  console.log(held);
  process.exit(0);
}

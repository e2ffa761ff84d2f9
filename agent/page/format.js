"use strict";
// Words and numbers. What is unknown is said so.
const UNKNOWN = "unknown";
const isKnown = (value) => value !== null && value !== undefined;

function digits(value) {
  const size = Math.abs(value);
  if (size >= 100 || size === 0) return value.toFixed(0);
  return size >= 10 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(2).replace(/\.?0+$/, "");
}
const grouped = (value) => Math.round(value).toLocaleString("en-US");
function duration(ns) {
  if (!isKnown(ns)) return UNKNOWN;
  if (ns < 1e3) return `${Math.round(ns)} ns`;
  if (ns < 1e6) return `${digits(ns / 1e3)} µs`;
  if (ns < 1e9) return `${digits(ns / 1e6)} ms`;
  return ns < 120e9 ? `${digits(ns / 1e9)} s` : `${digits(ns / 60e9)} min`;
}
function bytes(value) {
  if (!isKnown(value)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${digits(value)} ${units[unit]}`;
}
const percent = (share) => (isKnown(share) ? `${digits(share * 100)} %` : UNKNOWN);
const rate = (value) => (value >= 1000 ? grouped(value) : digits(value));
// Never rounds up to 100 %: that would hide what is missing.
function coverage(ratio) {
  if (!isKnown(ratio)) return UNKNOWN;
  return ratio === 1 ? "100 %" : `${(Math.floor(ratio * 1e5) / 1e3).toFixed(ratio > 0.999 ? 3 : 2)} %`;
}
const clock = (unix) => new Date(unix * 1000).toLocaleTimeString("en-GB");
// Of marks on an axis: with seconds if there are several in a minute.
const clocks = (times) => times.map((unix) => (times.length > 1 && times.at(-1) - times[0] < 60 * (times.length - 1) ? clock(unix) : clock(unix).slice(0, 5)));
const plural = (count, noun) => `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
function errorShare(figures) {
  return figures.requests ? (figures.server_errors + figures.client_errors) / figures.requests : null;
}

const STAGES = [
  ["accept", "wait for accept"], ["queue", "wait to be read"], ["receive", "client sends"], ["starved", "wait for a CPU"],
  ["inner_queue", "wait for a worker"], ["worker", "worker"], ["handler", "server works"], ["stream", "response is sent"],
];
const SERIES = ["#4c83ff", "#f97316", "#16a34a", "#a855f7", "#eab308", "#22b8cf", "#ec4899", "#8b94a3"];

// Keeps the page fresh. The server says which grants have changed (server-sent events); the page then asks for these, and
// for those on the screen that are older than STALE. It also shows the filter. Nothing is kept, nothing is sent elsewhere.
"use strict";
const STALE = 15_000, MOST = 60, PAUSE = 1_000, LONGEST_PAUSE = 30_000; // milliseconds; MOST: rows
const PART = 4; // a pause is so many times as long as what was done before it
const SECTIONS = ["counts", "trouble", "made", "drawn", "providers", "events", "daemon"];
const scale = document.body.dataset.scale;
const made = new WeakMap(); // when a row was made
const changed = new Set();
let all = false, busy = false, failures = 0, notBefore = 0, asked = 0, since = null;

const rows = () => [...document.querySelectorAll("tbody[data-grant]")];
const byName = () => new Map(rows().map((row) => [row.dataset.grant, row]));

function onScreen(row) {
  const box = row.getBoundingClientRect();
  return box.height > 0 && box.bottom > 0 && box.top < innerHeight;
}

function wanted() {
  const old = performance.now() - STALE;
  const stale = rows().filter((row) => (made.get(row) ?? 0) < old && onScreen(row)).map((row) => row.dataset.grant);
  const found = [...new Set([...changed, ...stale])];
  if (found.length || performance.now() - asked < STALE) return found;
  all ||= rows().length === 0; // what is no grant grows old too
  return rows().slice(0, 1).map((row) => row.dataset.grant);
}

async function fetched(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(30_000) });
  if (answer.status === 404 && path !== pageAt()) return null; // a grant is gone: the whole page is asked for
  if (!answer.ok) throw new Error(String(answer.status));
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

const pageAt = () => `./?as=${scale}`;
const rowsAt = (names) => `page/rows?as=${scale}${names.map((name) => `&grant=${encodeURIComponent(name)}`).join("")}`;

async function refresh() {
  const names = wanted();
  if (busy || document.hidden || !(all || names.length)) return;
  const begun = performance.now();
  if (begun < notBefore) return;
  busy = true;
  asked = begun;
  const whole = all || names.length > MOST;
  all = false;
  names.forEach((name) => changed.delete(name));
  try {
    const found = whole ? null : await fetched(rowsAt(names));
    if (found !== null && found.body.dataset.start === document.body.dataset.start) take(found, names);
    else take(await fetched(pageAt()), null);
    failures = 0;
    since = null;
    say("");
  } catch {
    names.forEach((name) => changed.add(name));
    all ||= whole;
    failures += 1;
    since ??= new Date().toLocaleTimeString();
    say(`No answer since ${since}: what you see is old. brokerd or brokerctl page may have ended.`);
  } finally {
    busy = false;
    const now = performance.now(), pause = Math.max(PAUSE * 2 ** failures, PART * (now - begun));
    notBefore = now + Math.min(LONGEST_PAUSE, pause);
  }
}

function say(words) {
  const old = document.getElementById("old");
  if (old.textContent !== words) old.textContent = words;
}

function take(found, names) { // the named grants, or, for null, all
  for (const id of SECTIONS) {
    const mine = document.getElementById(id), its = found.getElementById(id);
    if (mine && its && mine.outerHTML !== its.outerHTML) {
      mine.className = its.className;
      mine.replaceChildren(...its.childNodes); // the element stays: screen readers say what changes in it
    }
  }
  if (names === null) {
    document.body.dataset.start = found.body.dataset.start;
    document.querySelectorAll(".axis").forEach((axis, n) => axis.replaceWith(found.querySelectorAll(".axis")[n]));
  }
  const known = byName();
  for (const row of [...found.querySelectorAll("tbody[data-grant]")]) {
    made.set(row, performance.now());
    place(row, known.get(row.dataset.grant));
    known.delete(row.dataset.grant);
  }
  for (const [name, row] of known) {
    if (names === null || names.includes(name)) row.remove(); // brokerd has no such grant any more
  }
  filter();
  count();
}

function count() {
  for (const id of ["problems", "others"]) {
    const number = document.querySelectorAll(`#${id} tbody`).length;
    document.querySelector(`#${id} .number`).textContent = number;
    if (id === "problems") document.title = titleOf(number);
  }
}

const titleOf = (number) => (number ? `brokerd: ${number} problem${number === 1 ? "" : "s"}` : "brokerd");

function place(row, old) {
  const stays = old && old.dataset.in === row.dataset.in && old.dataset.rank === row.dataset.rank;
  if (stays) {
    const focused = old.contains(document.activeElement);
    if (!focused) old.replaceWith(row);
    return;
  }
  old?.remove();
  const table = document.querySelector(`#${row.dataset.in} table`);
  table.insertBefore(row, [...table.tBodies].find((each) => before(row, each)) ?? null);
}

function before(a, b) {
  const [x, y] = [Number(a.dataset.rank), Number(b.dataset.rank)];
  return x < y || (x === y && a.dataset.grant < b.dataset.grant);
}

function filter() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows()) {
    const text = words.length ? row.textContent.toLowerCase() : "";
    row.hidden = !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  document.getElementById("shown").textContent = words.length ? `${shown} shown` : "";
}

const events = new EventSource("page/events");
events.addEventListener("changed", (event) => {
  const said = JSON.parse(event.data);
  said.grants.forEach((name) => changed.add(name));
  all ||= said.more > 0;
  refresh();
});
events.addEventListener("open", () => {
  all = true; // what changed while there was no connection is not known, also since the page was made
});
rows().forEach((row) => made.set(row, performance.now()));
setInterval(refresh, PAUSE);
document.addEventListener("visibilitychange", refresh);
document.getElementById("tools").hidden = false;
document.getElementById("filter").addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement.tagName !== "INPUT") {
    event.preventDefault();
    document.getElementById("filter").focus();
  }
});

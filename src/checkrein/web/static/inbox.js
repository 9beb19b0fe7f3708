// Comfort only: everything works without. Nothing here answers a question.
"use strict";

const started = performance.now();
const since = () => (performance.now() - started) / 1000;

// -- time ---------------------------------------------------------------------------------------

function lasting(seconds) {
  let left = Math.max(0, Math.floor(seconds));
  const parts = [];
  for (const [size, name] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count || parts.length) parts.push([count, name]);
  }
  const told = parts.slice(0, 2).filter(([count]) => count);
  return told.map(([count, name]) => `${count} ${name}`).join(" ") || "0 s";
}

function tick() {
  for (const one of document.querySelectorAll("[data-left]")) {
    // What came later than the page counts from when it came.
    one.begun ??= one.closest("#list")?.begun ?? 0;
    const left = Number(one.dataset.left) - (since() - one.begun);
    one.textContent = lasting(one.closest("#wait") ? Math.ceil(left) : left);
    one.closest(".left")?.classList.toggle("soon", left < 60);
  }
  const approve = document.querySelector("#approve[data-wait]");
  if (approve && since() > Number(approve.dataset.wait)) {
    approve.disabled = false;
    approve.removeAttribute("data-wait");
    document.querySelector("#wait").textContent = "It can be approved now.";
  }
}

// -- news ---------------------------------------------------------------------------------------

async function current() {
  const response = await fetch(location.href, { redirect: "error", headers: { "X-Renew": "1" } });
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

async function renew() {
  const shown = document.querySelector("[data-news]");
  const page = await current();
  const now = page.querySelector(`[data-news="${shown.dataset.news}"]`);
  if (shown.dataset.news === "question") {
    // Never under somebody's finger: what is on the page stays, and says that it is old.
    const same = now && now.dataset.state === shown.dataset.state;
    document.querySelector("#changed").hidden = Boolean(same);
    return;
  }
  if (!now) return location.reload();
  const chosen = document.activeElement?.getAttribute("href");
  const notice = shown.querySelector(".notice");
  shown.replaceChildren(...now.childNodes);
  if (notice) shown.prepend(notice);
  shown.begun = since();
  document.title = page.title;
  rows().find((one) => one.getAttribute("href") === chosen)?.focus();
}

function listen() {
  const events = new EventSource("/events");
  let renewed = Promise.resolve();
  events.addEventListener("news", () => {
    renewed = renewed.then(renew).catch(() => {}); // one after the other: the last is the newest
  });
  events.addEventListener("over", () => {
    events.close();
    location.reload();
  });
  window.addEventListener("pagehide", () => events.close());
}

// -- keys ---------------------------------------------------------------------------------------

const rows = () => [...document.querySelectorAll(".row h2 a")];

function step(by) {
  const every = rows();
  const at = every.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : every.length - 1) : at + by;
  every[Math.min(Math.max(next, 0), every.length - 1)]?.focus();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  d: () => document.querySelector("#deny")?.focus(), // the return key then denies
  u: () => location.assign("/"),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});

tick();
setInterval(tick, 250);
if (document.querySelector("[data-news]")) listen();

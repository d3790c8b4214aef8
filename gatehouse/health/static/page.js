// Keeps the page up to date: fetches it again and swaps the parts that differ. Without this file the
// page is as it was when it was asked for, and asks for itself anew once in a while.
"use strict";

const EVERY_MS = 5000;
const LIMIT_MS = 8000;
const lost = document.getElementById("lost");
let timer = 0;
let busy = false;

function span(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

function tell(root) {
  const now = Date.now() / 1000;
  for (const time of root.querySelectorAll("time[data-at]")) {
    const at = Number(time.dataset.at);
    const text = at <= now ? `${span(now - at)} ago` : `in ${span(at - now)}`;
    if (time.textContent !== text) time.textContent = text;
  }
}

function swap(fresh) {
  const ids = (root) => [...root.querySelectorAll("main [data-part]")].map((each) => each.id).join();
  if (ids(fresh) !== ids(document)) {
    // Another component, or the first document: it is another page.
    document.querySelector("main").replaceWith(document.adoptNode(fresh.querySelector("main")));
  }
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const here = document.getElementById(part.id);
    if (part.innerHTML !== here.innerHTML) here.innerHTML = part.innerHTML;
    here.className = part.className;
    here.hidden = part.hidden;
  }
  const columns = document.getElementById("columns");
  if (columns) columns.className = fresh.getElementById("columns").className;
  document.title = fresh.title;
  document.documentElement.dataset.mood = fresh.documentElement.dataset.mood;
  document.querySelector("link[rel=icon]").href = fresh.querySelector("link[rel=icon]").getAttribute("href");
}

async function refresh() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    // The browser keeps the last answer and asks whether it still holds.
    const answer = await fetch("/", { cache: "no-cache", signal: AbortSignal.timeout(LIMIT_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    tell(fresh);
    tell(document);
    swap(fresh);
    lost.hidden = true;
  } catch {
    lost.hidden = false;
  } finally {
    busy = false;
  }
}

function run() {
  clearInterval(timer);
  if (document.hidden) return;
  timer = setInterval(refresh, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  run();
  refresh();
});
setInterval(() => { if (!document.hidden) tell(document); }, 1000);
run();

// The dashboard's script. Every page works without it: it adds dialogs, the reader's time zone, a choice that lasts, and pages that
// follow what happens.
"use strict";

const one = (selector, inside = document) => inside.querySelector(selector);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// Times in the reader's zone. The title keeps UTC.

const ages = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const dates = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

function age(seconds) {
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (seconds >= length) return ages.format(-Math.floor(seconds / length), unit);
  }
  return seconds < 5 ? "just now" : ages.format(-seconds, "second");
}

function showTimes(inside = document) {
  for (const time of all("time[data-as]", inside)) {
    const at = new Date(time.dateTime);
    const words = time.dataset.as === "age" ? age(Math.max(0, Math.round((Date.now() - at) / 1000))) : dates.format(at);
    if (time.textContent !== words) time.textContent = words;
  }
}

// Commands to copy. Browsers have a clipboard only over TLS and on the own machine.

function showCopying(inside = document) {
  if (!navigator.clipboard) return;
  for (const button of all("[data-copy]", inside)) {
    button.hidden = false;
  }
}

async function copy(button) {
  await navigator.clipboard.writeText(button.dataset.copy);
  const words = button.lastChild;
  words.textContent = "Copied";
  setTimeout(() => (words.textContent = "Copy"), 2000);
}

// Dialogs: the panel of another page, shown above this one.

// A page that is such a panel itself goes on without it.

const dialog = one("#dialog");
const isPanel = !!one("main [data-panel]");
let opener = null;

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function load(address, options = {}) {
  const headers = { "Cotter-Script": "dialog" };
  // With the key, a form that is sent again is done once.
  if (options.method === "POST") headers["Idempotency-Key"] = randomKey();
  const send = () => fetch(address, { credentials: "same-origin", headers, ...options });
  const response = await send().catch(() => new Promise((again) => setTimeout(again, 1000)).then(send));
  // The act is done, or the session has ended: go where the server sends us.
  if (response.redirected) {
    leave(response.url);
    return null;
  }
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

// The same page with another `#` would not be loaded anew.
function leave(address) {
  const next = new URL(address, location.href);
  if (next.href === location.href) location.reload();
  else location.assign(next.href);
}

let sending = false;

async function openDialog(address, options) {
  // A second click does not send a form twice.
  if (options && sending) return;
  let page;
  if (options) sending = true;
  try {
    page = await load(address, options);
  } catch {
    const unknown = options ? "It is not known whether anything was changed: load the page to see it." : "Nothing was changed.";
    say(`The server does not answer. ${unknown}`, true);
    return;
  } finally {
    if (options) sending = false;
  }
  const panel = page && one("[data-panel]", page);
  if (!page) return;
  if (!panel) {
    if (!options) location.assign(address);
    return;
  }
  dialog.replaceChildren(document.adoptNode(panel));
  showTimes(dialog);
  showCopying(dialog);
  if (!dialog.open) dialog.showModal();
  let first = one("input:not([type=hidden]):not(:disabled), select, .primary, .button, button", dialog);
  // Of a group, what is chosen.
  if (first && first.type === "radio") first = one(`input[name="${first.name}"]:checked`, dialog) || first;
  const chosen = one("[role=alert]", dialog);
  if (chosen) {
    chosen.tabIndex = -1;
    chosen.focus();
  } else if (first) first.focus();
}

if (dialog) {
  // A secret is shown only once: no stray click or key closes it. A browser lets no page refuse a second Escape, unless the
  // dialog says that it is not closed so.
  const hasSecret = () => !!one("[data-secret]", dialog);
  new MutationObserver(() => {
    dialog.setAttribute("closedby", hasSecret() ? "none" : "closerequest");
  }).observe(dialog, { childList: true });
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    if (opener && opener.isConnected) opener.focus();
    opener = null;
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && !hasSecret()) dialog.close();
  });
  dialog.addEventListener("cancel", (event) => {
    if (hasSecret()) event.preventDefault();
  });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
  const closing = event.target.closest("[data-close]");
  if (closing && dialog.open) {
    event.preventDefault();
    dialog.close();
    return;
  }
  const link = event.target.closest("a[data-dialog]");
  if (link && !isPanel && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
    event.preventDefault();
    if (!dialog.open) opener = link;
    openDialog(link.href);
  }
  for (const menu of all("details[data-menu][open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const menu = one("details[data-menu][open]");
  if (menu) {
    menu.open = false;
    one("summary", menu).focus();
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (isPanel || !("dialog" in form.dataset)) return;
  event.preventDefault();
  const button = event.submitter;
  const fields = new URLSearchParams(new FormData(form, button));
  const address = new URL(button && button.hasAttribute("formaction") ? button.formAction : form.action);
  if (!dialog.open) opener = one("summary", button.closest("details") || form) || button;
  const menu = button && button.closest("details[data-menu]");
  if (menu) menu.open = false;
  if (form.method === "post") {
    openDialog(address, { method: "POST", body: fields });
  } else {
    if (form.id === "devices-form") addKept(fields);
    address.search = fields;
    openDialog(address.href);
  }
});

// The choice of devices. It lasts over pages of the same selection and over what the page loads by itself.

const kept = new Set();

function boxes() {
  return all("#devices input[name=device]");
}

function addKept(fields) {
  const shown = new Set(boxes().map((box) => box.value));
  for (const device of kept) {
    if (!shown.has(device)) fields.append("device", device);
  }
}

function showChoice() {
  const everything = one("#all");
  const status = one("#chosen");
  if (!everything || !status) return;
  for (const box of boxes()) {
    box.checked = everything.checked || kept.has(box.value);
    box.disabled = everything.checked;
  }
  const page = one("#page-all");
  if (page) {
    page.hidden = false;
    page.disabled = everything.checked;
    page.checked = boxes().length > 0 && boxes().every((box) => box.checked);
  }
  const words = everything.checked || kept.size === 0 ? "" : `${kept.size} chosen`;
  if (status.textContent !== words) status.textContent = words;
}

document.addEventListener("change", (event) => {
  const box = event.target;
  if (box.id === "page-all") {
    for (const other of boxes()) box.checked ? kept.add(other.value) : kept.delete(other.value);
  } else if (box.name === "device" && box.closest("#devices")) {
    box.checked ? kept.add(box.value) : kept.delete(box.value);
  } else if (box.id !== "all") return;
  showChoice();
});

// A page that follows: the server says that something has changed, and the page takes over its parts anew.

const connection = one("#connection");
let source = null;
let pending = false;
let loading = false;
let lastLoad = 0;

function say(words, isLost = false) {
  if (!connection) return;
  connection.hidden = false;
  connection.classList.toggle("lost", isLost);
  if (isLost) connection.setAttribute("role", "alert");
  else connection.removeAttribute("role");
  if (connection.textContent !== words) connection.textContent = words;
}

// Finds in a new part what had the focus in the old one.
function keyOf(element, part) {
  if (!part.contains(element)) return null;
  const key = ["id", "name", "value", "href"].map((name) => element.getAttribute(name) || "").join("\n");
  return element.tagName + key;
}

function swap(page) {
  for (const part of all("[data-live-part]")) {
    const next = page.getElementById(part.id);
    if (!next) continue;
    const focused = keyOf(document.activeElement, part);
    const open = all("details[open]", part).map((details) => one("summary", details).textContent);
    showTimes(next);
    if (next.innerHTML === part.innerHTML) continue;
    part.replaceChildren(...next.childNodes);
    for (const details of all("details", part)) {
      if (open.includes(one("summary", details).textContent)) details.open = true;
    }
    showCopying(part);
    if (part.id === "devices") showChoice();
    if (focused) {
      const again = all("a, button, input, summary", part).find((element) => keyOf(element, part) === focused);
      if (again) again.focus({ preventScroll: true });
    }
  }
  showChoice();
}

async function refresh() {
  if (loading || document.hidden) {
    pending = true;
    return;
  }
  loading = true;
  pending = false;
  try {
    const response = await fetch(location.href, { credentials: "same-origin", headers: { "Cotter-Script": "live" } });
    if (response.redirected) {
      ended();
      return;
    }
    if (response.ok) swap(new DOMParser().parseFromString(await response.text(), "text/html"));
    else if (response.status === 404) say("This is not there any more. It was deleted or moved.", true);
    lastLoad = Date.now();
  } catch {
    say("The server does not answer. What you see is old.", true);
  } finally {
    loading = false;
    if (pending) setTimeout(refresh, 500);
  }
}

// The session is over. Whatever is typed stays on the page until the reader goes on.
function ended() {
  if (source) source.close();
  source = null;
  say("Your session has ended. Load the page to sign in again.", true);
}

function follow() {
  if (source || document.hidden || !("live" in document.body.dataset || one("[data-live-part]"))) return;
  const fleet = document.body.dataset.live;
  source = new EventSource(fleet ? `/live?fleet=${fleet}` : "/live");
  let position = follow.position;
  source.addEventListener("hello", (event) => {
    say("Live");
    if (position !== undefined && position !== event.data) refresh();
    position = follow.position = event.data;
  });
  source.addEventListener("changed", (event) => {
    position = follow.position = String(JSON.parse(event.data).position);
    refresh();
  });
  // All places of live pages are taken.
  source.addEventListener("full", (event) => {
    if (source) source.close();
    source = null;
    say(`Reloads every ${Number(event.data)} seconds, because too many pages are live`);
    clearTimeout(follow.again);
    follow.again = setTimeout(() => (refresh(), follow()), Number(event.data) * 1000);
  });
  source.addEventListener("error", () => {
    // A stream that the server ends after its time is opened again by itself, within a second.
    setTimeout(() => {
      if (!source || source.readyState === EventSource.OPEN) return;
      say("The server does not answer. What you see is old.", true);
      if (source.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(() => (refresh(), follow()), 5000);
      }
    }, 1500);
  });
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    if (source) source.close();
    source = null;
  } else {
    refresh();
    follow();
  }
});

// Devices go offline without a change of any record.
setInterval(() => {
  showTimes();
  if (source && Date.now() - lastLoad > 30000) refresh();
}, 10000);

showTimes();
showCopying();
showChoice();
if (one("[data-live-part]")) {
  lastLoad = Date.now();
  follow();
}

// The logs of a device: the last 2,000 lines, as they come.

const logLines = one("#log-lines");
const MOST_LINES = 2000;
const MOST_SERVICES = 50;
// `came`: the last lines as they came, to find out where the next stream goes on. `held`: those that came during a pause.
const logs = { came: [], held: [], classes: new Map(), isPaused: false, words: "", stream: null, again: 0 };
const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" };
const clocks = new Intl.DateTimeFormat("en", clock);
const datedClocks = new Intl.DateTimeFormat("en", { month: "short", day: "numeric", ...clock });

function sayOfLogs(words) {
  const state = one("#log-state");
  if (state.textContent !== words) state.textContent = words;
}

function element(name, words, kind) {
  const made = document.createElement(name);
  made.textContent = words;
  if (kind) made.className = kind;
  return made;
}

// The class with the colour of a service. A new service gets the next colour, and can be chosen.
function classOf(service) {
  if (!logs.classes.has(service)) {
    if (logs.classes.size >= MOST_SERVICES) return "of-agent";
    const label = element("label", "", `check of-${(logs.classes.size - 1) % 6}`);
    const box = element("input", "");
    Object.assign(box, { type: "checkbox", value: service, checked: true });
    label.append(box, element("span", service));
    one("#log-services").append(label);
    logs.classes.set(service, label.classList[1]);
  }
  return logs.classes.get(service);
}

function logRow(line) {
  const row = element("p", "", classOf(line.service));
  const at = new Date(line.at);
  const time = element("time", (Date.now() - at < 72e6 ? clocks : datedClocks).format(at));
  time.dateTime = line.at;
  time.title = line.at;
  row.append(time, " ", element("b", line.service), " ");
  if (line.stderr) row.append(element("i", "err"), " ");
  row.append(element("span", line.text, "text"));
  Object.assign(row, { at: at.getTime(), service: line.service, words: `${line.service} ${line.text}`.toLowerCase() });
  return row;
}

// A line goes where its time says, unless it is so old that the device must have set its clock back.
function placeRow(row) {
  let before = logLines.lastElementChild;
  for (let steps = 0; before && steps < 200 && before.at > row.at && before.at - row.at <= 10000; steps++) {
    before = before.previousElementSibling;
  }
  if (before) before.after(row);
  else logLines.prepend(row);
}

function showWanted(rows) {
  const off = new Set(all("#log-services input:not(:checked)").map((box) => box.value));
  for (const row of rows) row.hidden = off.has(row.service) || !(row.words || "").includes(logs.words);
}

function addLines(lines) {
  const isAtEnd = logLines.scrollTop + logLines.clientHeight >= logLines.scrollHeight - 8;
  const rows = lines.slice(-MOST_LINES).map((line) => logRow(JSON.parse(line)));
  showWanted(rows);
  rows.forEach(placeRow);
  for (let many = logLines.childElementCount - MOST_LINES; many > 0; many--) logLines.firstElementChild.remove();
  if (isAtEnd) logLines.scrollTop = logLines.scrollHeight;
}

function takeLines(lines) {
  if (!lines.length) return;
  logs.came = logs.came.concat(lines).slice(-100);
  if (logs.isPaused) logs.held = logs.held.concat(lines).slice(-MOST_LINES);
  else addLines(lines);
  showPause();
}

// Every stream begins with the last lines that the server has. Returns those that have not come before.
function newOf(lines) {
  const came = logs.came;
  if (!came.length) {
    logLines.replaceChildren();
    return lines;
  }
  for (let end = lines.length; end > 0; end--) {
    const most = Math.min(end, came.length);
    let same = 0;
    while (same < most && lines[end - 1 - same] === came[came.length - 1 - same]) same++;
    if (same === most) return lines.slice(end);
  }
  return lines;
}

function showPause() {
  const button = one("#log-pause");
  const words = !logs.isPaused ? "Pause" : logs.held.length ? `Resume (${logs.held.length} new)` : "Resume";
  if (button.textContent !== words) button.textContent = words;
  const none = "The device was asked for its logs. It sends the first lines in about 10 seconds if it is online.";
  sayOfLogs(logs.isPaused ? "Paused. New lines wait." : logs.came.length ? "Live" : none);
}

async function readLogs(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let first = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    let fresh = [];
    for (const line of lines) {
      if (line) (first || fresh).push(line);
      else if (first) {
        // The empty line: this is all that the server had.
        fresh = newOf(first);
        first = null;
      }
    }
    takeLines(fresh);
    if (!first) showPause();
  }
}

async function followLogs() {
  clearTimeout(logs.again);
  if (!logLines || logs.stream || document.hidden) return;
  logs.stream = new AbortController();
  let wait = 500;
  try {
    const options = { credentials: "same-origin", headers: { "Cotter-Script": "live" }, signal: logs.stream.signal };
    const response = await fetch(logLines.dataset.stream, options);
    if (response.redirected) {
      ended();
      return;
    }
    if (response.ok) await readLogs(response);
    else {
      wait = 15000;
      const why = one(".error strong", new DOMParser().parseFromString(await response.text(), "text/html"));
      const busy = response.status === 503 ? "Too many logs are followed at the moment." : "There is no stream of lines.";
      sayOfLogs(`${response.status !== 503 && why ? why.textContent : busy} This page tries again every 15 seconds.`);
    }
  } catch {
    wait = 5000;
    if (!document.hidden) sayOfLogs("The server does not answer. This page tries again every 5 seconds.");
  } finally {
    logs.stream = null;
  }
  logs.again = setTimeout(followLogs, wait);
}

if (logLines) {
  one(".log-tools").hidden = false;
  for (const label of all("#log-services label")) logs.classes.set(one("input", label).value, label.classList[1]);
  one("#log-filter").addEventListener("input", (event) => {
    logs.words = event.target.value.toLowerCase();
    showWanted(logLines.children);
  });
  one("#log-services").addEventListener("change", () => showWanted(logLines.children));
  one("#log-pause").addEventListener("click", () => {
    logs.isPaused = !logs.isPaused;
    if (!logs.isPaused) addLines(logs.held.splice(0));
    showPause();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && logs.stream) logs.stream.abort();
    else followLogs();
  });
  followLogs();
}

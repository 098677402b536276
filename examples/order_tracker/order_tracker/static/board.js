"use strict";
// The page is complete as the server sends it. This keeps it so: it listens to the server's events,
// asks for the columns again where something has moved, and shows a unit without leaving the page.
(() => {
  const byId = (id) => document.getElementById(id);
  const columns = byId("columns");
  const chart = byId("chart");
  const dialog = byId("unit");
  const left = 34, right = 596, top = 14, bottom = 116; // the chart's frame
  const span = Number(chart.dataset.seconds);
  let points = JSON.parse(chart.dataset.points);
  let limit = Number(chart.dataset.limit);
  let counts = null;
  let behind = 0; // seconds by which this clock differs from the server's
  if (points.length) behind = Date.now() / 1000 - points[points.length - 1][0];

  // What is wrong with the line, with what was last asked for, and with the work: each comes and
  // goes by itself.
  const problems = { line: "", action: "", work: "" };
  function problem(kind, text) {
    problems[kind] = text;
    const place = byId("problem");
    const all = Object.values(problems).filter(Boolean).join(" ");
    if (place.textContent !== all) place.textContent = all;
    place.hidden = !all;
  }

  // -- how the work stands

  function showSummary(found) {
    const share = found.total ? Math.floor((found.done / found.total) * 100) : 0;
    const finished = found.total > 0 && found.done === found.total;
    byId("bar").max = found.total || 1;
    byId("bar").value = found.done;
    byId("percent").textContent = `${share}%`;
    byId("done").textContent = finished
      ? `All ${found.total} units are done`
      : `${found.done} of ${found.total} units done`;
    byId("used").textContent = `${Math.round(found.utilisation * 100)}%`;
    byId("flight").textContent = `${found.in_flight} of ${found.limit} in flight`;
    byId("empty").hidden = found.total > 0;
    const state = byId("state");
    state.textContent = found.going ? "Feeding" : "Stopped";
    state.dataset.going = String(found.going);
    byId("feed").setAttribute("action", found.going ? "/stop/" : "/go/");
    byId("feed").querySelector("button").textContent = found.going ? "Stop feeding" : "Start feeding";
    document.title = found.total ? `${share}% – Order tracker` : "Order tracker";
    standing = found;
    showMoves();
    counts = found.counts;
    limit = found.limit;
    points.push([Date.now() / 1000 - behind, found.in_flight]);
    for (const column of columns.children) showCount(column);
    draw();
  }

  // -- whether it moves at all: a full bar of what is in flight does not tell

  let standing = null, agents = null; // agents: null where nobody knows
  function ago(seconds) {
    const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"} ago`;
    if (seconds < 90) return count(Math.max(0, Math.round(seconds)), "second");
    return seconds < 5400 ? count(Math.round(seconds / 60), "minute") : count(Math.round(seconds / 3600), "hour");
  }
  function say(id, text) {
    const place = byId(id);
    if (place.textContent !== text) place.textContent = text;
  }
  function showMoves() {
    const at = Date.parse(byId("moved").dataset.at) / 1000;
    if (at) say("moved", `The last unit moved ${ago(Date.now() / 1000 - behind - at)}`);
    say("agents", agents === null ? "" : `· ${agents} ${agents === 1 ? "agent" : "agents"}`);
    const waits = standing && standing.in_flight > 0 && agents === 0;
    problem("work", waits ? "No agent answers, so nothing moves. Start one: order-tracker agent" : "");
  }

  function showCount(column) {
    if (!counts) return;
    const number = counts[column.dataset.status];
    const more = number - column.querySelectorAll("li").length;
    column.querySelector(".count").textContent = number;
    const place = column.querySelector(".more");
    place.textContent = `and ${more} more`;
    place.hidden = more <= 0;
  }

  // -- the chart: a staircase of the last minutes

  function draw() {
    const now = Date.now() / 1000 - behind;
    const before = points.filter(([at]) => at < now - span).slice(-1);
    points = [...before.map(([, n]) => [now - span, n]), ...points.filter(([at]) => at >= now - span)];
    if (!points.length) return;
    const from = Math.min(points[0][0], now - 30);
    const most = Math.max(limit, ...points.map(([, n]) => n));
    const x = (at) => (left + ((Math.min(at, now) - from) / (now - from)) * (right - left)).toFixed(1);
    const y = (n) => (bottom - (n / most) * (bottom - top)).toFixed(1);
    let path = `M${x(points[0][0])} ${y(points[0][1])}`;
    for (const [at, n] of points.slice(1)) path += `H${x(at)}V${y(n)}`;
    path += `H${right}`;
    chart.querySelector(".curve").setAttribute("d", path);
    chart.querySelector(".area").setAttribute("d", `${path}V${bottom}H${x(points[0][0])}Z`);
    const line = chart.querySelector(".limit");
    line.setAttribute("y1", y(limit));
    line.setAttribute("y2", y(limit));
    const label = chart.querySelector(".top");
    label.textContent = limit;
    label.setAttribute("y", Number(y(limit)) + 4);
    const seconds = Math.round(now - from);
    chart.querySelector(".from").textContent =
      seconds >= 90 ? `${Math.round(seconds / 60)} minutes ago` : `${seconds} seconds ago`;
  }

  // -- the columns

  function showColumns(found) {
    for (const column of columns.children) {
      const status = column.dataset.status;
      const list = column.querySelector("ul");
      const old = new Map([...list.children].map((item) => [item.dataset.id, item]));
      const wanted = found[status].map((unit) => old.get(String(unit.id)) || card(unit.id, status));
      const kept = new Set(wanted);
      for (const item of old.values()) if (!kept.has(item)) item.remove();
      wanted.forEach((item, place) => {
        // Moving a node takes its focus away, so only those in the wrong place are moved.
        if (list.children[place] !== item) list.insertBefore(item, list.children[place] || null);
      });
      showCount(column);
    }
  }

  function card(id, status) {
    const item = document.createElement("li");
    item.dataset.id = id;
    const link = document.createElement("a");
    link.href = `/board/${id}`;
    link.textContent = id;
    link.setAttribute("aria-label", `Unit ${id}, ${status}`);
    item.append(link);
    return item;
  }

  let asking = false, askAgain = false;
  async function refresh() {
    if (asking) { askAgain = true; return; }
    asking = true;
    askAgain = false;
    try {
      const answer = await fetch("/board/columns", { cache: "no-store" });
      if (answer.ok) showColumns(await answer.json());
      else askAgain = true;
    } catch { askAgain = true; }
    setTimeout(() => { asking = false; if (askAgain && stream) refresh(); }, 500);
  }

  // -- events, while somebody looks

  let stream = null;
  function listen() {
    if (stream) return;
    stream = new EventSource("/events");
    stream.addEventListener("summary", (event) => { problem("line", ""); showSummary(JSON.parse(event.data)); });
    stream.addEventListener("work", (event) => {
      const found = JSON.parse(event.data);
      agents = found.agents;
      byId("moved").dataset.at = found.moved_at || "";
      showMoves();
    });
    stream.addEventListener("transition", (event) => {
      refresh();
      if (dialog.open && String(JSON.parse(event.data).order_id) === dialog.dataset.id) load(dialog.dataset.id);
    });
    stream.addEventListener("problem", (event) => problem("line", `${JSON.parse(event.data).error}; trying again.`));
    stream.onopen = () => { problem("line", ""); refresh(); };
    stream.onerror = () => {
      agents = null; // the next stream begins by telling
      showMoves();
      problem("line", "The connection to the server is lost; trying again.");
      if (stream.readyState === EventSource.CLOSED) { // refused: the browser would not try again
        stream = null;
        setTimeout(() => { if (!document.hidden) listen(); }, 2000);
      }
    };
  }
  function see() {
    // A browser has few connections to a server; hidden pages give theirs back.
    if (!document.hidden) listen();
    else if (stream) { stream.close(); stream = null; }
  }
  document.addEventListener("visibilitychange", see);
  addEventListener("pagehide", () => { if (stream) { stream.close(); stream = null; } });
  addEventListener("pageshow", see);

  // -- one unit

  async function load(id) {
    const content = byId("unit-content");
    try {
      const answer = await fetch(`/board/${id}`, { cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (dialog.dataset.id !== String(id)) return;
      content.replaceChildren(...page.querySelector("main").childNodes);
      // What had the focus may be gone with the old content.
      if (!dialog.contains(document.activeElement)) dialog.querySelector("button").focus();
    } catch {
      content.textContent = "The unit cannot be shown: the server does not answer.";
    }
  }
  columns.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    dialog.dataset.id = link.textContent;
    byId("unit-content").textContent = "Loading…";
    if (!dialog.open) dialog.showModal();
    load(link.textContent);
  });

  // -- buttons: start, stop, try again

  let posting = false; // A button that is disabled meanwhile would lose the keyboard's focus.
  async function post(form) {
    if (posting) return;
    posting = true;
    try {
      const answer = await fetch(form.getAttribute("action"), { method: "POST" });
      problem("action", answer.ok ? "" : `${answer.status}: ${(await answer.json()).error.message}`);
      if (!answer.ok) return;
      if (form.id === "feed") showSummary(await answer.json());
      else load(dialog.dataset.id);
    } catch {
      problem("action", "The server does not answer.");
    } finally {
      posting = false;
    }
  }
  document.addEventListener("submit", (event) => {
    if (event.target.method === "dialog") return;
    event.preventDefault();
    post(event.target);
  });

  draw();
  setInterval(() => { draw(); showMoves(); }, 1000);
  see();
})();


"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const frames = JSON.parse(byId("frames").textContent);
  const card = byId("card"), tip = byId("tip"), view = byId("card-view");
  const REACH = 18; // pixels: how near a point a finger has to be
  let viewer = null, failed = false, points = [], at = -1;

  const known = (element) => frames[element.dataset.f] !== undefined;
  const pointsOf = (svg) => [...svg.querySelectorAll(".marks use[data-v]")];

  // The nearest point, as the page shows it now.
  function nearest(svg, event) {
    let best = null, least = REACH;
    for (const use of pointsOf(svg)) {
      const box = use.getBoundingClientRect();
      const away = Math.hypot(
        event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2);
      if (away < least) { least = away; best = use; }
    }
    return best;
  }

  function xyz(frame) {
    const rows = frame.s.map((symbol, i) => {
      const place = frame.x.slice(3 * i, 3 * i + 3);
      return [symbol, ...place.map((mA) => (mA / 1000).toFixed(3))].join(" ");
    });
    const cell = frame.c ? `Lattice="${frame.c.flat().join(" ")}"` : "";
    return [frame.s.length, cell, ...rows].join("\n") + "\n";
  }

  function draw(frame) {
    try {
      viewer ??= $3Dmol.createViewer(view, { backgroundColor: "white", antialias: true });
      viewer.removeAllModels();
      viewer.removeAllShapes();
      viewer.removeAllLabels();
      const model = viewer.addModel(xyz(frame), "xyz");
      viewer.setStyle({}, { stick: { radius: 0.13 }, sphere: { scale: 0.27 } });
      if (frame.c) viewer.addUnitCell(model);
      viewer.resize();
      viewer.zoomTo();
      viewer.zoom(frame.s.length < 5 ? 3 : 1);
      viewer.render();
    } catch (error) {
      if (!failed) view.textContent = "This browser shows no 3D (WebGL is off).";
      failed = true;
      card.querySelector("details").open = true; // the positions, instead
    }
  }

  function show(key) {
    const frame = frames[key];
    byId("card-title").textContent = frame.t;
    byId("card-why").replaceChildren(...frame.w.map((line) => {
      const item = document.createElement("li");
      item.append(...line.split("`").map((text, i) => {
        if (i % 2 === 0) return text;
        const code = document.createElement("code");
        code.textContent = text;
        return code;
      }));
      return item;
    }));
    byId("card-xyz").textContent = xyz(frame).split("\n").slice(2).join("\n");
    for (const use of document.querySelectorAll(".marks use.chosen")) {
      use.classList.remove("chosen");
    }
    for (const use of document.querySelectorAll(`.marks use[data-f="${key}"]`)) {
      use.classList.add("chosen");
    }
    card.hidden = false;
    card.scrollTop = 0;
    if (!failed) draw(frame);
  }

  function choose(list, index) {
    points = list;
    at = (index + list.length) % list.length;
    show(list[at].dataset.f);
  }

  function close() {
    card.hidden = true;
    for (const use of document.querySelectorAll(".marks use.chosen")) {
      use.classList.remove("chosen");
    }
  }

  // ‹ and › go through a figure's frames from its top down.
  function open(svg, use) {
    if (!known(use)) return;
    const seen = new Set(), height = (x) => Number(x.getAttribute("y"));
    const list = pointsOf(svg).filter(known).sort((a, b) => height(a) - height(b)).filter(
      (x) => !seen.has(x.dataset.f) && seen.add(x.dataset.f));
    choose(list, list.findIndex((x) => x.dataset.f === use.dataset.f));
  }

  // A tip has the values of a point under the names of its axes.
  function tell(use, x, y) {
    const names = use.parentNode.dataset.axes.split("|");
    const lines = use.dataset.v.split("|").map((value, i) => `${names[i]}: ${value}`);
    const frame = frames[use.dataset.f];
    if (frame) lines.push(`${frame.t}: ${(frame.w[1] ?? "").replaceAll("`", "")}`);
    tip.replaceChildren(...lines.map((line) => {
      const item = document.createElement("div");
      item.textContent = line;
      return item;
    }));
    tip.hidden = false;
    tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.min(y + 16, innerHeight - tip.offsetHeight - 8)}px`;
  }

  for (const svg of document.querySelectorAll("figure svg")) {
    if (!pointsOf(svg).length) continue;
    let reached = null;
    svg.addEventListener("click", (event) => {
      const use = nearest(svg, event);
      if (!use) return;
      if (event.pointerType !== "mouse") tell(use, event.clientX, event.clientY);
      open(svg, use);
    });
    svg.addEventListener("pointermove", (event) => {
      const use = event.pointerType === "mouse" && nearest(svg, event);
      tip.hidden = !use;
      if (use) tell(use, event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
    // Arrow keys go through the points from left to right, Enter shows a frame.
    svg.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && reached) open(svg, reached);
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!step || !card.hidden) return;
      event.preventDefault();
      const across = (x) => Number(x.getAttribute("x"));
      const list = pointsOf(svg).sort((a, b) => across(a) - across(b));
      const begin = step > 0 ? -1 : list.length;
      const index = reached ? list.indexOf(reached) : begin;
      reached?.classList.remove("reached");
      reached = list[(index + step + list.length) % list.length];
      reached.classList.add("reached");
      const box = reached.getBoundingClientRect();
      tell(reached, box.left, box.top);
    });
    svg.addEventListener("blur", () => {
      reached?.classList.remove("reached");
      tip.hidden = true;
    });
  }
  const links = [...document.querySelectorAll(".frame[data-f]")].filter(known);
  links.forEach((link, index) => {
    link.classList.add("known");
    link.tabIndex = 0;
    link.setAttribute("role", "button");
    link.addEventListener("click", () => choose(links, index));
    link.addEventListener("keydown", (event) => {
      if (event.key === "Enter") choose(links, index);
    });
  });
  byId("card-back").addEventListener("click", () => choose(points, at - 1));
  byId("card-next").addEventListener("click", () => choose(points, at + 1));
  byId("card-close").addEventListener("click", close);
  byId("print-all").addEventListener("click", () => {
    document.documentElement.classList.add("whole");
    print();
    document.documentElement.classList.remove("whole");
  });
  addEventListener("keydown", (event) => {
    if (card.hidden) return;
    if (event.key === "Escape") close();
    if (event.key === "ArrowLeft") choose(points, at - 1);
    if (event.key === "ArrowRight") choose(points, at + 1);
  });
})();

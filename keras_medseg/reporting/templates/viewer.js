"use strict";
(() => {
  const root = document.getElementById("viewer");
  if (!root) return;
  const data = JSON.parse(root.querySelector("script").textContent);
  if (!data.cases.length) return;
  const find = (selector) => root.querySelector(selector);
  const canvas = find("canvas"), slider = find("input"), output = find("output");
  const chosen = { case: find("[name=case]"), map: find("[name=map]"), region: find("[name=region]") };
  const modes = [...root.querySelectorAll("[data-mode]")];
  const ALL = "all labels";
  const VERDICTS = [
    ["agree", "#009E73"], ["missed", "#56B4E9"], ["surplus", "#D55E00"], ["other label", "#CC79A7"],
  ];
  const rgb = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const OPAQUE = 150;
  const state = { case: 0, map: 0, region: 0, mode: "overlay", slice: 0 };
  const regions = [{ name: ALL, codes: null }, ...data.regions];
  const decoded = new Map(), images = new Map();

  const current = () => data.cases[state.case];

  function decode(text, length) {
    const raw = atob(text), codes = new Uint8Array(length);
    let at = 0, next = 0;
    while (next < raw.length) {
      const code = raw.charCodeAt(next++);
      let run = 0, factor = 1, byte;
      do {
        byte = raw.charCodeAt(next++);
        run += (byte & 127) * factor;
        factor *= 128;
      } while (byte & 128);
      codes.fill(code, at, at + run);
      at += run;
    }
    return codes;
  }

  function labels(name) {
    const one = current(), key = name === null ? one.id : one.id + "\n" + name;
    if (!decoded.has(key)) {
      const [count, rows, columns] = one.size;
      decoded.set(key, decode(name === null ? one.truth : one.maps[name], count * rows * columns));
    }
    return decoded.get(key);
  }

  // What an element is painted as: 0 for nothing, otherwise a number of the legend.
  function painted(truth, found) {
    const codes = regions[state.region].codes;
    const inside = (code) => (codes === null ? code !== 0 : codes.includes(code));
    if (state.mode === "image") return 0;
    if (state.mode !== "overlay") {
      const code = state.mode === "truth" ? truth : found;
      if (!inside(code)) return 0;
      return codes === null ? 1 + data.labels.findIndex((label) => label.code === code) : 1;
    }
    const wanted = inside(truth), given = inside(found);
    if (wanted && given) return codes === null && truth !== found ? 4 : 1;
    return wanted ? 2 : given ? 3 : 0;
  }

  function legend() {
    if (state.mode === "image") return [];
    const region = regions[state.region];
    if (state.mode !== "overlay") {
      return region.codes === null ? data.labels.map((label) => [label.name, label.color]) : [[region.name, "#E69F00"]];
    }
    return region.codes === null && data.labels.length > 1 ? VERDICTS : VERDICTS.slice(0, 3);
  }

  function overlay() {
    const [, rows, columns] = current().size, size = rows * columns;
    const sheet = new OffscreenCanvas(columns, rows), pen = sheet.getContext("2d");
    const pixels = pen.createImageData(columns, rows), colors = legend().map((entry) => rgb(entry[1]));
    const truth = labels(null), found = labels(data.maps[state.map]), start = state.slice * size;
    for (let at = 0; at < size; at++) {
      const kind = painted(truth[start + at], found[start + at]);
      if (kind) pixels.data.set([...colors[kind - 1], OPAQUE], 4 * at);
    }
    pen.putImageData(pixels, 0, 0);
    return sheet;
  }

  function background(paint) {
    const one = current();
    if (one.image === null) return null;
    if (!images.has(one.id)) {
      const image = new Image();
      image.addEventListener("load", paint);
      image.src = one.image.url;
      images.set(one.id, image);
    }
    const image = images.get(one.id);
    return image.complete && image.naturalWidth ? image : null;
  }

  function draw() {
    const one = current(), [, rows, columns] = one.size;
    const scale = Math.max(1, Math.round(576 / columns));
    canvas.width = columns * scale;
    canvas.height = Math.round(rows * scale * one.aspect);
    const pen = canvas.getContext("2d");
    const image = background(draw);
    if (image) {
      const { across, width, height } = one.image;
      const left = (state.slice % across) * width, top = Math.floor(state.slice / across) * height;
      pen.drawImage(image, left, top, columns, rows, 0, 0, canvas.width, canvas.height);
    }
    pen.imageSmoothingEnabled = false;
    pen.drawImage(overlay(), 0, 0, canvas.width, canvas.height);
  }

  function element(name, text) {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  }

  function describe() {
    const one = current(), [count] = one.size;
    slider.max = count - 1;
    slider.value = state.slice;
    for (const part of [slider.parentElement, find("[data-worst]")]) part.hidden = count === 1;
    output.textContent = `z = ${one.first + state.slice * one.step} (${state.slice + 1} of ${count})`;
    for (const name of ["case", "map", "region"]) chosen[name].selectedIndex = state[name];
    for (const button of modes) button.setAttribute("aria-pressed", button.dataset.mode === state.mode);
    find(".legend").replaceChildren(...legend().map(([text, color]) => {
      const entry = element("li", text), chip = document.createElement("i");
      chip.style.background = color;
      entry.prepend(chip);
      return entry;
    }));
    find(".scores").replaceChildren(...data.maps.flatMap((name, number) => {
      const pair = [element("dt", name), element("dd", one.scores[name] ?? "")];
      if (number === state.map) pair.forEach((part) => part.classList.add("chosen"));
      return pair;
    }));
  }

  function address() {
    const words = new URLSearchParams({
      case: current().id, map: data.maps[state.map], region: regions[state.region].name,
      mode: state.mode, slice: state.slice,
    });
    return "#" + words;
  }

  function show({ remember = true } = {}) {
    describe();
    draw();
    if (remember) history.replaceState(null, "", address());
  }

  // The slice with the most wrong elements; with none, the one with the largest object.
  function worst() {
    const [count, rows, columns] = current().size, size = rows * columns;
    const truth = labels(null), found = labels(data.maps[state.map]);
    const codes = regions[state.region].codes;
    const kind = (code) => (codes === null ? code : Number(codes.includes(code)));
    let best = [-1, -1], at = 0;
    for (let number = 0; number < count; number++) {
      let wrong = 0, object = 0;
      for (let i = number * size; i < (number + 1) * size; i++) {
        wrong += kind(truth[i]) !== kind(found[i]);
        object += kind(truth[i]) !== 0;
      }
      if (wrong > best[0] || (wrong === best[0] && object > best[1])) [best, at] = [[wrong, object], number];
    }
    state.slice = at;
  }

  const cycle = (number, count) => (number + count) % count;
  const keep = (number) => Math.min(Math.max(number, 0), current().size[0] - 1);

  function choose(name, number) {
    state[name] = number;
    if (name === "case") worst();
    show();
  }

  function move(by) {
    const before = state.slice;
    state.slice = keep(state.slice + by);
    if (state.slice !== before) show();
    return state.slice !== before;
  }

  const KEYS = {
    ArrowUp: () => move(1), ArrowDown: () => move(-1), PageUp: () => move(5), PageDown: () => move(-5),
    ArrowRight: () => choose("case", cycle(state.case + 1, data.cases.length)),
    ArrowLeft: () => choose("case", cycle(state.case - 1, data.cases.length)),
    r: () => choose("region", cycle(state.region + 1, regions.length)),
    w: () => { worst(); show(); },
    o: () => choose("mode", "overlay"), p: () => choose("mode", "prediction"),
    t: () => choose("mode", "truth"), i: () => choose("mode", "image"),
  };

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    if (event.target === slider && event.key.startsWith("Arrow")) return;
    const number = Number(event.key);
    const action = number >= 1 && number <= data.maps.length ? () => choose("map", number - 1) : KEYS[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  canvas.addEventListener("wheel", (event) => {
    if (move(event.deltaY < 0 ? 1 : -1)) event.preventDefault();
  }, { passive: false });
  let dragged = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse") dragged = { from: event.clientY, slice: state.slice };
  });
  addEventListener("pointermove", (event) => {
    if (dragged) move(keep(dragged.slice + Math.round((dragged.from - event.clientY) / 6)) - state.slice);
  });
  addEventListener("pointerup", () => { dragged = null; });
  slider.addEventListener("input", () => move(Number(slider.value) - state.slice));
  for (const name of ["case", "map", "region"]) {
    chosen[name].addEventListener("change", () => choose(name, chosen[name].selectedIndex));
  }
  for (const button of modes) button.addEventListener("click", () => choose("mode", button.dataset.mode));
  find("[data-worst]").addEventListener("click", KEYS.w);

  function read() {
    const words = new URLSearchParams(location.hash.slice(1));
    if (!words.has("case")) return false;
    const place = (list, name) => Math.max(list.indexOf(words.get(name)), 0);
    state.case = place(data.cases.map((one) => one.id), "case");
    if (words.has("map")) state.map = place(data.maps, "map");
    if (words.has("region")) state.region = place(regions.map((region) => region.name), "region");
    if (modes.some((button) => button.dataset.mode === words.get("mode"))) state.mode = words.get("mode");
    if (words.has("slice")) state.slice = keep(Number(words.get("slice")) || 0);
    else worst();
    return true;
  }

  function follow() {
    if (!read()) return false;
    show({ remember: false });
    root.scrollIntoView();
    return true;
  }

  const options = (list) => list.map((text) => element("option", text));
  chosen.case.replaceChildren(...options(data.cases.map((one) => one.id + (one.why ? `: ${one.why}` : ""))));
  chosen.map.replaceChildren(...options(data.maps));
  chosen.region.replaceChildren(...options(regions.map((region) => region.name)));
  addEventListener("hashchange", follow);
  if (!follow()) {
    worst();
    show({ remember: false });
  }
})();

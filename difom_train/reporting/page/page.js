"use strict";
const { entries, truth, cases } = JSON.parse(document.getElementById("cases").textContent);
const gallery = document.getElementById("gallery-cards");
const viewer = document.getElementById("viewer");
let shown = [];
let current = 0;

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function panel(item, words, overlay, colour, dice) {
  const figure = make("figure", "panel");
  const stack = make("span", "stack");
  for (const source of [item.picture, overlay]) {
    if (!source) continue;
    const image = make("img");
    image.src = source;
    image.width = item.size[0];
    image.height = item.size[1];
    image.alt = source === overlay ? "" : `${item.id}: ${words}`;
    stack.append(image);
  }
  const caption = make("figcaption");
  if (colour) {
    const dot = make("span", "dot");
    dot.style.setProperty("--own", colour);
    caption.append(dot);
  }
  const what = make("span", "what", words);
  what.title = words;
  caption.append(what);
  if (dice !== undefined) caption.append(make("b", "", `Dice ${dice.toFixed(3)}`));
  figure.append(stack, caption);
  return figure;
}

function fill(holder, item) {
  holder.replaceChildren(
    panel(item, "image"),
    panel(item, "ground truth", item.truth, truth),
    ...entries.map((entry, number) => panel(item, entry.name, item.masks[number], entry.colour, item.dice[number])),
  );
}

function card(item) {
  const article = make("article", "card");
  const head = make("div", "card-head");
  head.append(make("h3", "", item.id));
  for (const kind of item.kinds) head.append(make("span", "tag", kind));
  const open = make("button", "", "Enlarge");
  open.type = "button";
  open.setAttribute("aria-label", `Enlarge ${item.id}`);
  open.addEventListener("click", () => show(shown.indexOf(item)));
  head.append(open);
  const panels = make("div", "panels");
  panels.tabIndex = 0;
  panels.setAttribute("role", "group");
  panels.setAttribute("aria-label", `${item.id}, image, ground truth and masks`);
  fill(panels, item);
  article.append(head, panels);
  return article;
}

function chosen(name) {
  const input = document.querySelector(`input[name="${name}"]:checked`);
  return input ? input.value : "";
}

function filter() {
  const dataset = chosen("set");
  const kind = chosen("kind");
  shown = cases.filter((item) => (!dataset || item.dataset === dataset) && (!kind || item.kinds.includes(kind)));
  gallery.replaceChildren(...shown.map(card));
  document.getElementById("shown").textContent = `${shown.length} of ${cases.length} frames`;
}

function show(number) {
  if (!shown.length) return;
  current = (number + shown.length) % shown.length;
  const item = shown[current];
  document.getElementById("viewer-title").textContent = `${item.id} (${item.kinds.join(", ")})`;
  fill(document.getElementById("viewer-panels"), item);
  if (!viewer.open) viewer.showModal();
}

if (gallery) {
  for (const input of document.querySelectorAll('input[name="set"], input[name="kind"]')) {
    input.addEventListener("change", filter);
  }
  for (const input of document.querySelectorAll('input[name="outlines"]')) {
    input.addEventListener("change", () => document.body.classList.toggle("plain", chosen("outlines") === "off"));
  }
  document.getElementById("viewer-previous").addEventListener("click", () => show(current - 1));
  document.getElementById("viewer-next").addEventListener("click", () => show(current + 1));
  document.getElementById("viewer-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(current - 1);
    if (event.key === "ArrowRight") show(current + 1);
  });
  filter();
}

"use strict";
// exact.py and wording.py in fractions of BigInts; the norms, axes and formulas as trees, come from Python as JSON.
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const [N, C, H, W] = data.shape, SIZE = N * C * H * W, AREA = H * W;
const repeat = (count, of) => Array.from({ length: count }, (_, k) => of(k));
const $ = id => document.getElementById(id);

// Fractions: [numerator, denominator > 0] in lowest terms; null: undefined
const LIMIT = 1n << 800n, TEN = k => 10n ** BigInt(k);
const abs = n => n < 0n ? -n : n;
const gcd = (a, b) => { a = abs(a); while (b) [a, b] = [b, a % b]; return a; };
const ratio = (n, d) => { if (d < 0n) { n = -n; d = -d; } const g = gcd(n, d); return short([n / g, d / g]); };
const nearest = (n, d) => {  // half to even
  let q = n / d, r = n % d;
  if (r < 0n) { q -= 1n; r += d; }
  return 2n * r > d || (2n * r === d && q % 2n) ? q + 1n : q;
};
const digits = n => abs(n).toString().length;
const short = ([n, d]) => {  // beyond all reading: 50 significant digits
  if (d < LIMIT) return [n, d];
  const p = TEN(50 + Math.max(digits(d) - digits(n), 0)), q = nearest(n * p, d), g = gcd(q, p);
  return [q / g, p / g];
};
const whole = n => [BigInt(n), 1n];
const add = (a, b) => ratio(a[0] * b[1] + b[0] * a[1], a[1] * b[1]);
const minus = (a, b) => ratio(a[0] * b[1] - b[0] * a[1], a[1] * b[1]);
const times = (a, b) => ratio(a[0] * b[0], a[1] * b[1]);
const over = (a, b) => b[0] ? ratio(a[0] * b[1], a[1] * b[0]) : null;
const same = (a, b) => a === b || (a && b && a[0] === b[0] && a[1] === b[1]);
const float = a => Number(a[0]) / Number(a[1]);
const isqrt = n => {
  if (n < 2n) return n;
  let x = 1n << BigInt(n.toString(2).length / 2 + 1 | 0);
  for (;;) { const y = x + n / x >> 1n; if (y >= x) return x; x = y; }
};
const root = ([n, d]) => {
  if (n < 0n) return null;
  const a = isqrt(n), b = isqrt(d);
  if (a * a === n && b * b === d) return [a, b];
  const k = Math.max(50 - (digits(n * d) / 2 | 0), 0);
  return ratio(isqrt(n * d * TEN(2 * k)), d * TEN(k));
};
const inexact = x => ratio(BigInt(Math.round(x * 2 ** 52)), 1n << 52n);
const OPERATIONS = {
  "+": add, "-": minus, "·": times, "/": over, "√": root, "²": a => times(a, a),
  "|": a => [abs(a[0]), a[1]], max: (a, b) => minus(a, b)[0] < 0n ? b : a,
  sigmoid: a => inexact(1 / (1 + Math.exp(-float(a)))), tanh: a => inexact(Math.tanh(float(a))),
};
const PI = [314159265358979323846264338327950288419716939937511n, TEN(50)];

function parse(text) {  // "1.5", "1,5", "1e-5", "1/3"; null: no number
  text = text.trim().replace("−", "-").replace(",", ".");
  let m = /^([+-]?\d+)\/(\d+)$/.exec(text);
  if (m) return BigInt(m[2]) ? ratio(BigInt(m[1]), BigInt(m[2])) : null;
  m = /^([+-]?)(?=\.?\d)(\d{0,12})(?:\.(\d{0,40}))?(?:e([+-]?\d{1,2}))?$/i.exec(text);
  if (!m) return null;
  const tail = m[3] || "", power = (m[4] || 0) - tail.length, n = BigInt(m[1] + m[2] + tail);
  return power < 0 ? ratio(n, TEN(-power)) : [n * TEN(power), 1n];
}

// Numbers as text
const exact = a => a[1] === 1n ? `${a[0]}` : `${a[0]}/${a[1]}`;
function number(a) {
  if (!a) return "undefined";
  if (a[1] === 1n && abs(a[0]) < TEN(15)) return `${a[0]}`;
  const x = float(a), [m, e] = x.toExponential(6).split("e");
  if (e >= -4 && e < 7) return `${Number(x.toPrecision(7))}`;
  if (e < 0 && Math.abs(x) >= 1e-8) return x.toFixed(14).replace(/0+$/, "");
  return `${Number(m)}e${e[0]}${e.slice(1).padStart(2, "0")}`;
}
function amount(a) {
  if (!a) return "undefined";
  const full = exact(a).length <= 13 ? exact(a) : "", rounded = number(a);
  if (full === rounded) return full;
  const sign = same(parse(rounded), a);
  return full ? `${full} ${sign ? "=" : "≈"} ${rounded}` : `${sign ? "" : "≈ "}${rounded}`;
}
const equals = a => amount(a)[0] === "≈" ? amount(a) : `= ${amount(a)}`;
function fixed(a, none = "undefined") {
  if (!a) return none;
  const n = nearest(a[0] * 10000n, a[1]), d = `${abs(n)}`.padStart(5, "0");
  return `${n < 0n ? "-" : ""}${d.slice(0, -4)}.${d.slice(-4)}`;
}
const signed = a => a && a[0] < 0n ? `(${number(a)})` : number(a);
const listed = (parts, sign = " + ", most = 48) => parts.slice(0, most).join(sign) + (parts.length > most ? `${sign}…` : "");

// Formulas
const parts = node => node.slice(1).filter(Array.isArray);
function text(node, shown, strength = 0) {
  const known = shown(node);
  if (known) return known[0] === "-" && strength ? `(${known})` : known;
  const [sign, a, b] = node, own = { "+": 1, "-": 1, "·": 2, "/": 2 }[sign];
  if (own) {
    const line = `${text(a, shown, own === 1 ? 0 : own)} ${sign} ${text(b, shown, own + "-/".includes(sign))}`;
    return own < strength ? `(${line})` : line;
  }
  if (sign === "kept" || sign === "called") return text(b, shown, strength);
  if (sign === "²") return `${text(a, shown, 3)}²`;
  if (sign === "|") return `|${text(a, shown)}|`;
  if (sign === "mean") { const inner = text(b, shown); return `mean${"|‖".includes(inner[0]) ? inner : `(${inner})`}`; }
  if (sign === "sum" || sign === "map") return `Σ ${text(sign === "sum" ? b : a, shown, 2)}`;
  return `${sign}(${parts(node).map(part => text(part, shown)).join(", ")})`;
}
// The calculation
const EACH = repeat(SIZE, k => k), MAP = EACH.map(k => k / AREA | 0), CHANNEL = MAP.map(m => m % C);
function unit(name, place, groups, images) {  // the number of the image, channel, … that a number belongs to
  const i = place / (C * AREA) | 0, j = CHANNEL[place];
  return { image: i, "ghost batch": i / images | 0, "group of channels": j / (C / groups) | 0, channel: j, pixel: place % AREA }[name];
}
function setsOf(units, groups, images) {
  const seen = new Map();
  return EACH.map(place => {
    const key = units.map(name => unit(name, place, groups, images)).join();
    if (!seen.has(key)) seen.set(key, seen.size);
    return seen.get(key);
  });
}
const letter = k => (k >= 26 ? letter((k / 26 | 0) - 1) : "") + String.fromCharCode(65 + k % 26);
const unbiased = (a, count) => a && count > 1 ? ratio(a[0] * BigInt(count), a[1] * BigInt(count - 1)) : null;
const plus = terms => terms.includes(null) ? null : terms.reduce(add, whole(0));
const axesOf = node => ["mean", "sum"].includes(node[0]) ? node[1] : parts(node).map(axesOf).find(i => i !== undefined);
const grouped = (owner, places = EACH) => places.reduce((of, p) => { (of[owner[p]] ||= []).push(p); return of; }, []);
function gathered(values, owner, mean) {  // the sum or the mean of each set, at every number
  const totals = grouped(owner).map(places => {
    const total = plus(places.map(p => values[p]));
    return total && mean ? over(total, whole(places.length)) : total;
  });
  return owner.map(k => totals[k]);
}

class Calculation {
  constructor(state) {
    Object.assign(this, state, { known: {} });
    const { tree, units, inner, steps, kept } = this.about;
    this.sets = units.map(a => setsOf(a, this.groups, this.images));
    this.statistics = [];
    this.sets.forEach((owner, i) => {
      for (const places of grouped(owner)) {
        const first = places[0], count = places.filter(p => CHANNEL[p] === CHANNEL[first]).length;
        const values = steps[i].map(([name, node]) => [name, this.at(node, first)]);
        for (const [name, node] of kept) if (axesOf(node) === i && node[1]) values.push([`unbiased ${name}`, unbiased(this.at(node, first), count)]);
        this.statistics.push({ k: this.statistics.length, i, places, where: this.where(units[i], first), values, total: plus(places.map(p => this.x[p])) });
      }
    });
    this.normalised = this.values(inner);
    this.output = this.values(tree);
    this.evaluated = kept.length ? this.values(tree, true) : this.output;
    this.plain = this.output.every((y, k) => same(y, this.normalised[k]));
  }
  at(node, place, mode) { return this.values(node, mode)[place]; }
  values(node, mode = false) {  // of a part of the formula at every number; mode: eval
    const key = JSON.stringify(node) + mode;
    return this.known[key] ||= this.computed(node, mode);
  }
  computed(node, mode) {
    const [sign, a, b] = node;
    if (sign === "x") return this.x;
    if (sign === "number") return Array(SIZE).fill(a === "π" ? PI : whole(a));
    if (sign === "given") return CHANNEL.map(j => this.given[a][j % this.given[a].length]);
    if (sign === "kept") return mode ? this.average(node) : this.values(b);
    if (sign === "called") return this.values(b, mode);
    if (sign === "mean" || sign === "sum") return gathered(this.values(b, mode), this.sets[a], sign === "mean");
    if (sign === "map") return gathered(this.values(a, mode), MAP, false);
    const columns = parts(node).map(part => this.values(part, mode)), known = new Map();
    return EACH.map(place => {  // once for the numbers that share a value: the same object
      const row = columns.map(values => values[place]);
      let at = known;
      for (const value of row) at = at.get(value) || at.set(value, new Map()).get(value);
      if (!("value" in at)) at.value = row.includes(null) ? null : OPERATIONS[sign](...row);
      return at.value;
    });
  }
  ofChannel(node, j) {  // the sets of a channel: [value, places]
    return grouped(this.sets[axesOf(node)], EACH.filter(p => CHANNEL[p] === j)).filter(places => places).map(places => {
      const value = this.at(node, places[0]);
      return [node[1] ? unbiased(value, places.length) : value, places];
    });
  }
  average(node) {
    const keep = minus(whole(1), this.momentum), averages = repeat(C, j =>
      this.ofChannel(node, j).reduce((a, [v]) => a && v ? add(times(keep, a), times(this.momentum, v)) : null, whole(node[1])));
    return CHANNEL.map(j => averages[j]);
  }
  where(units, place) {
    const first = i => i * this.images + 1, last = i => Math.min((i + 1) * this.images, N);
    const names = {
      image: i => `image ${i + 1}`, channel: j => `channel ${j + 1}`, "group of channels": g => `group ${g + 1}`,
      "ghost batch": i => first(i) === last(i) ? `image ${last(i)}` : `images ${first(i)} to ${last(i)}`,
      pixel: p => `row ${(p / W | 0) + 1}, column ${p % W + 1}`,
    };
    return units.map(name => names[name](unit(name, place, this.groups, this.images))).join(", ") || "all numbers";
  }
  numbers(node, place, { strength = 0, roots = true, mode = false } = {}) {  // with the numbers put in
    const shown = part => part[0] === "number" ? part[1]
      : part !== node && (["x", "given", "kept", "called", "map"].includes(part[0]) || (part[0] === "√" && roots)) ? number(this.at(part, place, mode)) : "";
    return text(node, shown, strength);
  }
  lines(place) {  // every step for one number: [name, line]
    const found = [], say = (name, line) => found.push([name, line]), axes = this.about.axes;
    axes.forEach((_, i) => {
      const s = this.statistics.find(s => s.i === i && s.places.includes(place));
      if (axes.length > 1) say("", `${letter(s.k)}: ${s.where}, ${s.places.length} numbers`);
      for (const [name, node] of this.about.steps[i]) {
        const value = this.at(node, s.places[0]), of = node[node.length - 1], plainX = of[2] && of[2][0] === "x";
        if (of[0] !== "mean" && of[0] !== "sum") {
          say(worded(name), `${name} = ${this.numbers(node[0] === "√" ? node : of, s.places[0], { roots: false })} ${node[0] === "√" ? `= ${number(value)}` : equals(value)}`);
          continue;
        }
        const terms = s.places.map(p => this.at(of[2], p)), total = plus(terms);
        if (!plainX) say(worded(name), listed(s.places.map(p => this.numbers(of[2], p, { strength: 2 })), " + ", 6));
        say(plainX ? "sum" : "", `${plainX ? "" : "= "}${listed(terms.map(signed))} ${equals(total)}`);
        if (of[0] === "mean") say(plainX ? worded(name) : "", `${number(total)} / ${s.places.length} ${equals(value)}`);
      }
    });
    say("normalised", `${this.numbers(this.about.inner, place)} = ${fixed(this.normalised[place])}`);
    say("output", `y = ${this.numbers(this.about.tree, place)} = ${fixed(this.output[place])}`);
    const keep = number(minus(whole(1), this.momentum)), take = number(this.momentum);
    for (const [name, node] of this.about.kept) {
      let line = `${node[1]}`;
      this.ofChannel(node, CHANNEL[place]).forEach(([value, places], i) => {
        if (node[1] && places.includes(place)) say(`unbiased ${name}`, `${number(this.at(node, place))} · ${places.length} / ${places.length - 1} ${equals(value)}`);
        line = `${keep} · ${i ? `(${line})` : line} + ${take} · ${signed(value)}`;
      });
      say(`running ${name}`, `${line} ${equals(this.at(node, place, true))}`);
    }
    if (this.about.kept.length) say("eval mode", `y = ${this.numbers(this.about.tree, place, { roots: false, mode: true })} = ${fixed(this.evaluated[place])}`);
    return found;
  }
}

// The page
const make = (tag, attributes = {}, ...children) => {
  const of = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) key in of ? of[key] = value : of.setAttribute(key, value);
  of.append(...children);
  return of;
};
const ground = k => data.colours[k % data.colours.length];
const [n, c, h, w] = data.part;
let chosen = 0, now;

function maps(cell, letters) {  // a table per map: images down, channels across
  return repeat(n, i => make("div", { className: "row" }, ...repeat(c, j => {
    const name = `image ${i + 1}, channel ${j + 1}`;
    return make("table", { className: "map" }, make("caption", {}, make("b", {}, letters(i * C + j)), ` ${name}`), ...repeat(h, r =>
      make("tr", {}, ...repeat(w, s => {
        const place = ((i * C + j) * H + r) * W + s;
        return make("td", { "data-place": place }, cell(place, `x, ${name}, row ${r + 1}, column ${s + 1}`));
      }))));
  })));
}
const letters = m => [...new Set([m * AREA, m * AREA + AREA - 1].map(place => letter(now.sets[0][place])))].join("–");
function table(headings, rows) {
  const cell = (tag, t, i) => make(tag, { className: i > 1 ? "number" : "" }, t);
  const cells = rows.map(([k, name, ...texts]) => make("tr", {}, make("td", {}, make("b", { className: "set", style: `background:${ground(k)}` }, name)),
    ...texts.map((t, i) => cell("td", t, i + 1))));
  const head = make("tr", {}, ...headings.map((t, i) => cell("th", t, i)));
  return make("div", { className: "wide", tabIndex: 0 }, make("table", { className: "table" }, make("thead", {}, head), make("tbody", {}, ...cells)));
}
const worded = name => (data.words[name[0]] || "") + name;
const cellText = (name, value) => name[0] === "√" ? number(value) : amount(value);
const section = (title, ...children) => make("section", {}, make("h3", {}, title), ...children);

const inputs = id => $(id).querySelectorAll("input");
function read(input, allowed = () => true) {
  const value = parse(input.value), fits = value && allowed(value);
  input.setAttribute("aria-invalid", !fits);
  if (!fits) throw new Error(`${input.value || "nothing"} is not allowed for ${input.ariaLabel || input.labels[0].textContent.trim()}.`);
  return value;
}
function compute() {
  const about = data.norms[$("norm").value], x = data.values.slice(), given = {};
  try {
    for (const input of inputs("batch")) x[input.parentNode.dataset.place] = read(input);
    for (const sign in about.given) given[sign] = about.given[sign].slice();
    for (const input of inputs("given")) {
      const { sign, index } = input.dataset;
      given[sign][index] = read(input, v => sign !== "ε" || v[0] >= 0n);
    }
    const momentum = read($("momentum"), v => v[0] >= 0n && v[0] <= v[1]);
    const images = Number(read($("images"), v => v[0] > 0n && v[1] === 1n)[0]);
    now = new Calculation({ about, x, given, momentum, images, groups: Number($("groups").value) });
    $("problem").textContent = "";
    render();
  } catch (error) {
    $("problem").textContent = error.message;
  }
}
function render() {
  const about = now.about, out = [];
  $("formula").textContent = `y = ${about.written}`;
  $("facts").textContent = about.facts;
  about.axes.forEach((_, i) => {
    const of = now.statistics.filter(s => s.i === i).slice(0, 64);
    const headings = ["set", "where", "numbers", "sum", ...of[0].values.map(([name]) => worded(name))];
    out.push(section(`Statistics: ${about.sharing[i]}`, table(headings, of.map(s =>
      [s.k, letter(s.k), s.where, `${s.places.length}`, number(s.total), ...s.values.map(v => cellText(...v))]))));
  });
  if (about.kept.length) {
    const rows = repeat(Math.min(C, 64), j => {
      const k = now.sets[0][j * AREA];
      return [k, letter(k), `channel ${j + 1}`, ...about.averages.map(([name, p]) => cellText(name, now.at(p, j * AREA, true)))];
    });
    out.push(section("Running averages after one step", table(["set", "where", ...about.averages.map(([name]) => name)], rows)));
  }
  const tables = make("div", { className: "tables" }, ...out.splice(0));
  const values = [[`Normalised${now.plain ? " and output, y = " : ", "}${about.written_inner}`, now.normalised]];
  if (!now.plain) values.push(["Output y", now.output]);
  if (about.kept.length) values.push([`Output in eval mode, y = ${about.written_in_eval}`, now.evaluated]);
  for (const [title, of] of values) out.push(section(title, ...maps(place => fixed(of[place], "–"), letters)));
  $("results").replaceChildren(tables, ...out);
  $("batch").querySelectorAll("caption b").forEach((b, m) => { b.textContent = letters((m / c | 0) * C + m % c); });
  choose(chosen);
}
function choose(place) {
  chosen = place;
  for (const td of document.querySelectorAll("td[data-place]")) {
    const at = Number(td.dataset.place), s = now.statistics[now.sets[0][at]];
    td.style.background = ground(s.k);
    td.className = at === chosen ? "chosen" : s.places.includes(chosen) ? "mate" : "";
  }
  const s = now.statistics[now.sets[0][place]], { ariaLabel } = $("batch").querySelector(`[data-place="${place}"] input`);
  $("which").textContent = `${ariaLabel}: ${number(now.x[place])}, of set ${letter(s.k)}, ${s.where}, ${s.places.length} numbers`;
  $("steps").replaceChildren(...now.lines(place).flatMap(([name, line]) => [make("dt", {}, name), make("dd", {}, line)]));
}
function controls() {  // what the chosen norm takes
  const about = data.norms[$("norm").value], has = axis => about.axes.some(a => a.includes(axis));
  $("groups").parentNode.hidden = !has("G");
  $("images").parentNode.hidden = !has("V");
  $("momentum").parentNode.hidden = !about.kept.length;
  $("given").replaceChildren(...Object.entries(about.given).map(([sign, values]) => make("span", { className: "given" },
    make("b", {}, sign), ...values.slice(0, 8).map((value, j) =>
      field(value, 5, values.length > 1 ? `${sign}, channel ${j + 1}` : sign, { "data-sign": sign, "data-index": j })))));
}
const field = (a, size, name, more) => make("input", { value: shown(a), size, inputMode: "decimal", autocomplete: "off", ariaLabel: name, ...more });
const shown = a => { const d = number(a); return same(parse(d), a) ? d : exact(a); };

for (const about of Object.values(data.norms)) {
  for (const sign in about.given) about.given[sign] = about.given[sign].map(parse);
  Object.assign(about, { steps: about.steps.map(Object.entries), kept: Object.entries(about.kept), averages: Object.entries(about.averages) });
}
data.values = data.values.map(parse);
const start = $("norm").value;
function reset() {
  $("norm").value = start;
  for (const id of ["momentum", "images", "groups"]) $(id).value = data[id];
  $("batch").replaceChildren(...maps((place, name) => field(data.values[place], 3, name), () => ""));
  controls();
  compute();
}
document.body.classList.add("live");
$("norm").addEventListener("change", () => { controls(); compute(); });
$("live").addEventListener("input", event => { if (event.target !== $("norm")) compute(); });
$("reset").addEventListener("click", reset);
$("digits").addEventListener("click", () => { inputs("batch").forEach(input => { input.value = Math.random() * 10 | 0; }); compute(); });
const pick = event => { const td = event.target.closest("td[data-place]"); if (td && now) choose(Number(td.dataset.place)); };
$("live").addEventListener("click", pick);
$("batch").addEventListener("focusin", pick);
reset();
})();

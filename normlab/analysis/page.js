"use strict";
// What the page does beyond being read: the declared questions decided again, tables that sort and filter, figures that
// open large. Without this script everything on the page can be read.

// The distributions of t and F, to 1e-12 or so.

const stirling = (x) => {
  // ln Γ(x) less (x - 1/2) ln x - x + ln(2π)/2, for x of 10 and more
  const r = 1 / (x * x);
  return (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r * (1 / 1188 - (r * 691) / 360360))))) / x;
};
const lnGamma = (x) => {
  let shift = 0;
  for (; x < 10; x += 1) shift += Math.log(x);
  return (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + stirling(x) - shift;
};
const lnBeta = (a, b) => {
  const [p, q] = a < b ? [a, b] : [b, a];
  if (q < 10) return lnGamma(p) + lnGamma(q) - lnGamma(p + q);
  const rest = stirling(q) - stirling(p + q) + (q - 0.5) * Math.log1p(-p / (p + q));
  return p < 10
    ? lnGamma(p) + p - p * Math.log(p + q) + rest
    : 0.5 * Math.log((2 * Math.PI) / q) + stirling(p) + (p - 0.5) * Math.log(p / (p + q)) + rest + 0.5 * Math.log1p(-p / (p + q));
};
const beta = (x, y, a, b) => {
  // the regularised incomplete beta function I_x(a, b), y = 1 - x, by Lentz's continued fraction
  if (!(x > 0)) return Number.isNaN(x) ? NaN : 0;
  if (!(y > 0)) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - beta(y, x, b, a);
  let c = 1;
  let d = 1 / (1 - ((a + b) * x) / (a + 1));
  let sum = d;
  for (let m = 1; m < 20000; m += 1) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / (1 + even * d);
    c = 1 + even / c;
    sum *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / (1 + odd * d);
    c = 1 + odd / c;
    sum *= d * c;
    if (Math.abs(d * c - 1) < 1e-16) break;
  }
  return (Math.exp(a * Math.log(x) + b * Math.log(y) - lnBeta(a, b)) * sum) / a;
};
const tBelow = (t, df) => {
  // P(T ≤ t)
  if (Number.isNaN(t)) return NaN;
  if (!Number.isFinite(t)) return t < 0 ? 0 : 1;
  const tail = beta(df / (df + t * t), (t * t) / (df + t * t), df / 2, 0.5) / 2;
  return t < 0 ? tail : 1 - tail;
};
const fAbove = (f, q, df) => (f > 0 ? beta(df / (df + q * f), (q * f) / (df + q * f), df / 2, q / 2) : f <= 0 ? 1 : NaN);
const bisect = (rises, at, low, high) => {
  // where a function that rises is `at`
  for (let i = 0; i < 200; i += 1) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) break;
    if (rises(middle) < at) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
};
const tQuantile = (p, df) => {
  let far = 1;
  while (tBelow(far, df) < p) far *= 2;
  return bisect((t) => tBelow(t, df), p, 0, far);
};
const phi = (z) => {
  // the normal distribution (Marsaglia 2004)
  if (Math.abs(z) > 8) return z < 0 ? 0 : 1;
  let sum = z;
  for (let term = z, i = 3; sum !== sum + term || i < 5; i += 2) sum += term *= (z * z) / i;
  return 0.5 + (sum * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI);
};
const power = (shift, df, critical) => {
  // P(T > critical) of a noncentral t: the normal one, averaged over ln s, s² being χ² / df
  const wide = 10 / Math.sqrt(2 * df);
  const low = -40 / df - wide;
  const step = (Math.log1p(wide) - low) / 1000;
  const constant = Math.log(2) + (df / 2) * Math.log(df / 2) - lnGamma(df / 2);
  let sum = 0;
  for (let v = low, i = 0; i <= 1000; i += 1, v += step) {
    sum += Math.exp(constant + df * v - (df / 2) * Math.exp(2 * v)) * phi(shift - critical * Math.exp(v));
  }
  return sum * step;
};

// The questions, as normlab/analysis/projection.py writes them, decided as inference.py and verdicts.py do.

const LINKS = { identity: (x) => x, log: (x) => Math.exp(Math.min(x, 700)), logit: (x) => 1 / (1 + Math.exp(-x)) };
const add = (list) => list.reduce((a, b) => a + b, 0);
const orNaN = (x) => (x === null ? NaN : x);

const caution = (df) => {
  const usable = df.filter((each) => each > 0);
  const mean = add(usable) / usable.length;
  return usable.length > 1 ? mean / (mean + 2) : 1;
};

const spreadOf = (model, seeds) => {
  // the variance of each setting's mean, of its runs, and the degrees of freedom
  const n = model.n.map((own) => seeds ?? own);
  const own = n.map((each) => Math.max(each - 1, 0) * model.share);
  const known = model.variance.map(orNaN);
  const usable = own.filter((_, g) => !Number.isNaN(known[g]));
  const df = model.prior.map((prior, g) => Math.min((prior ?? Infinity) + own[g], add(usable)) * caution(usable));
  return { parts: known.map((s2, g) => (s2 * model.slope[g] ** 2) / n[g]), df, pooled: add(own) };
};

const estimate = (model, { contrast: [at, c], images }, seeds) => {
  const { parts, df, pooled } = spreadOf(model, seeds);
  const of = (list) => at.map((g) => list[g]);
  const [means, x, slope, part] = [model.mean, model.x, model.slope, parts].map(of);
  const bySeeds = add(c.map((each, i) => each ** 2 * part[i]));
  let free = bySeeds > 0 ? bySeeds ** 2 / add(c.map((each, i) => (each ** 2 * part[i]) ** 2 / df[at[i]])) : Math.min(...of(df));
  free = Number.isNaN(bySeeds) ? NaN : Math.min(free, pooled);
  const whole = bySeeds + images;
  if (model.size && whole > 0) free = whole ** 2 / (bySeeds ** 2 / free + images ** 2 / (model.size - 1));
  const push = c.map((each, i) => (each * (part[i] + Math.max(0, model.images[at[i]]))) / slope[i]);
  const scale = add(push.map((each, i) => each * c[i] * slope[i]));
  const move = push.map((each) => (scale > 0 ? each / scale : 0));
  const back = LINKS[model.link];
  const moved = (by) => add(c.map((each, i) => each * back(x[i] + by * move[i])));
  return { value: add(c.map((each, i) => each * means[i])), se: Math.sqrt(whole), df: free, moved };
};

const tOf = ({ value, se, df, moved }, at) => {
  // δ/se of the move after which the contrast is `at`
  if (!Number.isFinite(se) || !(df > 0)) return NaN;
  if (se === 0) return value === at ? 0 : value > at ? Infinity : -Infinity;
  const start = moved(0);
  if (start === at) return 0;
  const sign = Math.sign(at - start);
  let far = se;
  while (sign * (at - moved(sign * far)) > 0) {
    far *= 2;
    if (far > 1e6 * se) return -sign * Infinity;
  }
  return -bisect(moved, at, Math.min(0, sign * far), Math.max(0, sign * far)) / se;
};

const half = (each) => {
  // half the width of the 95 % interval
  if (!Number.isFinite(each.se) || !(each.df > 0)) return NaN;
  const far = tQuantile(0.975, each.df) * each.se;
  return (each.moved(far) - each.moved(-far)) / 2;
};

const pOf = (model, question, margin, seeds) => {
  const each = estimate(model, question, seeds);
  const { df } = each;
  const [low, high] = question.within === "margin" ? [-margin / question.factor, margin / question.factor] : question.within ?? [];
  const same = low === undefined ? NaN : Math.max(tBelow(-tOf(each, low), df), tBelow(tOf(each, high), df));
  let differs = 2 * tBelow(-Math.abs(tOf(each, 0)), df);
  if (question.range) {
    const [first, last] = [tOf(each, low), tOf(each, high)];
    const nearer = first < 0 ? first : -last;
    const width = Number.isFinite(first) && Number.isFinite(last) ? first - last : Infinity;
    differs = Math.min(1, tBelow(nearer, df) + tBelow(nearer - width, df));
  }
  return { p: [differs, same], half: half(each) * question.factor, key: question.range ? `${low} ${high}` : "" };
};

const jointly = (model, { contrasts, images, parts: each }, margin, seeds) => {
  // F = dᵀ V⁻¹ d / q, and whether each of the contrasts is within the margin
  const { parts, df } = spreadOf(model, seeds);
  const takes = new Set(contrasts.flatMap(([at]) => at));
  const q = contrasts.length;
  const d = contrasts.map(([at, c]) => add(at.map((g, i) => c[i] * model.mean[g])));
  const rows = contrasts.map(([at, c], i) => [
    ...contrasts.map(([other, k], j) => images[i][j] + add(at.map((g, l) => (other.includes(g) ? c[l] * k[other.indexOf(g)] * parts[g] : 0)))),
    d[i],
  ]);
  let sum = 0; // dᵀ V⁻¹ d: V is symmetric and positive, so elimination needs no exchange and no way back
  for (let i = 0; i < q; i += 1) {
    sum += rows[i][q] ** 2 / rows[i][i];
    for (let j = i + 1; j < q; j += 1) {
      const by = rows[j][i] / rows[i][i];
      for (let k = i + 1; k <= q; k += 1) rows[j][k] -= by * rows[i][k];
    }
  }
  const within = each.map((part) => pOf(model, part, margin, seeds).p[1]);
  return { p: [fAbove(sum / q, q, add([...takes].map((g) => df[g])) / takes.size), Math.max(...within)], half: NaN, key: "" };
};

const holm = (groups) => {
  // Holm's method as Shaffer sharpens it: of a group at most one hypothesis is true
  const flat = groups.flatMap((own, group) => own.map((value, at) => [value, group, at]).filter(([value]) => !Number.isNaN(value)));
  const left = new Map();
  for (const [, group] of flat) left.set(group, (left.get(group) ?? 0) + 1);
  const adjusted = groups.map((own) => own.map(() => NaN));
  let most = 0;
  for (const [value, group, at] of flat.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2])) {
    most = Math.max(most, Math.min(1, value * left.size));
    adjusted[group][at] = most;
    left.set(group, left.get(group) - 1);
    if (!left.get(group)) left.delete(group);
  }
  return adjusted;
};

const decide = ({ models, questions }, margin, alpha, seeds) => {
  // each question's p, adjusted p, what is rejected (0 to 3: neither, differs, same, both), and its word
  const asked = questions.map((each) => (each.contrasts ? jointly : pOf)(models[each.model], each, margin, seeds));
  const keys = asked.map(({ key }, i) => (key ? JSON.stringify([questions[i].model, questions[i].contrast, key]) : `${i}`));
  const once = [...new Set(keys)]; // two claims may ask about one range
  const adjusted = holm(once.map((key) => asked[keys.indexOf(key)].p));
  return asked.map((each, i) => {
    const own = adjusted[once.indexOf(keys[i])];
    const rejected = (own[0] <= alpha ? 1 : 0) + (own[1] <= alpha ? 2 : 0);
    return { ...each, adjusted: own, rejected, word: questions[i].words[rejected] };
  });
};

const seedsNeeded = ({ needed: { sd, settings, images, size }, factor }, count, margin, alpha) => {
  // per setting, to tell two that differ by the margin apart, with 80 % power at level alpha / count
  if (sd === null || !count) return NaN;
  const apart = margin / factor;
  const of = (n) => {
    const seeds = (2 * sd ** 2) / n;
    const whole = seeds + apart * images;
    const df = whole ** 2 / ((seeds ** 2 * (n + 1)) / (Math.max(settings, 2) * (n - 1) ** 2) + (size === null ? 0 : (apart * images) ** 2 / (size - 1)));
    return power(apart / Math.sqrt(whole), df, tQuantile(1 - alpha / count / 2, df));
  };
  if (of(1e6) < 0.8) return Infinity;
  return of(2) < 0.8 ? Math.ceil(bisect(of, 0.8, 1.5, 1e6)) : 2;
};

// The dials: margin, level and number of seeds, and the tables that follow them.

const pWord = (p) => (Number.isFinite(p) ? (p < 0.001 ? "< 0.001" : p.toFixed(3)) : "–");
const rounded = (x) => Number(x.toPrecision(2));

const follow = (data, form) => {
  const tables = [...document.querySelectorAll("table[data-rows]")].map((table) => ({
    ...data.rows[table.dataset.rows],
    rows: [...table.tBodies[0].rows].map((row) => ({
      row,
      name: row.className,
      cells: [...row.cells].map((cell) => ({ cell, text: cell.textContent, value: cell.dataset.v })),
    })),
  }));
  const status = form.querySelector("p");
  const reset = form.querySelector("button");
  const findings = document.querySelector(".findings");
  const stale = document.createElement("p");
  stale.className = "stale";
  const { unit } = status.dataset;
  const [least, most] = data.seeds;
  const run = least === most ? `${least}` : `${least}–${most}`;
  const declared = { margin: data.margin, alpha: data.alpha, seeds: null };
  let now = { ...declared };
  const ends = { margin: [data.margin / 20, data.margin * 20], alpha: [0.001, 0.2], seeds: [2, Math.max(200, 2 * most)] };
  const start = { ...declared, seeds: Math.max(2, most) };

  const say = () => {
    const results = data.families.map((each) => decide(each, now.margin, now.alpha, now.seeds));
    const moved = now.margin !== declared.margin || now.alpha !== declared.alpha || now.seeds !== null;
    for (const { family, of, words, by, rows } of tables) {
      rows.forEach(({ row, name, cells }, i) => {
        const result = of[i] === null ? null : results[family][of[i]];
        cells.forEach(({ cell, text, value }) => {
          let now_ = text;
          let sorted = value;
          if (moved && result) {
            const p = { p_adjusted: result.adjusted[0], p_equivalence_adjusted: result.adjusted[1], p: words && result.adjusted[by[i][result.rejected]] }[cell.dataset.k];
            if (p !== undefined) [now_, sorted] = [pWord(p), Number.isFinite(p) ? `${p}` : ""];
            else if (cell.classList.contains("verdict")) now_ = words ? words[i][result.rejected] : result.word;
            else if (cell.dataset.k === "because") now_ = `a difference: p ${pWord(result.adjusted[0])}; ${data.families[family].questions[of[i]].range ? "in the range" : "within the margin"}: p ${pWord(result.adjusted[1])}`;
          }
          if (cell.textContent !== now_) cell.textContent = now_;
          if (sorted !== undefined) cell.dataset.v = sorted;
          if (cell.classList.contains("verdict")) row.className = now_.split(" ")[0] + (now_ === text ? "" : " other");
        });
      });
    }
    const [first] = results;
    const open = first.filter((each) => each.word === "undecided").length;
    const halves = first.filter((_, i) => data.families[0].questions[i].within === "margin").map((each) => each.half).filter(Number.isFinite).sort((a, b) => a - b);
    const middle = halves.length ? `; 95 % intervals of differences reach ± ${halves[Math.floor(halves.length / 2)].toPrecision(2)} ${unit} (median)` : "";
    const needed = seedsNeeded(data, first.length, now.margin, now.alpha);
    const enough = Number.isNaN(needed) ? "" : Number.isFinite(needed) ? ` ${needed} seeds per setting tell apart what differs by this margin (80 % power).` : " No number of seeds tells apart what differs by this margin: the test images are too few.";
    const what = now.seeds === null ? "" : `Projection to ${now.seeds} seeds per setting, if every mean and standard deviation stays as it is, which new seeds will not do. `;
    status.textContent = `${what}${first.length - open} of ${first.length} questions decided${middle}.${enough}`;
    form.classList.toggle("moved", moved);
    reset.disabled = !moved;
    stale.textContent = `The sentences above, notes and figures are as declared: margin ${declared.margin} ${unit}, α ${declared.alpha}.`;
    if (moved) findings.append(stale);
    else stale.remove();
    const words = { margin: `${now.margin} ${unit}`, alpha: `${now.alpha}`, seeds: now.seeds === null ? `${run} (run)` : `${now.seeds}` };
    for (const name of Object.keys(words)) {
      form.elements[`${name}-out`].value = words[name];
      form.elements[name].setAttribute("aria-valuetext", words[name]);
    }
  };

  const set = (values) => {
    now = { ...now, ...values };
    for (const name of Object.keys(ends)) form.elements[name].value = Math.log(now[name] ?? start[name]);
    say();
  };
  for (const [name, [low, high]] of Object.entries(ends)) {
    const dial = form.elements[name];
    [dial.min, dial.max] = [Math.log(low), Math.log(high)];
    dial.addEventListener("input", () => {
      const value = Math.exp(dial.value);
      now[name] = name === "seeds" ? Math.round(value) : rounded(value);
      say();
    });
  }
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    set(declared);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  set(declared);
  form.hidden = false;
  return set;
};

// Tables that sort and filter.

const valueOf = (cell) => {
  const given = cell.dataset.v;
  return given === undefined ? cell.textContent.trim() : given === "" ? null : Number(given);
};
const compare = (a, b, sign) => {
  if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last, either way
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
};

const sortable = (table) => {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (rows.length < 2) return;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = rows.map((row) => [valueOf(row.cells[at]), row]).sort((a, b) => compare(a[0], b[0], down ? -1 : 1));
      body.append(...sorted.map((each) => each[1])); // of equal ones the order stays
    });
  });
  if (rows.length < 9) return;
  const filter = document.createElement("input");
  filter.type = "search";
  filter.placeholder = `filter ${rows.length} rows`;
  filter.setAttribute("aria-label", "filter the rows of this table");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  table.parentElement.parentElement.before(filter);
};

// Figures that open large.

const zoom = (images) => {
  const large = document.createElement("dialog");
  large.addEventListener("click", () => large.close());
  document.body.append(large);
  for (const image of images) {
    image.tabIndex = 0;
    image.setAttribute("role", "button");
    const open = () => {
      const copy = image.cloneNode();
      copy.removeAttribute("style");
      large.replaceChildren(copy);
      large.showModal();
    };
    image.addEventListener("click", open);
    image.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        open();
      }
    });
  }
};

if (typeof document !== "undefined") {
  const json = document.getElementById("family");
  if (json) {
    const data = JSON.parse(json.textContent);
    const set = follow(data, document.querySelector("form.again"));
    window.normlab = { data, decide, seedsNeeded, set }; // for a console, and tests
  }
  document.querySelectorAll("table").forEach(sortable);
  zoom(document.querySelectorAll("figure img"));
}

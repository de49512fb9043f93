"use strict";
(async () => {
const $ = (id) => document.getElementById(id);
const facts = JSON.parse(new TextDecoder().decode(await unpack("facts")));
const { layers, steps, subject } = facts;
const LOSS = layers.length - 1;
const WORDS = { forward: "Forward", loss: "Loss", backward: "Backward", update: "Update" };
const GREEK = { mean: "μ", var: "σ²", xhat: "x̂", mean_dy: "mean(dy)", mean_dy_xhat: "mean(dy·x̂)", nll: "−log p" };

// ---- tensors: bytes sorted by place -> values in double precision ---------------------------------------------------

async function unpack(id) { // text of the page, five letters for four bytes -> its bytes
  const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%.()*+-;,=>?@^_`{|}~";
  const digit = new Uint8Array(128);
  [...letters].forEach((letter, i) => { digit[letter.charCodeAt(0)] = i; });
  const text = $(id).textContent, packed = new Uint8Array(Math.floor(text.length * 4 / 5));
  for (let from = 0, to = 0; from < text.length; from += 5) {
    let value = 0;
    for (let i = 0; i < 5; i++) value = value * 85 + (from + i < text.length ? digit[text.charCodeAt(from + i)] : 84);
    for (let shift = 24; shift >= 0 && to < packed.length; shift -= 8) packed[to++] = (value / 2 ** shift) & 255;
  }
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function readTensors() {
  const planes = await unpack("blob");
  const { width, total } = facts, size = width === 2 ? 2 : 4, bytes = new Uint8Array(size * total);
  for (let place = 0; place < width; place++)
    for (let i = 0, from = place * total; i < total; i++) bytes[i * size + place + size - width] = planes[from + i];
  masks = planes.subarray(width * total);
  if (size === 4) return new Float32Array(bytes.buffer);
  return Float32Array.from(new Uint16Array(bytes.buffer), fromHalf);
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -14 * (fraction / 1024);
}

let values, masks;
const opened = new Map();
function open(number) {
  if (!opened.has(number)) {
    const { shape, start, exponent, of, bits } = facts.store[number];
    const size = shape.reduce((a, b) => a * b, 1);
    const data = of === undefined
      ? Float64Array.from(values.subarray(start, start + size), (v) => v * 2 ** exponent)
      : open(of).data.map((v, i) => ((masks[bits + (i >> 3)] >> (i & 7)) & 1 ? v : 0));
    opened.set(number, { shape, data });
  }
  return opened.get(number);
}

// ---- equations: trees -> functions of the indices; undefined stands for "outside of the array" ---------------------

const FUNCTIONS = {
  max: Math.max, exp: Math.exp, log: Math.log, tanh: Math.tanh, sqrt: Math.sqrt, erf,
  where: (condition, yes, no) => (condition ? yes : no),
};
const OPERATORS = {
  "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => a / b,
  "//": (a, b) => Math.floor(a / b), "%": (a, b) => a - b * Math.floor(a / b), "**": (a, b) => a ** b,
  "==": (a, b) => +(a === b), ">": (a, b) => +(a > b), ">=": (a, b) => +(a >= b), "<": (a, b) => +(a < b), "<=": (a, b) => +(a <= b),
};

function erf(x) { // the series near 0, the continued fraction of erfc far from it
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  if (z < 2.5) {
    let term = z, sum = z;
    for (let n = 1; Math.abs(term) > 1e-17 * sum; n++) { term *= -z * z / n; sum += term / (2 * n + 1); }
    return Math.sign(x) * sum * 2 / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (z + fraction);
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction));
}

class Net { // the numbers of one recorded step; `changed` replaces some of its tensors
  constructor(step, changed = new Map()) {
    this.step = step;
    this.changed = changed;
    this.memo = layers.map(() => new Map());
    this.compiled = layers.map(() => new Map());
  }

  tensor(layer, symbol) {
    const own = this.changed.get(`${layer} ${symbol}`);
    if (own) return own;
    const number = steps[this.step].tensors[layer][symbol];
    return number === undefined ? undefined : open(number);
  }

  equation(layer, name) { return layers[layer].equations.find((equation) => equation.name === name); }

  bind(equation, index) { // indices of the left side -> their values
    const env = { lr: steps[this.step].lr };
    let behind = index;
    if (equation.indices[0] === "...") {
      const cut = index.length - equation.indices.length + 1;
      env["..."] = index.slice(0, cut);
      behind = index.slice(cut);
      equation.indices.slice(1).forEach((name, i) => { env[name] = behind[i]; });
    } else equation.indices.forEach((name, i) => { env[name] = index[i]; });
    return env;
  }

  defined(layer, name, index) { // by the equation, whether it was recorded or not
    const key = `${name} ${index}`, memo = this.memo[layer];
    if (!memo.has(key)) {
      const equation = this.equation(layer, name);
      memo.set(key, this.compile(layer, equation.tree)(this.bind(equation, index)));
    }
    return memo.get(key);
  }

  compile(layer, tree) {
    const known = this.compiled[layer];
    if (!known.has(tree)) known.set(tree, this.function(layer, tree));
    return known.get(tree);
  }

  function(layer, tree) {
    const [kind, first, second, third] = tree;
    if (kind === "number") return () => first;
    if (kind === "index") return (env) => env[first];
    if (kind === "call") {
      const parts = second.map((part) => this.compile(layer, part)), f = FUNCTIONS[first];
      return parts.length === 1 ? (env) => { const v = parts[0](env); return v === undefined ? v : f(v); } : (env) => f(...parts.map((part) => part(env)));
    }
    if (kind === "do") {
      const a = this.compile(layer, second), b = this.compile(layer, third), f = OPERATORS[first];
      return (env) => { const left = a(env), right = b(env); return left === undefined || right === undefined ? undefined : f(left, right); };
    }
    if (kind === "array") return this.reference(layer, first, second);
    const body = this.compile(layer, third), ranges = second, last = second.length - 1;
    let sum, best, place, winner;
    const vary = (depth, env) => {
      const [name, size] = ranges[depth], all = Array.isArray(size) ? indicesOf(size) : null, count = all ? all.length : size;
      for (let i = 0; i < count; i++) {
        env[name] = all ? all[i] : i;
        if (depth < last) { vary(depth + 1, env); continue; }
        const value = body(env);
        if (value !== undefined) {
          sum += value;
          if (value > best) { best = value; winner = place; }
        }
        place++;
      }
    };
    return (env) => {
      const outer = [sum, best, place, winner]; // a definition may call this loop for another index
      sum = 0; best = -Infinity; place = 0; winner = 0;
      vary(0, env);
      const found = first === "sum" ? sum : first === "mean" ? sum / place : first === "max" ? best : winner;
      [sum, best, place, winner] = outer;
      return found;
    };
  }

  reference(layer, name, indices) {
    const parts = indices.map((part) => (part[0] === "rest" ? null : this.compile(layer, part)));
    const tensor = this.tensor(layer, name);
    if (!tensor) return (env) => this.defined(layer, name, this.place(parts, env));
    const { shape, data } = tensor;
    if (parts.includes(null)) return (env) => {
      const index = this.place(parts, env);
      let offset = 0;
      for (let i = 0; i < shape.length; i++) offset = offset * shape[i] + index[i];
      return data[offset];
    };
    return (env) => {
      let offset = 0;
      for (let i = 0; i < shape.length; i++) {
        const at = parts[i](env);
        if (at < 0 || at >= shape[i]) return undefined;
        offset = offset * shape[i] + at;
      }
      return data[offset];
    };
  }

  place(parts, env) { return parts.flatMap((part) => (part ? [part(env)] : env["..."])); }

  * cases(ranges, env) { // every combination of a loop's indices
    const inner = { ...env };
    const last = ranges.length - 1;
    function* vary(depth) {
      const [name, size] = ranges[depth];
      const all = Array.isArray(size) ? indicesOf(size) : null;
      const count = all ? all.length : size;
      for (let i = 0; i < count; i++) {
        inner[name] = all ? all[i] : i;
        if (depth === last) yield inner; else yield* vary(depth + 1);
      }
    }
    yield* vary(0);
  }

  whole(layer, name, shape) { // a tensor by its equation
    const equation = this.equation(layer, name), f = this.compile(layer, equation.tree);
    const data = new Float64Array(shape.reduce((a, b) => a * b, 1)), index = shape.map(() => 0);
    for (let i = 0; i < data.length; i++) {
      data[i] = f(this.bind(equation, index));
      for (let axis = shape.length - 1; axis >= 0 && ++index[axis] === shape[axis]; axis--) index[axis] = 0;
    }
    return { shape, data };
  }
}

function indicesOf(shape) {
  return shape.reduce((found, size) => found.flatMap((index) => Array.from({ length: size }, (_, i) => [...index, i])), [[]]);
}

const flat = (shape, index) => index.reduce((offset, i, axis) => offset * shape[axis] + i, 0);
function unflat(shape, offset) {
  const index = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) { index[axis] = offset % shape[axis]; offset = Math.floor(offset / shape[axis]); }
  return index;
}

// ---- the loss with one weight moved: forward again, from that layer on -----------------------------------------------

function lossWith(step, layer, symbol, offset, by) {
  const tensor = open(steps[step].tensors[layer][symbol]);
  const data = tensor.data.slice();
  data[offset] += by;
  const changed = new Map([[`${layer} ${symbol}`, { shape: tensor.shape, data }]]);
  const later = new Set();
  for (let next = layer; next <= LOSS; next++) {
    for (const [own, [source, theirs]] of Object.entries(layers[next].sources)) {
      const at = layers.findIndex((one) => one.name === source);
      if (later.has(at) && theirs === "y" && own !== "y") changed.set(`${next} ${own}`, changed.get(`${at} y`));
    }
    if (next < LOSS) {
      const made = new Net(step, changed).whole(next, "y", open(steps[step].tensors[next].y).shape);
      changed.set(`${next} y`, made);
      later.add(next);
    }
  }
  return new Net(step, changed).defined(LOSS, "y", [0]);
}

function finiteDifference(step, layer, symbol, offset) {
  const weight = open(steps[step].tensors[layer][symbol]).data[offset];
  const h = 1e-4 * Math.max(1, Math.abs(weight));
  const above = lossWith(step, layer, symbol, offset, h), below = lossWith(step, layer, symbol, offset, -h);
  return { h, above, below, slope: (above - below) / (2 * h) };
}

// ---- what a number is made of ------------------------------------------------------------------------------------------

function termsOf(net, layer, name, index) { // of the number that was asked for last they are kept
  const key = `${layer} ${name} ${index}`;
  if (net.last?.key !== key) net.last = { key, found: findTerms(net, layer, name, index) };
  return net.last.found;
}

function findTerms(net, layer, name, index) {
  const equation = net.equation(layer, name), env = net.bind(equation, index);
  const found = { terms: [], outside: 0, zero: 0, kind: "sum", count: 1 };
  const loop = (kind, ranges, body, sign, inside) => {
    for (const inner of net.cases(ranges, inside)) {
      const value = net.compile(layer, body)(inner);
      if (value === undefined) found.outside++;
      else if (kind !== "max" && value === 0 && switchedOff(net, layer, body, inner)) found.zero++;
      else found.terms.push({ sign, value, tree: body, env: { ...inner } });
    }
  };
  const part = (tree, sign) => {
    if (tree[0] === "do" && (tree[1] === "+" || tree[1] === "-") && !(tree[2][0] === "number" && tree[2][1] === 0)) {
      part(tree[2], sign);
      part(tree[3], tree[1] === "-" ? -sign : sign);
    } else if (tree[0] === "loop" && tree[1] === "sum") loop("sum", tree[2], tree[3], sign, env);
    else found.terms.push({ sign, value: net.compile(layer, tree)(env), tree, env });
  };
  if (equation.tree[0] === "loop" && equation.tree[1] !== "sum") {
    found.kind = equation.tree[1];
    loop(found.kind === "mean" ? "mean" : "max", equation.tree[2], equation.tree[3], 1, env);
    found.count = found.terms.length + found.outside + found.zero;
  } else part(equation.tree, 1);
  if (found.kind === "sum" && found.terms.length > 30) { // a long list without what adds nothing
    const all = found.terms.length;
    found.terms = found.terms.filter((term) => term.value !== 0);
    found.zero += all - found.terms.length;
  }
  const total = found.terms.reduce((sum, term) => sum + term.sign * term.value, 0);
  const largest = Math.max(...found.terms.map((term) => term.value));
  found.total = found.kind === "sum" ? total : found.kind === "mean" ? total / found.count : largest;
  if (found.kind === "argmax") found.total = net.defined(layer, name, index);
  if (found.kind === "max" || found.kind === "argmax") found.winner = found.terms.findIndex((term) => term.value === largest);
  return found;
}

function switchedOff(net, layer, tree, env) { // a product with a condition that does not hold
  if (tree[0] !== "do" || tree[1] !== "*") return ["==", ">", ">=", "<", "<="].includes(tree[1]) && net.compile(layer, tree)(env) === 0;
  return switchedOff(net, layer, tree[2], env) || switchedOff(net, layer, tree[3], env);
}

function factorsOf(tree) {
  return tree[0] === "do" && tree[1] === "*" ? [...factorsOf(tree[2]), ...factorsOf(tree[3])] : [tree];
}

function arraysIn(tree, found = []) {
  if (tree[0] === "array") found.push(tree);
  if (tree[0] === "call") tree[2].forEach((part) => arraysIn(part, found));
  if (tree[0] === "do") { arraysIn(tree[2], found); arraysIn(tree[3], found); }
  return found;
}
function decided(net, layer, tree, env) { // a tree in which of each where only the case that holds is left, and why
  if (tree[0] === "do") return ["do", tree[1], decided(net, layer, tree[2], env), decided(net, layer, tree[3], env)];
  if (tree[0] !== "call") return tree;
  if (tree[1] !== "where") return ["call", tree[1], tree[2].map((part) => decided(net, layer, part, env))];
  const [condition, yes, no] = tree[2], holds = net.compile(layer, condition)(env);
  const opposite = { "<": "≥", "<=": ">", ">": "≤", ">=": "<", "==": "≠" }[condition[1]];
  return ["call", "as", [decided(net, layer, holds ? yes : no, env), holds ? condition : ["do", opposite, ...condition.slice(2)]]];
}

// ---- numbers as text ---------------------------------------------------------------------------------------------------

function show(value, digits = 4) {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-4 ? value.toExponential(digits - 2) : value.toPrecision(digits);
  return text.replace("e+", "e").replaceAll("-", "−");
}
function short(value) { // in at most seven characters
  const text = show(value, 3);
  return text.length > 7 && Number.isFinite(value) ? value.toExponential(1).replace("e+", "e").replaceAll("-", "−") : text;
}
const nameOf = (symbol) => (symbol.startsWith("new_") ? `new ${symbol.slice(4)}` : GREEK[symbol] || symbol);
const shapeText = (shape) => shape.join(" × ");
const visible = (index, shape) => (shape && shape[0] === 1 && index.length > 1 ? index.slice(1) : index);
function cellName(net, layer, symbol, index) {
  const tensor = net.tensor(layer, symbol), single = open(steps[0].tensors[layer].x).shape[0] === 1;
  const batched = !isParameter(layer, symbol) && (tensor ? tensor.shape.length > 1 : ["e", "..."].includes(net.equation(layer, symbol).indices[0]));
  const shown = symbol === "y" && layer === LOSS ? [] : batched && single ? index.slice(1) : index;
  return shown.length ? `${nameOf(symbol)}[${shown.join(", ")}]` : nameOf(symbol);
}
function isParameter(layer, symbol) {
  const plain = symbol.replace(/^new_|^d/, "");
  return plain in layers[layer].paths;
}

function expression(net, layer, tree, env) { // a tree with numbers in place of arrays
  const [kind, first, second, third] = tree;
  if (kind === "number" || kind === "index") {
    const value = kind === "number" ? first : env[first];
    return Number.isInteger(value) ? String(value).replace("-", "−") : show(value);
  }
  if (kind === "array") return show(net.compile(layer, tree)(env) ?? 0);
  if (kind === "call" && first === "as") return second.map((part) => expression(net, layer, part, env)).join(", as ");
  if (kind === "call") return `${first}(${second.map((part) => expression(net, layer, part, env)).join(", ")})`;
  if (kind === "loop") return show(net.compile(layer, tree)(env));
  const sides = [second, third].map((part) => {
    const text = expression(net, layer, part, env);
    return part[0] === "do" ? `(${text})` : text;
  });
  const sign = { "*": "×", "-": "−", "/": "÷", "==": "=", "<=": "≤", ">=": "≥", "**": "^" }[first] || first;
  return first === "-" && second[0] === "number" && second[1] === 0 ? `−${sides[1]}` : `${sides[0]} ${sign} ${sides[1]}`;
}

// ---- the walk: forward, loss, backward, update ------------------------------------------------------------------------

const tour = [];
layers.forEach((layer, i) => { if (i < LOSS) tour.push({ phase: "forward", layer: i }); });
tour.push({ phase: "loss", layer: LOSS });
for (let i = LOSS - 1; i >= 0; i--) if ("dy" in steps[0].tensors[i]) tour.push({ phase: "backward", layer: i });
layers.forEach((layer, i) => { if (layer.equations.some((e) => e.name.startsWith("new_"))) tour.push({ phase: "update", layer: i }); });

const ABOUT = {
  forward: "x comes in, y goes out.",
  loss: "How wrong the answer is, and the gradient that the way back starts from: dx says how the loss changes with each score.",
  backward: "dy comes in: how the loss changes with each output. dx goes out: how it changes with each input.",
  weights: " The gradients of the weights stay here.",
  update: "Each weight moves a little against its gradient.",
};
const defines = (layer, name) => !(name in steps[0].tensors[layer]) && !name.startsWith("new_");
const backwards = (name) => /^d|^new_|_dy|along|first|density/.test(name);

function equationsOf({ phase, layer }) {
  const all = layers[layer].equations;
  if (phase === "loss") return all;
  if (phase === "update") return all.filter((e) => e.name.startsWith("new_"));
  const wanted = new Set();
  const need = (name) => {
    const equation = all.find((e) => e.name === name);
    if (!equation || wanted.has(equation)) return;
    namesIn(equation.tree).filter((inner) => inner !== name && defines(layer, inner)).forEach(need);
    wanted.add(equation);
  };
  all.filter((e) => !defines(layer, e.name) && !e.name.startsWith("new_") && (phase === "forward") === (e.name === "y")).forEach((e) => need(e.name));
  return [...wanted];
}
function namesIn(tree) {
  if (tree[0] === "array") return [tree[1]];
  if (tree[0] === "call") return tree[2].flatMap(namesIn);
  if (tree[0] === "do") return [...namesIn(tree[2]), ...namesIn(tree[3])];
  return tree[0] === "loop" ? namesIn(tree[3]) : [];
}
function tensorsOf(stop) { // [symbol, made here]
  const equations = equationsOf(stop), names = new Set();
  if (!equations.length) return Object.keys(steps[0].tensors[stop.layer]).map((name) => [name, false]); // an unknown loss
  const made = equations.filter((e) => !defines(stop.layer, e.name)).map((e) => e.name);
  equations.forEach((e) => namesIn(e.tree).forEach((name) => { if (!defines(stop.layer, name)) names.add(name); }));
  made.forEach((name) => names.delete(name));
  const given = [...names].sort((a, b) => (b === "dy") - (a === "dy"));
  return [...given.map((name) => [name, false]), ...made.map((name) => [name, true])];
}

// ---- colours and maps ----------------------------------------------------------------------------------------------------

let colours;
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const rgb = (name) => {
    const probe = document.createElement("canvas").getContext("2d");
    probe.fillStyle = style.getPropertyValue(name).trim();
    probe.fillRect(0, 0, 1, 1);
    return probe.getImageData(0, 0, 1, 1).data;
  };
  colours = { zero: rgb("--zero"), plus: rgb("--plus"), minus: rgb("--minus"), chosen: style.getPropertyValue("--chosen").trim(), accent: style.getPropertyValue("--accent").trim(), line: style.getPropertyValue("--line").trim() };
}
function mix(value, limit) {
  if (Number.isNaN(value)) return [255, 0, 255];
  const part = Math.min(1, Math.abs(value) / limit), end = value < 0 ? colours.minus : colours.plus;
  return [0, 1, 2].map((i) => colours.zero[i] + (end[i] - colours.zero[i]) * part);
}
function limitOf(data) {
  const sizes = Float64Array.from(data, Math.abs).sort();
  const largest = sizes[sizes.length - 1] || 0;
  const high = sizes[Math.min(sizes.length - 1, Math.floor(sizes.length * 0.998))] || 0;
  return { limit: high || largest || 1, largest };
}

// How a tensor lies on its canvas: tiles (rows x columns) of planes, each of height x width cells.
function layout(shape, parameter, filter) {
  if (shape.length === 4 && !parameter) {
    const [, height, width, channels] = shape;
    return { tiles: channels, height, width, cell: (t, r, c) => [state.example, r, c, t], at: (i) => [i[3], i[1], i[2]], label: (t) => `channel ${t}` };
  }
  if (shape.length === 4) {
    const [filters, height, width, channels] = shape, all = filters * channels <= 256;
    const tile = (t) => (all ? [t % filters, Math.floor(t / filters)] : [filter, t]); // a column for each filter
    return {
      tiles: all ? filters * channels : channels, height, width, filters: all ? 0 : filters, perRow: all && channels > 1 ? filters : 0,
      cell: (t, r, c) => [tile(t)[0], r, c, tile(t)[1]],
      at: (i) => (all ? [i[3] * filters + i[0], i[1], i[2]] : i[0] === filter ? [i[3], i[1], i[2]] : null),
      label: (t) => `filter ${tile(t)[0]}, channel ${tile(t)[1]}`,
    };
  }
  if (shape.length === 2 && parameter) {
    const [height, width] = shape;
    return { tiles: 1, height, width, cell: (t, r, c) => [r, c], at: (i) => [0, i[0], i[1]], label: () => "" };
  }
  const count = shape[shape.length - 1], width = count <= 12 ? count : Math.min(count, count <= 64 ? 16 : 25), height = Math.ceil(count / width);
  const lead = shape.length > 1 ? () => [state.example] : () => [];
  return { tiles: 1, height, width, vector: true, cell: (t, r, c) => (r * width + c < count ? [...lead(), r * width + c] : null), at: (i) => [0, Math.floor(i[i.length - 1] / width), i[i.length - 1] % width], label: () => "" };
}

class Map2D { // one tensor as a figure: canvas, marks, scale
  constructor(symbol, made, layer) {
    Object.assign(this, { symbol, made, layer, filter: 0 });
    this.figure = document.createElement("figure");
    this.figure.className = made ? "made" : "";
    this.canvas = document.createElement("canvas");
    this.marks = document.createElement("canvas");
    this.marks.className = "marks";
    this.canvas.setAttribute("aria-hidden", "true");
    this.marks.setAttribute("aria-hidden", "true");
  }

  get tensor() { return state.net.tensor(this.layer, this.symbol) || this.computed(); }
  computed() { // new weights are not kept: w - lr dw
    const shape = state.net.tensor(this.layer, this.symbol.slice(4)).shape;
    return (this.own ??= state.net.whole(this.layer, this.symbol, shape));
  }

  build(room) {
    const { shape, data } = this.tensor, parameter = isParameter(this.layer, this.symbol);
    const wanted = this.lay = layout(shape, parameter, this.filter);
    const gap = wanted.tiles > 1 ? 1 : 0;
    const aim = wanted.vector ? 22 * wanted.width : wanted.tiles === 1 ? 300 : wanted.tiles <= 8 ? 118 : wanted.tiles <= 32 ? 84 : wanted.height <= 5 ? 44 : 56;
    this.size = Math.max(1, Math.min(wanted.vector ? 26 : 40, Math.floor(Math.min(aim, room) / Math.max(wanted.width, wanted.vector ? 1 : wanted.height))));
    if (wanted.tiles === 1 && !wanted.vector) this.size = Math.max(1, Math.floor(Math.min(room, 640, wanted.width < 64 ? 300 : 640) / wanted.width));
    if (wanted.perRow) this.size = Math.max(1, Math.min(this.size, Math.floor((room / wanted.perRow - 4) / wanted.width)));
    const tileWidth = wanted.width * this.size + 4 * gap;
    const most = Math.max(1, Math.floor(Math.min(room, 760) / tileWidth));
    this.columns = wanted.perRow || Math.min(wanted.tiles, most, wanted.tiles <= 8 ? 4 : 8);
    this.tileWidth = tileWidth;
    this.tileHeight = wanted.height * this.size + 4 * gap;
    const rows = Math.ceil(wanted.tiles / this.columns);
    const width = this.columns * this.tileWidth - 4 * gap, height = rows * this.tileHeight - 4 * gap;
    const picture = this.layer === 0 && this.symbol === "x" && [1, 3].includes(shape[3]) && subject.mean.length > 0;
    const { limit, largest } = limitOf(data);
    this.limit = limit;
    for (const canvas of [this.canvas, this.marks]) {
      canvas.width = width; canvas.height = height;
      canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
    }
    this.paint(shape, data, picture);
    this.caption(shape, picture, limit, largest);
    this.canvas.onclick = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const index = this.hit((event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height);
      if (index) select(this.symbol, index, true);
    };
  }

  paint(shape, data, picture) {
    const context = this.canvas.getContext("2d"), { width, height } = this.canvas;
    const image = context.createImageData(width, height), { lay, size } = this;
    for (let t = 0; t < lay.tiles; t++) {
      const left = (t % this.columns) * this.tileWidth, top = Math.floor(t / this.columns) * this.tileHeight;
      for (let r = 0; r < lay.height; r++) for (let c = 0; c < lay.width; c++) {
        const index = lay.cell(t, r, c);
        if (!index) continue;
        const value = data[flat(shape, index)];
        const colour = picture ? pixel(value, t) : mix(value, this.limit);
        for (let y = top + r * size; y < top + (r + 1) * size; y++)
          for (let x = left + c * size; x < left + (c + 1) * size; x++) {
            const o = 4 * (y * width + x);
            image.data[o] = colour[0]; image.data[o + 1] = colour[1]; image.data[o + 2] = colour[2]; image.data[o + 3] = 255;
          }
      }
    }
    context.putImageData(image, 0, 0);
  }

  caption(shape, picture, limit, largest) {
    const shown = isParameter(this.layer, this.symbol) || shape.length === 1 ? shape : visible(shape, shape);
    const path = layers[this.layer].paths[this.symbol.replace(/^new_|^d/, "")];
    const caption = document.createElement("figcaption");
    caption.innerHTML = `<span class="symbol"></span><span class="meta"></span>`;
    caption.firstChild.textContent = nameOf(this.symbol);
    const what = path && `${/^d/.test(this.symbol) ? "gradient of " : this.symbol.startsWith("new_") ? "new " : ""}${path}`;
    caption.lastChild.textContent = [what || meaning(this), shapeText(shown)].filter(Boolean).join(", ");
    const frame = document.createElement("div");
    frame.className = "frame";
    frame.append(this.canvas, this.marks);
    const scale = document.createElement("div");
    scale.className = "scale";
    scale.innerHTML = `<span></span><span class="ramp${picture ? " picture" : ""}"></span><span></span>`;
    scale.firstChild.textContent = picture ? "black" : `−${show(limit, 3)}`;
    scale.lastChild.textContent = picture ? "white" : show(limit, 3) + (largest > limit * 1.001 ? ` (largest ${show(largest, 3)})` : "");
    this.figure.replaceChildren(caption, frame, scale);
    if (this.lay.filters) {
      const chooser = document.createElement("label");
      chooser.className = "chooser";
      chooser.innerHTML = `filter <input type="number" min="0" max="${this.lay.filters - 1}" value="${this.filter}"> of ${this.lay.filters}`;
      chooser.querySelector("input").onchange = (event) => { this.filter = Math.max(0, Math.min(this.lay.filters - 1, +event.target.value || 0)); this.build(roomFor()); mark(); };
      this.figure.append(chooser);
    }
    if (this.lay.tiles > 1 && this.lay.perRow) {
      const note = document.createElement("div");
      note.className = "chooser";
      note.textContent = "a column for each filter, a row for each channel";
      this.figure.append(note);
    }
  }

  hit(x, y) {
    const column = Math.floor(x / this.tileWidth), row = Math.floor(y / this.tileHeight), t = row * this.columns + column;
    const r = Math.floor((y - row * this.tileHeight) / this.size), c = Math.floor((x - column * this.tileWidth) / this.size);
    if (column >= this.columns || t >= this.lay.tiles || r >= this.lay.height || c >= this.lay.width || r < 0 || c < 0) return null;
    return this.lay.cell(t, r, c);
  }

  outline(index, colour, wide) {
    const place = this.lay.at(index);
    if (!place) return;
    const [t, r, c] = place, context = this.marks.getContext("2d");
    const x = (t % this.columns) * this.tileWidth + c * this.size, y = Math.floor(t / this.columns) * this.tileHeight + r * this.size;
    const out = wide ? Math.max(1, Math.ceil((7 - this.size) / 2)) : 0;
    context.strokeStyle = colour;
    context.lineWidth = wide ? 2 : 1;
    context.strokeRect(x + 0.5 - out, y + 0.5 - out, this.size - 1 + 2 * out, this.size - 1 + 2 * out);
  }

  clear() { this.marks.getContext("2d").clearRect(0, 0, this.marks.width, this.marks.height); }
}

function meaning({ symbol, layer }) {
  const words = { x: "input", y: layer === LOSS ? "loss" : "output", dy: "gradient of the output", dx: layer === LOSS ? "gradient of the scores" : "gradient of the input", t: "targets" };
  return words[symbol] || "";
}
function pixel(value, channel) {
  const { mean, std } = subject, i = Math.min(channel, mean.length - 1);
  const grey = 255 * Math.min(1, Math.max(0, value * std[i] + mean[i]));
  return [grey, grey, grey];
}
function roomFor() { return Math.max(200, Math.min(760, $("tensors").clientWidth - 32)); }

// ---- the state of the page ------------------------------------------------------------------------------------------------

const state = { at: 0, step: 0, example: 0, net: null, maps: [], symbol: null, index: null, playing: 0 };

function go(at, chosen) {
  state.at = Math.max(0, Math.min(tour.length - 1, at));
  const stop = tour[state.at], layer = layers[stop.layer];
  document.documentElement.style.setProperty("--phase", `var(--${stop.phase})`);
  $("phase").textContent = stop.phase === "loss" ? "Loss" : `${WORDS[stop.phase]}, ${layer.name || subject.model}`;
  $("step-title").textContent = { loss: spaced(layer.kind), update: `${layer.kind}: the weights move` }[stop.phase] || `${layer.kind}${stop.phase === "backward" ? ", backward" : ""}`;
  $("explanation").textContent = ABOUT[stop.phase] + (stop.phase === "backward" && Object.keys(layer.paths).length ? ABOUT.weights : "");
  showEquations(stop);
  state.maps = tensorsOf(stop).map(([symbol, made]) => new Map2D(symbol, made, stop.layer));
  $("tensors").replaceChildren(...state.maps.map((map) => map.figure));
  state.maps.forEach((map) => map.build(roomFor()));
  $("slider").value = state.at;
  $("slider").setAttribute("aria-valuetext", `${WORDS[stop.phase]}, ${layer.name} ${layer.kind}`);
  $("where").textContent = `${state.at + 1} of ${tour.length}: ${WORDS[stop.phase].toLowerCase()}, ${stop.phase === "loss" ? spaced(layer.kind) : `${layer.name} ${layer.kind}`}`;
  $("back").disabled = state.at === 0;
  $("on").disabled = state.at === tour.length - 1;
  document.querySelectorAll("#net button").forEach((button, i) => {
    if (i === stop.layer) { button.setAttribute("aria-current", "step"); button.scrollIntoView({ block: "nearest", inline: "nearest" }); } else button.removeAttribute("aria-current");
  });
  if (chosen) select(...chosen);
  else {
    const target = state.maps.filter((map) => map.made).at(-1) || state.maps[0];
    const first = state.maps.find((map) => map.made) || target;
    select(first.symbol, interesting(first));
  }
}

function interesting(map) { // the largest number of a tensor, to begin with
  const { shape, data } = map.tensor;
  let best = 0;
  for (let i = 0; i < data.length; i++) if (Math.abs(data[i]) > Math.abs(data[best])) best = i;
  return unflat(shape, best);
}
const spaced = (kind) => kind.replaceAll("_", " ").replace("cross entropy", "cross-entropy").replace(/^./, (letter) => letter.toUpperCase());

function showEquations(stop) {
  const listed = equationsOf(stop);
  const rows = [...listed.filter((e) => !defines(stop.layer, e.name)), ...listed.filter((e) => defines(stop.layer, e.name))];
  $("equations").replaceChildren(...rows.map((equation) => {
    const row = document.createElement("div");
    row.className = `equation${defines(stop.layer, equation.name) ? " defines" : ""}`;
    row.innerHTML = `<div tabindex="0" role="math">${equation.mathml}</div>`;
    const source = document.createElement("span");
    source.className = "source";
    source.textContent = equation.source;
    row.append(source);
    return row;
  }));
}

function select(symbol, index, byPointer) {
  state.symbol = symbol;
  state.index = index;
  const map = state.maps.find((one) => one.symbol === symbol);
  if (map && map.lay.filters && index[0] !== map.filter) { map.filter = index[0]; map.build(roomFor()); }
  renderNumber();
  mark();
  if (byPointer && matchMedia("(max-width: 60rem)").matches) $("number").scrollIntoView({ block: "nearest" });
}

function refer(net, layer, node, env) { // an array in a term -> {symbol, index, value}
  const index = node[2].flatMap((part) => (part[0] === "rest" ? env["..."] : [net.compile(layer, part)(env)]));
  return { symbol: node[1], index, value: net.compile(layer, node)(env) };
}

function mark(hovered) {
  const { layer } = tour[state.at], { net } = state;
  state.maps.forEach((map) => map.clear());
  const equation = net.equation(layer, state.symbol);
  if (equation) {
    const terms = hovered ? [hovered] : termsOf(net, layer, state.symbol, state.index).terms;
    for (const term of terms.slice(0, 4000)) for (const node of arraysIn(term.tree)) {
      const { symbol, index } = refer(net, layer, node, term.env);
      const map = state.maps.find((one) => one.symbol === symbol);
      if (map) map.outline(index, hovered ? colours.chosen : colours.accent, Boolean(hovered));
    }
  }
  const own = state.maps.find((map) => map.symbol === state.symbol);
  if (own) own.outline(state.index, colours.chosen, true);
}

// ---- the number ------------------------------------------------------------------------------------------------------------

function renderNumber() {
  const { layer } = tour[state.at], { net, symbol, index } = state;
  const box = $("number"), tensor = net.tensor(layer, symbol) || (symbol.startsWith("new_") ? state.maps.find((m) => m.symbol === symbol).tensor : null);
  const value = tensor ? tensor.data[flat(tensor.shape, index)] : net.defined(layer, symbol, index);
  const header = document.createElement("header");
  header.innerHTML = `<h3 id="number-title"></h3><span class="big" aria-live="polite"></span>`;
  header.firstChild.textContent = cellName(net, layer, symbol, index);
  header.lastChild.textContent = show(value, 6);
  const left = document.createElement("div");
  if (tensor) left.append(lens(tensor, symbol, index));
  const right = document.createElement("div");
  const equation = net.equation(layer, symbol);
  if (equation) right.append(termTable(layer, symbol, index, value));
  else right.append(origin(layer, symbol, index));
  box.replaceChildren(header, left, right);
}

function lens(tensor, symbol, index) { // the neighbourhood as a table, for keys and screen readers
  const map = state.maps.find((one) => one.symbol === symbol), lay = map ? map.lay : layout(tensor.shape, isParameter(tour[state.at].layer, symbol), index[0]);
  const [t, row, column] = lay.at(index), wide = matchMedia("(max-width: 26rem)").matches ? 2 : 3;
  const table = document.createElement("table");
  table.className = "lens";
  const caption = table.createCaption();
  caption.textContent = ["Neighbours", lay.label(t)].filter(Boolean).join(", ") + "; arrow keys move";
  const rows = range(row, lay.height, 3), columns = range(column, lay.width, wide);
  const top = table.createTHead().insertRow();
  top.append(heading(""), ...columns.map((c) => heading(lay.vector ? "" : c)));
  const body = table.createTBody(), limit = map ? map.limit : limitOf(tensor.data).limit;
  for (const r of rows) {
    const line = body.insertRow();
    line.append(heading(lay.vector ? r * lay.width + columns[0] : r, "row"));
    for (const c of columns) {
      const cell = line.insertCell(), at = lay.cell(t, r, c);
      if (!at) continue;
      const value = tensor.data[flat(tensor.shape, at)], button = document.createElement("button");
      const chosen = r === row && c === column;
      button.textContent = short(value);
      const colour = mix(value, limit);
      button.style.background = `rgb(${colour.map(Math.round)})`;
      button.style.color = luminance(colour) > 0.179 ? "#000" : "#fff";
      button.tabIndex = chosen ? 0 : -1;
      button.setAttribute("aria-pressed", String(chosen));
      button.setAttribute("aria-label", `${short(value)}, ${cellName(state.net, tour[state.at].layer, symbol, at)}`);
      button.onclick = () => { select(symbol, at); focusLens(); };
      cell.append(button);
    }
  }
  table.onkeydown = (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const turn = { PageUp: -1, PageDown: 1 }[event.key];
    let to = null;
    if (move && inside(row + move[0], lay.height) && inside(column + move[1], lay.width)) to = lay.cell(t, row + move[0], column + move[1]);
    if (turn && inside(t + turn, lay.tiles)) to = lay.cell(t + turn, row, column);
    if (move || turn) { event.preventDefault(); event.stopPropagation(); }
    if (to) { select(symbol, to); focusLens(); }
  };
  return table;
}
const inside = (i, size) => i >= 0 && i < size;
const focusLens = () => document.querySelector('.lens button[aria-pressed="true"]')?.focus();
function range(middle, size, reach) {
  const first = Math.max(0, Math.min(middle - reach, size - 2 * reach - 1));
  return Array.from({ length: Math.min(size, 2 * reach + 1) }, (_, i) => first + i);
}
function heading(text, scope = "col") {
  const cell = document.createElement(text === "" ? "td" : "th");
  if (text === "") return cell;
  cell.textContent = text;
  cell.scope = scope;
  return cell;
}
function luminance([r, g, b]) {
  const linear = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
}

const PRECISION = { 2: " A page of so many numbers keeps three digits of each.", 3: " A page of so many numbers keeps five digits of each.", 4: "" }[facts.width];
const FIRST = 60; // terms listed before one asks for all
function termTable(layer, symbol, index, recorded) {
  const { net } = state, found = termsOf(net, layer, symbol, index), holder = document.createElement("div");
  const order = found.terms.map((term, i) => ({ ...term, i }));
  const table = document.createElement("table");
  table.className = "terms";
  const single = order.length === 1 && found.kind === "sum";
  const unit = found.kind === "sum" ? (single ? "what it is made of" : "product") : found.kind === "mean" ? "value" : "candidate";
  table.createTHead().insertRow().append(heading(unit), Object.assign(heading("value"), { className: "value" }));
  const body = table.createTBody();
  const list = (all) => {
    body.replaceChildren();
    for (const term of all) {
      const row = body.insertRow(), text = row.insertCell(), number = row.insertCell();
      text.append(...describeTerm(layer, term));
      number.className = "value";
      number.textContent = show(term.sign * term.value);
      if (found.winner === term.i) row.className = "winner";
      row.onpointerenter = () => mark(term);
      row.onpointerleave = () => mark();
    }
  };
  list(order.slice(0, FIRST));
  const foot = table.createTFoot();
  const line = (label, value) => {
    const row = foot.insertRow();
    row.insertCell().textContent = label;
    Object.assign(row.insertCell(), { className: "value", textContent: show(value, 6) });
  };
  const many = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;
  if (found.kind === "sum") line(single ? "gives" : `sum of ${many(order.length, "term")}`, found.total);
  else if (found.kind === "mean") line(`mean of ${many(found.count, "value")}`, found.total);
  else line(found.kind === "max" ? "the largest" : "place of the largest, row by row", found.total);
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Terms of the chosen number");
  scroll.append(table);
  holder.append(scroll);
  const notes = [];
  if (found.outside) notes.push(`${many(found.outside, "term")} outside of the image or the kernel left out`);
  if (found.zero) notes.push(`${many(found.zero, "term")} that ${found.zero === 1 ? "is" : "are"} zero left out`);
  if (notes.length) holder.append(Object.assign(document.createElement("p"), { className: "meta", textContent: `${notes.join("; ")}.` }));
  const scale = Math.max(Math.abs(recorded), ...order.map((term) => Math.abs(term.value)), 1e-30);
  const off = Math.abs(found.total - recorded) > 1e-3 * scale;
  const check = Object.assign(document.createElement("div"), { className: `check${off ? " off" : ""}` });
  check.textContent = symbol in steps[state.step].tensors[layer]
    ? `The trainer computed ${show(recorded, 6)}. This page adds up to ${show(found.total, 6)}: a difference of ${show(Math.abs(found.total - recorded), 2)}.${PRECISION}`
    : `This page computes ${show(found.total, 6)}.`;
  holder.append(check);
  const actions = document.createElement("div");
  actions.className = "actions";
  if (order.length > FIRST) actions.append(action(`Show all ${order.length.toLocaleString("en")}`, (event) => { list(order); event.target.remove(); }));
  if (order.length > 2 && found.kind === "sum") actions.append(action("Largest first", (event) => {
    order.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
    list(order.slice(0, FIRST));
    event.target.remove();
  }));
  const weight = symbol.startsWith("d") ? symbol.slice(1) : "";
  if (facts.checkable && weight in layers[layer].paths) actions.append(action("Is that true?", (event) => {
    event.target.remove();
    holder.append(provedBy(layer, weight, index, recorded));
  }));
  if (actions.childElementCount) holder.append(actions);
  return holder;
}

function action(label, onclick) {
  return Object.assign(document.createElement("button"), { className: "action", textContent: label, onclick });
}

function provedBy(layer, weight, index, gradient) {
  const shape = open(steps[state.step].tensors[layer][weight]).shape;
  const { h, above, below, slope } = finiteDifference(state.step, layer, weight, flat(shape, index));
  const box = document.createElement("div");
  box.className = "check";
  box.setAttribute("role", "status");
  const name = `${nameOf(weight)}[${index.join(", ")}]`;
  box.textContent = `This page ran the network twice more, with ${name} larger and smaller by ${show(h, 2)}: the loss is ${above.toFixed(9)} and ${below.toFixed(9)}. ` +
    `Difference divided by ${show(2 * h, 2)}: ${show(slope, 6)}. The gradient says ${show(gradient, 6)}.`;
  return box;
}

function describeTerm(layer, term) {
  const { net } = state, parts = [];
  factorsOf(term.tree).forEach((factor, i) => {
    if (factor[0] === "do" && ["==", ">", ">=", "<", "<="].includes(factor[1])) return; // it holds, or the term were not here
    if (i) parts.push(" × ");
    const span = document.createElement("span");
    span.className = "factor";
    if (factor[0] === "array") {
      const { symbol, index, value } = refer(net, layer, factor, term.env);
      span.append(link(layer, symbol, index), Object.assign(document.createElement("span"), { className: "value", textContent: ` (${show(value)})` }));
    } else {
      const plain = decided(net, layer, factor, term.env), inner = arraysIn(plain);
      span.append(expression(net, layer, plain, term.env));
      if (inner.length) {
        const names = inner.map((node) => refer(net, layer, node, term.env)).filter((one, at, all) => all.findIndex((o) => o.symbol === one.symbol && String(o.index) === String(one.index)) === at);
        span.style.whiteSpace = "normal";
        span.append(" with ", ...names.flatMap(({ symbol, index, value }, at) => [at ? ", " : "", link(layer, symbol, index), ` = ${show(value)}`]));
      }
    }
    parts.push(span);
  });
  if (term.sign < 0) parts.unshift("− ");
  return parts;
}

function link(layer, symbol, index) { // to where this number was made
  const button = Object.assign(document.createElement("button"), { className: "link", textContent: cellName(state.net, layer, symbol, index) });
  button.onclick = () => follow(layer, symbol, index);
  button.title = "what this number is made of";
  return button;
}

function follow(layer, symbol, index) {
  if (state.net.equation(layer, symbol)) {
    const here = state.maps.some((map) => map.symbol === symbol) || defines(layer, symbol);
    if (here) return select(symbol, index);
    const at = tour.findIndex((stop) => stop.layer === layer && tensorsOf(stop).some(([name, made]) => made && name === symbol));
    return at >= 0 ? go(at, [symbol, index]) : select(symbol, index);
  }
  const source = layers[layer].sources[symbol];
  if (source) {
    const from = layers.findIndex((one) => one.name === source[0]);
    const at = tour.findIndex((stop) => stop.layer === from && tensorsOf(stop).some(([name, made]) => made && name === source[1]));
    if (at >= 0) return go(at, [source[1], index]);
  }
  return select(symbol, index);
}

function origin(layer, symbol, index) {
  const box = document.createElement("div"), source = layers[layer].sources[symbol];
  const from = source && layers.findIndex((one) => one.name === source[0]);
  const gradient = `d${symbol}` in steps[state.step].tensors[layer] ? `d${symbol}` : null;
  const text = document.createElement("p");
  if (source) {
    text.textContent = `This number was made by ${source[0] === "loss" ? "the loss" : `${source[0]} (${layers[from].kind})`}.`;
    box.append(text, action("See what it is made of", () => follow(layer, symbol, index)));
  } else if (symbol in layers[layer].paths) {
    text.textContent = "A weight: it was learned in the steps before this one. Its gradient says how the loss changes with it.";
    box.append(text);
    if (gradient) box.append(action("See its gradient", () => follow(layer, gradient, index)));
  } else {
    text.textContent = { x: "A pixel of the image, normalised: mean 0 and deviation 1 over the training set.", t: "The answer that is right: 1 for the true class." }[symbol] || "Given.";
    box.append(text);
  }
  return box;
}

// ---- around it ---------------------------------------------------------------------------------------------------------------

function buildNet() {
  const list = document.createElement("ol");
  layers.forEach((layer, i) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const tensors = steps[0].tensors[i], shape = i === LOSS ? [] : facts.store[tensors.y].shape;
    button.innerHTML = `<span><span class="kind"></span><br><span class="name"></span></span><span class="shape"></span>`;
    button.querySelector(".kind").textContent = i === LOSS ? "Loss" : layer.kind;
    button.querySelector(".name").textContent = i === LOSS ? spaced(layer.kind) : layer.name || "the model";
    button.querySelector(".shape").textContent = shapeText(visible(shape, shape));
    button.onclick = () => {
      const { phase } = tour[state.at];
      const same = tour.findIndex((stop) => stop.layer === i && stop.phase === phase);
      go(same >= 0 ? same : tour.findIndex((stop) => stop.layer === i));
    };
    item.append(button);
    list.append(item);
  });
  $("net").append(list);
}

function header() {
  const { classes, label, model } = subject;
  $("title").textContent = `${model} learns from one image`;
  $("subtitle").textContent = `${subject.image}. One step of training, number by number: forward, loss, backward, update. Click any number.`;
  const logits = open(steps[state.step].tensors[LOSS].x), n = logits.shape[1];
  if (logits.shape.length !== 2 || n !== classes.length) return; // no scores of classes
  const row = logits.data.subarray(state.example * n, (state.example + 1) * n), top = Math.max(...row);
  const e = Array.from(row, (z) => Math.exp(z - top)), total = e.reduce((a, b) => a + b, 0);
  const order = e.map((v, i) => [v / total, i]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  if (!order.some(([, i]) => i === label)) order[2] = [e[label] / total, label];
  $("answers").replaceChildren(...order.flatMap(([p, i]) => {
    const name = document.createElement("span"), bar = document.createElement("span"), text = document.createElement("span");
    name.textContent = classes[i] ?? i;
    text.textContent = `${(100 * p).toFixed(1)} %${i === label ? ", the true class" : ""}`;
    bar.style.width = `${Math.max(1, 128 * p)}px`;
    bar.className = "bar";
    if (i === label) for (const part of [name, bar, text]) part.classList.add("true");
    return [name, bar, text];
  }));
}

function play() {
  clearInterval(state.playing);
  state.playing = state.playing ? 0 : setInterval(() => { if (state.at === tour.length - 1) play(); else go(state.at + 1); }, 1400);
  $("play").textContent = state.playing ? "❚❚ Pause" : "▶ Play";
  $("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
}

function toTrainingStep(step) {
  state.step = step;
  state.net = new Net(step);
  $("training-where").textContent = `${step + 1} of ${steps.length}, loss ${show(steps[step].loss)}`;
  header();
  go(state.at, state.symbol ? [state.symbol, state.index] : null);
}

async function start() {
  values = await readTensors();
  readColours();
  buildNet();
  $("segments").replaceChildren(...Object.keys(WORDS).map((phase) => {
    const part = document.createElement("span");
    part.style.cssText = `flex:${tour.filter((stop) => stop.phase === phase).length};background:var(--${phase})`;
    return part;
  }));
  Object.assign($("slider"), { max: tour.length - 1, oninput: (event) => go(+event.target.value) });
  $("back").onclick = () => go(state.at - 1);
  $("on").onclick = () => go(state.at + 1);
  $("play").onclick = play;
  if (steps.length > 1) {
    $("training").hidden = false;
    Object.assign($("training-step"), { max: steps.length - 1, oninput: (event) => toTrainingStep(+event.target.value) });
  }
  document.onkeydown = (event) => {
    if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowRight") go(state.at + 1);
    else if (event.key === "ArrowLeft") go(state.at - 1);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(tour.length - 1);
    else if (event.key === " " && !event.target.matches("button, [tabindex]")) play();
    else return;
    event.preventDefault();
  };
  const redraw = () => { readColours(); go(state.at, [state.symbol, state.index]); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let waiting;
  let width = innerWidth;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => { if (innerWidth !== width) { width = innerWidth; redraw(); } }, 150); });
  state.net = new Net(0);
  header();
  go(0);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

// for tests: every number of the page, and its sum
window.gpucnn = {
  facts, tour, go, follow, state, finiteDifference,
  tensor: (step, layer, symbol) => Array.from(open(steps[step].tensors[layer][symbol]).data),
  number(step, layer, symbol, offset) {
    const net = new Net(step), tensor = net.tensor(layer, symbol);
    const found = termsOf(net, layer, symbol, unflat(tensor.shape, offset));
    return { recorded: tensor.data[offset], sum: found.total, size: found.terms.reduce((sum, term) => sum + Math.abs(term.value), 0) };
  },
};
start();
})();

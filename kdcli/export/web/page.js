// The student in the page: a text is cut into words, onnxruntime-web computes its logits, and each word is masked in turn.
const element = (id) => document.getElementById(id);
const { task, max_length: longest, deferral } = JSON.parse(element("config").textContent);
const columns = task.kind === "pair" ? 2 : 1;
const MASK = 1;
const TOGETHER = 8; // masked texts at once; between these the page looks for what was typed meanwhile

let ort, session, tokenizer;

// Loading

// The bytes of a file: it is packed into this page, or lies beside it.
async function load(name) {
  const packed = element(name)?.textContent;
  if (packed === undefined) {
    const answer = await fetch(name);
    if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
    return new Uint8Array(await answer.arrayBuffer());
  }
  const bytes = Uint8Array.fromBase64?.(packed) ?? Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A blob has the right type for a script, whatever type the server gives the file.
async function library(name) {
  return import(URL.createObjectURL(new Blob([await load(name)], { type: "text/javascript" })));
}

async function start() {
  const names = ["ort-wasm-simd-threaded.wasm", "model.onnx", "tokenizer.json"];
  const [{ Tokenizer }, runtime, wasm, model, json] = await Promise.all(
    [library("tokenizers.min.mjs"), library("ort.wasm.bundle.min.mjs"), ...names.map(load)],
  );
  ort = runtime;
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = wasm;
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const vocabulary = JSON.parse(new TextDecoder().decode(json));
  tokenizer = new Tokenizer(vocabulary, { unk_token: vocabulary.model.unk_token });
}

// Computing

const CHINESE =
  "\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff" +
  "\\u{20000}-\\u{2a6df}\\u{2a700}-\\u{2b81f}\\u{2b820}-\\u{2ceaf}\\u{2f800}-\\u{2fa1f}";
const MARKS = "\\p{P}!-/:-@\\[-`{-~";
const SPACES = "\\t\\n\\r\\p{Z}";
const WORD = new RegExp(`\\[MASK\\]|[${CHINESE}${MARKS}]|[^${CHINESE}${MARKS}${SPACES}]+`, "gu");

// The words of a text: where each stands, and the ids of its pieces. Each is encoded by itself: tokenizers.js would not
// cut Chinese characters beyond U+FFFF apart, as the library in Python does.
function read(text) {
  const words = [];
  let place = 0;
  for (const { 0: word, index: begin } of text.matchAll(WORD)) {
    const { ids } = tokenizer.encode(word, { add_special_tokens: false });
    if (ids.length) words.push({ begin, end: begin + word.length, ids, unread: place >= longest, effect: 0 });
    place += ids.length;
  }
  return words;
}

// The ids that the model gets, with one of the words masked, or none.
function idsOf(words, masked) {
  const ids = words.slice(0, longest).flatMap((word) => (word === masked ? [MASK] : word.ids));
  return ids.length ? ids.slice(0, longest) : [MASK];
}

// The logits of rows, which are the ids of each text column.
async function compute(rows) {
  const inputs = {};
  for (let column = 0; column < columns; column++) {
    const texts = rows.map((row) => row[column]);
    const width = Math.max(...texts.map((ids) => ids.length));
    const words = new BigInt64Array(rows.length * width);
    texts.forEach((ids, row) => words.set(ids.map(BigInt), row * width));
    const lengths = BigInt64Array.from(texts, (ids) => BigInt(ids.length));
    const number = columns === 1 ? "" : column + 1;
    inputs[`words${number}`] = new ort.Tensor("int64", words, [rows.length, width]);
    inputs[`lengths${number}`] = new ort.Tensor("int64", lengths, [rows.length]);
  }
  const { logits } = await session.run(inputs);
  const outputs = logits.data.length / rows.length;
  return rows.map((_, row) => [...logits.data.slice(row * outputs, (row + 1) * outputs)]);
}

// Give each word its effect: what an output loses when the word is masked. It stops when something else is typed.
async function explain(texts, output, before) {
  const jobs = texts.flatMap((words, column) => words.filter((word) => !word.unread).map((word) => [column, word]));
  while (jobs.length) {
    await new Promise((resolve) => setTimeout(resolve));
    if (wanted) return false;
    const some = jobs.splice(0, TOGETHER);
    const rows = some.map(([column, word]) => texts.map((words, other) => idsOf(words, other === column ? word : null)));
    const after = await compute(rows);
    some.forEach(([, word], row) => { word.effect = before - after[row][output]; });
  }
  return true;
}

// Answers

// The logit above which a text has a label, in a multi-label task.
function thresholdOf(label) {
  const share = task.thresholds[label] ?? 0.5;
  return Math.log(share / (1 - share));
}

function probabilities(logits) {
  if (task.multi_label) return logits.map((value) => 1 / (1 + Math.exp(-value)));
  const odds = logits.map((value) => Math.exp(value - Math.max(...logits)));
  return odds.map((value) => value / odds.reduce((sum, one) => sum + one));
}

// Whether the student would leave a text to its teacher, as `kd predict --defer` says.
function defers(texts, logits) {
  const ids = texts.flatMap((words) => (words.length ? words.flatMap((word) => word.ids) : [MASK]));
  const unknown = ids.filter((id) => id === MASK || tokenizer.id_to_token(id).startsWith("##")).length / ids.length;
  if (deferral.threshold === null || unknown > deferral.unknown || ids.length > deferral.words) return true;
  const [first, second] = [...logits].sort((one, other) => other - one);
  const distances = logits.map((value, label) => Math.abs(value - thresholdOf(label)));
  const margin = task.multi_label ? Math.min(...distances) : task.labels.length ? first - second : -unknown;
  return margin <= deferral.threshold;
}

// Showing

function made(name, properties, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function show(logits) {
  let said, rows;
  if (task.labels.length) {
    const names = task.names.length ? task.names : task.labels;
    const shares = probabilities(logits);
    const isChosen = (label) => task.multi_label ? logits[label] > thresholdOf(label) : label === bestOf(logits);
    const labels = [...names.keys()].sort((one, other) => shares[other] - shares[one]);
    said = labels.filter(isChosen).map((label) => names[label]).join(", ") || "none of the labels";
    rows = labels.map((label) => {
      const cells = [names[label], made("meter", { value: shares[label] }), `${(100 * shares[label]).toFixed(1)} %`];
      return made("tr", { className: isChosen(label) ? "chosen" : "" }, ...cells.map((cell) => made("td", {}, cell)));
    });
  } else {
    const [min, max] = task.score_range ?? [-Infinity, Infinity];
    const value = Math.min(Math.max(logits[0], min), max);
    said = value.toFixed(2);
    const cells = [`${min} to ${max}`, made("meter", { min, max, value })];
    rows = task.score_range ? [made("tr", {}, ...cells.map((cell) => made("td", {}, cell)))] : [];
  }
  document.querySelector("h2").textContent = said;
  document.querySelector("tbody").replaceChildren(...rows);
}

// A text with its words coloured by their effects, relative to the largest.
function coloured(text, words, most) {
  const line = made("p", {});
  let end = 0;
  for (const word of words) {
    const kind = word.unread ? "unread" : word.effect < 0 ? "against" : "for";
    const mark = made(word.unread ? "span" : "mark", { className: kind }, text.slice(word.begin, word.end));
    mark.classList.toggle("unknown", word.ids.includes(MASK));
    mark.style.setProperty("--share", Math.abs(word.effect) / most);
    mark.title = word.effect.toFixed(2);
    line.append(text.slice(end, word.begin), mark);
    end = word.end;
  }
  line.append(text.slice(end));
  return line;
}

const bestOf = (logits) => logits.indexOf(Math.max(...logits));
let wanted = false;
let busy = false;

// Answer what is typed now; what is typed meanwhile is answered next.
async function update() {
  wanted = true;
  if (busy) return;
  busy = true;
  try {
    while (wanted) {
      wanted = false;
      await answer([...document.querySelectorAll("textarea")].map((area) => area.value.toWellFormed()));
    }
  } finally {
    busy = false;
  }
}

async function answer(typed) {
  const texts = typed.map(read);
  const main = document.querySelector("main");
  main.hidden = texts.some((words) => !words.length);
  if (main.hidden) return;
  const [logits] = await compute([texts.map((words) => idsOf(words))]);
  show(logits);
  const output = bestOf(logits);
  element("words").className = "old"; // until those of this text are coloured
  if (!(await explain(texts, output, logits[output]))) return;
  const words = texts.flat();
  const most = Math.max(...words.map((word) => Math.abs(word.effect))) || 1;
  element("words").replaceChildren(...typed.map((text, column) => coloured(text, texts[column], most)));
  element("words").className = "";
  const explained = task.names[output] ?? task.labels[output] ?? "a high score";
  element("explained").textContent = `${explained}: the stronger, the more it changes without the word.`;
  const agree = +(100 * deferral?.agree).toFixed(2);
  const unsure = `The student is unsure, and would leave this to its teacher, to agree with it in ${agree} % of all texts.`;
  const notes = {
    [unsure]: deferral && defers(texts, logits),
    [`Grey: the student reads no more than ${longest} words or parts of words.`]: words.some((word) => word.unread),
    "Dotted: the student does not know this word.": words.some((word) => word.ids.includes(MASK)),
  };
  const shown = Object.keys(notes).filter((note) => notes[note]);
  document.querySelector("ul").replaceChildren(...shown.map((note) => made("li", {}, note)));
}

const status = element("status");
const ready = start().then(
  () => {
    status.hidden = true;
    document.addEventListener("input", update);
    document.querySelector("textarea").focus();
    return update();
  },
  (error) => {
    status.className = "wrong";
    status.textContent = location.protocol === "file:" && !element("model.onnx")
      ? "A browser reads no files beside a page on a disk: serve this folder (python3 -m http.server), or export with --single."
      : `This browser cannot run the model, a newer one may: ${error.message}`;
  },
);

// For the console, and for scripts: await kd.ready; await kd.logits(["a text"]), or of a pair kd.logits(["one", "two"]).
globalThis.kd = {
  ready,
  ids: (texts) => texts.map((text) => idsOf(read(text))),
  logits: async (texts) => (await compute([kd.ids(texts)]))[0],
};

'use strict';
// The page that reads what you draw: first the network, then the ink, then what one
// sees. page.py puts this file and the network into page.html.

const NET = JSON.parse(document.getElementById('network').textContent);
const [ROWS, COLUMNS] = NET.shape;

const bytes = base64 => Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));

// The weights, in the order in which page.py wrote them.
const floats = new Float32Array(bytes(NET.weights).buffer);
let used = 0;
const next = count => floats.subarray(used, used += count);
const layers = NET.layers.map((units, layer) => {
  const inputs = layer ? NET.layers[layer - 1] : COLUMNS;
  return {units, kernel: next((inputs + units) * 4 * units), bias: next(4 * units)};
});
const W = next(layers[layers.length - 1].units * NET.names.length);
const bias = next(NET.names.length);

// Return x @ matrix + bias.
function product(x, matrix, bias) {
  const sums = Float32Array.from(bias), width = bias.length;
  x.forEach((value, row) => {
    if (value === 0) return;
    for (let k = 0; k < width; k++) sums[k] += value * matrix[row * width + k];
  });
  return sums;
}

const sigmoid = x => 1 / (1 + Math.exp(-x));

function softmax(logits) {
  const most = Math.max(...logits);
  const exps = Array.from(logits, x => Math.exp(x - most));
  return exps.map(x => x / exps.reduce((a, b) => a + b));
}

// Read an image, ROWS * COLUMNS numbers in [0, 1]. Return the probabilities of the
// classes after each row, and h[layer][row], the outputs of all units.
function read(pixels) {
  const c = layers.map(({units}) => new Float32Array(units));
  const h = layers.map(() => []);
  const rows = [];
  for (let row = 0; row < ROWS; row++) {
    let x = pixels.slice(row * COLUMNS, (row + 1) * COLUMNS);
    layers.forEach(({units, kernel, bias}, layer) => {
      const before = row ? h[layer][row - 1] : new Float32Array(units);
      const gates = product([...x, ...before], kernel, bias);  // i, j, f, o
      const now = new Float32Array(units), state = c[layer];
      for (let k = 0; k < units; k++) {
        state[k] = sigmoid(gates[2 * units + k] + 1) * state[k]
          + sigmoid(gates[k]) * Math.tanh(gates[units + k]);
        now[k] = sigmoid(gates[3 * units + k]) * Math.tanh(state[k]);
      }
      h[layer].push(now);
      x = now;
    });
    rows.push(softmax(product(x, W, bias)));
  }
  return {rows, h};
}

window.readRows = pixels => read(pixels).rows;

// Resize the lines of an image, `length` numbers each, as Pillow's BICUBIC does. Return
// the transposed image, which has a line for each of the `size` numbers.
function resize(lines, length, size) {
  const cubic = x => x < 1 ? (1.5 * x - 2.5) * x * x + 1
    : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  const scale = length / size, blur = Math.max(scale, 1), resized = [];
  for (let k = 0; k < size; k++) {
    const centre = (k + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - 2 * blur + 0.5));
    const end = Math.min(length, Math.trunc(centre + 2 * blur + 0.5));
    const weights = [];
    for (let i = first; i < end; i++) {
      weights.push(cubic(Math.abs(i - centre + 0.5) / blur));
    }
    const sum = weights.reduce((a, b) => a + b);
    resized.push(lines.map(line => weights.reduce(
      (value, weight, i) => value + weight * line[first + i], 0) / sum));
  }
  return resized;
}

// Crop ink, lines of numbers in [0, 1], to the digit, fit it to 20 / 28 of the image and
// centre it by mass, as predict.py does. Return the image, or null without ink.
function fit(ink) {
  const most = Math.max(...ink.map(line => Math.max(...line)));
  const range = lines => {  // of the lines that have ink
    const inked = lines.map(line => line.some(value => value > 0.1 * most));
    return [inked.indexOf(true), inked.lastIndexOf(true) + 1];
  };
  if (!most) return null;
  const [top, bottom] = range(ink);
  const [left, right] = range(ink[0].map((_, x) => ink.map(line => line[x])));
  const scale = 20 / 28 * Math.min(ROWS / (bottom - top), COLUMNS / (right - left));
  const [rows, columns] = [bottom - top, right - left].map(
    side => Math.max(1, Math.round(scale * side)));
  const crop = ink.slice(top, bottom).map(line => line.slice(left, right));
  const box = resize(resize(crop, right - left, columns), bottom - top, rows)
    .map(line => line.map(value => Math.min(Math.max(value, 0), most)));
  const darkest = Math.max(...box.map(line => Math.max(...line)));
  let mass = 0, x = 0, y = 0;
  box.forEach((line, row) => line.forEach((value, column) => {
    [mass, y, x] = [mass + value, y + value * row, x + value * column];
  }));
  const start = (whole, size, centre) =>
    Math.min(Math.max(Math.round(whole / 2 - centre), 0), whole - size);
  const down = start(ROWS, rows, y / mass), across = start(COLUMNS, columns, x / mass);
  const image = new Float32Array(ROWS * COLUMNS);
  box.forEach((line, row) => line.forEach((value, column) => {
    image[(down + row) * COLUMNS + across + column] = value / darkest;
  }));
  return image;
}

// What one sees.

const isChinese = /^zh/i.test(navigator.language);
const say = (english, chinese) => isChinese ? chinese : english;
const percent = p => (100 * p).toFixed(1) + ' %';
const $ = id => document.getElementById(id);
const pad = $('pad'), pen = pad.getContext('2d', {willReadFrequently: true});
let shown = null;  // {pixels, rows, h}
let timer = 0, isDrawing = false;

// Paint an image. colour(row, column) is [red, green, blue].
function paint(canvas, rows, columns, colour) {
  [canvas.width, canvas.height] = [columns, rows];
  const image = new ImageData(columns, rows);
  for (let k = 0; k < rows * columns; k++) {
    image.data.set([...colour(Math.floor(k / columns), k % columns), 255], 4 * k);
  }
  canvas.getContext('2d').putImageData(image, 0, 0);
}

// Ink is dark, as in rows.png. Rows after the last are faint: they are not read yet.
function paintDigit(canvas, pixels, last) {
  paint(canvas, ROWS, COLUMNS, (row, column) => Array(3).fill(
    255 - 255 * pixels[row * COLUMNS + column] * (row <= last ? 1 : 0.15)));
}

// Blue is above 0, and red is below, as in cells.png.
const signed = value => (value > 0 ? [33, 102, 172] : [178, 24, 43]).map(
  channel => 255 - (255 - channel) * Math.abs(value));

// Show what the network knows after a row, counted from 0.
function show(row) {
  const none = NET.names.map(() => 0), rows = shown ? shown.rows : [none];
  const now = shown ? rows[row] : none, best = now.indexOf(Math.max(...now));
  // Of many classes, the ten that are most likely after any row have a bar.
  const peaks = none.map((_, k) => Math.max(...rows.map(after => after[k])));
  [...peaks.keys()].sort((a, b) => peaks[b] - peaks[a]).slice(0, 10)
    .sort((a, b) => a - b).forEach((k, place) => {
      const bar = $('bars').children[place];
      bar.className = shown && k === best ? 'best' : '';
      bar.style.setProperty('--share', now[k]);
      bar.firstChild.textContent = NET.names[k];
      bar.lastChild.textContent = shown ? percent(now[k]) : '';
    });
  $('answer').textContent = shown ? NET.names[best] : '';
  $('sure').textContent = !shown ? '' : percent(now[best])
    + (row < ROWS - 1 ? say(' so far', '（目前）') : '');
  $('count').textContent = say(`row ${row + 1} of ${ROWS}`, `第 ${row + 1} / ${ROWS} 行`);
  $('row').value = row + 1;
  document.body.className = shown ? 'shown' : '';
  document.body.style.setProperty('--read', (row + 1) / ROWS);
  paintDigit($('seen'), shown ? shown.pixels : new Float32Array(ROWS * COLUMNS), row);
  document.querySelectorAll('#layers canvas').forEach((canvas, layer) => paint(
    canvas, ROWS, NET.layers[layer], (step, unit) =>
      signed(shown && step <= row ? shown.h[layer][step][unit] : 0)));
}

function take(pixels) {
  clearInterval(timer);
  shown = pixels && {pixels, ...read(pixels)};
  show(ROWS - 1);
}

// Read the rows of what is shown, one after the other, in four seconds.
function play() {
  clearInterval(timer);
  let row = 0;
  show(row);
  timer = setInterval(() => {
    show(++row);
    if (row === ROWS - 1) clearInterval(timer);
  }, 4000 / ROWS);
}

function clear() {
  pen.clearRect(0, 0, pad.width, pad.height);
  $('hint').hidden = false;
  take(null);
}

// Draw a line to where the pointer is, and take what is on the pad.
function draw(event) {
  if (!isDrawing || !event.isPrimary) return;
  const place = pad.getBoundingClientRect();
  pen.lineTo((event.clientX - place.left) * pad.width / place.width,
             (event.clientY - place.top) * pad.height / place.height);
  pen.stroke();
  const {data} = pen.getImageData(0, 0, pad.width, pad.height);
  take(fit(Array.from({length: pad.height}, (_, y) => Array.from(
    {length: pad.width}, (_, x) => data[4 * (y * pad.width + x) + 3] / 255))));
}

pad.onpointerdown = event => {
  if (!event.isPrimary || event.button) return;
  pad.setPointerCapture(event.pointerId);
  [isDrawing, $('hint').hidden] = [true, true];
  pen.beginPath();
  draw(event);
};
pad.onpointermove = draw;
pad.onpointerup = pad.onpointercancel = event => {
  if (!isDrawing || !event.isPrimary) return;
  [isDrawing, timer] = [false, setTimeout(play, 700)];  // a four has two strokes
};
$('clear').onclick = clear;
$('play').onclick = play;
$('row').oninput = event => { clearInterval(timer); show(event.target.value - 1); };

document.documentElement.lang = say('en', 'zh-CN');
document.querySelectorAll('[data-zh]').forEach(text => {
  text.textContent = say(text.textContent, text.dataset.zh);
});
document.title = $('title').textContent;
$('row').max = ROWS;
const larger = Math.max(ROWS, COLUMNS);
[pad.width, pad.height] = [280 * COLUMNS / larger, 280 * ROWS / larger];
Object.assign(pen, {lineWidth: 24, lineCap: 'round', lineJoin: 'round'});
$('bars').innerHTML = '<div><b></b><i></i><span></span></div>'.repeat(
  Math.min(10, NET.names.length));
$('layers').innerHTML = NET.layers.map((units, layer) => `<h2>${say(
  `h of layer ${layer + 1}, ${units} units: blue above 0, red below`,
  `第 ${layer + 1} 层的隐藏状态 h（${units} 个单元，蓝正红负）`)}</h2>
  <div class="read"><canvas class="pixels"></canvas></div>`).join('');
for (const test of NET.tests) {
  const pixels = Float32Array.from(bytes(test), value => value / 255);
  const button = $('tests').appendChild(document.createElement('button'));
  paintDigit(button.appendChild(document.createElement('canvas')), pixels, ROWS);
  button.onclick = () => { clear(); take(pixels); play(); };
}
$('examples').hidden = !NET.tests.length;
clear();

'use strict';
// First the network, then the ink, then what one sees. page.py puts this into page.html.

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
    if (value) for (let k = 0; k < width; k++) sums[k] += value * matrix[row * width + k];
  });
  return sums;
}

const sigmoid = x => 1 / (1 + Math.exp(-x));
function softmax(logits) {
  const exps = Array.from(logits, x => Math.exp(x - Math.max(...logits)));
  return exps.map(x => x / exps.reduce((a, b) => a + b));
}

// Read an image, ROWS * COLUMNS numbers in [0, 1]. Return the probabilities of the
// classes after each row, and h[layer][row], the outputs of all units.
function read(pixels) {
  const c = layers.map(({units}) => new Float32Array(units));
  const h = layers.map(() => []), rows = [];
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
      h[layer].push(x = now);
    });
    rows.push(softmax(product(x, W, bias)));
  }
  return {rows, h};
}

window.readRows = pixels => read(pixels).rows;

// Resize the lines of an image to `size` numbers each, as Pillow's BICUBIC does. Return
// the transposed image, which has a line for each of these numbers.
function resize(lines, size) {
  const cubic = x => x < 1 ? (1.5 * x - 2.5) * x * x + 1
    : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  const {length} = lines[0], scale = length / size, blur = Math.max(scale, 1);
  return Array.from({length: size}, (_, k) => {
    const centre = (k + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - 2 * blur + 0.5));
    const end = Math.min(length, Math.trunc(centre + 2 * blur + 0.5));
    const weights = Array.from({length: end - first}, (_, i) =>
      cubic(Math.abs(first + i - centre + 0.5) / blur));
    const sum = weights.reduce((a, b) => a + b);
    return lines.map(line => weights.reduce(
      (value, weight, i) => value + weight * line[first + i], 0) / sum);
  });
}

const largest = ink => Math.max(...ink.map(line => Math.max(...line)));
// Return the sum of the ink, weighted by of(y, x).
const sum = (ink, of) => ink.reduce((all, line, y) => all + line.reduce(
  (part, value, x) => part + value * of(y, x), 0), 0);

// Return the part of an image that has ink.
function crop(ink) {
  const least = 0.1 * largest(ink);
  const range = lines => {
    const inked = lines.map(line => line.some(value => value > least));
    return [inked.indexOf(true), inked.lastIndexOf(true) + 1];
  };
  const across = range(ink[0].map((_, x) => ink.map(line => line[x])));
  return ink.slice(...range(ink)).map(line => line.slice(...across));
}

// Shear ink by 0.3 of its slant, which is the regression of x on y.
function deslant(ink) {
  const middle = sum(ink, y => y) / sum(ink, () => 1);
  const slant = 0.3 * sum(ink, (y, x) => (y - middle) * x)
    / Math.max(sum(ink, y => (y - middle) ** 2), 1e-9);
  const room = Math.trunc(Math.abs(slant) * ink.length) + 1;
  return ink.map((line, y) => Array.from({length: line.length + 2 * room}, (_, x) => {
    const place = x - room + slant * (y + 0.5 - middle), left = Math.floor(place);
    return (line[left] || 0) * (left + 1 - place) + (line[left + 1] || 0) * (place - left);
  }));
}

// Crop ink, lines of numbers in [0, 1], to the digit, fit it to 20 / 28 of the image and
// centre it by mass, as predict.py does. Return the image, or null without ink.
function fit(ink) {
  const most = largest(ink);
  if (!most) return null;
  const digit = crop(deslant(crop(ink))), sides = [digit.length, digit[0].length];
  const scale = 20 / 28 * Math.min(ROWS / sides[0], COLUMNS / sides[1]);
  const [rows, columns] = sides.map(side => Math.max(1, Math.round(scale * side)));
  const box = resize(resize(digit, columns), rows)
    .map(line => line.map(value => Math.min(Math.max(value, 0), most)));
  const darkest = largest(box), mass = sum(box, () => 1);
  const start = (whole, size, moment) =>
    Math.min(Math.max(Math.round(whole / 2 - moment / mass), 0), whole - size);
  const down = start(ROWS, rows, sum(box, y => y));
  const across = start(COLUMNS, columns, sum(box, (_, x) => x));
  const image = new Float32Array(ROWS * COLUMNS);
  box.forEach((line, row) => line.forEach((value, column) => {
    image[(down + row) * COLUMNS + across + column] = value / darkest;
  }));
  return image;
}

// What one sees.

const say = (english, chinese) => /^zh/i.test(navigator.language) ? chinese : english;
const percent = p => (100 * p).toFixed(1) + ' %', $ = id => document.getElementById(id);
const pad = $('pad'), pen = pad.getContext('2d', {willReadFrequently: true});
let shown = null, timer = 0, isDrawing = false;  // shown is {pixels, rows, h}

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
  timer = setInterval(() => row === ROWS - 1 ? clearInterval(timer) : show(++row),
                      4000 / ROWS);
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
[$('clear').onclick, $('play').onclick, $('row').max] = [clear, play, ROWS];
$('row').oninput = event => { clearInterval(timer); show(event.target.value - 1); };

document.documentElement.lang = say('en', 'zh-CN');
document.querySelectorAll('[data-zh]').forEach(text => {
  text.textContent = say(text.textContent, text.dataset.zh);
});
document.title = $('title').textContent;
const larger = Math.max(ROWS, COLUMNS);
[pad.width, pad.height] = [280 * COLUMNS / larger, 280 * ROWS / larger];
Object.assign(pen, {lineWidth: 28, lineCap: 'round', lineJoin: 'round'});
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

//! Every native operator at every shape that the network has it in, for four photos of 608 x 400, its result checked; those
//! of an encoder at the shapes of `EfficientNet-Lite0`, for four photos of 608 x 416: `cargo bench --bench ops [-- FILTER]`.
//!
//! What Criterion calls elements a second is floating-point operations a second of the convolutions, pixels or numbers a
//! second of the rest. Depthwise convolutions and `memory`, a copy of the largest maps, give bytes read and written a
//! second. `RAYON_NUM_THREADS=1` measures one core.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
#[path = "ops/bf16_encoder.rs"]
mod bf16_encoder;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
#[path = "ops/bf16_layers.rs"]
mod bf16_layers;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use lookbook_ops::adam::{Adam, AdamInputs};
use lookbook_ops::convolution::{convolution, convolution_input_gradient, convolution_weight_gradient};
use lookbook_ops::depthwise::Depthwise;
use lookbook_ops::head::{Head, HeadLoss, MAPS};
use lookbook_ops::inverted::{Inverted, InvertedParameters};
use lookbook_ops::norm::{batch_norm, batch_norm_gradient};
use lookbook_ops::pointwise::{pointwise, pointwise_input_gradient, pointwise_weight_gradient};
use lookbook_ops::pool::{max_pool, max_pool_gradient, pooled_shape};
use lookbook_ops::up::{up_convolution, up_convolution_input_gradient, up_convolution_weight_gradient, up_shape};
use lookbook_ops::winograd::{at_points, is_worthwhile, winograd_convolution};
use lookbook_ops::{Activation, Instructions, Maps, Mask, Photos, Rayon, Shape, Spread, Workers};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Channels of the network's levels, and its trained numbers (`lookbook::graph`).
const CHANNELS: [usize; 5] = [8, 16, 32, 64, 128];
const PARAMETER_COUNT: usize = 486_015;

const PHOTOS: usize = 4;
const ROWS: usize = 608;
const COLUMNS: usize = 400;
const TAPS: usize = 9;
/// Results that are checked of each operator.
const CHECKED: usize = 200;
/// Largest error of a sum in f32, as a share of the sum of its magnitudes.
const TOLERANCE: f64 = 1e-5;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn workers() -> Workers<'static> {
    Workers { instructions: Instructions::best(), spread: &Rayon }
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> Group<'a> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}

/// The maps of a level of the network, from 0.
fn maps_of(level: usize, channels: usize) -> Shape {
    Shape { batch: PHOTOS, rows: ROWS >> level, columns: COLUMNS >> level, channels }
}

fn random(len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(len as u64);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Checks some elements of a result: each is defined as the sum of `products`, finished by `finish`.
fn check<P: Iterator<Item = f64>>(found: &[f32], products: impl Fn(usize) -> P, finish: impl Fn(usize, f64) -> f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for at in (0..CHECKED).map(|_| rng.random_range(0..found.len())) {
        let (sum, magnitude) = products(at).fold((0.0, 1.0), |(sum, all), it| (sum + it, all + it.abs()));
        let expected = finish(at, sum);
        let off = (f64::from(found[at]) - expected).abs();
        assert!(off <= TOLERANCE * magnitude, "element {at} is {}, not {expected}", found[at]);
    }
}

fn plain(_: usize, sum: f64) -> f64 {
    sum
}

/// The pixel that lies `rows` further down and `columns` further right, where that is in the photo.
fn moved(shape: Shape, pixel: usize, [rows, columns]: [isize; 2]) -> Option<usize> {
    let row = (pixel / shape.columns % shape.rows).checked_add_signed(rows)?;
    let column = (pixel % shape.columns).checked_add_signed(columns)?;
    let photo = pixel / shape.columns / shape.rows;
    (row < shape.rows && column < shape.columns).then(|| (photo * shape.rows + row) * shape.columns + column)
}

/// Where a tap reads, seen from the pixel that it gives to.
fn offset(tap: usize) -> [isize; 2] {
    [tap as isize / 3 - 1, tap as isize % 3 - 1]
}

/// A 3x3 convolution of the network.
struct Layer {
    name: String,
    /// Of each input.
    shape: Shape,
    inputs: Vec<Vec<f32>>,
    /// What the input is made of where it is photos.
    photos: Vec<u8>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    output_gradient: Vec<f32>,
}

impl Layer {
    fn new(name: String, shape: Shape, inputs: usize, out: usize) -> Self {
        let mut first = random(shape.len());
        let mut photos = Vec::new();
        if shape.channels == 3 {
            photos = first.iter().map(|it| (it.abs() * 255.0) as u8).collect();
            first = photos.iter().map(|&it| f32::from(it) / 255.0).collect();
        }
        let second = first.iter().rev().copied().collect();
        Self {
            name,
            shape,
            inputs: [first, second].into_iter().take(inputs).collect(),
            photos,
            weight: random(out * inputs * shape.channels * TAPS),
            bias: random(out),
            output_gradient: random(shape.pixels() * out),
        }
    }

    /// All that differ: the second convolution of a level is the same on the way down and up.
    fn all() -> Vec<Self> {
        let mut layers = Vec::new();
        let mut input = 3;
        for (level, out) in CHANNELS.into_iter().enumerate() {
            layers.push(Self::new(format!("down{}a", level + 1), maps_of(level, input), 1, out));
            layers.push(Self::new(format!("down{}b", level + 1), maps_of(level, out), 1, out));
            input = out;
        }
        for (number, (level, out)) in (1..).zip(CHANNELS.into_iter().enumerate().rev().skip(1)) {
            layers.push(Self::new(format!("up{number}a"), maps_of(level, out), 2, out));
        }
        layers
    }

    fn out(&self) -> usize {
        self.bias.len()
    }

    fn all_channels(&self) -> usize {
        self.inputs.len() * self.shape.channels
    }

    fn flop(&self) -> Throughput {
        Throughput::Elements(2 * (self.shape.pixels() * self.weight.len()) as u64)
    }

    fn maps(&self) -> Vec<Maps<'_>> {
        if self.photos.is_empty() {
            return self.inputs.iter().map(|it| Maps::Features(it)).collect();
        }
        vec![Maps::Photos(Photos::new(&self.photos))]
    }

    fn x(&self, pixel: usize, channel: usize) -> f64 {
        let channels = self.shape.channels;
        f64::from(self.inputs[channel / channels][pixel * channels + channel % channels])
    }

    fn w(&self, out: usize, channel: usize, tap: usize) -> f64 {
        f64::from(self.weight[(out * self.all_channels() + channel) * TAPS + tap])
    }

    fn dy(&self, pixel: usize, out: usize) -> f64 {
        f64::from(self.output_gradient[pixel * self.out() + out])
    }

    fn forward(&self, mut group: Group<'_>) {
        let mut output = vec![0.0; self.output_gradient.len()];
        let parameters = [&self.weight[..], &self.bias];
        let mut run =
            || convolution(workers(), self.shape, &self.maps(), parameters, Activation::Relu, black_box(&mut output));
        run();
        group.throughput(self.flop()).bench_function(&self.name, |bencher| bencher.iter(&mut run));
        self.check_forward(&output);
    }

    /// By Winograd's algorithm; the operations counted are those without it.
    fn winograd(&self, mut group: Group<'_>) {
        let mut output = vec![0.0; self.output_gradient.len()];
        let weight = at_points(&self.weight, self.out());
        let parameters = [&weight[..], &self.bias];
        let mut run = || winograd_convolution(workers(), self.shape, &self.maps(), parameters, black_box(&mut output));
        run();
        group.throughput(self.flop()).bench_function(&self.name, |bencher| bencher.iter(&mut run));
        self.check_forward(&output);
    }

    fn check_forward(&self, output: &[f32]) {
        let products = |at: usize| {
            let (pixel, out) = (at / self.out(), at % self.out());
            let taps = (0..TAPS).filter_map(move |tap| Some((tap, moved(self.shape, pixel, offset(tap))?)));
            let channels = 0..self.all_channels();
            taps.flat_map(move |(tap, from)| channels.clone().map(move |it| self.x(from, it) * self.w(out, it, tap)))
        };
        check(output, products, |at, sum| (sum + f64::from(self.bias[at % self.out()])).max(0.0));
    }

    fn input_gradient(&self, mut group: Group<'_>) {
        let mut first = vec![0.0; self.inputs[0].len()];
        let mut second = vec![0.0; first.len() * (self.inputs.len() - 1)];
        let mask = (self.inputs.len() == 1).then_some(&self.inputs[0][..]);
        let (gradient, weight) = (&self.output_gradient, &self.weight);
        let mut run = || {
            let results = black_box([&mut first[..], &mut second]);
            convolution_input_gradient(workers(), self.shape, gradient, weight, mask.map(Mask::relu), results);
        };
        run();
        group.throughput(self.flop()).bench_function(&self.name, |bencher| bencher.iter(&mut run));
        let finish = |at: usize, sum: f64| if mask.is_some_and(|mask| mask[at] <= 0.0) { 0.0 } else { sum };
        for (input, found) in [first, second].iter().enumerate().take(self.inputs.len()) {
            let products = |at: usize| {
                let (pixel, channel) = (at / self.shape.channels, at % self.shape.channels);
                let channel = input * self.shape.channels + channel;
                // Who reads this pixel by a tap lies the other way.
                let there = move |tap| Some((tap, moved(self.shape, pixel, offset(TAPS - 1 - tap))?));
                let outs = 0..self.out();
                let of_tap = move |(tap, to)| outs.clone().map(move |it| self.dy(to, it) * self.w(it, channel, tap));
                (0..TAPS).filter_map(there).flat_map(of_tap)
            };
            check(found, products, finish);
        }
    }

    fn weight_gradient(&self, mut group: Group<'_>) {
        let (mut weight, mut bias) = (vec![0.0; self.weight.len()], vec![0.0; self.out()]);
        let mut run = || {
            let results = black_box([&mut weight[..], &mut bias]);
            convolution_weight_gradient(workers(), self.shape, &self.maps(), &self.output_gradient, results);
        };
        run();
        group.throughput(self.flop()).bench_function(&self.name, |bencher| bencher.iter(&mut run));
        let products = |at: usize| {
            let (all, tap) = (at / TAPS, at % TAPS);
            let (out, channel) = (all / self.all_channels(), all % self.all_channels());
            let there = move |to| Some((to, moved(self.shape, to, offset(tap))?));
            let pairs = (0..self.shape.pixels()).filter_map(there);
            pairs.map(move |(to, from)| self.dy(to, out) * self.x(from, channel))
        };
        check(&weight, products, plain);
        check(&bias, |out| (0..self.shape.pixels()).map(move |pixel| self.dy(pixel, out)), plain);
    }
}

fn convolutions(criterion: &mut Criterion) {
    for layer in Layer::all() {
        layer.forward(group(criterion, "convolution"));
        if layer.photos.is_empty() && is_worthwhile(layer.all_channels()) {
            layer.winograd(group(criterion, "winograd_convolution"));
        }
        if layer.photos.is_empty() {
            layer.input_gradient(group(criterion, "convolution_input_gradient"));
        }
        layer.weight_gradient(group(criterion, "convolution_weight_gradient"));
    }
}

/// A transposed convolution of the network: a pixel of the input gives to four of the output, its corners.
struct Up {
    name: String,
    shape: Shape,
    out: usize,
    input: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    output_gradient: Vec<f32>,
}

impl Up {
    fn new(number: usize) -> Self {
        let level = CHANNELS.len() - number;
        let (shape, out) = (maps_of(level, CHANNELS[level]), CHANNELS[level - 1]);
        Self {
            name: format!("up{number}t"),
            shape,
            out,
            input: random(shape.len()),
            weight: random(shape.channels * out * 4),
            bias: random(out),
            output_gradient: random(up_shape(shape, out).len()),
        }
    }

    fn flop(&self) -> Throughput {
        Throughput::Elements(2 * (self.shape.pixels() * self.weight.len()) as u64)
    }

    /// The pixel of the output that a corner of a pixel of the input is.
    fn corner(&self, pixel: usize, corner: usize) -> usize {
        let (row, column) = (pixel / self.shape.columns, pixel % self.shape.columns);
        (2 * row + corner / 2) * 2 * self.shape.columns + 2 * column + corner % 2
    }

    fn x(&self, pixel: usize, channel: usize) -> f64 {
        f64::from(self.input[pixel * self.shape.channels + channel])
    }

    fn w(&self, channel: usize, out: usize, corner: usize) -> f64 {
        f64::from(self.weight[(channel * self.out + out) * 4 + corner])
    }

    fn dy(&self, pixel: usize, out: usize) -> f64 {
        f64::from(self.output_gradient[pixel * self.out + out])
    }

    fn forward(&self, mut group: Group<'_>) {
        let mut output = vec![0.0; self.output_gradient.len()];
        let parameters = [&self.weight[..], &self.bias];
        let mut run = || up_convolution(workers(), self.shape, &self.input, parameters, black_box(&mut output));
        run();
        group.throughput(self.flop()).bench_function(&self.name, |bencher| bencher.iter(&mut run));
        let products = |at: usize| {
            let (pixel, out, columns) = (at / self.out, at % self.out, 2 * self.shape.columns);
            let (row, column) = (pixel / columns, pixel % columns);
            let (from, corner) = (row / 2 * self.shape.columns + column / 2, row % 2 * 2 + column % 2);
            (0..self.shape.channels).map(move |it| self.x(from, it) * self.w(it, out, corner))
        };
        check(&output, products, |at, sum| sum + f64::from(self.bias[at % self.out]));
    }

    fn input_gradient(&self, mut group: Group<'_>) {
        let mut found = vec![0.0; self.input.len()];
        let (gradient, weight, mask) = (&self.output_gradient, &self.weight, &self.input);
        let mut run = || {
            let result = black_box(&mut found);
            up_convolution_input_gradient(workers(), self.shape, gradient, weight, Some(Mask::relu(mask)), result);
        };
        run();
        group.throughput(self.flop()).bench_function(&self.name, |bencher| bencher.iter(&mut run));
        let products = |at: usize| {
            let (pixel, channel) = (at / self.shape.channels, at % self.shape.channels);
            let pairs = (0..4 * self.out).map(|it| (it / self.out, it % self.out));
            pairs.map(move |(corner, out)| self.dy(self.corner(pixel, corner), out) * self.w(channel, out, corner))
        };
        check(&found, products, |at, sum| if mask[at] <= 0.0 { 0.0 } else { sum });
    }

    fn weight_gradient(&self, mut group: Group<'_>) {
        let (mut weight, mut bias) = (vec![0.0; self.weight.len()], vec![0.0; self.out]);
        let mut run = || {
            let results = black_box([&mut weight[..], &mut bias]);
            up_convolution_weight_gradient(workers(), self.shape, &self.input, &self.output_gradient, results);
        };
        run();
        group.throughput(self.flop()).bench_function(&self.name, |bencher| bencher.iter(&mut run));
        let products = |at: usize| {
            let (channel, out, corner) = (at / 4 / self.out, at / 4 % self.out, at % 4);
            let pixels = 0..self.shape.pixels();
            pixels.map(move |pixel| self.x(pixel, channel) * self.dy(self.corner(pixel, corner), out))
        };
        check(&weight, products, plain);
        check(&bias, |out| (0..4 * self.shape.pixels()).map(move |pixel| self.dy(pixel, out)), plain);
    }
}

fn up_convolutions(criterion: &mut Criterion) {
    for layer in (1..CHANNELS.len()).map(Up::new) {
        layer.forward(group(criterion, "up_convolution"));
        layer.input_gradient(group(criterion, "up_convolution_input_gradient"));
        layer.weight_gradient(group(criterion, "up_convolution_weight_gradient"));
    }
}

/// Rows and columns that an encoder's photos have, and how often its maps are halved.
const ENCODER_PHOTO: [usize; 2] = [608, 416];
/// Halvings, input and output channels of the pointwise convolutions of `EfficientNet-Lite0`.
const POINTWISE: [[usize; 3]; 18] = [
    [1, 32, 16],
    [1, 16, 96],
    [2, 96, 24],
    [2, 24, 144],
    [2, 144, 24],
    [3, 144, 40],
    [3, 40, 240],
    [3, 240, 40],
    [4, 240, 80],
    [4, 80, 480],
    [4, 480, 80],
    [4, 480, 112],
    [4, 112, 672],
    [4, 672, 112],
    [5, 672, 192],
    [5, 192, 1152],
    [5, 1152, 192],
    [5, 1152, 320],
];
/// Halvings, channels, kernel and stride of its depthwise convolutions.
const DEPTHWISE: [[usize; 4]; 12] = [
    [1, 32, 3, 1],
    [1, 96, 3, 2],
    [2, 144, 3, 1],
    [2, 144, 5, 2],
    [3, 240, 5, 1],
    [3, 240, 3, 2],
    [4, 480, 3, 1],
    [4, 480, 5, 1],
    [4, 672, 5, 1],
    [4, 672, 5, 2],
    [5, 1152, 5, 1],
    [5, 1152, 3, 1],
];

fn encoder_maps(halvings: usize, channels: usize) -> Shape {
    let [rows, columns] = ENCODER_PHOTO.map(|it| it >> halvings);
    Shape { batch: PHOTOS, rows, columns, channels }
}

fn pointwises(criterion: &mut Criterion) {
    for [halvings, channels, out] in POINTWISE {
        let (shape, name) = (encoder_maps(halvings, channels), format!("{channels} to {out}"));
        let (input, weight, bias) = (random(shape.len()), random(channels * out), random(out));
        let gradient = random(shape.pixels() * out);
        let flop = Throughput::Elements(2 * (shape.pixels() * weight.len()) as u64);
        let x = |pixel: usize, channel: usize| f64::from(input[pixel * channels + channel]);
        let w = |out: usize, channel: usize| f64::from(weight[out * channels + channel]);
        let dy = |pixel: usize, at: usize| f64::from(gradient[pixel * out + at]);

        let mut output = vec![0.0; gradient.len()];
        let mut run = || {
            let output = black_box(&mut output);
            pointwise(workers(), shape, &input, [&weight, &bias], Activation::Relu6, Some(&gradient), output);
        };
        run();
        group(criterion, "pointwise").throughput(flop.clone()).bench_function(&name, |it| it.iter(&mut run));
        let products = |at: usize| (0..channels).map(move |channel| x(at / out, channel) * w(at % out, channel));
        let finish = |at: usize, sum: f64| (sum + f64::from(bias[at % out])).clamp(0.0, 6.0) + f64::from(gradient[at]);
        check(&output, products, finish);

        let mut found = vec![0.0; shape.len()];
        let mask = Mask { activation: Activation::Relu6, maps: &input };
        let mut run = || {
            let found = black_box(&mut found);
            pointwise_input_gradient(workers(), shape, &gradient, &weight, Some(&input), Some(mask), found);
        };
        run();
        let mut to_input = group(criterion, "pointwise_input_gradient");
        to_input.throughput(flop.clone()).bench_function(&name, |it| it.iter(&mut run));
        to_input.finish();
        let products = |at: usize| (0..out).map(move |it| dy(at / channels, it) * w(it, at % channels));
        let finish = |at: usize, sum: f64| if input[at] > 0.0 { sum + f64::from(input[at]) } else { 0.0 };
        check(&found, products, finish);

        let (mut of_weight, mut of_bias) = (vec![0.0; weight.len()], vec![0.0; out]);
        let mut run = || {
            let results = black_box([&mut of_weight[..], &mut of_bias]);
            pointwise_weight_gradient(workers(), shape, &input, &gradient, results);
        };
        run();
        let mut to_weight = group(criterion, "pointwise_weight_gradient");
        to_weight.throughput(flop).bench_function(&name, |it| it.iter(&mut run));
        to_weight.finish();
        let products = |at: usize| (0..shape.pixels()).map(move |it| dy(it, at / channels) * x(it, at % channels));
        check(&of_weight, products, plain);
        check(&of_bias, |at| (0..shape.pixels()).map(move |pixel| dy(pixel, at)), plain);
    }
}

fn depthwises(criterion: &mut Criterion) {
    for [halvings, channels, kernel, stride] in DEPTHWISE {
        let shape = encoder_maps(halvings, channels);
        let layer = Depthwise { shape, kernel, stride, pads: [(kernel - stride) / 2; 2] };
        let output_shape = layer.output_shape();
        let name = format!("{channels}, {kernel}x{kernel}, stride {stride}");
        let taps = kernel * kernel;
        let (input, weight, bias) = (random(shape.len()), random(channels * taps), random(channels));
        let gradient = random(output_shape.len());
        let bytes = Throughput::Bytes(4 * (shape.len() + output_shape.len()) as u64);
        let x = |at: usize| f64::from(input[at]);
        let w = |channel: usize, tap: usize| f64::from(weight[channel * taps + tap]);
        let dy = |at: usize| f64::from(gradient[at]);
        // The element of the input that a tap reads for an element of the output.
        let read = |at: usize, tap: usize| {
            let (pixel, channel) = (at / channels, at % channels);
            let (line, column) = (pixel / output_shape.columns, pixel % output_shape.columns);
            let (photo, row) = (line / output_shape.rows, line % output_shape.rows);
            let row = (row * stride + tap / kernel).wrapping_sub(layer.pads[0]);
            let column = (column * stride + tap % kernel).wrapping_sub(layer.pads[1]);
            let is_there = row < shape.rows && column < shape.columns;
            is_there.then(|| ((photo * shape.rows + row) * shape.columns + column) * channels + channel)
        };

        let mut output = vec![0.0; output_shape.len()];
        let mut run = || layer.forward(workers(), &input, [&weight, &bias], Activation::Relu6, black_box(&mut output));
        run();
        group(criterion, "depthwise").throughput(bytes.clone()).bench_function(&name, |it| it.iter(&mut run));
        let products = |at: usize| (0..taps).filter_map(move |tap| Some(x(read(at, tap)?) * w(at % channels, tap)));
        check(&output, products, |at, sum| (sum + f64::from(bias[at % channels])).clamp(0.0, 6.0));

        let mut found = vec![0.0; shape.len()];
        let mask = Some(Mask { activation: Activation::Relu6, maps: &input });
        let mut run = || layer.input_gradient(workers(), &gradient, &weight, mask, black_box(&mut found));
        run();
        let mut to_input = group(criterion, "depthwise_input_gradient");
        let masked_bytes = Throughput::Bytes(4 * (2 * shape.len() + output_shape.len()) as u64);
        to_input.throughput(masked_bytes).bench_function(&name, |it| it.iter(&mut run));
        to_input.finish();
        let products = |at: usize| {
            let (pixel, channel) = (at / channels, at % channels);
            let (line, column) = (pixel / shape.columns, pixel % shape.columns);
            let (photo, row) = (line / shape.rows, line % shape.rows);
            (0..taps).filter_map(move |tap| {
                let row = (row + layer.pads[0]).checked_sub(tap / kernel).filter(|it| it % stride == 0)? / stride;
                let column = (column + layer.pads[1]).checked_sub(tap % kernel).filter(|it| it % stride == 0)? / stride;
                let is_there = row < output_shape.rows && column < output_shape.columns;
                let to = (photo * output_shape.rows + row) * output_shape.columns + column;
                is_there.then(|| dy(to * channels + channel) * w(channel, tap))
            })
        };
        check(&found, products, |at, sum| if input[at] > 0.0 { sum } else { 0.0 });

        let (mut of_weight, mut of_bias) = (vec![0.0; weight.len()], vec![0.0; channels]);
        let mut run = || {
            let results = black_box([&mut of_weight[..], &mut of_bias]);
            layer.weight_gradient(workers(), &input, &gradient, results);
        };
        run();
        let mut to_weight = group(criterion, "depthwise_weight_gradient");
        to_weight.throughput(bytes).bench_function(&name, |it| it.iter(&mut run));
        to_weight.finish();
        let products = |at: usize| {
            let places = (0..output_shape.pixels()).map(move |pixel| pixel * channels + at / taps);
            places.filter_map(move |to| Some(dy(to) * x(read(to, at % taps)?)))
        };
        check(&of_weight, products, plain);
        check(&of_bias, |at| (0..output_shape.pixels()).map(move |pixel| dy(pixel * channels + at)), plain);
    }
}

/// A copy of the largest maps: what layers that only move memory come near to at best.
fn memory(criterion: &mut Criterion) {
    const SHARE: usize = 1 << 14;
    let from = random(encoder_maps(1, 96).len());
    let to: Vec<std::sync::Mutex<Vec<f32>>> = from.chunks(SHARE).map(|it| vec![0.0; it.len()].into()).collect();
    let mut run = || {
        Rayon.each(to.len(), &|at| {
            let mut to = to[at].lock().expect("no other task has it");
            let from = &from[at * SHARE..][..to.len()];
            to.copy_from_slice(from);
        });
    };
    run();
    let mut group = group(criterion, "memory");
    group.throughput(Throughput::Bytes(8 * from.len() as u64)).bench_function("copy", |it| it.iter(&mut run));
}

/// Elements of the input that make an element of a max-pooling's output.
fn window(shape: Shape, at: usize) -> [usize; 4] {
    let (pixel, channel, columns) = (at / shape.channels, at % shape.channels, shape.columns / 2);
    let first = pixel / columns * 2 * shape.columns + pixel % columns * 2;
    [0, 1, shape.columns, shape.columns + 1].map(|it| (first + it) * shape.channels + channel)
}

/// Halvings of the input, its channels, those in between and of the output, kernel and stride of the blocks of
/// `EfficientNet-Lite0` that are one layer at this size.
const INVERTED: [[usize; 6]; 5] = [
    [1, 32, 32, 16, 3, 1],
    [1, 16, 96, 24, 3, 2],
    [2, 24, 144, 24, 3, 1],
    [2, 24, 144, 40, 5, 2],
    [3, 40, 240, 40, 5, 1],
];

fn inverted_residuals(criterion: &mut Criterion) {
    for [halvings, channels, inner, out, kernel, stride] in INVERTED {
        let shape = encoder_maps(halvings, inner);
        assert!(Inverted::is_worthwhile([shape.rows, shape.columns, inner]));
        let depthwise = Depthwise { shape, kernel, stride, pads: [(kernel - stride) / 2; 2] };
        let block = Inverted { depthwise, channels, out };
        let lengths = [inner * channels, inner, inner * kernel * kernel, inner, inner * out, out];
        let weights = lengths.map(|len| random(len).iter().map(|it| 0.3 * it).collect::<Vec<f32>>());
        let [a, b, c, d, e, f] = weights.each_ref().map(|it| &it[..]);
        let expand = (inner != channels).then_some([a, b]);
        let parameters = InvertedParameters { expand, depthwise: [c, d], project: [e, f] };
        let input = random(block.input_shape().len());
        let mut output = vec![0.0; block.output_shape().len()];
        let mut run = || block.forward(workers(), &input, parameters, black_box(&mut output));
        run();
        let middle = depthwise.output_shape();
        let products =
            shape.pixels() * lengths[0] * usize::from(expand.is_some()) + middle.pixels() * (lengths[2] + lengths[4]);
        let name = format!("{channels} to {inner} to {out}, {kernel}x{kernel}, stride {stride}");
        let mut group = group(criterion, "inverted_residual");
        group.throughput(Throughput::Elements(2 * products as u64));
        group.bench_function(name, |it| it.iter(&mut run));
        let (mut expanded, mut of_middle) = (vec![0.0; shape.len()], vec![0.0; middle.len()]);
        match expand {
            Some(it) => {
                pointwise(workers(), block.input_shape(), &input, it, Activation::Relu6, None, &mut expanded);
            }
            None => expanded.copy_from_slice(&input),
        }
        depthwise.forward(workers(), &expanded, [c, d], Activation::Relu6, &mut of_middle);
        let residual = (block.input_shape() == block.output_shape()).then_some(&input[..]);
        let mut expected = vec![0.0; output.len()];
        pointwise(workers(), middle, &of_middle, [e, f], Activation::None, residual, &mut expected);
        assert!(output == expected, "the block is not its three layers");
    }
}

fn max_pools(criterion: &mut Criterion) {
    for (level, &channels) in CHANNELS[..CHANNELS.len() - 1].iter().enumerate() {
        let shape = maps_of(level, channels);
        let input = random(shape.len());
        let mut output = vec![0.0; pooled_shape(shape).len()];
        let mut run = || max_pool(workers(), shape, &input, black_box(&mut output));
        run();
        let mut group = group(criterion, "max_pool");
        group.throughput(Throughput::Elements(shape.len() as u64));
        group.bench_function(format!("down{}", level + 1), |bencher| bencher.iter(&mut run));
        for (at, &found) in output.iter().enumerate() {
            let highest = window(shape, at).map(|it| input[it]).into_iter().fold(f32::MIN, f32::max);
            assert_eq!(found, highest, "element {at}");
        }
    }
}

fn max_pool_gradients(criterion: &mut Criterion) {
    for (level, &channels) in CHANNELS[..CHANNELS.len() - 1].iter().enumerate() {
        let shape = maps_of(level, channels);
        let (input, gradient) = (random(shape.len()), random(pooled_shape(shape).len()));
        let skip: Vec<f32> = input.iter().rev().copied().collect();
        let mut result = vec![0.0; shape.len()];
        let mut run = || max_pool_gradient(workers(), shape, &input, &gradient, &skip, black_box(&mut result));
        run();
        let mut group = group(criterion, "max_pool_gradient");
        group.throughput(Throughput::Elements(shape.len() as u64));
        group.bench_function(format!("down{}", level + 1), |bencher| bencher.iter(&mut run));
        for (at, gradient) in gradient.iter().enumerate() {
            let window = window(shape, at);
            let first = window.into_iter().reduce(|best, it| if input[it] > input[best] { it } else { best });
            for place in window {
                let sum = skip[place] + if Some(place) == first { *gradient } else { 0.0 };
                assert_eq!(result[place], if input[place] > 0.0 { sum } else { 0.0 }, "element {place}");
            }
        }
    }
}

/// The mean of each channel.
fn means(shape: Shape, of: impl Fn(usize) -> f64) -> Vec<f64> {
    let mean = |channel: usize| (0..shape.pixels()).map(|pixel| of(pixel * shape.channels + channel)).sum::<f64>();
    (0..shape.channels).map(|channel| mean(channel) / shape.pixels() as f64).collect()
}

fn batch_norms(criterion: &mut Criterion) {
    const EPSILON: f32 = 1e-3;
    const RELU: (Activation, Option<&[f32]>) = (Activation::Relu, None);
    for (level, &channels) in CHANNELS.iter().enumerate() {
        let shape = maps_of(level, channels);
        let [input, gradient] = [(); 2].map(|()| random(shape.len()));
        let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
        let mut output = vec![0.0; shape.len()];
        // A bias of 10 lifts all maps above the `ReLU`.
        let lift = vec![10.0; channels];
        let [mean, variance] = batch_norm(workers(), shape, &input, [&ones, &lift], EPSILON, RELU, &mut output);
        for (name, expected, power) in [("mean", 0.0, 1), ("variance", 1.0, 2)] {
            for found in means(shape, |at| (f64::from(output[at]) - 10.0).powi(power)) {
                assert!((found - expected).abs() < 0.02, "the {name} is {found}");
            }
        }
        let throughput = Throughput::Elements(shape.len() as u64);
        let mut run = || batch_norm(workers(), shape, &input, [&ones, &zeros], EPSILON, RELU, black_box(&mut output));
        let mut forward = group(criterion, "batch_norm");
        forward
            .throughput(throughput.clone())
            .bench_function(format!("down{}", level + 1), |bencher| bencher.iter(&mut run));
        forward.finish();

        let (inputs, statistics) = ([&input[..], &gradient], [&mean[..], &variance]);
        let mut run =
            || batch_norm_gradient(workers(), shape, inputs, &ones, statistics, EPSILON, black_box(&mut output));
        // Its result is checked even if a filter leaves the measurement out.
        run();
        let mut backward = group(criterion, "batch_norm_gradient");
        backward.throughput(throughput).bench_function(format!("down{}", level + 1), |bencher| bencher.iter(&mut run));
        backward.finish();
        // What the mean takes away has no way back.
        for found in means(shape, |at| f64::from(output[at])) {
            assert!(found.abs() < TOLERANCE, "the gradient's mean is {found}");
        }
    }
}

fn head(criterion: &mut Criterion) {
    let shape = maps_of(0, CHANNELS[0]);
    let (input, weight, bias) = (random(shape.len()), random(MAPS * shape.channels), random(MAPS));
    let labels: Vec<u8> = (0..shape.pixels()).map(|pixel| (pixel / 7 % MAPS) as u8).collect();
    let head = Head { maps: MAPS, shape, input: &input, weight: &weight, bias: &bias, photo: [ROWS, COLUMNS] };
    let logit = |pixel: usize, map: usize| {
        let weights = weight[map * shape.channels..].iter();
        let terms = input[pixel * shape.channels..][..shape.channels].iter().zip(weights);
        terms.map(|(x, weight)| f64::from(*x) * f64::from(*weight)).sum::<f64>() + f64::from(bias[map])
    };
    let mut group = group(criterion, "head");
    group.throughput(Throughput::Elements(shape.pixels() as u64));

    let (mut label_map, mut counts) = (vec![0; shape.pixels()], vec![0; PHOTOS * MAPS]);
    let mut label = || head.label(workers(), 1, black_box(&mut label_map), &mut counts);
    label();
    group.bench_function("label", |bencher| bencher.iter(&mut label));
    for (pixel, &category) in label_map.iter().enumerate() {
        let highest = (0..MAPS).map(|map| logit(pixel, map)).fold(f64::MIN, f64::max);
        assert!(logit(pixel, usize::from(category)) >= highest - TOLERANCE, "pixel {pixel}");
    }
    assert_eq!(counts.iter().sum::<i32>() as usize, shape.pixels());

    // -log of what a map gives to the truth: its probability where the label is its category, the rest to 1 elsewhere.
    let cost = |logit: f64, is_label: bool| if is_label { (-logit).exp().ln_1p() } else { logit.exp().ln_1p() };
    let of_pixel = |pixel: usize| {
        let label = usize::from(labels[pixel]);
        (0..MAPS).map(|map| cost(logit(pixel, map), map == label)).sum::<f64>()
    };
    let mean = (0..shape.pixels()).map(of_pixel).sum::<f64>() / (shape.pixels() * MAPS) as f64;
    let mut gradient = vec![0.0; input.len()];
    let mut learn = || head.learn(workers(), HeadLoss::Bce, &labels, black_box(&mut gradient)).loss;
    let loss = learn();
    assert!((f64::from(loss) - mean).abs() < TOLERANCE, "the loss is {loss}, not {mean}");
    group.bench_function("learn", |bencher| bencher.iter(&mut learn));
    let mut evaluate = || head.evaluate(workers(), false, &labels, black_box(&mut label_map));
    let [_, bce] = evaluate();
    assert!((f64::from(bce) - mean).abs() < TOLERANCE, "the cross-entropy is {bce}, not {mean}");
    group.bench_function("evaluate", |bencher| bencher.iter(&mut evaluate));
}

fn adam(criterion: &mut Criterion) {
    let adam = Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, step: 1.0, learning_rate: 1e-3 };
    let (weights, zeros) = (random(PARAMETER_COUNT), vec![0.0; PARAMETER_COUNT]);
    let gradient: Vec<f32> = weights.iter().rev().copied().collect();
    let inputs = AdamInputs { gradient: &gradient, weights: &weights, moments: [&zeros, &zeros], of_weights: None };
    let [mut new, mut first, mut second] = [(); 3].map(|()| zeros.clone());
    let mut run = || adam.apply(workers(), inputs, black_box([&mut new, &mut first, &mut second]));
    run();
    let mut group = group(criterion, "adam");
    group.throughput(Throughput::Elements(PARAMETER_COUNT as u64));
    group.bench_function("weights", |bencher| bencher.iter(&mut run));
    // The first step is as long as the learning rate, whatever the gradient, as long as epsilon is small beside it.
    for ((weight, new), gradient) in weights.iter().zip(&new).zip(&gradient).filter(|(_, it)| it.abs() > 0.1) {
        assert!((weight - new - 1e-3 * gradient.signum()).abs() < 1e-6, "{weight} becomes {new} by {gradient}");
    }
}

criterion_group!(
    benches,
    convolutions,
    up_convolutions,
    pointwises,
    depthwises,
    inverted_residuals,
    max_pools,
    max_pool_gradients,
    batch_norms,
    head,
    adam,
    memory
);
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
criterion_group!(
    of_bf16,
    bf16_layers::convolutions,
    bf16_layers::up_convolutions,
    bf16_layers::max_pool_gradients,
    bf16_layers::head,
    bf16_encoder::pointwises,
    bf16_encoder::depthwises,
    bf16_encoder::batch_norms
);
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
criterion_main!(benches, of_bf16);
#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
criterion_main!(benches);

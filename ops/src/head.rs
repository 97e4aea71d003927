//! The network's head: the 1x1 convolution from 8 to 32 channels to the category maps, fused with the use of the maps, so
//! that they are never written to memory: the loss with its gradients, or the category of each pixel.
//!
//! Here a vector holds one map of several pixels, so that nothing has to be summed across its lanes. The kernels are
//! compiled twice: for exactly [`MAPS`] maps, which then stay in registers, and for any number up to [`MAX_MAPS`].

use super::maps::{Band, Shape, cut};
use super::simd::{Job, Simd, Stored, Vector};
use super::spread::{spread_items, with_scratch};
use super::{Instructions, Workers};

/// Numbers of channels that the head can read.
pub const HEAD_CHANNELS: [usize; 4] = [8, 16, 24, 32];
/// Times that maps can be enlarged for a label map.
pub const LABEL_SCALES: [usize; 3] = [1, 2, 4];
/// The number of maps that the fast kernels are compiled for: the categories of Colorful Fashion Parsing.
pub const MAPS: usize = 23;
/// The largest number of maps.
pub const MAX_MAPS: usize = 64;
/// Pixels processed at once: their intermediate results stay in the first-level cache.
const CHUNK: usize = 128;
/// Lower bound of a probability before its logarithm is taken, as Keras clips.
const LEAST: f32 = 1e-7;
/// Number of probabilities multiplied before a logarithm is taken: the product of 4 [`LEAST`] is still a normal number.
const FACTORS: usize = 4;

/// What the maps mean and how the loss weighs them.
#[derive(Debug, Clone, Copy)]
pub enum HeadLoss<'a> {
    /// Sigmoid maps, binary cross-entropy.
    Bce,
    /// Softmax over the maps with cross-entropy; each pixel is weighted by its category's weight, `[maps]`. Added to
    /// this is `dice` times (1 minus the mean Dice coefficient), where the Dice coefficient is 2 sum(p y) / (sum(p) +
    /// sum(y)) over all pixels of the batch, and the mean is over the categories present (Milletari et al., 2016,
    /// <https://arxiv.org/abs/1606.04797>).
    Softmax {
        /// Weight of a pixel of each category.
        weights: &'a [f32],
        /// Weight of the Dice term, 0 or more.
        dice: f32,
        /// Share of each label that the cross-entropy spreads evenly over all maps, 0 to 1 (Szegedy et al., 2016,
        /// <https://arxiv.org/abs/1512.00567>).
        smoothing: f32,
    },
}

/// The head's input, f32, or bf16 as raw bits, and its parameters.
#[derive(Clone, Copy)]
pub struct Head<'a, T = f32> {
    /// Shape of `input`; its number of channels is one of [`HEAD_CHANNELS`].
    pub shape: Shape,
    /// Number of category maps, 1 to [`MAX_MAPS`].
    pub maps: usize,
    /// Feature maps, `[batch, rows, columns, channels]`.
    pub input: &'a [T],
    /// Weight, `[maps, channels, 1, 1]`.
    pub weight: &'a [f32],
    /// Bias, `[maps]`, or one for each photo, `[batch, maps]`.
    pub bias: &'a [f32],
    /// Rows and columns that belong to the photo: the rest is padding and does not count in any metric.
    pub photo: [usize; 2],
}

/// Results of the head for a training step.
#[derive(Debug, Clone)]
pub struct HeadGradients {
    /// Mean loss over all pixels.
    pub loss: f32,
    /// Share of the photos' own pixels that were classified correctly.
    pub pixel_accuracy: f32,
    /// Gradient of the weight, `[maps, channels, 1, 1]`.
    pub weight: Vec<f32>,
    /// Gradient of the bias, in its shape.
    pub bias: Vec<f32>,
    /// 1 if a category occurs among a photo's labels, else 0: `[batch, maps]`.
    pub present: Vec<f32>,
}

#[allow(private_bounds, reason = "maps hold one of two kinds of numbers, each with public methods below")]
impl<'a, T: Stored> Head<'a, T> {
    fn check(&self) {
        assert!(HEAD_CHANNELS.contains(&self.shape.channels));
        assert_eq!(self.input.len(), self.shape.len());
        assert!((1..=MAX_MAPS).contains(&self.maps));
        assert!(self.weight.len() == self.maps * self.shape.channels);
        assert!(self.bias.len() == self.maps || self.bias.len() == self.maps * self.shape.batch);
        assert!(self.photo[0] <= self.shape.rows && self.photo[1] <= self.shape.columns);
    }

    /// Weight and bias filled up with zeros to [`MAX_MAPS`] maps, as the kernels for any number take them.
    fn filled_up(&self) -> [Vec<f32>; 2] {
        let mut weight = self.weight.to_vec();
        weight.resize(MAX_MAPS * self.shape.channels, 0.0);
        let mut bias = vec![0.0; self.bias.len() / self.maps * MAX_MAPS];
        for (to, from) in bias.chunks_exact_mut(MAX_MAPS).zip(self.bias.chunks_exact(self.maps)) {
            to[..self.maps].copy_from_slice(from);
        }
        [weight, bias]
    }

    /// Number of maps in the kernels for `M`: a constant in those for [`MAPS`].
    #[inline(always)]
    fn count<const M: usize>(&self) -> usize {
        if M == MAPS { MAPS } else { self.maps.min(M) }
    }

    /// The head with the bias of one photo.
    fn of_photo<const M: usize>(&self, photo: usize) -> Head<'a, T> {
        let bias = if self.bias.len() == M { self.bias } else { &self.bias[photo * M..][..M] };
        Head { bias, ..*self }
    }

    /// Number of the photos' own pixels.
    fn own_pixels(&self) -> usize {
        self.shape.batch * self.photo[0] * self.photo[1]
    }

    fn learn_any(
        &self,
        workers: Workers<'_>,
        loss: HeadLoss<'_>,
        labels: &[u8],
        input_gradient: &mut [T],
    ) -> HeadGradients {
        self.check();
        if self.maps == MAPS {
            return self.learn_maps::<MAPS>(workers, loss, labels, input_gradient);
        }
        let [weight, bias] = &self.filled_up();
        Head { weight, bias, ..*self }.learn_maps::<MAX_MAPS>(workers, loss, labels, input_gradient)
    }

    fn learn_maps<const M: usize>(
        &self,
        workers: Workers<'_>,
        loss: HeadLoss<'_>,
        labels: &[u8],
        input_gradient: &mut [T],
    ) -> HeadGradients {
        match self.shape.channels {
            8 => self.learn_from::<8, M>(workers, loss, labels, input_gradient),
            16 => self.learn_from::<16, M>(workers, loss, labels, input_gradient),
            24 => self.learn_from::<24, M>(workers, loss, labels, input_gradient),
            _ => self.learn_from::<32, M>(workers, loss, labels, input_gradient),
        }
    }

    fn learn_from<const C: usize, const M: usize>(
        &self,
        workers: Workers<'_>,
        loss: HeadLoss<'_>,
        labels: &[u8],
        input_gradient: &mut [T],
    ) -> HeadGradients {
        let instructions = workers.instructions;
        assert!(labels.len() == self.shape.pixels() && input_gradient.len() == self.input.len());
        let count = self.count::<M>();
        let maps = if matches!(loss, HeadLoss::Bce) { count } else { 1 };
        let scale = 1.0 / (self.shape.pixels() * maps) as f32;
        let dice = match loss {
            HeadLoss::Softmax { dice, .. } if dice > 0.0 => Some(self.dice::<C, M>(workers, dice, labels)),
            _ => None,
        };
        let bands = Band::all(self.shape, workers.spread.threads());
        let mut sums = vec![Sums::<C, M>::default(); bands.len()];
        let parts = cut(&bands, self.shape, input_gradient).into_iter().zip(&mut sums).collect();
        spread_items(workers.spread, parts, |index, (gradient, sums): (&mut [T], &mut Sums<C, M>)| {
            let gradients = gradient.chunks_mut(CHUNK * C);
            with_scratch(CHUNK * (M + C), |scratch: &mut [f32]| {
                let mut products = [[[0.0; 16]; C]; M];
                let head = self.of_photo::<M>(bands[index].photo);
                for (chunk, gradient) in self.chunks(bands[index]).zip(gradients) {
                    let (pixels, products, dice) = (self.pixels(chunk, labels), &mut products, dice.as_ref());
                    instructions.run(Learn { head, loss, dice, scale, pixels, gradient, sums, products, scratch });
                }
                for (sum, lanes) in sums.weight.as_flattened_mut().iter_mut().zip(products.as_flattened()) {
                    *sum = lanes.iter().sum();
                }
            });
        });
        let mut total = Sums::<C, M>::default();
        let mut bias = vec![0.0; self.bias.len() / M * count];
        for (it, band) in sums.iter().zip(&bands) {
            total.add(it);
            let photo = band.photo * count % bias.len();
            bias[photo..].iter_mut().zip(&it.bias[..count]).for_each(|(sum, it)| *sum += it);
        }
        HeadGradients {
            loss: (total.loss * f64::from(scale) + dice.map_or(0.0, |it| it.loss)) as f32,
            pixel_accuracy: (total.right / self.own_pixels() as f64) as f32,
            weight: total.weight[..count].as_flattened().to_vec(),
            bias,
            present: present(labels, self.shape.batch, count),
        }
    }

    /// The Dice term of the loss, multiplied by `weight`.
    fn dice<const C: usize, const M: usize>(&self, workers: Workers<'_>, weight: f32, labels: &[u8]) -> Dice<M> {
        let bands = Band::all(self.shape, workers.spread.threads());
        let mut sums = vec![[[0.0_f64; M]; 2]; bands.len()];
        spread_items(workers.spread, sums.iter_mut().collect(), |index, sums: &mut [[f64; M]; 2]| {
            let head = self.of_photo::<M>(bands[index].photo);
            for chunk in self.chunks(bands[index]) {
                let pixels = self.pixels(chunk, labels);
                let found = workers.instructions.run(Overlap::<T, C, M> { head, pixels });
                for (sum, found) in sums.as_flattened_mut().iter_mut().zip(found.as_flattened()) {
                    *sum += f64::from(*found);
                }
            }
        });
        let mut pixels = [0_usize; M];
        for &label in labels {
            if let Some(count) = pixels.get_mut(usize::from(label)) {
                *count += 1;
            }
        }
        let total = |of: usize, category: usize| sums.iter().map(|it| it[of][category]).sum::<f64>();
        Dice::new(f64::from(weight), self.count::<M>(), |category| {
            [total(0, category), total(1, category), pixels[category] as f64]
        })
    }

    /// The pixels of a band, in chunks.
    fn chunks(&self, band: Band) -> impl Iterator<Item = std::ops::Range<usize>> + use<T> {
        let (first, end) = (band.first_pixel(self.shape), band.first_pixel(self.shape) + band.pixels(self.shape));
        (first..end).step_by(CHUNK).map(move |start| start..end.min(start + CHUNK))
    }

    fn input_of(&self, chunk: &std::ops::Range<usize>) -> &[T] {
        &self.input[chunk.start * self.shape.channels..chunk.end * self.shape.channels]
    }

    fn pixels<'b>(&'b self, chunk: std::ops::Range<usize>, labels: &'b [u8]) -> Pixels<'b, T> {
        let mut own = [0.0; CHUNK];
        let [mut row, mut column] =
            [chunk.start / self.shape.columns % self.shape.rows, chunk.start % self.shape.columns];
        for own in &mut own[..chunk.len()] {
            *own = f32::from(u8::from(row < self.photo[0] && column < self.photo[1]));
            column += 1;
            if column == self.shape.columns {
                (row, column) = (row + 1, 0);
            }
        }
        Pixels { input: self.input_of(&chunk), labels: &labels[chunk], own }
    }

    /// Computes the maps of some pixels from their channels; beyond their number there are zeros.
    #[inline(always)]
    fn maps<V: Vector, const C: usize, const M: usize>(&self, channels: &[V; C]) -> [V; M] {
        let (weight, bias) = self.parameters::<C, M>();
        let count = self.count::<M>();
        let mut maps = [channels[0].all(0.0); M];
        for (map, bias) in maps[..count].iter_mut().zip(bias) {
            *map = channels[0].all(*bias);
        }
        for (channel, x) in channels.iter().enumerate() {
            for (map, weight) in maps[..count].iter_mut().zip(weight) {
                *map = x.times_plus(x.all(weight[channel]), *map);
            }
        }
        maps
    }

    /// Weight and bias as arrays, so that no index can be out of bounds.
    #[inline(always)]
    fn parameters<const C: usize, const M: usize>(&self) -> (&[[f32; C]; M], &[f32; M]) {
        let weight = self.weight.as_chunks().0.try_into();
        (weight.expect("its size was checked"), self.bias.try_into().expect("its size was checked"))
    }
}

impl Head<'_> {
    /// Mean loss against `labels`, `[batch, rows, columns]`, and its gradients. The gradient of the input goes into
    /// `input_gradient`, zero wherever the input is not positive.
    #[must_use]
    pub fn learn(
        &self,
        workers: Workers<'_>,
        loss: HeadLoss<'_>,
        labels: &[u8],
        input_gradient: &mut [f32],
    ) -> HeadGradients {
        self.learn_any(workers, loss, labels, input_gradient)
    }

    /// Mean loss and mean binary cross-entropy over the photos' own pixels, and the category of each pixel.
    #[must_use]
    pub fn evaluate(&self, workers: Workers<'_>, softmax: bool, labels: &[u8], label_map: &mut [u8]) -> [f32; 2] {
        self.check();
        if self.maps == MAPS {
            return self.evaluate_maps::<MAPS>(workers, softmax, labels, label_map);
        }
        let [weight, bias] = &self.filled_up();
        Head { weight, bias, ..*self }.evaluate_maps::<MAX_MAPS>(workers, softmax, labels, label_map)
    }

    fn evaluate_maps<const M: usize>(
        &self,
        workers: Workers<'_>,
        softmax: bool,
        labels: &[u8],
        label_map: &mut [u8],
    ) -> [f32; 2] {
        let instructions = workers.instructions;
        assert!(labels.len() == self.shape.pixels() && label_map.len() == labels.len());
        let bands = Band::all(self.shape, workers.spread.threads());
        let mut sums = vec![[0.0_f64; 2]; bands.len()];
        let parts = cut(&bands, self.shape.with_channels(1), label_map).into_iter().zip(&mut sums).collect();
        spread_items(workers.spread, parts, |index, (map, sums): (&mut [u8], &mut [f64; 2])| {
            let head = self.of_photo::<M>(bands[index].photo);
            for (chunk, map) in self.chunks(bands[index]).zip(map.chunks_mut(CHUNK)) {
                let pixels = self.pixels(chunk, labels);
                let found = match self.shape.channels {
                    8 => instructions.run(Evaluate::<8, M> { head, softmax, pixels, map }),
                    16 => instructions.run(Evaluate::<16, M> { head, softmax, pixels, map }),
                    24 => instructions.run(Evaluate::<24, M> { head, softmax, pixels, map }),
                    _ => instructions.run(Evaluate::<32, M> { head, softmax, pixels, map }),
                };
                (0..2).for_each(|at| sums[at] += found[at]);
            }
        });
        let own = self.own_pixels() as f64;
        let sum = |at: usize| sums.iter().map(|it| it[at]).sum::<f64>();
        [(sum(0) / own) as f32, (sum(1) / own) as f32]
    }

    /// Writes the category of each pixel, `[batch, scale x rows, scale x columns]`, and the number of the photo's own
    /// pixels of each category, `[batch, maps]`. `scale` is one of [`LABEL_SCALES`]: the maps are enlarged so many times in
    /// each direction, by bilinear interpolation between the centres of pixels, before the highest is taken.
    pub fn label(&self, workers: Workers<'_>, scale: usize, label_map: &mut [u8], counts: &mut [i32]) {
        self.check();
        if self.maps == MAPS {
            return self.label_maps::<MAPS>(workers, scale, label_map, counts);
        }
        let [weight, bias] = &self.filled_up();
        Head { weight, bias, ..*self }.label_maps::<MAX_MAPS>(workers, scale, label_map, counts);
    }

    fn label_maps<const M: usize>(&self, workers: Workers<'_>, scale: usize, label_map: &mut [u8], counts: &mut [i32]) {
        let area = scale * scale;
        let count = self.count::<M>();
        assert!(LABEL_SCALES.contains(&scale));
        assert!(label_map.len() == area * self.shape.pixels() && counts.len() == self.shape.batch * count);
        let bands = Band::all(self.shape, workers.spread.threads());
        let mut of_bands = vec![[0; M]; bands.len()];
        let parts = cut(&bands, self.shape.with_channels(area), label_map).into_iter().zip(&mut of_bands).collect();
        spread_items(workers.spread, parts, |index, (map, counts): (&mut [u8], &mut [i32; M])| {
            let band = bands[index];
            let head = self.of_photo::<M>(band.photo);
            match scale {
                1 => head.label_band::<M>(workers.instructions, band, map),
                2 => head.label_enlarged::<2, M>(workers.instructions, band, map),
                _ => head.label_enlarged::<4, M>(workers.instructions, band, map),
            }
            let rows = map.chunks_exact(scale * self.shape.columns).zip(scale * band.first_row..);
            for (row, _) in rows.take_while(|(_, at)| *at < scale * self.photo[0]) {
                row[..scale * self.photo[1]].iter().for_each(|&category| counts[usize::from(category)] += 1);
            }
        });
        counts.fill(0);
        for (band, found) in bands.iter().zip(of_bands) {
            let counts = &mut counts[band.photo * count..][..count];
            counts.iter_mut().zip(found).for_each(|(sum, count)| *sum += count);
        }
    }

    /// The label map of a band.
    fn label_band<const M: usize>(&self, instructions: Instructions, band: Band, map: &mut [u8]) {
        for (chunk, map) in self.chunks(band).zip(map.chunks_mut(CHUNK)) {
            let input = self.input_of(&chunk);
            match self.shape.channels {
                8 => instructions.run(Label::<8, M> { head: *self, input, map }),
                16 => instructions.run(Label::<16, M> { head: *self, input, map }),
                24 => instructions.run(Label::<24, M> { head: *self, input, map }),
                _ => instructions.run(Label::<32, M> { head: *self, input, map }),
            }
        }
    }

    /// The label map of a band from maps that are enlarged: those of the band's rows and of the rows around it.
    fn label_enlarged<const S: usize, const M: usize>(&self, instructions: Instructions, band: Band, map: &mut [u8]) {
        let columns = self.shape.columns;
        let width = Enlarged::<S, M>::width(columns);
        let maps = self.count::<M>();
        with_scratch((band.rows + 2) * maps * width, |planes: &mut [f32]| {
            for (at, planes) in planes.chunks_exact_mut(maps * width).enumerate() {
                let row = (band.first_row + at).saturating_sub(1).min(self.shape.rows - 1);
                let first = (band.photo * self.shape.rows + row) * columns;
                let input = self.input_of(&(first..first + columns));
                match self.shape.channels {
                    8 => instructions.run(Planes::<8, M> { head: *self, input, width, to: planes }),
                    16 => instructions.run(Planes::<16, M> { head: *self, input, width, to: planes }),
                    24 => instructions.run(Planes::<24, M> { head: *self, input, width, to: planes }),
                    _ => instructions.run(Planes::<32, M> { head: *self, input, width, to: planes }),
                }
            }
            let around = planes.windows(3 * maps * width).step_by(maps * width);
            for (rows, map) in around.zip(map.chunks_exact_mut(S * S * columns)) {
                instructions.run(Enlarged::<S, M> { maps, rows, columns, map });
            }
        });
    }
}

impl Head<'_, u16> {
    /// As that of f32 maps; only the gradient of the input is rounded to bf16.
    #[must_use]
    pub fn learn(
        &self,
        workers: Workers<'_>,
        loss: HeadLoss<'_>,
        labels: &[u8],
        input_gradient: &mut [u16],
    ) -> HeadGradients {
        self.learn_any(workers, loss, labels, input_gradient)
    }
}

/// 1 if a category occurs among a photo's labels, else 0: `[batch, maps]`.
fn present(labels: &[u8], batch: usize, maps: usize) -> Vec<f32> {
    let mut present = vec![0.0; batch * maps];
    for (labels, present) in labels.chunks_exact(labels.len() / batch).zip(present.chunks_exact_mut(maps)) {
        for &label in labels {
            if let Some(present) = present.get_mut(usize::from(label)) {
                *present = 1.0;
            }
        }
    }
    present
}

/// Up to [`CHUNK`] pixels with their labels.
struct Pixels<'a, T> {
    /// `[pixels, channels]`.
    input: &'a [T],
    labels: &'a [u8],
    /// 1 if the pixel belongs to the photo, else 0.
    own: [f32; CHUNK],
}

/// The channels of pixels `first..first + LANES`, one vector per channel; zeros past the end.
#[inline(always)]
fn channels<T: Stored, V: Vector, const C: usize>(token: V::Token, input: &[T], first: usize) -> [V; C] {
    let mut turned = [[T::ZERO; 16]; C];
    for (lane, pixel) in input[first * C..].chunks_exact(C).take(V::LANES).enumerate() {
        for (turned, &value) in turned.iter_mut().zip(pixel) {
            turned[lane] = value;
        }
    }
    let mut channels = [V::splat(token, 0.0); C];
    for (channel, turned) in channels.iter_mut().zip(&turned) {
        *channel = T::of(token, turned);
    }
    channels
}

/// The table entries for the labels of pixels `first..first + LANES`; zero past the end.
#[inline(always)]
fn by_label<V: Vector>(token: V::Token, labels: &[u8], first: usize, of: impl Fn(u8) -> f32) -> V {
    let mut values = [0.0; 16];
    for (value, &label) in values.iter_mut().zip(&labels[first..]).take(V::LANES) {
        *value = of(label);
    }
    V::of(token, &values)
}

/// 1 if the label is one of `count` categories, 0 if it says that the pixel has none: the Dice term leaves it out.
fn is_labelled(label: u8, count: usize) -> f32 {
    f32::from(u8::from(usize::from(label) < count))
}

/// The highest map of each pixel (the first one on a tie), and its value.
#[inline(always)]
fn highest<V: Vector>(maps: &[V]) -> [V; 2] {
    let mut best = [maps[0], maps[0].all(0.0)];
    for (category, map) in maps.iter().enumerate().skip(1) {
        let index = map.if_greater(best[0], map.all(category as f32), best[1]);
        best = [best[0].larger(*map), index];
    }
    best
}

/// Sigmoids in place; returns minus the sum of the logarithms of the probability that each map assigns to the truth: p
/// if the label is the map's category, otherwise 1 - p, computed as e^-x p to avoid the cancellation of the
/// subtraction.
#[inline(always)]
fn sigmoid_and_loss<V: Vector>(maps: &mut [V], label: V) -> V {
    let (one, mut product) = (label.all(1.0), Product::new(label.token()));
    for (category, map) in maps.iter_mut().enumerate() {
        let power = label.all(0.0).minus(*map).exp();
        *map = one.over(power.plus(one));
        product.times(label.if_equal(label.all(category as f32), *map, power.times(*map)));
    }
    product.minus_log()
}

/// A product of probabilities, each clipped from below, in groups small enough for their product to be a normal number.
struct Product<V> {
    group: V,
    size: usize,
    log: V,
}

impl<V: Vector> Product<V> {
    #[inline(always)]
    fn new(token: V::Token) -> Self {
        Self { group: V::splat(token, 1.0), size: 0, log: V::splat(token, 0.0) }
    }

    #[inline(always)]
    fn times(&mut self, probability: V) {
        self.group = self.group.times(probability.larger(probability.all(LEAST)));
        self.size += 1;
        if self.size == FACTORS {
            self.log = self.log.plus(self.group.ln());
            (self.group, self.size) = (self.log.all(1.0), 0);
        }
    }

    #[inline(always)]
    fn minus_log(self) -> V {
        self.log.all(0.0).minus(self.log.plus(self.group.ln()))
    }
}

/// Softmax in place, given the value of the highest map.
#[inline(always)]
fn softmax<V: Vector>(maps: &mut [V], highest: V) {
    let mut sum = highest.all(0.0);
    for map in maps.iter_mut() {
        *map = map.minus(highest).exp();
        sum = sum.plus(*map);
    }
    let share = sum.all(1.0).over(sum);
    for map in maps {
        *map = map.times(share);
    }
}

/// Minus the sum of the logarithms of the probability that each map assigns to the truth, from probabilities.
#[inline(always)]
fn binary_cross_entropy<V: Vector>(probabilities: &[V], label: V) -> V {
    let mut product = Product::new(label.token());
    for (category, map) in probabilities.iter().enumerate() {
        product.times(label.if_equal(label.all(category as f32), *map, label.all(1.0).minus(*map)));
    }
    product.minus_log()
}

/// Minus the logarithm of the probability of the true category.
#[inline(always)]
fn cross_entropy<V: Vector>(probabilities: &[V], label: V) -> V {
    let mut of_truth = label.all(0.0);
    for (category, map) in probabilities.iter().enumerate() {
        of_truth = label.if_equal(label.all(category as f32), *map, of_truth);
    }
    of_truth.all(0.0).minus(of_truth.larger(of_truth.all(LEAST)).ln())
}

/// Cross-entropy against labels of which `spread` was given to each map, from that against the labels themselves.
#[inline(always)]
fn smoothed<V: Vector>(of_label: V, probabilities: &[V], spread: f32) -> V {
    let mut product = Product::new(of_label.token());
    for &probability in probabilities {
        product.times(probability);
    }
    let [kept, spread] = [1.0 - spread * probabilities.len() as f32, spread].map(|it| of_label.all(it));
    product.minus_log().times_plus(spread, of_label.times(kept))
}

/// The Dice term of a loss.
struct Dice<const M: usize> {
    loss: f64,
    /// Its gradient with respect to the probability of each category, at every pixel.
    of_all: [f32; M],
    /// Subtracted from `of_all` at the pixels of the category itself.
    of_truth: [f32; M],
}

impl<const M: usize> Dice<M> {
    /// Computes the term from the sums of p y, p and y over all pixels, by category, of which there are `count`.
    fn new(weight: f64, count: usize, sums: impl Fn(usize) -> [f64; 3]) -> Self {
        let sums: Vec<[f64; 3]> = (0..count).map(sums).collect();
        let there = sums.iter().filter(|[.., pixels]| *pixels > 0.0).count().max(1) as f64;
        let mut dice = Self { loss: 0.0, of_all: [0.0; M], of_truth: [0.0; M] };
        for (category, [both, probability, pixels]) in sums.into_iter().enumerate().filter(|(_, it)| it[2] > 0.0) {
            let (share, all) = (weight / there, probability + pixels);
            dice.loss += share * (1.0 - 2.0 * both / all);
            dice.of_all[category] = (share * 2.0 * both / (all * all)) as f32;
            dice.of_truth[category] = (share * 2.0 / all) as f32;
        }
        dice
    }

    /// Its gradient with respect to the maps, given their softmax.
    #[inline(always)]
    fn gradient<V: Vector>(&self, probabilities: &[V], label: V) -> [V; M] {
        let mut gradient = [label.all(0.0); M];
        let mut mean = label.all(0.0);
        for (category, (gradient, p)) in gradient.iter_mut().zip(probabilities).enumerate() {
            let all = label.all(self.of_all[category]);
            let of_truth = all.minus(label.all(self.of_truth[category]));
            *gradient = label.if_equal(label.all(category as f32), of_truth, all);
            mean = gradient.times_plus(*p, mean);
        }
        for (gradient, p) in gradient.iter_mut().zip(probabilities) {
            *gradient = gradient.minus(mean).times(*p);
        }
        gradient
    }
}

/// Sums over a chunk, by category: of its probability at its own pixels, and at all pixels.
struct Overlap<'a, T, const C: usize, const M: usize> {
    head: Head<'a, T>,
    pixels: Pixels<'a, T>,
}

impl<T: Stored, const C: usize, const M: usize> Job for Overlap<'_, T, C, M> {
    type Output = [[f32; M]; 2];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [[f32; M]; 2] {
        let wide = simd.wide();
        let count = self.head.count::<M>();
        let zero = S::Wide::splat(wide, 0.0);
        let mut sums = [[zero; M]; 2];
        for first in (0..self.pixels.labels.len()).step_by(S::Wide::LANES) {
            let mut maps: [S::Wide; M] = self.head.maps(&channels::<_, S::Wide, C>(wide, self.pixels.input, first));
            let maps = &mut maps[..count];
            let label: S::Wide = by_label(wide, self.pixels.labels, first, f32::from);
            let there: S::Wide = by_label(wide, self.pixels.labels, first, |label| is_labelled(label, count));
            let [top, _] = highest(maps);
            softmax(maps, top);
            for (category, map) in maps.iter().enumerate() {
                let map = map.times(there);
                sums[0][category] =
                    sums[0][category].plus(label.if_equal(S::Wide::splat(wide, category as f32), map, zero));
                sums[1][category] = sums[1][category].plus(map);
            }
        }
        sums.map(|sums| sums.map(Vector::sum))
    }
}

/// Sums over pixels.
#[derive(Clone)]
struct Sums<const C: usize, const M: usize> {
    loss: f64,
    right: f64,
    weight: [[f32; C]; M],
    bias: [f32; M],
}

impl<const C: usize, const M: usize> Default for Sums<C, M> {
    fn default() -> Self {
        Self { loss: 0.0, right: 0.0, weight: [[0.0; C]; M], bias: [0.0; M] }
    }
}

impl<const C: usize, const M: usize> Sums<C, M> {
    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.right += other.right;
        let weights = self.weight.as_flattened_mut().iter_mut().zip(other.weight.as_flattened());
        weights.for_each(|(sum, it)| *sum += it);
    }
}

/// Loss and gradients of a chunk.
struct Learn<'a, T, const C: usize, const M: usize> {
    head: Head<'a, T>,
    loss: HeadLoss<'a>,
    dice: Option<&'a Dice<M>>,
    /// Factor of each pixel's gradient.
    scale: f32,
    pixels: Pixels<'a, T>,
    /// Gradient of the input, `[pixels, channels]`.
    gradient: &'a mut [T],
    sums: &'a mut Sums<C, M>,
    /// Per-lane sums for the gradient of the weight.
    products: &'a mut [[[f32; 16]; C]; M],
    /// `[M, CHUNK]` for the gradients of the maps, then `[channels, CHUNK]` for the channels.
    scratch: &'a mut [f32],
}

impl<T: Stored, const C: usize, const M: usize> Job for Learn<'_, T, C, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let wide = simd.wide();
        let Self { head, loss, dice, scale, pixels, gradient, sums, products, scratch } = self;
        let (weights, _) = head.parameters::<C, M>();
        let categories = head.count::<M>();
        let (map_gradients, turned) = scratch.split_at_mut(M * CHUNK);
        let lanes = S::Wide::LANES;
        let count = pixels.labels.len();
        let smoothing = if let HeadLoss::Softmax { smoothing, .. } = loss { smoothing } else { 0.0 };
        // What the loss takes for the truth: in maps other than the label's, and in that.
        let spread = smoothing / categories as f32;
        let [of_any, of_label] = [spread, 1.0 - smoothing + spread].map(|it| S::Wide::splat(wide, it));
        for first in (0..count).step_by(lanes) {
            let x = channels::<_, S::Wide, C>(wide, pixels.input, first);
            let mut maps: [S::Wide; M] = head.maps(&x);
            let maps = &mut maps[..categories];
            let label: S::Wide = by_label(wide, pixels.labels, first, f32::from);
            let [top, category] = highest(maps);
            let right = category.if_equal(label, S::Wide::of(wide, &pixels.own[first..]), S::Wide::splat(wide, 0.0));
            sums.right += f64::from(right.sum());
            // Lanes past the end get weight zero.
            let weight: S::Wide = by_label(wide, pixels.labels, first, |label| match loss {
                HeadLoss::Bce => 1.0,
                HeadLoss::Softmax { weights, .. } => weights.get(usize::from(label)).copied().unwrap_or(0.0),
            });
            let of_pixels = match loss {
                HeadLoss::Bce => sigmoid_and_loss(maps, label),
                HeadLoss::Softmax { .. } => {
                    softmax(maps, top);
                    let of_label = cross_entropy(maps, label);
                    if spread == 0.0 { of_label } else { smoothed(of_label, maps, spread) }
                }
            };
            sums.loss += f64::from(of_pixels.times(weight).sum());
            let share = weight.times(S::Wide::splat(wide, scale));
            let zero = S::Wide::splat(wide, 0.0);
            let there: S::Wide = by_label(wide, pixels.labels, first, |label| is_labelled(label, categories));
            let of_dice = dice.map_or([zero; M], |it| it.gradient(maps, label));
            let mut back = [S::Wide::splat(wide, 0.0); C];
            for (category, &map) in maps.iter().enumerate() {
                let hit = label.if_equal(S::Wide::splat(wide, category as f32), map.minus(of_label), map.minus(of_any));
                let of_map = hit.times_plus(share, of_dice[category].times(there));
                of_map.put(&mut map_gradients[category * CHUNK + first..]);
                for (back, weight) in back.iter_mut().zip(&weights[category]) {
                    *back = of_map.times_plus(S::Wide::splat(wide, *weight), *back);
                }
            }
            let mut columns = [[T::ZERO; 16]; C];
            for (channel, (back, x)) in back.into_iter().zip(x).enumerate() {
                x.put(&mut turned[channel * CHUNK + first..]);
                T::put(x.if_greater(zero, back, zero), &mut columns[channel]);
            }
            let places = gradient[first * C..].chunks_exact_mut(C).take(lanes);
            for (lane, place) in places.enumerate() {
                place.iter_mut().zip(&columns).for_each(|(place, column)| *place = column[lane]);
            }
        }
        let count = count.next_multiple_of(lanes);
        let (products, bias) = (&mut products[..categories], &mut sums.bias[..categories]);
        add_products::<S::Wide, C>(wide, map_gradients, turned, count, products, bias);
    }
}

/// Adds the gradients of weight and bias: products of the maps' gradients, `[maps, CHUNK]`, with the channels,
/// `[channels, CHUNK]`, over `count` pixels.
#[inline(always)]
fn add_products<V: Vector, const C: usize>(
    token: V::Token,
    map_gradients: &[f32],
    turned: &[f32],
    count: usize,
    products: &mut [[[f32; 16]; C]],
    bias: &mut [f32],
) {
    let of_maps = map_gradients.chunks_exact(CHUNK).zip(products);
    for ((of_map, products), bias) in of_maps.zip(bias) {
        let mut sums = [V::splat(token, 0.0); C];
        let mut sum = V::splat(token, 0.0);
        for first in (0..count).step_by(V::LANES) {
            let gradient = V::of(token, &of_map[first..]);
            sum = sum.plus(gradient);
            for (sum, channel) in sums.iter_mut().zip(turned.chunks_exact(CHUNK)) {
                *sum = gradient.times_plus(V::of(token, &channel[first..]), *sum);
            }
        }
        *bias += sum.sum();
        for (sum, product) in sums.into_iter().zip(products) {
            sum.plus(V::of(token, product)).put(product);
        }
    }
}

/// Sums of loss and binary cross-entropy over a chunk's own pixels, and the chunk's label map.
struct Evaluate<'a, const C: usize, const M: usize> {
    head: Head<'a>,
    softmax: bool,
    pixels: Pixels<'a, f32>,
    map: &'a mut [u8],
}

impl<const C: usize, const M: usize> Job for Evaluate<'_, C, M> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f64; 2] {
        let wide = simd.wide();
        let Self { head, pixels, map, .. } = self;
        let count = head.count::<M>();
        let mut sums = [0.0; 2];
        for first in (0..pixels.labels.len()).step_by(S::Wide::LANES) {
            let mut maps: [S::Wide; M] = head.maps(&channels::<_, S::Wide, C>(wide, pixels.input, first));
            let maps = &mut maps[..count];
            let label: S::Wide = by_label(wide, pixels.labels, first, f32::from);
            let [top, category] = highest(maps);
            put_categories(category, &mut map[first..]);
            let bce = if self.softmax {
                softmax(maps, top);
                binary_cross_entropy(maps, label)
            } else {
                sigmoid_and_loss(maps, label)
            };
            let bce = bce.times(S::Wide::splat(wide, 1.0 / count as f32));
            let loss = if self.softmax { cross_entropy(maps, label) } else { bce };
            let own = S::Wide::of(wide, &pixels.own[first..]);
            sums[0] += f64::from(loss.times(own).sum());
            sums[1] += f64::from(bce.times(own).sum());
        }
        sums
    }
}

/// The label map of a chunk.
struct Label<'a, const C: usize, const M: usize> {
    head: Head<'a>,
    input: &'a [f32],
    map: &'a mut [u8],
}

impl<const C: usize, const M: usize> Job for Label<'_, C, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (wide, count) = (simd.wide(), self.head.count::<M>());
        for first in (0..self.map.len()).step_by(S::Wide::LANES) {
            let maps: [S::Wide; M] = self.head.maps(&channels::<_, S::Wide, C>(wide, self.input, first));
            put_categories(highest(&maps[..count])[1], &mut self.map[first..]);
        }
    }
}

/// The maps of a row, `[maps, width]`: its pixels begin at 1, and the first and the last are repeated at the ends.
struct Planes<'a, const C: usize, const M: usize> {
    head: Head<'a>,
    /// `[columns, channels]`.
    input: &'a [f32],
    width: usize,
    to: &'a mut [f32],
}

impl<const C: usize, const M: usize> Job for Planes<'_, C, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let columns = self.input.len() / C;
        for first in (0..columns).step_by(S::Wide::LANES) {
            let maps: [S::Wide; M] = self.head.maps(&channels::<_, S::Wide, C>(simd.wide(), self.input, first));
            for (map, plane) in maps.into_iter().zip(self.to.chunks_exact_mut(self.width)) {
                map.put(&mut plane[1 + first..]);
            }
        }
        for plane in self.to.chunks_exact_mut(self.width) {
            (plane[0], plane[columns + 1]) = (plane[1], plane[columns]);
        }
    }
}

/// The label map of a row of maps, enlarged `N` times in each direction.
struct Enlarged<'a, const N: usize, const M: usize> {
    maps: usize,
    /// The [`Planes`] of the row above, of the row, and of the row below.
    rows: &'a [f32],
    columns: usize,
    /// `[N, N x columns]`.
    map: &'a mut [u8],
}

impl<const N: usize, const M: usize> Enlarged<'_, N, M> {
    /// Width of the planes: vectors of up to 16 lanes are read one pixel to the right of the last multiple of 16.
    fn width(columns: usize) -> usize {
        columns.next_multiple_of(16) + 2
    }

    /// The pixel before a position among the `N` in a pixel, as 0 or 1 for the pixel before or the pixel itself, and how far
    /// the position is on the way to the next.
    #[inline(always)]
    fn place(position: usize) -> (usize, f32) {
        let at = (position as f32 + 0.5) / N as f32 + 0.5;
        (at as usize, at.fract())
    }
}

impl<const N: usize, const M: usize> Job for Enlarged<'_, N, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (wide, lanes, width) = (simd.wide(), S::Wide::LANES, Self::width(self.columns));
        let zero = S::Wide::splat(wide, 0.0);
        let maps = if M == MAPS { MAPS } else { self.maps };
        for (position, map) in self.map.chunks_exact_mut(N * self.columns).enumerate() {
            let (row, share) = Self::place(position);
            let (upper, share) = (&self.rows[row * maps * width..], S::Wide::splat(wide, share));
            for first in (0..self.columns).step_by(lanes) {
                let mut best = [[zero; 2]; N];
                for category in 0..maps {
                    let (upper, lower) = (&upper[category * width..], &upper[(maps + category) * width..]);
                    let mut near = [zero; 3];
                    for (column, near) in near.iter_mut().enumerate() {
                        let upper = S::Wide::of(wide, &upper[first + column..]);
                        let lower = S::Wide::of(wide, &lower[first + column..]);
                        *near = lower.minus(upper).times_plus(share, upper);
                    }
                    for (position, best) in best.iter_mut().enumerate() {
                        let (column, share) = Self::place(position);
                        let step = near[column + 1].minus(near[column]);
                        let value = step.times_plus(S::Wide::splat(wide, share), near[column]);
                        let index = S::Wide::splat(wide, category as f32);
                        *best = if category == 0 {
                            [value, zero]
                        } else {
                            [best[0].larger(value), value.if_greater(best[0], index, best[1])]
                        };
                    }
                }
                for (position, [_, category]) in best.into_iter().enumerate() {
                    let mut found = [0.0; 16];
                    category.put(&mut found);
                    let places = map[N * first + position..].iter_mut().step_by(N);
                    places.zip(&found[..lanes]).for_each(|(place, category)| *place = *category as u8);
                }
            }
        }
    }
}

/// Categories of as many pixels as fit.
#[inline(always)]
fn put_categories<V: Vector>(category: V, map: &mut [u8]) {
    let mut lanes = [0.0; 16];
    category.put(&mut lanes);
    map.iter_mut().zip(lanes).take(V::LANES).for_each(|(map, lane)| *map = lane as u8);
}

//! 3x3 convolutions by Winograd's algorithm: that they are convolutions, and that they stay within their buffers.

use lookbook_ops::winograd::{TILE_POINTS, at_points, winograd_convolution};
use lookbook_ops::{Maps, Shape};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::bounds;
use crate::definitions::{SIZES, assert_close, convolved, every_instructions, random};

/// Channels of the first input, of the second, of the output.
const CHANNELS: [[usize; 3]; 5] = [[8, 0, 8], [16, 24, 32], [40, 0, 24], [96, 40, 96], [128, 112, 64]];

#[test]
fn the_layer_is_a_convolution() {
    for ([batch, rows, columns], [channels, second, out]) in
        SIZES.into_iter().flat_map(|size| CHANNELS.map(|it| (size, it)))
    {
        let shape = Shape { batch, rows, columns, channels };
        let mut rng = ChaCha8Rng::seed_from_u64((shape.len() + out) as u64);
        let mut inputs = vec![random(&mut rng, shape.len())];
        if second > 0 {
            inputs.push(random(&mut rng, shape.with_channels(second).len()));
        }
        let weight = random(&mut rng, out * (channels + second) * 9);
        let bias = random(&mut rng, out);
        let expected: Vec<f64> =
            convolved(shape, &inputs, &weight, &bias).into_iter().map(|sum| sum.max(0.0)).collect();
        let maps: Vec<Maps<'_>> = inputs.iter().map(|it| Maps::Features(it)).collect();
        let weight = at_points(&weight, out);
        every_instructions(|workers| {
            let mut found = vec![f32::NAN; expected.len()];
            winograd_convolution(workers, shape, &maps, [&weight, &bias], &mut found);
            let what = format!("{} {shape:?}, {second} more channels, {out}", workers.instructions);
            assert_close(&what, &found, &expected);
        });
    }
}

#[test]
fn the_layer_stays_within_its_buffers() {
    for [channels, second, out] in CHANNELS {
        for shape in bounds::shapes(channels) {
            let lengths = [shape.len(), shape.with_channels(second).len()];
            let weight = TILE_POINTS * (channels + second) * out;
            bounds::check(
                [lengths[0], lengths[1], weight, out],
                [shape.with_channels(out).len()],
                |workers, [x, more, w, b], [y]| {
                    let maps = [Maps::Features(x), Maps::Features(more)];
                    winograd_convolution(workers, shape, &maps[..=usize::from(second > 0)], [w, b], y);
                },
            );
        }
    }
}

//! Inverted residual blocks as one layer: that they are their three layers, to the last bit, and that they stay within their
//! buffers.

use lookbook_ops::depthwise::Depthwise;
use lookbook_ops::inverted::{Inverted, InvertedParameters};
use lookbook_ops::pointwise::pointwise;
use lookbook_ops::{Activation, Shape};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::bounds;
use crate::definitions::{SIZES, every_instructions, random};

/// Channels of the input, in between, of the output; side and stride of the depthwise kernel.
const BLOCKS: [[usize; 5]; 6] =
    [[8, 16, 8, 3, 1], [8, 24, 16, 3, 2], [24, 144, 24, 5, 1], [16, 40, 24, 5, 2], [16, 16, 8, 3, 1], [8, 8, 8, 3, 1]];

/// The block over maps of this size.
fn block([batch, rows, columns]: [usize; 3], [channels, inner, out, kernel, stride]: [usize; 5]) -> Inverted {
    let shape = Shape { batch, rows, columns, channels: inner };
    Inverted {
        depthwise: Depthwise { shape, kernel, stride, pads: [kernel / 2, (kernel - stride) / 2] },
        channels,
        out,
    }
}

/// Lengths of the weights and biases of a block's layers, in order.
fn lengths(block: &Inverted) -> [usize; 6] {
    let Depthwise { shape: Shape { channels: inner, .. }, kernel, .. } = block.depthwise;
    [inner * block.channels, inner, inner * kernel * kernel, inner, inner * block.out, block.out]
}

/// Without an expansion where the block has none.
fn parameters<'a>(block: &Inverted, of: [&'a [f32]; 6]) -> InvertedParameters<'a> {
    let expand = (block.channels != block.depthwise.shape.channels).then_some([of[0], of[1]]);
    InvertedParameters { expand, depthwise: [of[2], of[3]], project: [of[4], of[5]] }
}

#[test]
fn the_block_is_its_three_layers() {
    for (size, widths) in SIZES.into_iter().flat_map(|size| BLOCKS.map(|it| (size, it))) {
        let block = block(size, widths);
        let mut rng = ChaCha8Rng::seed_from_u64(block.input_shape().len() as u64);
        let input = random(&mut rng, block.input_shape().len());
        let weights = lengths(&block).map(|len| random(&mut rng, len));
        let parameters = parameters(&block, weights.each_ref().map(|it| &it[..]));
        let InvertedParameters { expand, depthwise, project } = parameters;
        let is_residual = widths[0] == widths[2] && widths[4] == 1;
        every_instructions(|workers| {
            let mut expanded = vec![f32::NAN; block.depthwise.shape.len()];
            match expand {
                Some(it) => {
                    pointwise(workers, block.input_shape(), &input, it, Activation::Relu6, None, &mut expanded);
                }
                None => expanded.copy_from_slice(&input),
            }
            let shape = block.depthwise.output_shape();
            let mut middle = vec![f32::NAN; shape.len()];
            block.depthwise.forward(workers, &expanded, depthwise, Activation::Relu6, &mut middle);
            let mut expected = vec![f32::NAN; block.output_shape().len()];
            let residual = is_residual.then_some(&input[..]);
            pointwise(workers, shape, &middle, project, Activation::None, residual, &mut expected);
            let mut found = vec![f32::NAN; expected.len()];
            block.forward(workers, &input, parameters, &mut found);
            assert_eq!(found, expected, "{} {block:?}", workers.instructions);
        });
    }
}

#[test]
fn the_block_stays_within_its_buffers() {
    for widths in BLOCKS {
        for Shape { batch, rows, columns, .. } in bounds::shapes(8) {
            let block = block([batch, rows, columns], widths);
            let [a, b, c, d, e, f] = lengths(&block);
            let inputs = [block.input_shape().len(), a, b, c, d, e, f];
            bounds::check(inputs, [block.output_shape().len()], |workers, [x, a, b, c, d, e, f], [y]| {
                block.forward(workers, x, parameters(&block, [a, b, c, d, e, f]), y);
            });
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod of_bf16 {
    use lookbook_ops::bf16::{bf16_inverted, bf16_pointwise};
    use lookbook_ops::{Instructions, Rayon, Workers};

    use super::*;
    use crate::definitions::of_bf16::{bits, token};
    use crate::guarded::{Guard, Guarded};

    #[test]
    fn the_block_is_its_three_layers() {
        let Some(token) = token() else { return };
        let workers = Workers { instructions: Instructions::best(), spread: &Rayon };
        for (size, widths) in SIZES.into_iter().flat_map(|size| BLOCKS.map(|it| (size, it))) {
            let block = block(size, widths);
            let mut rng = ChaCha8Rng::seed_from_u64(block.input_shape().len() as u64);
            let input = bits(&random(&mut rng, block.input_shape().len()));
            let weights = lengths(&block).map(|len| random(&mut rng, len));
            let parameters = parameters(&block, weights.each_ref().map(|it| &it[..]));
            let InvertedParameters { expand, depthwise, project } = parameters;
            let mut expanded = vec![u16::MAX; block.depthwise.shape.len()];
            match expand {
                Some(it) => {
                    let of = (Activation::Relu6, None);
                    bf16_pointwise(token, &Rayon, block.input_shape(), &input, it, of, &mut expanded);
                }
                None => expanded.copy_from_slice(&input),
            }
            let shape = block.depthwise.output_shape();
            let mut middle = vec![u16::MAX; shape.len()];
            block.depthwise.forward_bf16(workers, &expanded, depthwise, Activation::Relu6, &mut middle);
            let mut expected = vec![u16::MAX; block.output_shape().len()];
            let is_residual = widths[0] == widths[2] && widths[4] == 1;
            let of = (Activation::None, is_residual.then_some(&input[..]));
            bf16_pointwise(token, &Rayon, shape, &middle, project, of, &mut expected);
            let mut found = vec![u16::MAX; expected.len()];
            bf16_inverted(token, &Rayon, &block, &input, parameters, &mut found);
            assert_eq!(found, expected, "{block:?}");
        }
    }

    #[test]
    fn the_block_stays_within_its_buffers() {
        let Some(token) = token() else { return };
        for (guard, widths) in Guard::BOTH.into_iter().flat_map(|guard| BLOCKS.map(|it| (guard, it))) {
            for Shape { batch, rows, columns, .. } in bounds::shapes(8) {
                let block = block([batch, rows, columns], widths);
                let input = Guarded::new(&vec![0x3f80; block.input_shape().len()], guard);
                let weights = lengths(&block).map(|len| Guarded::new(&vec![1.0; len], guard));
                let parameters = parameters(&block, weights.each_ref().map(|it| &it[..]));
                let mut output = Guarded::new(&vec![u16::MAX; block.output_shape().len()], guard);
                bf16_inverted(token, &bounds::ThreadATask, &block, &input, parameters, &mut output);
                assert!(output.iter().all(|&it| it != u16::MAX), "{block:?}");
            }
        }
    }
}

//! Training in bf16: normalisation, and the gradients of an encoder's convolutions.

use lookbook_ops::bf16::{bf16_pointwise_input_gradient, bf16_pointwise_weight_gradient};
use lookbook_ops::depthwise::Depthwise;
use lookbook_ops::norm::{batch_norm_bf16, batch_norm_gradient_bf16};

use super::super::{Bf16, Call, F32, OptionalBf16, Signature};
use super::super::{convolve_depthwise_back, convolve_pointwise_back, normalise, normalise_back};
use super::token;

pub(super) const OPERATORS: &[Signature] = &[
    Signature {
        name: "Bf16PointwiseConvolutionGradient",
        inputs: &[Bf16, Bf16, F32, OptionalBf16],
        outputs: &[F32, F32, Bf16],
        compute: pointwise_back,
    },
    Signature {
        name: "Bf16DepthwiseConvolutionGradient",
        inputs: &[Bf16, Bf16, F32],
        outputs: &[F32, F32, Bf16],
        compute: |call| convolve_depthwise_back(call, Depthwise::weight_gradient_bf16, Depthwise::input_gradient_bf16),
    },
    Signature {
        name: "Bf16BatchNorm",
        inputs: &[Bf16, F32, F32, OptionalBf16],
        outputs: &[Bf16, F32, F32],
        compute: |call| normalise(call, batch_norm_bf16),
    },
    Signature {
        name: "Bf16BatchNormGradient",
        inputs: &[Bf16, Bf16, F32, F32, F32],
        outputs: &[F32, F32, Bf16],
        compute: |call| normalise_back(call, batch_norm_gradient_bf16),
    },
];

fn pointwise_back(call: &Call<'_>) -> ort::Result<()> {
    let token = token()?;
    convolve_pointwise_back(
        call,
        |workers, shape, maps, gradient, results| {
            bf16_pointwise_weight_gradient(token, workers.spread, shape, maps, gradient, results);
        },
        |workers, shape, gradient, weight, fused, output| {
            bf16_pointwise_input_gradient(token, workers.spread, shape, gradient, weight, fused, output);
        },
    )
}

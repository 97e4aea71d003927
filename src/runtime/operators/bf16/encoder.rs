//! Training in bf16: normalisation, and the gradients of an encoder's convolutions.

use lookbook_ops::bf16::{bf16_pointwise_input_gradient, bf16_pointwise_weight_gradient};
use lookbook_ops::norm::{batch_norm_bf16, batch_norm_gradient_bf16};

use super::super::{Activation, Bf16, Call, F32, OptionalBf16, Signature, VARIANCE_EPSILON};
use super::super::{depthwise_of, dims, dims_of, expect, features_of, floats, floats_mut, pointwise_outputs_of};
use super::{halves, halves_mut, optional_halves, token};

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
        compute: depthwise_back,
    },
    Signature {
        name: "Bf16BatchNorm",
        inputs: &[Bf16, F32, F32, OptionalBf16],
        outputs: &[Bf16, F32, F32],
        compute: normalise,
    },
    Signature {
        name: "Bf16BatchNormGradient",
        inputs: &[Bf16, Bf16, F32, F32, F32],
        outputs: &[F32, F32, Bf16],
        compute: normalise_back,
    },
];

fn pointwise_back(call: &Call<'_>) -> ort::Result<()> {
    let [maps, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let skip = call.context.input(3)?;
    let shape = features_of(&maps)?;
    let out = pointwise_outputs_of(&weight, shape.channels)?;
    expect(&gradient, "gradient", dims(shape.with_channels(out)))?;
    let skip = optional_halves(skip.as_ref(), "gradient from elsewhere", shape)?;
    let (mut of_weight, mut of_bias) = (call.output(0, dims_of(&weight))?, call.output(1, [out])?);
    let (maps, gradient, weight) = (halves(&maps)?, halves(&gradient)?, floats(&weight)?);
    let (token, spread) = (token()?, call.workers.spread);
    let results = [floats_mut(&mut of_weight)?, floats_mut(&mut of_bias)?];
    bf16_pointwise_weight_gradient(token, spread, shape, maps, gradient, results);
    let mut output = call.output(2, dims(shape))?;
    let (fused, output) = ((skip, call.mask(maps, Activation::None)?), halves_mut(&mut output)?);
    bf16_pointwise_input_gradient(token, spread, shape, gradient, weight, fused, output);
    Ok(())
}

fn depthwise_back(call: &Call<'_>) -> ort::Result<()> {
    let [maps, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let layer = depthwise_of(call, &maps, &weight)?;
    expect(&gradient, "gradient", dims(layer.output_shape()))?;
    let (mut of_weight, mut of_bias) = (call.output(0, dims_of(&weight))?, call.output(1, [layer.shape.channels])?);
    let (maps, gradient, weight) = (halves(&maps)?, halves(&gradient)?, floats(&weight)?);
    let results = [floats_mut(&mut of_weight)?, floats_mut(&mut of_bias)?];
    layer.weight_gradient_bf16(call.workers, maps, gradient, results);
    let mut output = call.output(2, dims(layer.shape))?;
    let (mask, output) = (call.mask(maps, Activation::None)?, halves_mut(&mut output)?);
    layer.input_gradient_bf16(call.workers, gradient, weight, mask, output);
    Ok(())
}

fn normalise(call: &Call<'_>) -> ort::Result<()> {
    let [maps, scale, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let residual = call.context.input(3)?;
    let shape = features_of(&maps)?;
    expect(&scale, "scale", [shape.channels])?;
    expect(&bias, "bias", [shape.channels])?;
    let residual = optional_halves(residual.as_ref(), "residual", shape)?;
    let fused = (call.activation(Activation::Relu)?, residual);
    let mut output = call.output(0, dims(shape))?;
    let (maps, parameters) = (halves(&maps)?, [floats(&scale)?, floats(&bias)?]);
    let output = halves_mut(&mut output)?;
    let [mean, variance] = batch_norm_bf16(call.workers, shape, maps, parameters, VARIANCE_EPSILON, fused, output);
    call.vector_output(1, &mean)?;
    call.vector_output(2, &variance)
}

fn normalise_back(call: &Call<'_>) -> ort::Result<()> {
    let [maps, gradient] = [call.input(0)?, call.input(1)?];
    let values = [call.input(2)?, call.input(3)?, call.input(4)?];
    let shape = features_of(&maps)?;
    expect(&gradient, "gradient", dims(shape))?;
    for (value, what) in values.iter().zip(["scale", "mean", "variance"]) {
        expect(value, what, [shape.channels])?;
    }
    let [scale, statistics @ ..] = [floats(&values[0])?, floats(&values[1])?, floats(&values[2])?];
    let maps = [halves(&maps)?, halves(&gradient)?];
    let mut output = call.output(2, dims(shape))?;
    let output = halves_mut(&mut output)?;
    let [of_scale, of_bias] =
        batch_norm_gradient_bf16(call.workers, shape, maps, scale, statistics, VARIANCE_EPSILON, output);
    call.vector_output(0, &of_scale)?;
    call.vector_output(1, &of_bias)
}

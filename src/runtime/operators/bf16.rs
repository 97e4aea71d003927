//! The bf16 operators: those of the layers of every network, and by [`encoder`] those that training adds for an encoder.

mod encoder;

use super::{Activation, Bf16, Call, F32, Optional, OptionalBf16, Shape, Signature, U8, ValueRef};
use super::{convolve_depthwise, convolve_pointwise, dims, dims_of, elements, elements_mut, expect, features_of};
use super::{floats, floats_mut, learn, multiple_of_8, outputs_of, second_of, shape_of};
use lookbook_ops::bf16::{
    Avx512Bf16, Bf16Maps, Output, bf16_add, bf16_convolution, bf16_inverted, bf16_max_pool, bf16_round,
    bf16_up_skip_convolution,
};
use lookbook_ops::bf16::{bf16_convolution_input_gradient, bf16_convolution_weight_gradient, bf16_pointwise};
use lookbook_ops::bf16::{
    bf16_up_convolution, bf16_up_convolution_input_gradient, bf16_up_convolution_weight_gradient,
};
use lookbook_ops::depthwise::Depthwise;
use lookbook_ops::pool::max_pool_gradient_bf16;
use lookbook_ops::up::up_shape;
use lookbook_ops::up_skip::{EDGES, PHASES, depth};
use ort::value::PrimitiveTensorElementType;

pub(super) fn is_available() -> bool {
    Avx512Bf16::detect().is_some()
}

fn token() -> ort::Result<Avx512Bf16> {
    Avx512Bf16::detect().ok_or_else(|| ort::Error::new("this processor has no AVX-512-BF16"))
}

pub(super) const OPERATORS: &[&[Signature]] = &[LAYERS, encoder::OPERATORS];

const LAYERS: &[Signature] = &[
    Signature {
        name: "Bf16Convolution",
        inputs: &[Bf16, F32, F32, OptionalBf16],
        outputs: &[Bf16],
        compute: convolve::<u16>,
    },
    Signature {
        name: "Bf16LastConvolution",
        inputs: &[Bf16, F32, F32, OptionalBf16],
        outputs: &[F32],
        compute: convolve::<f32>,
    },
    Signature { name: "Bf16PhotoConvolution", inputs: &[U8, F32, F32], outputs: &[Bf16], compute: photos },
    Signature {
        name: "Bf16PointwiseConvolution",
        inputs: &[Bf16, F32, F32, OptionalBf16],
        outputs: &[Bf16],
        compute: pointwise,
    },
    Signature {
        name: "Bf16DepthwiseConvolution",
        inputs: &[Bf16, F32, F32],
        outputs: &[Bf16],
        compute: |call| convolve_depthwise(call, Depthwise::forward_bf16),
    },
    Signature {
        name: "Bf16InvertedResidual",
        inputs: &[Bf16, F32, F32, F32, F32, Optional, Optional],
        outputs: &[Bf16],
        compute: inverted,
    },
    Signature { name: "Bf16MaxPool", inputs: &[Bf16], outputs: &[Bf16], compute: pool },
    Signature { name: "Bf16Wide", inputs: &[Bf16], outputs: &[F32], compute: widen },
    Signature { name: "Bf16UpConvolution", inputs: &[Bf16, F32, F32], outputs: &[Bf16], compute: up },
    Signature { name: "Bf16UpSkipConvolution", inputs: &[Bf16, Bf16, F32, F32], outputs: &[Bf16], compute: up_skip },
    Signature {
        name: "Bf16ConvolutionGradient",
        inputs: &[Bf16, Bf16, F32, OptionalBf16],
        outputs: &[F32, F32, Bf16, OptionalBf16],
        compute: convolve_back,
    },
    Signature {
        name: "Bf16PhotoConvolutionGradient",
        inputs: &[U8, Bf16, F32],
        outputs: &[F32, F32],
        compute: photos_back,
    },
    Signature {
        name: "Bf16MaxPoolGradient",
        inputs: &[Bf16; 3],
        outputs: &[Bf16],
        compute: |call| super::pool_back(call, max_pool_gradient_bf16),
    },
    Signature {
        name: "Bf16UpConvolutionGradient",
        inputs: &[Bf16, Bf16, F32],
        outputs: &[F32, F32, Bf16],
        compute: up_back,
    },
    Signature {
        name: "Bf16HeadLoss",
        inputs: &[Bf16, F32, F32, U8, Optional, Optional, Optional],
        outputs: &[F32, F32, F32, F32, Bf16, F32],
        compute: |call| {
            learn::<u16>(call, |head, workers, loss, labels, of_maps| head.learn(workers, loss, labels, of_maps))
        },
    },
    Signature { name: "Bf16Add", inputs: &[Bf16; 2], outputs: &[Bf16], compute: add },
    Signature { name: "Bf16Narrow", inputs: &[F32], outputs: &[Bf16], compute: narrow },
];

fn convolve<E: PrimitiveTensorElementType>(call: &Call<'_>) -> ort::Result<()>
where
    for<'a> &'a mut [E]: Into<Output<'a>>,
{
    let [maps, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let second = call.context.input(3)?;
    let shape = features_of(&maps)?;
    let mut inputs = vec![Bf16Maps::Features(elements(&maps)?)];
    let mut all_channels = shape.channels;
    if let Some(second) = &second {
        all_channels += second_of(second, shape)?.channels;
        inputs.push(Bf16Maps::Features(elements(second)?));
    }
    let out = outputs_of(&weight, all_channels)?;
    expect(&bias, "bias", [out])?;
    let parameters = [floats(&weight)?, floats(&bias)?];
    let mut output = call.output(0, dims(shape.with_channels(out)))?;
    let activation = call.activation(Activation::Relu)?;
    bf16_convolution(
        token()?,
        call.workers.spread,
        shape,
        &inputs,
        parameters,
        activation,
        elements_mut::<E>(&mut output)?.into(),
    );
    Ok(())
}

fn photos(call: &Call<'_>) -> ort::Result<()> {
    let [photos, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = shape_of(&photos)?;
    let out = outputs_of(&weight, shape.channels)?;
    expect(&bias, "bias", [out])?;
    let parameters = [floats(&weight)?, floats(&bias)?];
    let mut output = call.output(0, dims(shape.with_channels(out)))?;
    let inputs = [Bf16Maps::Photos(call.photos(&photos, shape.channels)?)];
    let (activation, output) = (call.activation(Activation::Relu)?, elements_mut::<u16>(&mut output)?.into());
    bf16_convolution(token()?, call.workers.spread, shape, &inputs, parameters, activation, output);
    Ok(())
}

fn pointwise(call: &Call<'_>) -> ort::Result<()> {
    let token = token()?;
    convolve_pointwise(call, |workers, shape, maps, parameters, fused, output| {
        bf16_pointwise(token, workers.spread, shape, maps, parameters, fused, output);
    })
}

fn inverted(call: &Call<'_>) -> ort::Result<()> {
    let token = token()?;
    super::invert(call, |block, workers, maps, parameters, output| {
        bf16_inverted(token, workers.spread, block, maps, parameters, output);
    })
}

/// f32 from bf16, which is the upper half of its bits.
fn widen(call: &Call<'_>) -> ort::Result<()> {
    let maps = call.input(0)?;
    let mut output = call.output(0, dims_of(&maps))?;
    for (wide, half) in floats_mut(&mut output)?.iter_mut().zip(elements::<u16>(&maps)?) {
        *wide = f32::from_bits(u32::from(*half) << 16);
    }
    Ok(())
}

fn pool(call: &Call<'_>) -> ort::Result<()> {
    let token = token()?;
    super::pool(call, |workers, shape, maps, output| bf16_max_pool(token, workers.spread, shape, maps, output))
}

fn up(call: &Call<'_>) -> ort::Result<()> {
    let token = token()?;
    super::up(call, |workers, shape, maps, parameters, output| {
        bf16_up_convolution(token, workers.spread, shape, maps, parameters, output);
    })
}

fn up_skip(call: &Call<'_>) -> ort::Result<()> {
    let [maps, skip, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?, call.input(3)?];
    let shape = features_of(&maps)?;
    let channels = skip_channels_of(&skip, shape)?;
    let out = dims_of(&bias).last().copied().unwrap_or(0);
    multiple_of_8("output channels", out)?;
    expect(&weight, "weight", [PHASES, depth(shape.channels, channels), out])?;
    expect(&bias, "bias", [PHASES, EDGES, out])?;
    let parameters = [floats(&weight)?, floats(&bias)?];
    let mut output = call.output(0, dims(up_shape(shape, out)))?;
    let (maps, output) = ([elements(&maps)?, elements(&skip)?], elements_mut(&mut output)?);
    bf16_up_skip_convolution(token()?, call.workers.spread, shape, maps, parameters, output);
    Ok(())
}

/// Checks that maps are a skip connection beside those that a transposed convolution makes, and returns their channels.
pub(super) fn skip_channels_of(skip: &ValueRef<'_>, below: Shape) -> ort::Result<usize> {
    let channels = features_of(skip)?.channels;
    expect(skip, "second input", dims(up_shape(below, channels)))?;
    Ok(channels)
}

fn convolve_back(call: &Call<'_>) -> ort::Result<()> {
    let [maps, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let second = call.context.input(3)?;
    let shape = features_of(&maps)?;
    let first = elements(&maps)?;
    let mut inputs = vec![Bf16Maps::Features(first)];
    let mut all_channels = shape.channels;
    let mut output = call.output(2, dims(shape))?;
    let mut second_output = None;
    if let Some(second) = &second {
        let second_shape = second_of(second, shape)?;
        all_channels += second_shape.channels;
        inputs.push(Bf16Maps::Features(elements(second)?));
        second_output = Some(call.output(3, dims(second_shape))?);
    }
    weight_gradients(call, (shape, all_channels), &inputs, [&gradient, &weight])?;
    let mask = if second.is_some() { None } else { call.mask(first, Activation::None)? };
    let outputs = [elements_mut(&mut output)?, second_output.as_mut().map_or(Ok(&mut [][..]), elements_mut)?];
    let (gradient, weight) = (elements(&gradient)?, floats(&weight)?);
    bf16_convolution_input_gradient(token()?, call.workers.spread, shape, gradient, weight, mask, outputs);
    Ok(())
}

fn photos_back(call: &Call<'_>) -> ort::Result<()> {
    let [photos, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = shape_of(&photos)?;
    let inputs = [Bf16Maps::Photos(call.photos(&photos, shape.channels)?)];
    weight_gradients(call, (shape, shape.channels), &inputs, [&gradient, &weight])
}

fn weight_gradients(
    call: &Call<'_>,
    (shape, all_channels): (Shape, usize),
    inputs: &[Bf16Maps<'_>],
    [gradient, weight]: [&ValueRef<'_>; 2],
) -> ort::Result<()> {
    let out = outputs_of(weight, all_channels)?;
    expect(gradient, "gradient", dims(shape.with_channels(out)))?;
    let (mut of_weight, mut of_bias) = (call.output(0, dims_of(weight))?, call.output(1, [out])?);
    let results = [floats_mut(&mut of_weight)?, floats_mut(&mut of_bias)?];
    bf16_convolution_weight_gradient(token()?, call.workers.spread, shape, inputs, elements(gradient)?, results);
    Ok(())
}

fn up_back(call: &Call<'_>) -> ort::Result<()> {
    let token = token()?;
    super::up_back(
        call,
        |workers, shape, maps, gradient, results| {
            bf16_up_convolution_weight_gradient(token, workers.spread, shape, maps, gradient, results);
        },
        |workers, shape, gradient, weight, mask, output| {
            bf16_up_convolution_input_gradient(token, workers.spread, shape, gradient, weight, mask, output);
        },
    )
}

fn add(call: &Call<'_>) -> ort::Result<()> {
    let [first, second] = [call.input(0)?, call.input(1)?];
    let shape = features_of(&first)?;
    expect(&second, "second input", dims(shape))?;
    let mut output = call.output(0, dims(shape))?;
    bf16_add(token()?, call.workers.spread, shape, [elements(&first)?, elements(&second)?], elements_mut(&mut output)?);
    Ok(())
}

fn narrow(call: &Call<'_>) -> ort::Result<()> {
    let maps = call.input(0)?;
    let mut output = call.output(0, dims_of(&maps))?;
    bf16_round(floats(&maps)?, elements_mut(&mut output)?);
    Ok(())
}

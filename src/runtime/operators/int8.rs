//! The operators for prediction in 8-bit integers.

use super::bf16::skip_channels_of;
use super::{Bf16, Call, F32, I8, Shape, Signature, U8, ValueRef};
use super::{bytes, dims, dims_of, expect, features_of, floats, floats_mut, multiple_of_8, shape_of};
use lookbook_ops::int8::{Avx512Vnni, Int8Maps, Int8Parameters, Output, UpSkipParameters};
use lookbook_ops::int8::{int8_convolution, int8_max_pool, int8_narrow, int8_up_skip_convolution};
use lookbook_ops::quantised::held_channels;
use lookbook_ops::up::up_shape;
use lookbook_ops::up_skip::{EDGES, PHASES, depth};
use ort::value::PrimitiveTensorElementType;

pub(super) fn is_available() -> bool {
    Avx512Vnni::detect().is_some()
}

fn token() -> ort::Result<Avx512Vnni> {
    Avx512Vnni::detect().ok_or_else(|| ort::Error::new("this processor has no AVX-512-VNNI or no AVX-512-BF16"))
}

pub(super) const OPERATORS: &[Signature] = &[
    Signature { name: "Int8Convolution", inputs: &[U8, I8, F32, F32], outputs: &[U8], compute: convolve::<u8> },
    Signature { name: "Int8LastConvolution", inputs: &[U8, I8, F32, F32], outputs: &[F32], compute: convolve::<f32> },
    Signature { name: "Int8PhotoConvolution", inputs: &[U8, I8, F32, F32], outputs: &[U8], compute: photos },
    Signature { name: "Int8UpSkipConvolution", inputs: &[U8, U8, I8, F32, F32], outputs: &[U8], compute: up::<u8> },
    Signature {
        name: "Int8WideUpSkipConvolution",
        inputs: &[U8, U8, I8, F32, F32],
        outputs: &[Bf16],
        compute: up::<u16>,
    },
    Signature { name: "Int8MaxPool", inputs: &[U8], outputs: &[U8], compute: pool },
    Signature { name: "Int8Narrow", inputs: &[Bf16], outputs: &[U8], compute: narrow },
    Signature { name: "Int8Wide", inputs: &[U8], outputs: &[F32], compute: widen },
];

/// Checks the inputs from `index` on, packed weights `[depth, out]`, scales and biases `[phases, out]`, and returns `out`.
fn outputs_of(
    [weight, scale, bias]: [&ValueRef<'_>; 3],
    depth: usize,
    [phases, biases]: [usize; 2],
) -> ort::Result<usize> {
    let out = dims_of(scale).first().map_or(0, |len| len / phases);
    multiple_of_8("output channels", out)?;
    // Fine weights are twice as many.
    let planes = if dims_of(weight).first() == Some(&(2 * depth)) { 2 } else { 1 };
    expect(weight, "weight", [planes * depth, out])?;
    expect(scale, "scale", [phases * out])?;
    expect(bias, "bias", [biases * out])?;
    Ok(out)
}

fn weights<'a>(value: &'a ValueRef<'_>) -> ort::Result<&'a [i8]> {
    Ok(value.try_extract_tensor::<i8>()?.1)
}

/// The zero point of each of so many maps.
fn zeros<const N: usize>(call: &Call<'_>) -> ort::Result<[u8; N]> {
    let zeros = <[u8; N]>::try_from(&call.attributes.zeros[..]);
    let found = call.attributes.zeros.len();
    zeros.map_err(|_| ort::Error::new(format!("the attribute 'zeros' has {found} numbers, not {N}")))
}

fn convolve<E: PrimitiveTensorElementType>(call: &Call<'_>) -> ort::Result<()>
where
    for<'a> &'a mut [E]: Into<Output<'a>>,
{
    let maps = call.input(0)?;
    let shape = features_of(&maps)?;
    let [zero] = zeros(call)?;
    convolve_maps::<E>(call, shape, Int8Maps::Features(bytes(&maps)?, zero))
}

fn photos(call: &Call<'_>) -> ort::Result<()> {
    let photos = call.input(0)?;
    let shape = shape_of(&photos)?;
    // Those of a pixel, or of a square of them.
    if !shape.channels.is_multiple_of(3) {
        return Err(ort::Error::new(format!("its photos have {} channels, not a multiple of 3", shape.channels)));
    }
    convolve_maps::<u8>(call, shape, Int8Maps::Photos(call.photos(&photos, shape.channels)?))
}

fn convolve_maps<E: PrimitiveTensorElementType>(call: &Call<'_>, shape: Shape, maps: Int8Maps<'_>) -> ort::Result<()>
where
    for<'a> &'a mut [E]: Into<Output<'a>>,
{
    let [weight, scale, bias] = [call.input(1)?, call.input(2)?, call.input(3)?];
    let out = outputs_of([&weight, &scale, &bias], 9 * held_channels(shape.channels), [1, 1])?;
    let parameters = Int8Parameters { weights: weights(&weight)?, scale: floats(&scale)?, bias: floats(&bias)? };
    let mut output = call.output(0, dims(shape.with_channels(out)))?;
    let output = output.try_extract_tensor_mut::<E>()?.1;
    int8_convolution(token()?, call.workers.spread, shape, maps, parameters, output.into());
    Ok(())
}

fn up<E: PrimitiveTensorElementType>(call: &Call<'_>) -> ort::Result<()>
where
    for<'a> &'a mut [E]: Into<Output<'a>>,
{
    let [maps, skip] = [call.input(0)?, call.input(1)?];
    let [weight, scale, bias] = [call.input(2)?, call.input(3)?, call.input(4)?];
    let shape = features_of(&maps)?;
    let depth = PHASES * depth(shape.channels, skip_channels_of(&skip, shape)?);
    let out = outputs_of([&weight, &scale, &bias], depth, [PHASES, PHASES * EDGES])?;
    let parameters = UpSkipParameters { weights: weights(&weight)?, scale: floats(&scale)?, bias: floats(&bias)? };
    let [zero, skip_zero] = zeros(call)?;
    let inputs = [(bytes(&maps)?, zero), (bytes(&skip)?, skip_zero)];
    let mut output = call.output(0, dims(up_shape(shape, out)))?;
    let output = output.try_extract_tensor_mut::<E>()?.1;
    int8_up_skip_convolution(token()?, call.workers.spread, shape, inputs, parameters, output.into());
    Ok(())
}

fn pool(call: &Call<'_>) -> ort::Result<()> {
    let token = token()?;
    super::pool(call, |workers, shape, maps, output| int8_max_pool(token, workers.spread, shape, maps, output))
}

fn narrow(call: &Call<'_>) -> ort::Result<()> {
    let maps = call.input(0)?;
    let shape = features_of(&maps)?;
    let [zero] = zeros(call)?;
    let factor = 1.0 / steps(call, 1)?[0];
    let mut output = call.output(0, dims(shape))?;
    let (input, output) = (maps.try_extract_tensor::<u16>()?.1, output.try_extract_tensor_mut::<u8>()?.1);
    int8_narrow(token()?, call.workers.spread, input, factor, zero, output);
    Ok(())
}

/// The steps, of which there are so many.
fn steps<'a>(call: &'a Call<'_>, count: usize) -> ort::Result<&'a [f32]> {
    let steps = &call.attributes.step[..];
    if steps.len() == count && steps.iter().all(|it| it.is_finite() && *it > 0.0) {
        return Ok(steps);
    }
    let found = steps.len();
    Err(ort::Error::new(format!("the attribute 'step' has {found} numbers, not {count} above 0, or others among them")))
}

/// f32 from maps with the zero point 0.
fn widen(call: &Call<'_>) -> ort::Result<()> {
    let maps = call.input(0)?;
    let steps = steps(call, features_of(&maps)?.channels)?;
    let mut output = call.output(0, dims_of(&maps))?;
    for ((wide, element), step) in floats_mut(&mut output)?.iter_mut().zip(bytes(&maps)?).zip(steps.iter().cycle()) {
        *wide = f32::from(*element) * step;
    }
    Ok(())
}

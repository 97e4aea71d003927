//! Foreign model folders, operators with shapes that they do not expect, and ids at their limit: all are
//! refused by an error that names the thing.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use ort::value::{DynValue, Tensor};
use prost::Message;
use serde_json::{Value, json};

use crate::model::{striped_jpeg, write_flat_model};
use crate::shared::{drawn_sample, library};
use lookbook::engine::{Engine, PrecisionChoice};
use lookbook::graph::builder::{Builder, Dim};
use lookbook::graph::onnx::{self, Attribute, FLOAT, UINT8};
use lookbook::graph::{Dialect, Loss, SPEC_KEY, Spec, parameters};
use lookbook::model::Model;
use lookbook::model::files::{PREDICT_FILE, WEIGHTS_FILE};
use lookbook::model::weights::write_weights;
use lookbook::runtime::{self, operators};
use lookbook::stage::{Common, Summary};
use lookbook::{convert, evaluate, export, files, recommend, segment};

fn seed() -> Spec {
    Spec::seed(48, 64, Loss::Bce)
}

/// Changes the network in a model folder.
fn change(folder: &Path, change: impl FnOnce(&mut onnx::Model)) {
    let path = folder.join(PREDICT_FILE);
    let mut model = onnx::Model::decode(&fs::read(&path).unwrap()[..]).unwrap();
    change(&mut model);
    fs::write(path, model.encode_to_vec()).unwrap();
}

fn put_spec(model: &mut onnx::Model, text: String) {
    model.metadata_props.iter_mut().find(|it| it.key == SPEC_KEY).unwrap().value = text;
}

/// A model folder whose files agree with each other about a network that this program does not make.
fn write_foreign(folder: &Path, spec: &Spec) {
    write_flat_model(folder, 1);
    let weights = vec![0.0; parameters::parameter_count(spec)];
    let tensors = parameters::parameters(spec).into_iter().map(|it| onnx::Tensor {
        dims: it.dims.iter().map(|&dim| dim as i64).collect(),
        data_type: FLOAT,
        raw_data: vec![0; 4 * it.len()],
        name: it.name,
    });
    change(folder, |model| {
        put_spec(model, serde_json::to_string(spec).unwrap());
        model.graph.as_mut().unwrap().initializer = tensors.collect();
    });
    write_weights(&folder.join(WEIGHTS_FILE), spec, &weights).unwrap();
}

fn predictor_problem(folder: &Path) -> String {
    let model = Model::open(folder).unwrap();
    model.predictor(Engine::default(), PrecisionChoice::F32).expect_err("the model is refused").to_string()
}

fn weights_problem(folder: &Path) -> String {
    Model::open(folder).unwrap().weights().expect_err("the model is refused").to_string()
}

#[test]
fn a_consistent_model_of_another_make_is_refused_by_file_and_field() {
    let cases = [
        ("channels", Spec { channels: vec![0, 0], ..seed() }),
        ("channels", Spec { channels: vec![8, 0, 16], ..seed() }),
        ("channels", Spec { channels: vec![8], ..seed() }),
        ("channels", Spec { channels: vec![8, 12], ..seed() }),
        ("channels", Spec { channels: vec![40, 48], ..seed() }),
        ("channels", Spec { channels: vec![7, 9, 11], ..seed() }),
        ("stride", Spec { stride: 0, ..seed() }),
        ("stride", Spec { stride: 3, ..seed() }),
        ("photo_width_px", Spec { photo_width_px: 0, ..seed() }),
        ("photo_height_px", Spec { photo_height_px: 1 << 40, ..seed() }),
        ("batch_norm", Spec { batch_norm: true, ..seed() }),
    ];
    for (field, spec) in cases {
        let place = tempfile::tempdir().unwrap();
        write_foreign(place.path(), &spec);
        for (file, problem) in
            [(PREDICT_FILE, predictor_problem(place.path())), (WEIGHTS_FILE, weights_problem(place.path()))]
        {
            assert!(problem.contains(file) && problem.contains(&format!("'{field}'")), "{spec:?}: {problem}");
        }
    }
}

#[test]
fn a_specification_that_cannot_be_read_is_refused_by_file_and_field() {
    let cases = [
        ("channels", json!([])),
        ("channels", json!([-8, 16])),
        ("channels", json!("8, 16")),
        ("stride", json!(-1)),
        ("photo_width_px", json!(1e300)),
        ("photo_height_px", Value::Null),
        ("loss", json!("hinge")),
    ];
    for (field, value) in cases {
        let place = tempfile::tempdir().unwrap();
        write_flat_model(place.path(), 1);
        let mut spec = serde_json::to_value(seed()).unwrap();
        spec[field] = value;
        change(place.path(), |model| put_spec(model, spec.to_string()));
        let problem = predictor_problem(place.path());
        assert!(problem.contains(PREDICT_FILE) && problem.contains(&format!("'{field}'")), "{problem}");
    }
}

#[test]
fn tensors_of_another_make_are_refused_by_name() {
    type Change = fn(&mut onnx::Tensor);
    let of_other_categories = |count: usize| {
        move |model: &mut onnx::Model| {
            for it in &mut model.graph.as_mut().unwrap().initializer {
                if let Some(tail) = it.name.strip_prefix("out.") {
                    it.dims[0] = count as i64;
                    it.raw_data = vec![0; 4 * count * if tail == "weight" { 8 } else { 1 }];
                }
            }
        }
    };
    let place = tempfile::tempdir().unwrap();
    for count in [1, 22, 1000] {
        write_flat_model(place.path(), 1);
        change(place.path(), of_other_categories(count));
        let problem = predictor_problem(place.path());
        assert!(problem.contains("'out.weight'"), "{problem}");
    }
    let changes: [(&str, Change); 6] = [
        ("down1a.weight", |it| it.raw_data.truncate(7)),
        ("down1b.weight", |it| it.dims.reverse()),
        ("down2a.bias", |it| it.data_type = onnx::INT32),
        ("down3a.weight", |it| it.name = "other".into()),
        ("up1t.weight", |it| it.raw_data[40..44].copy_from_slice(&f32::NAN.to_le_bytes())),
        ("out.bias", |it| it.raw_data[..4].copy_from_slice(&f32::INFINITY.to_le_bytes())),
    ];
    for (name, change_it) in changes {
        write_flat_model(place.path(), 1);
        change(place.path(), |model| {
            let tensors = &mut model.graph.as_mut().unwrap().initializer;
            change_it(tensors.iter_mut().find(|it| it.name == name).unwrap());
        });
        let problem = predictor_problem(place.path());
        // Reversed, the shape of down1b.weight is another, though its size is the same.
        assert!(problem.contains(PREDICT_FILE) && problem.contains(&format!("'{name}'")), "{problem}");
    }
    let mut weights = parameters::initial_weights(&seed(), 0);
    weights[300] = f32::NAN;
    write_weights(&place.path().join(WEIGHTS_FILE), &seed(), &weights).unwrap();
    let problem = weights_problem(place.path());
    assert!(problem.contains(WEIGHTS_FILE) && problem.contains("'down1b.weight'"), "{problem}");
}

#[test]
fn every_command_that_takes_a_model_says_what_is_wrong_with_it() {
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let [shop, model, features, source, dataset, output] =
        ["shop", "model", "features", "source", "dataset", "export"].map(|it| place.path().join(it));
    fs::create_dir(&shop).unwrap();
    fs::write(shop.join("a.jpg"), striped_jpeg(40, 60, &[2, 10])).unwrap();
    write_flat_model(&model, 1);
    let common = Common::default();
    let segment = segment::Config {
        catalogue: shop.clone(),
        model: model.clone(),
        output: features.clone(),
        ..Default::default()
    };
    segment::run(&segment, &common).unwrap().published().expect("it is published");
    drawn_sample(&source, 6);
    convert::run(&convert::Config { source, output: dataset.clone(), ..Default::default() }, &common)
        .unwrap()
        .published()
        .expect("it is published");
    write_foreign(&model, &Spec { stride: 3, ..seed() });
    let problems = [
        segment::run(&segment, &common).map(|_| ()),
        recommend::run(
            &recommend::Config { model: model.clone(), features, ..Default::default() },
            &[shop.join("a.jpg")],
            &common,
        )
        .map(|_| ()),
        evaluate::run(&evaluate::Config { dataset, model: model.clone(), ..Default::default() }, &common).map(|_| ()),
        export::run(&export::Config { model, output }, &common).map(|_| ()),
    ];
    for problem in problems.map(|it| it.expect_err("the model is refused").to_string()) {
        assert!(problem.contains("model/") && problem.contains("'stride'"), "{problem}");
    }
}

/// A call of a native operator that works.
struct Call {
    operator: &'static str,
    inputs: Vec<(i32, Vec<usize>)>,
    attributes: Vec<Attribute>,
    outputs: usize,
}

const UINT16: i32 = 4;

fn calls() -> Vec<Call> {
    let f32s = |all: &[&[usize]]| -> Vec<_> { all.iter().map(|it| (FLOAT, it.to_vec())).collect() };
    let call = |operator, inputs, outputs| Call { operator, inputs, attributes: vec![], outputs };
    let (maps, photos, labels) = (&[2, 4, 6, 8][..], (UINT8, vec![2, 4, 6, 3]), (UINT8, vec![2, 4, 6]));
    let (weight, bias) = (&[16, 8, 3, 3][..], &[16][..]);
    let wide = &[2, 4, 6, 16][..];
    let head = f32s(&[maps, &[23, 8, 1, 1], &[23]]);
    let with_photos = |rest: Vec<_>| [vec![photos.clone()], rest].concat();
    let with_photo = |mut call: Call| {
        call.attributes.push(Attribute::ints("photo", &[4, 5]));
        call
    };
    let learn = [head.clone(), vec![labels.clone()]].concat();
    let mut calls = vec![
        call("Convolution", f32s(&[maps, weight, bias]), 1),
        call("Convolution", f32s(&[maps, &[16, 16, 3, 3], bias, maps]), 1),
        call("ConvolutionGradient", f32s(&[maps, wide, weight]), 3),
        call("ConvolutionGradient", f32s(&[maps, wide, &[16, 16, 3, 3], maps]), 4),
        call("PhotoConvolution", with_photos(f32s(&[&[16, 3, 3, 3], bias])), 1),
        call("PhotoConvolutionGradient", with_photos(f32s(&[wide, &[16, 3, 3, 3]])), 2),
        call("Convolution", f32s(&[maps, &[16, 24, 3, 3], bias, wide]), 1),
        call("WinogradConvolution", f32s(&[maps, &[36, 8, 16], bias]), 1),
        call("WinogradConvolution", f32s(&[maps, &[36, 24, 16], bias, wide]), 1),
        call("ConvolutionGradient", f32s(&[maps, wide, &[16, 24, 3, 3], wide]), 4),
        call("PointwiseConvolution", f32s(&[maps, &[16, 8, 1, 1], bias]), 1),
        call("PointwiseConvolution", f32s(&[maps, &[16, 8, 1, 1], bias, wide]), 1),
        call("PointwiseConvolutionGradient", f32s(&[maps, wide, &[16, 8, 1, 1]]), 3),
        call("PointwiseConvolutionGradient", f32s(&[maps, wide, &[16, 8, 1, 1], maps]), 3),
        call("DepthwiseConvolution", f32s(&[maps, &[8, 1, 5, 5], &[8]]), 1),
        call("DepthwiseConvolutionGradient", f32s(&[maps, maps, &[8, 1, 3, 3]]), 3),
        call("InvertedResidual", f32s(&[maps, &[8, 1, 3, 3], &[8], &[16, 8, 1, 1], bias]), 1),
        call("InvertedResidual", f32s(&[maps, &[24, 1, 3, 3], &[24], &[8, 24, 1, 1], &[8], &[24, 8, 1, 1], &[24]]), 1),
        call("BatchNorm", f32s(&[maps, &[8], &[8]]), 3),
        call("BatchNorm", f32s(&[maps, &[8], &[8], maps]), 3),
        call("BatchNormGradient", f32s(&[maps, maps, &[8], &[8], &[8]]), 3),
        call("MaxPool", f32s(&[maps]), 1),
        call("MaxPoolGradient", f32s(&[maps, &[2, 2, 3, 8], maps]), 1),
        call("UpConvolution", f32s(&[maps, &[8, 16, 2, 2], bias]), 1),
        call("UpConvolutionGradient", f32s(&[maps, &[2, 8, 12, 16], &[8, 16, 2, 2]]), 3),
        with_photo(call("HeadLoss", learn.clone(), 6)),
        with_photo(call("HeadLoss", [learn.clone(), f32s(&[&[23], &[1]])].concat(), 6)),
        with_photo(call("HeadEvaluation", learn, 3)),
        with_photo(call("HeadLabels", head, 2)),
        call("Adam", f32s(&[&[5], &[5], &[5], &[5], &[1], &[1]]), 3),
        call("Adam", f32s(&[&[5], &[5], &[5], &[5], &[1], &[1], &[5], &[5]]), 3),
    ];
    if operators::has_bf16() {
        let halves = (UINT16, maps.to_vec());
        let with_halves = |rest: Vec<_>| [vec![halves.clone()], rest].concat();
        calls.extend([
            call("Bf16Convolution", with_halves(f32s(&[weight, bias])), 1),
            call("Bf16LastConvolution", with_halves(f32s(&[weight, bias])), 1),
            call("Bf16PhotoConvolution", with_photos(f32s(&[&[16, 3, 3, 3], bias])), 1),
            call("Bf16PointwiseConvolution", with_halves(f32s(&[&[16, 8, 1, 1], bias])), 1),
            call("Bf16DepthwiseConvolution", with_halves(f32s(&[&[8, 1, 3, 3], &[8]])), 1),
            call("Bf16InvertedResidual", with_halves(f32s(&[&[8, 1, 3, 3], &[8], &[16, 8, 1, 1], bias])), 1),
            call("Bf16MaxPool", with_halves(vec![]), 1),
            call("Bf16UpConvolution", with_halves(f32s(&[&[8, 16, 2, 2], bias])), 1),
        ]);
        let u16s = |all: &[&[usize]]| -> Vec<_> { all.iter().map(|it| (UINT16, it.to_vec())).collect() };
        let mixed = |halves: &[&[usize]], rest: &[&[usize]]| [u16s(halves), f32s(rest)].concat();
        let with_second = |rest: Vec<_>| [rest, u16s(&[wide])].concat();
        let learn = [mixed(&[maps], &[&[23, 8, 1, 1], &[23]]), vec![labels]].concat();
        calls.extend([
            call("Bf16ConvolutionGradient", mixed(&[maps, wide], &[weight]), 3),
            call("Bf16ConvolutionGradient", with_second(mixed(&[maps, wide], &[&[16, 24, 3, 3]])), 4),
            call("Bf16PhotoConvolutionGradient", with_photos(mixed(&[wide], &[&[16, 3, 3, 3]])), 2),
            call("Bf16MaxPoolGradient", u16s(&[maps, &[2, 2, 3, 8], maps]), 1),
            call("Bf16UpConvolutionGradient", mixed(&[maps, &[2, 8, 12, 16]], &[&[8, 16, 2, 2]]), 3),
            // Rows of a phase's matrix: 2x2 pixels of 8 channels and 3x3 of 16.
            call("Bf16UpSkipConvolution", mixed(&[maps, &[2, 8, 12, 16]], &[&[4, 176, 16], &[4, 4, 16]]), 1),
            with_photo(call("Bf16HeadLoss", learn, 6)),
            call("Bf16Add", u16s(&[maps, maps]), 1),
        ]);
    }
    if operators::has_int8() {
        let (bytes, weights) = ((UINT8, maps.to_vec()), |dims: [usize; 2]| (onnx::INT8, dims.to_vec()));
        let above = (UINT8, vec![2, 8, 12, 8]);
        let floats = |phases: usize, biases: usize| f32s(&[&[16 * phases], &[16 * biases]]);
        let with_zeros = |mut call: Call, zeros: &[i64]| {
            call.attributes.push(Attribute::ints("zeros", zeros));
            call
        };
        let convolution = [vec![bytes.clone(), weights([72, 16])], floats(1, 1)].concat();
        let photos = [vec![(UINT8, vec![2, 4, 6, 3]), weights([72, 16])], floats(1, 1)].concat();
        let up = [vec![bytes.clone(), above, weights([4 * 104, 16])], floats(4, 16)].concat();
        calls.extend([
            with_zeros(call("Int8Convolution", convolution.clone(), 1), &[3]),
            with_zeros(call("Int8LastConvolution", convolution, 1), &[3]),
            call("Int8PhotoConvolution", photos, 1),
            with_zeros(call("Int8UpSkipConvolution", up.clone(), 1), &[3, 128]),
            with_zeros(call("Int8WideUpSkipConvolution", up, 1), &[3, 128]),
            call("Int8MaxPool", vec![bytes], 1),
        ]);
    }
    calls
}

fn run(call: &Call) -> Result<(), String> {
    let mut builder = Builder::default();
    let values: Vec<_> = (0..)
        .zip(&call.inputs)
        .map(|(at, (element, dims))| {
            let dims: Vec<Dim> = dims.iter().map(|&dim| Dim::Fixed(dim)).collect();
            builder.input(&format!("input{at}"), *element, &dims)
        })
        .collect();
    let inputs: Vec<_> = values.iter().collect();
    let outputs = builder.native(call.operator, &inputs, call.attributes.clone(), call.outputs);
    // One output is enough for the operator to run.
    let last = outputs.last().unwrap();
    let element = match call.operator {
        "HeadEvaluation" => UINT8,
        "HeadLabels" => onnx::INT32,
        "Bf16LastConvolution" | "Int8LastConvolution" | "Bf16PhotoConvolutionGradient" | "Bf16HeadLoss" => FLOAT,
        "Int8WideUpSkipConvolution" => UINT16,
        operator if operator.starts_with("Int8") => UINT8,
        operator if operator.starts_with("Bf16") => UINT16,
        _ => FLOAT,
    };
    builder.output("last", last, element, &[Dim::Batch]);
    let model = builder.finish("foreign", "", &[]);
    let engine = Engine::cpu(Dialect::Native, 2);
    let (mut session, _) = runtime::session("foreign", |_| model.clone(), engine).map_err(|it| it.to_string())?;
    let given = call.inputs.iter().zip(0..).map(|((element, dims), at)| {
        let len = dims.iter().product();
        let value: DynValue = match *element {
            UINT8 => Tensor::from_array((dims.clone(), vec![1_u8; len])).unwrap().into_dyn(),
            UINT16 => Tensor::from_array((dims.clone(), vec![0_u16; len])).unwrap().into_dyn(),
            onnx::INT8 => Tensor::from_array((dims.clone(), vec![1_i8; len])).unwrap().into_dyn(),
            _ => Tensor::from_array((dims.clone(), vec![0.5_f32; len])).unwrap().into_dyn(),
        };
        (format!("input{at}"), value)
    });
    session.run(given.collect::<HashMap<_, _>>()).map(|_| ()).map_err(|it| it.to_string())
}

fn assert_refused(call: &Call, what: &str) {
    let problem = run(call).expect_err(&format!("{} with {what}", call.operator));
    assert!(problem.contains(call.operator) && !problem.contains("panicked"), "{what}: {problem}");
}

#[test]
fn operators_refuse_shapes_that_they_do_not_expect() {
    if library().is_none() {
        return;
    }
    let count = calls().len();
    assert!(count >= 28);
    for at in 0..count {
        let good = calls().swap_remove(at);
        run(&good).unwrap_or_else(|problem| panic!("{} works: {problem}", good.operator));
        for input in 0..good.inputs.len() {
            let changed = |change: &dyn Fn(&mut Vec<usize>)| {
                let mut call = calls().swap_remove(at);
                change(&mut call.inputs[input].1);
                assert_refused(&call, &format!("input {input} of {:?}", call.inputs[input].1));
            };
            changed(&|dims| *dims.last_mut().unwrap() += 1);
            // A single number may have any axes, and a vector of weights is one of any shape to Adam.
            if good.operator != "Adam" && good.inputs[input].1 != [1] {
                changed(&|dims| dims.push(1));
                changed(&|dims| _ = dims.remove(0));
            }
        }
    }
}

#[test]
fn operators_refuse_what_agrees_but_has_no_kernel() {
    if library().is_none() {
        return;
    }
    let of = |operator, dims: &[&[usize]], outputs| Call {
        operator,
        inputs: dims.iter().map(|it| (FLOAT, it.to_vec())).collect(),
        attributes: vec![],
        outputs,
    };
    let calls = [
        of("Convolution", &[&[1, 4, 4, 12], &[8, 12, 3, 3], &[8]], 1),
        of("Convolution", &[&[1, 4, 4, 8], &[12, 8, 3, 3], &[12]], 1),
        of("Convolution", &[&[0, 4, 4, 8], &[8, 8, 3, 3], &[8]], 1),
        of("Convolution", &[&[1, 0, 4, 8], &[8, 8, 3, 3], &[8]], 1),
        of("Convolution", &[&[1, 4, 4, 0], &[8, 0, 3, 3], &[8]], 1),
        of("Convolution", &[&[1, 4, 4, 8], &[0, 8, 3, 3], &[0]], 1),
        of("Convolution", &[&[1, 4, 4, 8], &[8, 8, 5, 5], &[8]], 1),
        of("BatchNorm", &[&[1, 4, 4, 4], &[4], &[4]], 3),
        of("MaxPool", &[&[1, 3, 4, 8]], 1),
        of("MaxPool", &[&[1, 4, 3, 8]], 1),
        of("MaxPool", &[&[1, 4, 4, 4]], 1),
        of("UpConvolution", &[&[1, 4, 4, 8], &[8, 3, 2, 2], &[3]], 1),
        of("WinogradConvolution", &[&[1, 4, 4, 12], &[36, 12, 8], &[8]], 1),
        of("WinogradConvolution", &[&[1, 4, 4, 8], &[36, 8, 12], &[12]], 1),
        of("WinogradConvolution", &[&[1, 4, 4, 8], &[9, 8, 8], &[8]], 1),
        of("WinogradConvolution", &[&[1, 4, 4, 8], &[36, 24, 8], &[8], &[1, 4, 3, 16]], 1),
        of("InvertedResidual", &[&[1, 4, 4, 8], &[16, 1, 3, 3], &[16], &[8, 16, 1, 1], &[8]], 1),
        of("InvertedResidual", &[&[1, 4, 4, 8], &[8, 1, 7, 7], &[8], &[8, 8, 1, 1], &[8]], 1),
        of("InvertedResidual", &[&[1, 4, 4, 8], &[8, 1, 3, 3], &[8], &[12, 8, 1, 1], &[12]], 1),
        of("InvertedResidual", &[&[1, 4, 4, 8], &[16, 1, 3, 3], &[16], &[8, 16, 1, 1], &[8], &[16, 8, 1, 1]], 1),
        of("PointwiseConvolution", &[&[1, 4, 4, 8], &[12, 8, 1, 1], &[12]], 1),
        of("PointwiseConvolution", &[&[1, 4, 4, 8], &[8, 8, 3, 3], &[8]], 1),
        of("DepthwiseConvolution", &[&[1, 4, 4, 12], &[12, 1, 3, 3], &[12]], 1),
        of("DepthwiseConvolution", &[&[1, 4, 4, 8], &[8, 1, 7, 7], &[8]], 1),
        of("DepthwiseConvolution", &[&[1, 4, 4, 8], &[8, 8, 3, 3], &[8]], 1),
        of("Convolution", &[&[1, 4, 4, 8], &[8, 12, 3, 3], &[8], &[1, 4, 4, 4]], 1),
        of("Adam", &[&[5], &[5], &[5], &[5], &[1], &[1], &[5]], 3),
    ];
    for call in calls {
        assert_refused(&call, &format!("{:?}", call.inputs));
    }
    for photo in [vec![], vec![4], vec![0, 4], vec![5, 4], vec![4, -1], vec![4, 4, 4]] {
        let mut call = of("HeadLabels", &[&[1, 4, 4, 8], &[23, 8, 1, 1], &[23]], 2);
        call.attributes = vec![Attribute::ints("photo", &photo)];
        assert_refused(&call, &format!("photo {photo:?}"));
    }
    let depthwise = [
        Attribute::int("activation", 2),
        Attribute::int("stride", 0),
        Attribute::int("stride", 3),
        Attribute::ints("pads", &[1]),
        Attribute::ints("pads", &[3, 0]),
        Attribute::ints("pads", &[-1, 0]),
    ];
    for attribute in depthwise {
        let mut call = of("DepthwiseConvolution", &[&[1, 4, 4, 8], &[8, 1, 3, 3], &[8]], 1);
        let what = format!("{attribute:?}");
        call.attributes = vec![attribute];
        assert_refused(&call, &what);
    }
    let up_skips: [&[&[usize]]; 3] = [
        &[&[1, 4, 4, 8], &[1, 8, 8, 8], &[4, 104, 3], &[4, 4, 3]],
        &[&[1, 4, 4, 8], &[1, 8, 7, 8], &[4, 104, 8], &[4, 4, 8]],
        &[&[1, 4, 4, 8], &[1, 8, 8, 8], &[4, 96, 8], &[4, 4, 8]],
    ];
    for dims in up_skips.iter().filter(|_| operators::has_bf16()) {
        let mut call = of("Bf16UpSkipConvolution", dims, 1);
        call.inputs[..2].iter_mut().for_each(|(kind, _)| *kind = UINT16);
        assert_refused(&call, &format!("{dims:?}"));
    }
    let mut call = of("PhotoConvolution", &[&[1, 4, 4, 3], &[8, 3, 3, 3], &[8]], 1);
    call.inputs[0].0 = UINT8;
    call.attributes = vec![Attribute::floats("fill", &[0.5; 3])];
    run(&call).expect("what is filled has as many channels");
    call.attributes = vec![Attribute::floats("fill", &[0.5; 2])];
    assert_refused(&call, "what is filled has 2 channels");
    let mut call = of("HeadLabels", &[&[1, 4, 4, 40], &[23, 40, 1, 1], &[23]], 2);
    call.attributes = vec![Attribute::ints("photo", &[4, 4])];
    assert_refused(&call, "40 channels");
    let mut call = of("HeadLabels", &[&[1, 4, 4, 8], &[65, 8, 1, 1], &[65]], 2);
    call.attributes = vec![Attribute::ints("photo", &[4, 4])];
    assert_refused(&call, "65 categories");
}

#[test]
fn the_last_photo_id_is_given_and_the_next_photo_is_an_error() {
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let [shop, features] = ["shop", "features"].map(|it| place.path().join(it));
    fs::create_dir(&shop).unwrap();
    write_flat_model(&place.path().join("model"), 1);
    let config = segment::Config {
        catalogue: shop.clone(),
        model: place.path().join("model"),
        output: features.clone(),
        ..Default::default()
    };
    let run = |name: &str, colors: &[u8]| {
        fs::write(shop.join(name), striped_jpeg(40, 60, colors)).unwrap();
        segment::run(&config, &Common::default())
    };
    run("a.jpg", &[2]).unwrap().published().expect("it is published");
    let record = features.join("run.json");
    let mut summary: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    assert_eq!(summary["counts"]["next_photo_id"], 1);
    summary["counts"]["next_photo_id"] = u32::MAX.into();
    files::write(&record, summary.to_string().as_bytes()).unwrap();
    run("b.jpg", &[3]).unwrap().published().expect("it is published");
    let ids = lookbook::features::FeatureTable::open(&features).unwrap().photo_ids;
    assert_eq!(ids, [0, u32::MAX]);
    assert_eq!(Summary::read(&features).unwrap().counts["next_photo_id"], u64::from(u32::MAX) + 1);
    // Nothing new: still fine. One more photo: there is no id for it, and none wraps to that of another.
    segment::run(&config, &Common::default()).unwrap().published().expect("it is published");
    let problem = run("c.jpg", &[10]).expect_err("no id is left").to_string();
    assert!(problem.contains("c.jpg") && problem.contains("4294967295"), "{problem}");
    let ids = lookbook::features::FeatureTable::open(&features).unwrap().photo_ids;
    assert_eq!(ids, [0, u32::MAX], "what was published stays");
}

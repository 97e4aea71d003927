//! The training step of a network with a pretrained encoder against what `PyTorch` does from the same weights
//! (`scripts/oracles/encoder_steps.py`).

use std::collections::HashMap;

use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;
use safetensors::SafeTensors;

use crate::shared::library;
use lookbook::engine::{Engine, PrecisionChoice};
use lookbook::graph::{self, Descent, Dialect, LossWeights, Precision, Spec, parameters};
use lookbook::runtime;

const FILE: &[u8] = include_bytes!("../data/encoder_steps.safetensors");
const ROWS: usize = 48;
const COLUMNS: usize = 64;
const BATCH: usize = 2;
const PIXELS: usize = BATCH * ROWS * COLUMNS;
const DESCENT: Descent = Descent { encoder_rate: 0.1, weight_decay: 0.05 };

const PRESENCE: f32 = 0.5;

struct Stored {
    tensors: SafeTensors<'static>,
    case: &'static str,
    spec: Spec,
}

impl Stored {
    fn read(case: &'static str) -> Self {
        let tensors = SafeTensors::deserialize(FILE).unwrap();
        let (_, header) = SafeTensors::read_metadata(FILE).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let mut encoder: serde_json::Value = serde_json::from_str(&metadata["encoder"]).unwrap();
        encoder["padding"] = if case == "symmetric" { "symmetric" } else { "same" }.into();
        let spec = serde_json::json!({
            "photo_width_px": COLUMNS, "photo_height_px": ROWS, "loss": "softmax", "stride": 2, "batch_norm": true,
            "presence": case == "presence",
            "channels": serde_json::from_str::<serde_json::Value>(&metadata["channels"]).unwrap(), "encoder": encoder,
        });
        Self { tensors, case, spec: Spec::parse(&spec.to_string()).unwrap() }
    }

    fn bytes(&self, name: &str) -> &[u8] {
        self.tensors.tensor(&format!("{}/{name}", self.case)).expect(name).data()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks().0.iter().map(|&it| f32::from_le_bytes(it)).collect()
    }

    fn weights(&self, kind: &str) -> Vec<f32> {
        parameters::parameters(&self.spec).iter().flat_map(|it| self.floats(&format!("{kind}/{}", it.name))).collect()
    }

    fn statistics(&self, kind: &str) -> Vec<f32> {
        let tensors = parameters::statistics_tensors(&self.spec);
        tensors.iter().flat_map(|it| self.floats(&format!("{kind}/{}", it.name))).collect()
    }

    fn batch(&self, step: usize) -> [SessionInputValue<'static>; 2] {
        let photos = self.bytes("images")[step * 3 * PIXELS..][..3 * PIXELS].to_vec();
        let labels = self.bytes("labels")[step * PIXELS / 4..][..PIXELS / 4].to_vec();
        let photos = Tensor::from_array(([BATCH, ROWS, COLUMNS, 3], photos)).unwrap();
        [photos.into(), Tensor::from_array(([BATCH, ROWS / 2, COLUMNS / 2], labels)).unwrap().into()]
    }
}

fn close(found: &[f32], expected: &[f32], bound: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
    assert!(worst <= bound, "{what} differ by {worst}");
}

fn vector(values: &[f32]) -> SessionInputValue<'static> {
    Tensor::from_array(([values.len()], values.to_vec())).unwrap().into()
}

fn scalar(value: f32) -> SessionInputValue<'static> {
    Tensor::from_array(((), vec![value])).unwrap().into()
}

fn run(session: &mut Session, inputs: Vec<(&'static str, SessionInputValue<'static>)>) -> HashMap<String, Vec<f32>> {
    let outputs = session.run(inputs).unwrap();
    let floats = |name: &str| outputs[name].try_extract_tensor::<f32>().unwrap().1.to_vec();
    outputs.keys().map(|name| (name.to_owned(), floats(name))).collect()
}

fn check(dialect: Dialect, case: &'static str) {
    if library().is_none() {
        return;
    }
    let stored = Stored::read(case);
    let spec = &stored.spec;
    let engine = Engine::cpu(dialect, 2);

    let loss_weights = LossWeights { presence: PRESENCE, ..LossWeights::PLAIN };
    let accumulate = |dialect| graph::accumulate(dialect, Precision::F32, spec, &loss_weights);
    let (mut session, backend) = runtime::session("accumulate", accumulate, engine).unwrap();
    assert_eq!(backend.dialect, dialect);
    let [weights, statistics] = [stored.weights("init"), stored.statistics("init")];
    let [photos, labels] = stored.batch(0);
    let inputs = vec![
        ("photos", photos),
        ("labels", labels),
        ("share", scalar(1.0)),
        ("weights", vector(&weights)),
        ("gradient", vector(&vec![0.0; weights.len()])),
        ("statistics_rate", scalar(0.25)),
        ("statistics", vector(&statistics)),
    ];
    let found = run(&mut session, inputs);
    let mut gradient = &found["new_gradient"][..];
    for parameter in parameters::parameters(spec) {
        let (own, rest) = gradient.split_at(parameter.len());
        let expected = stored.floats(&format!("gradient/{}", parameter.name));
        close(own, &expected, 2e-5, &format!("gradients of {}", parameter.name));
        gradient = rest;
    }

    let train_step = |dialect| graph::train_step(dialect, Precision::F32, spec, &loss_weights, DESCENT);
    let (mut session, _) = runtime::session("train_step", train_step, engine).unwrap();
    let mut state = parameters::initial_state(spec, 0);
    (state[0], state[3], state[4]) = (weights.clone(), weights, statistics);
    let names = spec.state();
    for (step, expected) in stored.floats("losses").into_iter().enumerate() {
        let [photos, labels] = stored.batch(step);
        let mut inputs = vec![
            ("photos", photos),
            ("labels", labels),
            ("step", scalar((step + 1) as f32)),
            ("learning_rate", scalar(3e-3)),
            ("average_rate", scalar(0.5)),
            ("statistics_rate", scalar(0.25)),
        ];
        inputs.extend(names.iter().zip(&state).map(|((name, _), values)| (*name, vector(values))));
        let mut found = run(&mut session, inputs);
        assert!((found["loss"][0] - expected).abs() < 1e-4, "loss {} for {expected}", found["loss"][0]);
        state = names.iter().map(|(name, _)| found.remove(&format!("new_{name}")).unwrap()).collect();
    }
    // Adam makes a whole step of the least gradient: a weight whose gradient is nearly 0 goes either way.
    let (found, expected) = (&state[0], stored.weights("final"));
    let far = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
    assert!(far * 500 < found.len(), "{far} of {} weights differ", found.len());
    close(&state[4], &stored.statistics("final"), 1e-3, "statistics");

    let folded = parameters::fold(spec, &stored.weights("final"), &stored.statistics("final"));
    let predict = graph::predict(&spec.folded(), &folded);
    let (mut session, _) = runtime::session("predict", |_| predict.clone(), Engine::cpu(Dialect::Portable, 2)).unwrap();
    let [photos, _] = stored.batch(0);
    let outputs = session.run(vec![("photos", photos)]).unwrap();
    close(
        outputs["probabilities"].try_extract_tensor().unwrap().1,
        &stored.floats("probabilities"),
        1e-5,
        "probabilities",
    );
    let expected = &outputs["label_map"].try_extract_tensor::<u8>().unwrap().1.to_vec();
    let label_maps = |dialect| graph::label_maps(dialect, Precision::F32, &spec.folded(), &folded);
    let (mut session, _) = runtime::session("label_maps", label_maps, engine).unwrap();
    let [photos, _] = stored.batch(0);
    let outputs = session.run(vec![("photos", photos)]).unwrap();
    let found = outputs["label_map"].try_extract_tensor::<u8>().unwrap().1;
    let other = found.iter().zip(expected).filter(|(a, b)| a != b).count();
    assert!(other * 1000 <= found.len(), "{other} of {} pixels are of another category", found.len());
    if dialect == Dialect::Portable || runtime::precision(PrecisionChoice::Bf16, engine).is_err() {
        return;
    }
    let label_maps = |dialect| graph::label_maps(dialect, Precision::Bf16, &spec.folded(), &folded);
    let (mut session, _) = runtime::session("label_maps", label_maps, engine).unwrap();
    let [photos, _] = stored.batch(0);
    let outputs = session.run(vec![("photos", photos)]).unwrap();
    let found = outputs["label_map"].try_extract_tensor::<u8>().unwrap().1;
    let other = found.iter().zip(expected).filter(|(a, b)| a != b).count();
    assert!(other * 20 <= found.len(), "in bf16 {other} of {} pixels are of another category", found.len());
}

#[test]
fn steps_with_zeros_as_in_tensorflow_are_those_of_pytorch() {
    check(Dialect::Portable, "same");
}

#[test]
fn steps_with_zeros_on_all_sides_are_those_of_pytorch() {
    check(Dialect::Portable, "symmetric");
}

#[test]
fn native_steps_with_zeros_as_in_tensorflow_are_those_of_pytorch() {
    check(Dialect::Native, "same");
}

#[test]
fn native_steps_with_zeros_on_all_sides_are_those_of_pytorch() {
    check(Dialect::Native, "symmetric");
}

#[test]
fn steps_with_a_presence_head_are_those_of_pytorch() {
    check(Dialect::Portable, "presence");
}

#[test]
fn native_steps_with_a_presence_head_are_those_of_pytorch() {
    check(Dialect::Native, "presence");
}

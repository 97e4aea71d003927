//! The training step against what Keras does from the same weights on the same photos.

use std::fs;

use lookbook::graph::{self, Loss, Spec, unet};
use lookbook::runtime::{self, Device};
use ort::value::Tensor;
use safetensors::SafeTensors;

use crate::shared::shared;

const FIXTURE: &str = "reference/unet_adam_10_steps.safetensors";
const ROWS: usize = 64;
const COLUMNS: usize = 48;
const BATCH: usize = 2;

fn floats(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = tensors.tensor(name).expect("the fixture holds it").data();
    bytes.chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().expect("four bytes"))).collect()
}

fn flat(tensors: &SafeTensors, prefix: &str) -> Vec<f32> {
    unet::parameters().iter().flat_map(|it| floats(tensors, &format!("{prefix}/{}", it.name))).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn ten_steps_are_those_of_keras() {
    let Some(path) = shared(FIXTURE) else { return };
    let bytes = fs::read(path).expect("the fixture is readable");
    let tensors = SafeTensors::deserialize(&bytes).expect("the fixture is safetensors");
    let spec = Spec { photo_width_px: COLUMNS, photo_height_px: ROWS, loss: Loss::Bce };
    let model = graph::train_step(&spec, &[1.0; 23]);
    let (mut session, _) = runtime::session("train_step", &model, Device::Cpu, 2).expect("a session");

    let images = tensors.tensor("images").expect("the fixture holds it").data();
    let labels = tensors.tensor("labels").expect("the fixture holds it").data();
    let expected = floats(&tensors, "losses");
    let count = unet::PARAMETER_COUNT;
    let mut state = [flat(&tensors, "init"), vec![0.0; count], vec![0.0; count]];
    for (step, expected) in expected.iter().enumerate() {
        let photo_len = BATCH * ROWS * COLUMNS * 3;
        let photos = images[step * photo_len..][..photo_len].to_vec();
        let truth = labels[step * photo_len / 3..][..photo_len / 3].to_vec();
        let [weights, first, second] = state.map(|it| Tensor::from_array(([count], it)).expect("a tensor"));
        let scalar = |value: f32| Tensor::from_array(((), vec![value])).expect("a tensor");
        let outputs = session
            .run(ort::inputs! {
                "photos" => Tensor::from_array(([BATCH, ROWS, COLUMNS, 3], photos)).expect("a tensor"),
                "labels" => Tensor::from_array(([BATCH, ROWS, COLUMNS], truth)).expect("a tensor"),
                "step" => scalar((step + 1) as f32),
                "learning_rate" => scalar(1e-3),
                "weights" => weights, "first_moment" => first, "second_moment" => second,
            })
            .expect("the step runs");
        let output = |name: &str| outputs[name].try_extract_tensor::<f32>().expect("f32").1.to_vec();
        let loss = output("loss")[0];
        assert!((loss - expected).abs() <= 1e-5, "step {}: loss {loss}, Keras has {expected}", step + 1);
        state = ["new_weights", "new_first_moment", "new_second_moment"].map(output);
    }
    let difference = largest_difference(&state[0], &flat(&tensors, "final"));
    assert!(difference <= 1e-4, "final weights differ by {difference}");

    let model = graph::predict(&spec, &state[0]);
    let (mut session, _) = runtime::session("predict", &model, Device::Cpu, 2).expect("a session");
    let photos = images[..BATCH * ROWS * COLUMNS * 3].to_vec();
    let photos = Tensor::from_array(([BATCH, ROWS, COLUMNS, 3], photos)).expect("a tensor");
    let outputs = session.run(ort::inputs! { "photos" => photos }).expect("the prediction runs");
    let (_, found) = outputs["probabilities"].try_extract_tensor::<f32>().expect("f32");
    let expected = channels_first(&floats(&tensors, "probabilities"));
    let difference = largest_difference(found, &expected);
    assert!(difference <= 1e-4, "probabilities differ by {difference}");
    println!("largest difference of probabilities: {difference:e}");
}

fn channels_first(maps: &[f32]) -> Vec<f32> {
    let mut result = vec![0.0; maps.len()];
    let (pixels, categories) = (ROWS * COLUMNS, 23);
    for (photo, map) in maps.chunks_exact(pixels * categories).enumerate() {
        for pixel in 0..pixels {
            for category in 0..categories {
                result[(photo * categories + category) * pixels + pixel] = map[pixel * categories + category];
            }
        }
    }
    result
}

//! The training step against what Keras does from the same weights on the same photos.

use std::f32::consts::LN_2;
use std::fs;

use ort::value::{DynValue, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;

use crate::shared::{library, shared};
use lookbook::dataset::{Dataset, Split};
use lookbook::engine::Engine;
use lookbook::graph::{self, Descent, Dialect, Loss, LossWeights, Precision, Spec, parameters};
use lookbook::model::evaluator::Evaluator;
use lookbook::stage::Common;
use lookbook::train::augment::Change;
use lookbook::train::examples::{Batch, Examples};
use lookbook::train::step::{Rates, Task, TrainingStep};
use lookbook::{convert, runtime};

const FIXTURE: &str = "reference/unet_adam_10_steps.safetensors";
const ROWS: usize = 64;
const COLUMNS: usize = 48;
const BATCH: usize = 2;

fn floats(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = tensors.tensor(name).expect("the fixture holds it").data();
    bytes.chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().expect("four bytes"))).collect()
}

fn flat(tensors: &SafeTensors, spec: &Spec, prefix: &str) -> Vec<f32> {
    parameters::parameters(spec).iter().flat_map(|it| floats(tensors, &format!("{prefix}/{}", it.name))).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn ten_steps_are_those_of_keras() {
    check_ten_steps(Dialect::Portable);
}

#[test]
fn ten_native_steps_are_those_of_keras() {
    check_ten_steps(Dialect::Native);
}

fn check_ten_steps(dialect: Dialect) {
    let Some(path) = shared(FIXTURE) else { return };
    let bytes = fs::read(path).expect("the fixture is readable");
    let tensors = SafeTensors::deserialize(&bytes).expect("the fixture is safetensors");
    let spec = Spec::seed(COLUMNS, ROWS, Loss::Bce);
    let engine = Engine::cpu(dialect, 2);
    let model = |dialect| graph::train_step(dialect, Precision::F32, &spec, &LossWeights::PLAIN, Descent::PLAIN);
    let (mut session, backend) = runtime::session("train_step", model, engine).expect("a session");
    assert_eq!(backend.dialect, dialect);

    let images = tensors.tensor("images").expect("the fixture holds it").data();
    let labels = tensors.tensor("labels").expect("the fixture holds it").data();
    let expected = floats(&tensors, "losses");
    let count = parameters::SEED_PARAMETER_COUNT;
    let mut state = [flat(&tensors, &spec, "init"), vec![0.0; count], vec![0.0; count]];
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
    let difference = largest_difference(&state[0], &flat(&tensors, &spec, "final"));
    assert!(difference <= 1e-4, "final weights differ by {difference}");

    let model = graph::predict(&spec, &state[0]);
    let engine = Engine::cpu(Dialect::Portable, 2);
    let (mut session, _) = runtime::session("predict", |_| model.clone(), engine).expect("a session");
    let photos = images[..BATCH * ROWS * COLUMNS * 3].to_vec();
    let photos = Tensor::from_array(([BATCH, ROWS, COLUMNS, 3], photos)).expect("a tensor");
    let outputs = session.run(ort::inputs! { "photos" => photos }).expect("the prediction runs");
    let (_, found) = outputs["probabilities"].try_extract_tensor::<f32>().expect("f32");
    let expected = channels_first(&floats(&tensors, "probabilities"));
    let difference = largest_difference(found, &expected);
    assert!(difference <= 1e-4, "probabilities differ by {difference}");
    println!("largest difference of probabilities: {difference:e}");
}

/// Without weights every probability is a half, whatever the photos: the loss is the logarithm of 2.
#[test]
fn the_mean_over_a_batch_of_whole_photos_is_exact() {
    if library().is_none() {
        return;
    }
    let spec = Spec::seed(400, 608, Loss::Bce);
    let weights =
        Tensor::from_array(([parameters::SEED_PARAMETER_COUNT], vec![0.0_f32; parameters::SEED_PARAMETER_COUNT]));
    let weights = weights.expect("a tensor").into_dyn();
    let pixels = 4 * spec.rows() * spec.columns();
    for dialect in [Dialect::Portable, Dialect::Native] {
        let mut evaluator = Evaluator::new(&spec, Engine::cpu(dialect, 2)).expect("a session");
        let answer = evaluator.run(vec![0; 3 * pixels], vec![0; pixels], &weights).expect("the network runs");
        assert!((answer.loss - LN_2).abs() < 1e-6, "{dialect:?}: {}", answer.loss);
    }
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

/// What a graph answers to random photos: all its f32 outputs one after the other, and the label maps.
fn answer(model: impl Fn(Dialect) -> Vec<u8>, dialect: Dialect, inputs: &[(&str, DynValue)]) -> (Vec<f32>, Vec<u8>) {
    let (mut session, _) = runtime::session("graph", model, Engine::cpu(dialect, 2)).expect("a session");
    let inputs: Vec<_> = inputs.iter().map(|(name, value)| (*name, value)).collect();
    let outputs = session.run(inputs).expect("the graph runs");
    let (mut floats, mut labels) = (Vec::new(), Vec::new());
    for (_, value) in &outputs {
        match value.try_extract_tensor::<f32>() {
            Ok((_, elements)) => floats.extend_from_slice(elements),
            Err(_) => labels.extend_from_slice(value.try_extract_tensor::<u8>().expect("u8 else").1),
        }
    }
    (floats, labels)
}

/// Networks on photos whose sides are no multiples of 16: the seed's with either head, and one of other widths with
/// batch normalisation whose pixels stand for four of the photo.
fn specs() -> [Spec; 5] {
    let seed = |loss| Spec::seed(72, 90, loss);
    let other = Spec { channels: vec![16, 24, 40], stride: 2, batch_norm: true, ..seed(Loss::Softmax) };
    let enlarged = Spec { presence: true, logit_scale: 4, ..other.clone() };
    let mirrored = Spec { mirror: true, ..enlarged.clone() };
    [seed(Loss::Bce), seed(Loss::Softmax), other, enlarged, mirrored]
}

fn vector(values: Vec<f32>) -> DynValue {
    Tensor::from_array(([values.len()], values)).expect("a tensor").into_dyn()
}

fn scalar(value: f32) -> DynValue {
    Tensor::from_array(((), vec![value])).expect("a tensor").into_dyn()
}

/// Random photos with labels of all categories, the second without the last one, and so on.
fn random_batch(spec: &Spec, size: usize) -> Batch {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut photos = vec![0; size * spec.rows() * spec.columns() * 3];
    rng.fill_bytes(&mut photos);
    let pixels = spec.map_rows() * spec.map_columns();
    let of_photo =
        |(photo, values): (usize, &[u8])| values.iter().map(|value| value % (23 - photo as u8)).collect::<Vec<_>>();
    let labels = photos[..size * pixels].chunks_exact(pixels).enumerate().flat_map(of_photo).collect();
    Batch { photos, labels, size }
}

/// Photos of waves of light with some grain, with the labels of bands across them: as in real photos, neighbouring pixels are
/// much alike, and labels follow from what is seen.
fn wavy_batch(spec: &Spec, size: usize) -> Batch {
    let light = |pixel: usize, [rows, columns]: [usize; 2], channel: usize| {
        let (x, y) = ((pixel % columns) as f32 / columns as f32, (pixel / columns % rows) as f32 / rows as f32);
        let phase = (pixel / columns / rows + channel) as f32;
        (5.0 * x + (3.0 + phase) * y + phase).sin()
    };
    let Batch { mut photos, .. } = random_batch(spec, size);
    let dims = [spec.rows(), spec.columns()];
    for (at, value) in photos.iter_mut().enumerate() {
        *value = (127.0 + 110.0 * light(at / 3, dims, at % 3)) as u8 + *value % 16;
    }
    let dims = [spec.map_rows(), spec.map_columns()];
    let labels = (0..size * dims[0] * dims[1]).map(|pixel| ((light(pixel, dims, 0) + 1.0) * 11.0) as u8);
    Batch { photos, labels: labels.collect(), size }
}

fn photos_and_labels(spec: &Spec, Batch { photos, labels, size }: Batch) -> Vec<(&'static str, DynValue)> {
    let photos = Tensor::from_array(([size, spec.rows(), spec.columns(), 3], photos)).expect("a tensor");
    let labels = Tensor::from_array(([size, spec.map_rows(), spec.map_columns()], labels)).expect("a tensor");
    vec![("photos", photos.into_dyn()), ("labels", labels.into_dyn())]
}

/// Every graph gives the same in both dialects.
#[test]
fn both_dialects_give_the_same() {
    if library().is_none() {
        return;
    }
    for spec in specs() {
        let weights = parameters::initial_weights(&spec.folded(), 3);
        let categories = Some((0..23_u8).map(|category| 0.5 + f32::from(category) / 10.0).collect());
        let loss_weights = LossWeights { categories, dice: 0.7, smoothing: 0.1, presence: 0.3 };
        let mut inputs = photos_and_labels(&spec, random_batch(&spec, BATCH));
        inputs.extend([("step", 2.0), ("learning_rate", 1e-3)].map(|(name, value)| (name, scalar(value))));
        inputs.extend(spec.rates().iter().map(|&name| (name, scalar(0.1))));
        let mut state = parameters::initial_state(&spec, 3);
        (state[1], state[2]) = (vec![1e-4; state[0].len()], vec![1e-6; state[0].len()]);
        inputs.extend(spec.state().into_iter().zip(state).map(|((name, _), values)| (name, vector(values))));
        let train_step = |dialect| graph::train_step(dialect, Precision::F32, &spec, &loss_weights, Descent::PLAIN);
        let [portable, native] = [Dialect::Portable, Dialect::Native].map(|it| answer(train_step, it, &inputs).0);
        let difference = largest_difference(&portable, &native);
        assert!(difference <= 2e-6, "{spec:?}: the training steps differ by {difference}");

        let mut inputs = photos_and_labels(&spec, random_batch(&spec, BATCH));
        inputs.push(("weights", vector(weights.clone())));
        let evaluation = |dialect| graph::evaluation(dialect, &spec);
        let [portable, native] = [Dialect::Portable, Dialect::Native].map(|it| answer(evaluation, it, &inputs));
        let difference = largest_difference(&portable.0, &native.0);
        assert!(difference <= 2e-6, "{spec:?}: the evaluations differ by {difference}");
        assert_eq!(portable.1, native.1);
        assert_eq!(portable.1.len(), BATCH * spec.label_map_rows() * spec.label_map_columns());

        let spec = spec.folded();
        let label_maps = |dialect| graph::label_maps(dialect, Precision::F32, &spec, &weights);
        let [portable, native] = [Dialect::Portable, Dialect::Native].map(|it| answer(label_maps, it, &inputs[..1]));
        assert_eq!(portable.1, native.1);
        assert!(portable.1.iter().any(|&label| label != portable.1[0]), "the maps are of more than one category");
    }
}

/// Predictions for a photo that fills the canvas and for its mirror image are each other's mirror images.
#[test]
fn with_mirror_predictions_are_symmetric() {
    if library().is_none() {
        return;
    }
    let spec =
        Spec { presence: true, logit_scale: 2, stride: 2, channels: vec![16, 24], ..Spec::seed(72, 92, Loss::Softmax) };
    let turned = |lines: &[u8], pixel: usize, width: usize| -> Vec<u8> {
        lines.chunks_exact(width * pixel).flat_map(|line| line.chunks_exact(pixel).rev().flatten().copied()).collect()
    };
    let weights = parameters::initial_weights(&spec, 3);
    let Batch { photos, size, .. } = random_batch(&spec, BATCH);
    for (mirror, dialect) in [false, true].into_iter().flat_map(|it| [(it, Dialect::Portable), (it, Dialect::Native)]) {
        let spec = Spec { mirror, ..spec.clone() };
        let label_maps = |photos: Vec<u8>| {
            let photos = Tensor::from_array(([size, spec.rows(), spec.columns(), 3], photos)).expect("a tensor");
            let model = |dialect| graph::label_maps(dialect, Precision::F32, &spec, &weights);
            answer(model, dialect, &[("photos", photos.into_dyn())]).1
        };
        let maps = label_maps(photos.clone());
        let of_mirrored = label_maps(turned(&photos, 3, spec.columns()));
        let alike = turned(&maps, 1, spec.columns()).iter().zip(&of_mirrored).filter(|(a, b)| a == b).count();
        let share = alike as f64 / maps.len() as f64;
        assert!(if mirror { share > 0.9999 } else { share < 0.99 }, "{dialect:?}, mirror {mirror}: {share}");
    }
}

/// Pixels without a label: both dialects leave them out, in the cross-entropy and in the Dice term.
#[test]
fn pixels_without_a_label_teach_nothing() {
    if library().is_none() {
        return;
    }
    let spec = Spec { channels: vec![8, 16], stride: 2, batch_norm: true, ..Spec::seed(32, 32, Loss::Softmax) };
    let states = |labels: &dyn Fn(usize) -> u8, categories: &[f32]| {
        let loss_weights =
            LossWeights { categories: Some(categories.to_vec()), dice: 1.0, smoothing: 0.0, presence: 0.0 };
        [Dialect::Portable, Dialect::Native].map(|dialect| {
            let task = Task { loss_weights: &loss_weights, ..Task::plain(&spec) };
            let state = parameters::initial_state(&spec, 1);
            let mut step = TrainingStep::new(task, BATCH, state, 0, Engine::cpu(dialect, 2)).expect("a session");
            let mut batch = random_batch(&spec, BATCH);
            batch.labels = (0..batch.labels.len()).map(labels).collect();
            let learnt = step.run(batch, Rates::plain(1e-3)).expect("it runs");
            (learnt.loss, step.state().expect("the state")[1].1.clone())
        })
    };
    let [half, even] = [0.5, 1.0].map(|rest| {
        let mut categories = [1.0; 23];
        categories[5..].fill(rest);
        categories
    });
    // A third of the pixels has none; nor do they all.
    for categories in [&half, &even] {
        let [portable, native] = states(&|at| if at % 3 == 0 { 255 } else { (at % 7) as u8 }, categories);
        assert!((portable.0 - native.0).abs() < 2e-6, "{} and {}", portable.0, native.0);
        let difference = largest_difference(&portable.1, &native.1);
        assert!(difference <= 2e-6, "first moments differ by {difference}");
        for (loss, moments) in states(&|_| 255, categories) {
            assert_eq!(loss, 0.0);
            assert!(moments.iter().all(|&it| it == 0.0), "nothing is learnt");
        }
    }
    // By hand: a category of weight 0 is left out of the cross-entropy alike, and without Dice nothing else counts.
    let mut without = even;
    without[22] = 0.0;
    let plain = |label: u8, categories: &[f32]| {
        let loss_weights =
            LossWeights { categories: Some(categories.to_vec()), dice: 0.0, smoothing: 0.0, presence: 0.0 };
        let task = Task { loss_weights: &loss_weights, ..Task::plain(&spec) };
        let state = parameters::initial_state(&spec, 1);
        let mut step = TrainingStep::new(task, BATCH, state, 0, Engine::cpu(Dialect::Portable, 2)).expect("a session");
        let mut batch = random_batch(&spec, BATCH);
        batch.labels = (0..batch.labels.len()).map(|at| if at % 2 == 0 { label } else { 3 }).collect();
        step.run(batch, Rates::plain(1e-3)).expect("it runs").loss
    };
    assert_eq!(plain(255, &even), plain(22, &without));
}

/// A step in parts is the whole step, where no statistics are taken over the parts.
#[test]
fn gradients_of_parts_add_up_to_those_of_the_batch() {
    if library().is_none() {
        return;
    }
    let spec = Spec::seed(40, 60, Loss::Softmax);
    for dialect in [Dialect::Portable, Dialect::Native] {
        let [whole, parts] = [5, 2].map(|micro_batch_size| {
            let task = Task { micro_batch_size, ..Task::plain(&spec) };
            let state = parameters::initial_state(&spec, 1);
            let mut step = TrainingStep::new(task, 5, state, 0, Engine::cpu(dialect, 2)).expect("a session");
            let run = |step: &mut TrainingStep| step.run(random_batch(&spec, 5), Rates::plain(1e-3)).expect("it runs");
            let losses = [run(&mut step).loss, run(&mut step).loss];
            (losses, step.state().expect("the state"))
        });
        let difference = largest_difference(&whole.0, &parts.0);
        assert!(difference <= 1e-5, "{dialect:?}: {:?} and {:?}", whole.0, parts.0);
        // A step of Adam is as large as its rate, whatever the gradient: weights tell less than moments.
        let difference = largest_difference(&whole.1[1].1, &parts.1[1].1);
        assert!(difference <= 1e-6, "{dialect:?}: first moments differ by {difference}");
    }
}

/// In half precision the gradient of every tensor points where that in single does, and is as long: whatever the loss,
/// over a batch in parts, and for a whole photo, over which f16 cannot add up. ONNX Runtime computes most f16 operators
/// in f32 on the CPU and leaves out casts between them: for f16 this checks types and scales, not its rounding.
#[test]
fn half_precision_learns_what_single_does() {
    if library().is_none() {
        return;
    }
    for (dialect, bounds) in [(Dialect::Portable, [0.98, 0.1]), (Dialect::Native, [0.95, 0.15])] {
        let engine = Engine::cpu(dialect, 2);
        if runtime::mixed_precision(dialect, engine) == Precision::F32 {
            crate::skip::skip("this processor has no AVX-512-BF16");
            continue;
        }
        let small = specs().map(|spec| (spec, BATCH, 1));
        let whole = (Spec::seed(400, 600, Loss::Bce), 1, usize::MAX);
        for (spec, size, micro_batch_size) in small.into_iter().chain([whole]) {
            let [single, half] =
                [false, true].map(|mixed| first_moment(&spec, engine, [size, micro_batch_size], mixed));
            assert!((single.0 - half.0).abs() < 1e-3 * single.0, "{spec:?}: {} and {}", single.0, half.0);
            assert_ne!(single.1, half.1, "half precision is another graph");
            same_direction(&spec, [&single.1, &half.1], bounds);
        }
    }
}

/// Loss and first moment, which is a tenth of the gradient, of one step from drawn weights.
fn first_moment(spec: &Spec, engine: Engine, [size, micro_batch_size]: [usize; 2], mixed: bool) -> (f32, Vec<f32>) {
    let categories = Some((0..23_u8).map(|category| 0.5 + f32::from(category) / 10.0).collect());
    let loss_weights = LossWeights { categories, dice: 1.0, smoothing: 0.2, presence: 0.3 };
    let task = Task { loss_weights: &loss_weights, micro_batch_size, mixed_precision: mixed, ..Task::plain(spec) };
    let mut step = TrainingStep::new(task, size, parameters::initial_state(spec, 2), 0, engine).expect("a session");
    let half = runtime::mixed_precision(step.backend().dialect, engine);
    assert_eq!(step.precision(), if mixed { half } else { Precision::F32 });
    let learnt = step.run(wavy_batch(spec, size), Rates::plain(1e-3)).expect("it runs");
    let (name, moment) = step.state().expect("the state").swap_remove(1);
    assert_eq!(name, "first_moment");
    (learnt.loss, moment)
}

/// That the gradients of each tensor have at least this cosine and lengths that differ by at most this share, and those of
/// all together a cosine of 0.99.
fn same_direction(spec: &Spec, [mut single, mut half]: [&[f32]; 2], [least, share]: [f64; 2]) {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosine = |[a, b]: [&[f32]; 2]| product(a, b) / (product(a, a) * product(b, b)).sqrt();
    let of_all = cosine([single, half]);
    assert!(of_all > 0.99, "{spec:?}: all: {of_all}");
    for parameter in parameters::parameters(spec) {
        let of_tensor = [&mut single, &mut half].map(|rest| rest.split_off(..parameter.len()).expect("it is there"));
        let (cosine, name) = (cosine(of_tensor), &parameter.name);
        assert!(cosine > least, "{spec:?}: {name}: {cosine}");
        let [single, half] = of_tensor.map(|it| product(it, it).sqrt());
        assert!((single / half - 1.0).abs() < share, "{spec:?}: {name}: {single} and {half}");
    }
}

/// What is folded answers as the normalised network would, given the statistics of the batch.
#[test]
fn a_folded_network_is_the_normalised_one() {
    if library().is_none() {
        return;
    }
    let [_, _, spec, _, _] = specs();
    let batch = || random_batch(&spec, 1);
    let mut state = parameters::initial_state(&spec, 3);
    for (at, weight) in state[0].iter_mut().enumerate() {
        *weight += 0.05 * (at as f32).sin();
    }
    let engine = Engine::cpu(Dialect::Native, 2);
    let mut step = TrainingStep::new(Task::plain(&spec), 1, state, 0, engine).expect("a session");
    // A rate of next to nothing: the loss is that of the weights, and statistics and average are the batch's own.
    let rates = Rates::plain(1e-20);
    let learnt = step.run(batch(), rates).expect("it runs");
    let weights = vector(step.folded_weights().expect("the weights"));
    let mut evaluator = Evaluator::new(&spec, engine).expect("a session");
    let Batch { photos, labels, .. } = batch();
    let answer = evaluator.run(photos, labels, &weights).expect("the network runs");
    // The loss of a step is over the whole canvas, that of an evaluation over the photo.
    assert!((answer.loss - learnt.loss).abs() < 0.02 * learnt.loss, "{} and {}", answer.loss, learnt.loss);
    let canvas = Spec { photo_width_px: spec.columns(), photo_height_px: spec.rows(), ..spec.clone() };
    let mut evaluator = Evaluator::new(&canvas, engine).expect("a session");
    let Batch { photos, labels, .. } = batch();
    let answer = evaluator.run(photos, labels, &weights).expect("the network runs");
    assert!((answer.loss - learnt.loss).abs() < 1e-5, "{} and {}", answer.loss, learnt.loss);
}

/// On real photos both dialects learn the same: the losses of an epoch agree within 1e-4.
#[test]
fn both_dialects_learn_the_same_from_real_photos() {
    let (Some(source), Some(_)) = (shared("data/ccp"), library()) else { return };
    let place = tempfile::tempdir().expect("a folder");
    let output = place.path().join("dataset");
    let config = convert::Config { source, output: output.clone(), ..convert::Config::default() };
    convert::run(&config, &Common::default()).expect("the data set is converted").published().expect("it is published");
    let dataset = Dataset::open(&output).expect("it opens");
    let spec = Spec::seed(100, 150, Loss::Bce);
    let examples = Examples::load(&dataset, Split::Train, &spec).expect("the examples load");
    assert!(examples.len() > 30);
    let [portable, native] = [Dialect::Portable, Dialect::Native].map(|dialect| {
        let (task, state) = (Task::plain(&spec), parameters::initial_state(&spec, 0));
        let mut step = TrainingStep::new(task, 2, state, 0, Engine::cpu(dialect, 2)).expect("a session");
        let ids: Vec<usize> = (0..examples.len()).collect();
        let batches =
            ids.chunks(2).map(|ids| examples.batch(&ids.iter().map(|&id| (id, Change::NONE)).collect::<Vec<_>>()));
        batches.map(|batch| step.run(batch, Rates::plain(1e-3)).expect("the step runs").loss).collect::<Vec<f32>>()
    });
    let difference = largest_difference(&portable, &native);
    assert!(difference <= 1e-4, "the losses differ by {difference}: {portable:?} and {native:?}");
    assert!(portable.last() < portable.first(), "something is learnt");
}

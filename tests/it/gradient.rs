//! Gradients against answers worked out by hand.

use ort::value::Tensor;

use crate::shared::library;
use lookbook::engine::Engine;
use lookbook::graph::Dialect;
use lookbook::graph::builder::{Builder, Dim};
use lookbook::graph::onnx::FLOAT;
use lookbook::runtime;

/// Keras gives the gradient of a window to its first maximum alone, in row order, also where all four are equal.
#[test]
fn max_pool_gives_the_gradient_to_the_first_maximum() {
    if library().is_none() {
        return;
    }
    let mut builder = Builder::default();
    let dims = [Dim::Batch, Dim::Fixed(1), Dim::Fixed(4), Dim::Fixed(4)];
    let x = builder.input("x", FLOAT, &dims);
    let dy = builder.input("dy", FLOAT, &[Dim::Batch, Dim::Fixed(1), Dim::Fixed(2), Dim::Fixed(2)]);
    let y = builder.max_pool(&x, 1);
    let gradients = builder.gradients([(y, dy)].into(), std::slice::from_ref(&x));
    builder.output("dx", &gradients[&x], FLOAT, &dims);
    let model = builder.finish("max_pool", "", &[]);

    #[rustfmt::skip]
    let x = vec![
        0.0, 0.0,  1.0, 2.0,
        0.0, 0.0,  2.0, 2.0,
        3.0, 1.0,  5.0, 6.0,
        3.0, 4.0,  7.0, 7.0_f32,
    ];
    #[rustfmt::skip]
    let expected = [
        1.0, 0.0,  0.0, 2.0,
        0.0, 0.0,  0.0, 0.0,
        0.0, 0.0,  0.0, 0.0,
        0.0, 3.0,  4.0, 0.0_f32,
    ];
    let (mut session, _) = runtime::session("max_pool", |_| model.clone(), Engine::cpu(Dialect::Portable, 1)).unwrap();
    let x = Tensor::from_array(([1, 1, 4, 4], x)).unwrap();
    let dy = Tensor::from_array(([1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0_f32])).unwrap();
    let outputs = session.run(ort::inputs! { "x" => x, "dy" => dy }).unwrap();
    let (_, dx) = outputs["dx"].try_extract_tensor::<f32>().unwrap();
    assert_eq!(dx, expected);
}

//! A prediction by tract: of lookbook's `predict.onnx`.

use std::path::Path;

use tract_onnx::prelude::*;

use crate::inputs::Inputs;
use crate::{Answer, Result};

/// A round: photos to label maps.
pub fn round(inputs: &Inputs, folder: &Path, threads: usize) -> Result<impl FnMut() -> Result<Answer>> {
    tract_linalg::multithread::set_default_executor(tract_linalg::multithread::Executor::multithread(threads));
    let [batch, rows, columns] = inputs.size;
    let shape = [batch, rows, columns, 3];
    let model = tract_onnx::onnx()
        .model_for_path(folder.join("predict.onnx"))?
        .with_input_fact(0, u8::fact(shape).into())?
        .into_optimized()?
        .into_runnable()?;
    let photos = Tensor::from_shape(&shape, &inputs.photos)?;
    Ok(move || {
        let maps = model.run(tvec!(photos.clone().into()))?;
        Ok(Answer::Maps(maps[0].try_as_plain_ram()?.as_slice::<u8>()?.to_vec()))
    })
}

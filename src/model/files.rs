//! File names in a model folder, and the identity of a model.

use crate::files;

/// File name of the training step's graph.
pub const TRAIN_STEP_FILE: &str = "train_step.onnx";

/// File name of the inference network.
pub const PREDICT_FILE: &str = "predict.onnx";

/// File name of the weights by name.
pub const WEIGHTS_FILE: &str = "weights.safetensors";

/// File name of the ranges of maps for 8-bit integers.
pub const INT8_FILE: &str = "int8.json";

/// File name of the training history.
pub const HISTORY_FILE: &str = "history.parquet";

/// File name of the training history for spreadsheets.
pub const LOSS_FILE: &str = "loss.csv";
/// File name of the model card.
pub const MODEL_CARD_FILE: &str = "model.json";

/// File name of the data licence.
pub const DATA_LICENSE_FILE: &str = "DATA_LICENSE";

/// File name of the licence of the pretrained encoder.
pub const ENCODER_LICENSE_FILE: &str = "ENCODER_LICENSE";

/// Identity of a `predict.onnx`: the first 16 hexadecimal digits of its SHA-256.
#[must_use]
pub fn id_of(predict: &[u8]) -> String {
    files::digest_of(predict)[..16].to_owned()
}

//! The U-Net as ONNX graphs.

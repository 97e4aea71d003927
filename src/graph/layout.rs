//! Inputs and outputs of a network's graphs: their shapes, and the nodes that rearrange photos and label maps.

use std::collections::HashMap;

use super::builder::{Builder, Dim, Value};
use super::onnx::Attribute;
use super::spec::Spec;

/// Weight and bias of a layer.
pub(super) fn tensors<'a>(weights: &'a HashMap<String, Value>, layer: &str) -> [&'a Value; 2] {
    ["weight", "bias"].map(|kind| &weights[&format!("{layer}.{kind}")])
}

impl Spec {
    pub(super) fn photo_dims(&self) -> [Dim; 4] {
        [Dim::Batch, Dim::Fixed(self.rows()), Dim::Fixed(self.columns()), Dim::Fixed(3)]
    }

    pub(super) fn label_map_dims(&self) -> [Dim; 3] {
        [Dim::Batch, Dim::Fixed(self.label_map_rows()), Dim::Fixed(self.label_map_columns())]
    }

    pub(super) fn label_dims(&self) -> [Dim; 3] {
        [Dim::Batch, Dim::Fixed(self.map_rows()), Dim::Fixed(self.map_columns())]
    }

    /// The part of `[batch, any, map rows, map columns]` that belongs to the photo.
    pub(super) fn real_part(&self, builder: &mut Builder, x: &Value) -> Value {
        let part = self.photo_part();
        if part == [self.map_rows(), self.map_columns()] {
            return x.clone();
        }
        builder.slice(x, &[0, 0], &part.map(|end| end as i64), &[2, 3], &[1, 1])
    }

    /// u8 photos with the pixels of each square side by side as channels, `[batch, map rows, map columns, 3 stride^2]`.
    pub(super) fn gather(&self, builder: &mut Builder, photos: &Value) -> Value {
        if self.stride == 1 {
            return photos.clone();
        }
        builder.scope("input");
        let [rows, columns, stride] = [self.map_rows(), self.map_columns(), self.stride].map(|it| it as i64);
        let squares = builder.reshape(photos, &[0, rows, stride, columns, 3 * stride]);
        let squares = builder.transpose(&squares, &[0, 1, 3, 2, 4]);
        builder.reshape(&squares, &[0, rows, columns, 3 * stride * stride])
    }

    /// Whether label maps have the size of the maps, and are enlarged to that of the photos.
    pub(super) fn enlarges_labels(&self) -> bool {
        self.stride > 1 && self.logit_scale == 1
    }

    /// Enlarges a label map from the size of the maps to that of the photos if [`Self::enlarges_labels`].
    pub(super) fn enlarge(&self, builder: &mut Builder, label_map: &Value) -> Value {
        if !self.enlarges_labels() {
            return label_map.clone();
        }
        builder.scope("label_map");
        let [rows, columns, stride] = [self.map_rows(), self.map_columns(), self.stride].map(|it| it as i64);
        let squares = builder.reshape(label_map, &[0, rows, 1, columns, 1]);
        let times = builder.integers(&[1, 1, stride, 1, stride]);
        let squares = builder.node("Expand", &[&squares, &times], vec![]);
        builder.reshape(&squares, &[0, stride * rows, stride * columns])
    }

    /// Logits, `[batch, maps, map rows, map columns]`, enlarged by bilinear interpolation between the centres of pixels.
    pub(super) fn enlarge_logits(&self, builder: &mut Builder, logits: &Value) -> Value {
        if self.logit_scale == 1 {
            return logits.clone();
        }
        let scale = self.logit_scale as f32;
        let (region, scales) = (builder.floats(&[]), builder.floats(&[1.0, 1.0, scale, scale]));
        let attributes = [("mode", "linear"), ("coordinate_transformation_mode", "half_pixel")];
        let attributes = attributes.map(|(name, value)| Attribute::string(name, value)).to_vec();
        builder.node("Resize", &[logits, &region, &scales], attributes)
    }
}

//! Predictions from photos and their mirror images: the mean of both logits. Mirrored photos are as likely as the photos
//! themselves, so the errors of the two are partly independent.

use super::builder::{Builder, Value};
use super::spec::Spec;

impl Spec {
    /// u8 photos, `[batch, rows, columns, 3]`, each followed by its mirror image: `[2 batch, rows, columns, 3]`. Without
    /// [`mirror`](Self::mirror) as they are.
    pub(super) fn with_mirror_images(&self, builder: &mut Builder, photos: &Value) -> Value {
        if !self.mirror {
            return photos.clone();
        }
        builder.scope("mirror");
        let mirrored = turned(builder, photos, 2);
        let below = builder.concat(&[photos, &mirrored], 1);
        let [rows, columns] = [self.rows(), self.columns()].map(|it| it as i64);
        builder.reshape(&below, &[-1, rows, columns, 3])
    }

    /// The mean of what was computed from each photo and from its mirror image, `[2 batch, dims]`: `[batch, dims]`.
    /// `columns` is the axis among `dims` along which maps of the latter are turned back. Without
    /// [`mirror`](Self::mirror) as it is.
    pub(super) fn mean_with_mirror_images(
        &self,
        builder: &mut Builder,
        x: &Value,
        dims: &[usize],
        columns: Option<usize>,
    ) -> Value {
        if !self.mirror {
            return x.clone();
        }
        builder.scope("mirror");
        let dims: Vec<i64> = dims.iter().map(|&it| it as i64).collect();
        let pairs = builder.reshape(x, &[&[-1, 2], &dims[..]].concat());
        let [own, mirrored] = <[Value; 2]>::try_from(builder.split(&pairs, &[1, 1], 1)).expect("there are 2");
        let mirrored = columns.map_or_else(|| mirrored.clone(), |axis| turned(builder, &mirrored, axis as i64 + 2));
        let sum = builder.node("Add", &[&own, &mirrored], vec![]);
        let half = builder.scalar(0.5);
        let mean = builder.node("Mul", &[&sum, &half], vec![]);
        builder.reshape(&mean, &[&[-1], &dims[..]].concat())
    }
}

/// `x` in the opposite order along an axis.
fn turned(builder: &mut Builder, x: &Value, axis: i64) -> Value {
    builder.slice(x, &[-1], &[i64::MIN], &[axis], &[-1])
}

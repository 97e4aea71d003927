//! A model whose answer is known: it sees one category in every pixel.

use std::path::Path;

use lookbook::color::{self, ColorTable};
use lookbook::graph::{self, Loss, Spec, parameters};

/// Writes a model folder; the network answers `category` everywhere, colours are the typical ones.
pub(crate) fn write_flat_model(folder: &Path, category: usize) {
    let spec = Spec::seed(48, 64, Loss::Bce);
    let mut weights = vec![0.0; parameters::SEED_PARAMETER_COUNT];
    let last = parameters::parameters(&spec).last().unwrap().len();
    weights[parameters::SEED_PARAMETER_COUNT - last + category] = 4.0;
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("predict.onnx"), graph::predict(&spec, &weights)).unwrap();
    ColorTable::typical(&lookbook::labels::LabelSet::cfpd()).write(&folder.join(color::FILE)).unwrap();
}

/// A JPEG of vertical stripes of equal width in the typical values of colours (ids of [`lookbook::labels::COLORS`]).
pub(crate) fn striped_jpeg(width: u32, height: u32, colors: &[u8]) -> Vec<u8> {
    let color = |x: u32| colors[(x * colors.len() as u32 / width) as usize];
    let picture =
        image::RgbImage::from_fn(width, height, |x, _| image::Rgb(lookbook::labels::COLOR_RGB[usize::from(color(x))]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

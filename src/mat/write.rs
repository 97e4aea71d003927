//! Writes `fashon_parsing_data.mat` in the layout of the original.

use std::path::Path;

use hdf5_pure::{AttrValue, DatasetBuilder, FileBuilder};

use super::Annotation;
use crate::error::{Error, Result};
use crate::labels::{CATEGORIES, COLORS};

/// Length of the label vectors, whatever the number of superpixels.
const LABELS: usize = 425;

/// Writes the file.
///
/// # Errors
/// [`Error::Io`].
pub fn write_cfpd(path: &Path, entries: &[Annotation]) -> Result<()> {
    let mut file = FileBuilder::new();
    file.with_userblock(512);
    file.with_userblock_content(&user_block());
    let mut refs = file.create_group("#refs#");
    for (list, name) in [(CATEGORIES.as_slice(), "category"), (COLORS.as_slice(), "color")] {
        for (id, text) in list.iter().enumerate() {
            char_array(refs.create_dataset(&format!("{name}{id}")), text);
        }
    }
    for (index, entry) in entries.iter().enumerate() {
        let mut photo = refs.create_group(&format!("photo{index}"));
        photo.set_attr("MATLAB_class", AttrValue::AsciiString("struct".to_owned()));
        char_array(photo.create_dataset("img_name"), &entry.file_name);
        let colors = entry.superpixel_color.as_deref().unwrap_or_default();
        for (field, labels) in [("category_label", entry.superpixel_category.as_slice()), ("color_label", colors)] {
            let mut values = vec![1.0; LABELS];
            for (value, &label) in values.iter_mut().zip(labels) {
                *value = f64::from(label) + 1.0;
            }
            let set = photo.create_dataset(field).with_f64_data(&values).with_shape(&[1, LABELS as u64]);
            set.set_attr("MATLAB_class", AttrValue::AsciiString("double".to_owned()));
        }
        let (width, height) = (entry.width_px as usize, entry.height_px as usize);
        let columns: Vec<f32> =
            (0..width * height).map(|i| f32::from(entry.superpixels[i % height * width + i / height])).collect();
        let set = photo.create_dataset("segmentation").with_f32_data(&columns);
        set.with_shape(&[width as u64, height as u64]).with_chunks(&[50, 75]).with_deflate(3);
        set.set_attr("MATLAB_class", AttrValue::AsciiString("single".to_owned()));
        refs.add_group(photo.finish());
    }
    file.add_group(refs.finish());
    let names = |name: &str, count| (0..count).map(|id| format!("#refs#/{name}{id}")).collect::<Vec<_>>();
    cell(&mut file, "all_category_name", &names("category", CATEGORIES.len()), [1, CATEGORIES.len() as u64]);
    cell(&mut file, "all_colors_name", &names("color", COLORS.len()), [1, COLORS.len() as u64]);
    cell(&mut file, "fashion_dataset", &names("photo", entries.len()), [entries.len() as u64, 1]);
    let bytes = file.finish().map_err(|cause| Error::io("write", path)(std::io::Error::other(cause)))?;
    std::fs::write(path, bytes).map_err(Error::io("write", path))
}

fn user_block() -> Vec<u8> {
    let text = "MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 1970 HDF5 schema 1.00 .";
    let mut block = format!("{text:116}").into_bytes();
    block.extend([0; 8]);
    block.extend([0x00, 0x02, b'I', b'M']);
    block
}

fn char_array(set: &mut DatasetBuilder, text: &str) {
    let units: Vec<u16> = text.encode_utf16().collect();
    set.with_u16_data(&units).with_shape(&[units.len() as u64, 1]);
    set.set_attr("MATLAB_class", AttrValue::AsciiString("char".to_owned()));
    set.set_attr("MATLAB_int_decode", AttrValue::I32(2));
}

fn cell(file: &mut FileBuilder, name: &str, targets: &[String], shape: [u64; 2]) {
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let set = file.create_dataset(name).with_path_references(&targets).with_shape(&shape);
    set.set_attr("MATLAB_class", AttrValue::AsciiString("cell".to_owned()));
}

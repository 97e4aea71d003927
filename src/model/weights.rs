//! Weights as named tensors in the safetensors format.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::{Error, Result};
use crate::files;
use crate::graph::{SPEC_KEY, Spec, WEIGHTS, parameters};

/// Writes `weights.safetensors`: the named tensors, with the network's specification in the metadata.
///
/// # Errors
/// [`Error::Io`].
pub fn write_weights(path: &Path, spec: &Spec, weights: &[f32]) -> Result<()> {
    let metadata = HashMap::from([(SPEC_KEY.to_owned(), spec_text(spec))]);
    files::write(path, &pack(spec, &[(WEIGHTS, weights)], metadata)?)
}

/// Reads `weights.safetensors`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Input`] if it is damaged or does not fit its network.
pub fn read_weights(path: &Path) -> Result<(Spec, Vec<f32>)> {
    let bad = |problem: String| Error::input(path, format!("{problem}; train the model again"));
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|cause| bad(format!("is damaged ({cause})")))?;
    let spec = header
        .metadata()
        .as_ref()
        .and_then(|it| it.get(SPEC_KEY))
        .ok_or_else(|| bad(format!("is not a lookbook model: it has no metadata '{SPEC_KEY}'")))?;
    let spec = Spec::parse(spec).map_err(bad)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|cause| bad(format!("is damaged ({cause})")))?;
    let weights = vector(&spec, &tensors, WEIGHTS).map_err(bad)?;
    parameters::check_finite(&spec, &weights).map_err(bad)?;
    Ok((spec, weights))
}

/// Prefix of the names of a vector's tensors in a file.
fn prefix(name: &str) -> String {
    if name == WEIGHTS { String::new() } else { format!("{name}/") }
}

/// Assembles a state vector from its tensors, which are either one per parameter or a single one; `Err` says what is
/// wrong.
pub(crate) fn vector(spec: &Spec, tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, String> {
    let floats = |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|&it| f32::from_le_bytes(it)).collect() };
    if let Some(whole) = tensors.tensor(name).ok().filter(|it| it.dtype() == Dtype::F32 && it.shape().len() == 1) {
        let expected = spec.state().into_iter().find(|(vector, _)| *vector == name).map(|(_, len)| len);
        let found = floats(whole.data());
        return match expected.filter(|&len| len != found.len()) {
            Some(len) => Err(format!("its vector '{name}' has {} numbers instead of {len}", found.len())),
            None => Ok(found),
        };
    }
    let mut values = Vec::with_capacity(parameters::parameter_count(spec));
    for parameter in parameters::parameters(spec) {
        let name = prefix(name) + &parameter.name;
        let tensor = tensors.tensor(&name).ok().filter(|it| it.dtype() == Dtype::F32 && it.shape() == parameter.dims);
        let tensor = tensor.ok_or_else(|| format!("it has no tensor '{name}' of shape {:?} f32", parameter.dims))?;
        values.extend(floats(tensor.data()));
    }
    Ok(values)
}

/// Serializes flat vectors as named tensors: one per parameter, or a single one if the vector's length is not the
/// number of parameters.
pub(crate) fn pack(spec: &Spec, vectors: &[(&str, &[f32])], metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for (name, values) in vectors {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        if values.len() != parameters::parameter_count(spec) {
            tensors.push(((*name).to_owned(), vec![values.len()], bytes));
            continue;
        }
        let mut start = 0;
        for parameter in parameters::parameters(spec) {
            let end = start + 4 * parameter.len();
            tensors.push((prefix(name) + &parameter.name, parameter.dims, bytes[start..end].to_vec()));
            start = end;
        }
    }
    let views = tensors.iter().map(|(name, dims, bytes)| {
        let view = TensorView::new(Dtype::F32, dims.clone(), bytes).expect("the bytes fit the shape");
        (name.as_str(), view)
    });
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|cause| Error::runtime("weights", cause))?;
    Ok(with_sorted_header(bytes))
}

/// The same file with the entries of its header in order of name: the crate writes metadata in the random order of a
/// hash map, and equal weights are to be equal bytes. The header is JSON after its length,
/// <https://github.com/huggingface/safetensors>.
fn with_sorted_header(mut bytes: Vec<u8>) -> Vec<u8> {
    type Entries = BTreeMap<String, BTreeMap<String, serde_json::Value>>;
    let length: [u8; 8] = bytes[..8].try_into().expect("eight bytes");
    let header = &mut bytes[8..8 + u64::from_le_bytes(length) as usize];
    let entries: Entries = serde_json::from_slice(header).expect("the crate writes a header that it can read");
    let sorted = serde_json::to_vec(&entries).expect("it was JSON");
    header[..sorted.len()].copy_from_slice(&sorted);
    header[sorted.len()..].fill(b' ');
    bytes
}

pub(crate) fn spec_text(spec: &Spec) -> String {
    serde_json::to_string(spec).expect("a spec is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Loss;

    fn spec() -> Spec {
        Spec::seed(32, 48, Loss::Softmax)
    }

    #[test]
    fn weights_come_back_as_they_went() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join("weights.safetensors");
        let weights = parameters::initial_weights(&spec(), 3);
        write_weights(&path, &spec(), &weights).expect("written");
        assert_eq!(read_weights(&path).expect("read"), (spec(), weights));
    }

    #[test]
    fn a_damaged_or_foreign_file_is_named() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join("weights.safetensors");
        write_weights(&path, &spec(), &parameters::initial_weights(&spec(), 3)).expect("written");
        let whole = fs::read(&path).expect("readable");
        for bad in [&whole[..whole.len() / 2], &whole[..4], b"<html></html>", b""] {
            fs::write(&path, bad).expect("writable");
            let error = read_weights(&path).expect_err("the file is bad");
            assert!(error.to_string().contains("weights.safetensors"), "{error}");
        }
    }
}

//! Weights that an ONNX file keeps in files beside it ("external data"): exporters write them for large networks, some for
//! all.
//!
//! Field numbers are those of `onnx.proto`; what is not named here is skipped and takes no memory.

use std::path::PathBuf;

use prost::Message;

/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<Entry>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// The files that weights of the network lie in, each once, with the first weight that does.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn files_of(network: &[u8]) -> Result<Vec<(PathBuf, String)>, String> {
    let model = Model::decode(network).map_err(|cause| format!("is not a whole ONNX file ({cause})"))?;
    let graph = model.graph.ok_or("is not an ONNX file: it has no graph")?;
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for tensor in graph.initializer.into_iter().filter(|it| it.data_location == EXTERNAL) {
        let location = tensor.external_data.iter().find(|it| it.key == "location");
        let location = location.map(|it| PathBuf::from(&it.value)).unwrap_or_default();
        if !files.iter().any(|(file, _)| *file == location) {
            files.push((location, tensor.name));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_once_with_their_first_weight() {
        let tensor = |name: &str, location: Option<&str>| Tensor {
            name: name.to_owned(),
            data_location: location.map_or(0, |_| EXTERNAL),
            external_data: location.map(|it| Entry { key: "location".into(), value: it.into() }).into_iter().collect(),
        };
        let initializer =
            vec![tensor("a", None), tensor("b", Some("w")), tensor("c", Some("w")), tensor("d", Some(""))];
        let network = Model { graph: Some(Graph { initializer }) }.encode_to_vec();
        assert_eq!(files_of(&network), Ok(vec![("w".into(), "b".into()), ("".into(), "d".into())]));
        assert!(files_of(&network[..network.len() - 3]).expect_err("cut off").contains("whole ONNX file"));
        assert!(files_of(b"").expect_err("empty").contains("no graph"));
    }
}

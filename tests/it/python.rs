//! Python beside the program: the exported graphs in its ONNX Runtime, the tables in its engines.

use std::path::{Path, PathBuf};
use std::process::Command;

use ort::value::Tensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView};

use lookbook::engine::Engine;
use lookbook::graph::{self, Descent, Dialect, Loss, LossWeights, Precision, Spec, parameters};
use lookbook::runtime;
use lookbook::train::examples::Batch;
use lookbook::train::step::{Rates, Task, TrainingStep};

const STEPS: usize = 3;
const BATCH: usize = 2;

/// Python with the packages that `scripts/install_python_packages.sh` put beside the code; `None`, said aloud, without.
pub(crate) fn python() -> Option<Command> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join(".python");
    if !packages.exists() {
        crate::shared::not_installed(&format!(
            "there is no {} (scripts/install_python_packages.sh makes it)",
            packages.display()
        ));
        return None;
    }
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages);
    Some(command)
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|it| it.to_le_bytes()).collect()
}

#[test]
fn exported_graphs_give_the_same_numbers_in_python() {
    let Some(mut python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec::seed(40, 60, Loss::Softmax);
    let pixels = spec.rows() * spec.columns();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut photos = vec![0; STEPS * BATCH * pixels * 3];
    rng.fill_bytes(&mut photos);
    let labels: Vec<u8> = photos.chunks_exact(3).map(|pixel| pixel[0] % 23).collect();

    let engine = Engine::cpu(Dialect::Portable, 2);
    let model = graph::train_step(Dialect::Portable, Precision::F32, &spec, &LossWeights::PLAIN, Descent::PLAIN);
    let weights = parameters::initial_weights(&spec, 5);
    let state = parameters::initial_state(&spec, 5);
    let mut step = TrainingStep::new(Task::plain(&spec), BATCH, state, 0, engine).unwrap();
    let mut losses = Vec::new();
    for index in 0..STEPS {
        let of_step = |values: &[u8]| values[index * values.len() / STEPS..][..values.len() / STEPS].to_vec();
        let batch = Batch { photos: of_step(&photos), labels: of_step(&labels), size: BATCH };
        losses.push(step.run(batch, Rates::plain(1e-3)).unwrap().loss);
    }
    let trained = step.folded_weights().unwrap();
    let predict = graph::predict(&spec, &trained);
    let (mut session, _) = runtime::session("predict", |_| predict.clone(), engine).unwrap();
    let first = photos[..BATCH * pixels * 3].to_vec();
    let input = Tensor::from_array(([BATCH, spec.rows(), spec.columns(), 3], first)).unwrap();
    let outputs = session.run(ort::inputs! { "photos" => input }).unwrap();
    let (_, probabilities) = outputs["probabilities"].try_extract_tensor::<f32>().unwrap();

    let (rows, columns) = (spec.rows(), spec.columns());
    let tensors = [
        ("photos", Dtype::U8, vec![STEPS, BATCH, rows, columns, 3], photos),
        ("labels", Dtype::U8, vec![STEPS, BATCH, rows, columns], labels),
        ("weights", Dtype::F32, vec![weights.len()], floats(&weights)),
        ("losses", Dtype::F32, vec![STEPS], floats(&losses)),
        ("new_weights", Dtype::F32, vec![trained.len()], floats(&trained)),
        ("probabilities", Dtype::F32, vec![BATCH, 23, rows, columns], floats(probabilities)),
    ];
    let views =
        tensors.iter().map(|(name, dtype, dims, bytes)| (*name, TensorView::new(*dtype, dims.clone(), bytes).unwrap()));
    std::fs::write(folder.path().join("steps.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    std::fs::write(folder.path().join("train_step.onnx"), model).unwrap();
    std::fs::write(folder.path().join("predict.onnx"), predict).unwrap();

    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/onnx_in_python.py");
    let output = python.arg(script).arg(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    println!("{text}");
}

/// Whether Python has the engines that read tables; said aloud if not.
pub(crate) fn has_engines() -> bool {
    let has = Path::new(env!("CARGO_MANIFEST_DIR")).join(".python/duckdb").exists();
    if !has {
        crate::shared::not_installed("there is no DuckDB in .python (scripts/install_python_packages.sh gets it)");
    }
    has
}

/// Runs commands of the program in `place`.
fn lookbook(place: &Path, commands: &[&[&str]]) {
    for arguments in commands {
        let mut program = Command::new(env!("CARGO_BIN_EXE_lookbook"));
        let output = program.env_clear().current_dir(place).args(*arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Reads a features folder in each way that docs/tables.md names, and prints the ids that each finds.
const READ_FEATURES: &str = r#"
import glob, duckdb, pandas, polars, pyarrow.dataset
plain = "output/features/*.parquet"
print("polars", sorted(polars.read_parquet(plain)["photo_id"]))
print("polars scan", sorted(polars.scan_parquet(plain).collect()["photo_id"]))
print("pandas", sorted(pandas.concat(map(pandas.read_parquet, glob.glob(plain)))["photo_id"]))
print("duckdb", sorted(row[0] for row in duckdb.sql(f"SELECT photo_id FROM '{plain}'").fetchall()))
folder = pyarrow.dataset.dataset("output/features", exclude_invalid_files=True)
print("pyarrow", sorted(folder.to_table()["photo_id"].to_pylist()))
"#;

#[test]
fn the_plain_glob_of_a_features_folder_gives_the_rows_alone() {
    let Some(mut python) = python() else { return };
    if !has_engines() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    // The second time with fewer photos: the rows of the others are kept as vanished.
    for photos in ["12", "10"] {
        lookbook(
            place.path(),
            &[
                &["sample", "--photos", photos, "--output", "output/sample"],
                &["convert", "--source", "output/sample", "--output", "output/dataset"],
                &["segment", "--from", "labels", "--format", "arrow"],
            ],
        );
    }
    let features = place.path().join("output/features");
    assert!(
        features.join("_state/vanished/part-00000.parquet").is_file() && features.join("part-00000.arrow").is_file()
    );
    let output = python.current_dir(place.path()).args(["-c", READ_FEATURES]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = ["polars", "polars scan", "pandas", "duckdb", "pyarrow"]
        .map(|it| format!("{it} {:?}\n", (0..10).collect::<Vec<_>>()));
    assert_eq!(text, rows.concat());
}

/// Writes a part of the features again with a compression.
const REWRITE_FEATURES: &str = r#"
import sys, pyarrow.parquet
part = "output/features/part-00000.parquet"
pyarrow.parquet.write_table(pyarrow.parquet.read_table(part), part, compression=sys.argv[1])
"#;

#[test]
fn tables_that_were_written_with_another_compression_are_read_or_refused_by_its_name() {
    if python().is_none() || !has_engines() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    lookbook(
        place.path(),
        &[
            &["sample", "--photos", "10", "--output", "output/sample"],
            &["convert", "--source", "output/sample", "--output", "output/dataset"],
            &["segment", "--from", "labels"],
        ],
    );
    for (compression, answer) in [("snappy", None), ("gzip", Some("holds 'photo_id' compressed with GZIP"))] {
        let mut rewrite = python().unwrap();
        assert!(
            rewrite.current_dir(place.path()).args(["-c", REWRITE_FEATURES, compression]).status().unwrap().success()
        );
        let mut similarity = Command::new(env!("CARGO_BIN_EXE_lookbook"));
        let ran = similarity.env_clear().current_dir(place.path()).arg("similarity").output().unwrap();
        let error = String::from_utf8_lossy(&ran.stderr);
        match answer {
            None => assert!(ran.status.success(), "{error}"),
            Some(answer) => assert!(ran.status.code() == Some(1) && error.contains(answer), "{error}"),
        }
    }
}

#[test]
fn the_examples_of_the_tables_document_run() {
    let Some(mut python) = python() else { return };
    if !has_engines() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    lookbook(
        place.path(),
        &[
            &["sample", "--photos", "14", "--output", "output/sample"],
            &["convert", "--source", "output/sample", "--output", "output/dataset"],
            &["segment", "--from", "labels"],
            &["similarity"],
        ],
    );
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/table_queries.py");
    let output = python.arg(script).arg(place.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("dress_red") && text.contains(".jpg"), "{text}");
}

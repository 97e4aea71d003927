//! `segment`: catalogues of every kind, bad photos, labels and a model.

use std::fs;
use std::path::{Path, PathBuf};

use crate::model::{striped_jpeg, write_flat_model};
use crate::shared::library;
use lookbook::error::{Error, Result};
use lookbook::features::rows::Format;
use lookbook::features::{ColorRule, FeatureTable};
use lookbook::labels::{CELL_COUNT, LabelSet};
use lookbook::model::Model;
use lookbook::segment::{self, Config, LabelSource};
use lookbook::stage::{Common, Outcome};
use lookbook::{color, convert, dataset, files, table};

const T_SHIRT: usize = 1;

fn run(place: &Path, catalogue: &Path, change: impl FnOnce(&mut Config)) -> Result<Outcome> {
    let mut config = Config {
        catalogue: catalogue.to_owned(),
        model: place.join("model"),
        output: place.join("features"),
        max_reject_fraction: 1.0,
        ..Config::default()
    };
    change(&mut config);
    segment::run(&config, &Common::default())
}

/// A shop's photos: five good ones in two folders, four bad ones, and a file that is no photo by name.
fn write_shop(folder: &Path) {
    fs::create_dir_all(folder.join("b/.hidden")).unwrap();
    fs::create_dir_all(folder.join("a")).unwrap();
    for (name, colors) in [("b/2.jpg", &[10][..]), ("b/1.JPEG", &[2, 11]), ("a/9.jpg", &[3]), ("c.Jpg", &[10, 10, 6])] {
        fs::write(folder.join(name), striped_jpeg(40, 60, colors)).unwrap();
    }
    fs::write(folder.join("a/large.jpg"), striped_jpeg(1000, 900, &[12, 3])).unwrap();
    fs::write(folder.join("b/.hidden/x.jpg"), b"").unwrap();
    fs::write(folder.join("a/empty.jpg"), b"").unwrap();
    fs::write(folder.join("a/page.jpg"), b"<html>not found</html>").unwrap();
    fs::write(folder.join("cut.jpg"), &striped_jpeg(200, 300, &[2, 3, 4])[..900]).unwrap();
    fs::write(folder.join("notes.txt"), b"no photo").unwrap();
}

pub(crate) fn rejects(folder: &Path) -> Vec<(String, String)> {
    let path = folder.join("_state/rejects.parquet");
    let text = |rows: &arrow::array::RecordBatch, name: &str| -> Vec<String> {
        let column: &arrow::array::StringArray = table::column(&path, rows, name).unwrap();
        column.iter().map(|value| value.unwrap_or_default().to_owned()).collect()
    };
    let batches = table::read_table(&path, "rejects", &[], 1000).unwrap().map(|rows| rows.unwrap());
    batches.flat_map(|rows| text(&rows, "item").into_iter().zip(text(&rows, "reason"))).collect()
}

/// The cells of a row by name.
fn cells(table: &FeatureTable, row: usize) -> Vec<(String, f32)> {
    let named = table.labels.cell_names().iter().cloned().zip(table.row(row).iter().copied());
    named.filter(|(_, share)| *share > 0.0).collect()
}

#[test]
fn a_model_that_is_opened_is_one_version_whatever_is_published_meanwhile() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    let [folder, other] = ["model", "other"].map(|name| place.path().join(name));
    write_flat_model(&folder, T_SHIRT);
    write_flat_model(&other, T_SHIRT + 1);
    let other_colors = fs::read(other.join(color::FILE)).unwrap();
    let opened = Model::open(&folder)?;
    let (id, before) = (opened.id(), fs::read(folder.join(color::FILE)).unwrap());
    // As a training publishes: the network is of the new version, its colour table cannot even be read.
    fs::write(other.join(color::FILE), &other_colors[..100]).unwrap();
    fs::rename(&folder, place.path().join(".model.previous-1")).unwrap();
    fs::rename(&other, &folder).unwrap();
    let colors = opened.colors()?;
    assert_eq!(opened.checksums(&colors), [files::digest_of(opened.predict()?), files::digest_of(&before)]);
    assert_eq!(opened.id(), id);
    let now = Model::open(&folder)?;
    assert_ne!(now.id(), id);
    let problem = now.colors().expect_err("it is cut off").to_string();
    assert!(problem.contains("model/color_table.parquet"), "{problem}");
    Ok(())
}

#[test]
fn a_folder_of_photos_becomes_a_table_and_the_bad_ones_are_named() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    let shop = place.path().join("shop");
    write_shop(&shop);
    write_flat_model(&place.path().join("model"), T_SHIRT);
    let summary = run(place.path(), &shop, |config| config.keep_every_photos = 2)?.published().unwrap();
    assert_eq!((&summary.counts["photos"], &summary.counts["rejects"]), (&5.into(), &3.into()));
    assert_eq!(summary.execution_provider.as_deref(), Some("cpu"));

    let table = FeatureTable::open(&place.path().join("features"))?;
    assert_eq!(table.file_names, ["9.jpg", "large.jpg", "1.JPEG", "2.jpg", "c.Jpg"]);
    assert_eq!(table.photo_ids, [0, 2, 4, 5, 6], "ids follow the order of the files, the bad ones' are left out");
    assert_eq!(table.paths[0], shop.join("a/9.jpg").to_string_lossy());
    assert_eq!(table.apparel_px, [400 * 600, 400 * 360, 400 * 600, 400 * 600, 400 * 600]);
    let share = |row: usize, name: &str| cells(&table, row).iter().find(|it| it.0 == name).map_or(0.0, |it| it.1);
    assert_eq!(cells(&table, 0), [("Tshirt_blue".to_owned(), 1.0)]);
    // The tile on the edge between the two is named by its mean.
    assert!((share(1, "Tshirt_yellow") - 0.5).abs() < 0.05 && (share(1, "Tshirt_blue") - 0.5).abs() < 0.05);
    assert!((share(2, "Tshirt_black") - 0.5).abs() < 0.05 && (share(2, "Tshirt_white") - 0.5).abs() < 0.1);
    assert!((share(4, "Tshirt_red") - 2.0 / 3.0).abs() < 0.05);

    let reason = |name: &str, reason: &str| (shop.join(name).to_string_lossy().into_owned(), reason.to_owned());
    let expected = [
        reason("a/empty.jpg", "photo_empty"),
        reason("a/page.jpg", "photo_undecodable"),
        reason("cut.jpg", "photo_truncated"),
    ];
    assert_eq!(rejects(&place.path().join("features")), expected);
    Ok(())
}

#[test]
fn too_many_bad_photos_fail_after_the_good_ones_are_published() {
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let shop = place.path().join("shop");
    write_shop(&shop);
    write_flat_model(&place.path().join("model"), T_SHIRT);
    let outcome = run(place.path(), &shop, |config| config.max_reject_fraction = 0.2).unwrap();
    assert_eq!(outcome.exit_code(), 3, "three of eight are bad: {outcome}");
    assert!(outcome.to_string().contains("features/_state/rejects.parquet"), "{outcome}");
    assert_eq!(FeatureTable::open(&place.path().join("features")).unwrap().len(), 5);
}

#[test]
fn lists_give_their_own_ids_in_their_own_order() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    write_shop(&place.path().join("shop"));
    write_flat_model(&place.path().join("model"), T_SHIRT);
    let csv = place.path().join("list.csv");
    fs::write(&csv, "path,note,photo_id\n\"shop/c.Jpg\",\"red, green\",700\nshop/gone.jpg,,5\nshop/a/9.jpg,,12\n")
        .unwrap();
    run(place.path(), &csv, |_| {})?.published().expect("it is published");
    let by_csv = FeatureTable::open(&place.path().join("features"))?;
    assert_eq!(
        (by_csv.photo_ids.clone(), by_csv.file_names.clone()),
        (vec![700, 12], vec!["c.Jpg".to_owned(), "9.jpg".to_owned()])
    );
    assert_eq!(rejects(&place.path().join("features"))[0].1, "photo_missing");

    let list = place.path().join("list.parquet");
    write_list(&list, &[700, 5, 12], &["shop/c.Jpg", "shop/gone.jpg", "shop/a/9.jpg"]);
    run(place.path(), &list, |_| {})?.published().expect("it is published");
    assert_eq!(FeatureTable::open(&place.path().join("features"))?, by_csv);

    write_list(&list, &[3, 3], &["shop/c.Jpg", "shop/a/9.jpg"]);
    let twice = run(place.path(), &list, |_| {}).expect_err("an id comes twice");
    assert!(twice.to_string().contains("photo_id 3"), "{twice}");
    write_list(&list, &[-1], &["shop/c.Jpg"]);
    assert!(matches!(run(place.path(), &list, |_| {}), Err(Error::Input { .. })), "an id below 0");
    write_list_of(&list, std::sync::Arc::new(arrow::array::Float64Array::from(vec![1.5])), &["shop/c.Jpg"]);
    let no_number = run(place.path(), &list, |_| {}).expect_err("half an id");
    assert!(no_number.with_causes().contains("photo_id is not a column of integers"), "{no_number}");
    for bad in ["photo_id\n1\n", "photo_id,path\n1,a,b\n", "photo_id,path\nx,a.jpg\n", "", "photo_id,path\n"] {
        fs::write(&csv, bad).unwrap();
        let error = run(place.path(), &csv, |_| {}).expect_err("the list is bad");
        assert!(matches!(error, Error::Input { .. }) && error.to_string().contains("list.csv"), "{bad:?}: {error}");
    }
    Ok(())
}

/// A list as pandas writes them: 64-bit ids.
fn write_list(path: &Path, ids: &[i64], paths: &[&str]) {
    write_list_of(path, std::sync::Arc::new(arrow::array::Int64Array::from(ids.to_vec())), paths);
}

fn write_list_of(path: &Path, ids: arrow::array::ArrayRef, paths: &[&str]) {
    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    let paths: ArrayRef = std::sync::Arc::new(StringArray::from(paths.to_vec()));
    let columns = [("photo_id", ids), ("path", paths)];
    table::write_table(path, &RecordBatch::try_from_iter(columns).unwrap()).unwrap();
}

#[test]
fn arrow_files_hold_the_same_rows_as_the_parquet_files() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    let shop = place.path().join("shop");
    write_shop(&shop);
    write_flat_model(&place.path().join("model"), T_SHIRT);
    run(place.path(), &shop, |config| config.format = Format::Arrow)?.published().expect("it is published");
    let part = place.path().join("features/part-00000.parquet");
    let parquet = table::read_table(&part, "features", &[], 1000)?.next().unwrap()?;
    let file = fs::File::open(part.with_extension("arrow")).unwrap();
    let arrow = arrow::ipc::reader::FileReader::try_new(file, None).unwrap().next().unwrap().unwrap();
    assert_eq!(arrow.columns(), parquet.columns());
    assert_eq!(arrow.schema().metadata()["lookbook.schema_version"], table::SCHEMA_VERSION);
    Ok(())
}

fn converted(place: &Path, source: &Path) -> PathBuf {
    let output = place.join("dataset");
    let config = convert::Config { source: source.to_owned(), output: output.clone(), ..Default::default() };
    convert::run(&config, &Common::default()).unwrap().published().expect("it is published");
    output
}

#[test]
fn labels_are_counted_as_they_are() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    let dataset = converted(place.path(), Path::new("tests/data/cfpd_small"));
    for rule in [ColorRule::PerPixel, ColorRule::FirstPixel] {
        run(place.path(), &dataset, |config| {
            config.from = LabelSource::Labels;
            config.color_rule = rule;
            (config.min_share, config.min_region) = (0.0, 0.0);
        })?
        .published()
        .expect("it is published");
        let table = FeatureTable::open(&place.path().join("features"))?;
        let records = dataset::Dataset::open(&dataset)?.photos(None)?.collect::<Result<Vec<_>>>()?;
        assert!(!records.is_empty() && records.len() == table.len());
        for (row, record) in records.iter().enumerate() {
            let (categories, colors, labels) = (record.category_map(), record.color_map().unwrap(), LabelSet::cfpd());
            let worn = categories.iter().filter(|&&category| labels.is_apparel(category)).count();
            assert_eq!(table.apparel_px[row], worn as u64, "{}", record.file_name);
            let mut expected = vec![0.0; CELL_COUNT];
            for category in labels.apparel_categories().filter(|category| categories.contains(category)) {
                let (width, height) = (record.width_px as usize, record.height_px as usize);
                let column_major = (0..width).flat_map(|x| (0..height).map(move |y| y * width + x));
                let pixels: Vec<usize> = column_major.filter(|&pixel| categories[pixel] == category).collect();
                for &pixel in &pixels {
                    let color = colors[if rule == ColorRule::PerPixel { pixel } else { pixels[0] }];
                    if let Some(cell) = labels.cell_index(category, color) {
                        expected[cell] += 1.0 / worn as f64;
                    }
                }
            }
            for (found, expected) in table.row(row).iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-6, "{}: {found}, not {expected}", record.file_name);
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_too_small_is_not_present_and_another_rule_makes_other_rows() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    let dataset = converted(place.path(), Path::new("tests/data/cfpd_small"));
    let with = |min_share: f64, min_region: f64| {
        let summary = run(place.path(), &dataset, |config| {
            config.from = LabelSource::Labels;
            (config.min_share, config.min_region) = (min_share, min_region);
        })?;
        Ok::<_, Error>((summary.published().unwrap(), FeatureTable::open(&place.path().join("features"))?))
    };
    let (_, all) = with(0.0, 0.0)?;
    let (summary, large) = with(0.5, 0.0)?;
    assert_eq!(summary.counts["outdated"], all.len(), "a row depends on the rule");
    assert_eq!(all.apparel_px, large.apparel_px);
    let labels = LabelSet::cfpd();
    let usual: Vec<f64> = labels.apparel_categories().flat_map(|it| [labels.usual_share(it); 12]).collect();
    let kept =
        |(cell, &share): (usize, &f32)| if f64::from(share) >= 0.5 * usual[cell % CELL_COUNT] { share } else { 0.0 };
    let kept: Vec<f32> = all.cells.iter().enumerate().map(kept).collect();
    assert!(kept == large.cells && kept != all.cells, "shares are those of all pixels, whatever is present");
    let present = large.cells.iter().filter(|share| **share > 0.0).count();
    assert_eq!(summary.counts["mean_cells_per_photo"], present as f64 / large.len() as f64);
    let (_, connected) = with(0.0, 0.5)?;
    let is_kept = |(connected, large): (&f32, &f32)| *connected == 0.0 || connected == large;
    assert!(connected.cells.iter().zip(&large.cells).all(is_kept), "a region is no larger than its cell");
    let (summary, few) = with(1.0, 1.0)?;
    let without = few.cells.chunks_exact(CELL_COUNT).filter(|row| row.iter().all(|share| *share == 0.0)).count();
    assert_eq!(summary.counts["photos_without_apparel"], without);
    let refused = with(2.0, 0.0).expect_err("not a share");
    assert!(refused.to_string().contains("min_share") && refused.exit_code() == 2, "{refused}");
    Ok(())
}

#[test]
fn a_dataset_is_segmented_by_a_model_too() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    let dataset = converted(place.path(), Path::new("tests/data/cfpd_small"));
    write_flat_model(&place.path().join("model"), 0);
    let summary = run(place.path(), &dataset, |_| {})?.published().unwrap();
    assert_eq!(summary.counts["photos_without_apparel"], summary.counts["photos"], "this model sees background alone");
    let table = FeatureTable::open(&place.path().join("features"))?;
    assert!(!table.is_empty() && table.cells.iter().all(|share| *share == 0.0));
    Ok(())
}

#[test]
fn settings_that_cannot_work_are_refused_before_any_work() {
    let place = tempfile::tempdir().unwrap();
    let shop = place.path().join("shop");
    write_shop(&shop);
    let no_model = run(place.path(), &shop, |_| {}).expect_err("there is no model");
    assert!(no_model.to_string().contains("predict.onnx"), "{no_model}");
    let no_labels = run(place.path(), &shop, |config| config.from = LabelSource::Labels).expect_err("no labels here");
    assert_eq!(no_labels.exit_code(), 2, "{no_labels}");
    assert_eq!(run(place.path(), &shop, |config| config.max_megapixels = 0).expect_err("none").exit_code(), 2);
    write_flat_model(&place.path().join("model"), T_SHIRT);
    fs::create_dir(place.path().join("empty")).unwrap();
    for catalogue in ["empty", "nowhere", "shop/notes.txt"] {
        let error = run(place.path(), &place.path().join(catalogue), |_| {}).expect_err("no catalogue");
        assert!(matches!(error, Error::Input { .. }) && error.to_string().contains(catalogue), "{error}");
    }
    assert!(!place.path().join("features").exists(), "nothing was published");
}

#[test]
fn a_dry_run_counts_the_photos_and_writes_nothing() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    let shop = place.path().join("shop");
    write_shop(&shop);
    write_flat_model(&place.path().join("model"), T_SHIRT);
    let config = Config {
        catalogue: shop,
        model: place.path().join("model"),
        output: place.path().join("features"),
        ..Config::default()
    };
    let summary = segment::run(&config, &Common { dry_run: true, ..Common::default() })?.published().unwrap();
    assert_eq!((&summary.counts["photos"], &summary.counts["new"]), (&8.into(), &8.into()));
    assert!(!place.path().join("features").exists());
    Ok(())
}

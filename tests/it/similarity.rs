//! `similarity` against numpy and pandas, and its properties.

use std::path::Path;

use arrow::array::{Array, FixedSizeListArray, Float32Array, UInt32Array};
use lookbook::error::{Error, Result};
use lookbook::features::{FeatureTable, PixelCounts};
use lookbook::labels::{CATEGORY_COUNT, CELL_COUNT};
use lookbook::similarity::{self, Config, Correlator, Measure, Neighbour};
use lookbook::stage::Common;
use lookbook::table;
use lookbook::table::features::{FeatureRow, FeatureWriter, Format};

/// A feature row of photo `photo_id` with so many pixels in each cell.
fn row(photo_id: u32, cells: &[(usize, u32)]) -> FeatureRow {
    let mut cell_px = vec![0; CELL_COUNT];
    for &(cell, count) in cells {
        cell_px[cell] = count;
    }
    let apparel_px = cell_px.iter().sum();
    let mut category_px = [0; CATEGORY_COUNT];
    category_px[0] = 240_000 - 1;
    FeatureRow {
        photo_id,
        file_name: format!("{photo_id:04}.jpg"),
        path: format!("shop/{photo_id:04}.jpg"),
        content_sha256: format!("{photo_id:064x}"),
        model_id: "labels".to_owned(),
        width_px: 400,
        height_px: 600,
        counts: PixelCounts { category_px, apparel_px, cell_px },
    }
}

fn write_features(folder: &Path, rows: impl IntoIterator<Item = FeatureRow>) -> Result<()> {
    std::fs::create_dir_all(folder).unwrap();
    let mut writer = FeatureWriter::new(folder, Format::Parquet);
    rows.into_iter().try_for_each(|row| writer.push(row))?;
    writer.close()
}

fn oracle() -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/similarity_oracle.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn oracle_rows(oracle: &serde_json::Value) -> Vec<FeatureRow> {
    let rows: Vec<Vec<(usize, u32)>> = serde_json::from_value(oracle["cell_px"].clone()).unwrap();
    // Ids that are neither dense nor ascending: they are names, not places.
    rows.iter().zip(0..).map(|(cells, number)| row(1000 - number * 7, cells)).collect()
}

/// The whole matrix of a similarity folder, and the ids of its rows.
fn read_matrix(folder: &Path) -> (Vec<u32>, Vec<Vec<Option<f32>>>) {
    let (mut ids, mut matrix) = (Vec::new(), Vec::new());
    for part in table::parts(&folder.join("matrix")).unwrap() {
        for batch in table::read_table(&part, "similarity_matrix", &[], 1000).unwrap() {
            let batch = batch.unwrap();
            ids.extend_from_slice(table::column::<UInt32Array>(&part, &batch, "photo_id").unwrap().values());
            let lists = table::column::<FixedSizeListArray>(&part, &batch, "correlation").unwrap();
            for list in (0..lists.len()).map(|row| lists.value(row)) {
                matrix.push(list.as_any().downcast_ref::<Float32Array>().unwrap().iter().collect());
            }
        }
    }
    (ids, matrix)
}

fn run(place: &Path, change: impl FnOnce(&mut Config)) -> Result<lookbook::stage::Summary> {
    let mut config = Config { features: place.join("features"), output: place.join("similarity"), ..Config::default() };
    change(&mut config);
    similarity::run(&config, &Common::default())
}

#[test]
fn every_measure_meets_its_oracle() -> Result<()> {
    let oracle = oracle();
    let rows = oracle_rows(&oracle);
    let place = tempfile::tempdir().unwrap();
    write_features(&place.path().join("features"), rows.clone())?;
    for (measure, name) in [(Measure::Pearson, "pearson"), (Measure::CoRated, "co_rated"), (Measure::Cosine, "cosine")]
    {
        run(place.path(), |config| config.measure = measure)?;
        let (ids, matrix) = read_matrix(&place.path().join("similarity"));
        assert_eq!(ids, rows.iter().map(|row| row.photo_id).collect::<Vec<_>>());
        let expected: Vec<Option<f64>> = serde_json::from_value(oracle[name].clone()).unwrap();
        assert!(expected.iter().any(Option::is_none) && expected.iter().flatten().count() > 100, "{name}");
        let mut expected = expected.into_iter();
        for (a, row) in matrix.iter().enumerate() {
            for (b, found) in row.iter().enumerate().skip(a) {
                let expected = expected.next().unwrap();
                let context = format!("{name} of rows {a} and {b}: {found:?}, by the oracle {expected:?}");
                assert_eq!(found.is_some(), expected.is_some(), "{context}");
                let off = f64::from(found.unwrap_or(0.0)) - expected.unwrap_or(0.0);
                assert!(off.abs() < 1e-5, "{context}");
                assert_eq!(*found, matrix[b][a], "{context}, and not the same the other way");
                assert!(found.is_none_or(|value| (-1.0..=1.0).contains(&value)), "{context}");
            }
        }
        assert_eq!(expected.next(), None, "{name}: the oracle holds more");
        check_neighbours(&place.path().join("similarity"), &ids, &matrix);
    }
    Ok(())
}

/// The neighbours of every photo are the ten largest of its row in the matrix.
fn check_neighbours(folder: &Path, ids: &[u32], matrix: &[Vec<Option<f32>>]) {
    let neighbours = similarity::read_neighbours(folder).unwrap();
    let mut expected = Vec::new();
    for (row, id) in ids.iter().enumerate() {
        let others = (0..ids.len()).filter(|&other| other != row);
        let mut defined: Vec<_> = others.filter_map(|other| Some((matrix[row][other]?, ids[other]))).collect();
        defined.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        expected.extend(defined.into_iter().take(10).zip(1..).map(|((value, other), rank)| (*id, rank, other, value)));
    }
    let plain = |it: &Neighbour| (it.photo_id, it.rank, it.neighbour_id, it.correlation);
    assert_eq!(neighbours.iter().map(plain).collect::<Vec<_>>(), expected);
}

#[test]
fn ties_are_ordered_by_photo_id_and_nobody_is_his_own_neighbour() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    let same: &[(usize, u32)] = &[(0, 10), (4, 20), (9, 70)];
    let rows = [row(9, same), row(2, same), row(5, &[]), row(7, same), row(1, &[(0, 10), (5, 20)])];
    write_features(&place.path().join("features"), rows)?;
    run(place.path(), |config| config.top = 2)?;
    let neighbours = similarity::read_neighbours(&place.path().join("similarity"))?;
    let of = |id: u32| -> Vec<_> {
        let of_photo = neighbours.iter().filter(|it| it.photo_id == id);
        of_photo.map(|it| (it.rank, it.neighbour_id, it.correlation, it.cells_in_common)).collect()
    };
    assert_eq!(of(9), [(1, 2, 1.0, 3), (2, 7, 1.0, 3)]);
    assert_eq!(of(2), [(1, 7, 1.0, 3), (2, 9, 1.0, 3)]);
    assert_eq!(of(5), [], "with nothing worn nothing is defined");
    assert_eq!(of(1).iter().map(|it| (it.1, it.3)).collect::<Vec<_>>(), [(2, 1), (7, 1)]);
    Ok(())
}

#[test]
fn the_numbers_do_not_depend_on_the_parts() -> Result<()> {
    let rows = oracle_rows(&oracle());
    let place = tempfile::tempdir().unwrap();
    write_features(&place.path().join("features"), rows)?;
    let mut before = None;
    for part_rows in [1, 7, 512] {
        run(place.path(), |config| config.part_rows = part_rows)?;
        let folder = place.path().join("similarity");
        let now = (read_matrix(&folder), similarity::read_neighbours(&folder)?);
        assert_eq!(table::parts(&folder.join("matrix"))?.len(), 47_usize.div_ceil(part_rows));
        assert_eq!(before.get_or_insert_with(|| now.clone()), &now, "parts of {part_rows} rows");
    }
    Ok(())
}

#[test]
fn without_the_matrix_the_neighbours_are_the_same() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    write_features(&place.path().join("features"), oracle_rows(&oracle()))?;
    run(place.path(), |_| {})?;
    let with = similarity::read_neighbours(&place.path().join("similarity"))?;
    let summary = run(place.path(), |config| config.matrix = false)?;
    assert_eq!(similarity::read_neighbours(&place.path().join("similarity"))?, with);
    assert!(table::parts(&place.path().join("similarity/matrix")).is_err());
    assert_eq!(summary.counts["photos"], 47);
    assert_eq!(summary.counts["photos_without_apparel"], 1);
    Ok(())
}

#[test]
fn the_figures_of_the_run_are_those_of_the_table() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    let rows = [row(0, &[(0, 1), (1, 3)]), row(1, &[(1, 5)]), row(2, &[]), row(3, &[(0, 2), (1, 6)])];
    write_features(&place.path().join("features"), rows)?;
    let counts = run(place.path(), |_| {})?.counts;
    assert_eq!(counts["photos_without_apparel"], 1);
    assert_eq!(counts["mean_cells_per_photo"], 1.25);
    assert_eq!(counts["commonest_cells"][0], serde_json::json!(["Tshirt_black", 3]));
    assert_eq!(counts["photos_with_neighbours"], 3);
    let nearest = counts["mean_nearest_correlation"].as_f64().unwrap();
    assert!(nearest > 0.9 && nearest < 1.0, "{nearest}");
    Ok(())
}

#[test]
fn a_photo_from_outside_is_compared_as_one_from_inside() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    write_features(place.path(), oracle_rows(&oracle()))?;
    let features = FeatureTable::open(place.path())?;
    for measure in [Measure::Pearson, Measure::CoRated, Measure::Cosine] {
        let correlator = Correlator::new(&features, measure, 3);
        for photo in 0..features.len() {
            assert_eq!(correlator.correlate(features.row(photo)), correlator.row(photo));
        }
    }
    let shared = Correlator::new(&features, Measure::Pearson, 3).shared_cells(features.row(0), 42);
    assert_eq!(shared.len(), oracle()["cell_px"][0].as_array().unwrap().len(), "row 42 is the same as row 0");
    assert!(shared.windows(2).all(|pair| pair[0].share >= pair[1].share));
    Ok(())
}

#[test]
fn rows_that_do_not_vary_have_no_correlation() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    let all: Vec<(usize, u32)> = (0..CELL_COUNT).map(|cell| (cell, 3)).collect();
    write_features(place.path(), [row(0, &all), row(1, &[(1, 2), (2, 3)])])?;
    let features = FeatureTable::open(place.path())?;
    let pearson = Correlator::new(&features, Measure::Pearson, 3);
    assert_eq!(pearson.row(0), [None, None], "the same share of everything: numpy divides rounding errors here");
    assert_eq!(pearson.row(1), [None, Some(1.0)]);
    assert!(Correlator::new(&features, Measure::Cosine, 3).row(0).iter().all(Option::is_some));
    Ok(())
}

#[test]
fn bad_features_and_settings_are_refused_by_name() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    let missing = run(place.path(), |_| {}).expect_err("there is no feature table");
    assert!(matches!(missing, Error::Input { .. }) && missing.to_string().contains("features"), "{missing}");

    let features = place.path().join("features");
    write_features(&features, [row(4, &[(0, 1)]), row(4, &[(1, 1)])])?;
    let twice = run(place.path(), |_| {}).expect_err("an id comes twice");
    assert!(twice.to_string().contains("photo_id 4"), "{twice}");

    write_features(&features, [])?;
    let empty = run(place.path(), |_| {}).expect_err("there are no photos");
    assert!(matches!(empty, Error::Input { .. }), "{empty}");

    std::fs::write(features.join("part-00000.parquet"), b"PAR1 no more").unwrap();
    assert_eq!(run(place.path(), |_| {}).expect_err("the part is damaged").exit_code(), 1);

    table::rejects::write(&features.join("part-00000.parquet"), "test", &[])?;
    assert!(matches!(run(place.path(), |_| {}), Err(Error::Schema { .. })));

    assert_eq!(run(place.path(), |config| config.top = 0).expect_err("none are wanted").exit_code(), 2);
    assert!(!place.path().join("similarity").exists(), "nothing was published");
    Ok(())
}

#[test]
fn a_dry_run_writes_nothing() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    write_features(&place.path().join("features"), [row(0, &[(0, 1)])])?;
    let config =
        Config { features: place.path().join("features"), output: place.path().join("out"), ..Config::default() };
    let summary = similarity::run(&config, &Common { dry_run: true, ..Common::default() })?;
    assert!(summary.dry_run && summary.counts["photos"] == 1);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    Ok(())
}

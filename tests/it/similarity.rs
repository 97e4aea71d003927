//! `similarity` against numpy and pandas, and its properties.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{Array, FixedSizeListArray, Float16Array, Float32Array, UInt32Array};
use half::f16;

use lookbook::error::{Error, Result};
use lookbook::features::rows::{self, FeatureRow, Format, PART_ROWS};
use lookbook::features::{FeatureTable, PixelCounts};
use lookbook::labels::{CATEGORY_COUNT, CELL_COUNT, LabelSet, MAX_CELLS};
use lookbook::photo::hashes::PhotoHashes;
use lookbook::shard::Shard;
use lookbook::similarity::{self, Comparison, Config, Correlator, Matrix, Measure, Neighbour, NumberFormat};
use lookbook::stage::Common;
use lookbook::table;
use lookbook::units::ByteSize;

const MEASURES: [(Measure, &str); 4] = [
    (Measure::Pearson, "pearson"),
    (Measure::CoRated, "co_rated"),
    (Measure::Cosine, "cosine"),
    (Measure::Latent, "latent"),
];

/// A feature row of photo `photo_id` with so many pixels in each cell.
pub(crate) fn row(photo_id: u32, cells: &[(usize, u32)]) -> FeatureRow {
    let mut cell_px = vec![0; CELL_COUNT];
    for &(cell, count) in cells {
        cell_px[cell] = count;
    }
    let apparel_px = cell_px.iter().sum();
    let mut category_px = vec![0; CATEGORY_COUNT];
    category_px[0] = 240_000 - 1;
    FeatureRow {
        photo_id,
        file_name: format!("{photo_id:04}.jpg"),
        path: format!("shop/{photo_id:04}.jpg"),
        content_sha256: format!("{photo_id:064x}"),
        model_id: "labels".to_owned(),
        width_px: 400,
        height_px: 600,
        photo_width_px: 400,
        photo_height_px: 600,
        counts: PixelCounts { category_px, apparel_px, cell_px },
        hashes: PhotoHashes::default(),
        embedding: None,
    }
}

pub(crate) fn write_features(folder: &Path, rows: impl IntoIterator<Item = FeatureRow>) -> Result<()> {
    std::fs::create_dir_all(folder).unwrap();
    let rows: Vec<_> = rows.into_iter().collect();
    // A table without rows has one part.
    let parts = rows.chunks(PART_ROWS).chain(rows.is_empty().then_some(&rows[..]));
    parts.enumerate().try_for_each(|(number, rows)| {
        rows::write_part(
            &folder.join(table::part_name(number)),
            &rows::batch_of(&LabelSet::cfpd(), rows, None),
            Format::Parquet,
        )
    })
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
                matrix.push(match list.as_any().downcast_ref::<Float16Array>() {
                    Some(halves) => halves.iter().map(|half| half.map(f16::to_f32)).collect(),
                    None => list.as_any().downcast_ref::<Float32Array>().unwrap().iter().collect(),
                });
            }
        }
    }
    (ids, matrix)
}

/// The pairs of a similarity folder: both ids, correlation, cells in common.
fn read_pairs(folder: &Path) -> Vec<(u32, u32, f32, u32)> {
    let mut pairs = Vec::new();
    for part in table::parts(&folder.join("pairs")).unwrap() {
        for batch in table::read_table(&part, "similarity_pairs", &[], 1000).unwrap() {
            let batch = batch.unwrap();
            let number = |name| table::column::<UInt32Array>(&part, &batch, name).unwrap();
            let (a, b, common) = (number("photo_id"), number("other_id"), number("cells_in_common"));
            let correlation = table::column::<Float32Array>(&part, &batch, "correlation").unwrap();
            pairs.extend(
                (0..batch.num_rows())
                    .map(|row| (a.value(row), b.value(row), correlation.value(row), common.value(row))),
            );
        }
    }
    pairs
}

/// A table of `photos` photos of a few cells each, by a rule without luck: more than one part and one block.
fn many_rows(photos: u32) -> impl Iterator<Item = FeatureRow> {
    let cell = |photo: u32, number: u32| ((photo * 7 + number * number * 13 + photo / 31 * number) % 36) as usize;
    let count = |photo: u32, number: u32| 1 + (photo * 31 + number * 17) % 97;
    (0..photos).map(move |photo| {
        let cells: BTreeMap<usize, u32> = (0..photo % 9).map(|it| (cell(photo, it), count(photo, it))).collect();
        row(photo, &cells.into_iter().collect::<Vec<_>>())
    })
}

fn run(place: &Path, change: impl FnOnce(&mut Config)) -> Result<lookbook::stage::Summary> {
    let mut config = Config { features: place.join("features"), output: place.join("similarity"), ..Config::default() };
    change(&mut config);
    Ok(similarity::run(&config, &Common::default())?.published().expect("it is published"))
}

#[test]
fn every_measure_meets_its_oracle() -> Result<()> {
    let oracle = oracle();
    let rows = oracle_rows(&oracle);
    let place = tempfile::tempdir().unwrap();
    write_features(&place.path().join("features"), rows.clone())?;
    let latent_dimensions = oracle["latent_dimensions"].as_u64().unwrap() as usize;
    for (measure, name) in MEASURES {
        run(place.path(), |config| (config.measure, config.latent_dimensions) = (measure, latent_dimensions))?;
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
fn the_numbers_do_not_depend_on_memory_threads_or_symmetry() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    let photos = 2200;
    write_features(&place.path().join("features"), many_rows(photos))?;
    let folder = place.path().join("similarity");
    for (measure, name) in MEASURES {
        run(place.path(), |config| config.measure = measure)?;
        let expected = (read_matrix(&folder), similarity::read_neighbours(&folder)?);
        assert!(table::parts(&folder.join("matrix"))?.len() > 2);
        let (ids, matrix) = &expected.0;
        assert_eq!((ids.len(), matrix.len()), (photos as usize, photos as usize));
        for (a, row) in matrix.iter().enumerate() {
            assert!((0..a).all(|b| row[b] == matrix[b][a]), "{name}: row {a} is not its column");
        }

        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let memory = ByteSize(u64::from(photos) * 8 * 5);
        one.install(|| run(place.path(), |config| (config.measure, config.memory) = (measure, memory)))?;
        assert!(expected == (read_matrix(&folder), similarity::read_neighbours(&folder)?), "{name}: in little memory");

        run(place.path(), |config| (config.measure, config.matrix) = (measure, Matrix::None))?;
        assert!(table::parts(&folder.join("matrix")).is_err(), "no matrix was asked for");
        assert!(expected.1 == similarity::read_neighbours(&folder)?, "{name}: each product once");
    }
    Ok(())
}

#[test]
fn half_precision_is_the_matrix_rounded() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    write_features(&place.path().join("features"), oracle_rows(&oracle()))?;
    let folder = place.path().join("similarity");
    run(place.path(), |_| {})?;
    let (single, neighbours) = (read_matrix(&folder), similarity::read_neighbours(&folder)?);
    run(place.path(), |config| config.precision = NumberFormat::F16)?;
    let half = read_matrix(&folder);
    let rounded = |row: &Vec<Option<f32>>| row.iter().map(|it| it.map(|it| f16::from_f32(it).to_f32())).collect();
    assert_eq!(half.1, single.1.iter().map(rounded).collect::<Vec<Vec<_>>>());
    assert_eq!(similarity::read_neighbours(&folder)?, neighbours, "neighbours are ranked by the unrounded");
    Ok(())
}

#[test]
fn the_pairs_are_those_of_the_matrix_above_the_threshold() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    write_features(&place.path().join("features"), many_rows(1100))?;
    let folder = place.path().join("similarity");
    for matrix in [Matrix::Full, Matrix::None] {
        run(place.path(), |config| (config.threshold, config.matrix) = (Some(0.5), matrix))?;
        let pairs = read_pairs(&folder);
        if matrix == Matrix::Full {
            let (ids, matrix) = read_matrix(&folder);
            let above = |a: usize| {
                let defined = (a + 1..ids.len()).filter_map({
                    let row = &matrix[a];
                    move |b| Some((b, row[b]?))
                });
                defined.filter(|(_, value)| *value >= 0.5).map(move |(b, value)| (a, b, value)).collect::<Vec<_>>()
            };
            let expected: Vec<_> =
                (0..ids.len()).flat_map(above).map(|(a, b, value)| (ids[a], ids[b], value)).collect();
            assert!(expected.len() > 1000 && expected.len() < 300_000, "{} pairs", expected.len());
            assert_eq!(pairs.iter().map(|it| (it.0, it.1, it.2)).collect::<Vec<_>>(), expected);
        }
        let nearest = similarity::read_neighbours(&folder)?;
        let first = nearest.iter().find(|it| it.correlation >= 0.5 && it.photo_id < it.neighbour_id).unwrap();
        let pair = (first.photo_id, first.neighbour_id, first.correlation, first.cells_in_common);
        assert!(pairs.contains(&pair), "{pair:?}");
    }
    Ok(())
}

#[test]
fn shards_make_what_one_run_makes() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    write_features(&place.path().join("features"), many_rows(3000))?;
    let folder = place.path().join("similarity");
    let tables =
        || -> Result<_> { Ok((read_matrix(&folder), similarity::read_neighbours(&folder)?, read_pairs(&folder))) };
    let whole = run(place.path(), |config| config.threshold = Some(0.9))?;
    let expected = tables()?;
    for number in [3, 1, 2, 1] {
        let refused = run(place.path(), |config| config.merge = true);
        assert_eq!(refused.is_err(), number != 1 || !folder.with_extension("shards").join("2-of-3").exists());
        run(place.path(), |config| (config.threshold, config.shard) = (Some(0.9), Shard::new(number, 3)))?;
    }
    std::fs::remove_dir_all(&folder).unwrap();
    let merged = run(place.path(), |config| config.merge = true)?;
    assert!(expected == tables()?, "the shards give other tables");
    for (name, count) in whole.counts.single() {
        assert_eq!(merged.counts[name], *count, "{name}");
    }
    assert_eq!(merged.config.setting("threshold"), Some(0.9_f32));
    assert_eq!(merged.config.setting::<String>("shard"), None);

    // Neighbours alone: a shard has no columns of others to learn from.
    for number in 1..=3 {
        run(place.path(), |config| (config.matrix, config.shard) = (Matrix::None, Shard::new(number, 3)))?;
    }
    run(place.path(), |config| config.merge = true)?;
    assert!(expected.1 == similarity::read_neighbours(&folder)?);
    Ok(())
}

#[test]
fn without_the_matrix_the_neighbours_are_the_same() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    write_features(&place.path().join("features"), oracle_rows(&oracle()))?;
    run(place.path(), |_| {})?;
    let with = similarity::read_neighbours(&place.path().join("similarity"))?;
    let summary = run(place.path(), |config| config.matrix = Matrix::None)?;
    assert_eq!(similarity::read_neighbours(&place.path().join("similarity"))?, with);
    assert_eq!(summary.counts["photos"], 51);
    assert_eq!(summary.counts["photos_without_apparel"], 1);
    Ok(())
}

#[test]
fn above_a_size_the_neighbours_come_from_an_index_which_tells_what_it_misses() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    write_features(&place.path().join("features"), many_rows(5000))?;
    let approximate = |config: &mut Config| (config.matrix, config.exact_up_to) = (Matrix::None, 4999);
    for measure in [Measure::Pearson, Measure::Cosine, Measure::Latent] {
        let neighbours = |change: &dyn Fn(&mut Config)| {
            let summary = run(place.path(), |config| {
                config.measure = measure;
                config.matrix = Matrix::None;
                change(config);
            })?;
            Ok::<_, Error>((summary, similarity::read_neighbours(&place.path().join("similarity"))?))
        };
        let (summary, exact) = neighbours(&|_| {})?;
        assert!(summary.counts.number("recall").is_none(), "{measure:?}: up to the limit they are exact");
        let (summary, found) = neighbours(&approximate)?;
        let (_, again) = neighbours(&approximate)?;
        assert!(found == again, "{measure:?}: two runs find the same");
        let key = |it: &Neighbour| (it.photo_id, it.neighbour_id);
        let by_pair: BTreeMap<_, &Neighbour> = found.iter().map(|it| (key(it), it)).collect();
        let common: Vec<_> = exact.iter().filter_map(|it| Some((it, *by_pair.get(&key(it))?))).collect();
        for (exact, found) in &common {
            assert!((exact.correlation - found.correlation).abs() < 1e-6, "{measure:?}: {exact:?}, {found:?}");
            assert_eq!(exact.cells_in_common, found.cells_in_common);
        }
        // Of equals, any will do.
        let farthest: BTreeMap<u32, f32> = exact.iter().map(|it| (it.photo_id, it.correlation)).collect();
        let is_as_near =
            |it: &&Neighbour| farthest.get(&it.photo_id).is_some_and(|farthest| it.correlation >= *farthest);
        let recall = found.iter().filter(is_as_near).count() as f64 / exact.len() as f64;
        let told = summary.counts["recall"].as_f64().unwrap();
        assert!(recall > 0.9, "{measure:?}: {recall}");
        assert!((recall - told).abs() < 0.03, "{measure:?}: {recall}, but it says {told} of 1,000 photos");
        assert!(found.iter().all(|it| it.photo_id != it.neighbour_id), "nobody is his own neighbour");
        let ranks = found.windows(2).filter(|it| it[0].photo_id == it[1].photo_id);
        assert!(ranks.into_iter().all(|it| it[0].correlation >= it[1].correlation && it[0].rank + 1 == it[1].rank));
    }
    // What an index cannot do stays exact.
    for change in [
        (|config| config.measure = Measure::CoRated) as fn(&mut Config),
        |config| config.matrix = Matrix::Full,
        |config| config.threshold = Some(0.99),
    ] {
        let summary = run(place.path(), |config| {
            approximate(config);
            change(config);
        })?;
        assert!(summary.counts.number("recall").is_none());
    }
    // In shards, as in one run.
    let (whole, found) = {
        let summary = run(place.path(), approximate)?;
        (summary, similarity::read_neighbours(&place.path().join("similarity"))?)
    };
    for number in 1..=2 {
        run(place.path(), |config| {
            approximate(config);
            config.shard = Shard::new(number, 2);
        })?;
    }
    let merged = run(place.path(), |config| config.merge = true)?;
    assert!(similarity::read_neighbours(&place.path().join("similarity"))? == found);
    let recall = |summary: &lookbook::stage::Summary| summary.counts["recall"].as_f64().unwrap();
    assert!((recall(&whole) - recall(&merged)).abs() < 0.03);
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
    for (measure, name) in MEASURES {
        let correlator = Correlator::new(&features, measure.into());
        for photo in 0..features.len() {
            let (outside, inside) = (correlator.correlate(features.row(photo)), correlator.row(photo));
            let same = |(a, b): (&f32, &f32)| a == b || a.is_nan() && b.is_nan();
            assert!(outside.iter().zip(&inside).all(same), "{name} of row {photo}");
        }
    }
    Ok(())
}

#[test]
fn the_shared_cells_carry_the_correlation() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    write_features(place.path(), oracle_rows(&oracle()))?;
    let features = FeatureTable::open(place.path())?;
    for (measure, name) in MEASURES {
        let correlator = Correlator::new(&features, measure.into());
        // Row 42 is the same as row 0.
        let shared = correlator.why(features.row(0), 42).shared_cells;
        assert_eq!(shared.len(), oracle()["cell_px"][0].as_array().unwrap().len(), "{name}");
        assert!(shared.windows(2).all(|pair| pair[0].contribution >= pair[1].contribution), "{name}");
        assert!(shared.iter().all(|cell| cell.share == cell.neighbour_share), "{name}");
        // The cells that neither has are the rest of the sum: nothing for two of the measures, little for the others.
        let sum: f32 = shared.iter().map(|cell| cell.contribution).sum();
        let rest = if matches!(measure, Measure::CoRated | Measure::Cosine) { 1e-5 } else { 0.1 };
        assert!((1.0 - sum).abs() < rest, "{name}: {sum}");
    }
    Ok(())
}

#[test]
fn rows_that_do_not_vary_have_no_correlation() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    let all: Vec<(usize, u32)> = (0..CELL_COUNT).map(|cell| (cell, 3)).collect();
    write_features(place.path(), [row(0, &all), row(1, &[(1, 2), (2, 3)])])?;
    let features = FeatureTable::open(place.path())?;
    let pearson = Correlator::new(&features, Measure::Pearson.into());
    let defined = |row: Vec<f32>| row.iter().map(|value| !value.is_nan()).collect::<Vec<_>>();
    assert_eq!(
        defined(pearson.row(0)),
        [false, false],
        "the same share of everything: numpy divides rounding errors here"
    );
    assert_eq!(defined(pearson.row(1)), [false, true]);
    assert_eq!(pearson.row(1)[1], 1.0);
    assert_eq!(defined(Correlator::new(&features, Measure::Cosine.into()).row(0)), [true, true]);
    Ok(())
}

#[test]
fn photos_that_are_all_the_same_have_no_latent_direction() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    write_features(place.path(), (0..3).map(|id| row(id, &[(1, 2), (2, 3)])))?;
    let features = FeatureTable::open(place.path())?;
    let latent = Correlator::new(&features, Measure::Latent.into());
    assert!(latent.row(0).iter().all(|value| value.is_nan()), "{:?}", latent.row(0));
    assert_eq!(latent.variance_share(), Some(0.0));
    let few = Comparison { latent_dimensions: 1, ..Measure::Latent.into() };
    write_features(place.path(), [row(0, &[(1, 2), (2, 3)]), row(1, &[(2, 3)]), row(2, &[])])?;
    let one = Correlator::new(&FeatureTable::open(place.path())?, few);
    assert!(one.row(0).iter().take(2).all(|value| value.abs() > 0.999), "one dimension has two directions");
    assert!(one.row(2).iter().all(|value| value.is_nan()), "nothing is worn");
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

    lookbook::rejects::write(&features.join("part-00000.parquet"), "test", &[])?;
    assert!(matches!(run(place.path(), |_| {}), Err(Error::Schema { .. })));

    let usage = |change: fn(&mut Config)| run(place.path(), change).expect_err("a bad setting").exit_code();
    assert_eq!(usage(|config| config.top = 0), 2);
    assert_eq!(usage(|config| config.latent_dimensions = MAX_CELLS + 1), 2);
    assert_eq!(usage(|config| config.threshold = Some(1.5)), 2);
    write_features(&features, [row(4, &[(0, 1)])])?;
    assert_eq!(usage(|config| config.latent_dimensions = CELL_COUNT + 1), 2);
    let memory = run(place.path(), |config| config.memory = ByteSize(7)).expect_err("a row needs 8 bytes");
    assert!(matches!(memory, Error::Limit { .. }) && memory.to_string().contains("--memory"), "{memory}");
    assert!(!place.path().join("similarity").exists(), "nothing was published");
    Ok(())
}

#[test]
fn a_dry_run_writes_nothing() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    write_features(&place.path().join("features"), [row(0, &[(0, 1)])])?;
    let config =
        Config { features: place.path().join("features"), output: place.path().join("out"), ..Config::default() };
    let summary = similarity::run(&config, &Common { dry_run: true, ..Common::default() })?.published().unwrap();
    assert!(summary.dry_run && summary.counts["photos"] == 1);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    Ok(())
}

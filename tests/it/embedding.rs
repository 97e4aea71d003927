//! Embeddings: rows with those of a small network whose answers are worked out by hand, night after night, the neighbours that
//! they give, and what is refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, FixedSizeListArray, StringArray};
use arrow::datatypes::Float32Type;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::incremental::Place;
use crate::parser;
use crate::python::{has_engines, python};
use crate::similarity::row;
use lookbook::error::Result;
use lookbook::features::FeatureTable;
use lookbook::features::rows::{self, EMBEDDING_COLUMN, Embedding, FeatureRow, Format};
use lookbook::gates::Gates;
use lookbook::graph::builder::{Builder, Dim};
use lookbook::graph::onnx::{FLOAT, FLOAT16};
use lookbook::labels::{CELL_COUNT, LabelSet};
use lookbook::model::Model;
use lookbook::parser::check;
use lookbook::segment::{self, Config, LabelSource};
use lookbook::shard::Shard;
use lookbook::similarity::{self, Matrix, Measure, Neighbour};
use lookbook::stage::{Common, Depth, Summary};
use lookbook::{features, recommend, report, table};

type Colored = (&'static str, [u8; 3], Option<[f32; 3]>);

/// Red, green and blue of photos, and their embeddings: the mean colour, scaled to length 1. Black has none.
const PHOTOS: [Colored; 4] = [
    ("black.png", [0, 0, 0], None),
    ("red.png", [200, 0, 0], Some([1.0, 0.0, 0.0])),
    ("teal.png", [0, 90, 120], Some([0.0, 0.6, 0.8])),
    ("violet.png", [60, 0, 80], Some([0.6, 0.0, 0.8])),
];

/// A network that gives the mean of each channel, as `[batch, 3]`, or `[batch, 3, 1, 1]` if `keep`.
fn network(element: i32, batch: Dim, keep: bool) -> Vec<u8> {
    let mut builder = Builder::default();
    let [three, side, one] = [3, 8, 1].map(Dim::Fixed);
    let mut x = builder.input("pixels", FLOAT, &[batch, three, side, side]);
    x = builder.reduce("ReduceMean", &x, &[2, 3], keep);
    if element == FLOAT16 {
        x = builder.cast(&x, FLOAT16);
    }
    let dims: &[Dim] = if keep { &[batch, three, one, one] } else { &[batch, three] };
    builder.output("embedding", &x, element, dims);
    builder.finish("mean", "", &[])
}

fn declaration(name: &str) -> String {
    let mut text =
        format!("name = \"{name}\"\nlicense = \"MIT\"\nnetwork = \"network.onnx\"\n[input]\nlayout = \"nchw\"\n");
    let _ = write!(text, "type = \"f32\"\nwidth_px = 8\nheight_px = 8\nfit = \"crop\"\nscale = 0.00392156862745098\n");
    text + "[output]\nkind = \"embedding\"\n"
}

fn write_embedder(folder: &Path, name: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("network.onnx"), network(FLOAT, Dim::Batch, false)).unwrap();
    fs::write(folder.join("parser.toml"), declaration(name)).unwrap();
}

fn write_photo(place: &Place, name: &str, rgb: [u8; 3]) {
    image::RgbImage::from_pixel(30, 20, image::Rgb(rgb)).save(place.path("shop").join(name)).unwrap();
}

/// A place with the photos, a model and an embedder; `None`, said aloud, without the library.
fn place() -> Option<Place> {
    let place = Place::new()?;
    for (name, rgb, _) in PHOTOS {
        write_photo(&place, name, rgb);
    }
    write_embedder(&place.path("embedder"), "mean");
    Some(place)
}

fn config(place: &Place) -> Config {
    Config { embedder: Some(place.path("embedder")), ..place.config() }
}

fn segment(config: &Config) -> Summary {
    segment::run(config, &Common::default()).unwrap().published().expect("it is published")
}

fn count(summary: &Summary, names: &[&str]) -> Vec<u64> {
    names.iter().map(|it| summary.counts.count(it).unwrap_or_else(|| panic!("{it} is counted"))).collect()
}

/// The embeddings of a features folder by file name; of a table without the column none.
fn embeddings(folder: &Path) -> BTreeMap<String, Option<Vec<f32>>> {
    let mut found = BTreeMap::new();
    for part in table::parts(folder).unwrap() {
        for rows in table::read_table(&part, rows::TABLE, &[], 100).unwrap().map(Result::unwrap) {
            let names: &StringArray = table::column(&part, &rows, "file_name").unwrap();
            if rows.column_by_name(EMBEDDING_COLUMN).is_none() {
                continue;
            }
            let lists: &FixedSizeListArray = table::column(&part, &rows, EMBEDDING_COLUMN).unwrap();
            let vector = |row| lists.value(row).as_primitive::<Float32Type>().values().to_vec();
            let vectors = (0..rows.num_rows()).map(|row| lists.is_valid(row).then(|| vector(row)));
            found.extend(names.iter().map(|it| it.unwrap().to_owned()).zip(vectors));
        }
    }
    found
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}, not {expected:?}");
}

/// Asserts that the photos have the embeddings worked out by hand.
fn assert_by_hand(folder: &Path) {
    let found = embeddings(folder);
    assert_eq!(found.len(), PHOTOS.len());
    for (name, _, expected) in PHOTOS {
        match (&found[name], expected) {
            (Some(found), Some(expected)) => assert_close(found, &expected),
            (found, expected) => assert_eq!(found.is_some(), expected.is_some(), "{name}"),
        }
    }
}

fn neighbours(place: &Place, measure: Measure) -> Vec<Neighbour> {
    let config = similarity::Config {
        features: place.path("features"),
        output: place.path("similarity"),
        measure,
        ..Default::default()
    };
    similarity::run(&config, &Common::default()).unwrap().published().expect("it is published");
    similarity::read_neighbours(&config.output).unwrap()
}

#[test]
fn rows_have_the_embeddings_worked_out_by_hand_and_neighbours_are_by_them() {
    let Some(place) = place() else { return };
    let common = Common::default();
    for (element, batch, keep) in [
        (FLOAT16, Dim::Batch, true),
        (FLOAT, Dim::Fixed(1), true),
        (FLOAT, Dim::Fixed(3), false),
        (FLOAT, Dim::Batch, false),
    ] {
        fs::write(place.path("embedder/network.onnx"), network(element, batch, keep)).unwrap();
        let summary = segment(&config(&place));
        assert_eq!(count(&summary, &["photos", "segmented", "photos_without_embedding"]), [4, 4, 1]);
        if element == FLOAT {
            assert_by_hand(&place.path("features"));
        } else {
            assert_eq!(embeddings(&place.path("features"))["red.png"], Some(vec![1.0, 0.0, 0.0]));
        }
    }
    let table = FeatureTable::open(&place.path("features")).unwrap();
    assert_eq!((table.len(), table.embeddings.is_none()), (4, true), "they are only read if they are needed");
    let statistics = features::FeatureStatistics::scan(&place.path("features")).unwrap();
    assert_eq!((statistics.photos, statistics.photos_without_embedding), (4, Some(1)));
    let id = Model::open(&place.path("embedder")).expect_err("it names no pixels").to_string();
    assert!(id.contains("parser.toml") && id.contains("can only be an embedder"), "{id}");

    // Photos in order: black, red, teal, violet. Black is near to nobody.
    let found = neighbours(&place, Measure::Embedding);
    let expected = [(1, 1, 3, 0.6), (1, 2, 2, 0.0), (2, 1, 3, 0.64), (2, 2, 1, 0.0), (3, 1, 2, 0.64), (3, 2, 1, 0.6)];
    assert_eq!(found.len(), expected.len());
    for (found, (photo_id, rank, neighbour_id, cosine)) in found.iter().zip(expected) {
        assert_eq!((found.photo_id, found.rank, found.neighbour_id), (photo_id, rank, neighbour_id));
        assert!((found.correlation - cosine).abs() < 1e-6, "{found:?}");
    }
    let summary = Summary::read(&place.path("similarity")).unwrap();
    assert_eq!(count(&summary, &["photos", "photos_without_embedding", "photos_with_neighbours"]), [4, 1, 3]);

    let query = recommend::Config {
        model: place.path("model"),
        embedder: Some(place.path("embedder")),
        features: place.path("features"),
        measure: Measure::Embedding,
        ..Default::default()
    };
    let asked = place.path("asked.png");
    image::RgbImage::from_pixel(7, 90, image::Rgb([0, 40, 30])).save(&asked).unwrap();
    let answers = recommend::run(&query, &[asked, place.path("shop/red.png"), place.path("shop/black.png")], &common);
    let answers = answers.unwrap();
    let named =
        |at: usize| answers[at].neighbours.iter().map(|it| (&it.file_name[..], it.correlation)).collect::<Vec<_>>();
    // (0, 0.8, 0.6) by (0, 0.6, 0.8) is 0.96.
    let [(first, cosine), (second, _), (third, _)] = named(0)[..] else { panic!("three have an embedding") };
    assert_eq!([first, second, third], ["teal.png", "violet.png", "red.png"]);
    assert!((cosine - 0.96).abs() < 1e-6, "{cosine}");
    assert_eq!(named(1).iter().map(|it| it.0).collect::<Vec<_>>(), ["violet.png", "teal.png"], "not itself");
    assert!(answers[2].neighbours.is_empty() && answers[2].to_string().contains("no photo of the catalogue"));

    // The report compares it with the other measures.
    let page = report::Config { run: place.path(""), output: place.path("report"), photos: 1, ..Default::default() };
    report::run(&page, &common).unwrap().published().expect("it is published");
    let measures: Value = serde_json::from_slice(&fs::read(place.path("report/measures.json")).unwrap()).unwrap();
    let row = measures.as_array().unwrap().iter().find(|it| it["measure"] == "embedding").expect("its row");
    // Each of the three with an embedding and with something worn has the two others.
    assert_eq!(row["pairs"], 6);
    assert!(fs::read_to_string(place.path("report/index.html")).unwrap().contains("<td>embedding</td>"));
}

#[test]
fn numbers_that_are_not_finite_are_no_embedding() {
    let Some(place) = place() else { return };
    let mut builder = Builder::default();
    let [three, side] = [3, 8].map(Dim::Fixed);
    let x = builder.input("pixels", FLOAT, &[Dim::Batch, three, side, side]);
    let y = builder.reduce("ReduceMean", &x, &[2, 3], false);
    // Each photo has a channel without light, and the root of a negative number is NaN.
    let y = builder.node("Sqrt", &[&y], vec![]);
    builder.output("embedding", &y, FLOAT, &[Dim::Batch, three]);
    fs::write(place.path("embedder/network.onnx"), builder.finish("roots", "", &[])).unwrap();
    let text = declaration("roots").replace("[output]", "mean = [0.1, 0.1, 0.1]\n[output]");
    fs::write(place.path("embedder/parser.toml"), text).unwrap();
    assert_eq!(count(&segment(&config(&place)), &["photos", "rejects", "photos_without_embedding"]), [4, 0, 4]);
    assert!(embeddings(&place.path("features")).values().all(Option::is_none));
    assert!(neighbours(&place, Measure::Embedding).is_empty() && neighbours(&place, Measure::Cosine).len() == 12);
}

#[test]
fn only_what_is_new_is_embedded_and_another_embedder_renews_all() {
    let Some(place) = place() else { return };
    let config = config(&place);
    let done = |summary: &Summary| count(summary, &["known", "changed", "outdated", "segmented"]);
    assert_eq!(done(&segment(&config)), [0, 0, 0, 4]);
    let reasons = || lookbook::stage::reasons(&config, &Common::default(), Depth::Contents).unwrap();
    assert_eq!(reasons(), Vec::<String>::new());
    // What was known is taken over: the network would now give something else.
    let first = segment(&config);
    assert_eq!((done(&first), first.counts.count("parts_unchanged")), (vec![4, 0, 0, 0], Some(1)));
    write_photo(&place, "red.png", [0, 0, 9]);
    assert_eq!(done(&segment(&config)), [3, 1, 0, 1]);
    assert_eq!(embeddings(&place.path("features"))["red.png"], Some(vec![0.0, 0.0, 1.0]));
    write_photo(&place, "red.png", [200, 0, 0]);
    segment(&config);
    assert_by_hand(&place.path("features"));

    write_embedder(&place.path("embedder"), "another");
    assert!(reasons()[0].contains("parser.toml was changed"), "{:?}", reasons());
    let foretold = segment::run(&config, &Common { dry_run: true, ..Common::default() }).unwrap();
    let lookbook::stage::Outcome::Planned(foretold) = foretold else { panic!("it is only planned") };
    assert_eq!(count(&foretold, &["known", "outdated"]), [0, 4]);
    assert_eq!(done(&segment(&config)), [0, 0, 4, 4]);
    // Without an embedder the column goes, and comes again with one.
    assert_eq!(done(&segment(&place.config())), [0, 0, 4, 4]);
    assert!(embeddings(&place.path("features")).is_empty());
    let statistics = features::FeatureStatistics::scan(&place.path("features")).unwrap();
    assert_eq!(statistics.photos_without_embedding, None);
    segment(&config);
    assert_by_hand(&place.path("features"));
}

#[test]
fn a_table_with_embeddings_is_a_list_of_photos() {
    let Some(place) = place() else { return };
    segment(&config(&place));
    let catalogue = place.path("features").join(table::part_name(0));
    let listed = Config { catalogue, output: place.path("listed"), ..place.config() };
    let planned = segment::run(&listed, &Common { dry_run: true, ..Common::default() }).unwrap();
    let lookbook::stage::Outcome::Planned(planned) = planned else { panic!("it is only planned") };
    assert_eq!(planned.counts.count("photos"), Some(4));
}

#[test]
fn a_row_that_stays_loses_the_embedding_of_another_embedder_and_gets_its_own_when_the_photo_is_back() {
    let Some(place) = place() else { return };
    let config = Config { keep_vanished: true, ..config(&place) };
    let of_red = || embeddings(&place.path("features"))["red.png"].clone();
    segment(&config);
    fs::remove_file(place.path("shop/red.png")).unwrap();
    assert_eq!(count(&segment(&config), &["kept"]), [1]);
    assert_eq!(of_red(), Some(vec![1.0, 0.0, 0.0]), "the embedder is the same");
    // To another embedder and back: nobody knows the photo's embedding any more.
    for name in ["another", "mean"] {
        write_embedder(&place.path("embedder"), name);
        let summary = segment(&config);
        assert_eq!(count(&summary, &["photos", "kept", "photos_without_embedding"]), [4, 1, 2]);
        assert_eq!(of_red(), None);
        assert_eq!(neighbours(&place, Measure::Embedding).len(), 2);
    }
    write_photo(&place, "red.png", [200, 0, 0]);
    assert_eq!(count(&segment(&config), &["known", "segmented"]), [3, 1]);
    assert_by_hand(&place.path("features"));
    // Kept aside, not in the table: likewise.
    let drops = Config { keep_vanished: false, ..config };
    fs::remove_file(place.path("shop/red.png")).unwrap();
    segment(&drops);
    for name in ["another", "mean"] {
        write_embedder(&place.path("embedder"), name);
        segment(&drops);
    }
    write_photo(&place, "red.png", [200, 0, 0]);
    segment(&drops);
    assert_by_hand(&place.path("features"));
}

#[test]
fn shards_make_the_table_of_one_run_and_those_of_unlike_embedders_are_not_merged() {
    let Some(place) = place() else { return };
    let whole = Config { output: place.path("whole"), format: Format::Arrow, ..config(&place) };
    segment(&whole);
    let shard = |number| segment(&Config { shard: Shard::new(number, 2), ..config(&place) });
    let merge = || segment::run(&Config { merge: true, ..config(&place) }, &Common::default());
    for number in [1, 2] {
        shard(number);
    }
    let merged = merge().unwrap().published().expect("it is published");
    assert_eq!(count(&merged, &["photos", "photos_without_embedding"]), [4, 1]);
    assert_by_hand(&place.path("features"));
    let embedder = |folder: &str| Summary::read(&place.path(folder)).unwrap().counts.get::<String>("embedder_id");
    assert!(embedder("features").is_some() && embedder("features") == embedder("whole"));

    write_embedder(&place.path("embedder"), "another");
    shard(2);
    let refused = merge().expect_err("they are of unlike embedders").with_causes();
    assert!(refused.contains("1-of-2") || refused.contains("2-of-2"), "{refused}");

    // Nor are parts that somebody put together.
    segment(&Config { output: place.path("another"), ..config(&place) });
    fs::copy(place.path("another/part-00000.parquet"), place.path("whole/part-00001.parquet")).unwrap();
    let refused = features::Embeddings::read(&place.path("whole")).expect_err("two embedders").to_string();
    assert!(refused.contains("part-00001") && refused.contains("embeddings of 3 numbers by the embedder"), "{refused}");
}

#[test]
fn what_is_no_embedder_and_what_has_no_embeddings_is_refused_by_name() {
    let Some(place) = place() else { return };
    let common = Common::default();
    let said = |config: &Config| segment::run(config, &common).expect_err("it is refused").with_causes();
    let embedder = place.path("embedder");
    let elsewhere = Config { embedder: Some(place.path("model")), ..place.config() };
    assert!(
        said(&elsewhere).contains("model/parser.toml") && said(&elsewhere).contains("is missing"),
        "{}",
        said(&elsewhere)
    );
    let labels = Config { from: LabelSource::Labels, ..config(&place) };
    assert!(said(&labels).contains("segment.embedder"), "{}", said(&labels));
    fs::write(embedder.join("parser.toml"), parser::declared()).unwrap();
    assert!(said(&config(&place)).contains("output.kind is not \"embedding\""), "{}", said(&config(&place)));
    write_embedder(&embedder, "mean");
    let strict = Common {
        gates: Gates { allowed_licenses: Some(vec!["Apache-2.0".to_owned()]), ..Gates::default() },
        ..Common::default()
    };
    let refused = segment::run(&config(&place), &strict).expect_err("its licence is not allowed").to_string();
    assert!(refused.contains("'mean' has the licence MIT; allowed: Apache-2.0"), "{refused}");
    assert!(!place.path("features").exists(), "nothing is written");

    segment(&place.config());
    let of_embedding = similarity::Config {
        features: place.path("features"),
        output: place.path("similarity"),
        measure: Measure::Embedding,
        ..Default::default()
    };
    let refused = similarity::run(&of_embedding, &common).expect_err("there is no column").to_string();
    assert!(refused.contains("features") && refused.contains("set [segment] embedder"), "{refused}");
    let query = recommend::Config {
        model: place.path("model"),
        features: place.path("features"),
        measure: Measure::Embedding,
        ..Default::default()
    };
    let ask = |query: &recommend::Config| {
        let refused = recommend::run(query, &[place.path("shop/red.png")], &common).expect_err("it is refused");
        (refused.exit_code(), refused.to_string())
    };
    assert!(ask(&query).1.contains("set [segment] embedder"), "{:?}", ask(&query));
    segment(&config(&place));
    assert!(ask(&query).0 == 2 && ask(&query).1.contains("'recommend.embedder': is not set"), "{:?}", ask(&query));
    write_embedder(&embedder, "another");
    let query = recommend::Config { embedder: Some(embedder), ..query };
    assert!(ask(&query).1.contains("but") && ask(&query).1.contains("was made with"), "{:?}", ask(&query));
}

#[test]
fn an_embedder_is_checked_and_its_network_compared_with_its_declaration() {
    let Some(place) = place() else { return };
    let folder = place.path("embedder");
    let request = |photo: Option<PathBuf>| check::Request { folder: folder.clone(), photo, ..Default::default() };
    let run = |request: &check::Request| check::run(request, &Common::default());
    let report = run(&request(Some(place.path("shop/teal.png")))).unwrap();
    let embedding = report.embedding.expect("it is one");
    // (0, 90, 120) / 255.
    assert!(embedding.dimensions == 3 && (embedding.length.unwrap() - 150.0 / 255.0).abs() < 1e-6, "{embedding:?}");
    let text = report.to_string();
    assert!(text.contains("has 3 dimensions") && text.contains("teal.png: its length is 0.588235"), "{text}");
    assert!(run(&request(None)).unwrap().embedding.is_some());
    let expecting = check::Request { expect: Some(place.path("x.png")), ..request(Some(place.path("shop/red.png"))) };
    let refused = run(&expecting).expect_err("there are no labels").to_string();
    assert!(refused.contains("'expect'") && refused.contains("embedder"), "{refused}");

    for (shape, named) in [
        (&[-1, 1][..], "2 to 4096 numbers as [batch, numbers] or [batch, numbers, 1, 1], but 'y' is [?, 1]"),
        (&[-1, 4097], "but 'y' is [?, 4097]"),
        (&[-1, 3, 8, 8], "but 'y' is [?, 3, 8, 8]"),
        (&[-1, 3, 1], "but 'y' is [?, 3, 1]"),
    ] {
        let mut builder = Builder::default();
        let [three, side] = [3, 8].map(Dim::Fixed);
        let x = builder.input("pixels", FLOAT, &[Dim::Batch, three, side, side]);
        let y = builder.reshape(&x, shape);
        let fixed = shape[1..].iter().map(|&it| Dim::Fixed(it as usize));
        builder.output("y", &y, FLOAT, &[Dim::Batch].into_iter().chain(fixed).collect::<Vec<_>>());
        fs::write(folder.join("network.onnx"), builder.finish("other", "", &[])).unwrap();
        let refused = run(&request(None)).expect_err(named).with_causes();
        assert!(refused.contains(named) && refused.contains("network.onnx"), "{refused}");
    }
}

/// A features folder of photos with drawn embeddings; every seventh has none.
pub(crate) fn write_drawn(folder: &Path, photos: u32, dimensions: usize) -> Vec<Option<Vec<f32>>> {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut vectors = Vec::new();
    let rows = (0..photos).map(|photo_id| {
        let vector: Vec<f32> = (0..dimensions).map(|_| random.random_range(-1.0..1.0)).collect();
        let length = vector.iter().map(|it| it * it).sum::<f32>().sqrt();
        let embedding = (photo_id % 7 != 3).then(|| vector.iter().map(|it| it / length).collect::<Vec<f32>>());
        vectors.push(embedding.clone());
        FeatureRow { embedding, ..row(photo_id, &[(photo_id as usize % CELL_COUNT, 5)]) }
    });
    let rows: Vec<_> = rows.collect();
    let embedding = Embedding { dimensions, embedder: "drawn".to_owned() };
    fs::create_dir_all(folder).unwrap();
    // Parts of unlike sizes, which are no multiples of a block.
    let (first, second) = rows.split_at(rows.len() / 3);
    for (number, rows) in [first, second].into_iter().enumerate() {
        let part = folder.join(table::part_name(number));
        rows::write_part(&part, &rows::batch_of(&LabelSet::cfpd(), rows, Some(&embedding)), Format::Parquet).unwrap();
    }
    vectors
}

#[test]
fn neighbours_are_exact_however_the_work_is_split() -> Result<()> {
    const PHOTOS: u32 = 2500;
    const TOP: usize = 4;
    let place = tempfile::tempdir().unwrap();
    let vectors = write_drawn(&place.path().join("features"), PHOTOS, 33);
    let run = |change: &dyn Fn(&mut similarity::Config)| {
        let mut config = similarity::Config {
            features: place.path().join("features"),
            output: place.path().join("similarity"),
            measure: Measure::Embedding,
            top: TOP as u32,
            ..Default::default()
        };
        change(&mut config);
        similarity::run(&config, &Common::default())?.published().expect("it is published");
        similarity::read_neighbours(&config.output)
    };
    let found = run(&|config| config.matrix = Matrix::None)?;
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let mut at = 0;
    for (photo, vector) in vectors.iter().enumerate() {
        let Some(vector) = vector else { continue };
        let others = vectors.iter().enumerate().filter(|(other, _)| *other != photo);
        let mut cosines: Vec<f64> = others.filter_map(|(_, it)| Some(product(vector, it.as_ref()?))).collect();
        cosines.sort_by(|a, b| b.total_cmp(a));
        for (rank, expected) in cosines[..TOP].iter().enumerate() {
            let it = found[at];
            assert_eq!((it.photo_id as usize, it.rank as usize), (photo, rank + 1));
            let own = product(vector, vectors[it.neighbour_id as usize].as_ref().expect("it has an embedding"));
            assert!((own - expected).abs() < 1e-6 && (f64::from(it.correlation) - own).abs() < 1e-6, "{it:?}");
            at += 1;
        }
    }
    assert_eq!(found.len(), at, "those without an embedding have no neighbours");
    assert!(found == run(&|_| {})?, "with the matrix");
    for number in 1..=3 {
        let folder = Shard::new(number, 3).unwrap().folder(&place.path().join("similarity"));
        let config = similarity::Config {
            features: place.path().join("features"),
            output: place.path().join("similarity"),
            measure: Measure::Embedding,
            top: TOP as u32,
            matrix: Matrix::None,
            shard: Shard::new(number, 3),
            ..Default::default()
        };
        similarity::run(&config, &Common::default())?.published().expect("it is published");
        assert!(folder.exists());
    }
    assert!(found == run(&|config| config.merge = true)?, "in shards");
    Ok(())
}

/// Reads the column in three engines; each prints the embeddings in the order of the ids as JSON.
const READ_EMBEDDINGS: &str = r#"
import json, duckdb, pandas, polars
plain = "features/*.parquet"
frame = polars.read_parquet(plain).sort("photo_id")
assert frame["embedding"].dtype == polars.Array(polars.Float32, 3), frame["embedding"].dtype
print(json.dumps(frame["embedding"].to_list()))
frame = pandas.read_parquet("features/part-00000.parquet").sort_values("photo_id")
print(json.dumps([None if it is None else [float(x) for x in it] for it in frame["embedding"]]))
print(json.dumps([None if it is None else list(it) for it, in duckdb.sql(f"SELECT embedding FROM '{plain}' ORDER BY photo_id").fetchall()]))
"#;

#[test]
fn python_reads_the_column() {
    let (Some(place), Some(mut python)) = (place(), python()) else { return };
    if !has_engines() {
        return;
    }
    segment(&config(&place));
    let output = python.current_dir(place.path("")).args(["-c", READ_EMBEDDINGS]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 3);
    for line in text.lines() {
        let found: Vec<Option<Vec<f32>>> = serde_json::from_str(line).unwrap();
        assert_eq!(found.len(), PHOTOS.len());
        for (found, (name, _, expected)) in found.iter().zip(PHOTOS) {
            assert_eq!(found.is_some(), expected.is_some(), "{name}");
            found.iter().zip(expected).for_each(|(found, expected)| assert_close(found, &expected));
        }
    }
}

//! Label sets other than the default one, from the source to the report: a data set that is folded to one of its own, a
//! source's own names, a parser's own labels; and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use crate::model::striped_jpeg;
use crate::parser::{declared, write_declared};
use crate::shared::{drawn_sample, library, shared};
use lookbook::dataset::{Dataset, PhotoRecord};
use lookbook::engine::Device;
use lookbook::error::Error;
use lookbook::features::{self, FeatureTable, rows};
use lookbook::graph::Loss;
use lookbook::labels::{CATEGORIES, LabelSet};
use lookbook::model::{Model, evaluation};
use lookbook::stage::{Common, Depth, reasons};
use lookbook::table;
use lookbook::{convert, evaluate, export, recommend, report, segment, similarity, train};

/// Six categories and three colours.
const LABELS: &str = r#"categories = ["none", "body", "top", "bottom", "whole", "extra"]
not_worn = ["body"]
[[colors]]
name = "dark"
rgb = [24, 24, 26]
[[colors]]
name = "light"
rgb = [235, 235, 230]
[[colors]]
name = "vivid"
rgb = [200, 40, 50]
[usual_share]
extra = 0.05
"#;

/// The colours' fold, and that of the categories.
const FOLD: &str = r#"[fold]
bk = "none"
face = "body"
hair = "body"
skin = "body"
T-shirt = "top"
blazer = "top"
blouse = "top"
sweater = "top"
jeans = "bottom"
legging = "bottom"
pants = "bottom"
shorts = "bottom"
skirt = "bottom"
socks = "bottom"
stocking = "bottom"
coat = "whole"
dress = "whole"
bag = "extra"
belt = "extra"
hat = "extra"
scarf = "extra"
shoe = "extra"
sunglass = "extra"
[colors]
black = "dark"
blue = "dark"
brown = "dark"
gray = "dark"
purple = "dark"
beige = "light"
white = "light"
pink = "light"
green = "vivid"
orange = "vivid"
red = "vivid"
yellow = "vivid"
"#;

const PHOTOS: u32 = 20;

fn common() -> Common {
    Common { seed: 4, threads: 2, ..Common::default() }
}

fn write(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, text).unwrap();
    path
}

fn converted(config: &convert::Config) -> Dataset {
    convert::run(config, &common()).unwrap().published().expect("it is published");
    Dataset::open(&config.output).unwrap()
}

/// The settings that fold the sample in `place`, which is drawn if it is not there.
fn folded(place: &Path, output: &str) -> convert::Config {
    let source = place.join("sample");
    if !source.exists() {
        drawn_sample(&source, PHOTOS);
    }
    convert::Config {
        source,
        output: place.join(output),
        labels: convert::Labels::File(write(place.join("labels.toml"), LABELS)),
        fold: Some(write(place.join("fold.toml"), FOLD)),
        ..convert::Config::default()
    }
}

fn training(place: &Path) -> train::Config {
    train::Config {
        dataset: place.join("dataset"),
        output: place.join("model"),
        epochs: 2,
        batch_size: 5,
        loss: Loss::Softmax,
        photo_width_px: 40,
        photo_height_px: 60,
        device: Device::Cpu,
        ..train::Config::default()
    }
}

fn photos(dataset: &Dataset) -> Vec<PhotoRecord> {
    dataset.photos(None).unwrap().map(|it| it.unwrap()).collect()
}

/// Runs similarity, recommend and report over the features in `place`; returns the page.
fn to_the_report(place: &Path, model: &Path, query: &Path) -> String {
    let config = similarity::Config {
        features: place.join("features"),
        output: place.join("similarity"),
        top: 3,
        ..Default::default()
    };
    similarity::run(&config, &common()).unwrap().published().expect("it is published");
    let config = recommend::Config { model: model.to_owned(), features: place.join("features"), ..Default::default() };
    let answers = recommend::run(&config, &[query.to_owned()], &common()).unwrap();
    assert_eq!(answers[0].problem, None);
    let config = report::Config {
        run: place.to_owned(),
        model: (model != place.join("model")).then(|| model.to_owned()),
        output: place.join("report"),
        photos: 1,
        ..Default::default()
    };
    report::run(&config, &common()).unwrap().published().expect("it is published");
    fs::read_to_string(config.output.join("index.html")).unwrap()
}

#[test]
fn a_data_set_folded_to_six_categories_goes_to_the_report() {
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let config = folded(place, "dataset");
    let dataset = converted(&config);
    let labels = dataset.labels();
    assert_eq!(labels.category_names(), "none, body, top, bottom, whole, extra");
    assert_eq!(labels.apparel_categories().collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!((labels.cell_count(), labels.cell_names()[0].as_str()), (12, "top_dark"));
    assert_eq!(labels.usual_share(5), 0.05, "as it was given");
    assert!(labels.usual_share(2) > 0.05 && labels.usual_share(4) < 1.0, "the others are measured: {labels:?}");

    // Pixel by pixel the fold of what the data set has without one.
    let plain = converted(&convert::Config {
        output: place.join("plain"),
        labels: convert::Labels::Cfpd,
        fold: None,
        ..config.clone()
    });
    let target =
        |name: &str| FOLD.lines().find_map(|it| it.strip_prefix(&format!("{name} = "))).map(|it| it.trim_matches('"'));
    let to: Vec<u8> = CATEGORIES.iter().map(|it| labels.category_named(target(it).unwrap()).unwrap()).collect();
    for (folded, plain) in photos(&dataset).iter().zip(photos(&plain)) {
        let expected: Vec<u8> = plain.category_map().iter().map(|&it| to[usize::from(it)]).collect();
        assert_eq!(folded.category_map(), expected, "{}", folded.file_name);
        assert!(folded.color_map().unwrap().iter().all(|&it| it <= 3));
    }

    let training = training(place);
    train::run(&training, &common()).unwrap().published().expect("it is published");
    assert_eq!(Model::open(&training.output).unwrap().labels().unwrap(), *labels);
    let card = fs::read_to_string(training.output.join("model.json")).unwrap();
    assert!(card.contains("\"bottom\"") && !card.contains("T-shirt"), "{card}");
    let found = evaluation::read(&training.output).unwrap();
    assert_eq!((found.confusion.len(), found.iou.len(), &found.labels), (6, 6, labels));
    assert_eq!(found.features[0].presence.as_ref().unwrap().categories.len(), 4);
    assert_eq!(found.confusion.iter().flatten().sum::<u64>(), 2 * 400 * 600);
    let again = evaluate::Config { dataset: place.join("dataset"), model: place.join("model"), ..Default::default() };
    assert!((evaluate::run(&again, &common()).unwrap().0.mean_iou - found.mean_iou).abs() < 1e-12);
    let export = export::Config { model: place.join("model"), output: place.join("export") };
    export::run(&export, &common()).unwrap().published().expect("it is published");
    assert!(fs::read_to_string(place.join("export/README.md")).unwrap().contains("into 6 categories"));

    // By the labels and by the model the same columns.
    let by_labels = segment::Config {
        catalogue: place.join("dataset"),
        output: place.join("features"),
        from: segment::LabelSource::Labels,
        masks: segment::Masks::Coco,
        ..Default::default()
    };
    segment::run(&by_labels, &common()).unwrap().published().expect("it is published");
    let part = place.join("features").join(table::part_name(0));
    let batch = table::read_table(&part, rows::TABLE, &[], 100).unwrap().next().unwrap().unwrap();
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|it| it.name().as_str()).collect();
    let own =
        ["px_none", "px_body", "px_top", "px_bottom", "px_whole", "px_extra", "apparel_px", "top_dark", "top_light"];
    assert_eq!((names.len(), &names[9..18]), (9 + 6 + 1 + 12 + 2, &own[..]));
    assert_eq!(features::labels_of(&place.join("features")).unwrap(), *labels);
    let of_labels = FeatureTable::open(&place.join("features")).unwrap();
    assert!(of_labels.cells.iter().any(|it| *it > 0.0) && of_labels.labels == *labels);
    let coco = fs::read_to_string(place.join("features/coco/part-00000.json")).unwrap();
    assert!(coco.contains("\"name\":\"bottom\"") && !coco.contains("T-shirt"));
    let by_model = segment::Config {
        from: segment::LabelSource::Model,
        model: place.join("model"),
        masks: segment::Masks::None,
        ..by_labels.clone()
    };
    segment::run(&by_model, &common()).unwrap().published().expect("it is published");
    assert_eq!(FeatureTable::open(&place.join("features")).unwrap().labels, *labels);
    for stale in [reasons(&by_model, &common(), Depth::Contents), reasons(&training, &common(), Depth::Contents)] {
        assert_eq!(stale.unwrap(), Vec::<String>::new());
    }

    let html = to_the_report(place, &place.join("model"), &place.join("sample/image/0001.jpg"));
    assert!(html.contains(">bottom<") && html.contains(">vivid<") && !html.contains("T-shirt"));

    // Another label set in the same folder: everything is made anew, and no row of the old one stays.
    let other = segment::Config { catalogue: place.join("plain"), ..by_labels };
    let summary = segment::run(&other, &common()).unwrap().published().expect("it is published");
    assert_eq!(summary.counts["segmented"], PHOTOS);
    assert!(FeatureTable::open(&place.join("features")).unwrap().labels.is_cfpd());
}

#[test]
fn unlike_label_sets_are_refused_by_name() {
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let (six, common) = (folded(place, "six"), common());
    converted(&six);
    let dataset =
        converted(&convert::Config { output: place.join("dataset"), labels: convert::Labels::Cfpd, fold: None, ..six });
    assert!(dataset.labels().is_cfpd());
    let training = train::Config { epochs: 1, ..training(place) };
    train::run(&training, &common).unwrap().published().expect("it is published");
    let features = segment::Config {
        catalogue: place.join("six"),
        output: place.join("features"),
        from: segment::LabelSource::Labels,
        ..Default::default()
    };
    segment::run(&features, &common).unwrap().published().expect("it is published");
    let (six, model) = (place.join("six"), place.join("model"));
    let by_model = segment::Config { from: segment::LabelSource::Model, model: model.clone(), ..features };
    let judged = evaluate::Config { dataset: six.clone(), model: model.clone(), ..Default::default() };
    let query = recommend::Config { model: model.clone(), features: place.join("features"), ..Default::default() };
    let start = train::Config {
        dataset: six.clone(),
        start_from: Some(model.clone()),
        output: place.join("next"),
        ..training.clone()
    };
    let taught = train::Config {
        dataset: six,
        unlabelled: Some(place.join("sample/image")),
        unlabelled_model: Some(model.clone()),
        output: place.join("next"),
        ..training
    };
    let photo = place.join("sample/image/0001.jpg");
    let refused: [(&str, Error); 5] = [
        ("segment.model", segment::run(&by_model, &common).map(drop).expect_err("another set")),
        ("evaluate.model", evaluate::run(&judged, &common).map(drop).expect_err("another set")),
        ("recommend.model", recommend::run(&query, &[photo], &common).map(drop).expect_err("another set")),
        ("train.start_from", train::run(&start, &common).map(drop).expect_err("another set")),
        ("train.unlabelled_model", train::run(&taught, &common).map(drop).expect_err("another set")),
    ];
    for (setting, error) in refused {
        let text = error.to_string();
        assert!(text.contains(setting) && text.contains("category 0 is 'bk' (not worn)"), "{text}");
        assert!(text.contains(&model.display().to_string()) && error.exit_code() == 2, "{text}");
    }
    let page = report::Config { run: place.to_owned(), output: place.join("report"), ..Default::default() };
    fs::rename(place.join("six"), place.join("dataset-six")).unwrap();
    fs::rename(place.join("dataset"), place.join("other")).unwrap();
    fs::rename(place.join("dataset-six"), place.join("dataset")).unwrap();
    let text = report::run(&page, &common).map(drop).expect_err("another set").to_string();
    assert!(text.contains("report.model") && text.contains("'none' (not worn)"), "{text}");
    assert!(!page.output.exists());
}

#[test]
fn label_sets_that_cannot_be_are_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let good = folded(place, "dataset");
    let with = |labels: &str, fold: &str| {
        let labels = convert::Labels::File(write(place.join("other.toml"), labels));
        let fold = Some(write(place.join("other_fold.toml"), fold));
        convert::run(&convert::Config { labels, fold, ..good.clone() }, &common()).map(drop).expect_err("it cannot be")
    };
    let many = |count: usize| format!("categories = {:?}\n", (0..count).map(|it| format!("c{it}")).collect::<Vec<_>>());
    for (count, named) in [(1, "has 1 categories"), (65, "has 65 categories")] {
        let text = with(&many(count), FOLD).to_string();
        assert!(text.contains("convert.labels") && text.contains(named) && text.contains("2 to 64"), "{text}");
    }
    for (from, to, named) in [
        ("[\"body\"]", "[\"head\"]", "not_worn names 'head'"),
        ("\"top\"", "\"2nd\"", "'2nd'"),
        ("\"top\"", "\"Bottom\"", "px_bottom"),
        ("\"vivid\"", "\"a b\"", "vivid"),
        ("rgb = [24, 24, 26]", "", "rgb"),
    ] {
        assert!(LABELS.contains(from), "{from}");
        let error = with(&LABELS.replace(from, to), FOLD);
        let text = error.to_string();
        assert!(text.contains("convert.") && text.contains(named) && error.exit_code() == 2, "{to}: {text}");
    }
    let text = with(LABELS, &FOLD.replace("skirt = \"bottom\"\n", "")).to_string();
    assert!(text.contains("convert.fold") && text.contains("'skirt'") && text.contains("none, body, top"), "{text}");
    let text = with(LABELS, &FOLD.replace("pink = \"light\"\n", "")).to_string();
    assert!(text.contains("convert.fold") && text.contains("'pink'"), "{text}");
    let text = with(LABELS, &FOLD.replace("\"vivid\"", "\"neon\"")).to_string();
    assert!(text.contains("'neon'") && text.contains("bk, dark, light, vivid"), "{text}");
    let source = convert::Config { labels: convert::Labels::Source, ..good.clone() };
    let text = convert::run(&source, &common()).map(drop).expect_err("both").to_string();
    assert!(text.contains("convert.labels") && text.contains("convert.fold"), "{text}");
    assert!(!good.output.exists(), "nothing is half-written");
}

#[test]
fn a_set_of_one_colour_has_one_cell_for_each_category() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let labels = "categories = [\"none\", \"worn\"]\n[[colors]]\nname = \"any\"\nrgb = [128, 128, 128]\n";
    let category = |name: &&str| {
        let is_worn = LabelSet::cfpd().is_apparel(LabelSet::cfpd().category_named(name).unwrap());
        format!("{name} = \"{}\"\n", if is_worn { "worn" } else { "none" })
    };
    let colors: Vec<_> = lookbook::labels::COLORS[1..].iter().map(|it| format!("{it} = \"any\"\n")).collect();
    let colors = colors.concat();
    let fold = format!("[fold]\n{}[colors]\n{colors}", CATEGORIES.iter().map(category).collect::<String>());
    let config = folded(place, "dataset");
    let config = convert::Config {
        labels: convert::Labels::File(write(place.join("two.toml"), labels)),
        fold: Some(write(place.join("two_fold.toml"), &fold)),
        ..config
    };
    assert_eq!(converted(&config).labels().cell_names(), ["worn_any"]);
    let features = segment::Config {
        catalogue: place.join("dataset"),
        output: place.join("features"),
        from: segment::LabelSource::Labels,
        ..Default::default()
    };
    segment::run(&features, &common()).unwrap().published().expect("it is published");
    let table = FeatureTable::open(&place.join("features")).unwrap();
    assert!(table.cells.iter().all(|share| (0.9..=1.0).contains(share)), "{:?}", table.cells);
    for measure in similarity::Measure::ALL.into_iter().filter(|it| *it != similarity::Measure::Embedding) {
        let config = similarity::Config {
            features: place.join("features"),
            output: place.join("similarity"),
            measure,
            ..Default::default()
        };
        similarity::run(&config, &common()).unwrap().published().expect("it is published");
    }
}

#[test]
fn a_parser_with_labels_of_its_own_goes_to_the_report() {
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let [shop, parser] = ["shop", "colours"].map(|it| place.join(it));
    fs::create_dir(&shop).unwrap();
    for (name, colors) in [("a.jpg", [2, 10]), ("b.jpg", [3, 10]), ("c.jpg", [2, 3])] {
        fs::write(shop.join(name), striped_jpeg(400, 600, &colors)).unwrap();
    }
    let text = declared();
    let (own, _) = text.split_once("[fold]").unwrap();
    write_declared(&parser, own);
    let labels = Model::open(&parser).unwrap().labels().unwrap();
    assert_eq!(labels.category_names(), "background, paper, ink, berry, sea, sand, bark");
    assert_eq!(labels.cell_count(), 6 * 12);
    let config = segment::Config {
        catalogue: shop.clone(),
        model: parser.clone(),
        output: place.join("features"),
        masks: segment::Masks::LabelStudio,
        ..Default::default()
    };
    segment::run(&config, &common()).unwrap().published().expect("it is published");
    let interface = fs::read_to_string(place.join("features/label-studio/interface.xml")).unwrap();
    assert!(interface.contains("<Label value=\"berry\""), "{interface}");
    let features = FeatureTable::open(&place.join("features")).unwrap();
    let share =
        |photo: usize, cell: &str| features.row(photo)[labels.cell_names().iter().position(|it| it == cell).unwrap()];
    assert!((share(0, "ink_black") - 0.5).abs() < 0.02 && (share(0, "berry_red") - 0.5).abs() < 0.02);
    assert!((share(1, "sea_blue") - 0.5).abs() < 0.02 && features.labels == labels);
    let html = to_the_report(place, &parser, &shop.join("a.jpg"));
    assert!(html.contains(">berry<") && html.contains(">sea<") && !html.contains("T-shirt"));

    // A label set in its folder: what is worn, other colours, other names by a fold.
    let set = "categories = [\"none\", \"dark\", \"bright\", \"body\"]\nnot_worn = [\"body\"]\n\
               [[colors]]\nname = \"night\"\nrgb = [20, 20, 20]\n[[colors]]\nname = \"fire\"\nrgb = [200, 30, 40]\n";
    let fold = "[fold]\npaper = \"none\"\nink = \"dark\"\nsea = \"dark\"\nberry = \"bright\"\nsand = \"body\"\nbark = \"body\"\n";
    write_declared(&parser, &format!("labels = \"labels.toml\"\n{own}{fold}"));
    fs::write(parser.join("labels.toml"), set).unwrap();
    let summary = segment::run(&config, &common()).unwrap().published().expect("it is published");
    assert!(summary.inputs.iter().any(|it| it.path.ends_with("labels.toml")));
    let features = FeatureTable::open(&place.join("features")).unwrap();
    assert_eq!(features.labels.cell_names(), ["dark_night", "dark_fire", "bright_night", "bright_fire"]);
    assert!((features.row(0)[0] - 0.5).abs() < 0.02 && (features.row(0)[3] - 0.5).abs() < 0.02);
    assert!((features.row(2)[0] - 1.0).abs() < 0.02, "ink and sea");
    let stale = reasons(&config, &common(), Depth::Contents).unwrap();
    assert_eq!(stale, Vec::<String>::new());
    fs::write(parser.join("labels.toml"), set.replace("night", "dusk")).unwrap();
    assert!(reasons(&config, &common(), Depth::Contents).unwrap()[0].contains("labels.toml was changed"));

    // The labels of its own are not those of a data set.
    write_declared(&parser, own);
    drawn_sample(&place.join("sample"), PHOTOS);
    let dataset = convert::Config { source: place.join("sample"), output: place.join("dataset"), ..Default::default() };
    converted(&dataset);
    let judged = evaluate::Config { dataset: place.join("dataset"), model: parser.clone(), ..Default::default() };
    let refused = evaluate::run(&judged, &common()).expect_err("other labels").to_string();
    assert!(refused.contains("evaluate.model") && refused.contains("'background' (not worn)"), "{refused}");
    // Labels that cannot be columns.
    for (from, to, named) in [("\"ink\"", "\"1nk\"", "'1nk'"), ("\"ink\"", "\"Berry\"", "px_berry")] {
        write_declared(&parser, &own.replace(from, to));
        let refused = Model::open(&parser).expect_err("no column").to_string();
        assert!(refused.contains("parser.toml") && refused.contains(named) && refused.contains("[fold]"), "{refused}");
    }
}

#[test]
fn the_59_tags_of_clothing_co_parsing_are_a_label_set() {
    let Some(source) = shared("data/ccp") else { return };
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let config = convert::Config {
        source: source.clone(),
        output: place.join("dataset"),
        labels: convert::Labels::Source,
        ..Default::default()
    };
    let dataset = converted(&config);
    let labels = dataset.labels();
    assert_eq!((labels.category_count(), labels.category_name(0)), (59, "null"));
    let not_worn: Vec<_> = labels.categories().iter().filter(|it| !it.is_apparel).map(|it| &it.name[..]).collect();
    assert_eq!(not_worn, ["null", "hair", "skin"]);
    assert_eq!(labels.cell_count(), 56 * 12);
    assert!(photos(&dataset).iter().any(|it| it.category_map().iter().any(|&category| category > 23)));
    train::run(&training(place), &common()).unwrap().published().expect("it is published");
    let found = evaluation::read(&place.join("model")).unwrap();
    assert_eq!((found.confusion.len(), found.labels == *labels), (59, true));
    for from in [segment::LabelSource::Model, segment::LabelSource::Labels] {
        let features = segment::Config {
            catalogue: place.join("dataset"),
            model: place.join("model"),
            output: place.join("features"),
            from,
            ..Default::default()
        };
        segment::run(&features, &common()).unwrap().published().expect("it is published");
    }
    let table = FeatureTable::open(&place.join("features")).unwrap();
    assert!(table.cells.iter().filter(|it| **it > 0.0).count() > 4 * table.len(), "people wear several things");
    let html = to_the_report(place, &place.join("model"), &source.join("photos/0001.jpg"));
    assert!(html.contains(">t-shirt<") || html.contains(">shoes<"));
}

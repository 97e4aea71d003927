//! Third-party parsers: networks that name a pixel by its colour, in every declared form, beside a second reading of the
//! declaration in Python; the numbers that other programs feed their networks; and what is refused.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::model::striped_jpeg;
use crate::python::python;
use crate::shared::{drawn_sample, library, shared};
use lookbook::engine::{Engine, PrecisionChoice};
use lookbook::gates::Gates;
use lookbook::graph::builder::{Builder, Dim};
use lookbook::graph::onnx::{Attribute, FLOAT, FLOAT16, INT32, INT64, UINT8};
use lookbook::labels::{COLOR_RGB, LabelSet};
use lookbook::model::Model;
use lookbook::parser::{Parser, Values, check};
use lookbook::photo::{self, Photo};
use lookbook::settings::Settings;
use lookbook::stage::{Common, Summary};
use lookbook::{convert, evaluate, export, files, recommend, report, run, segment};

/// Labels with their colours (ids) and categories.
const LABELS: [(&str, u8, &str); 6] = [
    ("paper", 11, "bk"),
    ("ink", 2, "coat"),
    ("berry", 10, "dress"),
    ("sea", 3, "jeans"),
    ("sand", 1, "skin"),
    ("bark", 4, "hair"),
];
const SCALE: f32 = 1.0 / 255.0;
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// A form of the network.
#[derive(Debug, Clone, Copy)]
struct Form {
    nhwc: bool,
    /// `f32`, `f16` or `u8`.
    element: &'static str,
    bgr: bool,
    batch: Dim,
    fit: &'static str,
    resample: &'static str,
    /// `logits`, `probabilities` or `label_map`.
    kind: &'static str,
    resize: Option<&'static str>,
    /// Type of a label map, and whether it has a channel.
    classes: (i32, bool),
}

const FORM: Form = Form {
    nhwc: false,
    element: "f32",
    bgr: false,
    batch: Dim::Batch,
    fit: "stretch",
    resample: "bilinear",
    kind: "logits",
    resize: None,
    classes: (INT64, false),
};

const SIZE: [usize; 2] = [48, 64];

/// What the network is fed for a byte of a channel in its own order.
fn fed(form: Form, channel: usize, byte: u8) -> f32 {
    if form.element == "u8" { f32::from(byte) } else { (f32::from(byte) * SCALE - MEAN[channel]) / STD[channel] }
}

/// A network whose scores are highest for the label of the nearest colour; its answer has half the input's size.
fn network(form: Form) -> Vec<u8> {
    let mut builder = Builder::default();
    let element = match form.element {
        "f16" => FLOAT16,
        "u8" => UINT8,
        _ => FLOAT,
    };
    let [width, height] = SIZE;
    let dims = |channels: usize, scale: usize| {
        let [rows, columns] = [height / scale, width / scale].map(Dim::Fixed);
        if form.nhwc {
            [form.batch, rows, columns, Dim::Fixed(channels)]
        } else {
            [form.batch, Dim::Fixed(channels), rows, columns]
        }
    };
    let mut x = builder.input("pixels", element, &dims(3, 1));
    if element != FLOAT {
        x = builder.cast(&x, FLOAT);
    }
    if form.nhwc {
        x = builder.transpose(&x, &[0, 3, 1, 2]);
    }
    let sharpness = if form.element == "u8" { 0.001 } else { 1.0 };
    let (mut weights, mut biases) = (Vec::new(), Vec::new());
    for (_, color, _) in LABELS {
        let rgb = COLOR_RGB[usize::from(color)];
        let color = [0, 1, 2].map(|channel| fed(form, channel, rgb[if form.bgr { 2 - channel } else { channel }]));
        weights.extend(color.map(|it| 2.0 * it * sharpness));
        biases.push(-color.iter().map(|it| it * it).sum::<f32>() * sharpness);
    }
    let weight = builder.weight("weight", &[LABELS.len(), 3, 1, 1], &weights);
    let bias = builder.weight("bias", &[LABELS.len()], &biases);
    let mut y = builder.node("Conv", &[&x, &weight, &bias], vec![Attribute::ints("strides", &[2, 2])]);
    if form.kind == "label_map" {
        let (class, with_channel) = form.classes;
        let keep = Attribute::int("keepdims", i64::from(with_channel));
        y = builder.node("ArgMax", &[&y], vec![Attribute::int("axis", 1), keep]);
        if class != INT64 {
            y = builder.cast(&y, class);
        }
        let mut dims = dims(1, 2).to_vec();
        if with_channel && form.nhwc {
            y = builder.transpose(&y, &[0, 2, 3, 1]);
        }
        if !with_channel {
            dims.remove(if form.nhwc { 3 } else { 1 });
        }
        builder.output("labels", &y, class, &dims);
    } else {
        if form.kind == "probabilities" {
            y = builder.node("Softmax", &[&y], vec![Attribute::int("axis", 1)]);
        }
        if form.nhwc {
            y = builder.transpose(&y, &[0, 2, 3, 1]);
        }
        let scores = if element == FLOAT16 { FLOAT16 } else { FLOAT };
        if scores == FLOAT16 {
            y = builder.cast(&y, FLOAT16);
        }
        builder.output("scores", &y, scores, &dims(LABELS.len(), 2));
    }
    builder.finish("colours", "", &[])
}

fn declaration(form: Form) -> String {
    let layout = if form.nhwc { "nhwc" } else { "nchw" };
    let Form { element, fit, resample, kind, .. } = form;
    let [width, height] = SIZE;
    let mut text =
        format!("name = \"colours\"\nlicense = \"MIT\"\nnetwork = \"network.onnx\"\n[input]\nlayout = \"{layout}\"\n");
    let _ = writeln!(text, "type = \"{element}\"\nwidth_px = {width}\nheight_px = {height}\nfit = \"{fit}\"");
    let _ = writeln!(text, "resample = \"{resample}\"");
    if fit == "letterbox" {
        text += "fill = [114, 114, 114]\n";
    }
    if form.bgr {
        text += "color = \"bgr\"\n";
    }
    if element != "u8" {
        let _ = writeln!(text, "scale = {SCALE}\nmean = {MEAN:?}\nstd = {STD:?}");
    }
    let _ = writeln!(text, "[output]\nkind = \"{kind}\"\nlayout = \"{layout}\"");
    if let Some(resize) = form.resize {
        let _ = writeln!(text, "resize = \"{resize}\"");
    }
    let _ = writeln!(text, "labels = {:?}\n[fold]", LABELS.map(|(label, ..)| label));
    for (label, _, category) in LABELS {
        let _ = writeln!(text, "{label} = \"{category}\"");
    }
    text
}

/// A good declaration.
pub(crate) fn declared() -> String {
    declaration(FORM)
}

/// Writes a good parser with this text as its declaration.
pub(crate) fn write_declared(folder: &Path, text: &str) {
    write_parser(folder, FORM);
    fs::write(folder.join("parser.toml"), text).unwrap();
}

fn write_parser(folder: &Path, form: Form) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("network.onnx"), network(form)).unwrap();
    fs::write(folder.join("parser.toml"), declaration(form)).unwrap();
}

/// Every form: all pairs of what may interact, the rest in turn.
fn forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for nhwc in [false, true] {
        for element in ["f32", "f16", "u8"] {
            for (batch, bgr) in [(Dim::Batch, false), (Dim::Fixed(1), true), (Dim::Fixed(3), false)] {
                for (kind, resize) in [("logits", None), ("logits", Some("labels")), ("probabilities", None)] {
                    forms.push(Form { nhwc, element, bgr, batch, kind, resize, ..FORM });
                }
                for classes in [(UINT8, false), (INT32, true), (INT64, true), (INT64, false)] {
                    forms.push(Form { nhwc, element, bgr, batch, kind: "label_map", classes, ..FORM });
                }
            }
        }
    }
    let fits = ["stretch", "letterbox", "crop"].map(|fit| ["bilinear", "bicubic", "nearest"].map(|it| (fit, it)));
    for (at, form) in forms.iter_mut().enumerate() {
        (form.fit, form.resample) = fits.as_flattened()[at % 9];
    }
    for (fit, resample) in fits.into_iter().flatten() {
        for (kind, resize) in [("logits", None), ("logits", Some("labels")), ("label_map", None)] {
            forms.push(Form { fit, resample, kind, resize, ..FORM });
        }
    }
    forms
}

fn write_png(path: &Path, photo: &Photo) {
    let Photo { width_px, height_px, rgb } = photo;
    let picture = image::RgbImage::from_raw(*width_px, *height_px, rgb.clone()).unwrap();
    picture.save_with_format(path, image::ImageFormat::Png).unwrap();
}

/// Photos of the sample, of shapes of all kinds, and real ones where they are.
fn write_photos(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let source = folder.join("sample");
    drawn_sample(&source, 2);
    let drawn = files::entries(&source.join("image")).unwrap();
    assert_eq!(drawn.len(), 2);
    // Small, for they are labelled in every form, twice.
    let mut photos: Vec<Photo> = drawn.iter().map(|it| photo::fit(&photo::read(it).unwrap(), 200, 300)).collect();
    photos.push(photo::resize(&photos[0], 48, 64));
    photos.push(photo::resize(&photos[0], 301, 77));
    photos.push(photo::resize(&photos[1], 20, 31));
    if let Some(real) = shared("data/ccp/photos") {
        let read = |it: &PathBuf| photo::fit(&photo::read(it).unwrap(), 180, 270);
        photos.extend(files::entries(&real).unwrap().iter().take(2).map(read));
    }
    for (number, photo) in photos.iter().enumerate() {
        write_png(&folder.join(format!("{number}.png")), photo);
    }
}

#[test]
fn every_form_gives_the_labels_that_python_gives() {
    let Some(mut python) = python() else { return };
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let photos = place.path().join("photos");
    write_photos(&photos);
    let forms = forms();
    let folders: Vec<PathBuf> = (0..forms.len()).map(|it| place.path().join(format!("parser-{it}"))).collect();
    folders.iter().zip(&forms).for_each(|(folder, form)| write_parser(folder, *form));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/parser_in_python.py");
    let output = python.arg(script).arg(&photos).args(&folders).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let is_picture = |it: &PathBuf| it.extension().is_some_and(|it| it == "png");
    let pictures: Vec<_> = files::entries(&photos).unwrap().into_iter().filter(is_picture).collect();
    assert!(pictures.len() >= 5 && forms.len() > 150);
    for (folder, form) in folders.iter().zip(&forms) {
        let mut network =
            Parser::read(&files::OpenFolder::open(folder).unwrap()).unwrap().network(Engine::default()).unwrap();
        let photos: Vec<Photo> = pictures.iter().map(|it| photo::read(it).unwrap()).collect();
        let canvases: Vec<_> = photos.iter().map(|it| network.layout().lay(it)).collect();
        // All as one batch, which a fixed batch divides.
        let answers = network.run(&canvases.iter().collect::<Vec<_>>()).unwrap();
        for (((picture, photo), canvas), answer) in pictures.iter().zip(&photos).zip(&canvases).zip(&answers) {
            let found = network.layout().label_map(canvas, answer, photo.size()).unwrap();
            let of_python = |folder: PathBuf| {
                image::open(folder.join(picture.file_name().unwrap())).unwrap().into_luma8().into_raw()
            };
            let (expected, sure) = (of_python(folder.clone()), of_python(folder.join("sure")));
            let categories = LABELS.map(|(_, _, name)| LabelSet::cfpd().category_named(name).unwrap());
            // Filters round to bytes, so colours may differ by one: only pixels that this does not rename are compared.
            let is_exact = form.resample == "nearest";
            let compared: Vec<_> = (0..found.len()).filter(|&pixel| is_exact || sure[pixel] > 0).collect();
            let equal =
                compared.iter().filter(|&&pixel| found[pixel] == categories[usize::from(expected[pixel])]).count();
            let [equal, compared] = [equal, compared.len()].map(|it| it as f64);
            let of = format!("{form:?}, {}", picture.display());
            assert!(compared >= 0.95 * found.len() as f64, "{of}: {compared} pixels of {} are sure", found.len());
            // Sums differ by their last digit.
            assert!(equal >= 0.9999 * compared, "{of}: {equal} of {compared} pixels are equal");
        }
    }
    // The command says the same.
    let request = check::Request {
        folder: folders[0].clone(),
        photo: Some(pictures[0].clone()),
        expect: Some(folders[0].join(pictures[0].file_name().unwrap())),
        ..Default::default()
    };
    let report = check::run(&request, &Common::default()).unwrap();
    let of_photo = report.photo.as_ref().unwrap();
    assert!(of_photo.equal_share.unwrap() >= 0.995, "{report}");
    assert!((of_photo.shares.iter().map(|it| it.1).sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(report.to_string().contains("berry                    dress"), "{report}");
}

#[test]
fn networks_are_fed_what_other_programs_feed_them() {
    let Some(data) = shared("data") else { return };
    let oracle: Value = serde_json::from_str(include_str!("../data/parser_inputs.json")).unwrap();
    let cases = oracle["cases"].as_array().unwrap();
    assert!(cases.len() >= 9);
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("network.onnx"), network(FORM)).unwrap();
    for case in cases {
        let text = |name: &str| case[name].as_str().unwrap();
        let toml = format!(
            "name = \"x\"\nlicense = \"MIT\"\nnetwork = \"network.onnx\"\n[input]\n{}\n[output]\nkind = \"logits\"\nlabels = [\"bk\"]\n",
            text("input")
        );
        fs::write(place.path().join("parser.toml"), toml).unwrap();
        let parser = Parser::read(&files::OpenFolder::open(place.path()).unwrap()).unwrap();
        let input = &parser.declaration().input;
        let photo = photo::read(&data.join(text("photo"))).unwrap();
        let Values::F32(values) = parser.layout().lay(&photo).values else { panic!("they are f32") };
        let [columns, rows] = [input.width_px, input.height_px].map(|it| it as usize);
        assert_eq!(values.len(), 3 * rows * columns);
        let samples = case["samples"].as_array().unwrap();
        assert!(samples.len() >= 100);
        for sample in samples {
            let number = |at: usize| sample[at].as_f64().unwrap();
            let [channel, row, column] = [0, 1, 2].map(|at| number(at) as usize);
            let found = f64::from(values[(channel * rows + row) * columns + column]);
            // One step of a byte.
            let step = f64::from(input.scale.unwrap() as f32 / input.std.map_or(1.0, |it| it[channel])) * 1.001;
            let expected = number(3);
            assert!((found - expected).abs() <= step, "{}, {}: {sample}: {found}", text("made_by"), text("photo"));
        }
    }
}

/// What opening or checking the folder says.
fn problem(folder: &Path) -> String {
    let request = check::Request { folder: folder.to_owned(), ..Default::default() };
    check::run(&request, &Common::default()).expect_err("it is refused").with_causes()
}

#[test]
fn a_network_that_does_not_fit_its_declaration_is_refused_with_both_values() {
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    for (form, from, to, named) in [
        (
            FORM,
            "layout = \"nchw\"\ntype",
            "layout = \"nhwc\"\ntype",
            "input.layout is nhwc, with 3 channels at place 3",
        ),
        (FORM, "type = \"f32\"", "type = \"f16\"", "input.type is f16, but 'pixels' takes f32"),
        (FORM, "width_px = 48", "width_px = 50", "input.width_px is 50, but 'pixels' is [?, 3, 64, 48]"),
        (FORM, "height_px = 64", "height_px = 63", "input.height_px is 63"),
        (FORM, "[input]\n", "[input]\nname = \"photo\"\n", "input.name is 'photo', but its inputs are 'pixels'"),
        (FORM, "[output]\n", "[output]\nname = \"logits\"\n", "output.name is 'logits', but its outputs are 'scores'"),
        (
            FORM,
            "\"bark\"]",
            "\"bark\", \"bk\"]",
            "output.labels has 7 names, at place 1 of nchw, but 'scores' is [?, 6, 32, 24]",
        ),
        (FORM, "kind = \"logits\"", "kind = \"label_map\"", "output.kind is label_map"),
        (
            Form { kind: "label_map", ..FORM },
            "kind = \"label_map\"",
            "kind = \"logits\"",
            "logits, of f32 or f16, but 'labels' holds i64",
        ),
        (FORM, "bark = \"hair\"\n", "", "'bark'"),
        (FORM, "network.onnx", "other.onnx", "network is 'other.onnx', but the folder has no such file"),
        (FORM, "[input]", "fold = \"atr.toml\"\n[input]", "fold"),
        (FORM, "[output]", "[colors]\nfile = \"c.parquet\"\n[output]", "colors.file is 'c.parquet'"),
    ] {
        write_parser(folder, form);
        let text = declaration(form);
        assert!(text.contains(from), "{from}");
        fs::write(folder.join("parser.toml"), text.replacen(from, to, 1)).unwrap();
        let said = problem(folder);
        assert!(said.contains(named) && said.contains(folder.to_str().unwrap()), "{to}: {said}");
    }
}

/// A network with the given inputs and outputs that does nothing else.
fn passing(inputs: &[(&str, i32, &[Dim])], outputs: &[(&str, i32, &[Dim])]) -> Vec<u8> {
    let mut builder = Builder::default();
    let values: Vec<_> = inputs.iter().map(|(name, element, dims)| builder.input(name, *element, dims)).collect();
    for (name, element, dims) in outputs {
        builder.output(name, &values[0], *element, dims);
    }
    builder.finish("passing", "", &[])
}

#[test]
fn networks_of_other_shapes_and_broken_files_are_refused_by_name() {
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    write_parser(folder, FORM);
    let good = network(FORM);
    let [rows, columns, three] = [64, 48, 3].map(Dim::Fixed);
    let image = [Dim::Batch, three, rows, columns];
    let with_data = |location: &str| {
        // The first weight lies in a file: bytes of `TensorProto` with data_location and external_data.
        let mut tensor = vec![8, 6, 8, 3, 8, 1, 8, 1, 16, 1];
        tensor.extend([66, 6]);
        tensor.extend(b"weight");
        let entry = [&[10, 8][..], b"location", &[18, location.len() as u8], location.as_bytes()].concat();
        tensor.extend([106, entry.len() as u8]);
        tensor.extend(entry);
        tensor.extend([112, 1]);
        let graph = [&[42, tensor.len() as u8][..], &tensor].concat();
        [&[58, graph.len() as u8][..], &graph].concat()
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "has no graph"),
        (b"not a network".to_vec(), "ONNX file"),
        (good[..good.len() / 2].to_vec(), "network.onnx"),
        (good[..good.len() - 1].to_vec(), "is not a whole ONNX file"),
        (
            with_data("weights.bin"),
            "the place of the weight 'weight' is 'weights.bin', but the folder has no such file",
        ),
        (with_data("../weights.bin"), "the place of the weight 'weight' is '../weights.bin'"),
        (with_data("/etc/passwd"), "'/etc/passwd'"),
        (
            passing(&[("pixels", FLOAT, &image[1..])], &[("y", FLOAT, &image[1..])]),
            "of 4 dimensions, but 'pixels' is [3, 64, 48]",
        ),
        (
            passing(&[("pixels", FLOAT, &image), ("size", FLOAT, &image)], &[("y", FLOAT, &image)]),
            "input.name is missing",
        ),
        (
            passing(&[("pixels", FLOAT, &image)], &[("y", FLOAT, &image), ("z", FLOAT, &image)]),
            "output.name is missing, and its outputs are 'y', 'z'",
        ),
        (
            passing(&[("pixels", FLOAT, &image)], &[("y", FLOAT, &image)]),
            "output.labels has 6 names, at place 1 of nchw, but 'y' is [?, 3, 64, 48]",
        ),
        (
            passing(
                &[("pixels", FLOAT, &[Dim::Fixed(0), three, rows, columns])],
                &[("y", FLOAT, &[Dim::Fixed(0), three, rows, columns])],
            ),
            "it takes no photo",
        ),
    ];
    for (content, named) in cases {
        fs::write(folder.join("network.onnx"), content).unwrap();
        let said = problem(folder);
        assert!(said.contains(named) && said.contains("network.onnx"), "{named}: {said}");
    }
    // Names both of two inputs, one of which nobody feeds.
    let text = declaration(FORM).replacen("[input]\n", "[input]\nname = \"pixels\"\n", 1);
    fs::write(folder.join("parser.toml"), text).unwrap();
    let two = passing(&[("pixels", FLOAT, &image), ("size", FLOAT, &image)], &[("y", FLOAT, &image)]);
    fs::write(folder.join("network.onnx"), two).unwrap();
    assert!(problem(folder).contains("'pixels', 'size'; only one can be fed"));
}

/// Places for a parser to work in: two photos, a data set, the parser's folder, and where features go.
struct SmallPlace {
    place: tempfile::TempDir,
    shop: PathBuf,
    dataset: PathBuf,
    parser: PathBuf,
    features: PathBuf,
}

/// `None`, said aloud, without the library.
fn small_place() -> Option<SmallPlace> {
    library()?;
    let place = tempfile::tempdir().unwrap();
    let [shop, source, dataset, parser, features] =
        ["shop", "source", "dataset", "colours", "features"].map(|it| place.path().join(it));
    fs::create_dir(&shop).unwrap();
    for (name, colors) in [("a.jpg", [2, 10]), ("b.jpg", [3, 10])] {
        fs::write(shop.join(name), striped_jpeg(400, 600, &colors)).unwrap();
    }
    drawn_sample(&source, 24);
    let config = convert::Config { source, output: dataset.clone(), ..Default::default() };
    convert::run(&config, &Common::default()).unwrap().published().expect("published");
    write_parser(&parser, FORM);
    Some(SmallPlace { place, shop, dataset, parser, features })
}

#[test]
fn every_command_takes_a_parser_and_its_rows_know_all_of_it() {
    let Some(SmallPlace { place, shop, dataset, parser, features }) = small_place() else { return };
    let common = Common::default();
    let config = segment::Config {
        catalogue: shop.clone(),
        model: parser.clone(),
        output: features.clone(),
        ..Default::default()
    };
    let run = || segment::run(&config, &common).unwrap().published().expect("it is published");
    let known = |summary: &Summary| summary.counts.count("known");
    let first = run();
    assert_eq!(known(&first), Some(0));
    assert!(first.inputs.iter().any(|it| it.path.ends_with("parser.toml")));
    let table = lookbook::features::FeatureTable::open(&features).unwrap();
    let row = |photo: usize, cell: &str| {
        let at = table.labels.cell_names().iter().position(|it| it == cell).unwrap();
        table.row(photo)[at]
    };
    // Half ink, which is a coat, half berry, which is a dress.
    assert!((row(0, "coat_black") - 0.5).abs() < 0.02 && (row(0, "dress_red") - 0.5).abs() < 0.02);
    assert!((row(1, "jeans_blue") - 0.5).abs() < 0.02);
    assert_eq!(known(&run()), Some(2), "nothing has changed");
    let reasons =
        |config: &segment::Config| lookbook::stage::reasons(config, &common, lookbook::stage::Depth::Contents).unwrap();
    assert_eq!(reasons(&config), Vec::<String>::new());
    // Another fold: other rows.
    let text = declaration(FORM).replace("ink = \"coat\"", "ink = \"skirt\"");
    fs::write(parser.join("parser.toml"), &text).unwrap();
    assert!(reasons(&config)[0].contains("parser.toml was changed"));
    assert_eq!(known(&run()), Some(0));
    // The fold in a file: the same network, another identity.
    let (head, fold) = text.split_once("[fold]").unwrap();
    fs::write(parser.join("fold.toml"), format!("[fold]{fold}")).unwrap();
    fs::write(parser.join("parser.toml"), format!("fold = \"fold.toml\"\n{head}")).unwrap();
    let id = Model::open(&parser).unwrap().id();
    assert_eq!(known(&run()), Some(0));
    assert_eq!(known(&run()), Some(2));
    fs::write(parser.join("fold.toml"), format!("[fold]{}", fold.replace("\"skirt\"", "\"coat\""))).unwrap();
    assert_ne!(Model::open(&parser).unwrap().id(), id);
    run();
    let query = recommend::Config { model: parser.clone(), features, ..Default::default() };
    let found = recommend::run(&query, &[shop.join("a.jpg")], &common).unwrap();
    assert_eq!((found[0].neighbours.len(), &found[0].neighbours[0].file_name[..]), (1, "b.jpg"));
    let judged = evaluate::Config { dataset, model: parser.clone(), ..Default::default() };
    let (evaluation, _) = evaluate::run(&judged, &common).unwrap();
    assert_eq!((evaluation.bce, &evaluation.model_id), (None, &Model::open(&parser).unwrap().id()));
    let written = fs::read_to_string(parser.join("evaluation.json")).unwrap();
    assert!(written.contains("\"bce\": null"));
    let output = place.path().join("results");
    evaluate::run(&evaluate::Config { output: Some(output.clone()), ..judged }, &common).unwrap();
    assert_eq!(fs::read_to_string(output.join("evaluation.json")).unwrap(), written);
    let page = report::Config {
        run: place.path().to_owned(),
        model: Some(parser.clone()),
        output: place.path().join("report"),
        photos: 1,
        ..Default::default()
    };
    report::run(&page, &common).unwrap().published().expect("it is published");
    let html = fs::read_to_string(page.output.join("index.html")).unwrap();
    assert!(html.contains("truth") && page.output.join("segmentations.png").is_file());
    assert_eq!(
        lookbook::stage::reasons(&page, &common, lookbook::stage::Depth::Contents).unwrap(),
        Vec::<String>::new()
    );
}

#[test]
fn what_only_our_models_have_and_licences_that_a_gate_excludes_are_refused_by_name() {
    let Some(SmallPlace { place, shop, dataset, parser, features }) = small_place() else { return };
    let common = Common::default();
    let export = export::Config { model: parser.clone(), output: place.path().join("export") };
    let bf16 = segment::Config {
        catalogue: shop,
        model: parser.clone(),
        output: features.clone(),
        precision: PrecisionChoice::Bf16,
        ..Default::default()
    };
    let start = lookbook::train::Config {
        dataset: dataset.clone(),
        output: place.path().join("model"),
        start_from: Some(parser.clone()),
        ..Default::default()
    };
    for (said, named) in [
        (export::run(&export, &common).expect_err("export").to_string(), "parser.toml: declares a third-party parser"),
        (
            lookbook::train::run(&start, &common).expect_err("train").to_string(),
            "parser.toml: declares a third-party parser",
        ),
        (
            segment::run(&bf16, &common).expect_err("bf16").to_string(),
            "bf16 is only for models of this program, which 'colours' is not",
        ),
    ] {
        assert!(said.contains(named), "{said}");
    }
    let gates = |allowed: &[&str]| Common {
        gates: Gates { allowed_licenses: Some(allowed.iter().map(ToString::to_string).collect()), ..Gates::default() },
        ..Common::default()
    };
    let config = segment::Config { precision: PrecisionChoice::F32, ..bf16 };
    let judged = evaluate::Config { dataset, model: parser.clone(), ..Default::default() };
    let strict = gates(&["Apache-2.0", "BSD-3-Clause"]);
    let said = [
        segment::run(&config, &strict).expect_err("not allowed"),
        evaluate::run(&judged, &strict).expect_err("not allowed"),
        check::run(&check::Request { folder: parser, ..Default::default() }, &strict).expect_err("not allowed"),
    ];
    for it in said {
        let text = it.to_string();
        assert!(it.exit_code() == 2 && text.contains("gates.allowed_licenses"), "{text}");
        assert!(text.contains("'colours' has the licence MIT; allowed: Apache-2.0, BSD-3-Clause"), "{text}");
    }
    assert!(!features.exists(), "nothing is written");
    segment::run(&config, &gates(&["MIT"])).unwrap().published().expect("it is published");
}

#[test]
fn answers_that_are_none_end_with_the_name_of_the_photo() {
    let Some(SmallPlace { place: _place, shop, parser, features, .. }) = small_place() else { return };
    let mut broken = Builder::default();
    let dims = [Dim::Batch, Dim::Fixed(3), Dim::Fixed(64), Dim::Fixed(48)];
    let x = broken.input("pixels", FLOAT, &dims);
    // The root of a negative number.
    let y = broken.node("Sqrt", &[&x], vec![]);
    broken.output("scores", &y, FLOAT, &dims);
    let mut beyond = Builder::default();
    let x = beyond.input("pixels", FLOAT, &dims);
    // Where the stripe on the right is brighter, the column at which it begins: far beyond the three labels.
    let y = beyond.node("ArgMax", &[&x], vec![Attribute::int("axis", 3), Attribute::int("keepdims", 0)]);
    beyond.output("labels", &y, INT64, &[Dim::Batch, Dim::Fixed(3), Dim::Fixed(64)]);
    for (network, kind, named) in [
        (broken.finish("broken", "", &[]), "logits", "a score of NaN"),
        (beyond.finish("beyond", "", &[]), "label_map", "the class "),
    ] {
        write_parser(&parser, Form { kind, ..FORM });
        fs::write(parser.join("network.onnx"), network).unwrap();
        let text = declaration(Form { kind, ..FORM });
        let labels = text.lines().find(|it| it.starts_with("labels")).unwrap();
        let (head, _) = text.split_once("[fold]").unwrap();
        let three = head.replace(labels, "labels = [\"bk\", \"coat\", \"dress\"]");
        fs::write(parser.join("parser.toml"), three).unwrap();
        let config = segment::Config {
            catalogue: shop.clone(),
            model: parser.clone(),
            output: features.clone(),
            ..Default::default()
        };
        let said = segment::run(&config, &Common::default()).expect_err(kind).with_causes();
        assert!(said.contains(named) && said.contains(".jpg"), "{said}");
        assert!(!features.exists(), "nothing is half-written");
    }
}

#[test]
fn a_night_with_a_parser_trains_nothing_and_reports_the_parser() {
    let Some(SmallPlace { place, parser, .. }) = small_place() else { return };
    let [file, source, output] = ["night.toml", "source", "output"].map(|it| place.path().join(it));
    let settings = format!("[convert]\nsource = '{}'\n[segment]\nmodel = '{}'\n", source.display(), parser.display());
    let night = |more: &str, force: &[&str], dry_run: bool| {
        fs::write(&file, format!("{settings}{more}")).unwrap();
        let force = force.iter().map(|it| (*it).to_owned()).collect();
        let request = run::Request { output: Some(output.clone()), force, ..Default::default() };
        let common = Common { dry_run, ..Common::default() };
        let report = run::run(&request, &Settings::read(Some(&file)).unwrap(), &common).unwrap();
        report.stages.iter().map(|it| it.stage).collect::<Vec<_>>()
    };
    let without = ["convert", "segment", "similarity", "report"];
    assert_eq!(night("", &[], false), without);
    assert!(!output.join("model").exists());
    let report = Summary::read(&output.join("report")).unwrap();
    assert!(report.inputs.iter().any(|it| it.path.ends_with("parser.toml")), "{:?}", report.inputs);
    assert!(night("", &["train"], true).contains(&"train"));
    assert!(night("[train]\nepochs = 1\n", &[], true).contains(&"train"));
    // The run's own model, by its name.
    let own = settings.replace(&parser.display().to_string(), &output.join("model").display().to_string());
    fs::write(&file, own).unwrap();
    let request = run::Request { output: Some(output.clone()), ..Default::default() };
    let common = Common { dry_run: true, ..Common::default() };
    let planned = run::run(&request, &Settings::read(Some(&file)).unwrap(), &common).unwrap();
    assert!(planned.stages.iter().any(|it| it.stage == "train"));
}

#[test]
fn a_night_segments_with_the_parser_of_its_settings() {
    let Some(SmallPlace { place, parser, .. }) = small_place() else { return };
    let file = place.path().join("night.toml");
    fs::write(&file, format!("[segment]\nmodel = \"{}\"\n", parser.display())).unwrap();
    let night = || {
        let settings = Settings::read(Some(&file)).unwrap();
        let output = Some(place.path().join("output"));
        let only = Some(["segment".to_owned(), "segment".to_owned()]);
        run::run(&run::Request { output, only, ..Default::default() }, &settings, &Common::default())
    };
    fs::create_dir(place.path().join("output")).unwrap();
    fs::rename(place.path().join("dataset"), place.path().join("output/dataset")).unwrap();
    assert_eq!(night().unwrap().stages[0].did, run::Did::Run);
    let made = Summary::read(&place.path().join("output/features")).unwrap();
    assert_eq!(made.counts["photos"], 24);
    assert_eq!(night().unwrap().stages[0].did, run::Did::Nothing);
    // What is wrong with it is found before the first stage.
    fs::write(parser.join("parser.toml"), declaration(FORM).replace("width_px = 48", "width_px = 0")).unwrap();
    let said = night().expect_err("it is refused").to_string();
    assert!(said.contains("input.width_px is 0"), "{said}");
}

#[test]
fn a_parser_teaches_a_network() {
    let Some(SmallPlace { place, dataset, parser, .. }) = small_place() else { return };
    let config = lookbook::train::Config {
        dataset: dataset.clone(),
        output: place.path().join("model"),
        labels_from: Some(parser.clone()),
        unlabelled_confidence: 0.0,
        epochs: 40,
        photo_width_px: 48,
        photo_height_px: 64,
        channels: vec![8, 16],
        ..lookbook::train::Config::of(lookbook::train::Recipe::Best)
    };
    let learn = || lookbook::train::run(&config, &Common::default()).unwrap().published().expect("it is published");
    let made = learn();
    assert_eq!((made.counts["relabelled_share"].as_f64(), made.counts["train_photos"].as_u64()), (Some(1.0), Some(19)));
    let model = Model::open(&parser).unwrap();
    assert_eq!(made.counts["labels_from"].as_str(), Some(&*model.id()));
    // It has learnt the categories that the parser knows, and no other, whatever the data set's labels say.
    let judged = evaluate::Config { dataset, model: config.output.clone(), ..Default::default() };
    let (evaluation, _) = evaluate::run(&judged, &Common::default()).unwrap();
    let found = |category: u8| -> u64 { evaluation.confusion.iter().map(|row| row[usize::from(category)]).sum() };
    let known = LABELS.map(|(.., category)| lookbook::labels::LabelSet::cfpd().category_named(category).unwrap());
    let others: u64 = (0..23).filter(|it| !known.contains(it)).map(found).sum();
    assert_eq!(others, 0);
    assert!(known.into_iter().filter(|&it| found(it) > 0).count() > 1, "more than the background");
    // Another parser makes it stale.
    let reasons = || lookbook::stage::reasons(&config, &Common::default(), lookbook::stage::Depth::Contents).unwrap();
    assert_eq!(reasons(), Vec::<String>::new());
    write_parser(&parser, Form { kind: "probabilities", ..FORM });
    assert!(!reasons().is_empty());
    let strict = Gates { allowed_licenses: Some(vec!["Apache-2.0".to_owned()]), ..Gates::default() };
    let common = Common { gates: strict, ..Common::default() };
    let said = lookbook::train::run(&config, &common).expect_err("its licence is not allowed").to_string();
    assert!(said.contains("'colours' has the licence MIT"), "{said}");
}

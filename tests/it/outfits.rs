//! What is worn together, and who chose what: `pairs_worn.parquet`, `recommend --complete` and `--interactions`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::write_flat_model;
use crate::python::python;
use crate::shared::{drawn_sample, library};
use lookbook::error::{Error, Result};
use lookbook::interactions::{self, Interactions, MAX_PHOTOS_PER_USER, Users};
use lookbook::recommend::{self, Config, Recommendation};
use lookbook::stage::Common;
use lookbook::{convert, photo, segment, similarity};

const PHOTOS: u32 = 64;
/// The category of the default label set that the model sees everywhere.
const T_SHIRT: usize = 1;

/// The drawn sample as a catalogue by its labels, and a model that sees T-shirts alone.
fn shop(place: &Path) {
    let [source, dataset, features] = ["source", "dataset", "features"].map(|name| place.join(name));
    drawn_sample(&source, PHOTOS);
    let config = convert::Config { source, output: dataset.clone(), ..Default::default() };
    convert::run(&config, &Common::default()).unwrap().published().expect("it is published");
    let from = segment::LabelSource::Labels;
    let config = segment::Config { catalogue: dataset, output: features, from, ..Default::default() };
    segment::run(&config, &Common::default()).unwrap().published().expect("it is published");
    write_flat_model(&place.join("model"), T_SHIRT);
}

/// The files of the sample's photos; that of `photo_id` at its place.
fn files_of(place: &Path) -> Vec<PathBuf> {
    let table = lookbook::features::FeatureTable::open(&place.join("features")).unwrap();
    table.file_names.iter().map(|name| place.join("source/image").join(name)).collect()
}

fn ask(place: &Path, photos: &[PathBuf], change: impl FnOnce(&mut Config)) -> Result<Vec<Recommendation>> {
    let mut config = Config { model: place.join("model"), features: place.join("features"), ..Config::default() };
    change(&mut config);
    recommend::run(&config, photos, &Common::default())
}

fn events(place: &Path, text: &str) -> PathBuf {
    let path = place.join("events.csv");
    fs::write(&path, text).unwrap();
    path
}

/// Compares a table of pairs with what pandas makes of the features.
const PAIRS_BY_PANDAS: &str = r#"
import glob, itertools, sys, numpy, pandas
features = pandas.concat(map(pandas.read_parquet, glob.glob(sys.argv[1] + "/part-*.parquet")))
cells = features.select_dtypes("float32").notna()
cells = cells[cells.any(axis=1)]
garments = cells.T.groupby(lambda cell: cell.split("_")[0]).any().T
found = pandas.read_parquet(sys.argv[2]).set_index(["level", "a", "b"])
wanted = {}
for level, table in [("category", garments), ("cell", cells)]:
    for a, b in itertools.permutations(table.columns, 2):
        both = (table[a] & table[b]).sum()
        if both and (level == "category" or a.split("_")[0] != b.split("_")[0]):
            p_a, p_b, p_both = table[a].mean(), table[b].mean(), both / len(table)
            smoothed = (both + 10 * p_b) / ((table[a].sum() + 10) * p_b)
            wanted[level, a, b] = [table[a].sum(), table[b].sum(), both, len(table), p_both, p_both / p_a,
                                   p_both / (p_a * p_b), numpy.log2(p_both / (p_a * p_b)), smoothed]
assert set(wanted) == set(found.index), set(wanted) ^ set(found.index)
wanted = pandas.DataFrame.from_dict(wanted, orient="index", columns=found.columns).reindex(found.index)
numpy.testing.assert_allclose(found.to_numpy(float), wanted.to_numpy(float), rtol=1e-12, atol=1e-12)
print(len(found), (found.index.get_level_values(0) == "category").sum())
"#;

#[test]
fn the_table_of_what_is_worn_together_is_that_of_pandas() {
    let Some(mut python) = python() else { return };
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let [features, output] = ["features", "similarity"].map(|name| place.path().join(name));
    let config = similarity::Config { features: features.clone(), output: output.clone(), ..Default::default() };
    similarity::run(&config, &Common::default()).unwrap().published().expect("it is published");
    let table = output.join("pairs_worn.parquet");
    let compared = python.args(["-c", PAIRS_BY_PANDAS]).args([features, table]).output().unwrap();
    let text = String::from_utf8_lossy(&compared.stdout).into_owned();
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stderr));
    let counts: Vec<u32> = text.split_whitespace().map(|it| it.parse().unwrap()).collect();
    assert!(counts[0] > 500 && counts[1] > 50, "many pairs were compared: {text}");
}

#[test]
fn what_goes_with_a_photo_is_worn_with_it_in_the_catalogue() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let photos = &files_of(place.path())[..1];
    let output = place.path().join("looks");
    let answers = ask(place.path(), photos, |config| {
        (config.complete, config.min_support, config.top, config.output) = (2, 2, 4, Some(output.clone()));
    })?;
    let completion = answers[0].completion.as_ref().expect("something is worn");
    assert_eq!(completion.with, ["T-shirt"], "not the skin, not the hair");
    assert!((1..=2).contains(&completion.garments.len()), "{completion:?}");
    let table = lookbook::features::FeatureTable::open(&place.path().join("features"))?;
    let wears = |row: usize, category: &str| {
        let names = table.labels.cell_names().iter().zip(table.row(row));
        names.filter(|(_, share)| **share > 0.0).any(|(name, _)| name.starts_with(&format!("{category}_")))
    };
    let count = |wanted: &[&str]| (0..table.len()).filter(|&row| wanted.iter().all(|it| wears(row, it))).count();
    assert_eq!(completion.photos as usize, count(&["Tshirt"]));
    for garment in &completion.garments {
        assert_eq!(garment.photos as usize, count(&["Tshirt", &garment.name]));
        assert!((garment.usual - count(&[&garment.name]) as f64 / table.len() as f64).abs() < 1e-12);
        assert!(garment.smoothed_lift > 1.0 && garment.photos >= 2 && !garment.looks.is_empty());
        for look in &garment.looks {
            let row = table.photo_ids.iter().position(|id| *id == look.photo_id).expect("it is in the catalogue");
            assert!(wears(row, "Tshirt") && wears(row, &garment.name) && look.photo_id != table.photo_ids[0]);
        }
        assert!(garment.looks.is_sorted_by(|a, b| a.correlation >= b.correlation));
    }
    let text = answers[0].to_string();
    assert!(text.contains("to go with T-shirt") && text.contains(&completion.garments[0].name), "{text}");
    let plain =
        ask(place.path(), photos, |config| (config.top, config.output) = (4, Some(place.path().join("plain"))))?;
    let height =
        |answer: &Recommendation| photo::read(answer.contact_sheet.as_ref().expect("a sheet")).unwrap().height_px;
    assert!(height(&answers[0]) > height(&plain[0]), "a row for each garment");
    assert!(plain[0].completion.is_none() && !place.path().join("plain/pairs_worn.parquet").exists());
    assert!(lookbook::table::count_rows(&output.join("pairs_worn.parquet"))? > 500);
    Ok(())
}

#[test]
fn too_little_ground_is_said_and_nothing_recommended() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let photos = &files_of(place.path())[..1];
    let answers = ask(place.path(), photos, |config| (config.complete, config.min_support) = (3, 1000))?;
    let completion = answers[0].completion.as_ref().expect("something is worn");
    assert!(completion.with.is_empty() && completion.garments.is_empty());
    assert!(answers[0].to_string().contains("too few photos"), "{}", answers[0]);
    let error = ask(place.path(), photos, |config| (config.complete, config.min_support) = (3, 0)).expect_err("0");
    assert!(error.to_string().contains("recommend.min_support") && error.exit_code() == 2, "{error}");
    Ok(())
}

#[test]
fn a_photo_that_the_same_people_chose_comes_first() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let files = files_of(place.path());
    let looks = &ask(place.path(), &files[..1], |config| config.top = PHOTOS)?[0];
    let last = looks.neighbours.last().expect("there are some").clone();
    assert!(last.score.is_none() && last.item_cosine.is_none(), "the looks alone");
    // Ten users choose the query and the photo that is least like it; five others its two nearest looks.
    let query = files[0].file_name().unwrap().to_str().unwrap();
    let others = [0, 1].map(|place: usize| looks.neighbours[place].file_name.as_str());
    let chosen = (0..10).flat_map(|user| [query, &last.file_name].map(|photo| format!("u{user},{photo}\n")));
    let strange = (0..5).flat_map(|user| others.map(|photo| format!("v{user},{photo}\n")));
    let text = chosen.chain(strange).chain(["w,nowhere.jpg\n".to_owned()]).collect::<String>();
    let path = events(place.path(), &format!("user,file_name\n{text}"));
    let blended = |blend: f64| {
        let answers = ask(place.path(), &files[..1], |config| {
            (config.top, config.interactions, config.blend) = (PHOTOS, Some(path.clone()), Some(blend));
        });
        answers.map(|mut it| it.swap_remove(0).neighbours)
    };
    let found = blended(0.9)?;
    let first = &found[0];
    assert_eq!((first.file_name.as_str(), first.correlation), (last.file_name.as_str(), last.correlation));
    // All ten chose both and nothing else: a cosine of 1, of which 10 / (10 + 5) counts.
    assert!((first.item_cosine.expect("it was chosen") - 10.0 / 15.0).abs() < 1e-6);
    for it in &found {
        let (score, item_score) = (it.score.expect("blended"), it.item_score.expect("blended"));
        assert!((score - (0.1 * it.correlation + 0.9 * item_score)).abs() < 1e-5, "{it:?}");
        let expected = match it.file_name.as_str() {
            name if name == last.file_name => Some(10.0 / 15.0),
            name => others.contains(&name).then_some(0.0),
        };
        assert_eq!(it.item_cosine.is_some(), expected.is_some(), "{it:?}");
        assert!(it.item_cosine.zip(expected).is_none_or(|(found, expected)| (found - expected).abs() < 1e-6), "{it:?}");
    }
    let ids = |photos: &[recommend::Recommended]| photos.iter().map(|it| it.photo_id).collect::<Vec<_>>();
    assert_eq!(ids(&blended(0.0)?), ids(&looks.neighbours));
    Ok(())
}

#[test]
fn an_unknown_photo_is_scored_through_its_nearest_looks() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    // The same pixels in another file: the catalogue does not have it.
    let query = place.path().join("query.png");
    fs::write(&query, lookbook::picture::png(&photo::read(&files_of(place.path())[0]).unwrap())).unwrap();
    let query = [query];
    let looks = ask(place.path(), &query, |config| config.top = PHOTOS)?.swap_remove(0).neighbours;
    let [near, .., middle, far] = &looks[..] else { panic!("there are some") };
    let lines = (0..10).flat_map(|user| [near, far].map(|it| format!("{user},{}", it.photo_id)));
    let lines = lines.chain([format!("alone,{}", middle.photo_id)]);
    let path = events(place.path(), &format!("user,photo_id\n{}\n", lines.collect::<Vec<_>>().join("\n")));
    let found = ask(place.path(), &query, |config| {
        (config.interactions, config.blend, config.top) = (Some(path), Some(1.0), PHOTOS);
    })?;
    // Only the near one has a correlation above 0, of the three that somebody chose: the far one comes through it.
    let by_id = |id: u32| found[0].neighbours.iter().find(|it| it.photo_id == id).expect("all are there");
    assert!(near.correlation > 0.0 && middle.correlation <= 0.0 && far.correlation <= 0.0, "{looks:?}");
    assert!((by_id(far.photo_id).item_cosine.expect("chosen") - 10.0 / 15.0).abs() < 1e-6, "{found:?}");
    assert_eq!(by_id(middle.photo_id).item_cosine, Some(0.0));
    Ok(())
}

/// Compares scores from photo to photo with what numpy makes of the events.
const SCORES_BY_NUMPY: &str = r#"
import json, sys, numpy, pandas
events = pandas.read_csv(sys.argv[1])
weights = events.pivot_table(index="user", columns="photo_id", values="weight", aggfunc="sum")
weights = weights.reindex(columns=range(60))
chosen = weights.notna().to_numpy().astype(float)
x = weights.fillna(0).to_numpy()
x /= numpy.linalg.norm(x, axis=1, keepdims=True)
lengths = numpy.linalg.norm(x, axis=0)
with numpy.errstate(invalid="ignore", divide="ignore"):
    cosines = numpy.nan_to_num(x.T @ x / numpy.outer(lengths, lengths))
common = chosen.T @ chosen
wanted = cosines * common / (common + 5)
numpy.testing.assert_allclose(numpy.array(json.load(open(sys.argv[2]))), wanted, rtol=1e-5, atol=1e-6)
print((wanted > 0).sum())
"#;

#[test]
fn scores_from_photo_to_photo_are_those_of_numpy() -> Result<()> {
    let Some(mut python) = python() else { return Ok(()) };
    let place = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut text = "user,photo_id,weight\n".to_owned();
    // Of 60 photos the last ten are cold; some events come twice.
    for _ in 0..3000 {
        let (user, photo, weight) = (rng.next_u32() % 200, rng.next_u32() % 50, 1 + rng.next_u32() % 4);
        writeln!(text, "{user},{photo},{}", f64::from(weight) / 2.0).unwrap();
    }
    let path = events(place.path(), &text);
    let features = place.path().join("features");
    crate::similarity::write_features(&features, (0..60).map(|id| crate::similarity::row(id, &[(1, 5)])))?;
    let features = lookbook::features::FeatureTable::open(&features)?;
    let read = interactions::read(&path, &features)?;
    let scores = Interactions::new(Users::new(read.events, MAX_PHOTOS_PER_USER), features.len());
    let all: Vec<Vec<f32>> = (0..60).map(|row| scores.scores(&[(row, 1.0)])).collect();
    let found = place.path().join("scores.json");
    fs::write(&found, serde_json::to_string(&all).unwrap()).unwrap();
    let compared = python.args(["-c", SCORES_BY_NUMPY]).args([path, found]).output().unwrap();
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stderr));
    let count: u32 = String::from_utf8_lossy(&compared.stdout).trim().parse().unwrap();
    assert!(count > 1000, "{count} scores above 0 were compared");
    Ok(())
}

#[test]
fn bad_interactions_end_with_a_message_that_names_them() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let photos = &files_of(place.path())[..1];
    let with = |text: &str| {
        let path = events(place.path(), text);
        ask(place.path(), photos, |config| config.interactions = Some(path))
    };
    for (text, named) in [
        ("user,photo_id,weight\nu,0,1\nu,1,-2\n", "row 2: the weight is -2"),
        (
            "user,photo_id\nu,99999\nv,99998\n",
            "none of its 2 events is of a photo of the catalogue; the first is of '99999'",
        ),
        ("user,shoe\nu,1\n", "has no column photo_id, path, file_name"),
    ] {
        let error = with(text).expect_err(text);
        assert!(matches!(error, Error::Input { .. }) && error.to_string().contains(named), "{error}");
        assert!(error.to_string().contains("events.csv"), "{error}");
    }
    let none = with("user,photo_id\n")?;
    assert!(!none[0].neighbours.is_empty() && none[0].neighbours[0].score.is_none(), "the looks alone count");
    let lone = ask(place.path(), photos, |config| config.blend = Some(0.5)).expect_err("nothing to blend with");
    assert!(lone.to_string().contains("recommend.blend") && lone.exit_code() == 2, "{lone}");
    let path = events(place.path(), "user,photo_id\nu,0\n");
    for blend in [-0.1, 1.1, f64::NAN] {
        let error = ask(place.path(), photos, |config| {
            (config.interactions, config.blend) = (Some(path.clone()), Some(blend));
        });
        assert!(error.expect_err("no fraction").to_string().contains("recommend.blend"));
    }
    Ok(())
}

#[test]
fn the_program_takes_the_flags() {
    let Some(library) = library() else { return };
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let photo = &files_of(place.path())[0];
    let path = events(place.path(), "user,photo_id,weight\nu,0,1\nu,5,2\nv,0,1\nv,12345,1\nw,6,1\n");
    let mut program = Command::new(env!("CARGO_BIN_EXE_lookbook"));
    program.env_clear().env("ORT_DYLIB_PATH", library).current_dir(place.path()).arg("recommend").arg(photo);
    program.args(["--model", "model", "--features", "features", "--complete", "--min-support", "2", "--interactions"]);
    let output = program.arg(path).args(["--blend", "0.5", "--top", "3"]).output().unwrap();
    let [text, log] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    assert!(output.status.success(), "{log}");
    assert!(
        text.contains("asked for: chosen by the same people 0.5")
            && text.contains("score")
            && text.contains("to go with T-shirt"),
        "{text}"
    );
    assert!(log.contains("5 events by 3 users; 1 are of photos that are not in the catalogue"), "{log}");
}

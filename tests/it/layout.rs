//! Where the files of a features folder lie: the plain glob gives the rows alone, and folders of the old layout, in
//! which the states, the rejects and the vanished photos lay beside the parts, go on to work.

use std::fs;
use std::path::Path;

use crate::incremental::{Place, counts, kill_once_saved, program, row, tables};
use crate::segment::rejects;
use crate::shared::library;
use lookbook::error::Result;
use lookbook::features::FeatureTable;
use lookbook::features::rows::Format;
use lookbook::shard::Shard;
use lookbook::stage::{self, Common, Depth, Outcome, Summary};
use lookbook::{report, segment, similarity, table};

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Makes a folder one of the old layout: what is in `_state` lies beside the parts, and its record says so.
fn to_old_layout(folder: &Path) {
    let state = folder.join("_state");
    for name in names(&state) {
        fs::rename(state.join(&name), folder.join(&name)).unwrap();
        if folder.join(&name).is_dir() {
            to_old_layout(&folder.join(&name));
        }
    }
    fs::remove_dir(state).unwrap();
    let Ok(mut record) = Summary::read(folder) else { return };
    for file in &mut record.files {
        file.name = file.name.iter().filter(|it| *it != "_state").collect();
    }
    record.files.sort_by(|a, b| a.name.cmp(&b.name));
    lookbook::files::write_json(&folder.join("run.json"), &record).unwrap();
}

/// A place with the rows of `b.jpg` and `c.jpg`, the reject `bad.jpg`, and `a.jpg`, which vanished.
fn place_with_all() -> Result<Option<Place>> {
    let Some(place) = Place::new() else { return Ok(None) };
    for (name, color) in [("a.jpg", 2), ("b.jpg", 3), ("c.jpg", 10)] {
        place.photo(name, color);
    }
    fs::write(place.path("shop/bad.jpg"), "").unwrap();
    place.run(|config| config.format = Format::Arrow)?;
    fs::remove_file(place.path("shop/a.jpg")).unwrap();
    place.run(|config| config.format = Format::Arrow)?;
    Ok(Some(place))
}

const NEW: [&str; 4] = ["_state", "part-00000.arrow", "part-00000.parquet", "run.json"];
const OLD: [&str; 6] =
    ["part-00000.arrow", "part-00000.parquet", "rejects.parquet", "run.json", "state-00000.parquet", "vanished"];

#[test]
fn the_tables_beside_the_record_are_the_rows_alone() -> Result<()> {
    let Some(place) = place_with_all()? else { return Ok(()) };
    let features = place.path("features");
    assert_eq!(names(&features), NEW);
    assert_eq!(names(&features.join("_state")), ["rejects.parquet", "state-00000.parquet", "vanished"]);
    assert_eq!(names(&features.join("_state/vanished")), ["_state", "part-00000.parquet"]);
    assert_eq!(names(&features.join("_state/vanished/_state")), ["state-00000.parquet"]);
    assert_eq!(table::read_table(&features.join("part-00000.parquet"), "features", &[], 10)?.rows(), 2);
    let record = Summary::read(&features)?;
    assert_eq!(record.damaged_files(&features), Vec::<String>::new());
    assert_eq!(record.files.len(), 6, "{:?}", record.files);
    Ok(())
}

#[test]
fn a_folder_of_the_old_layout_is_taken_over() -> Result<()> {
    let Some(place) = place_with_all()? else { return Ok(()) };
    let features = place.path("features");
    let (new, rows) = (tables(&features), place.rows());
    to_old_layout(&features);
    assert_eq!(names(&features), OLD);
    assert_eq!(names(&features.join("vanished")), ["part-00000.parquet", "state-00000.parquet"]);
    let config = segment::Config { format: Format::Arrow, ..place.config() };
    assert_eq!(stage::reasons(&config, &Common::default(), Depth::Contents)?, Vec::<String>::new());
    assert_eq!(place.rows(), rows);

    let run = |common: &Common| Ok(segment::run(&config, common)?.published().expect("it is published"));
    let ways = ["known", "resumed", "segmented", "parts_unchanged", "vanished", "rejects"];
    let dry = run(&Common { dry_run: true, ..Common::default() })?;
    assert_eq!(counts(&dry, &["known", "new", "changed", "vanished"]), [3, 0, 0, 0], "a known reject included");
    assert_eq!(counts(&run(&Common::default())?, &ways), [2, 0, 0, 1, 0, 1]);
    assert_eq!((names(&features), place.rows()), (NEW.map(str::to_owned).to_vec(), rows.clone()));
    assert!(tables(&features) == new, "the same bytes");

    stage::roll_back(&features)?;
    assert_eq!(names(&features), OLD);
    place.photo("a.jpg", 2);
    assert_eq!(
        counts(&run(&Common::default())?, &["segmented", "photos"]),
        [0, 3],
        "the old folder of vanished photos is found too"
    );
    assert_eq!(place.rows(), [vec![row("a.jpg", 0, "Tshirt_black")], rows].concat());
    assert_eq!(names(&features), NEW);
    Ok(())
}

#[test]
fn damage_in_a_folder_of_the_old_layout_is_seen() -> Result<()> {
    let Some(place) = place_with_all()? else { return Ok(()) };
    let features = place.path("features");
    to_old_layout(&features);
    // Another state that is intact, but not the one on record.
    fs::copy(features.join("vanished/state-00000.parquet"), features.join("state-00000.parquet")).unwrap();
    assert_eq!(counts(&place.run(|_| {})?, &["known", "segmented", "photos"]), [0, 2, 2]);
    assert_eq!(names(&features), ["_state", "part-00000.parquet", "run.json"]);
    Ok(())
}

#[test]
fn every_reader_knows_both_layouts() -> Result<()> {
    let Some(place) = place_with_all()? else { return Ok(()) };
    for layout in ["new", "old"] {
        if layout == "old" {
            to_old_layout(&place.path("features"));
        }
        let config = report::Config { run: place.path(""), output: place.path("report"), ..report::Config::default() };
        report::run(&config, &Common::default())?.published().expect("it is published");
        let page = fs::read_to_string(place.path("report/index.html")).unwrap();
        assert!(page.contains("photo_empty") && page.contains("bad.jpg"), "the rejects of the {layout} layout");
        let [features, output] = ["features", "similarity"].map(|name| place.path(name));
        let config = similarity::Config { features, output, ..similarity::Config::default() };
        let compared = similarity::run(&config, &Common::default())?.published().expect("it is published");
        assert_eq!(counts(&compared, &["photos"]), [2], "{layout}");
        assert_eq!(FeatureTable::open(&config.features)?.photo_ids, [1, 3], "{layout}");
    }
    Ok(())
}

#[test]
fn shards_of_both_layouts_make_one_table() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    for photo in 0..9 {
        place.photo(&format!("{photo}.jpg"), 1 + photo);
    }
    for bad in ["bad.jpg", "empty.jpg", "none.jpg"] {
        fs::write(place.path("shop").join(bad), "").unwrap();
    }
    place.run(|_| {})?;
    let whole = tables(&place.path("features"));
    fs::remove_dir_all(place.path("features")).unwrap();
    let shard = |number| place.run(|config| config.shard = Shard::new(number, 2));
    let merge = || place.run(|config| config.merge = true);
    let merged = |summary: &Summary| counts(summary, &["photos", "rejects"]);
    for number in [1, 2] {
        shard(number)?;
    }
    to_old_layout(&place.path("features.shards/2-of-2"));
    assert_eq!(merged(&merge()?), [9, 3], "one shard of each layout");
    assert!(tables(&place.path("features")) == whole);
    assert_eq!(rejects(&place.path("features")).len(), 3);
    to_old_layout(&place.path("features.shards/1-of-2"));
    to_old_layout(&place.path("features"));
    assert_eq!(merged(&merge()?), [9, 3], "both of the old one, and so is the published folder");
    assert!(tables(&place.path("features")) == whole);
    assert_eq!(counts(&shard(1)?, &["segmented"]), [0]);
    assert!(names(&place.path("features.shards/1-of-2")).contains(&"_state".to_owned()));
    Ok(())
}

#[test]
fn what_an_older_program_left_unfinished_is_not_done_again() -> Result<()> {
    let (Some(place), Some(library)) = (Place::new(), library()) else { return Ok(()) };
    for photo in 0..400_u32 {
        let path = place.path("shop").join(format!("{photo:04}.jpg"));
        fs::write(path, crate::model::striped_jpeg(8 + photo, 160, &[2])).unwrap();
    }
    let unfinished = place.path(".features.partial/unfinished");
    kill_once_saved(&place, program(&place, "features", &library, 8), 1);
    let saved = names(&unfinished.join("_state")).iter().filter(|it| it.ends_with(".parquet")).count();
    to_old_layout(&unfinished);
    kill_once_saved(&place, program(&place, "features", &library, 8), saved);
    assert!(unfinished.join("state-00000.parquet").is_file(), "the old ones are still there");
    let summary = place.run(|_| {})?;
    let [resumed, segmented] = counts(&summary, &["resumed", "segmented"])[..] else { panic!("two counts") };
    assert!(resumed as usize > 8 * saved && resumed + segmented == 400, "{resumed} were there, {segmented} were made");
    Ok(())
}

#[test]
fn what_a_gate_kept_back_in_the_old_layout_is_not_done_again() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    place.photo("a.jpg", 2);
    let mut common = Common::default();
    common.gates.min_photos = Some(2);
    let kept_back = segment::run(&place.config(), &common)?;
    assert!(matches!(kept_back, Outcome::KeptBack { .. }), "{kept_back}");
    to_old_layout(&place.path(".features.rejected"));
    assert_eq!(counts(&place.run(|_| {})?, &["resumed", "segmented", "photos"]), [1, 0, 1]);
    Ok(())
}

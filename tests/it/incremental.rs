//! `segment` night after night: only what is new is done, whatever came, changed, went, or was killed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::{striped_jpeg, write_flat_model};
use crate::segment::rejects;
use crate::shared::library;
use lookbook::error::Result;
use lookbook::features::rows::Format;
use lookbook::features::{FeatureTable, layout};
use lookbook::segment::{self, Config, Masks};
use lookbook::shard::{Division, Shard};
use lookbook::stage::{Common, Outcome, Summary};
use lookbook::table;

const T_SHIRT: usize = 1;
const COAT: usize = 6;

/// A place with a model, a shop of photos and, after a run, their features.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// `None` where there is no library.
    pub(crate) fn new() -> Option<Self> {
        library()?;
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(place.path("shop")).unwrap();
        write_flat_model(&place.path("model"), T_SHIRT);
        Some(place)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A photo of one colour, as if it were a day old.
    pub(crate) fn photo(&self, name: &str, color: u8) {
        let path = self.path("shop").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, striped_jpeg(20, 30, &[color])).unwrap();
        let day = Duration::from_hours(24);
        fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::SystemTime::now() - day).unwrap();
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            catalogue: self.path("shop"),
            model: self.path("model"),
            output: self.path("features"),
            max_reject_fraction: 1.0,
            ..Config::default()
        }
    }

    pub(crate) fn run(&self, change: impl FnOnce(&mut Config)) -> Result<Summary> {
        let mut config = self.config();
        change(&mut config);
        Ok(segment::run(&config, &Common::default())?.published().expect("it is published"))
    }

    /// Name below the shop, id and colour of each row.
    pub(crate) fn rows(&self) -> Vec<(String, u32, String)> {
        let table = FeatureTable::open(&self.path("features")).unwrap();
        let names = table.labels.cell_names();
        let row = |row: usize| {
            let shown = table.row(row).iter().position(|share| *share > 0.5).map(|cell| names[cell].clone());
            let name = Path::new(&table.paths[row]).strip_prefix(self.path("shop")).unwrap();
            (name.display().to_string(), table.photo_ids[row], shown.unwrap_or_default())
        };
        (0..table.len()).map(row).collect()
    }
}

/// The counts of these names.
pub(crate) fn counts(summary: &Summary, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| summary.counts[*name].as_u64().unwrap()).collect()
}

pub(crate) fn row(name: &str, id: u32, cell: &str) -> (String, u32, String) {
    (name.to_owned(), id, cell.to_owned())
}

/// The content of the tables, by path.
pub(crate) fn tables(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let tables = names.filter(|it| it.starts_with("part-")).chain(["_state/rejects.parquet".to_owned()]);
    let read: BTreeMap<_, _> = tables.map(|it| (it.clone(), fs::read(folder.join(it)).unwrap())).collect();
    assert!(read.len() > 1);
    read
}

#[test]
fn only_what_is_new_or_changed_is_done_again() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    for (name, color) in [("a.jpg", 2), ("b/1.jpg", 3), ("b/2.jpg", 10), ("c.jpg", 11)] {
        place.photo(name, color);
    }
    fs::write(place.path("shop/d.jpg"), "no photo").unwrap();
    let ways = ["known", "new", "changed", "vanished", "same_content", "segmented", "parts_unchanged"];
    assert_eq!(counts(&place.run(|_| {})?, &ways), [0, 4, 0, 0, 0, 4, 0]);
    let first = tables(&place.path("features"));
    let summary = place.run(|_| {})?;
    assert_eq!(counts(&summary, &ways), [4, 0, 0, 0, 0, 0, 1], "a second run has nothing to do");
    assert_eq!(counts(&summary, &["photos", "rejects"]), [4, 1]);
    assert!(tables(&place.path("features")) == first);

    place.photo("a/new.jpg", 6);
    place.photo("b/1.jpg", 12);
    fs::remove_file(place.path("shop/a.jpg")).unwrap();
    fs::rename(place.path("shop/c.jpg"), place.path("shop/moved.jpg")).unwrap();
    let dry = segment::run(&place.config(), &Common { dry_run: true, ..Common::default() })?;
    let dry = dry.published().expect("a plan");
    let told = counts(&dry, &["photos", "known", "new", "changed", "outdated", "vanished"]);
    assert_eq!(told, [5, 2, 2, 1, 0, 2], "the invalid photo is known too");
    assert_eq!(counts(&place.run(|_| {})?, &ways), [1, 2, 1, 2, 1, 2, 0]);
    let expected = [
        row("b/1.jpg", 1, "Tshirt_yellow"),
        row("b/2.jpg", 2, "Tshirt_red"),
        row("a/new.jpg", 5, "Tshirt_green"),
        row("moved.jpg", 6, "Tshirt_white"),
    ];
    assert_eq!(place.rows(), expected, "known photos keep their ids, new ones have the next");

    // The id of the last one is not given again.
    fs::remove_file(place.path("shop/moved.jpg")).unwrap();
    place.run(|_| {})?;
    place.photo("z.jpg", 2);
    place.run(|_| {})?;
    assert_eq!(place.rows().last(), Some(&row("z.jpg", 7, "Tshirt_black")));
    Ok(())
}

#[test]
fn a_folder_that_is_away_for_a_night_costs_no_ids_and_no_work() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    for (name, color) in [("a/1.jpg", 2), ("a/2.jpg", 3), ("b/3.jpg", 10), ("b/4.jpg", 11), ("b/5.jpg", 12)] {
        place.photo(name, color);
    }
    place.run(|_| {})?;
    let before = place.rows();
    fs::rename(place.path("shop/a"), place.path("away")).unwrap();
    assert_eq!(counts(&place.run(|_| {})?, &["photos", "vanished"]), [3, 2]);
    assert_eq!(counts(&place.run(|_| {})?, &["photos", "vanished"]), [3, 0], "a second night without it");
    place.photo("b/6.jpg", 4);
    place.run(|_| {})?;
    fs::rename(place.path("away"), place.path("shop/a")).unwrap();
    assert_eq!(counts(&place.run(|_| {})?, &["photos", "segmented"]), [6, 0]);
    assert_eq!(place.rows()[..5], before, "they have their ids, and the new one another");

    // More than half: it looks like a disk that is not there.
    fs::rename(place.path("shop/b"), place.path("away")).unwrap();
    let problem = segment::run(&place.config(), &Common::default())?.problem().expect("too many vanished");
    assert!(problem.contains("gate max_vanished_share (0.5): 0.6667 is too high"), "{problem}");
    assert_eq!(place.rows().len(), 6, "what was published stays");
    fs::rename(place.path("away"), place.path("shop/b")).unwrap();
    assert_eq!(counts(&place.run(|_| {})?, &["photos", "segmented"]), [6, 0]);
    Ok(())
}

#[test]
fn a_touched_file_is_read_and_known_and_another_model_is_not() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    place.photo("a.jpg", 2);
    place.photo("b.jpg", 3);
    place.run(|_| {})?;
    fs::File::options()
        .write(true)
        .open(place.path("shop/a.jpg"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    let ways = ["known", "changed", "outdated", "segmented", "parts_unchanged"];
    assert_eq!(counts(&place.run(|_| {})?, &ways), [2, 0, 0, 0, 1]);
    assert_eq!(counts(&place.run(|_| {})?, &ways), [2, 0, 0, 0, 1], "its time is too young to be relied on");
    write_flat_model(&place.path("model"), COAT);
    assert_eq!(counts(&place.run(|_| {})?, &ways), [0, 0, 2, 2, 0]);
    assert_eq!(place.rows(), [row("a.jpg", 0, "coat_black"), row("b.jpg", 1, "coat_blue")]);
    Ok(())
}

#[test]
fn vanished_photos_stay_where_that_is_asked_for() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    place.photo("a.jpg", 2);
    place.photo("b.jpg", 3);
    place.run(|_| {})?;
    fs::remove_file(place.path("shop/a.jpg")).unwrap();
    let ways = ["known", "vanished", "kept", "parts_unchanged"];
    assert_eq!(counts(&place.run(|config| config.keep_vanished = true)?, &ways), [1, 0, 1, 1]);
    assert_eq!(place.rows().len(), 2);
    assert_eq!(counts(&place.run(|_| {})?, &ways), [1, 1, 0, 0]);
    assert_eq!(place.rows(), [row("b.jpg", 1, "Tshirt_blue")]);
    Ok(())
}

#[test]
fn a_list_keeps_its_own_ids_and_order() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    for (name, color) in [("a.jpg", 2), ("b.jpg", 3), ("c.jpg", 10)] {
        place.photo(name, color);
    }
    let list = place.path("list.csv");
    let run = |rows: &str| {
        fs::write(&list, format!("photo_id,path\n{rows}")).unwrap();
        place.run(|config| config.catalogue.clone_from(&list))
    };
    run("9,shop/b.jpg\n4,shop/a.jpg\n")?;
    let summary = run("4,shop/a.jpg\n7,shop/c.jpg\n9,shop/b.jpg\n")?;
    assert_eq!(counts(&summary, &["known", "new", "segmented"]), [2, 1, 1]);
    let rows = [row("a.jpg", 4, "Tshirt_black"), row("c.jpg", 7, "Tshirt_red"), row("b.jpg", 9, "Tshirt_blue")];
    assert_eq!(place.rows(), rows);
    Ok(())
}

#[test]
fn what_is_no_photo_file_is_told_by_its_reason() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    let shop = place.path("shop");
    place.photo("good.jpg", 2);
    place.photo("twice.jpg", 2);
    place.photo("folder.jpg/inside.jpg", 3);
    assert!(Command::new("mkfifo").arg(shop.join("pipe.jpg")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(shop.join("socket.png")).unwrap();
    symlink("/nowhere/a.jpg", shop.join("gone.jpg")).unwrap();
    symlink("/nowhere", shop.join("gone")).unwrap();
    symlink("..", shop.join("folder.jpg/loop")).unwrap();
    symlink("good.jpg", shop.join("link.jpg")).unwrap();
    fs::write(shop.join(std::ffi::OsStr::from_bytes(b"caf\xe9.jpg")), "").unwrap();
    let summary = place.run(|_| {})?;
    let found: Vec<_> = rejects(&place.path("features"))
        .into_iter()
        .map(|(item, reason)| (Path::new(&item).file_name().unwrap().to_string_lossy().into_owned(), reason))
        .collect();
    let expected = [
        ("caf\u{fffd}.jpg", "photo_name_not_utf8"),
        ("loop", "folder_loop"),
        ("gone.jpg", "photo_missing"),
        ("pipe.jpg", "photo_not_a_file"),
        ("socket.png", "photo_not_a_file"),
    ];
    assert_eq!(found, expected.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
    assert_eq!(counts(&summary, &["photos", "segmented"]), [4, 4], "two names of one content are two photos");
    let table = FeatureTable::open(&place.path("features"))?;
    assert_eq!(table.content_sha256[1], table.content_sha256[2], "{:?}", table.file_names);
    assert_eq!(table.row(1), table.row(2));
    Ok(())
}

#[test]
fn a_folder_that_cannot_be_read_does_not_cost_its_photos() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let (Some(place), Some(library)) = (Place::new(), library()) else { return Ok(()) };
    place.photo("a.jpg", 2);
    place.photo("closed/b.jpg", 3);
    place.run(|_| {})?;
    let closed = place.path("shop/closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let summary = if fs::read_dir(&closed).is_err() {
        place.run(|_| {})?
    } else {
        // This user may read everything: the program goes without the right to.
        let lookbook = program(&place, "features", &library, 8);
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]);
        command.arg(lookbook.get_program()).args(lookbook.get_args()).current_dir(place.path(""));
        let output = command.env("ORT_DYLIB_PATH", library).args(["--max-reject-fraction", "1"]).output();
        let said = output.as_ref().map_or_else(ToString::to_string, |it| String::from_utf8_lossy(&it.stderr).into());
        let Some(output) = output.ok().filter(|_| !said.contains("setpriv:")) else {
            crate::shared::skip(&format!("this user may read everything and cannot give that up ({said})"));
            return Ok(());
        };
        assert!(output.status.success(), "{said}");
        Summary::read(&place.path("features"))?
    };
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(counts(&summary, &["photos", "kept", "vanished", "rejects"]), [2, 1, 0, 1]);
    assert_eq!(rejects(&place.path("features"))[0].1, "folder_no_permission");
    Ok(())
}

#[test]
fn shards_take_over_what_is_known_and_make_one_table() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    for photo in 0..9 {
        place.photo(&format!("{photo}.jpg"), 1 + photo);
    }
    fs::write(place.path("shop/bad.jpg"), "").unwrap();
    place.run(|_| {})?;
    place.photo("3.jpg", 12);
    place.photo("new.jpg", 12);
    fs::remove_file(place.path("shop/5.jpg")).unwrap();
    let mut segmented = 0;
    // In any order, one of them twice.
    for number in [2, 1, 2] {
        let summary = place.run(|config| config.shard = Shard::new(number, 2))?;
        segmented += counts(&summary, &["segmented"])[0];
    }
    assert!((2..4).contains(&segmented), "{segmented} for two photos, one shard twice");
    let merged = place.run(|config| config.merge = true)?;
    assert_eq!(counts(&merged, &["photos", "rejects", "next_photo_id"]), [9, 1, 11]);
    let shards = tables(&place.path("features"));
    assert_eq!(place.rows()[3], row("3.jpg", 3, "Tshirt_yellow"));

    let ways = ["known", "new", "changed", "segmented", "parts_unchanged"];
    assert_eq!(counts(&place.run(|_| {})?, &ways), [9, 0, 0, 0, 1], "a merged table is known like any other");
    assert!(shards == tables(&place.path("features")));
    let lost = place.path("shop/0.jpg");
    fs::rename(&lost, place.path("shop/another.jpg")).unwrap();
    let refused = place.run(|config| config.merge = true).expect_err("the shards are of another catalogue");
    assert!(refused.to_string().contains("run the shards again"), "{refused}");
    Ok(())
}

/// Photos of the contents of two, for a table of three parts.
fn many_photos(place: &Place) {
    fs::create_dir(place.path("shop/1")).unwrap();
    for number in 0..20_000 {
        let content = place.path(if number % 3 == 0 { "shop/0/a.jpg" } else { "shop/0/b.jpg" });
        fs::hard_link(content, place.path(&format!("shop/1/{number:05}.jpg"))).unwrap();
    }
}

#[test]
fn shards_with_whole_parts_are_merged_unread_into_the_table_of_one_run() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    let whole = |config: &mut Config| config.output = place.path("whole");
    let both = || place.run(|_| {}).and_then(|_| place.run(whole));
    for (name, color) in [("0/a.jpg", 2), ("0/b.jpg", 12)] {
        place.photo(name, color);
    }
    both()?;
    many_photos(&place);
    fs::write(place.path("shop/1/notes.txt"), "no photo").unwrap();
    both()?;
    // The night after: new photos, rejects, and photos that have gone, of more than one part.
    for number in [7, 9_000, 9_001, 19_999] {
        fs::remove_file(place.path(&format!("shop/1/{number:05}.jpg"))).unwrap();
    }
    place.photo("2/new.jpg", 6);
    for name in ["1/bad.jpg", "2/worse.jpg"] {
        fs::write(place.path("shop").join(name), "no photo").unwrap();
    }
    for number in [2, 1] {
        place.run(|config| (config.shard, config.shard_by) = (Shard::new(number, 2), Division::Part))?;
    }
    let expected = place.run(whole)?;
    let merged = place.run(|config| config.merge = true)?;
    assert!(tables(&place.path("features")) == tables(&place.path("whole")), "row for row");
    let same = ["photos", "rejects", "known", "new", "vanished", "segmented", "parts", "next_photo_id"];
    assert_eq!(counts(&merged, &same), counts(&expected, &same));
    assert_eq!(counts(&merged, &same[..6]), [19_999, 2, 19_998, 1, 4, 1]);
    for name in ["mean_cells_per_photo", "apparel_category_px", "passed_over"] {
        assert_eq!(merged.counts[name], expected.counts[name], "{name}");
    }
    assert!(merged.inputs.iter().zip(&expected.inputs).all(|(a, b)| a.is_same(b)), "made from the same photos");
    let inode = |path: &str| fs::metadata(place.path(path)).unwrap().ino();
    // The second of three parts is the second shard's only one.
    assert_eq!(inode("features/part-00001.parquet"), inode("features.shards/2-of-2/part-00000.parquet"));
    assert_eq!(merged.damaged_files(&place.path("features")), [""; 0]);

    // What went keeps its id and its row; what has not changed is not merged again.
    let back = place.path("shop/1/09001.jpg");
    fs::hard_link(place.path("shop/0/b.jpg"), &back).unwrap();
    let next = place.run(|_| {})?;
    assert_eq!(counts(&next, &["resumed", "segmented", "next_photo_id"]), [1, 0, 20_005]);
    let names: BTreeMap<String, u32> = place.rows().into_iter().map(|(name, id, _)| (name, id)).collect();
    assert_eq!(names["1/09001.jpg"], 9_003);
    fs::remove_file(back).unwrap();

    // A shard that is not whole is named.
    fs::remove_file(place.path("features.shards/1-of-2/part-00001.parquet")).unwrap();
    let refused = place.run(|config| config.merge = true).expect_err("a part is missing").to_string();
    assert!(refused.contains("1-of-2/part-00001.parquet") && refused.contains("again"), "{refused}");

    // Shards that listed unlike catalogues are merged photo by photo.
    place.run(|config| (config.shard, config.shard_by) = (Shard::new(1, 2), Division::Part))?;
    place.photo("2/newer.jpg", 6);
    place.run(|config| (config.shard, config.shard_by) = (Shard::new(2, 2), Division::Part))?;
    let refused = place.run(|config| config.merge = true).expect_err("a shard has not seen it").to_string();
    assert!(refused.contains("lacks a photo") && refused.contains("--shard 1/2"), "{refused}");
    Ok(())
}

#[test]
fn shards_keep_vanished_photos_where_that_is_asked_for() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    for photo in 0..6 {
        place.photo(&format!("{photo}.jpg"), 1 + photo);
    }
    place.run(|_| {})?;
    for photo in [1, 4] {
        fs::remove_file(place.path(&format!("shop/{photo}.jpg"))).unwrap();
    }
    place.photo("6.jpg", 7);
    let shards = |keep_vanished: bool| -> Result<Vec<Summary>> {
        let keep = |config: &mut Config| config.keep_vanished = keep_vanished;
        let shard = |number| place.run(|config| (keep(config), config.shard = Shard::new(number, 2)).1);
        let merge = || place.run(|config| (keep(config), config.merge = true).1);
        Ok(vec![shard(1)?, shard(2)?, merge()?])
    };
    let total = |of: &[Summary], name: &str| of.iter().map(|it| counts(it, &[name])[0]).sum::<u64>();
    let done = shards(true)?;
    assert_eq!((total(&done[..2], "kept"), total(&done[..2], "vanished")), (2, 0));
    assert_eq!(counts(&done[2], &["photos"]), [7]);
    let rows = place.rows();
    let ids: Vec<u32> = rows.iter().map(|(_, id, _)| *id).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(rows[4], row("4.jpg", 4, "Tshirt_gray"), "a photo that is no more has its row from before");

    let done = shards(false)?;
    assert_eq!(counts(&done[2], &["photos"]), [5]);
    assert_eq!(place.rows().iter().map(|(_, id, _)| *id).collect::<Vec<_>>(), [0, 2, 3, 5, 6]);
    Ok(())
}

#[test]
fn masks_have_the_photos_own_size_and_stay_with_their_photos() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    place.photo("a.jpg", 2);
    place.run(|_| {})?;
    let with_masks = |config: &mut Config| (config.masks, config.format) = (Masks::Png, Format::Arrow);
    let summary = place.run(with_masks)?;
    assert_eq!(counts(&summary, &["segmented"]), [1], "it had no mask");
    place.photo("b.jpg", 3);
    assert_eq!(counts(&place.run(with_masks)?, &["segmented", "known"]), [1, 1]);
    let table = FeatureTable::open(&place.path("features"))?;
    assert_eq!(table.len(), 2);
    for digest in &table.content_sha256 {
        let path = place.path("features/masks").join(&digest[..2]).join(format!("{digest}.png"));
        let mask = image::open(&path).unwrap().into_rgb8();
        assert_eq!(mask.dimensions(), (20, 30));
        assert!(mask.pixels().all(|pixel| pixel.0 == lookbook::labels::CATEGORY_PALETTE[T_SHIRT]));
    }
    let part = place.path("features/part-00000.parquet");
    assert!(part.with_extension("arrow").is_file());
    let rows = table::read_table(&part, "features", &[], 10)?.next().unwrap()?;
    let number = |name| {
        let column: &arrow::array::UInt32Array = table::column(&part, &rows, name).unwrap();
        column.value(0)
    };
    let sizes = ["width_px", "height_px", "photo_width_px", "photo_height_px"].map(number);
    assert_eq!(sizes, [400, 600, 20, 30]);
    Ok(())
}

/// The program over the shop of `place`, which saves its progress every so many photos.
pub(crate) fn program(place: &Place, output: &str, library: &Path, keep_every_photos: u32) -> Command {
    let settings = format!("threads = 2\n[segment]\nkeep_every_photos = {keep_every_photos}\n");
    fs::write(place.path("segment.toml"), settings).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookbook"));
    let flags = ["segment", "--catalogue", "shop", "--model", "model", "--output", output, "--config", "segment.toml"];
    command.env_clear().env("ORT_DYLIB_PATH", library).current_dir(place.path("")).args(flags);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_run_that_was_killed_at_any_moment_is_gone_on_with() {
    let (Some(place), Some(library)) = (Place::new(), library()) else { return };
    for photo in 0..150_u32 {
        let color = (1 + photo % 12) as u8;
        fs::write(place.path("shop").join(format!("{photo:04}.jpg")), striped_jpeg(8 + photo, 160, &[color, 2]))
            .unwrap();
    }
    let started = std::time::Instant::now();
    assert!(program(&place, "undisturbed", &library, 8).status().unwrap().success());
    let whole = started.elapsed();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(now.as_nanos() as u64);
    let mut killed = 0;
    while killed < 10 {
        let mut child = program(&place, "features", &library, 8).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(rng.random()));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            fs::remove_dir_all(place.path("features")).unwrap();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
    }
    assert!(program(&place, "features", &library, 8).status().unwrap().success());
    assert!(tables(&place.path("features")) == tables(&place.path("undisturbed")), "other tables");
    assert!(!place.path("features/unfinished").exists() && !place.path(".features.partial").exists());
}

#[test]
fn what_a_killed_run_has_put_down_is_not_done_again() -> Result<()> {
    let (Some(place), Some(library)) = (Place::new(), library()) else { return Ok(()) };
    for photo in 0..400_u32 {
        fs::write(place.path("shop").join(format!("{photo:04}.jpg")), striped_jpeg(8 + photo, 160, &[2])).unwrap();
    }
    kill_once_saved(&place, program(&place, "features", &library, 8), 1);
    let summary = place.run(|_| {})?;
    let [resumed, segmented] = counts(&summary, &["resumed", "segmented"])[..] else { panic!("two counts") };
    assert!(resumed >= 16 && resumed + segmented == 400, "{resumed} were there, {segmented} were made");
    Ok(())
}

/// Kills a run over the shop once it has saved its rows up to the file of that number.
pub(crate) fn kill_once_saved(place: &Place, mut command: Command, number: usize) {
    let mut child = command.spawn().unwrap();
    let saved = place.path(".features.partial/unfinished").join(layout::state_file(number));
    while !saved.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn masks_of_a_killed_run_are_taken_over_but_for_those_of_photos_that_went() -> Result<()> {
    let (Some(place), Some(library)) = (Place::new(), library()) else { return Ok(()) };
    for photo in 0..400_u32 {
        fs::write(place.path("shop").join(format!("{photo:04}.jpg")), striped_jpeg(8 + photo, 160, &[2])).unwrap();
    }
    let mut command = program(&place, "features", &library, 8);
    command.args(["--masks", "png"]);
    kill_once_saved(&place, command, 1);
    fs::remove_file(place.path("shop/0000.jpg")).unwrap();
    let summary = place.run(|config| config.masks = Masks::Png)?;
    let [resumed, segmented] = counts(&summary, &["resumed", "segmented"])[..] else { panic!("two counts") };
    assert!(resumed >= 15 && resumed + segmented == 399, "{resumed} were there, {segmented} were made");
    let folders = fs::read_dir(place.path("features/masks")).unwrap();
    let masks = folders.map(|it| fs::read_dir(it.unwrap().path()).unwrap().count()).sum::<usize>();
    assert_eq!(masks, 399);
    Ok(())
}

#[test]
fn what_a_gate_kept_back_is_not_done_again() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    place.photo("a.jpg", 2);
    place.photo("b.jpg", 3);
    let mut common = Common::default();
    common.gates.min_photos = Some(3);
    let kept_back = segment::run(&place.config(), &common)?;
    assert!(matches!(kept_back, Outcome::KeptBack { .. }), "{kept_back}");
    assert_eq!(counts(&place.run(|_| {})?, &["resumed", "segmented", "photos"]), [2, 0, 2]);
    assert!(!place.path("features/unfinished").exists());
    Ok(())
}

#[test]
fn what_is_damaged_is_done_again_and_not_passed_on() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    place.photo("a.jpg", 2);
    place.photo("b.jpg", 3);
    place.run(|_| {})?;
    let good = tables(&place.path("features"));
    let part = place.path("features/part-00000.parquet");
    // A byte of a page of data, beyond the four of the magic.
    let mut bytes = fs::read(&part).unwrap();
    bytes[40] ^= 1;
    fs::write(&part, bytes).unwrap();
    assert_eq!(counts(&place.run(|_| {})?, &["known", "segmented", "parts_unchanged"]), [0, 2, 0]);
    assert!(tables(&place.path("features")) == good, "the same table, with the same ids");
    fs::write(place.path("features/_state/state-00000.parquet"), "").unwrap();
    assert_eq!(counts(&place.run(|_| {})?, &["known", "segmented"]), [0, 2]);
    assert_eq!(counts(&place.run(|_| {})?, &["known", "segmented"]), [2, 0]);
    Ok(())
}

#[test]
fn a_larger_limit_looks_again_at_what_was_too_large_alone() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    place.photo("small.jpg", 2);
    fs::write(place.path("shop/large.jpg"), striped_jpeg(1100, 1000, &[3])).unwrap();
    assert_eq!(counts(&place.run(|config| config.max_megapixels = 1)?, &["segmented", "rejects"]), [1, 1]);
    let summary = place.run(|_| {})?;
    assert_eq!(counts(&summary, &["known", "segmented", "rejects"]), [1, 1, 0]);
    Ok(())
}

#[test]
fn a_merge_takes_the_settings_of_its_shards() -> Result<()> {
    let Some(place) = Place::new() else { return Ok(()) };
    for photo in 0..5 {
        place.photo(&format!("{photo}.jpg"), 1 + photo);
    }
    for number in [1, 2] {
        place.run(|config| (config.shard, config.masks) = (Shard::new(number, 2), Masks::Png))?;
    }
    let again = place.run(|config| (config.shard, config.masks) = (Shard::new(1, 2), Masks::Png))?;
    assert_eq!(counts(&again, &["segmented"]), [0], "a shard is not done twice");
    let merged = place.run(|config| (config.merge, config.model) = (true, place.path("nowhere")))?;
    assert_eq!(merged.config.setting("model"), Some(place.path("model")));
    assert_eq!(merged.counts["precision"], "f32");
    let [photos, new, resumed] = counts(&merged, &["photos", "new", "resumed"])[..] else { panic!("three counts") };
    assert_eq!((photos, new + resumed), (5, 5));
    assert!(place.path("features/masks").is_dir());
    // Of another content now: it is the shard that did not see it that has to be run again.
    place.photo("0.jpg", 9);
    place.run(|config| (config.shard, config.masks) = (Shard::new(2, 2), Masks::Png))?;
    let refused = place.run(|config| config.merge = true).expect_err("the shards saw other files").to_string();
    assert!(refused.contains("1-of-2") && refused.contains("--shard 1/2"), "{refused}");
    Ok(())
}

/// Peak of the resident memory of a child, in MiB, as long as it is there to be asked.
fn peak_mib(child: &mut std::process::Child) -> u64 {
    let mut peak = 0;
    let status = format!("/proc/{}/status", child.id());
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak = peak.max(line.map_or(0, |kib| kib.parse::<u64>().unwrap() / 1024));
        std::thread::sleep(Duration::from_millis(20));
    }
    peak
}

#[test]
fn ten_thousand_photos_take_no_more_memory_than_a_few() -> Result<()> {
    let (Some(place), Some(library)) = (Place::new(), library()) else { return Ok(()) };
    // Narrow ones: few pixels when they are fitted.
    let original = place.path("photo.jpg");
    fs::write(&original, striped_jpeg(4, 600, &[2])).unwrap();
    for photo in 0..10_000 {
        fs::hard_link(&original, place.path("shop").join(format!("{photo:05}.jpg"))).unwrap();
    }
    let mut child = program(&place, "features", &library, 256).spawn().unwrap();
    let peak = peak_mib(&mut child);
    assert!(child.wait().unwrap().success());
    assert_eq!(Summary::read(&place.path("features"))?.counts["photos"], 10_000);
    assert!((20..400).contains(&peak), "{peak} MiB");
    Ok(())
}

//! The gallery of the report, by clicks and keys in headless Chromium: filters, duplicates, comparison, why, more and less of
//! a cell, links, and names that try to be something else than text.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::datatypes::Field;
use serde_json::{Value, json};

use crate::browser::{Browser, keys};
use lookbook::duplicates::GROUPS_FILE;
use lookbook::features::FeatureTable;
use lookbook::labels::LabelSet;
use lookbook::similarity::{self, Correlator, Measure};
use lookbook::stage::{Common, Stage};
use lookbook::table::{schema, write_table};
use lookbook::{convert, report, segment};

/// Photos of the shop by name, with what is worn in them from top to bottom.
const PHOTOS: [(&str, &[Garment]); 16] = [
    ("<img src=x onerror=window.bad=1>.jpg", &[("dress", RED, 40), ("shoe", BLACK, 10)]),
    ("<script>window.bad=1<script>.jpg", &[("dress", RED, 30), ("bag", BROWN, 20)]),
    ("\"quoted\" & 'single' &lt;.jpg", &[("dress", BLUE, 40), ("shoe", RED, 10)]),
    ("line\u{2028}paragraph\u{2029}.jpg", &[("dress", BLUE, 30), ("bag", RED, 20)]),
    ("\u{202e}gpj.backwards\u{200f}.jpg", &[("coat", BLACK, 50), ("shoe", BLACK, 10)]),
    ("05.jpg", &[("coat", BLACK, 40), ("bag", RED, 20)]),
    ("06.jpg", &[("coat", RED, 40), ("shoe", BROWN, 10)]),
    ("07.jpg", &[("dress", RED, 40), ("shoe", BROWN, 15)]),
    ("08.jpg", &[("dress", RED, 35), ("shoe", BLACK, 15), ("bag", BLACK, 10)]),
    ("09.jpg", &[("dress", BLUE, 40), ("shoe", BLACK, 12)]),
    ("10.jpg", &[("skirt", BLUE, 30), ("blouse", RED, 30)]),
    ("11.jpg", &[("skirt", BLUE, 25), ("blouse", BLUE, 30), ("shoe", BLACK, 10)]),
    ("12.jpg", &[("pants", BLACK, 30), ("blouse", RED, 25)]),
    ("13.jpg", &[("pants", BLUE, 30), ("blouse", RED, 25), ("shoe", BLACK, 8)]),
    ("14.jpg", &[("dress", BLUE, 20), ("coat", BLACK, 30)]),
    ("15.jpg", &[]),
];
type Rgb = [u8; 3];
/// Category, colour and height in pixels.
type Garment = (&'static str, Rgb, u32);
const RED: Rgb = [200, 20, 30];
const BLACK: Rgb = [12, 12, 12];
const BLUE: Rgb = [30, 60, 190];
const BROWN: Rgb = [110, 65, 30];
const SIZE_PX: (u32, u32) = (60, 90);
/// Name of a column of the metadata, and its values in turn; the last one has none.
const BRAND: &str = "<b>brand</b>";
const BRANDS: [Option<&str>; 4] =
    [Some("Acme"), Some("</script><script>window.bad=1</script>"), Some("\u{202e}x\u{2028}y"), None];
/// Photos that are duplicates, by their places in [`PHOTOS`]; the first represents them.
const DOUBLES: [&[usize]; 2] = [&[9, 2, 3], &[4, 5]];

/// A report of the photos, with metadata.
struct Shop {
    _place: tempfile::TempDir,
    run: PathBuf,
    report: PathBuf,
    table: FeatureTable,
    neighbours: Vec<similarity::Neighbour>,
}

impl Shop {
    fn new() -> Self {
        Self::by(Measure::Pearson)
    }

    fn by(measure: Measure) -> Self {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        write_source(&at("source"));
        let common = Common::default();
        let split = [0, 0, 1];
        let dataset = convert::Config { source: at("source"), output: at("dataset"), split, ..Default::default() };
        convert::run(&dataset, &common).unwrap().published().expect("it is published");
        let features = segment::Config {
            catalogue: at("dataset"),
            output: at("features"),
            from: segment::LabelSource::Labels,
            ..Default::default()
        };
        segment::run(&features, &common).unwrap().published().expect("it is published");
        let similarity =
            similarity::Config { features: at("features"), output: at("similarity"), measure, ..Default::default() };
        similarity::run(&similarity, &common).unwrap().published().expect("it is published");
        write_metadata(&at("items.csv"));
        let config = report::Config {
            run: place.path().to_owned(),
            output: at("report"),
            metadata: Some(at("items.csv")),
            ..Default::default()
        };
        report::run(&config, &common).unwrap().published().expect("it is published");
        let table = FeatureTable::open(&at("features")).unwrap();
        let neighbours = similarity::read_neighbours(&at("similarity")).unwrap();
        Self { run: config.run, report: config.output, table, neighbours, _place: place }
    }

    fn url(&self) -> String {
        format!("file://{}", self.report.join("index.html").canonicalize().unwrap().display())
    }

    /// The row of the photo called `name`.
    fn row(&self, name: &str) -> usize {
        self.table.file_names.iter().position(|it| it == name).unwrap()
    }

    /// Rows of photos with a cell of one of these categories and colours; none stand for all.
    fn wearing(&self, categories: &[&str], colors: &[&str]) -> Vec<usize> {
        let cells = self.table.labels.cell_names();
        let is_wanted = |cell: &String| {
            let (category, color) = cell.rsplit_once('_').unwrap();
            (categories.is_empty() || categories.contains(&category)) && (colors.is_empty() || colors.contains(&color))
        };
        let wears =
            |row: &usize| self.table.row(*row).iter().zip(cells).any(|(share, cell)| *share > 0.0 && is_wanted(cell));
        (0..self.table.len()).filter(wears).collect()
    }
}

/// Photos in `photos/`, and masks by our own ids.
fn write_source(folder: &Path) {
    let labels = LabelSet::cfpd();
    let (width, height) = SIZE_PX;
    for part in ["photos", "masks"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    for (name, worn) in PHOTOS {
        let mut photo = image::RgbImage::from_pixel(width, height, image::Rgb([235, 235, 230]));
        let mut mask = image::GrayImage::new(width, height);
        let mut top = 10;
        for (category, color, rows) in worn {
            let id = labels.category_named(category).unwrap();
            for (x, y) in (top..top + rows).flat_map(|y| (10..width - 10).map(move |x| (x, y))) {
                photo.put_pixel(x, y, image::Rgb(*color));
                mask.put_pixel(x, y, image::Luma([id]));
            }
            top += rows;
        }
        let stem = name.strip_suffix(".jpg").unwrap();
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 95).encode_image(&photo).unwrap();
        fs::write(folder.join("photos").join(name), jpeg).unwrap();
        mask.save(folder.join("masks").join(format!("{stem}.png"))).unwrap();
    }
}

/// What the shop knows of its photos; the last one is not in the table, and a row has no photo.
fn write_metadata(path: &Path) {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut lines = vec![format!("file_name,{},price,title,sale,day", quoted(BRAND))];
    for (place, (name, _)) in PHOTOS.iter().enumerate().take(PHOTOS.len() - 1) {
        let brand = BRANDS[place % BRANDS.len()].map(quoted).unwrap_or_default();
        let price = if place == 1 { String::new() } else { format!("{}.5", place * 10) };
        let row = [quoted(name), brand, price, format!("Look {place} of the season"), format!("{}", place % 2 == 0)];
        lines.push(format!("{},2026-11-{:02}", row.join(","), place / 4 + 1));
    }
    lines.push("nowhere.jpg,Acme,1,None,true,2026-11-01\n".to_owned());
    fs::write(path, lines.join("\n")).unwrap();
}

fn rows_of(found: &Value) -> Vec<usize> {
    found.as_array().unwrap().iter().map(|it| it.as_u64().unwrap() as usize).collect()
}

/// The photos on the wall, in order.
fn wall(browser: &Browser) -> Vec<usize> {
    rows_of(&browser.run("return [...document.querySelectorAll('#wall .tile')].map((it) => Number(it.dataset.photo))"))
}

/// The photos near to the chosen one, in order.
fn near(browser: &Browser) -> Vec<usize> {
    rows_of(
        &browser
            .run("return [...document.querySelectorAll('#chosen .near .tile')].map((it) => Number(it.dataset.photo))"),
    )
}

/// The count beside a choice of a filter.
fn count_of(browser: &Browser, filter: &str, choice: &str) -> u64 {
    let script = format!(
        "const facet = [...document.querySelectorAll('.facet')].find((it) => it.querySelector('summary').textContent === {});
         const line = [...facet.querySelectorAll('.option')].find((it) => it.querySelector('.value').textContent === {});
         return line.querySelector('.count').textContent",
        json!(filter),
        json!(choice)
    );
    browser.run(&script).as_str().unwrap().parse().unwrap()
}

/// Clicks a choice of a filter.
fn tick(browser: &Browser, filter: &str, choice: &str) {
    browser.run(&format!(
        "const facet = [...document.querySelectorAll('.facet')].find((it) => it.querySelector('summary').textContent === {});
         [...facet.querySelectorAll('.option')].find((it) => it.querySelector('.value').textContent === {}).click()",
        json!(filter),
        json!(choice)
    ));
}

fn click(browser: &Browser, selector: &str) {
    browser.run(&format!("document.querySelector({}).click()", json!(selector)));
}

fn text(browser: &Browser, selector: &str) -> String {
    browser.run(&format!("return document.querySelector({}).textContent", json!(selector))).as_str().unwrap().to_owned()
}

fn choose(browser: &Browser, row: usize) {
    click(browser, &format!("#wall [data-photo='{row}']"));
    browser.wait_for("!document.getElementById('chosen').hidden");
}

fn hash(browser: &Browser) -> String {
    browser.run("return location.hash").as_str().unwrap().to_owned()
}

#[test]
fn filters_leave_the_photos_that_match_and_count_the_others() {
    let Some(browser) = Browser::open() else { return };
    let shop = Shop::new();
    browser.open_page(&shop.url());
    let dresses = shop.wearing(&["dress"], &[]);
    assert_eq!(dresses.len(), 8, "the drawn dresses are dresses");
    assert_eq!(count_of(&browser, "Category", "dress"), 8);
    tick(&browser, "Category", "dress");
    assert_eq!(wall(&browser), dresses);
    assert!(text(&browser, "#count").starts_with("8 of 16 photos"));
    // Counts follow the other filters: red dresses, not dresses with red shoes.
    let red = shop.wearing(&["dress"], &["red"]);
    assert!(!red.is_empty() && red.len() < dresses.len());
    assert_eq!(count_of(&browser, "Colour", "red"), red.len() as u64);
    tick(&browser, "Colour", "red");
    assert_eq!(wall(&browser), red);
    let coats = shop.wearing(&["coat"], &["red"]).len() as u64;
    assert_eq!(count_of(&browser, "Category", "coat"), coats, "what a click on it would add");
    tick(&browser, "Category", "coat");
    assert_eq!(wall(&browser), shop.wearing(&["dress", "coat"], &["red"]), "any of a filter");
    let address = hash(&browser);
    assert_eq!(address, "#category=coat&category=dress&color=red");
    // Back takes back one choice, forward brings it again, and a link leads to the same.
    browser.post("back", &json!({}));
    browser.wait_for("location.hash === '#category=dress&color=red'");
    assert_eq!(wall(&browser), red);
    browser.post("forward", &json!({}));
    browser.wait_for(&format!("location.hash === '{address}'"));
    assert_eq!(wall(&browser), shop.wearing(&["dress", "coat"], &["red"]));
    browser.open_page(&format!("{}{address}", shop.url()));
    assert_eq!(wall(&browser), shop.wearing(&["dress", "coat"], &["red"]));
    // Each filter that is set can be taken away by itself, and all at once.
    let chips = browser.run("return [...document.querySelectorAll('#chips .chip bdi')].map((it) => it.textContent)");
    assert_eq!(chips, json!(["coat", "dress", "red"]));
    click(&browser, "#chips .chip");
    assert_eq!(wall(&browser), red);
    click(&browser, "#chips [data-clear-filters]");
    assert_eq!((wall(&browser).len(), hash(&browser)), (16, String::new()));
    browser.is_silent();
}

#[test]
fn why_a_photo_is_near_are_numbers_that_sum_to_its_correlation() {
    let Some(browser) = Browser::open() else { return };
    for measure in [Measure::Pearson, Measure::Cosine] {
        explains(&browser, &Shop::by(measure));
    }
}

fn explains(browser: &Browser, shop: &Shop) {
    browser.open_page(&shop.url());
    let row = shop.row("07.jpg");
    choose(browser, row);
    let stored: Vec<_> = shop.neighbours.iter().filter(|it| it.photo_id == shop.table.photo_ids[row]).collect();
    assert_eq!(near(browser).len(), stored.len());
    for neighbour in stored {
        let other = shop.table.photo_ids.iter().position(|it| *it == neighbour.neighbour_id).unwrap();
        click(browser, &format!("[data-why='{other}']"));
        let terms = browser.run(
            "return [...document.querySelectorAll('.explained [data-term]')].map((it) => Number(it.dataset.term))",
        );
        let sum: f64 = terms.as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).sum();
        assert!((sum - f64::from(neighbour.correlation)).abs() < 1e-6, "{sum} for {}", neighbour.correlation);
        // The numbers that people read sum, too.
        let shown = browser.run(
            "const read = (it) => Math.round(Number(it.textContent.replace('−', '-')) * 1000);
             const rows = [...document.querySelectorAll('.explained [data-term] .term')];
             return [rows.map(read).reduce((sum, it) => sum + it, 0), read(document.querySelector('.explained .sum .term'))]",
        );
        assert_eq!(shown[0], shown[1], "{shown}");
        assert_eq!(shown[1], (f64::from(neighbour.correlation) * 1000.0).round(), "{shown}");
        // The garment of the strongest cell is outlined in both photos.
        browser.wait_for("document.querySelectorAll('.explained .pair .outline .edge').length === 2");
        assert!(hash(browser).contains(&format!("why={other}")));
        click(browser, &format!("[data-why='{other}']"));
        assert_eq!(browser.run("return document.querySelectorAll('.explained').length"), 0);
    }
    browser.is_silent();
}

#[test]
fn chosen_photos_are_compared_side_by_side() {
    let Some(browser) = Browser::open() else { return };
    let shop = Shop::new();
    browser.open_page(&shop.url());
    // By keyboard: the first photo, the second, and the last.
    browser.run("document.querySelector('#wall .tile[tabindex=\"0\"]').focus()");
    browser.press(&["c", keys::RIGHT, "c", keys::END, "c"]);
    assert_eq!(hash(&browser), "#compare=0+1+15");
    assert_eq!(browser.run("return document.activeElement.dataset.photo"), "15", "the focus stays");
    // Nothing is worn in the fourth, so its correlations are not defined.
    let bare = shop.row("15.jpg");
    click(&browser, &format!("#wall [data-compare='{bare}']"));
    let rows = [0, 1, 15, bare];
    let photos = browser
        .run("return [...document.querySelectorAll('#compared thead .tile')].map((it) => Number(it.dataset.photo))");
    assert_eq!(rows_of(&photos), rows);
    let lines = browser.run(
        "return [...document.querySelectorAll('#compared tbody [data-cell]')].map((line) =>
             [Number(line.dataset.cell), ...[...line.querySelectorAll('td')].map((it) => it.textContent)])",
    );
    let worn: Vec<usize> = (0..shop.table.labels.cell_count())
        .filter(|&cell| rows.iter().any(|&row| shop.table.row(row)[cell] > 0.0))
        .collect();
    assert!(worn.len() > 2, "{worn:?}");
    let mut found: Vec<usize> = lines.as_array().unwrap().iter().map(|it| it[0].as_u64().unwrap() as usize).collect();
    found.sort_unstable();
    assert_eq!(found, worn, "every cell that any of them wears");
    for line in lines.as_array().unwrap() {
        for (place, row) in (1..).zip(rows) {
            let share = shop.table.row(row)[line[0].as_u64().unwrap() as usize] * 100.0;
            let said = line[place].as_str().unwrap();
            let read: Option<f32> = said.strip_suffix(" %").map(|it| it.parse().unwrap());
            assert!(read.map_or(share == 0.0, |it| (it - share).abs() <= 0.5), "{said} for {share}");
        }
    }
    let correlator = Correlator::new(&shop.table, Measure::Pearson.into());
    let with_first = correlator.row(0);
    let expected = rows.map(|row| if row == bare { "–".to_owned() } else { format!("{:.2}", with_first[row]) });
    let correlations = browser
        .run("return [...document.querySelectorAll('#compared tfoot tr:first-child td')].map((it) => it.textContent)");
    assert_eq!(correlations, json!(expected));
    // The same by the mark of a tile, and all by one button.
    click(&browser, "#compared [data-compare='1']");
    assert_eq!(hash(&browser), format!("#compare=0+15+{bare}"));
    click(&browser, "[data-clear-compared]");
    assert_eq!(
        (hash(&browser), browser.run("return document.getElementById('compared').hidden")),
        (String::new(), json!(true))
    );
    browser.is_silent();
}

#[test]
fn everything_is_reached_by_keys() {
    let Some(browser) = Browser::open() else { return };
    let shop = Shop::new();
    browser.open_page(&shop.url());
    let focused = |of: &str| browser.run(&format!("return document.activeElement.{of}"));
    browser.press(&["/"]);
    assert_eq!(focused("id"), "search");
    browser.press(&["r", "e", "d", " ", "d", "r", "e", "s", "s"]);
    let red = shop.wearing(&["dress"], &["red"]);
    assert_eq!((wall(&browser), hash(&browser)), (red.clone(), "#search=red+dress".to_owned()));
    // A word is one step back.
    browser.post("back", &json!({}));
    browser.wait_for("location.hash === ''");
    assert_eq!(wall(&browser).len(), 16);
    browser.post("forward", &json!({}));
    browser.wait_for("location.hash !== ''");
    // From the search through the filters to the wall, each visibly.
    browser.run("document.activeElement.blur()");
    browser.press(&["/"]);
    let mut stops = Vec::new();
    while focused("className") != "tile" {
        browser.press(&[keys::TAB]);
        let outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle");
        assert_ne!(outline, "none", "{stops:?}: the focus is seen");
        stops.push(focused("tagName + ' ' + (document.activeElement.ariaLabel ?? '')").as_str().unwrap().to_owned());
        assert!(stops.len() < 100, "the wall is reached: {stops:?}");
    }
    assert!(stops.iter().any(|it| it == "INPUT dress") && stops.iter().any(|it| it == "INPUT red"), "{stops:?}");
    // Space ticks a box; the focus stays on it.
    browser.run("document.querySelector('#facets-inner input[aria-label=shoe]').focus()");
    browser.press(&[" "]);
    assert!(hash(&browser).contains("category=shoe"));
    assert_eq!(focused("ariaLabel"), "shoe");
    browser.press(&[" "]);
    // Enter chooses, Escape takes back the explanation, then the choice, and comes back to the tile.
    browser.run("document.querySelector('#wall .tile[tabindex=\"0\"]').focus()");
    browser.press(&[keys::RIGHT, keys::ENTER]);
    assert_eq!(hash(&browser), format!("#search=red+dress&photo={}", red[1]));
    browser.run("document.querySelector('#chosen .why').focus()");
    browser.press(&[keys::ENTER]);
    assert_eq!(browser.run("return document.querySelectorAll('.explained').length"), 1);
    assert_eq!(focused("className"), "why", "the focus stays on the button");
    browser.press(&[keys::ESCAPE]);
    assert_eq!(browser.run("return document.querySelectorAll('.explained').length"), 0);
    browser.press(&[keys::ESCAPE]);
    assert_eq!(browser.run("return document.getElementById('chosen').hidden"), true);
    assert_eq!(focused("dataset.photo"), red[1].to_string());
    browser.press(&["/", keys::ESCAPE]);
    assert_eq!((wall(&browser).len(), hash(&browser)), (16, String::new()), "Escape empties the search");
    for (role, least) in [("grid", 1), ("row", 2), ("gridcell", 16), ("status", 1)] {
        let count = browser.run(&format!("return document.querySelectorAll('#gallery-photos [role={role}]').length"));
        assert!(count.as_u64() >= Some(least), "{role}: {count}");
    }
    let nameless = browser.run(
        "return [...document.querySelectorAll('#gallery-photos :is(button, input)')]
             .filter((it) => !(it.ariaLabel || it.textContent.trim() || it.labels?.length)).map((it) => it.outerHTML)",
    );
    assert_eq!(nameless, json!([]), "every control has a name");
    browser.is_silent();
}

#[test]
fn a_link_leads_to_all_that_is_shown_and_a_link_to_a_section_loses_nothing() {
    let Some(browser) = Browser::open() else { return };
    let shop = Shop::new();
    browser.open_page(&shop.url());
    tick(&browser, "Category", "dress");
    choose(&browser, shop.row("09.jpg"));
    browser.run("document.querySelector('#chosen .worn [data-unlike]').click()");
    browser.run("document.querySelector('#chosen .near .mark').click()");
    browser.run("document.querySelector('#chosen .why').click()");
    let shown = |browser: &Browser| {
        let texts = ["#count", "#chips", "#wall", "#chosen", "#compared"].map(|it| text(browser, it));
        (texts, hash(browser))
    };
    let before = shown(&browser);
    assert!(before.1.contains("unlike=") && before.1.contains("why=") && before.1.contains("compare="), "{}", before.1);
    let link = browser.run("return document.getElementById('link').href");
    browser.open_page(link.as_str().unwrap());
    assert_eq!(shown(&browser), before);
    browser.run("document.querySelector('nav a[href=\"#stages\"]').click()");
    browser.wait_for(&format!("location.hash === '{}'", before.1));
    assert_eq!(shown(&browser), before);
    // What a link says that is not there is left out.
    browser.open_page(&format!("{}#photo=99&compare=1+77+x&category=cape&like=cape_red&why=3", shop.url()));
    assert_eq!(wall(&browser).len(), 16);
    assert_eq!(browser.run("return document.getElementById('chosen').hidden"), true);
    assert_eq!(browser.run("return document.querySelectorAll('#compared thead .tile').length"), 1);
    browser.is_silent();
}

#[test]
fn names_are_text_whatever_they_hold_and_a_narrow_window_holds_all() {
    let Some(browser) = Browser::open() else { return };
    let shop = Shop::new();
    browser.open_page(&shop.url());
    for (name, _) in PHOTOS {
        let row = shop.row(name);
        browser.run(&format!("location.hash = 'photo={row}&compare=0+{row}'"));
        browser.wait_for(&format!("document.querySelector('#chosen strong')?.textContent === {}", json!(name)));
        assert_eq!(text(&browser, &format!("#wall [data-photo='{row}'] .name")), name);
    }
    let made = browser.run(
        "return [window.bad ?? null, document.querySelectorAll('#gallery-photos :is(img, script, b:not(.x))').length]",
    );
    assert_eq!(made, json!([null, 0]), "no name became an element");
    let row = shop.row(PHOTOS[1].0);
    browser.run(&format!("location.hash = 'photo={row}&compare=0+{row}'"));
    browser.wait_for("document.querySelector('#chosen .why')");
    browser.is_wide(360);
    click(&browser, "#chosen .why");
    browser.run("document.getElementById('filters').open = true");
    let overflow = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(overflow, 0, "the page is not wider than the window");
    let cut = browser.run(
        "return [...document.querySelectorAll('#gallery-photos :is(button, input)')].filter((it) => !it.closest('.scroll') && it.getClientRects().length)
             .filter((it) => it.getBoundingClientRect().right > 360.5).map((it) => it.outerHTML)",
    );
    assert_eq!(cut, json!([]), "no control leaves the window");
    browser.is_silent();
}

#[test]
fn metadata_filter_and_their_counts_follow_each_other() {
    let Some(browser) = Browser::open() else { return };
    let shop = Shop::new();
    browser.open_page(&shop.url());
    // By place in PHOTOS, which is not the order of the rows.
    let rows = |is_wanted: &dyn Fn(usize) -> bool| {
        let mut rows: Vec<usize> =
            (0..PHOTOS.len()).filter(|&it| is_wanted(it)).map(|it| shop.row(PHOTOS[it].0)).collect();
        rows.sort_unstable();
        rows
    };
    let in_table = PHOTOS.len() - 1;
    let titles = browser.run("return [...document.querySelectorAll('.facet > summary')].map((it) => it.textContent)");
    assert_eq!(titles, json!(["Category", "Colour", BRAND, "price", "title", "sale", "day"]));
    let evil = BRANDS[1].unwrap();
    assert_eq!(count_of(&browser, BRAND, evil), 4);
    assert_eq!(count_of(&browser, BRAND, "(no value)"), 4);
    tick(&browser, BRAND, evil);
    let is_evil = |it: usize| it < in_table && it % 4 == 1;
    assert_eq!(wall(&browser), rows(&is_evil));
    // Of these, only one is on sale... none: they are the odd ones.
    assert_eq!((count_of(&browser, "sale", "yes"), count_of(&browser, "sale", "no")), (0, 4));
    // One of them has no price.
    let note = "return [...document.querySelectorAll('.facet .soft')].map((it) => it.textContent)";
    assert_eq!(browser.run(note)[0], "50.5 to 130.5 in 3 photos");
    tick(&browser, BRAND, "(no value)");
    assert_eq!(wall(&browser), rows(&|it| is_evil(it) || it == in_table || it % 4 == 3), "any of a filter");
    tick(&browser, BRAND, evil);
    tick(&browser, BRAND, "(no value)");
    assert_eq!(wall(&browser).len(), 16);
    // A range: photos without a price are in none.
    browser.keys(".range input", "20.5");
    browser.keys(".range input:last-child", "60");
    let is_priced = |it: usize| it < in_table && it != 1 && (2..=5).contains(&it);
    assert_eq!(wall(&browser), rows(&is_priced));
    assert_eq!(hash(&browser), "#from.price=20.5&to.price=60");
    assert_eq!(count_of(&browser, "day", "2026-11-01"), 2, "counts follow the range");
    // Text with many values is searched, in upper or lower case.
    browser.keys("[aria-label='title contains']", "LOOK 5");
    assert_eq!(wall(&browser), rows(&|it| it == 5));
    let address = hash(&browser);
    browser.open_page(&format!("{}{address}", shop.url()));
    assert_eq!(wall(&browser), rows(&|it| it == 5));
    let typed =
        "return [...document.querySelectorAll('.facet :is([type=number], [type=search])')].map((it) => it.value)";
    assert_eq!(browser.run(typed), json!(["20.5", "60", "LOOK 5"]), "the fields say what the link does");
    let chips = browser.run("return [...document.querySelectorAll('#chips .chip bdi')].map((it) => it.textContent)");
    assert_eq!(chips, json!(["price: 20.5 to 60", "title: “LOOK 5”"]));
    click(&browser, "#chips [data-clear-filters]");
    // The search finds metadata, too; the chosen photo shows its own.
    browser.keys("#search", "window.bad");
    let with_name = |it: usize| PHOTOS[it].0.contains("window.bad");
    assert_eq!(wall(&browser), rows(&|it| is_evil(it) || with_name(it)));
    choose(&browser, shop.row(PHOTOS[5].0));
    let shown =
        browser.run("return [...document.querySelectorAll('#chosen .metadata > *')].map((it) => it.textContent)");
    assert_eq!(
        shown,
        json!([BRAND, evil, "price", "50.5", "title", "Look 5 of the season", "sale", "no", "day", "2026-11-02"])
    );
    // What is near is near among those that match.
    assert!(near(&browser).iter().all(|row| wall(&browser).contains(row)));
    assert!(text(&browser, "#chosen").contains("photos that match"));
    browser.is_silent();
}

#[test]
fn more_and_less_of_a_cell_rank_the_photos_anew() {
    let Some(browser) = Browser::open() else { return };
    let shop = Shop::new();
    browser.open_page(&shop.url());
    let row = shop.row("07.jpg");
    choose(&browser, row);
    let before = near(&browser);
    let cell = |name: &str| shop.table.labels.cell_names().iter().position(|it| it == name).unwrap();
    let (shoe, dress) = (cell("shoe_brown"), cell("dress_red"));
    click(&browser, &format!("#chosen .worn [data-like='{shoe}']"));
    click(&browser, &format!("#chosen .worn [data-unlike='{dress}']"));
    assert_eq!(hash(&browser), format!("#photo={row}&like=shoe_brown&unlike=dress_red"));
    // The definition: the correlation, plus the share of what is liked, less that of what is not.
    let correlations = Correlator::new(&shop.table, Measure::Pearson.into()).row(row);
    let score = |other: usize| {
        let cells = shop.table.row(other);
        f64::from(correlations[other]) + f64::from(cells[shoe]) - f64::from(cells[dress])
    };
    let mut expected: Vec<usize> =
        (0..shop.table.len()).filter(|&it| it != row && !correlations[it].is_nan()).collect();
    expected.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
    expected.truncate(10);
    assert_ne!(expected, before, "the example tells them apart");
    assert_eq!(near(&browser), expected);
    let first = text(&browser, "#chosen .near small");
    assert_eq!(first, format!("r = {:.2}, score {:.2}", correlations[expected[0]], score(expected[0])));
    // Why says both: the terms sum to r, and with the preferences to the score.
    click(&browser, &format!("[data-why='{}']", expected[0]));
    let sums = browser.run(
        "const sum = (name) => [...document.querySelectorAll(`.explained [data-${name}]`)].reduce((sum, it) => sum + Number(it.dataset[name]), 0);
         return [sum('term'), sum('preference'), Number(document.querySelector('.explained .score .term').textContent.replace('−', '-'))]",
    );
    let [terms, preferences, shown] = [0, 1, 2].map(|it| sums[it].as_f64().unwrap());
    assert!((terms - f64::from(correlations[expected[0]])).abs() < 1e-6, "{sums}");
    assert!((terms + preferences - score(expected[0])).abs() < 1e-6, "{sums}");
    assert!((shown - score(expected[0])).abs() < 1.01e-3, "{sums}");
    // Again takes it back; the other sign takes its place.
    click(&browser, &format!("#chosen .worn [data-like='{dress}']"));
    assert!(hash(&browser).contains("like=shoe_brown&like=dress_red") && !hash(&browser).contains("unlike"));
    click(&browser, &format!("#chosen .chip[data-like='{dress}']"));
    click(&browser, &format!("#chosen .worn [data-like='{shoe}']"));
    assert_eq!(near(&browser), before);
    browser.is_silent();
}

/// Publishes `duplicates/` with the groups of [`DOUBLES`].
fn publish_doubles(run: &Path, table: &FeatureTable) {
    let row = |place: usize| table.file_names.iter().position(|it| it == PHOTOS[place].0).unwrap();
    let group_of = |photo: usize| {
        let group = DOUBLES.iter().find(|group| group.iter().any(|&it| row(it) == photo));
        table.photo_ids[group.map_or(photo, |group| row(group[0]))]
    };
    let groups: Vec<u32> = (0..table.len()).map(group_of).collect();
    let stage = Stage::begin("duplicates", &run.join("duplicates"), &Common::default(), &json!({})).unwrap();
    let stands: BooleanArray = table.photo_ids.iter().zip(&groups).map(|(photo, group)| Some(photo == group)).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("photo_id", Arc::new(UInt32Array::from(table.photo_ids.clone()))),
        ("group_id", Arc::new(UInt32Array::from(groups))),
        ("distance", Arc::new(UInt32Array::from(vec![0; table.len()]))),
        ("is_representative", Arc::new(stands)),
        ("is_exact_copy", Arc::new(BooleanArray::from(vec![false; table.len()]))),
    ];
    let field = |(name, values): &(&str, ArrayRef)| Field::new(*name, values.data_type().clone(), false);
    let schema = schema("duplicate_groups", columns.iter().map(field).collect());
    let rows = RecordBatch::try_new(schema, columns.map(|it| it.1).to_vec()).unwrap();
    write_table(&stage.path(GROUPS_FILE), &rows).unwrap();
    stage.publish().unwrap().published().expect("it is published");
}

#[test]
fn duplicates_are_folded_into_one_tile() {
    let Some(browser) = Browser::open() else { return };
    let shop = Shop::new();
    let config = report::Config { run: shop.run.clone(), output: shop.report.clone(), ..Default::default() };
    publish_doubles(&shop.run, &shop.table);
    browser.is_wide(1900);
    report::run(&config, &Common::default()).unwrap().published().expect("it is published");
    browser.open_page(&shop.url());
    let row = |place: usize| shop.row(PHOTOS[place].0);
    let [stands, others] = [row(9), row(2)];
    assert_eq!(wall(&browser).len(), 13);
    assert_eq!(text(&browser, "#count"), "16 photos, 3 duplicates folded");
    assert_eq!(text(&browser, &format!("[data-fold='{stands}']")), "× 3");
    assert!(!wall(&browser).contains(&others));
    // A click unfolds them side by side, the one that stands for them first; D folds them.
    click(&browser, &format!("[data-fold='{stands}']"));
    let unfolded = wall(&browser);
    let at = unfolded.iter().position(|it| *it == stands).unwrap();
    let mut members = unfolded[at..at + 3].to_vec();
    members.sort_unstable();
    let mut expected = [row(9), row(2), row(3)];
    expected.sort_unstable();
    assert_eq!((unfolded.len(), members), (15, expected.to_vec()));
    let address = hash(&browser);
    assert_eq!(address, format!("#unfolded={stands}"));
    browser.open_page(&format!("{}{address}", shop.url()));
    assert_eq!(wall(&browser), unfolded);
    browser.run(&format!("document.querySelector('#wall [data-photo=\"{}\"]').focus()", row(3)));
    browser.press(&["d"]);
    assert_eq!((wall(&browser).len(), hash(&browser)), (13, String::new()));
    assert!(browser.run("return document.activeElement.classList.contains('tile')") == true, "the focus is on a tile");
    // Only those that match are counted, and one that matches stands for a group whose representative does not.
    browser.keys("#search", "line");
    assert_eq!(wall(&browser), [row(3)]);
    assert_eq!(browser.run("return document.querySelectorAll('[data-fold]').length"), 0);
    browser.press(&[keys::ESCAPE]);
    // The neighbours of the folded photo leave out its duplicates, and have one photo of every other group.
    choose(&browser, stands);
    let near_now = near(&browser);
    assert!(!near_now.contains(&row(2)) && !near_now.contains(&row(3)), "{near_now:?}");
    assert!(!(near_now.contains(&row(4)) && near_now.contains(&row(5))), "{near_now:?}");
    assert_eq!(near_now.len(), 10, "ten are ten");
    // All at once.
    click(&browser, "#fold-all");
    assert_eq!(wall(&browser).len(), 16);
    assert!(near(&browser).contains(&row(2)));
    assert!(hash(&browser).contains("folded=no"));
    browser.is_silent();
}

#[test]
fn metadata_that_cannot_be_joined_is_one_error_before_anything_is_written() {
    let shop = Shop::new();
    let refused = |csv: &str| {
        let metadata = shop.run.join("bad.csv");
        fs::write(&metadata, csv).unwrap();
        let output = shop.run.join("refused");
        let config = report::Config {
            run: shop.run.clone(),
            output: output.clone(),
            metadata: Some(metadata),
            ..Default::default()
        };
        let error = report::run(&config, &Common::default()).expect_err(csv);
        assert!(!output.exists() && error.to_string().contains("bad.csv"), "{error}");
        error.to_string()
    };
    assert!(refused("file_name,price\n05.jpg,1\n05.jpg,2\n").contains("\"05.jpg\" twice"));
    assert!(refused("name,price\n05.jpg,1\n").contains("none of the columns"));
    let summary = lookbook::stage::Summary::read(&shop.report).unwrap();
    assert_eq!(
        (&summary.counts["photos_without_metadata"], &summary.counts["metadata_without_photo"]),
        (&json!(1), &json!(1))
    );
}

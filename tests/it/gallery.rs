//! The gallery of the report, by clicks and keys in headless Chromium: filters, duplicates, comparison, why, more and less of
//! a cell, links, and names that try to be something else than text.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::browser::{Browser, keys};
use lookbook::features::FeatureTable;
use lookbook::labels::LabelSet;
use lookbook::similarity::{self, Correlator, Measure};
use lookbook::stage::Common;
use lookbook::{convert, report, segment};

/// Photos of the shop by name, with what is worn in them from top to bottom.
const PHOTOS: [(&str, &[(&str, Rgb, u32)]); 16] = [
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
const RED: Rgb = [200, 20, 30];
const BLACK: Rgb = [12, 12, 12];
const BLUE: Rgb = [30, 60, 190];
const BROWN: Rgb = [110, 65, 30];
const SIZE_PX: (u32, u32) = (60, 90);
/// The brand of each photo, and the name of its column.
const BRAND: &str = "<b>brand</b>";
const BRANDS: [&str; 4] = ["Acme", "</script><script>window.bad=1</script>", "\u{202e}\u{2028}\"", ""];

/// A report of the photos, with metadata.
struct Shop {
    _place: tempfile::TempDir,
    report: PathBuf,
    table: FeatureTable,
    neighbours: Vec<similarity::Neighbour>,
}

impl Shop {
    fn new() -> Self {
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
            similarity::Config { features: at("features"), output: at("similarity"), ..Default::default() };
        similarity::run(&similarity, &common).unwrap().published().expect("it is published");
        let config = report::Config { run: place.path().to_owned(), output: at("report"), ..Default::default() };
        report::run(&config, &common).unwrap().published().expect("it is published");
        let table = FeatureTable::open(&at("features")).unwrap();
        let neighbours = similarity::read_neighbours(&at("similarity")).unwrap();
        Self { report: config.output, table, neighbours, _place: place }
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
        let wears = |row: &usize| self.table.row(*row).iter().zip(cells).any(|(share, cell)| *share > 0.0 && is_wanted(cell));
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

fn rows_of(found: &Value) -> Vec<usize> {
    found.as_array().unwrap().iter().map(|it| it.as_u64().unwrap() as usize).collect()
}

/// The photos on the wall, in order.
fn wall(browser: &Browser) -> Vec<usize> {
    rows_of(&browser.run("return [...document.querySelectorAll('#wall .tile')].map((it) => Number(it.dataset.photo))"))
}

/// The photos near to the chosen one, in order.
fn near(browser: &Browser) -> Vec<usize> {
    rows_of(&browser.run("return [...document.querySelectorAll('#chosen .near .tile')].map((it) => Number(it.dataset.photo))"))
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
    let shop = Shop::new();
    browser.open_page(&shop.url());
    let row = shop.row("07.jpg");
    choose(&browser, row);
    let stored: Vec<_> = shop.neighbours.iter().filter(|it| it.photo_id == shop.table.photo_ids[row]).collect();
    assert_eq!(near(&browser).len(), stored.len());
    for neighbour in stored {
        let other = shop.table.photo_ids.iter().position(|it| *it == neighbour.neighbour_id).unwrap();
        click(&browser, &format!("[data-why='{other}']"));
        let terms = browser.run("return [...document.querySelectorAll('.explained [data-term]')].map((it) => Number(it.dataset.term))");
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
        assert!(hash(&browser).contains(&format!("why={other}")));
        click(&browser, &format!("[data-why='{other}']"));
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
    let photos = browser.run("return [...document.querySelectorAll('#compared thead .tile')].map((it) => Number(it.dataset.photo))");
    assert_eq!(rows_of(&photos), [0, 1, 15]);
    let lines = browser.run(
        "return [...document.querySelectorAll('#compared tbody [data-cell]')].map((line) =>
             [Number(line.dataset.cell), ...[...line.querySelectorAll('td')].map((it) => it.textContent)])",
    );
    let worn: Vec<usize> = (0..shop.table.labels.cell_count())
        .filter(|&cell| [0, 1, 15].iter().any(|&row| shop.table.row(row)[cell] > 0.0))
        .collect();
    assert!(worn.len() > 2, "{worn:?}");
    let mut found: Vec<usize> = lines.as_array().unwrap().iter().map(|it| it[0].as_u64().unwrap() as usize).collect();
    found.sort_unstable();
    assert_eq!(found, worn, "every cell that any of them wears");
    for line in lines.as_array().unwrap() {
        for (place, row) in [(1, 0), (2, 1), (3, 15)] {
            let share = shop.table.row(row)[line[0].as_u64().unwrap() as usize] * 100.0;
            let said = line[place].as_str().unwrap();
            let read: Option<f32> = said.strip_suffix(" %").map(|it| it.parse().unwrap());
            assert!(read.map_or(share == 0.0, |it| (it - share).abs() <= 0.5), "{said} for {share}");
        }
    }
    let correlator = Correlator::new(&shop.table, Measure::Pearson.into());
    let expected = [1.0, correlator.row(0)[1]].map(|it| format!("{it:.2}"));
    let correlations = browser.run(
        "return [...document.querySelectorAll('#compared tfoot tr:first-child td')].map((it) => it.textContent)",
    );
    // Nothing is worn in the last one, so its correlations are not defined.
    assert_eq!(correlations, json!([expected[0], expected[1], "–"]));
    // The same by the mark of a tile, and all by one button.
    click(&browser, "#compared [data-compare='1']");
    assert_eq!(hash(&browser), "#compare=0+15");
    click(&browser, "[data-clear-compared]");
    assert_eq!((hash(&browser), browser.run("return document.getElementById('compared').hidden")), (String::new(), json!(true)));
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
        browser.wait_for(&format!("document.querySelector('#wall [data-photo=\"{row}\"]')"));
        choose(&browser, row);
        browser.run(&format!("document.querySelector('#wall [data-compare=\"{row}\"]').click()"));
        assert_eq!(text(&browser, "#chosen strong"), name);
        assert_eq!(text(&browser, &format!("#wall [data-photo='{row}'] .name")), name);
    }
    let made = browser.run("return [window.bad ?? null, document.querySelectorAll('#gallery-photos :is(img, script, b:not(.x))').length]");
    assert_eq!(made, json!([null, 0]), "no name became an element");
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

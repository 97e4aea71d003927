//! The report in headless Chromium, driven through its `WebDriver`: opened, searched, clicked, walked along by
//! keyboard, looked at in light, dark and narrow, without an error in the console.
//!
//! `LOOKBOOK_PICTURES=folder` keeps the screenshots for people to look at; `LOOKBOOK_REPORT=folder` looks at a report
//! of yours instead of that of a small sample.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

use crate::report::reported;

/// Keys by the names that `WebDriver` has for them.
pub(crate) mod keys {
    pub(crate) const TAB: &str = "\u{E004}";
    pub(crate) const ENTER: &str = "\u{E007}";
    pub(crate) const ESCAPE: &str = "\u{E00C}";
    pub(crate) const END: &str = "\u{E010}";
    pub(crate) const LEFT: &str = "\u{E012}";
    pub(crate) const RIGHT: &str = "\u{E014}";
    pub(crate) const DOWN: &str = "\u{E015}";
}

/// For scripts: how columns of numbers in `gallery.js` are read.
pub(crate) const NUMBERS: &str = "const numbers = (Type, text) =>
    [...new Type(Uint8Array.from(atob(text), (it) => it.charCodeAt(0)).buffer)];";

/// A browser session; closed when dropped.
pub(crate) struct Browser {
    driver: Child,
    session: String,
}

impl Browser {
    /// `None`, said aloud, where there is no browser.
    pub(crate) fn open() -> Option<Self> {
        let started = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut driver) = started else {
            crate::shared::not_installed("there is no chromedriver (scripts/install_test_tools.sh gets one)");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            Some(line.split_once("successfully on port ")?.1.trim_end_matches('.').to_owned())
        });
        let url = format!("http://127.0.0.1:{}/session", port.expect("chromedriver says its port"));
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,900"];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let answer = post(&url, &capabilities);
        let session = format!("{url}/{}", answer["sessionId"].as_str().expect("a session"));
        Some(Self { driver, session })
    }

    pub(crate) fn post(&self, command: &str, content: &Value) -> Value {
        post(&format!("{}/{command}", self.session), content)
    }

    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    pub(crate) fn wait_for(&self, condition: &str) {
        let started = Instant::now();
        while self.run(&format!("return Boolean({condition})")) != true {
            assert!(started.elapsed() < Duration::from_secs(30), "{condition} does not come true");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn keys(&self, selector: &str, text: &str) {
        let found = self.post("element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|it| it.values().next()).and_then(Value::as_str).expect("an element");
        self.post(&format!("element/{id}/value"), &json!({ "text": text }));
    }

    /// Presses keys, one after the other, in the element that has the focus.
    pub(crate) fn press(&self, keys: &[&str]) {
        let stroke =
            |key: &&str| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })];
        let strokes: Vec<Value> = keys.iter().flat_map(stroke).collect();
        self.post("actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] }));
    }

    /// Opens a page, and waits until its gallery is drawn.
    pub(crate) fn open_page(&self, url: &str) {
        // Of two addresses that differ after "#" alone, the second would not be loaded.
        self.post("url", &json!({ "url": "about:blank" }));
        self.post("url", &json!({ "url": url }));
        self.wait_for("document.querySelectorAll('#wall .tile').length > 0");
    }

    /// Whether nothing was written to the console.
    pub(crate) fn is_silent(&self) {
        assert_eq!(self.post("se/log", &json!({ "type": "browser" })), json!([]), "the console is silent");
    }

    /// A screenshot, kept where somebody wants it.
    pub(crate) fn look(&self, name: &str) -> image::RgbImage {
        let picture = get(&format!("{}/screenshot", self.session));
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap();
        if let Some(folder) = std::env::var_os("LOOKBOOK_PICTURES") {
            std::fs::write(Path::new(&folder).join(format!("report_{name}.png")), &bytes).unwrap();
        }
        image::load_from_memory(&bytes).unwrap().to_rgb8()
    }

    pub(crate) fn is_dark(&self, dark: bool) {
        let scheme = json!([{ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } }]);
        self.post(
            "goog/cdp/execute",
            &json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": scheme } }),
        );
    }

    pub(crate) fn is_wide(&self, width_px: u32) {
        let size = json!({ "width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.post("goog/cdp/execute", &json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": size }));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn post(url: &str, content: &Value) -> Value {
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
    let mut answer = agent.post(url).header("content-type", "application/json").send(content.to_string()).unwrap();
    value_of(&answer.body_mut().read_to_string().unwrap())
}

fn get(url: &str) -> Value {
    value_of(&ureq::get(url).call().unwrap().body_mut().with_config().limit(64 << 20).read_to_string().unwrap())
}

fn value_of(answer: &str) -> Value {
    let answer: Value = serde_json::from_str(answer).unwrap();
    assert!(answer["value"]["error"].is_null(), "{answer}");
    answer["value"].clone()
}

fn mean(picture: &image::RgbImage) -> f64 {
    let bytes = picture.as_raw();
    bytes.iter().map(|&it| f64::from(it)).sum::<f64>() / bytes.len() as f64
}

#[test]
fn people_can_use_the_page() {
    let Some(browser) = Browser::open() else { return };
    let place = tempfile::tempdir().unwrap();
    let report = std::env::var_os("LOOKBOOK_REPORT").map_or_else(|| reported(place.path()), PathBuf::from);
    let url = format!("file://{}", report.join("index.html").canonicalize().unwrap().display());
    browser.is_dark(false);
    browser.open_page(&url);
    let photos = browser.run("return window.lookbook.names.length").as_u64().unwrap();
    let drawn = browser.run("return document.querySelectorAll('#wall .tile').length").as_u64().unwrap();
    assert!(drawn <= photos.min(60), "only what is in view is drawn: {drawn} of {photos}");
    looks(&browser);
    searches(&browser, photos);
    chooses(&browser);
    walks(&browser);
    browser.is_silent();
}

/// Light and dark are what they say, and nothing is wider than a narrow window.
fn looks(browser: &Browser) {
    let light = mean(&browser.look("light"));
    browser.is_dark(true);
    let dark = mean(&browser.look("dark"));
    assert!(light > 200.0 && dark < 70.0, "light {light}, dark {dark}");
    browser.is_wide(400);
    browser.look("narrow_dark");
    let overflow = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(overflow, 0, "the page is not wider than the window");
    browser.is_dark(false);
    browser.is_wide(1200);
    for part in ["nights", "model", "catalogue", "gallery"] {
        browser.run(&format!("document.getElementById('{part}').scrollIntoView()"));
        browser.look(part);
    }
}

fn searches(browser: &Browser, photos: u64) {
    // The cell that most photos have in common; a click on the heat map searches for it.
    let cell = browser.run(
        "const cells = [...document.querySelectorAll('[data-search]')];
         cells[0].querySelector('rect').dispatchEvent(new MouseEvent('click', { bubbles: true }));
         return cells[0].dataset.search;",
    );
    let words = cell.as_str().unwrap().replace('_', " ");
    assert_eq!(browser.run("return document.getElementById('search').value"), words);
    let expected = browser.run(&format!(
        "{NUMBERS} const cell = window.lookbook.cells.indexOf('{}');
         return numbers(Uint16Array, window.lookbook.worn.cells).filter((value) => value === cell).length",
        cell.as_str().unwrap()
    ));
    let said = browser.run("return document.getElementById('count').textContent");
    if expected.as_u64() < Some(photos) {
        let said = said.as_str().unwrap().replace(',', "");
        assert!(said.starts_with(&format!("{expected} of ")), "{said}, expected {expected}");
    }
    browser.run("document.getElementById('search').value = ''");
    browser.keys("#search", "no such photo");
    assert!(browser.run("return document.getElementById('count').textContent").as_str().unwrap().starts_with("0 of"));
    assert_eq!(browser.run("return document.querySelectorAll('#wall .tile').length"), 0);
    browser.run("const it = document.getElementById('search'); it.value = ''; it.dispatchEvent(new Event('input'))");
}

fn chooses(browser: &Browser) {
    browser.run("document.querySelectorAll('#wall .tile')[1].click()");
    browser.wait_for("document.querySelectorAll('#chosen .near .tile').length > 0");
    let near = browser
        .run("return [...document.querySelectorAll('#chosen .near .tile')].map((it) => Number(it.dataset.photo))");
    let expected = browser.run(&format!(
        "{NUMBERS} const {{ starts, photos }} = window.lookbook.near;
         return numbers(Uint32Array, photos).slice(...numbers(Uint32Array, starts).slice(1, 3))"
    ));
    assert_eq!(near, expected, "the neighbours, the nearest first");
    let cells = browser.run("return [...document.querySelectorAll('#chosen .near small')].map((it) => it.textContent)");
    assert!(cells.as_array().unwrap().len() == 2 * near.as_array().unwrap().len(), "r and cells of each: {cells}");
    browser.run("document.getElementById('chosen').scrollIntoView()");
    thumbnail_is_shown(browser);
    browser.run("document.querySelector('#chosen .near .tile').click()");
    let address = browser.run("return location.hash");
    assert_eq!(address, format!("#photo={}", expected[0]));
    browser.post("back", &json!({}));
    browser.wait_for("document.querySelector('#chosen strong').textContent === window.lookbook.names[1]");
}

/// The chosen photo's thumbnail has come from its sheet: no plain ground.
fn thumbnail_is_shown(browser: &Browser) {
    let place = browser.run(
        "const it = document.querySelector('#chosen .thumbnail').getBoundingClientRect();
         return [it.x, it.y, it.width, it.height].map(Math.round)",
    );
    let [x, y, width, height] = [0, 1, 2, 3].map(|at| place[at].as_u64().unwrap() as u32);
    let started = Instant::now();
    loop {
        let picture = browser.look("chosen");
        let pixels = (y + 8..y + height - 8).flat_map(|y| (x + 8..x + width - 8).map(move |x| (x, y)));
        let colors: std::collections::HashSet<_> = pixels.map(|(x, y)| picture.get_pixel(x, y).0).collect();
        if colors.len() > 100 {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "the thumbnail has {} colours", colors.len());
    }
}

fn walks(browser: &Browser) {
    let press = |key: &str| browser.press(&[key]);
    let [right, down, left, end, enter] = [keys::RIGHT, keys::DOWN, keys::LEFT, keys::END, keys::ENTER];
    // The map of cells: there and back, and on to another, which is then searched for.
    browser.run("document.querySelector('[data-search][tabindex=\"0\"]').focus()");
    let cell = || browser.run("return document.activeElement.dataset.search");
    let first = cell();
    press(right);
    assert_ne!(cell(), first);
    press(left);
    assert_eq!(cell(), first);
    press(down);
    let other = cell();
    assert_ne!(other, first);
    press(enter);
    let words = other.as_str().unwrap().replace('_', " ");
    assert_eq!(browser.run("return document.getElementById('search').value"), words);
    browser.run("const it = document.getElementById('search'); it.value = ''; it.dispatchEvent(new Event('input'))");

    browser.run("document.querySelector('#wall .tile[tabindex=\"0\"]').focus()");
    let focused = || browser.run("return Number(document.activeElement.dataset.photo)");
    let start = focused().as_u64().unwrap();
    press(right);
    assert_eq!(focused(), start + 1);
    press(end);
    let last = browser.run("return window.lookbook.names.length - 1");
    assert_eq!(focused(), last);
    press(enter);
    browser.wait_for(&format!("location.hash === '#photo={last}'"));
}

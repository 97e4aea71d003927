//! `sample`: draws the built-in data set, dressed figures in front of varied backdrops, in the layout of the Colorful
//! Fashion Parsing data set: `fashon_parsing_data.mat` (v7.3) and `image/`.
//!
//! Every photo is drawn from its own random stream, so that the same seed produces the same bytes with any number of
//! threads.

use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::mat::Annotation;
use crate::mat::write::{self, LabelledPhoto};
use crate::photo::Photo;
use crate::progress::Progress;
use crate::stage::{self, Common, Outcome, Read, RunFolders, Stage, StageConfig};
use crate::{picture, stop, threads};

use drawing::{Drawing, Outline, Rgb, View, at};
use outfit::Outfit;
use texture::{hash, mix};

mod backdrop;
mod drawing;
mod figure;
mod outfit;
mod superpixels;
mod texture;

/// Name of this stage.
pub const STAGE: &str = "sample";
/// Default of the setting `photos`.
pub const DEFAULT_PHOTOS: u32 = 64;
/// Maximum number of photos: their names have four digits, as in the data set.
pub const MAX_PHOTOS: u32 = 9999;
/// Width of a photo of the data set.
pub const WIDTH_PX: usize = 400;
/// Height of a photo of the data set.
pub const HEIGHT_PX: usize = 600;
/// Quality of the JPEG files, out of 100.
const JPEG_QUALITY: u8 = 90;

/// Settings of `sample`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the data set.
    pub output: PathBuf,
    /// Number of photos, 1 to 9999.
    pub photos: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { output: PathBuf::from("data/sample"), photos: DEFAULT_PHOTOS }
    }
}

impl StageConfig for Config {
    const NAME: &'static str = STAGE;
    const SEEDED: bool = true;
    const WITHOUT_EFFECT: &'static [&'static str] = &["output"];

    fn folder(&self) -> PathBuf {
        self.output.clone()
    }

    fn in_run(run: &RunFolders) -> Vec<(&'static str, PathBuf)> {
        vec![("output", run.folder("sample"))]
    }

    fn check(&self) -> Result<()> {
        if !(1..=MAX_PHOTOS).contains(&self.photos) {
            return Err(Error::config(
                "sample.photos",
                format!("{} is not in the range 1 to {MAX_PHOTOS}", self.photos),
            ));
        }
        Ok(())
    }

    fn reads(&self) -> Result<Vec<Read>> {
        Ok(Vec::new())
    }

    fn run(&self, common: &Common) -> Result<Outcome> {
        run(self, common)
    }
}

/// Draws the data set.
///
/// # Errors
/// [`Error::Config`] if the number of photos is out of range; [`Error::Io`].
pub fn run(config: &Config, common: &Common) -> Result<Outcome> {
    config.check()?;
    if common.dry_run {
        let mut summary = stage::dry_run(STAGE, &config.output, common, config)?;
        summary.counts.set("photos", config.photos);
        return Ok(Outcome::Planned(summary));
    }
    let mut stage = Stage::begin(STAGE, &config.output, common, config)?;
    let images = stage.create_folder("image")?;
    let outfits = outfit::plan(config.photos as usize, common.seed);
    let progress = Progress::new("drawing", u64::from(config.photos), "photos");
    let entries: Result<Vec<LabelledPhoto>> = threads::with(common.threads, || {
        let numbered: Vec<_> = outfits.iter().enumerate().collect();
        numbered
            .into_par_iter()
            .map(|(index, outfit)| {
                let entry = draw(index, outfit, common.seed, &images)?;
                progress.inc(1);
                stop::check()?;
                Ok(entry)
            })
            .collect()
    })?;
    let entries = entries?;
    write::write_cfpd(&stage.path(crate::mat::cfpd::FILE), &entries)?;
    stage.count("photos", config.photos);
    stage.publish()
}

/// Draws one photo, writes it and returns its entry.
fn draw(index: usize, outfit: &Outfit, seed: u64, images: &Path) -> Result<LabelledPhoto> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Stream 0 is used for the outfits.
    rng.set_stream(index as u64 + 1);
    let mut drawing = Drawing::new(WIDTH_PX, HEIGHT_PX);
    backdrop::paint(&mut drawing, index + (index / 8) * 3, &mut rng);
    drawing.view = view(&mut rng);
    shadow(&mut drawing);
    figure::paint(&mut drawing, outfit, &mut rng);
    let file_name = format!("{:04}.jpg", index + 1);
    let rgb = drawing.picture(light(&mut rng));
    let photo = Photo { width_px: WIDTH_PX as u32, height_px: HEIGHT_PX as u32, rgb };
    let path = images.join(&file_name);
    std::fs::write(&path, picture::jpeg(&photo, JPEG_QUALITY)).map_err(Error::io("write", &path))?;
    let cut = superpixels::cut(&drawing.label_map(), WIDTH_PX, HEIGHT_PX, &mut rng);
    let annotation = Annotation {
        file_name,
        width_px: WIDTH_PX as u32,
        height_px: HEIGHT_PX as u32,
        superpixels: cut.numbers,
        superpixel_category: cut.labels.iter().map(|label| label.category).collect(),
        superpixel_color: Some(cut.labels.iter().map(|label| label.color).collect()),
    };
    LabelledPhoto::new(&annotation).map_err(Error::io("deflate", images))
}

/// A random placement: size, build, position, lean, and mirroring.
fn view(rng: &mut ChaCha8Rng) -> View {
    View {
        scale: rng.random_range(0.93..1.04f32),
        breadth: rng.random_range(1.25..1.42f32),
        turn: rng.random_range(-0.035..0.035f32),
        mirrored: rng.random_bool(0.5),
        shift: at(rng.random_range(-14.0..14.0f32), rng.random_range(-3.0..9.0f32)),
    }
}

fn shadow(drawing: &mut Drawing) {
    let ground = Outline::Ellipse { center: at(206.0, 560.0), rx: 100.0, ry: 17.0 };
    drawing.paint(&ground, None, |spot, under| {
        let away = (spot.place.x - 206.0).abs() / 100.0;
        mix(under, [30.0, 28.0, 32.0], 0.45 * (1.0 - away))
    });
}

/// Random lighting: brightness, warmth, darker corners, and sensor noise.
fn light(rng: &mut ChaCha8Rng) -> impl Fn(usize, usize, Rgb) -> Rgb + use<> {
    let bright = rng.random_range(0.88..1.06f32);
    let warm = rng.random_range(-0.05..0.05f32);
    let (corner, grain) = (rng.random_range(0.0..0.22f32), rng.random_range(2.0..9.0f32));
    let phase = rng.random_range(0..1 << 20);
    move |x, y, rgb| {
        let (u, v) = (x as f32 / WIDTH_PX as f32 - 0.5, y as f32 / HEIGHT_PX as f32 - 0.5);
        let fall = bright * (1.0 - corner * 2.0 * (u * u + v * v));
        let noise = (hash(x as i32 + phase, y as i32) - 0.5) * grain;
        [rgb[0] * fall * (1.0 + warm) + noise, rgb[1] * fall + noise, rgb[2] * fall * (1.0 - warm) + noise]
    }
}

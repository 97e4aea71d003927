//! `parser.toml`: what a network is fed, what it answers, and what its labels mean here.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::features::rows::MAX_DIMENSIONS;
use crate::labels::{BACKGROUND, LabelSet};
use crate::photo::Resample;

/// File name of the declaration.
pub const DECLARATION_FILE: &str = "parser.toml";
/// The largest side of a network's input.
const MAX_SIDE_PX: u32 = 4096;
/// The largest number of labels: they are counted in bytes.
const MAX_LABELS: usize = 255;
/// The smallest and the largest number of dimensions of an embedding.
pub(super) const DIMENSIONS: [usize; 2] = [2, MAX_DIMENSIONS];

/// The content of `parser.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// The parser's name.
    pub name: String,
    /// The licence of its weights, as the gate `allowed_licenses` names it.
    pub license: String,
    /// The network: a file of the folder.
    pub network: PathBuf,
    /// What the network is fed.
    pub input: Input,
    /// What it answers.
    pub output: Output,
    /// The label set that it names the pixels of: a `labels.toml` in the folder. Without it the default one, or, if there is
    /// no `fold` either and not all labels are called like its categories, the parser's own labels
    /// ([`LabelSet::of_names`]).
    pub labels: Option<PathBuf>,
    /// The category of each label, by name: a table, or a file of the folder with the table `[fold]`. Labels that are called
    /// like a category need no entry.
    pub fold: Option<Fold>,
    /// The names of colours; without it those of [`ColorTable::typical`](crate::color::ColorTable::typical).
    pub colors: Option<Colors>,
}

/// The section `[input]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its name in the network; not needed if there is one only.
    pub name: Option<String>,
    /// The order of its dimensions.
    pub layout: Order,
    /// The type of its elements.
    pub r#type: Element,
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
    /// How a photo of another shape gets there.
    pub fit: Fit,
    /// With `letterbox`: the colour around the photo, red, green, blue ([`Input::DEFAULT_FILL`]).
    pub fill: Option<[u8; 3]>,
    /// With `letterbox`: where the photo lies.
    pub place: Option<Place>,
    /// How pixels are interpolated.
    #[serde(default)]
    pub resample: Resample,
    /// The order of the channels.
    #[serde(default)]
    pub color: Color,
    /// What bytes are multiplied by; 1 by default.
    pub scale: Option<f64>,
    /// What is subtracted then, for each channel in the order of `color`; 0 by default.
    pub mean: Option<[f32; 3]>,
    /// What is divided by then; 1 by default.
    pub std: Option<[f32; 3]>,
}

impl Input {
    /// Default of `fill`: black.
    pub const DEFAULT_FILL: [u8; 3] = [0; 3];
}

/// The section `[output]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Its name in the network; not needed if there is one only.
    pub name: Option<String>,
    /// What it holds.
    pub kind: Kind,
    /// The order of its dimensions; of a `label_map` of three dimensions without meaning.
    #[serde(default)]
    pub layout: Order,
    /// How it gets to the photo's size: `logits`, or `labels` for a `label_map`, by default.
    pub resize: Option<Resize>,
    /// The names of the classes, in the order of the network; none of an embedding.
    #[serde(default)]
    pub labels: Vec<String>,
}

impl Output {
    /// How the answer gets to the photo's size.
    pub(super) fn resize(&self) -> Resize {
        self.resize.unwrap_or(if self.kind == Kind::LabelMap { Resize::Labels } else { Resize::Logits })
    }
}

/// The section `[colors]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Colors {
    /// A `color_table.parquet`: a file of the folder.
    pub file: PathBuf,
}

/// The order of the dimensions: batch, height, width, channels or classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// `[batch, channels, height, width]`.
    #[default]
    Nchw,
    /// `[batch, height, width, channels]`.
    Nhwc,
}

impl Order {
    /// Its name in the declaration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nchw => "nchw",
            Self::Nhwc => "nhwc",
        }
    }

    /// Positions of channels, height and width.
    pub(super) fn axes(self) -> [usize; 3] {
        match self {
            Self::Nchw => [1, 2, 3],
            Self::Nhwc => [3, 1, 2],
        }
    }
}

/// A type of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// Bytes, 0 to 255.
    U8,
}

impl Element {
    /// Its name in the declaration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::U8 => "u8",
        }
    }
}

/// How a photo of another shape gets onto the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Width and height are scaled on their own.
    Stretch,
    /// The whole photo in its own shape, with a colour around it.
    Letterbox,
    /// The photo in its own shape, just covering the input, and of that the middle; what lies outside is background.
    Crop,
}

/// Where a photo with `letterbox` lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the middle; an odd pixel is added at the right and at the bottom.
    #[default]
    Center,
    /// At the top left.
    TopLeft,
}

/// The order of the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// What a network answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A score for each class and pixel, before the softmax.
    Logits,
    /// A probability for each class and pixel.
    Probabilities,
    /// The class of each pixel.
    LabelMap,
    /// A vector for each photo, by which photos are compared; it names no pixels.
    Embedding,
}

/// How an answer gets to the photo's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// The scores are interpolated bilinearly, then the highest is taken.
    Logits,
    /// The highest is taken, then the label at each pixel's centre.
    Labels,
}

/// The category of each label.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Fold {
    /// Label to category.
    Table(BTreeMap<String, String>),
    /// A file of the folder with such a table.
    File(PathBuf),
}

/// The content of a file of `pipelines/folds`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FoldFile {
    fold: BTreeMap<String, String>,
}

impl Declaration {
    /// Reads and checks the text of the declaration at `path`.
    ///
    /// # Errors
    /// [`Error::Input`] with the first invalid setting.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| Error::input(path, "is not UTF-8"))?;
        let it: Self = toml::from_str(text).map_err(|cause| Error::input(path, cause.to_string().trim_end()))?;
        it.check().map_err(|problem| Error::input(path, problem))?;
        Ok(it)
    }

    fn check(&self) -> Result<(), String> {
        for (setting, value) in [("name", &self.name), ("license", &self.license)] {
            if value.trim().is_empty() {
                return Err(format!("{setting} is empty"));
            }
        }
        check_inside("network", &self.network)?;
        if let Some(Fold::File(file)) = &self.fold {
            check_inside("fold", file)?;
        }
        if let Some(file) = &self.labels {
            check_inside("labels", file)?;
        }
        if let Some(colors) = &self.colors {
            check_inside("colors.file", &colors.file)?;
        }
        self.input.check()?;
        self.output.check()?;
        self.check_embedding()
    }

    /// What only label maps have.
    fn check_embedding(&self) -> Result<(), String> {
        let settings = [
            ("output.labels", !self.output.labels.is_empty()),
            ("output.resize", self.output.resize.is_some()),
            ("fold", self.fold.is_some()),
            ("labels", self.labels.is_some()),
            ("colors", self.colors.is_some()),
        ];
        match settings.iter().find(|(_, is_set)| *is_set) {
            Some((setting, _)) if self.output.kind == Kind::Embedding => {
                Err(format!("{setting} is set, but output.kind is \"embedding\", which names no pixels; leave it out"))
            }
            _ => Ok(()),
        }
    }

    /// The label set without a file of one: the default one if the labels are folded or called like its categories, else
    /// their own.
    ///
    /// # Errors
    /// Why the labels cannot be a label set.
    pub(super) fn own_labels(&self) -> Result<LabelSet, String> {
        let usual = LabelSet::cfpd();
        let names = || self.output.labels.iter().map(String::as_str);
        if self.fold.is_some() || names().all(|label| usual.category_called(label).is_some()) {
            return Ok(usual);
        }
        LabelSet::of_names(names()).map_err(|problem| {
            format!(
                "output.labels cannot be a label set of their own: {problem}; or give a [fold] to the categories of another \
                 one"
            )
        })
    }

    /// The category in `set` of each label, by the table `fold`, which `place` holds.
    pub(super) fn categories(
        &self,
        set: &LabelSet,
        place: &str,
        fold: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>, String> {
        let labels = &self.output.labels;
        if let Some(unknown) = fold.keys().find(|it| !labels.contains(it)) {
            return Err(format!("{place} names '{unknown}', which is not in output.labels"));
        }
        let mut missing = Vec::new();
        let mut categories = Vec::with_capacity(labels.len());
        for label in labels {
            match fold.get(label) {
                Some(name) => categories.push(set.category_named(name).ok_or_else(|| {
                    format!("{place}: '{label}' = '{name}' is not a category; they are {}", set.category_names())
                })?),
                None => match set.category_called(label) {
                    Some(category) => categories.push(category),
                    None => missing.push(format!("'{label}'")),
                },
            }
        }
        if missing.is_empty() {
            return Ok(categories);
        }
        let missing = missing.join(", ");
        let background = set.category_name(BACKGROUND);
        Err(format!("{place} has no category for {missing}; add each of them; use '{background}' if no category fits"))
    }

    /// The table of a file of folds, `text` of the file `path`.
    pub(super) fn parse_fold(path: &Path, text: &[u8]) -> Result<BTreeMap<String, String>> {
        let text = std::str::from_utf8(text).map_err(|_| Error::input(path, "is not UTF-8"))?;
        let file: Result<FoldFile, _> = toml::from_str(text);
        file.map(|it| it.fold).map_err(|cause| Error::input(path, cause.to_string().trim_end()))
    }
}

/// Checks that a file lies in the parser's folder by its name.
pub(super) fn check_inside(setting: &str, file: &Path) -> Result<(), String> {
    let mut parts = file.components();
    if parts.clone().next().is_none() || !parts.all(|it| matches!(it, Component::Normal(_))) {
        return Err(format!("{setting} is '{}', not the name of a file in the parser's folder", file.display()));
    }
    Ok(())
}

impl Input {
    fn check(&self) -> Result<(), String> {
        for (setting, side) in [("input.width_px", self.width_px), ("input.height_px", self.height_px)] {
            if !(1..=MAX_SIDE_PX).contains(&side) {
                return Err(format!("{setting} is {side}; use 1 to {MAX_SIDE_PX}"));
            }
        }
        if self.fit != Fit::Letterbox && (self.fill.is_some() || self.place.is_some()) {
            let setting = if self.fill.is_some() { "input.fill" } else { "input.place" };
            return Err(format!("{setting} only applies to input.fit = \"letterbox\"; leave it out"));
        }
        let named = [
            ("input.scale", self.scale.map(|it| vec![it as f32])),
            ("input.mean", self.mean.map(|it| it.to_vec())),
            ("input.std", self.std.map(|it| it.to_vec())),
        ];
        for (setting, values) in &named {
            let Some(values) = values else { continue };
            if self.r#type == Element::U8 {
                return Err(format!("{setting} is set, but input.type is u8, which is fed bytes; leave it out"));
            }
            if let Some(value) = values.iter().find(|it| !it.is_finite()) {
                return Err(format!("{setting} has {value}; use finite numbers"));
            }
            if *setting != "input.mean" && values.contains(&0.0) {
                return Err(format!("{setting} has a 0; use another number"));
            }
        }
        let extremes = |channel: usize| [0, u8::MAX].map(|byte| self.value(channel, byte));
        let limit = if self.r#type == Element::F16 { half::f16::MAX.to_f32() } else { f32::MAX };
        if self.r#type != Element::U8 && (0..3).flat_map(extremes).any(|it| !it.is_finite() || it.abs() > limit) {
            let range = self.r#type.name();
            return Err(format!(
                "input.scale, input.mean and input.std turn bytes into numbers that {range} cannot hold"
            ));
        }
        Ok(())
    }

    /// What the network is fed for a byte of a channel (in the order of `color`).
    pub(super) fn value(&self, channel: usize, byte: u8) -> f32 {
        let mean = self.mean.map_or(0.0, |it| it[channel]);
        let std = self.std.map_or(1.0, |it| it[channel]);
        ((f64::from(byte) * self.scale.unwrap_or(1.0)) as f32 - mean) / std
    }
}

impl Output {
    fn check(&self) -> Result<(), String> {
        let labels = &self.labels;
        if self.kind == Kind::Embedding {
            return Ok(());
        }
        if labels.is_empty() || labels.len() > MAX_LABELS {
            return Err(format!("output.labels has {} names; use 1 to {MAX_LABELS}", labels.len()));
        }
        for (place, label) in labels.iter().enumerate() {
            if label.trim().is_empty() {
                return Err(format!("output.labels has an empty name at place {place}"));
            }
            if labels[..place].contains(label) {
                return Err(format!("output.labels has '{label}' twice"));
            }
        }
        if self.kind == Kind::LabelMap && self.resize == Some(Resize::Logits) {
            return Err("output.resize is \"logits\", but output.kind is \"label_map\", which has none".to_owned());
        }
        Ok(())
    }
}

/// A good declaration, for tests.
#[cfg(test)]
pub(super) const GOOD: &str = r#"
name = "colours"
license = "MIT"
network = "model.onnx"
[input]
layout = "nchw"
type = "f32"
width_px = 32
height_px = 48
fit = "stretch"
scale = 0.5
mean = [1.0, 2.0, 3.0]
std = [0.5, 1.0, 2.0]
[output]
kind = "logits"
labels = ["nothing", "hat", "shirt"]
[fold]
nothing = "bk"
shirt = "T-shirt"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Declaration> {
        Declaration::parse(Path::new("parser.toml"), text.as_bytes())
    }

    #[test]
    fn a_declaration_is_read() {
        let it = parse(GOOD).expect("it is good");
        assert_eq!((it.input.value(0, 10), it.input.value(2, 0)), (8.0, -1.5));
        assert_eq!((it.output.resize(), it.input.resample), (Resize::Logits, Resample::Bilinear));
        let Some(Fold::Table(fold)) = &it.fold else { panic!("it is a table") };
        let set = it.own_labels().expect("it has a fold");
        assert!(set.is_cfpd());
        assert_eq!(it.categories(&set, "fold", fold), Ok(vec![0, 10, 1]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, named) in [
            ("license = \"MIT\"\n", "", "license"),
            ("\"MIT\"", "\" \"", "license is empty"),
            ("\"model.onnx\"", "\"/model.onnx\"", "network is '/model.onnx'"),
            ("\"model.onnx\"", "\"../model.onnx\"", "network is '../model.onnx'"),
            ("\"model.onnx\"", "\"\"", "network is ''"),
            ("layout = \"nchw\"", "layout = \"chw\"", "chw"),
            ("\"f32\"", "\"f64\"", "f64"),
            ("\"f32\"", "\"u8\"", "input.scale is set, but input.type is u8"),
            ("width_px = 32", "width_px = 0", "input.width_px is 0"),
            ("height_px = 48", "height_px = 100000", "input.height_px is 100000"),
            ("width_px = 32", "width_px = -1", "-1"),
            ("scale = 0.5", "scale = nan", "input.scale has NaN"),
            ("scale = 0.5", "scale = inf", "input.scale has inf"),
            ("scale = 0.5", "scale = 0.0", "input.scale has a 0"),
            ("[0.5, 1.0, 2.0]", "[0.5, 0.0, 2.0]", "input.std has a 0"),
            ("[0.5, 1.0, 2.0]", "[0.5, 1.0]", "std"),
            ("[0.5, 1.0, 2.0]", "[1e-38, 1.0, 2.0]", "cannot hold"),
            ("[1.0, 2.0, 3.0]", "[1.0, -inf, 3.0]", "input.mean has -inf"),
            ("\"stretch\"", "\"stretch\"\nfill = [1, 2, 3]", "input.fill"),
            ("\"stretch\"", "\"squeeze\"", "squeeze"),
            ("\"stretch\"", "\"stretch\"\nzoom = 2", "zoom"),
            ("[\"nothing\", \"hat\", \"shirt\"]", "[]", "output.labels has 0"),
            ("\"hat\", ", "\"shirt\", ", "'shirt' twice"),
            ("\"hat\", ", "\"\", ", "empty name at place 1"),
            ("\"logits\"", "\"label_map\"\nresize = \"logits\"", "output.resize"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let problem = parse(&GOOD.replace(from, to)).expect_err(to).to_string();
            assert!(problem.contains("parser.toml") && problem.contains(named), "{to}: {problem}");
        }
        let many: Vec<_> = (0..256).map(|it| format!("\"{it}\"")).collect();
        let problem = parse(&GOOD.replace("\"nothing\", \"hat\", \"shirt\"", &many.join(", "))).expect_err("too many");
        assert!(problem.to_string().contains("output.labels has 256 names"), "{problem}");
    }

    #[test]
    fn an_embedding_has_nothing_of_label_maps() {
        let (head, _) = GOOD.split_once("kind = ").expect("it has a kind");
        let good = format!("{head}kind = \"embedding\"\n");
        assert!(parse(&good).expect("it is good").output.labels.is_empty());
        for (more, named) in [
            ("labels = [\"hat\"]", "output.labels is set"),
            ("resize = \"labels\"", "output.resize is set"),
            ("[fold]\nhat = \"hat\"", "fold is set"),
            ("[colors]\nfile = \"colors.parquet\"", "colors is set"),
        ] {
            let problem = parse(&format!("{good}{more}\n")).expect_err(more).to_string();
            assert!(problem.contains(named) && problem.contains("embedding"), "{problem}");
        }
        assert!(parse(&format!("{head}kind = \"logits\"\n")).is_err(), "the others have labels");
    }

    #[test]
    fn without_a_fold_labels_are_a_set_of_their_own_unless_they_are_ours() {
        let without = |labels: &str| {
            let (text, _) = GOOD.split_once("[fold]").expect("it has one");
            parse(&text.replace("\"nothing\", \"hat\", \"shirt\"", labels)).expect("it is good")
        };
        let own = without("\"Background\", \"Upper-clothes\", \"Hair\"").own_labels().expect("plain names");
        assert_eq!(own.category_names(), "Background, Upper-clothes, Hair");
        assert_eq!(own.apparel_categories().collect::<Vec<_>>(), [1]);
        assert!(without("\"bk\", \"hat\", \"T-shirt\"").own_labels().expect("our names").is_cfpd());
        let refused = without("\"bk\", \"2nd\"").own_labels().expect_err("a digit comes first");
        assert!(refused.contains("'2nd'") && refused.contains("[fold]"), "{refused}");
        let many: Vec<_> = (0..65).map(|it| format!("\"c{it}\"")).collect();
        let refused = without(&many.join(", ")).own_labels().expect_err("too many");
        assert!(refused.contains("66 categories") && refused.contains("2 to 64"), "{refused}");
    }

    #[test]
    fn a_fold_names_each_label_and_our_categories() {
        let it = parse(GOOD).expect("it is good");
        let fold = |pairs: &[(&str, &str)]| {
            let table = pairs.iter().map(|(label, category)| ((*label).to_owned(), (*category).to_owned())).collect();
            it.categories(&LabelSet::cfpd(), "fold", &table)
        };
        let missing = fold(&[]).expect_err("two are missing");
        assert!(missing.contains("'nothing', 'shirt'") && !missing.contains("'hat'"), "{missing}");
        let unknown = fold(&[("nothing", "bk"), ("shirt", "tee")]).expect_err("no category");
        assert!(unknown.contains("'shirt' = 'tee'") && unknown.contains("T-shirt"), "{unknown}");
        let other = fold(&[("nothing", "bk"), ("shirt", "T-shirt"), ("sock", "socks")]).expect_err("no label");
        assert!(other.contains("'sock'"), "{other}");
    }
}

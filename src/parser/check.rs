//! `parser check`: says what was understood of the folder of a parser or an embedder, runs the network, and compares its label
//! map with one that another program made.

use std::fmt;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::answer::{Answer, Answered};
use super::embedder;
use super::folder::Parser;
use crate::engine::Device;
use crate::error::{Error, Result};
use crate::files::OpenFolder;
use crate::labels::{Category, LabelSet};
use crate::photo::{self, Photo};
use crate::stage::Common;

/// What to check.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The parser's folder.
    pub folder: PathBuf,
    /// A photo to run it on; without one a grey picture is run.
    pub photo: Option<PathBuf>,
    /// What the labels of the photo should be: a PNG of the photo's size whose bytes are places in `output.labels`.
    pub expect: Option<PathBuf>,
    /// Where the network runs.
    pub device: Device,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The parser's name.
    pub name: String,
    /// Its licence.
    pub license: String,
    /// As the `model_id` of rows.
    pub model_id: String,
    /// The network's file.
    pub network: PathBuf,
    /// Execution provider.
    pub execution_provider: String,
    /// Photos that the network takes at once; null for any number.
    pub batch: Option<usize>,
    /// Each label and the category that it is here, in the network's order; none of an embedder.
    pub labels: Vec<(String, String)>,
    /// Height and width of the network's answer; 1 of an embedder.
    pub answer_px: [usize; 2],
    /// The embedding; null if it is no embedder.
    pub embedding: Option<OfEmbedding>,
    /// Seconds that the network took.
    pub network_secs: f64,
    /// The photo, if one was given.
    pub photo: Option<OfPhoto>,
}

/// What an embedder gives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OfEmbedding {
    /// Number of dimensions.
    pub dimensions: usize,
    /// Its length, before it is scaled to 1; null if one of its numbers is not finite.
    pub length: Option<f64>,
}

/// What the parser says of the photo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OfPhoto {
    /// The file.
    pub path: PathBuf,
    /// Share of the pixels by category, the largest first; those without pixels are left out. None by an embedder.
    pub shares: Vec<(String, f64)>,
    /// Share of the pixels whose category is the expected one; null if nothing was expected.
    pub equal_share: Option<f64>,
}

/// Checks a parser's folder.
///
/// # Errors
/// Whatever is wrong with the folder, the network, the photo or the expected labels, by name.
pub fn run(request: &Request, common: &Common) -> Result<Report> {
    let parser = Parser::read(&OpenFolder::open(&request.folder)?)?;
    parser.check_license(&common.gates)?;
    if request.expect.is_some() && parser.is_embedder() {
        return Err(Error::config("expect", "compares labels, but an embedder names no pixels; leave it out"));
    }
    let photo = request.photo.as_deref().map(read_photo).transpose()?;
    let mut network = parser.network(common.engine(request.device))?;
    let shown = photo.clone().unwrap_or_else(|| Photo { width_px: 40, height_px: 60, rgb: vec![128; 40 * 60 * 3] });
    let canvas = network.layout().lay(&shown);
    let begun = Instant::now();
    let answer = network.run(&[&canvas])?.swap_remove(0);
    let network_secs = begun.elapsed().as_secs_f64();
    let (answer_px, embedding) = ([answer.rows, answer.columns], OfEmbedding::of(&answer));
    let label_map = match embedding {
        Some(_) => Ok(Vec::new()),
        None => network.layout().label_map(&canvas, &answer, shown.size()),
    };
    let of = request.photo.as_deref().unwrap_or(Path::new("a grey picture"));
    let label_map =
        label_map.map_err(|problem| Error::runtime(network.name(), format!("{}: {problem}", of.display())))?;
    let of_photo = request.photo.clone().map(|path| -> Result<OfPhoto> {
        let expected = request.expect.as_deref().map(|it| expected(it, &parser, shown.size())).transpose()?;
        Ok(OfPhoto {
            path,
            shares: shares(parser.labels(), &label_map),
            equal_share: expected.map(|it| equal_share(&label_map, &it)),
        })
    });
    let declaration = parser.declaration();
    let category =
        |(label, category): (&String, &u8)| (label.clone(), parser.labels().category_name(*category).to_owned());
    Ok(Report {
        name: declaration.name.clone(),
        license: declaration.license.clone(),
        model_id: parser.id(),
        network: parser.network_path(),
        execution_provider: network.backend().provider.name().to_owned(),
        batch: network.batch(),
        labels: declaration.output.labels.iter().zip(parser.categories()).map(category).collect(),
        answer_px,
        embedding,
        network_secs,
        photo: of_photo.transpose()?,
    })
}

impl OfEmbedding {
    fn of(answer: &Answer) -> Option<Self> {
        let Answered::Embedding(vector) = &answer.values else { return None };
        Some(Self { dimensions: vector.len(), length: Some(embedder::length(vector)).filter(|it| it.is_finite()) })
    }
}

fn read_photo(path: &Path) -> Result<Photo> {
    photo::read(path).map_err(|problem| Error::input(path, format!("{} ({})", problem.detail, problem.reason)))
}

/// The categories of the labels in a PNG.
fn expected(path: &Path, parser: &Parser, size: (u32, u32)) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let invalid = |problem: String| Error::input(path, problem);
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader =
        decoder.read_info().map_err(|cause| Error::input(path, "is not a PNG picture").because(cause.to_string()))?;
    let info = reader.info();
    let is_bytes = info.bit_depth == png::BitDepth::Eight
        && [png::ColorType::Grayscale, png::ColorType::Indexed].contains(&info.color_type);
    if !is_bytes {
        return Err(invalid("is not a picture of one byte a pixel: grey or with a palette".to_owned()));
    }
    if (info.width, info.height) != size {
        let (width, height) = (info.width, info.height);
        return Err(invalid(format!("has {width} x {height} pixels, the photo has {} x {}", size.0, size.1)));
    }
    let mut labels = vec![0; size.0 as usize * size.1 as usize];
    reader.next_frame(&mut labels).map_err(|cause| invalid("is damaged".to_owned()).because(cause.to_string()))?;
    let category = |label: &u8| {
        let found = parser.categories().get(usize::from(*label)).copied();
        found.ok_or_else(|| {
            invalid(format!("has the label {label}, but output.labels has {}", parser.categories().len()))
        })
    };
    labels.iter().map(category).collect()
}

fn shares(labels: &LabelSet, label_map: &[u8]) -> Vec<(String, f64)> {
    let mut counts = vec![0_u64; labels.category_count()];
    for category in label_map {
        counts[usize::from(*category)] += 1;
    }
    let share =
        |(it, count): (&Category, u64)| (count > 0).then(|| (it.name.clone(), count as f64 / label_map.len() as f64));
    let mut shares: Vec<_> = labels.categories().iter().zip(counts).filter_map(share).collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

fn equal_share(found: &[u8], expected: &[u8]) -> f64 {
    found.iter().zip(expected).filter(|(found, expected)| found == expected).count() as f64 / found.len() as f64
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let batch = self.batch.map_or("any number".to_owned(), |it| it.to_string());
        writeln!(f, "{}, licence {}, model id {}", self.name, self.license, self.model_id)?;
        writeln!(f, "  {} runs on {}; photos at once: {batch}", self.network.display(), self.execution_provider)?;
        if let Some(OfEmbedding { dimensions, length }) = self.embedding {
            let length = length.map_or("not finite".to_owned(), |it| format!("{it:.6}"));
            writeln!(f, "  its embedding has {dimensions} dimensions; it took {:.3} s", self.network_secs)?;
            let of = self.photo.as_ref().map_or("a grey picture".to_owned(), |it| it.path.display().to_string());
            return writeln!(f, "  {of}: its length is {length}; it is scaled to 1");
        }
        let [rows, columns] = self.answer_px;
        writeln!(f, "  its answer has {columns} x {rows} pixels; it took {:.3} s", self.network_secs)?;
        writeln!(f, "  labels and their categories:")?;
        self.labels.iter().try_for_each(|(label, category)| writeln!(f, "    {label:24} {category}"))?;
        let Some(photo) = &self.photo else { return Ok(()) };
        writeln!(f, "  {}:", photo.path.display())?;
        photo.shares.iter().try_for_each(|(name, share)| writeln!(f, "    {name:24} {:.2} %", share * 100.0))?;
        photo.equal_share.map_or(Ok(()), |it| writeln!(f, "  {:.3} % of the pixels are as expected", it * 100.0))
    }
}

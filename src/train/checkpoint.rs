//! Checkpoints (`checkpoints/`): safetensors files with the weights and everything else that a run needs to resume.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::graph::{SPEC_KEY, Spec};
use crate::model::epochs::{self, EpochRecord};
use crate::model::weights::{pack, spec_text, vector};

/// Name of the folder of checkpoints in a model folder.
pub const FOLDER: &str = "checkpoints";
/// Number of checkpoints kept besides the best one.
const KEPT: usize = 2;
const BEST_FILE: &str = "best.safetensors";
/// Metadata key of the [`Header`] as JSON.
const HEADER_KEY: &str = "lookbook.checkpoint";
/// Metadata key of the CRC-32C over the header, the network and all vectors in sequence.
const CHECKSUM_KEY: &str = "lookbook.crc32c";

/// What one step passes to the next: named flat vectors, among them `weights`.
pub type State = Vec<(String, Vec<f32>)>;

/// What two runs must have in common for one to resume the other: values by name, as text, so that no digit is lost.
pub type Identity = BTreeMap<String, String>;

/// What a run does if it finds an unfinished one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Resume {
    /// Starts over.
    #[default]
    Never,
    /// Resumes it; starts over if it was a different run or cannot be read.
    Auto,
    /// Resumes it; fails if it was a different run or cannot be read.
    Always,
}

/// The state of a training run after an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The network.
    pub spec: Spec,
    /// The run that it belongs to.
    pub identity: Identity,
    /// Steps done.
    pub step: u64,
    /// The epochs done, at least one. The file does not have their times, so that identical runs write identical bytes.
    pub history: Vec<EpochRecord>,
    /// Whether the run's time was up and it was about to stop here.
    pub is_time_over: bool,
    /// The input of the next step.
    pub state: State,
}

/// What a checkpoint file holds besides its tensors.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    epoch: u32,
    step: u64,
    is_time_over: bool,
    /// Names of the state's vectors.
    state: Vec<String>,
    run: Identity,
    history: Vec<EpochRecord>,
}

impl Checkpoint {
    /// Epochs done.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.history.last().map_or(0, |record| record.epoch)
    }

    /// Whether its epoch is the best so far.
    fn is_best(&self) -> bool {
        epochs::best(&self.history).is_some_and(|best| best.epoch == self.epoch())
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file if it is damaged or not a checkpoint.
    pub fn read(path: &Path) -> Result<Self> {
        let damaged = |cause: &dyn std::fmt::Display| Error::input(path, format!("is damaged ({cause})"));
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|cause| damaged(&cause))?;
        let metadata = metadata.metadata().clone().unwrap_or_default();
        let text = |key: &str| {
            let missing =
                || Error::input(path, format!("is not a checkpoint of this version: it has no metadata '{key}'"));
            metadata.get(key).ok_or_else(missing)
        };
        let texts = [text(HEADER_KEY)?, text(SPEC_KEY)?];
        let header: Header = serde_json::from_str(texts[0]).map_err(|cause| damaged(&cause))?;
        let spec = Spec::parse(texts[1]).map_err(|cause| damaged(&cause))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|cause| damaged(&cause))?;
        let vectors = header.state.iter().map(|name| Ok((name.clone(), vector(&spec, &tensors, name)?)));
        let state = vectors.collect::<Result<State, String>>().map_err(|cause| damaged(&cause))?;
        if checksum(texts, &state) != *text(CHECKSUM_KEY)? {
            return Err(damaged(&"its checksum does not match"));
        }
        let Header { step, is_time_over, run: identity, history, .. } = header;
        Ok(Self { spec, identity, step, history, is_time_over, state })
    }

    /// The checkpoint of an epoch in a folder of checkpoints; `None` if it is not among those kept.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn of_epoch(folder: &Path, epoch: u32) -> Result<Option<Self>> {
        let names = [epoch_file(epoch), BEST_FILE.to_owned()];
        for path in names.map(|name| folder.join(name)).into_iter().filter(|path| path.is_file()) {
            let checkpoint = Self::read(&path)?;
            if checkpoint.epoch() == epoch {
                return Ok(Some(checkpoint));
            }
        }
        Ok(None)
    }

    fn serialize(&self) -> Result<Vec<u8>> {
        let header = Header {
            epoch: self.epoch(),
            step: self.step,
            is_time_over: self.is_time_over,
            state: self.state.iter().map(|(name, _)| name.clone()).collect(),
            run: self.identity.clone(),
            history: self.history.iter().map(EpochRecord::without_times).collect(),
        };
        let header = serde_json::to_string(&header).expect("a header is plain data");
        let spec = spec_text(&self.spec);
        let checksum = checksum([&header, &spec], &self.state);
        let metadata = [(SPEC_KEY, spec), (HEADER_KEY, header), (CHECKSUM_KEY, checksum)];
        let metadata = metadata.map(|(key, text)| (key.to_owned(), text)).into();
        let vectors: Vec<_> = self.state.iter().map(|(name, values)| (name.as_str(), values.as_slice())).collect();
        pack(&self.spec, &vectors, metadata)
    }

    /// The differences between this checkpoint's run and `identity`, one line each.
    #[must_use]
    pub fn differences(&self, identity: &Identity) -> Vec<String> {
        let names: std::collections::BTreeSet<_> = self.identity.keys().chain(identity.keys()).collect();
        let differs = names.into_iter().filter(|name| self.identity.get(*name) != identity.get(*name));
        let brief = |value: Option<&String>| brief(value.map_or("nothing", String::as_str));
        differs
            .map(|name| format!("{name} is {}, was {}", brief(identity.get(name)), brief(self.identity.get(name))))
            .collect()
    }
}

/// A value for a message.
pub(super) fn brief(text: &str) -> String {
    if text.len() > 60 { format!("{}...", text.chars().take(24).collect::<String>()) } else { text.to_owned() }
}

/// The checkpoint in `folder` that a run resumes from, as `resume` says; `None` if the run starts over. Changes
/// nothing.
///
/// # Errors
/// With [`Resume::Always`], [`Error::Input`] if there are checkpoints but none can be read, or they belong to another
/// run.
pub fn find(folder: &Path, resume: Resume, identity: &Identity) -> Result<Option<Checkpoint>> {
    let files = epoch_files(folder)?;
    let Some(newest) = files.last() else { return Ok(None) };
    if resume == Resume::Never {
        let (folder, file) = (folder.display(), name_of(newest));
        tracing::warn!("{folder} holds an unfinished run (up to {file}): starting over; --resume would continue it");
        return Ok(None);
    }
    let unreadable = |problem| (problem, "");
    let found = newest_readable(&files).map_err(unreadable).and_then(|(path, checkpoint)| {
        match checkpoint.differences(identity).as_slice() {
            [] => Ok(checkpoint),
            differences => {
                let problem = format!("belongs to another run: {}", differences.join("; "));
                Err((Error::input(path, problem), "use the settings and the data set of that run, or "))
            }
        }
    });
    match found {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err((problem, _)) if resume == Resume::Auto => {
            tracing::warn!("{problem}; starting over");
            Ok(None)
        }
        Err((problem, advice)) => {
            let problem = format!("no run to resume: {problem}; {advice}omit --resume to start over");
            Err(Error::input(folder, problem))
        }
    }
}

/// The newest checkpoint that can be read; logs those that cannot.
fn newest_readable(files: &[PathBuf]) -> Result<(PathBuf, Checkpoint)> {
    let mut problem = None;
    for path in files.iter().rev() {
        match Checkpoint::read(path) {
            Ok(checkpoint) => return Ok((path.clone(), checkpoint)),
            Err(error) => {
                tracing::warn!("{error}; trying the previous one");
                problem = Some(error);
            }
        }
    }
    Err(problem.unwrap_or_else(|| Error::input(FOLDER, "holds no checkpoint")))
}

/// The checkpoint files by epoch, oldest first; empty if there is no folder.
fn epoch_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files::entries(folder)?;
    files.retain(|path| epoch_of(path).is_some());
    files.sort_by_key(|path| epoch_of(path));
    Ok(files)
}

fn epoch_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix("epoch-")?.strip_suffix(".safetensors")?.parse().ok()
}

fn epoch_file(epoch: u32) -> String {
    format!("epoch-{epoch:04}.safetensors")
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The checkpoints of a run: the last two, and the best by mean IoU over the validation split.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    written: Vec<PathBuf>,
}

impl Checkpoints {
    /// Opens the folder and deletes everything that does not belong to the run resumed from `resumed`; without it,
    /// everything.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn start(folder: PathBuf, resumed: Option<&Checkpoint>) -> Result<Self> {
        let mut checkpoints = Self { written: Vec::new(), folder };
        let best = resumed.map(|last| checkpoints.best(&last.history, &last.identity));
        let epoch = resumed.map_or(0, Checkpoint::epoch);
        let is_kept = |path: &PathBuf| match epoch_of(path) {
            Some(of_file) => of_file <= epoch,
            None => matches!(best, Some(Ok(_))) && *path == checkpoints.folder.join(BEST_FILE),
        };
        for path in files::entries(&checkpoints.folder)?.iter().filter(|path| !is_kept(path)) {
            files::remove_file(path)?;
        }
        checkpoints.written = epoch_files(&checkpoints.folder)?;
        match (resumed, best) {
            (Some(last), Some(Err(_))) if last.is_best() => checkpoints.take_last_as_best()?,
            (_, Some(Err(problem))) => tracing::warn!("{problem}; the best epoch so far is lost"),
            _ => {}
        }
        Ok(checkpoints)
    }

    /// Makes the last checkpoint written the best one.
    fn take_last_as_best(&self) -> Result<()> {
        let Some(last) = self.last() else { return Ok(()) };
        let fresh = self.folder.join(".partial-best");
        files::adopt(last, &fresh)?;
        let best = self.folder.join(BEST_FILE);
        files::rename(&fresh, &best)?;
        files::flush(&self.folder)
    }

    /// The file of the last checkpoint.
    #[must_use]
    pub fn last(&self) -> Option<&Path> {
        self.written.last().map(PathBuf::as_path)
    }

    /// The checkpoint of the best epoch in `history`, the history of `run`.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; [`Error::Input`] if the file belongs to another epoch or run.
    pub fn best(&self, history: &[EpochRecord], run: &Identity) -> Result<Checkpoint> {
        let path = self.folder.join(BEST_FILE);
        let best = Checkpoint::read(&path)?;
        let epoch = epochs::best(history).map_or(0, |it| it.epoch);
        if best.epoch() != epoch || best.identity != *run {
            return Err(Error::input(path, format!("is not of epoch {epoch}, the best of this run")));
        }
        Ok(best)
    }

    /// Writes a checkpoint and removes what is no longer kept.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let bytes = checkpoint.serialize()?;
        let path = self.folder.join(epoch_file(checkpoint.epoch()));
        files::write(&path, &bytes)?;
        self.written.push(path);
        if checkpoint.is_best() {
            self.take_last_as_best()?;
        }
        while self.written.len() > KEPT {
            let old = self.written.remove(0);
            files::remove_file(&old)?;
        }
        Ok(())
    }
}

fn checksum(texts: [&String; 2], state: &State) -> String {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let of_texts = texts.iter().fold(0, |sum, text| crc32c::crc32c_append(sum, text.as_bytes()));
    let sum = state.iter().fold(of_texts, |sum, (_, values)| crc32c::crc32c_append(sum, &bytes(values)));
    format!("{sum:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Loss;
    use crate::graph::parameters::SEED_PARAMETER_COUNT;

    fn spec() -> Spec {
        Spec::seed(32, 48, Loss::Softmax)
    }

    fn checkpoint(epoch: u32, mean_iou: &[f32]) -> Checkpoint {
        let record = |(epoch, &validation_mean_iou)| EpochRecord { epoch, validation_mean_iou, ..epochs::EMPTY };
        let state = [("weights", SEED_PARAMETER_COUNT), ("first_moment", SEED_PARAMETER_COUNT), ("statistics", 7)]
            .map(|(name, length)| (name.to_owned(), vec![epoch as f32; length]));
        Checkpoint {
            spec: spec(),
            identity: [("seed", "3"), ("setting epochs", "4")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            step: u64::from(epoch) * 2,
            history: (1..=epoch).zip(mean_iou).map(record).collect(),
            is_time_over: false,
            state: state.to_vec(),
        }
    }

    /// A folder as left by a run that saved `epochs` epochs.
    fn saved(epochs: u32) -> tempfile::TempDir {
        let place = tempfile::tempdir().expect("a temporary folder");
        let mut checkpoints = Checkpoints::start(place.path().to_owned(), None).expect("an empty folder");
        for epoch in 1..=epochs {
            checkpoints.save(&checkpoint(epoch, &[0.1, 0.3, 0.2, 0.3])).expect("written");
        }
        place
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = files::entries(folder).expect("a folder").iter().map(|path| name_of(path)).collect();
        names.sort();
        names
    }

    #[test]
    fn the_last_two_and_the_best_are_kept() {
        let place = saved(4);
        assert_eq!(names(place.path()), ["best.safetensors", "epoch-0003.safetensors", "epoch-0004.safetensors"]);
        let best = Checkpoint::read(&place.path().join(BEST_FILE)).expect("readable");
        assert_eq!(best.epoch(), 2, "the first of two that are as good");
        let last = find(place.path(), Resume::Always, &best.identity).expect("there is one");
        assert_eq!(last, Some(checkpoint(4, &[0.1, 0.3, 0.2, 0.3])));
    }

    #[test]
    fn an_epoch_is_found_while_it_is_kept() {
        let place = saved(4);
        let found = |epoch| Checkpoint::of_epoch(place.path(), epoch).expect("readable").map(|it| it.epoch());
        assert_eq!([1, 2, 3, 4].map(found), [None, Some(2), Some(3), Some(4)], "the second is the best");
    }

    #[test]
    fn what_was_half_written_or_is_of_later_epochs_goes() {
        let place = saved(4);
        fs::write(place.path().join(".partial-x1"), "half").expect("writable");
        let resumed = checkpoint(3, &[0.1, 0.3, 0.2]);
        let checkpoints = Checkpoints::start(place.path().to_owned(), Some(&resumed)).expect("a folder");
        assert_eq!(checkpoints.last(), Some(place.path().join("epoch-0003.safetensors").as_path()));
        assert_eq!(names(place.path()), ["best.safetensors", "epoch-0003.safetensors"]);
        Checkpoints::start(place.path().to_owned(), None).expect("a folder");
        assert!(names(place.path()).is_empty());
    }

    #[test]
    fn a_best_one_of_another_epoch_or_run_is_not_trusted() {
        // As left by a kill between the two writes of an epoch: the last epoch is the best, but the best file is still
        // that of the previous one.
        let place = saved(1);
        let last = checkpoint(2, &[0.1, 0.3]);
        let checkpoints = Checkpoints::start(place.path().to_owned(), Some(&checkpoint(1, &[0.1])));
        checkpoints.expect("a folder").save(&last).expect("written");
        fs::rename(place.path().join("epoch-0001.safetensors"), place.path().join(BEST_FILE)).expect("renamed");
        let checkpoints = Checkpoints::start(place.path().to_owned(), Some(&last)).expect("a folder");
        assert_eq!(checkpoints.best(&last.history, &last.identity).expect("it is made again"), last);
        // Damaged, of another run, or missing, while an earlier epoch was the best.
        let place = saved(3);
        let last = checkpoint(3, &[0.1, 0.3, 0.2]);
        let mut foreign = checkpoint(2, &[0.1, 0.3]);
        foreign.identity.insert("seed".to_owned(), "4".to_owned());
        let best = place.path().join(BEST_FILE);
        for bytes in [Some(b"<html>".to_vec()), Some(foreign.serialize().expect("bytes")), None] {
            match bytes {
                Some(bytes) => fs::write(&best, bytes).expect("writable"),
                None => assert!(!best.exists()),
            }
            let checkpoints = Checkpoints::start(place.path().to_owned(), Some(&last)).expect("a folder");
            let lost = checkpoints.best(&last.history, &last.identity).expect_err("it is lost");
            assert!(lost.to_string().contains(BEST_FILE));
            assert_eq!(names(place.path()), ["epoch-0002.safetensors", "epoch-0003.safetensors"]);
        }
    }

    #[test]
    fn a_damaged_checkpoint_gives_way_to_the_one_before() {
        let place = saved(2);
        let identity = checkpoint(1, &[0.1]).identity;
        let newest = place.path().join("epoch-0002.safetensors");
        let whole = fs::read(&newest).expect("readable");
        let mut flipped = whole.clone();
        flipped[whole.len() - 9] ^= 1;
        let step = whole.windows(10).position(|text| text.starts_with(br#""step\":"#)).expect("a header") + 8;
        let mut of_another_step = whole.clone();
        of_another_step[step] ^= 1;
        for bad in [&whole[..whole.len() - 1], &whole[..3000], &flipped, &of_another_step, b"<html></html>", b""] {
            fs::write(&newest, bad).expect("writable");
            assert!(Checkpoint::read(&newest).expect_err("it is bad").to_string().contains("epoch-0002"));
            let found = find(place.path(), Resume::Always, &identity).expect("there is another");
            assert_eq!(found.map(|it| it.epoch()), Some(1));
        }
        fs::write(place.path().join("epoch-0001.safetensors"), "").expect("writable");
        let refused = find(place.path(), Resume::Always, &identity).expect_err("none is left");
        assert!(refused.to_string().contains("epoch-0001.safetensors: is damaged"), "{refused}");
        assert_eq!(find(place.path(), Resume::Auto, &identity).expect("starts over"), None);
    }

    #[test]
    fn a_run_of_another_kind_is_refused_by_what_differs() {
        let place = saved(1);
        let mut identity = checkpoint(1, &[0.1]).identity;
        identity.insert("setting epochs".to_owned(), "5".to_owned());
        identity.remove("seed");
        let refused = find(place.path(), Resume::Always, &identity).expect_err("it is another run").to_string();
        assert!(refused.contains("seed is nothing, was 3; setting epochs is 5, was 4"), "{refused}");
        assert_eq!(find(place.path(), Resume::Auto, &identity).expect("starts over"), None);
        assert_eq!(find(place.path(), Resume::Never, &identity).expect("starts over"), None);
        assert_eq!(names(place.path()).len(), 2, "nothing was touched");
    }
}

//! Splits a stage's work into N shards for N machines: each writes its own folder beside the output, and once all are
//! there, a merge combines them into one output.
//!
//! `output/similarity` in four shards: `output/similarity.shards/1-of-4` to `4-of-4`, made in any order, and repeated
//! if necessary.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::OpenFolder;
use crate::stage::{self, RUN_FILE, StageConfig, Summary};

/// Maximum number of shards per stage: about what a scheduler is willing to map over.
pub const MAX_SHARDS: u32 = 10_000;
/// In place of a shard: the one that the engine which started this process says by its variables.
const ENVIRONMENT: &str = "env";
/// Engines that start a job many times: the variables with the number of this one, how many there are, and the first number,
/// which is 0 without such a variable.
const ENGINES: [(&str, &str, &str, Option<&str>); 5] = [
    ("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE", None),
    ("Slurm", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", Some("SLURM_ARRAY_TASK_MIN")),
    ("Cloud Run", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT", None),
    ("Google Batch", "BATCH_TASK_INDEX", "BATCH_TASK_COUNT", None),
    // An Indexed Job does not say how many there are; its manifest has to.
    ("Kubernetes", "JOB_COMPLETION_INDEX", "LOOKBOOK_SHARDS", None),
];
/// The setting that names the shard.
const SHARD: &str = "shard";

/// How photos are divided among shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Division {
    /// By part in a folder tree of at least 24 parts for each shard, otherwise by name.
    #[default]
    Auto,
    /// By a hash of the name.
    Name,
    /// By part of the table, in a folder tree: a shard has whole parts, which a merge takes over unread.
    Part,
}

/// One of `count` shards: `number/count`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    number: u32,
    count: u32,
}

impl Shard {
    /// Shard `number` (from 1) of `count`; `None` if there is no such shard.
    #[must_use]
    pub fn new(number: u32, count: u32) -> Option<Self> {
        (1..=MAX_SHARDS).contains(&count).then_some(())?;
        (1..=count).contains(&number).then_some(Self { number, count })
    }

    /// The shard that an engine's variables name.
    fn of_engine(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str| -> Result<u32, String> {
            let text = variable(name).ok_or_else(|| format!("{name} is not set"))?;
            text.parse().map_err(|_| format!("{name} is '{text}', not a number"))
        };
        let Some((engine, index, count, first)) = ENGINES.into_iter().find(|(_, index, ..)| variable(index).is_some())
        else {
            let indices: Vec<&str> = ENGINES.iter().map(|(_, index, ..)| *index).collect();
            return Err(format!("no engine says which shard this is: none of {} is set", indices.join(", ")));
        };
        let problem = |problem: String| format!("{engine} does not say which shard this is: {problem}");
        let first = first.map_or(Ok(0), number).map_err(problem)?;
        let (index_now, count_now) = (number(index).map_err(problem)?, number(count).map_err(problem)?);
        let shard = index_now.checked_sub(first).and_then(|it| Self::new(it.checked_add(1)?, count_now));
        shard.ok_or_else(|| {
            problem(format!("{index} is {index_now} and {count} is {count_now}, the first being {first}"))
        })
    }

    /// Its range of `items` work items, in order; the shards' sizes differ by at most one.
    #[must_use]
    pub fn range(self, items: usize) -> Range<usize> {
        let end = |number: u32| (items as u64 * u64::from(number) / u64::from(self.count)) as usize;
        end(self.number - 1)..end(self.number)
    }

    /// Whether the item of that name belongs to this shard. Depends on the name alone, so an item stays in its shard
    /// when others are added or removed.
    #[must_use]
    pub fn holds(self, name: &Path) -> bool {
        Self::holder(name, self.count) == self
    }

    /// The shard of `count` that the item of that name belongs to.
    #[must_use]
    pub fn holder(name: &Path, count: u32) -> Self {
        let digest = Sha256::digest(name.as_os_str().as_encoded_bytes());
        let first = u64::from_be_bytes(std::array::from_fn(|byte| digest[byte]));
        Self { number: (first % u64::from(count)) as u32 + 1, count }
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> u32 {
        self.count
    }

    /// Its number, from 1.
    #[must_use]
    pub fn number(self) -> u32 {
        self.number
    }

    /// The folder this shard of `output` is written to.
    #[must_use]
    pub fn folder(self, output: &Path) -> PathBuf {
        shards_of(output).join(format!("{}-of-{}", self.number, self.count))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == ENVIRONMENT {
            return Self::of_engine(&|name| std::env::var(name).ok());
        }
        let numbers =
            text.split_once('/').and_then(|(number, count)| Some((number.parse().ok()?, count.parse().ok()?)));
        numbers.and_then(|(number, count)| Self::new(number, count)).ok_or_else(|| {
            format!("'{text}' is not a shard; write I/N with I from 1 to N and N at most {MAX_SHARDS}, e.g. 2/4, or {ENVIRONMENT}")
        })
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

/// The folder that holds the shards of `output`.
#[must_use]
pub fn shards_of(output: &Path) -> PathBuf {
    output.with_added_extension("shards")
}

/// Opens the folders of all shards of `output`, with their records, in order. Checks that none is missing and that all
/// were made by this version of the stage, with the same settings and from the same inputs.
///
/// # Errors
/// [`Error::Input`] naming the shard that is missing or differs.
pub fn published<C: StageConfig>(output: &Path) -> Result<Vec<(OpenFolder, Summary)>> {
    let stage = C::NAME;
    let count = count_of(stage, &shards_of(output))?;
    let mut shards: Vec<(OpenFolder, Summary)> = Vec::with_capacity(count as usize);
    for shard in (1..=count).filter_map(|number| Shard::new(number, count)) {
        let folder = shard.folder(output);
        if !folder.join(RUN_FILE).is_file() {
            return Err(Error::input(folder, format!("is missing; run `lookbook {stage} --shard {shard}`")));
        }
        let opened = OpenFolder::open(&folder)?;
        let summary = Summary::read(opened.root())?;
        if summary.behaviour != stage::behaviour_of(stage) {
            // Its rows may lack a column.
            let by = &summary.version;
            let problem = format!(
                "was made by lookbook {by}, which works differently; run `lookbook {stage} --shard {shard}` again"
            );
            return Err(Error::input(folder, problem));
        }
        if let Some((first, other)) = shards.first()
            && (common_settings(&summary) != common_settings(other) || checksums(&summary) != checksums(other))
        {
            // Blame the one whose inputs have changed since it was made.
            let is_changed = |made: &Summary, folder: &OpenFolder| stage::has_changed_inputs::<C>(made, folder.root());
            let is_stale = !is_changed(&summary, &opened) && is_changed(other, first);
            let first = first.name();
            let (stale, number, than) = if is_stale { (first, 1, &*folder) } else { (&*folder, shard.number, first) };
            let problem = format!(
                "was made with other settings or from other inputs than {}; run `lookbook {stage} --shard {number}/{count}` again",
                than.display()
            );
            return Err(Error::input(stale, problem));
        }
        shards.push((opened, summary));
    }
    Ok(shards)
}

/// The number of shards that the work was split into, according to the folders' names.
fn count_of(stage: &str, folder: &Path) -> Result<u32> {
    let entries = std::fs::read_dir(folder).map_err(|cause| {
        Error::input(folder, format!("cannot be listed; run `lookbook {stage} --shard I/N` first")).because(cause)
    })?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut counts: Vec<u32> = names.filter_map(|name| name.split_once("-of-")?.1.parse().ok()).collect();
    counts.sort_unstable();
    counts.dedup();
    match counts[..] {
        [count] if (1..=MAX_SHARDS).contains(&count) => Ok(count),
        [] => Err(Error::input(folder, format!("holds no shard; run `lookbook {stage} --shard I/N` first"))),
        _ => Err(Error::input(folder, format!("holds shards of {counts:?}; remove those of an earlier cut"))),
    }
}

/// The settings the shards were made with, without the shard.
///
/// # Errors
/// [`Error::Input`] if another version made them.
pub fn settings<C: StageConfig>((folder, made): &(OpenFolder, Summary)) -> Result<C> {
    let whole = [(SHARD.to_owned(), Value::Null)].into_iter().collect();
    made.config
        .config(&whole)
        .map_err(|cause| Error::input(folder.name(), "was made by another version; run the shard again").because(cause))
}

/// The settings that must not differ between shards.
fn common_settings(made: &Summary) -> Vec<(&str, &Value)> {
    made.config.stage().filter(|(name, _)| *name != SHARD).collect()
}

fn checksums(summary: &Summary) -> Vec<&str> {
    summary.inputs.iter().filter(|it| !it.is_many).map(|input| input.sha256.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{Common, Outcome, Stage};

    /// The settings of a stage that reads nothing.
    #[derive(Default, Serialize, Deserialize)]
    struct Config {
        shard: Option<Shard>,
        top: u32,
    }

    impl StageConfig for Config {
        const NAME: &'static str = "similarity";
        const WITHOUT_EFFECT: &'static [&'static str] = &["shard"];

        fn folder(&self) -> PathBuf {
            PathBuf::new()
        }

        fn in_run(run: &stage::RunFolders) -> Vec<(&'static str, PathBuf)> {
            vec![("output", run.folder("similarity"))]
        }

        fn check(&self) -> Result<()> {
            Ok(())
        }

        fn reads(&self) -> Result<Vec<stage::Read>> {
            Ok(Vec::new())
        }

        fn run(&self, _: &Common) -> Result<Outcome> {
            unreachable!("the folders are made by hand")
        }
    }

    fn publish(output: &Path, shard: &str, top: u32) {
        let shard: Shard = shard.parse().expect("a shard");
        let config = Config { shard: Some(shard), top };
        let stage = Stage::begin("similarity", &shard.folder(output), &Common::default(), &config);
        stage.and_then(Stage::publish).expect("a published shard").published().expect("no gate is set");
    }

    #[test]
    fn shards_are_read_as_they_are_written() {
        for bad in ["0/4", "5/4", "1", "1/", "a/b", "1/0", "1/100000", "-1/4"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
        let shard: Shard = "2/3".parse().expect("a shard");
        assert_eq!((shard.to_string().as_str(), shard.range(10)), ("2/3", 3..6));
        assert_eq!(shard.folder(Path::new("out/similarity")), Path::new("out/similarity.shards/2-of-3"));
    }

    #[test]
    fn an_engine_says_which_shard_it_is() {
        let said = |variables: &[(&str, &str)]| {
            let variable = |name: &str| variables.iter().find(|(it, _)| *it == name).map(|(_, it)| (*it).to_owned());
            Shard::of_engine(&variable).map(|it| it.to_string())
        };
        let slurm = |id| [("SLURM_ARRAY_TASK_ID", id), ("SLURM_ARRAY_TASK_COUNT", "4"), ("SLURM_ARRAY_TASK_MIN", "1")];
        assert_eq!(said(&slurm("1")).as_deref(), Ok("1/4"));
        assert_eq!(said(&slurm("4")).as_deref(), Ok("4/4"));
        for (index, count) in [
            ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
            ("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
            ("BATCH_TASK_INDEX", "BATCH_TASK_COUNT"),
            ("JOB_COMPLETION_INDEX", "LOOKBOOK_SHARDS"),
        ] {
            assert_eq!(said(&[(index, "0"), (count, "500")]).as_deref(), Ok("1/500"), "{index}");
            assert_eq!(said(&[(index, "499"), (count, "500")]).as_deref(), Ok("500/500"), "{index}");
            for (bad, named) in [
                (&[(index, "500"), (count, "500")][..], index),
                (&[(index, "-1"), (count, "500")], "'-1'"),
                (&[(index, "0")], count),
            ] {
                let problem = said(bad).expect_err("there is no such shard");
                assert!(problem.contains(named), "{problem}");
            }
        }
        assert!(said(&slurm("0")).is_err() && said(&slurm("5")).is_err());
        assert!(said(&[]).expect_err("no engine").contains("JOB_COMPLETION_INDEX"));
    }

    #[test]
    fn shards_differ_little_in_size() {
        let mut sizes = [0_u32; 50];
        for item in 0..10_000_000 {
            sizes[Shard::holder(Path::new(&format!("shop/{item:08}.jpg")), 50).number as usize - 1] += 1;
        }
        let most = sizes.iter().max().copied().unwrap_or_default();
        assert!(f64::from(most) < 1.02 * 200_000.0, "{most} of 200,000");
    }

    #[test]
    fn every_item_is_in_one_shard() {
        for count in 1..7 {
            let ranges = (1..=count).map(|number| Shard::new(number, count).expect("a shard").range(5));
            assert_eq!(ranges.flatten().collect::<Vec<_>>(), [0, 1, 2, 3, 4], "{count} shards");
        }
    }

    #[test]
    fn every_name_is_in_one_shard() {
        let shards = [1, 2, 3].map(|number| Shard::new(number, 3).expect("a shard"));
        let mut sizes = [0; 3];
        for name in (0..300).map(|item| PathBuf::from(format!("{item}.jpg"))) {
            let holders: Vec<_> = (0..3).filter(|&shard| shards[shard].holds(&name)).collect();
            assert_eq!(holders.len(), 1, "{}", name.display());
            sizes[holders[0]] += 1;
        }
        assert!(sizes.iter().all(|&size| size > 70), "about a third each: {sizes:?}");
    }

    #[test]
    fn a_missing_a_different_and_a_foreign_shard_are_named() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let output = place.path().join("out");
        let refused = || published::<Config>(&output).expect_err("not all are there").to_string();
        assert!(refused().contains("--shard I/N"), "{}", refused());
        publish(&output, "2/2", 5);
        assert!(refused().contains("1-of-2") && refused().contains("--shard 1/2"), "{}", refused());
        publish(&output, "1/2", 6);
        assert!(refused().contains("2-of-2") && refused().contains("other settings"), "{}", refused());
        publish(&output, "1/2", 5);
        let shards = published::<Config>(&output).expect("all are there");
        assert_eq!(shards.len(), 2);
        assert!(shards[1].0.name().ends_with("2-of-2"));
        let (folder, mut made) = (shards[0].0.name().to_owned(), shards[0].1.clone());
        made.behaviour -= 1;
        crate::files::write_json(&folder.join(RUN_FILE), &made).expect("writable");
        assert!(refused().contains("1-of-2") && refused().contains("works differently"), "{}", refused());
        publish(&output, "1/2", 5);
        publish(&output, "1/3", 5);
        assert!(refused().contains("earlier cut"), "{}", refused());
    }
}

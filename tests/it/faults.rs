//! No version is ever lost: runs whose file system calls fail (EIO, ENOSPC) or that are killed at one, at every call of
//! every stage that publishes, and after each fault what is promised in `docs/operations.md`. `make test` tries a part
//! of them, `make test-faults` all. The faults are injected by strace(1).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::shared::library;
use lookbook::stage::{RUN_FILE, Summary};

/// The calls that work on files and folders, as strace names them.
const CALLS: &str = "openat,read,pread64,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,\
                     mkdir,mkdirat,link,linkat,getdents64,statx,newfstatat,fstat,lseek,ftruncate,fcntl,readlink,fchmod,\
                     copy_file_range,statfs";
/// Those that a full disk makes fail.
const FILLING: &str = "openat write pwrite64 fsync fdatasync rename renameat renameat2 mkdir mkdirat link linkat ftruncate \
                       copy_file_range";
/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a command does to the published folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Puts a new version in its place.
    Publish,
    /// Adds a file to it.
    Amend,
    /// Puts the previous version back in its place.
    RollBack,
}

/// A command that changes a published folder.
struct Scenario {
    name: &'static str,
    does: Does,
    /// The folder.
    output: &'static str,
    /// What publishes it.
    publish: &'static [&'static str],
    /// The command that is tried.
    arguments: &'static [&'static str],
    /// How the data that it reads, and whatever else it needs, are made.
    prepare: &'static [&'static [&'static str]],
    needs_library: bool,
    /// Faults of each call that the quick part tries, at most.
    quick: usize,
}

const SAMPLE: &[&str] = &["sample", "--photos", "4", "--output", "sample"];
const CONVERT: &[&str] = &["convert", "--source", "sample", "--output", "dataset"];
const TRAIN: &[&str] = &["train", "--dataset", "dataset", "--output", "model", "--config", "small.toml"];
const SEGMENT: &[&str] = &[
    "segment",
    "--catalogue",
    "dataset",
    "--from",
    "labels",
    "--output",
    "features",
    "--masks",
    "png",
    "--format",
    "arrow",
    "--config",
    "small.toml",
];
const SIMILARITY: &[&str] = &["similarity", "--features", "features", "--output", "similarity", "--threshold", "0"];
const DUPLICATES: &[&str] = &["duplicates", "--features", "features", "--output", "duplicates"];
const SETTINGS: &str = "[train]\nepochs = 1\nbatch_size = 2\nphoto_width_px = 32\nphoto_height_px = 48\nchannels = [8, 16]\n\
                        [segment]\nkeep_every_photos = 2\n";

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "segment",
        does: Does::Publish,
        output: "features",
        publish: SEGMENT,
        arguments: SEGMENT,
        prepare: &[SAMPLE, CONVERT],
        needs_library: false,
        quick: 3,
    },
    Scenario {
        name: "sample",
        does: Does::Publish,
        output: "sample",
        publish: SAMPLE,
        arguments: SAMPLE,
        prepare: &[],
        needs_library: false,
        quick: 1,
    },
    Scenario {
        name: "convert",
        does: Does::Publish,
        output: "dataset",
        publish: CONVERT,
        arguments: CONVERT,
        prepare: &[SAMPLE],
        needs_library: false,
        quick: 1,
    },
    Scenario {
        name: "similarity",
        does: Does::Publish,
        output: "similarity",
        publish: SIMILARITY,
        arguments: SIMILARITY,
        prepare: &[SAMPLE, CONVERT, SEGMENT],
        needs_library: false,
        quick: 1,
    },
    Scenario {
        name: "duplicates",
        does: Does::Publish,
        output: "duplicates",
        publish: DUPLICATES,
        arguments: DUPLICATES,
        prepare: &[SAMPLE, CONVERT, SEGMENT],
        needs_library: false,
        quick: 1,
    },
    Scenario {
        name: "report",
        does: Does::Publish,
        output: "report",
        publish: &["report", "--run", ".", "--output", "report"],
        arguments: &["report", "--run", ".", "--output", "report"],
        prepare: &[SAMPLE, CONVERT, SEGMENT, SIMILARITY],
        needs_library: false,
        quick: 0,
    },
    Scenario {
        name: "train",
        does: Does::Publish,
        output: "model",
        publish: TRAIN,
        arguments: TRAIN,
        prepare: &[&["sample", "--photos", "12", "--output", "sample"], CONVERT],
        needs_library: true,
        quick: 0,
    },
    Scenario {
        name: "export",
        does: Does::Publish,
        output: "export",
        publish: &["export", "--model", "model", "--output", "export"],
        arguments: &["export", "--model", "model", "--output", "export"],
        prepare: &[&["sample", "--photos", "12", "--output", "sample"], CONVERT, TRAIN],
        needs_library: true,
        quick: 0,
    },
    Scenario {
        name: "segment by a model",
        does: Does::Publish,
        output: "features",
        publish: &["segment", "--catalogue", "sample/image", "--model", "model", "--output", "features"],
        arguments: &["segment", "--catalogue", "sample/image", "--model", "model", "--output", "features"],
        prepare: &[&["sample", "--photos", "12", "--output", "sample"], CONVERT, TRAIN],
        needs_library: true,
        quick: 0,
    },
    Scenario {
        name: "evaluate",
        does: Does::Amend,
        output: "model",
        publish: TRAIN,
        arguments: &["evaluate", "--dataset", "dataset", "--model", "model", "--split", "validation"],
        prepare: &[&["sample", "--photos", "12", "--output", "sample"], CONVERT],
        needs_library: true,
        quick: 0,
    },
    Scenario {
        name: "rollback",
        does: Does::RollBack,
        output: "features",
        publish: SEGMENT,
        arguments: &["rollback", "features"],
        prepare: &[SAMPLE, CONVERT],
        needs_library: false,
        quick: 2,
    },
];

/// What happens at a call.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Error(&'static str),
    Kill,
}

/// A fault at the `number`th call of that name in each thread.
#[derive(Debug, Clone)]
struct Injection {
    call: String,
    number: usize,
    fault: Fault,
}

impl Injection {
    fn option(&self) -> String {
        let Self { call, number, fault } = self;
        match fault {
            Fault::Error(error) => format!("inject={call}:error={error}:when={number}"),
            Fault::Kill => format!("inject={call}:signal=KILL:when={number}"),
        }
    }
}

fn lookbook(place: &Path, traced: &[&str], arguments: &[&str]) -> Command {
    // Another program than the one just built, for a long run beside other work.
    let program = std::env::var("LOOKBOOK_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_lookbook").to_owned());
    let mut command = if traced.is_empty() { Command::new(&program) } else { Command::new("strace") };
    if !traced.is_empty() {
        command.args(traced).arg(program);
    }
    command.env_clear().current_dir(place).args(arguments).args(["--threads", "2"]);
    if let Some(library) = std::env::var_os("ORT_DYLIB_PATH") {
        command.env("ORT_DYLIB_PATH", library);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end; `None` if it hangs.
fn ended(mut command: Command) -> Option<(ExitStatus, String)> {
    let mut child = command.spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stderr, &mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some((status, said.join().unwrap()));
        }
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn succeed(place: &Path, arguments: &[&str]) {
    let (status, said) = ended(lookbook(place, &[], arguments)).expect("it ends");
    assert!(status.success(), "{arguments:?}: {said}");
}

/// Whether strace can inject faults here; says so if not.
fn can_inject() -> bool {
    let tried =
        Command::new("strace").args(["-qq", "-o", "/dev/null", "-e", "inject=rmdir:error=EIO", "true"]).output();
    if tried.is_err() {
        crate::shared::not_installed("there is no strace (scripts/install_test_tools.sh gets it)");
        return false;
    }
    let can = tried.is_ok_and(|it| it.status.success());
    if !can {
        crate::shared::skip("strace cannot trace a process here, so that no fault can be injected");
    }
    can
}

/// Copies a folder: files as hard links, which is enough where files are replaced and never changed; those that are
/// appended to or locked are left out.
fn copy(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let name = entry.path().strip_prefix(from).unwrap();
        if name.starts_with("runs") || name.extension().is_some_and(|it| it == "lock") {
            continue;
        }
        if entry.file_type().is_dir() {
            fs::create_dir_all(to.join(name)).unwrap();
        } else {
            fs::hard_link(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// The record of a folder as it is on disk.
fn record(folder: &Path) -> Option<Vec<u8>> {
    fs::read(folder.join(RUN_FILE)).ok()
}

/// A folder with two published versions, ready for a third.
struct Template {
    place: tempfile::TempDir,
    /// The records of the first and of the second version.
    versions: [Vec<u8>; 2],
}

impl Template {
    fn make(scenario: &Scenario) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("small.toml"), SETTINGS).unwrap();
        scenario.prepare.iter().for_each(|arguments| succeed(place.path(), arguments));
        let versions = [(); 2].map(|()| {
            succeed(place.path(), scenario.publish);
            record(&place.path().join(scenario.output)).unwrap()
        });
        Self { place, versions }
    }

    fn copied(&self) -> tempfile::TempDir {
        let place = tempfile::tempdir_in(self.place.path().parent().unwrap()).unwrap();
        copy(self.place.path(), place.path());
        place
    }

    /// How often each thread of a run makes each call at most.
    fn calls(&self, scenario: &Scenario) -> BTreeMap<String, usize> {
        let place = self.copied();
        let log = place.path().join("strace.log");
        let trace = format!("trace={CALLS}");
        let traced = ["-f", "-qq", "-o", log.to_str().unwrap(), "-e", &trace, "-e", "signal=none"];
        let (status, said) = ended(lookbook(place.path(), &traced, scenario.arguments)).expect("it ends");
        assert!(status.success(), "{said}");
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in fs::read_to_string(&log).unwrap().lines() {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let call = call.trim_start();
            // The end of a call that was interrupted by another thread's was counted at its beginning.
            let Some((name, _)) = call.split_once('(').filter(|_| !call.starts_with("<...")) else { continue };
            *counts.entry((thread.to_owned(), name.to_owned())).or_default() += 1;
        }
        let mut most = BTreeMap::new();
        for ((_, name), count) in counts {
            let most = most.entry(name).or_insert(0);
            *most = count.max(*most);
        }
        assert!(most.values().sum::<usize>() > 50, "strace tells the calls: {most:?}");
        most
    }
}

/// All faults; or, with `each`, so many of each call, spread over the run.
fn injections(calls: &BTreeMap<String, usize>, each: Option<usize>) -> Vec<Injection> {
    let mut injections = Vec::new();
    for (call, &count) in calls {
        let numbers: BTreeSet<usize> = match each {
            None => (1..=count).collect(),
            // The last calls of a run are those of publishing.
            Some(each) => (0..each).map(|at| count - at * count / each.max(1)).filter(|&it| it > 0).collect(),
        };
        let mut faults = vec![Fault::Error("EIO"), Fault::Kill];
        if FILLING.split(' ').any(|it| it == call) {
            faults.push(Fault::Error("ENOSPC"));
        }
        for number in numbers {
            injections.extend(faults.iter().map(|&fault| Injection { call: call.clone(), number, fault }));
        }
    }
    injections
}

/// What is broken of the promise.
#[derive(Default)]
struct Broken(Vec<String>);

impl Broken {
    fn unless(&mut self, holds: bool, promise: &str) {
        if !holds {
            self.0.push(promise.to_owned());
        }
    }
}

fn is_whole(folder: &Path) -> bool {
    Summary::read(folder).is_ok_and(|it| it.damaged_files(folder).is_empty())
}

/// Whether a fault was injected into a call on a file. One on an event counter, by which threads wake each other and
/// which cannot fail, stops the runtime of a library.
fn hit_a_file(log: &Path) -> bool {
    let text = fs::read_to_string(log).unwrap();
    !text.lines().any(|line| line.contains("(INJECTED)") && line.contains("<anon_inode:"))
}

/// Tries one fault; whether it ended the run, and what it breaks.
fn try_fault(scenario: &Scenario, template: &Template, injection: &Injection) -> (bool, Vec<String>) {
    let place = template.copied();
    let output = place.path().join(scenario.output);
    let option = injection.option();
    let trace = format!("trace={}", injection.call);
    let log = place.path().join("strace.log");
    let traced = ["-f", "-qq", "-y", "-o", log.to_str().unwrap(), "-e", &trace, "-e", "signal=none", "-e", &option];
    let mut broken = Broken::default();
    let Some((status, said)) = ended(lookbook(place.path(), &traced, scenario.arguments)) else {
        return (true, if hit_a_file(&log) { vec!["a run ends".to_owned()] } else { Vec::new() });
    };
    let [first, second] = &template.versions;
    let live = record(&output);
    let is_old = live.as_ref() == Some(second);
    let is_new = match scenario.does {
        Does::RollBack => live.as_ref() == Some(first),
        Does::Publish => Summary::read(&output).is_ok_and(|it| it.generation == 3),
        Does::Amend => !is_old && Summary::read(&output).is_ok_and(|it| it.generation == 2),
    };
    broken.unless(is_old || is_new, "what is published is the previous version or the new one");
    broken.unless(is_whole(&output), "what is published is whole");
    let hidden = ["previous-1", "previous-2", "partial", "old"]
        .map(|it| place.path().join(format!(".{}.{it}", scenario.output)));
    let is_there = |version: &Vec<u8>| {
        let mut places = std::iter::once(&output).chain(&hidden);
        places.any(|it| record(it).as_ref() == Some(version) && is_whole(it))
    };
    let is_amended = scenario.does == Does::Amend && is_new;
    broken.unless(is_amended || is_there(second), "the version that was published is still there");
    let may_go = scenario.does == Does::Publish && is_new;
    broken.unless(may_go || is_there(first), "so is the one before it, unless a newer one is published");
    broken.unless(!status.success() || is_new, "exit 0 only if the new version is published");
    // 3: published, and an input that could not be read was left out by name.
    let is_lost = status.code() == Some(1) && said.contains("cannot print the results");
    let may_fail = matches!(injection.fault, Fault::Kill) || !is_new || status.code() == Some(3) || is_lost;
    broken.unless(status.success() || may_fail, "what comes after the exchange fails nothing");

    // By hand, right after the fault: back to what was published before.
    let beside = tempfile::tempdir_in(template.place.path().parent().unwrap()).unwrap();
    copy(place.path(), beside.path());
    let rolled_back = ended(lookbook(beside.path(), &[], &["rollback", scenario.output]));
    broken.unless(rolled_back.is_some_and(|(status, _)| status.success()), "a rollback right after it succeeds");
    let expected = if is_new && scenario.does != Does::Amend { second } else { first };
    let now = record(&beside.path().join(scenario.output));
    broken.unless(now.as_ref() == Some(expected), "a rollback right after it gives what was published before");

    // The next night, and then a rollback.
    let then = if scenario.does == Does::RollBack { scenario.publish } else { scenario.arguments };
    let next = ended(lookbook(place.path(), &[], then));
    let succeeded = next.as_ref().is_some_and(|(status, _)| status.success());
    broken.unless(succeeded && is_whole(&output), "the next plain run succeeds");
    let rolled_back = ended(lookbook(place.path(), &[], &["rollback", scenario.output]));
    broken.unless(rolled_back.is_some_and(|(status, _)| status.success()), "a rollback after that succeeds");
    let expected = if scenario.does == Does::Amend { Some(first) } else { live.as_ref() };
    broken.unless(record(&output).as_ref() == expected, "a rollback after that gives what was published before");
    if !broken.0.is_empty() {
        let mut said = said;
        if let Some((_, of_next)) = next.filter(|_| !succeeded) {
            let _ = write!(said, "\nthe next run: {of_next}");
        }
        broken.0.push(format!("exit {status}, it said: {said}"));
    }
    (!status.success(), broken.0)
}

/// What the faults of a scenario did.
#[derive(Default)]
struct Tried {
    faults: usize,
    /// How many of them ended the run.
    ended: usize,
    broken: Vec<String>,
}

impl Tried {
    fn add(&mut self, more: Self) {
        self.faults += more.faults;
        self.ended += more.ended;
        self.broken.extend(more.broken);
    }
}

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { faults, ended, broken } = self;
        write!(f, "{faults} faults, {ended} ended the run, {} broke a promise", broken.len())
    }
}

/// Tries all faults of a scenario with as many workers as there are processors.
fn try_all(scenario: &Scenario, each: Option<usize>) -> Tried {
    let template = Template::make(scenario);
    let injections = injections(&template.calls(scenario), each);
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || {
        let mut tried = Tried::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(injection) = injections.get(at) else { return tried };
            if at > 0 && at.is_multiple_of(500) {
                eprintln!("{}: {at} of {} faults", scenario.name, injections.len());
            }
            let (ended, promises) = try_fault(scenario, &template, injection);
            tried.faults += 1;
            tried.ended += usize::from(ended);
            if !promises.is_empty() {
                let broken = format!("{}, {}: {}", scenario.name, injection.option(), promises.join("; "));
                eprintln!("{broken}");
                tried.broken.push(broken);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|it| it.join().unwrap()).fold(Tried::default(), |mut all, more| {
            all.add(more);
            all
        })
    })
}

#[test]
fn no_fault_of_the_file_system_loses_a_version() {
    if !can_inject() {
        return;
    }
    let all = std::env::var_os("LOOKBOOK_FAULTS").is_some();
    let only = std::env::var("LOOKBOOK_FAULTS_OF").ok();
    let mut tried = Tried::default();
    for scenario in SCENARIOS.iter().filter(|it| all || it.quick > 0) {
        if only.as_ref().is_some_and(|it| it != scenario.name) || (scenario.needs_library && library().is_none()) {
            continue;
        }
        let started = Instant::now();
        let of_scenario = try_all(scenario, (!all).then_some(scenario.quick));
        eprintln!("{}: {of_scenario}, {} s", scenario.name, started.elapsed().as_secs());
        assert!(of_scenario.ended > of_scenario.faults / 4, "faults are felt: {of_scenario}");
        tried.add(of_scenario);
    }
    eprintln!("all: {tried}");
    assert!(tried.broken.is_empty(), "{}", tried.broken.join("\n"));
}

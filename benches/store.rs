//! How far `segment` gets with a catalogue in an object store: a server on this machine that lists as many keys as it is told
//! and answers each request for a photo late, or with an error. Prints the tables of docs/scaling.md.
//!
//! `cargo bench --bench store`, with `LISTED` (10000000) keys that are only listed, `KNOWN` (1000000) photos that the last night
//! knew, in one and in `SHARDS` (4), `MANY_SHARDS` (500) of `PARTS` (24) parts each that are merged, `PHOTOS` (20000) that are new,
//! `LATENCY_MS` (20) and `FAILURES` (0.01) for these and, as `KNOWN_LATENCY_MS` (0) and `KNOWN_FAILURES` (0), for the known ones,
//! and for the last lines `CATALOGUE`, a folder of real photos, and `MODEL`. The program is that of the same build.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lookbook::color::{self, ColorTable};
use lookbook::graph::{self, Loss, Spec, parameters};
use lookbook::labels::LabelSet;
use lookbook::stage::Summary;

/// Keys in one answer, as S3 gives them.
const PAGE: usize = 1000;

/// What the server has.
#[derive(Default)]
struct Bucket {
    /// How many keys it lists below `drawn/`.
    keys: AtomicUsize,
    /// Their content, followed by the key if `differ`.
    photo: Vec<u8>,
    differ: bool,
    /// What it lists below `real/`.
    files: Vec<PathBuf>,
    latency: Duration,
    /// One request for an object in so many fails; none with 0.
    failure_every: u64,
    requests: AtomicU64,
    objects: AtomicU64,
}

impl Bucket {
    /// Serves the bucket `sim` for as long as the process lives; the port.
    fn serve(self) -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let bucket = Arc::new(self);
        let served = bucket.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let bucket = served.clone();
                // A client that ends leaves a connection that breaks.
                std::thread::spawn(move || drop(bucket.answer_all(&stream)));
            }
        });
        (bucket, port)
    }

    fn answer_all(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            let mut words = head.split_whitespace();
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let (status, body) = match path.strip_prefix("/sim").unwrap_or(path).trim_start_matches('/') {
                "" => ("200 OK", self.page(query).into_bytes()),
                key => self.object(key),
            };
            let content = if method == "HEAD" { &[][..] } else { &body };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"1\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n",
                body.len()
            );
            let mut stream = stream;
            stream.write_all(&[head.as_bytes(), content].concat())?;
        }
    }

    fn object(&self, key: &str) -> (&'static str, Vec<u8>) {
        let content = match key.split_once('/') {
            Some((_, "current.json")) => None,
            Some(("drawn", name)) if self.differ => Some([&self.photo, name.as_bytes()].concat()),
            Some(("drawn", _)) => Some(self.photo.clone()),
            Some(("real", name)) => {
                let file = self.files.iter().find(|it| it.file_name().is_some_and(|it| it.to_string_lossy() == name));
                file.and_then(|it| std::fs::read(it).ok())
            }
            _ => None,
        };
        let Some(content) = content else {
            return ("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>".to_vec());
        };
        std::thread::sleep(self.latency);
        let number = self.objects.fetch_add(1, Ordering::Relaxed);
        if self.failure_every > 0 && number.is_multiple_of(self.failure_every) {
            return ("503 Service Unavailable", Vec::new());
        }
        ("200 OK", content)
    }

    /// A page of a listing, from where the last one ended.
    fn page(&self, query: &str) -> String {
        let value = |name: &str| query.split('&').find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        let from: usize = value("continuation-token").and_then(|it| it.parse().ok()).unwrap_or(0);
        let is_real = value("prefix").is_some_and(|it| it.starts_with("real"));
        let count = if is_real { self.files.len() } else { self.keys.load(Ordering::Relaxed) };
        let end = (from + PAGE).min(count);
        let mut text = String::from("<ListBucketResult>");
        for number in from..end {
            let (key, size) = if is_real {
                let file = &self.files[number];
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                (format!("real/{name}"), file.metadata().map_or(0, |it| it.len()))
            } else {
                let name = format!("{:03}/{number:09}.jpg", number / 100_000);
                let more = if self.differ { name.len() } else { 0 };
                (format!("drawn/{name}"), (self.photo.len() + more) as u64)
            };
            let _ = write!(
                text,
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;1&quot;</ETag>\
                 <Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            );
        }
        if end < count {
            let _ = write!(text, "<NextContinuationToken>{end}</NextContinuationToken>");
        }
        let _ = write!(text, "<IsTruncated>{}</IsTruncated></ListBucketResult>", end < count);
        text
    }
}

fn setting<T: FromStr>(name: &str, by_default: T) -> T {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(by_default)
}

/// Runs `segment`; its seconds, and the most memory that it had, in MB.
fn segment(port: u16, catalogue: &str, model: &Path, output: &Path, more: &[&str]) -> (f64, u64) {
    let started = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookbook"));
    command.args(["segment", "--catalogue", catalogue, "--precision", "f32"]).args(more);
    command.arg("--model").arg(model).arg("--output").arg(output);
    command.envs([
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}").as_str()),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_REGION", "us-east-1"),
    ]);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().expect("it runs");
    let mut most = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            break status;
        }
        let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak =
            text.lines().find_map(|it| it.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
        most = most.max(peak.unwrap_or(0_u64) / 1000);
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "segment failed");
    (started.elapsed().as_secs_f64(), most)
}

/// A model whose network is small and sees nothing.
fn write_small_model(folder: &Path) {
    let spec = Spec::seed(48, 64, Loss::Bce);
    let weights = vec![0.0; parameters::SEED_PARAMETER_COUNT];
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("predict.onnx"), graph::predict(&spec, &weights)).expect("writable");
    ColorTable::typical(&LabelSet::cfpd()).write(&folder.join(color::FILE)).expect("writable");
}

/// One request in how many fails, if that share of them does.
fn failure_every(share: f64) -> u64 {
    if share > 0.0 { (1.0 / share) as u64 } else { 0 }
}

/// Shards of `output` as large as `parts` parts of the shard `one`, of which they are made: a merge takes them over unread.
fn write_many_shards(one: &Path, output: &Path, many: usize, parts: usize) {
    let record = std::fs::read(one.join("run.json")).expect("the shard is published");
    let record: serde_json::Value = serde_json::from_slice(&record).expect("a record");
    let is_taken = |name: &str| {
        let number = name.split('-').next_back().and_then(|it| it.strip_suffix(".parquet")?.parse().ok());
        number.is_none_or(|number: usize| number < parts)
    };
    for shard in 0..many {
        let folder = output.with_extension("shards").join(format!("{}-of-{many}", shard + 1));
        std::fs::create_dir_all(folder.join("_state")).expect("a folder");
        let mut record = record.clone();
        record["config"]["stage"]["shard"] = format!("{}/{many}", shard + 1).into();
        record["counts"]["whole_parts"]["places"] = (0..parts).map(|part| part * many + shard).collect();
        let files = record["files"].as_array_mut().expect("a list");
        files.retain(|it| is_taken(it["name"].as_str().expect("a name")));
        for file in files {
            let name = file["name"].as_str().expect("a name");
            std::fs::hard_link(one.join(name), folder.join(name)).expect("a link");
        }
        std::fs::write(folder.join("run.json"), record.to_string()).expect("writable");
    }
}

fn main() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let model = place.path().join("model");
    write_small_model(&model);
    let mut photo = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(16, 16).write_to(&mut photo, image::ImageFormat::Jpeg).expect("a photo");
    let photo = photo.into_inner();

    let listed = setting("LISTED", 10_000_000);
    let (bucket, port) = Bucket { keys: listed.into(), photo: photo.clone(), ..Bucket::default() }.serve();
    let (secs, mb) = segment(port, "s3://sim/drawn", &model, &place.path().join("none"), &["--dry-run"]);
    let requests = bucket.requests.load(Ordering::Relaxed);
    println!("listing alone: {listed} keys, {requests} requests, {secs:.1} s, {mb} MB");

    // One photo is segmented, all others have its content.
    let known = setting("KNOWN", 1_000_000);
    let latency = Duration::from_millis(setting("KNOWN_LATENCY_MS", 0));
    let failure_every = failure_every(setting("KNOWN_FAILURES", 0.0));
    let (bucket, port) =
        Bucket { keys: 1.into(), photo: photo.clone(), latency, failure_every, ..Bucket::default() }.serve();
    let output = place.path().join("known");
    segment(port, "s3://sim/drawn", &model, &output, &[]);
    bucket.keys.store(known, Ordering::Relaxed);
    for what in ["new keys of a known content", "all known"] {
        let before = bucket.requests.load(Ordering::Relaxed);
        let (secs, mb) = segment(port, "s3://sim/drawn", &model, &output, &[]);
        let requests = bucket.requests.load(Ordering::Relaxed) - before;
        println!("{what}: {known} photos, {requests} requests, {secs:.1} s, {mb} MB");
    }

    // The same in shards, each with whole parts, and their merge.
    let shards = setting("SHARDS", 4);
    for number in 1..=shards {
        let shard = format!("{number}/{shards}");
        let (secs, _) = segment(port, "s3://sim/drawn", &model, &output, &["--shard", &shard]);
        println!("shard {shard}: {secs:.1} s");
    }
    let (secs, mb) = segment(port, "s3://sim/drawn", &model, &output, &["--merge"]);
    println!("merge of {shards} shards with {known} photos: {secs:.1} s, {mb} MB");
    let (many, parts) = (setting("MANY_SHARDS", 500), setting("PARTS", 24));
    write_many_shards(
        &place.path().join(format!("known.shards/1-of-{shards}")),
        &place.path().join("many"),
        many,
        parts,
    );
    let (secs, mb) = segment(port, "s3://sim/drawn", &model, &place.path().join("many"), &["--merge"]);
    println!("merge of {many} shards with {} photos: {secs:.1} s, {mb} MB", many * parts * 8192);

    let photos = setting("PHOTOS", 20_000);
    let latency = Duration::from_millis(setting("LATENCY_MS", 20));
    let failures: f64 = setting("FAILURES", 0.01);
    let failure_every = self::failure_every(failures);
    let (bucket, port) =
        Bucket { keys: photos.into(), photo, differ: true, latency, failure_every, ..Bucket::default() }.serve();
    let output = place.path().join("drawn");
    for what in ["all new", "all known"] {
        let before = bucket.requests.load(Ordering::Relaxed);
        let (secs, mb) = segment(port, "s3://sim/drawn", &model, &output, &[]);
        let requests = bucket.requests.load(Ordering::Relaxed) - before;
        let made = Summary::read(&output).expect("it is published");
        let [segmented, rejects] = ["segmented", "rejects"].map(|it| made.counts.count(it).unwrap_or_default());
        println!(
            "{what}: {photos} photos, {} ms, {failures} fail: {requests} requests, {secs:.1} s, {:.0} photos/s, {mb} MB, \
             {segmented} segmented, {rejects} rejects",
            latency.as_millis(),
            photos as f64 / secs
        );
    }

    let Some(catalogue) = std::env::var_os("CATALOGUE").map(PathBuf::from) else { return };
    let model = std::env::var_os("MODEL").map_or(model, PathBuf::from);
    let files: Vec<PathBuf> = std::fs::read_dir(&catalogue).expect("a folder").flatten().map(|it| it.path()).collect();
    let count = files.len();
    let (_, port) = Bucket { files, latency: Duration::from_millis(10), ..Bucket::default() }.serve();
    let mut ratios = Vec::new();
    for round in 0..3 {
        let local = segment(port, &catalogue.to_string_lossy(), &model, &place.path().join(format!("l{round}")), &[]).0;
        let stored = segment(port, "s3://sim/real", &model, &place.path().join(format!("s{round}")), &[]).0;
        let rate = |secs: f64| count as f64 / secs;
        println!(
            "{count} real photos: {:.1} photos/s from disk, {:.1} from a store at 10 ms",
            rate(local),
            rate(stored)
        );
        ratios.push(local / stored);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.3}", ratios[1]);
}

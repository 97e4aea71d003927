//! Object stores, for real: moto's S3 server, and between it and the program a proxy that fails, cuts off, repeats and
//! delays requests.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use serde_json::Value;

use crate::incremental::Place;
use crate::shared::{drawn_sample, not_installed};

/// What no output may contain.
const SECRET: &str = "wJalrXUtnFEMIsecretEXAMPLEKEY";
const BUCKET: &str = "lookbook";
/// The server wants a signature, but does not check it.
const SIGNED: &str = "Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, \
                      Signature=0\r\n";

/// An S3 server that ends with the test.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// `None`, said aloud, where moto is not installed.
    fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".store/bin/moto_server");
        if !program.is_file() {
            not_installed("moto is not there (scripts/install_environment.sh store)");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child: command.spawn().unwrap(), port };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_mins(1), "the server starts");
            std::thread::sleep(Duration::from_millis(50));
        }
        server.request("PUT", "", b"");
        Some(server)
    }

    /// A request on the bucket; the answer's body.
    fn request(&self, method: &str, key: &str, body: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let key = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC).to_string();
        let head = format!(
            "{method} /{BUCKET}/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n{SIGNED}\r\n",
            key.replace("%2F", "/"),
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 20"), "{method} {key}: {}", String::from_utf8_lossy(&answer));
        answer.split_off(end + 4)
    }

    fn put(&self, key: &str, body: &[u8]) {
        self.request("PUT", key, body);
    }

    /// Uploads what lies in a folder.
    fn put_folder(&self, prefix: &str, folder: &Path) {
        for entry in walkdir::WalkDir::new(folder) {
            let entry = entry.unwrap();
            if entry.file_type().is_file() {
                let name = entry.path().strip_prefix(folder).unwrap().to_str().unwrap();
                self.put(&format!("{prefix}/{name}"), &fs::read(entry.path()).unwrap());
            }
        }
    }

    /// The published version of a folder: its name, and its record.
    fn published(&self, folder: &str) -> (String, Value) {
        let pointer: Value =
            serde_json::from_slice(&self.request("GET", &format!("{folder}/current.json"), b"")).unwrap();
        let version = pointer["version"].as_str().unwrap().to_owned();
        let record = self.request("GET", &format!("{folder}/_versions/{version}/run.json"), b"");
        (version, serde_json::from_slice(&record).unwrap())
    }

    /// The files of the published version of a folder, checked against its record.
    fn files(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let (version, record) = self.published(folder);
        let names = record["files"].as_array().unwrap().iter().map(|it| {
            let name = it["name"].as_str().unwrap().to_owned();
            let content = self.request("GET", &format!("{folder}/_versions/{version}/{name}"), b"");
            assert_eq!(lookbook::files::digest_of(&content), it["sha256"].as_str().unwrap(), "{folder}/{name}");
            (name, content)
        });
        names.collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, with the server as its store and a folder for its copies.
fn program(port: u16, work: &Path, arguments: &[&str]) -> Command {
    let settings = work.with_extension("toml");
    fs::write(&settings, format!("[store]\nwork = \"{}\"\nretry_secs = 4\nmin_age_hours = 0\n", work.display()))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookbook"));
    command.env_clear().current_dir(work.parent().unwrap()).args(arguments).arg("--config").arg(settings);
    command.envs(std::env::vars_os().filter(|(name, _)| name == "ORT_DYLIB_PATH"));
    command.envs([
        ("HOME", "/nowhere"),
        ("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{port}")),
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
    ]);
    command
}

/// Runs it; what it printed, which has no secret.
fn outcome(command: &mut Command) -> (i32, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(!said.contains(SECRET), "{said}");
    (status.code().unwrap_or(-1), said)
}

fn succeeds(command: &mut Command) -> String {
    let (code, said) = outcome(command);
    assert_eq!(code, 0, "{said}");
    said
}

/// A table without the column `path`, as text.
fn without_paths(parquet: &[u8]) -> String {
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(parquet));
    let batches: Vec<RecordBatch> = reader.unwrap().build().unwrap().map(Result::unwrap).collect();
    let columns = |batch: &RecordBatch| {
        let wanted = (0..batch.num_columns()).filter(|&it| batch.schema().field(it).name() != "path");
        batch.project(&wanted.collect::<Vec<_>>()).unwrap()
    };
    format!("{:?}", batches.iter().map(columns).collect::<Vec<_>>())
}

#[test]
fn a_catalogue_and_its_tables_in_a_store_are_those_on_disk() {
    let (Some(place), Some(server)) = (Place::new(), Server::start()) else { return };
    let names = ["a.jpg", "b/1 2.jpg", "b/ü+%20.jpg", "c.jpg", "d.jpg/e.jpg", "f#?&.jpg"];
    for (name, color) in names.iter().zip(2..) {
        place.photo(name, color);
        server.put(&format!("shop/{name}"), &fs::read(place.path("shop").join(name)).unwrap());
    }
    for (name, content) in [("bad.jpg", "no photo"), ("notes.txt", "x"), (".hidden/g.jpg", "x"), ("folder/", "")] {
        server.put(&format!("shop/{name}"), content.as_bytes());
    }
    fs::write(place.path("shop/bad.jpg"), "no photo").unwrap();
    fs::write(place.path("shop/notes.txt"), "x").unwrap();
    server.put_folder("model", &place.path("model"));
    place.run(|_| {}).unwrap();

    let work = place.path("work");
    let segment = ["segment", "--catalogue", "s3://lookbook/shop", "--model", "s3://lookbook/model", "--output"];
    let run = |output: &str, more: &[&str]| {
        let arguments = [&segment[..], &[output, "--max-reject-fraction", "1"], more].concat();
        succeeds(&mut program(server.port, &work, &arguments))
    };
    let said = run("s3://lookbook/out/features", &[]);
    assert!(said.contains("s3://lookbook/out/features"), "{said}");
    assert!(!said.contains(work.to_str().unwrap()), "{said}");
    let (first, record) = server.published("out/features");
    assert_eq!(record["counts"]["passed_over"]["txt"], 1, "{record}");
    assert_eq!(record["output"], "s3://lookbook/out/features");
    let in_store = server.files("out/features");
    let on_disk = fs::read(place.path("features/part-00000.parquet")).unwrap();
    let part = &in_store["part-00000.parquet"];
    assert_eq!(without_paths(part), without_paths(&on_disk));

    // A second night does nothing, and one on another machine knows it too.
    for work in ["work", "other"].map(|it| place.path(it)) {
        let arguments =
            [&segment[..], &["s3://lookbook/out/features", "--max-reject-fraction", "1", "--if-changed"]].concat();
        let said = succeeds(&mut program(server.port, &work, &arguments));
        assert!(said.contains("nothing to do"), "{said}");
    }
    assert_eq!(server.published("out/features").0, first);

    // What changed is done, and nothing else.
    server.put("shop/c.jpg", &fs::read(place.path("shop/a.jpg")).unwrap());
    server.request("DELETE", "shop/a.jpg", b"");
    run("s3://lookbook/out/features", &[]);
    let (second, record) = server.published("out/features");
    let counts = ["known", "changed", "vanished", "segmented"].map(|it| record["counts"][it].as_u64().unwrap());
    assert_eq!((counts, second != first), ([4, 1, 1, 0], true), "the content is known of the photo that vanished");

    // In shards on machines that share nothing, and merged.
    for (shard, work) in [("1/3", "w1"), ("2/3", "w2"), ("3/3", "w3")] {
        let arguments =
            [&segment[..], &["s3://lookbook/cut/features", "--max-reject-fraction", "1", "--shard", shard]].concat();
        succeeds(&mut program(server.port, &place.path(work), &arguments));
    }
    let merge = ["segment", "--merge", "--output", "s3://lookbook/cut/features", "--max-reject-fraction", "1"];
    succeeds(&mut program(server.port, &place.path("w4"), &merge));
    run("s3://lookbook/whole/features", &[]);
    let tables = |folder: &str| {
        server.files(folder).into_iter().filter(|(name, _)| name.starts_with("part-")).collect::<Vec<_>>()
    };
    assert!(tables("cut/features") == tables("whole/features"), "byte for byte");

    // By whole parts: the machine that merges has outlines of them, and the store copies them.
    for (shard, work) in [("1/2", "w1"), ("2/2", "w2")] {
        let more =
            ["s3://lookbook/parts/features", "--max-reject-fraction", "1", "--shard-by", "part", "--shard", shard];
        succeeds(&mut program(server.port, &place.path(work), &[&segment[..], &more].concat()));
    }
    let merge = ["segment", "--merge", "--output", "s3://lookbook/parts/features", "--max-reject-fraction", "1"];
    let merging = place.path("w5");
    succeeds(&mut program(server.port, &merging, &merge));
    assert!(tables("parts/features") == tables("whole/features"), "byte for byte");
    let state = fs::read(merging.join("s3/lookbook/parts/features.shards/1-of-2/_state/state-00000.parquet")).unwrap();
    assert!(!state.is_empty() && state.iter().all(|&it| it == 0), "an outline");
    // The next command has need of more, and gets it. A second merge has nothing to do.
    let said = succeeds(&mut program(server.port, &merging, &[&merge[..], &["--if-changed"]].concat()));
    assert!(said.contains("nothing to do"), "{said}");
    let again = [&segment[..], &["s3://lookbook/parts/features", "--max-reject-fraction", "1"]].concat();
    succeeds(&mut program(server.port, &merging, &again));
    let counted = server.published("parts/features").1;
    assert_eq!(counted["counts"]["known"].as_u64(), Some(5), "{counted}");
    assert!(tables("parts/features") == tables("whole/features"), "byte for byte");

    // Who reads it gets the same neighbours as from disk.
    succeeds(&mut program(
        server.port,
        &work,
        &["similarity", "--features", "s3://lookbook/whole/features", "--output", "s3://lookbook/whole/similarity"],
    ));
    let local = ["similarity", "--features", "copy", "--output", "similarity"];
    let copy = place.path("work/s3/lookbook/whole/features");
    lookbook::files::rename(&copy, &place.path("copy")).unwrap();
    succeeds(&mut program(server.port, &work, &local));
    for (name, content) in server.files("whole/similarity") {
        assert!(fs::read(place.path("similarity").join(&name)).unwrap() == content, "{name}");
    }

    // Back, and back again.
    for expected in [&first, &second] {
        succeeds(&mut program(server.port, &work, &["rollback", "s3://lookbook/out/features"]));
        assert_eq!(&server.published("out/features").0, expected);
    }
    let status = succeeds(&mut program(server.port, &work, &["status", "s3://lookbook/out"]));
    assert!(status.contains("s3://lookbook/out/features (segment)") && status.contains("up to date"), "{status}");
}

/// A web server that has one file, whatever it is asked for; its port.
fn web_server(content: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let mut reader = BufReader::new(&stream);
            while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).unwrap() > 0 {}
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"1\"\r\nConnection: close\r\n\
                 Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n",
                content.len()
            );
            let body = if request.starts_with("HEAD") { &[][..] } else { &content };
            stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        }
    });
    port
}

#[test]
fn photos_of_a_list_come_from_where_it_says() {
    let (Some(place), Some(server)) = (Place::new(), Server::start()) else { return };
    place.photo("a.jpg", 2);
    let photo = fs::read(place.path("shop/a.jpg")).unwrap();
    for key in ["far/a.jpg", "lists/near.jpg"] {
        server.put(key, &photo);
    }
    let web = format!("http://127.0.0.1:{}/b.jpg", web_server(photo.clone()));
    let missing = "s3://lookbook/far/gone.jpg";
    let list = format!("photo_id,path\n7,s3://lookbook/far/a.jpg\n3,near.jpg\n9,{web}\n1,{missing}\n");
    server.put("lists/all.csv", list.as_bytes());
    let work = place.path("work");
    let run = || {
        let model = place.path("model");
        let arguments = ["segment", "--catalogue", "s3://lookbook/lists/all.csv", "--output", "features", "--model"];
        let arguments = [&arguments[..], &[model.to_str().unwrap(), "--max-reject-fraction", "1"]].concat();
        succeeds(&mut program(server.port, &work, &arguments));
        let record = fs::read_to_string(place.path("features/run.json")).unwrap();
        serde_json::from_str::<Value>(&record).unwrap()["counts"].clone()
    };
    let counts = run();
    assert_eq!((&counts["photos"], &counts["rejects_by_reason"]["photo_missing"]), (&3.into(), &1.into()), "{counts}");
    let table = lookbook::features::FeatureTable::open(&place.path("features")).unwrap();
    assert_eq!(table.photo_ids, [7, 3, 9]);
    assert_eq!(table.paths, ["s3://lookbook/far/a.jpg", "s3://lookbook/lists/near.jpg", web.as_str()]);
    assert_eq!(run()["known"], 3, "what a store says about them is enough");
}

#[test]
fn photos_that_may_not_be_read_keep_their_rows_and_a_key_may_begin_another() {
    let (Some(place), Some(server)) = (Place::new(), Server::start()) else { return };
    place.photo("a.jpg", 2);
    let photo = fs::read(place.path("shop/a.jpg")).unwrap();
    for key in ["shop/a.jpg", "shop/a.jpg/a.jpg", "shop/a.jpg/b/c.jpg"] {
        server.put(key, &photo);
    }
    let proxy = Proxy::start(server.port);
    let (work, model) = (place.path("work"), place.path("model"));
    let run = |port: u16, more: &[&str]| {
        let arguments = ["segment", "--catalogue", "s3://lookbook/shop", "--output", "features", "--model"];
        let arguments = [&arguments[..], &[model.to_str().unwrap(), "--max-reject-fraction", "1"], more].concat();
        succeeds(&mut program(port, &work, &arguments));
        let record: Value = serde_json::from_slice(&fs::read(place.path("features/run.json")).unwrap()).unwrap();
        record["counts"].clone()
    };
    let names = || lookbook::features::FeatureTable::open(&place.path("features")).unwrap().paths;
    assert_eq!(run(server.port, &[])["photos"], 3);
    let all = names();
    assert_eq!(all, ["s3://lookbook/shop/a.jpg", "s3://lookbook/shop/a.jpg/a.jpg", "s3://lookbook/shop/a.jpg/b/c.jpg"]);
    // One changes, and may not be read this night: its row stays. The requests before it are for the pointer and the listing.
    server.put("shop/a.jpg", &[&photo[..], b" "].concat());
    *proxy.fault.lock().unwrap() = Some((2, Fault::Denied));
    let counts = run(proxy.port, &[]);
    assert_eq!(
        (&counts["photos"], &counts["rejects_by_reason"]["photo_no_permission"]),
        (&3.into(), &1.into()),
        "{counts}"
    );
    assert_eq!(names(), all);
    assert_eq!(run(server.port, &[])["changed"], 1, "the next night it is done");
}

#[test]
fn what_is_wrong_with_a_store_is_said_by_name() {
    let Some(server) = Server::start() else { return };
    let place = tempfile::tempdir().unwrap();
    drawn_sample(&place.path().join("source"), 2);
    let work = place.path().join("work");
    let fails = |arguments: &[&str], code: i32, named: &[&str]| {
        let (found, said) = outcome(&mut program(server.port, &work, arguments));
        assert_eq!(found, code, "{said}");
        for it in named {
            assert!(said.contains(it), "{it} in {said}");
        }
    };
    for (setting, url) in [
        ("output", "ftp://a/b"),
        ("output", "s3:///b"),
        ("source", "https://example.org/data"),
        ("output", "s3://b/../c"),
    ] {
        let flag = format!("--{setting}");
        let other = if setting == "output" { ["--source", "source"] } else { ["--output", "dataset"] };
        fails(&["convert", &flag, url, other[0], other[1]], 2, &[setting, url]);
    }
    let names = fs::read_dir(place.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|it| !it.starts_with('.')).collect();
    names.sort();
    assert_eq!(names, ["source", "work.toml"], "and no folder `s3:`");
    let convert = |url: &str, named: &[&str]| fails(&["convert", "--source", "source", "--output", url], 1, named);
    convert("s3://nowhere/dataset", &["s3://nowhere/dataset", "no such bucket"]);
    let model = place.path().join("model");
    crate::model::write_flat_model(&model, 1);
    server.put("keys/a//b.jpg", b"x");
    let model = model.to_str().unwrap();
    let segment = |catalogue: &str, named: &[&str]| {
        fails(&["segment", "--catalogue", catalogue, "--model", model, "--output", "features"], 1, named);
    };
    segment("s3://lookbook/keys", &["s3://lookbook/keys", "a//b.jpg", "rename"]);
    segment("s3://lookbook/nothing", &["s3://lookbook/nothing", "holds no photos"]);
    segment("s3://lookbook/nothing.csv", &["s3://lookbook/nothing.csv", "is not there"]);
    // Where credentials come from.
    let profiles = place.path().join("credentials");
    let credentials = format!(
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = {SECRET}\n[work]\nregion = eu-central-1\n\
         endpoint_url = http://127.0.0.1:{}\naws_access_key_id = AKIAWORK\naws_secret_access_key = {SECRET}\n\
         [sso]\nsso_session = us\n",
        server.port
    );
    fs::write(&profiles, credentials).unwrap();
    for (profile, endpoint, code, named) in [
        ("", true, 0, "s3://lookbook/of-profile"),
        ("work", false, 0, "s3://lookbook/of-profile"),
        ("nobody", true, 1, "no AWS profile 'nobody'"),
        ("sso", true, 1, "by sso_session"),
    ] {
        let arguments = ["convert", "--source", "source", "--output", "s3://lookbook/of-profile"];
        let mut command = program(server.port, &work, &arguments);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("AWS_SHARED_CREDENTIALS_FILE", &profiles).env("AWS_PROFILE", profile);
        if !endpoint {
            command.env_remove("AWS_ENDPOINT_URL").env_remove("AWS_REGION");
        }
        let (found, said) = outcome(&mut command);
        assert!(found == code && said.contains(named), "profile '{profile}': {said}");
    }
    // Nobody answers.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, said) =
        outcome(&mut program(closed, &work, &["convert", "--source", "source", "--output", "s3://lookbook/d"]));
    assert!(code == 75 && said.contains("s3://lookbook/d/current.json: its store does not answer"), "{said}");
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It and all later ones are refused.
    Down,
    /// It is refused once, as a throttled bucket does.
    Throttled,
    /// The connection is cut before it reaches the server.
    Cut,
    /// The server's answer is lost.
    AnswerLost,
    /// The server gets it twice.
    Twice,
    /// The server gets it late.
    Late,
    /// The program may not do that.
    Denied,
    /// The program is killed.
    Killed,
}

const FAULTS: [Fault; 8] = [
    Fault::Down,
    Fault::Throttled,
    Fault::Cut,
    Fault::AnswerLost,
    Fault::Twice,
    Fault::Late,
    Fault::Denied,
    Fault::Killed,
];

/// Stands between the program and the server.
struct Proxy {
    port: u16,
    requests: Arc<AtomicUsize>,
    /// The number of the request, from 0, and its fault.
    fault: Arc<Mutex<Option<(usize, Fault)>>>,
    victim: Arc<Mutex<Option<u32>>>,
}

impl Proxy {
    fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            requests: Arc::default(),
            fault: Arc::default(),
            victim: Arc::default(),
        };
        let (requests, fault, victim) = (proxy.requests.clone(), proxy.fault.clone(), proxy.victim.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (requests, fault, victim) = (requests.clone(), fault.clone(), victim.clone());
                std::thread::spawn(move || {
                    // A client that was killed leaves requests that cannot be answered.
                    let _ = relay(&stream?, server, &requests, &fault, &victim);
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        proxy
    }
}

fn relay(
    client: &TcpStream,
    server: u16,
    requests: &AtomicUsize,
    fault: &Mutex<Option<(usize, Fault)>>,
    victim: &Mutex<Option<u32>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if lower == "\r\n" {
            break;
        }
        if !lower.starts_with("connection:") {
            head += &line;
        }
    }
    let mut request = format!("{head}Connection: close\r\n\r\n").into_bytes();
    let at = request.len();
    request.resize(at + length, 0);
    reader.read_exact(&mut request[at..])?;
    let forward = || {
        let mut stream = TcpStream::connect(("127.0.0.1", server))?;
        stream.write_all(&request)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    let number = requests.fetch_add(1, Ordering::SeqCst);
    let fault = fault.lock().unwrap().filter(|&(at, fault)| at == number || (fault == Fault::Down && number > at));
    let refused = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    let answer = match fault.map(|(_, fault)| fault) {
        None => forward()?,
        Some(Fault::Down | Fault::Throttled) => refused,
        Some(Fault::Cut) => Vec::new(),
        Some(Fault::Denied) => {
            let body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
            let head = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: ";
            format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
        }
        Some(Fault::AnswerLost) => {
            forward()?;
            Vec::new()
        }
        Some(Fault::Twice) => {
            forward()?;
            forward()?
        }
        Some(Fault::Late) => {
            std::thread::sleep(Duration::from_millis(300));
            forward()?
        }
        Some(Fault::Killed) => {
            let victim = victim.lock().unwrap().unwrap();
            assert!(Command::new("kill").args(["-9", &victim.to_string()]).status()?.success());
            Vec::new()
        }
    };
    let mut client = client;
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Both)
}

/// A store with two versions of a dataset, and the sources that they, and a third, are of.
struct Versions {
    place: tempfile::TempDir,
    server: Server,
    proxy: Proxy,
}

impl Versions {
    /// `None`, said aloud, where there is no server.
    fn new() -> Option<Self> {
        let server = Server::start()?;
        let place = tempfile::tempdir().unwrap();
        for photos in [2, 3, 4] {
            drawn_sample(&place.path().join(format!("source-{photos}")), photos);
        }
        let proxy = Proxy::start(server.port);
        let it = Self { place, server, proxy };
        it.reset();
        Some(it)
    }

    fn convert(&self, port: u16, photos: u32, work: &Path) -> Command {
        let source = self.place.path().join(format!("source-{photos}"));
        let arguments = ["convert", "--source", source.to_str().unwrap(), "--output", "s3://lookbook/dataset"];
        program(port, work, &arguments)
    }

    fn photos(&self) -> u64 {
        self.files_are_whole();
        self.server.published("dataset").1["counts"]["photos"].as_u64().unwrap()
    }

    fn files_are_whole(&self) {
        assert!(!self.server.files("dataset").is_empty());
    }

    fn new_work(&self) -> PathBuf {
        let work = self.place.path().join("work");
        lookbook::files::remove_folder(&work).unwrap();
        work
    }

    /// The store with the versions of 2 and 3 photos, as it was.
    fn reset(&self) {
        self.server.request("GET", "", b"");
        let listing = String::from_utf8(self.server.request("GET", "", b"")).unwrap();
        for key in listing.split("<Key>").skip(1) {
            self.server.request("DELETE", key.split("</Key>").next().unwrap(), b"");
        }
        let work = self.new_work();
        for photos in [2, 3] {
            succeeds(&mut self.convert(self.server.port, photos, &work));
        }
    }
}

#[test]
fn no_request_that_fails_loses_a_version() {
    let Some(it) = Versions::new() else { return };
    let whole = it.new_work();
    it.proxy.requests.store(0, Ordering::SeqCst);
    succeeds(&mut it.convert(it.proxy.port, 4, &whole));
    let requests = it.proxy.requests.load(Ordering::SeqCst);
    assert!(requests > 10, "{requests}");
    // All of them with LOOKBOOK_FAULTS=all; a few otherwise.
    let all = std::env::var_os("LOOKBOOK_FAULTS").is_some_and(|it| it == "all");
    let step = if all { 1 } else { requests / 3 };
    let (mut tried, mut ended) = (0, 0);
    for number in (0..requests).rev().step_by(step) {
        for fault in FAULTS {
            it.reset();
            let work = it.new_work();
            it.proxy.requests.store(0, Ordering::SeqCst);
            *it.proxy.fault.lock().unwrap() = Some((number, fault));
            let mut command = it.convert(it.proxy.port, 4, &work);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            *it.proxy.victim.lock().unwrap() = Some(child.id());
            let output = child.wait_with_output().unwrap();
            *it.proxy.fault.lock().unwrap() = None;
            let said = format!("{fault:?} of request {number}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(!said.contains(SECRET), "{said}");
            let good = output.status.success();
            let published = it.photos();
            assert!(published == 4 || published == 3 && !good, "{published} photos: {said}");
            let is_passing = ![Fault::Down, Fault::Denied, Fault::Killed].contains(&fault);
            assert!(good || !is_passing, "what passes is tried again: {said}");
            ended += usize::from(!good);
            tried += 1;
            // The next run succeeds, here or elsewhere, and what was published before is still there.
            let next = if tried % 2 == 0 { work } else { it.new_work() };
            succeeds(&mut it.convert(it.server.port, 4, &next));
            assert_eq!(it.photos(), 4, "{said}");
            succeeds(&mut program(it.server.port, &next, &["rollback", "s3://lookbook/dataset"]));
            assert_eq!(it.photos(), published, "{said}");
        }
    }
    eprintln!("{tried} requests were failed, {ended} of them ended their run; none broke a promise");
}

#[test]
fn of_two_runs_at_once_one_wins() {
    let Some(it) = Versions::new() else { return };
    let work = it.new_work();
    succeeds(&mut it.convert(it.proxy.port, 4, &work));
    let requests = it.proxy.requests.load(Ordering::SeqCst);
    assert!(requests > 0);
    it.reset();
    // One run is held up at its first request after the one that reads the pointer, until another has published.
    let work = it.new_work();
    it.proxy.requests.store(0, Ordering::SeqCst);
    *it.proxy.fault.lock().unwrap() = Some((1, Fault::Late));
    let mut slow = it.convert(it.proxy.port, 4, &work);
    let mut slow = slow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while it.proxy.requests.load(Ordering::SeqCst) < 2 {
        assert!(slow.try_wait().unwrap().is_none(), "it asks the store");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-STOP", &slow.id().to_string()]).status().unwrap().success());
    let other = it.place.path().join("other");
    succeeds(&mut it.convert(it.server.port, 2, &other));
    assert!(Command::new("kill").args(["-CONT", &slow.id().to_string()]).status().unwrap().success());
    let output = slow.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("s3://lookbook/dataset") && said.contains("another run"), "{said}");
    assert_eq!(it.photos(), 2, "that of the run which was first");
    succeeds(&mut it.convert(it.server.port, 4, &work));
    assert_eq!(it.photos(), 4);
}

/// A script of `scripts/store`, to be run by the Python that has its packages; `None`, said aloud, where it is missing.
fn python(script: &str) -> Option<Command> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [python, packages] = [".store/bin/python", ".python"].map(|it| folder.join(it));
    if !python.is_file() || !packages.is_dir() {
        not_installed("Python's packages are not there (scripts/install_environment.sh store)");
        return None;
    }
    let mut command = Command::new(python);
    command.arg(folder.join("scripts/store").join(script)).env("PYTHONPATH", packages);
    Some(command)
}

#[test]
fn the_manifests_of_array_jobs_are_as_their_engines_want_them() {
    let Some(mut command) = python("check_manifests.py") else { return };
    let checked = command.output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// What Python's deltalake and polars read of a Delta table, on disk or in the store: of each version the rows' file names and
/// colours, and of the last one its parts.
fn delta_versions(server: &Server, table: &str) -> Option<Value> {
    let mut command = python("delta_in_python.py")?;
    command.arg(table);
    command.envs([
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", server.port).as_str()),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ALLOW_HTTP", "true"),
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_night_is_one_commit_of_a_delta_table() {
    let (Some(place), Some(server)) = (Place::new(), Server::start()) else { return };
    for (name, color) in [("a.jpg", 2), ("b.jpg", 3)] {
        place.photo(name, color);
    }
    let (work, shop, model) = (place.path("work"), place.path("shop"), place.path("model"));
    for output in ["out/features", "s3://lookbook/out/features"] {
        let run = |more: &[&str]| {
            let arguments = ["segment", "--output", output, "--table", "delta", "--catalogue", shop.to_str().unwrap()];
            let arguments = [&arguments[..], &["--model", model.to_str().unwrap()], more].concat();
            outcome(&mut program(server.port, &work, &arguments))
        };
        let table = format!("{output}.delta");
        let shown =
            if output.starts_with("s3") { table.clone() } else { place.path(&table).to_str().unwrap().to_owned() };
        let (code, said) = run(&[]);
        assert!(code == 0 && said.contains("version 0, 1 parts added, 0 removed, 0 kept"), "{said}");
        place.photo("c.jpg", 10);
        let (code, said) = run(&[]);
        assert!(code == 0 && said.contains("version 1, 1 parts added, 1 removed, 0 kept"), "{said}");
        // Nothing new: no commit.
        let (code, said) = run(&["--if-changed"]);
        assert!(code == 0 && said.contains("version 1, 0 parts added, 0 removed, 1 kept"), "{said}");
        let Some(read) = delta_versions(&server, &shown) else { return };
        let expected =
            |names: &[(&str, &str)]| names.iter().map(|(a, b)| serde_json::json!([a, b])).collect::<Vec<_>>();
        let first = expected(&[("a.jpg", "Tshirt_black"), ("b.jpg", "Tshirt_blue")]);
        let second = expected(&[("a.jpg", "Tshirt_black"), ("b.jpg", "Tshirt_blue"), ("c.jpg", "Tshirt_red")]);
        assert_eq!(read["deltalake"], serde_json::json!([first, second]));
        assert_eq!(read["polars"], read["deltalake"]);
        assert_eq!(read["parts"], 1);
        fs::remove_file(place.path("shop/c.jpg")).unwrap();

        // Two writers, and another schema.
        if output.starts_with("s3") {
            continue;
        }
        let log = place.path(&table).join("_delta_log");
        let metadata = fs::read_to_string(log.join(format!("{:020}.json", 0))).unwrap();
        let other = metadata.replace("Tshirt_black", "tunic_black");
        assert_ne!(metadata, other);
        fs::write(log.join(format!("{:020}.json", 0)), other).unwrap();
        let (code, said) = run(&[]);
        assert!(code == 1 && said.contains("features.delta: has another schema"), "{said}");
        assert!(said.contains("'Tshirt_black'"), "{said}");
        for (text, named) in [
            (metadata.replace("\"minReaderVersion\":1", "\"minReaderVersion\":3"), "newer protocol"),
            ("{".to_owned(), "is damaged"),
        ] {
            fs::write(log.join(format!("{:020}.json", 0)), text).unwrap();
            let (code, said) = run(&[]);
            assert!(code == 1 && said.contains(named), "{said}");
        }
        fs::remove_file(log.join(format!("{:020}.json", 0))).unwrap();
        let (code, said) = run(&[]);
        assert!(code == 1 && said.contains("its log was shortened"), "{said}");
    }
}

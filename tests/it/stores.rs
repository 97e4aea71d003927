//! A night in stores that others keep: an S3 server that checks signatures (s3s-fs), and Azure's emulator (Azurite).
//! `make test-store` gets both.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::incremental::Place;

/// The key that Azurite documents for its only account.
const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const AZURE_ACCOUNT: &str = "devstoreaccount1";
const S3_SECRET: &str = "kept/Secret+of/s3s";

/// A store that ends with the test.
struct Store {
    server: Child,
    folder: tempfile::TempDir,
    /// The URL of its bucket.
    url: &'static str,
    /// How a program reaches it.
    variables: Vec<(&'static str, String)>,
    secret: &'static str,
    put: fn(&Self, &Path),
}

impl Store {
    /// `None`, said aloud, where its program is missing.
    fn start(
        program: &str,
        arguments: impl FnOnce(&Path, u16) -> Vec<String>,
    ) -> Option<(Child, tempfile::TempDir, u16)> {
        let program = installed(program)?;
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(arguments(folder.path(), port)).stdout(Stdio::null()).stderr(Stdio::null());
        let server = command.spawn().unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_mins(1), "the server starts");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some((server, folder, port))
    }

    fn s3() -> Option<Self> {
        let arguments = |folder: &Path, port: u16| {
            fs::create_dir(folder.join("lookbook")).unwrap();
            let [folder, port] = [folder.display().to_string(), port.to_string()];
            let named = ["--host", "127.0.0.1", "--port", &port, "--access-key", "AKIAKEPT", "--secret-key", S3_SECRET];
            named.iter().map(|it| (*it).to_owned()).chain([folder]).collect()
        };
        let (server, folder, port) = Self::start("bin/s3s-fs", arguments)?;
        let variables = vec![
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
            ("AWS_ACCESS_KEY_ID", "AKIAKEPT".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", S3_SECRET.to_owned()),
            ("AWS_REGION", "eu-west-1".to_owned()),
        ];
        let put = |it: &Self, folder: &Path| copy_tree(folder, &it.folder.path().join("lookbook/shop"));
        Some(Self { server, folder, url: "s3://lookbook", variables, secret: S3_SECRET, put })
    }

    fn azure() -> Option<Self> {
        installed("bin/python")?;
        let arguments = |folder: &Path, port: u16| {
            let [folder, port] = [folder.display().to_string(), port.to_string()];
            let named = [
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                &port,
                "--silent",
                "--skipApiVersionCheck",
                "--location",
                &folder,
            ];
            named.iter().map(|it| (*it).to_owned()).collect()
        };
        let (server, folder, port) = Self::start("node_modules/.bin/azurite-blob", arguments)?;
        let endpoint = format!("http://127.0.0.1:{port}/{AZURE_ACCOUNT}");
        let variables = vec![
            ("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY.to_owned()),
            ("AZURE_STORAGE_ENDPOINT", endpoint.clone()),
            ("AZURE_ALLOW_HTTP", "true".to_owned()),
            (
                "AZURE_STORAGE_CONNECTION_STRING",
                format!("AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={endpoint};"),
            ),
        ];
        let put = |it: &Self, folder: &Path| {
            let mut command = Command::new(installed("bin/python").unwrap());
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/stores/upload_to_azure.py");
            command.arg(script).args(["lookbook".as_ref(), folder.as_os_str(), "shop".as_ref()]);
            let output = command.envs(it.variables.iter().map(|(name, value)| (name, value))).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        Some(Self { server, folder, url: "az://lookbook", variables, secret: AZURE_KEY, put })
    }

    /// The program, with the folder `work` for its copies.
    fn program(&self, work: &Path, arguments: &[&str]) -> Command {
        let settings = work.with_extension("toml");
        let store = format!("[store]\nwork = \"{}\"\nretry_secs = 4\nmin_age_hours = 0\n", work.display());
        fs::write(&settings, store).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lookbook"));
        command.env_clear().current_dir(work.parent().unwrap()).args(arguments).arg("--config").arg(settings);
        command.envs(std::env::vars_os().filter(|(name, _)| name == "ORT_DYLIB_PATH")).env("HOME", "/nowhere");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command; its exit code and what it printed, which has no secret.
    fn outcome(&self, command: &mut Command) -> (i32, String) {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        assert!(!said.contains(self.secret), "{said}");
        (status.code().unwrap_or(-1), said)
    }

    fn succeeds(&self, work: &Path, arguments: &[&str]) -> String {
        let (code, said) = self.outcome(&mut self.program(work, arguments));
        assert_eq!(code, 0, "{said}");
        said
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Something that `scripts/install_stores.sh` installs; `None`, said aloud, where it is missing.
fn installed(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".stores").join(name);
    if !path.is_file() {
        crate::shared::skip(&format!(
            "there is no .stores/{name} (scripts/install_stores.sh, called by make test-store)"
        ));
        return None;
    }
    Some(path)
}

/// Copies a folder and all below it.
fn copy_tree(folder: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.unwrap();
        let place = to.join(entry.path().strip_prefix(folder).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(place).unwrap();
        } else {
            fs::copy(entry.path(), place).unwrap();
        }
    }
}

/// The content of the neighbours' tables in a folder.
fn neighbours(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let tables = names.filter(|it| it.ends_with(".parquet"));
    let read: BTreeMap<_, _> = tables.map(|it| (it.clone(), fs::read(folder.join(it)).unwrap())).collect();
    assert!(!read.is_empty());
    read
}

fn a_night_in(store: &Store) {
    let Some(place) = Place::new() else { return };
    for (name, color) in ["a.jpg", "b/1 2.jpg", "b/ü+%20.jpg", "c.jpg", "d/e.jpg", "f#&.jpg"].iter().zip(2..) {
        place.photo(name, color);
    }
    (store.put)(store, &place.path("shop"));
    let url = |name: &str| format!("{}/{name}", store.url);
    let [work, other] = ["work", "other"].map(|it| place.path(it));
    let (model, shop) = (place.path("model").display().to_string(), url("shop"));
    let segment = |output: &str, more: &[&str]| {
        let output = url(output);
        let arguments = ["segment", "--catalogue", &shop, "--model", &model, "--output", &output];
        [&arguments[..], more].concat().iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()
    };
    let run = |work: &Path, output: &str, more: &[&str]| {
        store.succeeds(work, &segment(output, more).iter().map(String::as_str).collect::<Vec<_>>())
    };
    run(&work, "out/features", &[]);

    // Who reads it elsewhere gets what this machine has.
    let [features, similarity] = ["out/features", "out/similarity"].map(url);
    store.succeeds(&other, &["similarity", "--features", &features, "--output", &similarity]);
    copy_tree(&work.join(features.replace("://", "/")), &place.path("copy"));
    let on_disk = ["similarity", "--features", "copy", "--output", "similarity"];
    store.succeeds(&work, &on_disk);
    let copy = other.join(similarity.replace("://", "/"));
    assert!(neighbours(&copy) == neighbours(&place.path("similarity")), "byte for byte");
    assert!(run(&other, "out/features", &["--if-changed"]).contains("nothing to do"));

    // What changed is done, and nothing else; and back.
    place.photo("c.jpg", 12);
    (store.put)(store, &place.path("shop"));
    let said = run(&other, "out/features", &["--log-format", "json"]);
    let mut values = serde_json::Deserializer::from_str(&said).into_iter::<serde_json::Value>();
    let record = values.next().unwrap().unwrap();
    assert_eq!(record["counts"]["changed"], 1, "{said}");
    for _ in 0..2 {
        store.succeeds(&work, &["rollback", &features]);
    }
    let status = store.succeeds(&work, &["status", &url("out")]);
    assert!(status.contains(&format!("{features} (segment)")), "{status}");

    // In shards by whole parts, whose files the store copies for the merge.
    for (shard, work) in [("1/2", &work), ("2/2", &other)] {
        run(work, "cut/features", &["--shard-by", "part", "--shard", shard]);
    }
    let cut = url("cut/features");
    store.succeeds(&other, &["segment", "--merge", "--output", &cut]);
    store.succeeds(&work, &["similarity", "--features", &cut, "--output", &url("cut/similarity")]);

    // Of two runs at once, one wins, or they come one after the other; what is published is whole.
    let of_two = |work: &Path, more: &[&str]| {
        let arguments = segment("two/features", more);
        let mut command = store.program(work, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both =
        [of_two(&work, &[]), of_two(&other, &["--color-rule", "first_pixel"])].map(|it| it.wait_with_output().unwrap());
    let codes = both.each_ref().map(|it| it.status.code());
    let said = both.map(|it| String::from_utf8_lossy(&it.stderr).into_owned());
    assert!(codes.contains(&Some(0)) && codes.iter().all(|it| [Some(0), Some(75)].contains(it)), "{codes:?}: {said:?}");
    store.succeeds(&work, &["similarity", "--features", &url("two/features"), "--output", "similarity-of-two"]);
}

#[test]
fn a_night_in_an_s3_server_that_checks_signatures() {
    let Some(store) = Store::s3() else { return };
    a_night_in(&store);
    // Credentials that it does not take, and a bucket that is not there.
    let place = tempfile::tempdir().unwrap();
    crate::shared::drawn_sample(&place.path().join("source"), 2);
    let convert =
        |url: &str| store.program(&place.path().join("work"), &["convert", "--source", "source", "--output", url]);
    let (code, said) = store.outcome(convert("s3://lookbook/dataset").env("AWS_SECRET_ACCESS_KEY", "another"));
    assert!(code == 1 && said.contains("s3://lookbook/dataset"), "{said}");
    let (code, said) = store.outcome(&mut convert("s3://nowhere/dataset"));
    assert!(code == 1 && said.contains("s3://nowhere/dataset"), "{said}");
}

#[test]
fn a_night_in_azure() {
    let Some(store) = Store::azure() else { return };
    a_night_in(&store);
}

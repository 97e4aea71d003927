//! Object stores: what lies at a URL (`s3://BUCKET/KEY`, `gs://BUCKET/KEY`, `az://CONTAINER/KEY`), and, to be read only,
//! single files at `http://` and `https://`.
//!
//! Everything goes through the crate `object_store`: credentials, regions and endpoints are those of the environment
//! (`AWS_*`, `GOOGLE_*`, `AZURE_*`; of AWS also profiles, web identities and instance roles), and requests that a store
//! refuses for a while or loses are repeated with growing, random pauses. The number of requests in flight is bounded.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::limit::LimitStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig, UpdateVersion,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, NO_THREADS, Result, refused};
use crate::guard;

mod profile;

/// What separates the scheme of a URL from the rest.
const AFTER_SCHEME: &str = "://";
/// The schemes of object stores.
const SCHEMES: [&str; 3] = ["s3", "gs", "az"];
/// The scheme of a folder of this machine.
const FOLDER: &str = "file";
/// Files larger than this are uploaded in pieces of this size.
const PIECE_BYTES: usize = 64 << 20;
/// Threads of the stores' own, which wait for answers.
const THREADS: usize = 2;
/// Names of what is skipped begin with this.
const HIDDEN: char = '.';

/// The section `[store]` of the settings: how object stores are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder for copies of what lies in object stores; none: `lookbook` in the user's folder for caches.
    pub work: Option<std::path::PathBuf>,
    /// Requests in flight, 1 to 1,024.
    pub requests: usize,
    /// How long a request is repeated before it counts as failed, in seconds.
    pub retry_secs: u64,
    /// How long a version that is not published any more, or never was, stays in the store at least, in hours: somebody may
    /// be reading it, or writing it.
    pub min_age_hours: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { work: None, requests: 64, retry_secs: 180, min_age_hours: 24 }
    }
}

impl Config {
    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self) -> Result<()> {
        if (1..=1024).contains(&self.requests) {
            return Ok(());
        }
        Err(Error::config("store.requests", format!("is {}; 1 to 1024 are possible", self.requests)))
    }
}

static CONFIG: OnceLock<Config> = OnceLock::new();

/// Sets how stores are used, before the first is.
pub fn configure(config: Config) {
    let _ = CONFIG.set(config);
}

/// How stores are used.
#[must_use]
pub fn config() -> &'static Config {
    CONFIG.get_or_init(Config::default)
}

/// Whether `path` is a URL rather than the name of a file or folder.
#[must_use]
pub fn is_url(path: &Path) -> bool {
    let scheme = path.to_str().and_then(|it| it.split_once(AFTER_SCHEME)).map(|(scheme, _)| scheme);
    scheme.is_some_and(|it| !it.is_empty() && it.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '+'))
}

/// A place in an object store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    scheme: String,
    /// Bucket, container or host.
    authority: String,
    /// Key, or prefix of keys, without a slash at either end.
    key: String,
}

impl Location {
    /// The place that a URL names.
    ///
    /// # Errors
    /// [`Error::Input`] if its scheme is not known, or it names no bucket.
    pub fn parse(url: &Path) -> Result<Self> {
        let text = url.to_string_lossy();
        let (scheme, rest) = text.split_once(AFTER_SCHEME).unwrap_or(("", &text));
        let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
        if !SCHEMES.contains(&scheme) && !is_web(scheme) {
            let known = SCHEMES.map(|it| format!("{it}{AFTER_SCHEME}")).join(", ");
            let problem = format!("is of no known kind; URLs begin with {known} or file{AFTER_SCHEME}");
            return Err(Error::input(url, problem));
        }
        if authority.is_empty() {
            return Err(Error::input(url, format!("names no bucket; write {scheme}{AFTER_SCHEME}BUCKET/KEY")));
        }
        let key = key.trim_matches('/');
        if !key.is_empty() && !is_web(scheme) && key.split('/').any(|part| ["", ".", ".."].contains(&part)) {
            return Err(Error::input(url, "has an empty part, or one that is . or .."));
        }
        let [scheme, authority, key] = [scheme, authority, key].map(str::to_owned);
        Ok(Self { scheme, authority, key })
    }

    /// A folder of this machine, which is created, as if it were a bucket.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn of_folder(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let whole = std::path::absolute(folder).map_err(Error::io("find", folder))?;
        Ok(Self { scheme: FOLDER.to_owned(), authority: whole.to_string_lossy().into_owned(), key: String::new() })
    }

    /// The place `name` below this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let key = if self.key.is_empty() { name.to_owned() } else { format!("{}/{name}", self.key) };
        Self { key, ..self.clone() }
    }

    /// Whether it is read from a web server rather than a store.
    #[must_use]
    pub fn is_web(&self) -> bool {
        is_web(&self.scheme)
    }

    /// Scheme, bucket and key as the folders of a path.
    #[must_use]
    pub fn as_folders(&self) -> std::path::PathBuf {
        [&self.scheme, &self.authority, &self.key].iter().collect()
    }

    fn io(&self, action: &'static str, cause: &object_store::Error) -> Error {
        if was_repeated(cause) {
            let problem = "its store does not answer";
            return Error::NotNow {
                path: self.to_string().into(),
                problem: problem.to_owned(),
                source: Some(Box::new(io_error(cause))),
            };
        }
        Error::io(action, self.to_string())(io_error(cause))
    }

    fn key(&self) -> Result<Key> {
        Key::parse(&self.key).map_err(|cause| Error::input(self.to_string(), "cannot be a key").because(cause))
    }

    fn store(&self) -> Result<Arc<dyn ObjectStore>> {
        /// By scheme and authority.
        type Stores = HashMap<(String, String), Arc<dyn ObjectStore>>;
        static STORES: LazyLock<Mutex<Stores>> = LazyLock::new(Mutex::default);
        let mut stores = STORES.lock().expect("opening a store does not panic");
        let name = (self.scheme.clone(), self.authority.clone());
        if let Some(store) = stores.get(&name) {
            return Ok(store.clone());
        }
        let opened = open(&self.scheme, &self.authority).map_err(|cause| self.io("use", &cause))?;
        stores.insert(name, opened.clone());
        Ok(opened)
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.scheme != FOLDER {
            write!(f, "{}{AFTER_SCHEME}", self.scheme)?;
        }
        f.write_str(&self.authority)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, "/{}", self.key) }
    }
}

fn is_web(scheme: &str) -> bool {
    ["http", "https"].contains(&scheme)
}

fn open(scheme: &str, authority: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
    let Config { requests, retry_secs, .. } = *config();
    let retry = RetryConfig {
        max_retries: usize::MAX,
        retry_timeout: Duration::from_secs(retry_secs),
        ..RetryConfig::default()
    };
    Ok(match scheme {
        "s3" => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(authority);
            let of_profile = profile::settings(&|key| builder.get_config_value(&key).is_some());
            let of_profile =
                of_profile.map_err(|problem| object_store::Error::Generic { store: "S3", source: problem.into() })?;
            for (key, value) in of_profile {
                builder = builder.with_config(key, value);
            }
            let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint).unwrap_or_default();
            if endpoint.starts_with("http://") {
                builder = builder.with_allow_http(true);
            }
            Arc::new(LimitStore::new(builder.with_retry(retry).build()?, requests))
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(authority);
            Arc::new(LimitStore::new(builder.with_retry(retry).build()?, requests))
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env().with_container_name(authority);
            Arc::new(LimitStore::new(builder.with_retry(retry).build()?, requests))
        }
        FOLDER => Arc::new(LocalFileSystem::new_with_prefix(authority)?),
        _ => {
            let options = ClientOptions::new().with_user_agent(http_name()).with_allow_http(true);
            let builder = HttpBuilder::new().with_url(format!("{scheme}{AFTER_SCHEME}{authority}"));
            Arc::new(LimitStore::new(builder.with_client_options(options).with_retry(retry).build()?, requests))
        }
    })
}

/// What this program calls itself to servers.
pub(crate) fn http_name() -> object_store::HeaderValue {
    object_store::HeaderValue::from_static(concat!("lookbook/", env!("CARGO_PKG_VERSION")))
}

/// What a store says about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Size.
    pub bytes: u64,
    /// When it was written, in seconds since 1970.
    pub modified_secs: i64,
    /// Hash of its entity tag, which changes with the content; of nothing if it has none.
    pub tag: u64,
}

impl Object {
    fn of(meta: &ObjectMeta) -> Self {
        let digest = Sha256::digest(meta.e_tag.as_deref().unwrap_or_default().as_bytes());
        let tag = u64::from_be_bytes(std::array::from_fn(|byte| digest[byte]));
        Self { bytes: meta.size, modified_secs: meta.last_modified.timestamp(), tag }
    }
}

/// Identifies a written object, so that a later write can be made only if it is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written(UpdateVersion);

/// Runs a request to its end, on threads of the stores' own.
///
/// # Errors
/// [`Error::Limit`] if there can be no such threads.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> Result<T> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let limit = |what: String, problem: &str| Error::Limit { what, problem: problem.to_owned() };
    // Tokio panics if the system refuses it a thread, here or later.
    let start = || guard::no_panic(|| Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().ok());
    let runtime = RUNTIME.get_or_init(|| start().ok().flatten());
    let runtime = runtime.as_ref().ok_or_else(|| limit(format!("{THREADS} more threads"), NO_THREADS))?;
    guard::no_panic(|| runtime.block_on(future)).map_err(|panic| match refused(&panic) {
        Some((what, problem)) => limit(format!("more {what}"), problem),
        None => std::panic::resume_unwind(Box::new(panic)),
    })
}

/// Reads an object, with what the store says about it; `None` if there is none.
///
/// # Errors
/// [`Error::Io`], [`Error::Input`] for what can be no key.
pub fn find(at: &Location) -> Result<Option<(Object, Written, Bytes)>> {
    let (store, key) = (at.store()?, at.key()?);
    let read = async {
        let got = store.get(&key).await?;
        let meta = got.meta.clone();
        Ok::<_, object_store::Error>((meta, got.bytes().await?))
    };
    match wait(read)? {
        Ok((meta, content)) => {
            let written = UpdateVersion { e_tag: meta.e_tag.clone(), version: meta.version.clone() };
            Ok(Some((Object::of(&meta), Written(written), content)))
        }
        Err(cause) if is_absent(&cause) => Ok(None),
        Err(cause) => Err(at.io("read", &cause)),
    }
}

/// Reads an object of at most `limit` bytes, with what the store says about it; without its content if it is larger.
///
/// # Errors
/// The kind tells whether it is missing, may not be read, or something else is wrong.
pub fn read(at: &Location, limit: u64) -> std::io::Result<(Object, Option<Bytes>)> {
    let of_ours = |error: Error| match error {
        Error::Io { source, .. } => source,
        other => std::io::Error::other(other.with_causes()),
    };
    let (store, key) = (at.store().map_err(of_ours)?, at.key().map_err(of_ours)?);
    let read = async {
        let got = store.get(&key).await?;
        let object = Object::of(&got.meta);
        let content = if object.bytes > limit { None } else { Some(got.bytes().await?) };
        Ok((object, content))
    };
    wait(read).map_err(of_ours)?.map_err(|cause: object_store::Error| io_error(&cause))
}

/// A file of this machine, which is removed with it if it is the copy of an object.
#[derive(Debug)]
pub struct LocalFile<'a>(&'a Path, Option<tempfile::NamedTempFile>);

impl LocalFile<'_> {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.1.as_ref().map_or(self.0, tempfile::NamedTempFile::path)
    }
}

/// The file at `path`, or a copy of the object if that is a URL.
///
/// # Errors
/// [`Error::Input`] if there is no such object, [`Error::Io`].
pub fn local(path: &Path) -> Result<LocalFile<'_>> {
    if !is_url(path) {
        return Ok(LocalFile(path, None));
    }
    let (_, _, content) = find(&Location::parse(path)?)?.ok_or_else(|| Error::input(path, "is not there"))?;
    let copied = tempfile::NamedTempFile::new().and_then(|mut file| {
        std::io::Write::write_all(&mut file, &content)?;
        Ok(file)
    });
    Ok(LocalFile(path, Some(copied.map_err(Error::io("copy", path))?)))
}

/// What the store says about each object, asked for many at a time; `None` for what it does not give.
///
/// # Errors
/// [`Error::Io`] if a store cannot be used at all.
pub fn objects(places: &[Location]) -> Result<Vec<Option<Object>>> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let of = |at: &Location| Ok((at.store()?, at.key()?));
    let stores = places.iter().map(of).collect::<Result<Vec<_>>>()?;
    let heads = stores.iter().map(|(store, key)| async move { store.head(key).await.ok().map(|it| Object::of(&it)) });
    wait(futures::stream::iter(heads).buffered(config().requests).collect())
}

/// The objects below a prefix by their names within it, in order of name; without those of which a part of the name begins
/// with a dot.
///
/// # Errors
/// [`Error::Io`]; [`Error::Input`] if there are keys with empty parts, which cannot be named as a file.
pub fn list(below: &Location) -> Result<Vec<(String, Object)>> {
    let (store, prefix) = (below.store()?, below.key()?);
    let start = if below.key.is_empty() { 0 } else { below.key.len() + 1 };
    let named = |meta: ObjectMeta| {
        let name = meta.location.as_ref().get(start..)?.to_owned();
        let is_hidden = name.is_empty() || name.split('/').any(|it| it.starts_with(HIDDEN));
        (!is_hidden).then(|| (name, Object::of(&meta)))
    };
    let all = store.list(Some(&prefix)).try_filter_map(|meta| std::future::ready(Ok(named(meta)))).try_collect();
    let mut all: Vec<_> = wait(all)?.map_err(|cause| match cause {
        object_store::Error::InvalidPath { source } => Error::input(
            below.to_string(),
            format!(
                "has a key that cannot be a file's name ({source}); rename that object, or choose a prefix without it"
            ),
        ),
        cause => below.io("list", &cause),
    })?;
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

/// The names directly below a prefix of which something lies below.
///
/// # Errors
/// [`Error::Io`].
pub fn folders(below: &Location) -> Result<Vec<String>> {
    let (store, prefix) = (below.store()?, below.key()?);
    let found = wait(store.list_with_delimiter(Some(&prefix)))?.map_err(|cause| below.io("list", &cause))?;
    Ok(found.common_prefixes.iter().filter_map(|it| it.filename().map(str::to_owned)).collect())
}

/// What a write depends on.
#[derive(Debug, Clone, Copy)]
pub enum Only<'a> {
    /// Nothing: whatever is there is replaced.
    Always,
    /// That there is nothing yet.
    IfAbsent,
    /// That it is still the one that was read.
    IfStill(&'a Written),
}

/// Writes an object. Returns how it is identified, or `None` if the condition did not hold.
///
/// # Errors
/// [`Error::Io`].
pub fn write(at: &Location, content: &Bytes, only: Only) -> Result<Option<Written>> {
    let (store, key) = (at.store()?, at.key()?);
    let mode = match only {
        Only::Always => PutMode::Overwrite,
        Only::IfAbsent => PutMode::Create,
        Only::IfStill(Written(version)) => PutMode::Update(version.clone()),
    };
    let options = PutOptions { mode, ..PutOptions::default() };
    match wait(store.put_opts(&key, content.clone().into(), options))? {
        Ok(put) => Ok(Some(Written(UpdateVersion { e_tag: put.e_tag, version: put.version }))),
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            // If the answer to a first try was lost, the second finds what the first wrote.
            Ok(find(at)?.filter(|(_, _, found)| found == content).map(|(_, written, _)| written))
        }
        Err(cause) => Err(at.io("write", &cause)),
    }
}

/// What is to be put where.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file.
    File(std::path::PathBuf),
    /// Another object of the same store.
    Object(Location),
}

/// Puts each source at its place, many at a time.
///
/// # Errors
/// The first that fails: [`Error::Io`].
pub fn put_all(items: Vec<(Source, Location)>) -> Result<()> {
    let one = |(source, at): (Source, Location)| async move {
        let (store, key) = (at.store()?, at.key()?);
        match source {
            Source::Object(from) => {
                let from_key = from.key()?;
                store.copy(&from_key, &key).await.map_err(|cause| at.io("copy to", &cause))
            }
            Source::File(path) => upload(&*store, &path, &key, &at).await,
        }
    };
    wait(futures::stream::iter(items).map(one).buffer_unordered(config().requests).try_collect())?
}

async fn upload(store: &dyn ObjectStore, path: &Path, key: &Key, at: &Location) -> Result<()> {
    let failed = |cause| at.io("write", &cause);
    let read = |cause| Error::io("read", path)(cause);
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes <= PIECE_BYTES as u64 {
        let content = Bytes::from(std::fs::read(path).map_err(read)?);
        store.put(key, content.into()).await.map_err(failed)?;
        return Ok(());
    }
    let mut file = std::fs::File::open(path).map_err(read)?;
    let upload = store.put_multipart(key).await.map_err(failed)?;
    let mut writer = object_store::WriteMultipart::new_with_chunk_size(upload, PIECE_BYTES);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = std::io::Read::read(&mut file, &mut piece).map_err(read)?;
        if count == 0 {
            break;
        }
        writer.wait_for_capacity(1).await.map_err(failed)?;
        writer.write(&piece[..count]);
    }
    writer.finish().await.map_err(failed)?;
    Ok(())
}

/// Writes each object into a file, many at a time; the files' folders must exist.
///
/// # Errors
/// The first that fails: [`Error::Io`].
pub fn get_all(items: Vec<(Location, std::path::PathBuf)>) -> Result<()> {
    let one = |(at, path): (Location, std::path::PathBuf)| async move {
        let (store, key) = (at.store()?, at.key()?);
        let failed = |cause| at.io("read", &cause);
        let written = |cause| Error::io("write", &path)(cause);
        let mut content = store.get(&key).await.map_err(failed)?.into_stream();
        let mut file = std::fs::File::create(&path).map_err(written)?;
        while let Some(piece) = content.next().await {
            std::io::Write::write_all(&mut file, &piece.map_err(failed)?).map_err(written)?;
        }
        Ok(())
    };
    wait(futures::stream::iter(items).map(one).buffer_unordered(config().requests).try_collect())?
}

/// Removes everything below a prefix.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_below(prefix: &Location) -> Result<()> {
    let (store, below) = (prefix.store()?, prefix.key()?);
    let listed = store.list(Some(&below)).map_ok(|it| it.location).boxed();
    let removed = store.delete_stream(listed).try_for_each(|_| std::future::ready(Ok(())));
    match wait(removed)? {
        Err(cause) if !is_absent(&cause) => Err(prefix.io("remove", &cause)),
        _ => Ok(()),
    }
}

/// Whether a store says that there is no such object, rather than no such bucket.
fn is_absent(cause: &object_store::Error) -> bool {
    matches!(cause, object_store::Error::NotFound { .. }) && !names_bucket(&cause.to_string())
}

fn names_bucket(text: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"].iter().any(|it| text.contains(it))
}

/// Whether a request was repeated for as long as it may: another time it may succeed.
fn was_repeated(cause: &object_store::Error) -> bool {
    let causes = std::iter::successors(Some(cause as &dyn std::error::Error), |it| it.source());
    causes.into_iter().any(|it| it.to_string().contains(", max_retries: "))
}

/// As an error of a file, with what the store said on one line.
fn io_error(cause: &object_store::Error) -> std::io::Error {
    use object_store::Error as E;
    let said = said(cause);
    match cause {
        E::NotFound { .. } if names_bucket(&said) => std::io::Error::other(format!("there is no such bucket ({said})")),
        E::NotFound { .. } => std::io::Error::new(ErrorKind::NotFound, said),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            std::io::Error::new(ErrorKind::PermissionDenied, said)
        }
        _ => std::io::Error::other(said),
    }
}

/// The innermost cause, on one line. It names no request, whose parameters may be secret.
fn said(cause: &object_store::Error) -> String {
    let causes = std::iter::successors(Some(cause as &dyn std::error::Error), |it| it.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    let text = texts.last().map_or("", String::as_str);
    // Most stores answer in XML.
    let part = |name: &str| Some(text.split_once(&format!("<{name}>"))?.1.split_once(&format!("</{name}>"))?.0);
    match (part("Code"), part("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => text.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn urls_are_told_from_paths_and_by_their_schemes() {
        for path in ["a/b", "/a//b", "s3:/a", "s3:a", "://a", "C:\\a", "a b://c", "."] {
            assert!(!is_url(Path::new(path)), "{path}");
        }
        let place = |url: &str| Location::parse(Path::new(url)).map(|it| it.to_string()).map_err(|it| it.to_string());
        assert_eq!(place("s3://shop/a b/ü+%2F/").as_deref(), Ok("s3://shop/a b/ü+%2F"));
        assert_eq!(place("gs://shop").as_deref(), Ok("gs://shop"));
        for (url, named) in [
            ("ftp://a/b", "s3://"),
            ("s3:///a", "names no bucket"),
            ("hdfs://a", "hdfs"),
            ("s3://a/b/../c", ".."),
            ("gs://a/b//c", "an empty part"),
        ] {
            assert!(is_url(Path::new(url)));
            let problem = place(url).expect_err("it is refused");
            assert!(problem.contains(named) && problem.contains(url), "{problem}");
        }
        let at = Location::parse(Path::new("az://shop/x")).expect("a place");
        assert_eq!(at.join("y").to_string(), "az://shop/x/y");
        assert_eq!(at.as_folders(), PathBuf::from("az/shop/x"));
    }
}

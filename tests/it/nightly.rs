//! What a run leaves on record: the history, the whole run, metrics, lineage, the state of the folders.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use lookbook::runs::history::{self, State};
use serde_json::Value;

use crate::python::python;

fn run(place: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookbook"));
    let output = command.env_clear().current_dir(place).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

const SAMPLE: [&str; 5] = ["sample", "--photos", "4", "--output", "out/sample"];
const CONVERT: [&str; 5] = ["convert", "--source", "out/sample", "--output", "out/dataset"];
const SEGMENT: [&str; 7] = ["segment", "--catalogue", "out/dataset", "--from", "labels", "--output", "out/features"];

fn night(place: &Path, stage: &[&str], name: &str) -> (i32, String) {
    run(place, &[stage, &["--run-name", name]].concat())
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_night_is_on_record() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    assert_eq!(night(place, &SAMPLE, "monday").0, 0);
    fs::write(place.join("out/sample/image/0002.jpg"), "").unwrap();
    assert_eq!(night(place, &CONVERT, "monday").0, 3);
    assert_eq!(night(place, &["convert", "--source", "nowhere", "--output", "out/dataset"], "tuesday").0, 1);
    let records = place.join("out/runs");

    let attempts = history::read(&records).unwrap();
    let told: Vec<_> = attempts.iter().map(|it| (it.run.as_str(), it.stage.as_str(), it.exit_code)).collect();
    assert_eq!(told, [("monday", "sample", Some(0)), ("monday", "convert", Some(3)), ("tuesday", "convert", Some(1))]);
    assert_eq!(attempts[1].figure("rejects"), Some(1.0), "what was published all the same is on record");
    assert!(attempts[2].error.as_ref().unwrap().contains("nowhere"));

    let whole: history::WholeRun = serde_json::from_slice(&fs::read(records.join("run.json")).unwrap()).unwrap();
    assert_eq!((whole.run.as_str(), whole.good, whole.stages.len()), ("tuesday", false, 1));
    let monday = history::whole_run(&attempts, "monday");
    assert_eq!((monday.good, monday.stages.len()), (false, 2));
    assert_eq!(monday.stages[0].state, State::Complete);

    let metrics = fs::read_to_string(records.join("metrics.prom")).unwrap();
    let labels = |stage: &str| format!("{{stage=\"{stage}\",output=\"{}\"}}", place.join("out").display());
    for line in [
        format!("lookbook_rows{} 3", labels("convert")),
        format!("lookbook_rejects{} 1", labels("convert")),
        format!("lookbook_exit_code{} 1", labels("convert")),
        format!("lookbook_exit_code{} 0", labels("sample")),
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
    let last_success = |stage: &str| format!("lookbook_last_success_timestamp_seconds{} 1", labels(stage));
    assert!(metrics.contains(&last_success("sample")), "{metrics}");
    assert!(!metrics.contains(&last_success("convert")), "{metrics}");
}

/// What the specification demands of a run event, and the facets of this program.
fn is_run_event(event: &Value) {
    for place in ["/eventTime", "/producer", "/schemaURL", "/run/runId", "/job/namespace", "/job/name"] {
        assert!(
            event.pointer(place).is_some_and(|it| it.as_str().is_some_and(|it| !it.is_empty())),
            "{place}: {event}"
        );
    }
    assert!(chrono::DateTime::parse_from_rfc3339(event["eventTime"].as_str().unwrap()).is_ok());
    assert!(uuid::Uuid::parse_str(event["run"]["runId"].as_str().unwrap()).is_ok());
    assert!(uuid::Uuid::parse_str(event.pointer("/run/facets/parent/run/runId").unwrap().as_str().unwrap()).is_ok());
    for dataset in ["inputs", "outputs"].iter().flat_map(|it| event[*it].as_array().unwrap()) {
        assert!(dataset["namespace"].is_string() && dataset["name"].as_str().unwrap().starts_with('/'), "{dataset}");
    }
    let facets = event["run"]["facets"].as_object().unwrap().values();
    facets.for_each(|it| assert!(it["_producer"].is_string() && it["_schemaURL"].is_string(), "{it}"));
}

#[test]
fn lineage_events_follow_the_specification_and_are_posted() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/v1/lineage", listener.local_addr().unwrap());
    fs::write(place.join("night.toml"), format!("[runs]\nlineage_url = \"{url}\"\nmetrics = \"node.prom\"\n")).unwrap();
    let receiver = std::thread::spawn(move || (0..4).map(|_| receive(&listener)).collect::<Vec<_>>());
    let config = ["--config", "night.toml"];
    assert_eq!(run(place, &[&SAMPLE[..], &config].concat()).0, 0);
    let broken = ["convert", "--source", "nowhere", "--output", "out/dataset"];
    assert_eq!(run(place, &[&broken[..], &config].concat()).0, 1);

    let posted = receiver.join().unwrap();
    let written = lines(&place.join("out/runs/lineage.ndjson"));
    assert_eq!(posted, written);
    written.iter().for_each(is_run_event);
    let types: Vec<_> = written.iter().map(|it| it["eventType"].as_str().unwrap()).collect();
    assert_eq!(types, ["START", "COMPLETE", "START", "FAIL"]);
    assert_eq!(written[0]["run"]["runId"], written[1]["run"]["runId"]);
    assert!(written[1].pointer("/outputs/0/outputFacets/outputStatistics/fileCount").unwrap().as_u64() > Some(4));
    assert!(written[3].pointer("/run/facets/errorMessage/message").unwrap().as_str().unwrap().contains("nowhere"));
    assert_eq!(fs::read(place.join("node.prom")).unwrap(), fs::read(place.join("out/runs/metrics.prom")).unwrap());

    // Nobody listens any more.
    let (code, text) = run(place, &[&SAMPLE[..], &config].concat());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("no lineage event was posted"), "{text}");
}

#[test]
fn the_lineage_of_a_night_is_one_graph() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let similarity = ["similarity", "--features", "out/features", "--output", "out/similarity"];
    let report = ["report", "--run", "out", "--output", "out/report"];
    for stage in [&SAMPLE[..], &CONVERT, &SEGMENT, &similarity, &report] {
        let (code, text) = night(place, stage, "monday");
        assert_eq!(code, 0, "{text}");
    }
    let events = lines(&place.join("out/runs/lineage.ndjson"));
    let complete: Vec<_> = events.iter().filter(|it| it["eventType"] == "COMPLETE").collect();
    let names = |event: &Value, side: &str| -> Vec<String> {
        event[side].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    let made: Vec<_> = complete.iter().map(|it| names(it, "outputs").remove(0)).collect();
    let folders = ["sample", "dataset", "features", "similarity", "report"].map(|name| place.join("out").join(name));
    assert_eq!(made, folders.each_ref().map(|it| it.to_str().unwrap()));
    for (before, after) in made.iter().zip(&complete[1..]) {
        let read = names(after, "inputs");
        assert!(read.contains(before), "{read:?} is not what made {before}");
    }

    // And by other people's readers, beside the metrics of a second run folder in the same collector.
    let Some(mut python) = python() else { return };
    for stage in [&SAMPLE[..], &CONVERT] {
        let elsewhere: Vec<String> = stage.iter().map(|it| it.replace("out", "other")).collect();
        let elsewhere: Vec<&str> =
            elsewhere.iter().map(|it| if *it == "--otherput" { "--output" } else { it }).collect();
        let (code, text) = night(place, &elsewhere, "monday");
        assert_eq!(code, 0, "{text}");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/records_in_python.py");
    let records = ["out/runs/lineage.ndjson", "out/runs/metrics.prom", "other/runs/metrics.prom"];
    let output = python.arg(script).args(records).current_dir(place).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("10 events, 5 jobs in one graph"), "{text}");
}

/// Takes one request and answers it; its body.
fn receive(listener: &TcpListener) -> Value {
    let (mut stream, _) = listener.accept().unwrap();
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).unwrap();
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("POST /api/v1/lineage HTTP/1.1\r\n"), "{head}");
        if let Ok(event) = serde_json::from_str(body) {
            stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            return event;
        }
        assert!(read > 0, "the request ends early: {text}");
    }
}

#[test]
fn the_status_says_what_is_stale_and_why() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let (code, text) = run(place, &["status", "out"]);
    assert_eq!(code, 1, "{text}");
    for stage in [&SAMPLE[..], &CONVERT, &SEGMENT] {
        assert_eq!(night(place, stage, "monday").0, 0);
    }
    let (code, text) = run(place, &["status", "out", "--verify"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("monday") && text.matches("up to date").count() == 3, "{text}");

    // Somebody else's record, and a damaged one.
    for (folder, content) in [("notes", "{\"run\": 7}"), ("broken", "{")] {
        fs::create_dir(place.join("out").join(folder)).unwrap();
        fs::write(place.join("out").join(folder).join("run.json"), content).unwrap();
    }
    let (code, text) = run(place, &["status", "out"]);
    assert_eq!(code, 0, "{text}");
    for told in
        ["passed over: out/notes/run.json: is not a run record", "passed over: out/broken/run.json", "out/dataset"]
    {
        assert!(text.contains(told), "'{told}' is not in\n{text}");
    }
    let inputs = lookbook::stage::Summary::read(&place.join("out/features")).unwrap().inputs;
    assert!(!inputs.is_empty() && inputs.iter().all(|it| it.path.is_absolute()), "{inputs:?}");

    fs::write(place.join("out/sample/image/0002.jpg"), "new").unwrap();
    fs::write(place.join("other.toml"), "[segment]\ncolor_rule = \"first_pixel\"\n[gates]\nmin_photos = 9\n").unwrap();
    assert_eq!(run(place, &[&SEGMENT[..], &["--config", "other.toml"]].concat()).0, 1);
    fs::write(place.join("out/features/_state/rejects.parquet"), "damaged").unwrap();
    let (code, text) = run(place, &["status", "out", "--config", "other.toml", "--verify"]);
    assert_eq!(code, 0, "{text}");
    for told in [
        "files of out/sample were changed",
        "setting color_rule is \"first_pixel\", it was made with \"per_pixel\"",
        "rejects.parquet is not as it was written",
        "ended with exit code 1: segment: kept back by gate min_photos (9): 4 is too low by 5",
        ".features.rejected: kept back by a gate",
    ] {
        assert!(text.contains(told), "'{told}' is not in\n{text}");
    }
}

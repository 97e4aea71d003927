//! `OpenLineage` run events (<https://openlineage.io/spec/2-0-2/OpenLineage.json>): START when a command starts,
//! COMPLETE, ABORT or FAIL when it ends.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::history::{Attempt, State};
use crate::error::{Error, Result, io_error_of};
use crate::stage::{InputRecord, RUN_FILE, Summary};
use crate::store;

/// File name of the events.
pub const FILE: &str = "lineage.ndjson";
/// How long to wait for the receiver of an event to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
const PRODUCER: &str = concat!("urn:lookbook:", env!("CARGO_PKG_VERSION"));
const EVENT_SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";

/// The event for an attempt in its current state.
pub(super) fn event(namespace: &str, attempt: &Attempt, summary: Option<&Summary>) -> Value {
    let mut inputs: Vec<Value> = summary.map_or(Vec::new(), |it| it.inputs.iter().map(input).collect());
    // Several files of one folder are one data set.
    inputs.dedup_by(|a, b| a["name"] == b["name"]);
    json!({
        "eventType": event_type(attempt.state),
        "eventTime": attempt.ended_at.as_ref().unwrap_or(&attempt.started_at),
        "producer": PRODUCER,
        "schemaURL": EVENT_SCHEMA,
        "run": { "runId": attempt.id, "facets": run_facets(namespace, attempt) },
        "job": { "namespace": namespace, "name": attempt.stage },
        "inputs": inputs,
        "outputs": [output(&attempt.output, summary)],
    })
}

fn event_type(state: State) -> &'static str {
    match state {
        State::Running => "START",
        State::Complete | State::NothingToDo => "COMPLETE",
        State::Stopped => "ABORT",
        State::Failed => "FAIL",
    }
}

/// The whole run as the parent, and the error if there is one.
fn run_facets(namespace: &str, attempt: &Attempt) -> Value {
    let parent = json!({
        "run": { "runId": run_uuid(&attempt.run) },
        "job": { "namespace": namespace, "name": "run" },
    });
    let mut facets = json!({ "parent": facet("1-0-1/ParentRunFacet.json#/$defs/ParentRunFacet", parent) });
    if let Some(message) = &attempt.error {
        let error = json!({ "message": message, "programmingLanguage": "Rust" });
        facets["errorMessage"] = facet("1-0-1/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet", error);
    }
    facets
}

/// Derives a UUID from the run's name, so that whoever named the run can find it again.
fn run_uuid(run: &str) -> String {
    let digest = Sha256::digest(run);
    uuid::Builder::from_custom_bytes(std::array::from_fn(|byte| digest[byte])).into_uuid().to_string()
}

fn facet(schema: &str, mut content: Value) -> Value {
    content["_producer"] = PRODUCER.into();
    content["_schemaURL"] = format!("https://openlineage.io/spec/facets/{schema}").into();
    content
}

/// An input, under the name that the stage that made it used for its output: the published folder that contains it.
fn input(input: &InputRecord) -> Value {
    let version = json!({ "datasetVersion": input.sha256 });
    let version = facet("1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet", version);
    json!({ "namespace": "file", "name": absolute(published(&input.path)), "facets": { "version": version } })
}

/// The published folder that contains a file, or the file itself if none does.
fn published(path: &Path) -> &Path {
    path.parent().filter(|folder| folder.join(RUN_FILE).is_file()).unwrap_or(path)
}

fn output(folder: &Path, summary: Option<&Summary>) -> Value {
    let mut output = json!({ "namespace": "file", "name": absolute(folder) });
    if let Some(summary) = summary {
        let rows: u64 = summary.files.iter().filter_map(|file| file.rows).sum();
        let bytes: u64 = summary.files.iter().map(|file| file.bytes).sum();
        let content = json!({ "rowCount": rows, "size": bytes, "fileCount": summary.files.len() });
        let schema = "1-0-2/OutputStatisticsOutputDatasetFacet.json#/$defs/OutputStatisticsOutputDatasetFacet";
        output["outputFacets"] = json!({ "outputStatistics": facet(schema, content) });
    }
    output
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Posts an event; the answer is ignored unless it is an error.
pub(super) fn post(url: &str, event: &Value) -> Result<()> {
    let posted = store::wait(async {
        let client = reqwest::Client::builder().user_agent(store::http_name()).timeout(TIMEOUT).build()?;
        let request = client.post(url).header("content-type", "application/json").body(event.to_string());
        request.send().await?.error_for_status()
    });
    posted?.map(drop).map_err(|cause| Error::io("post to", url)(io_error_of(cause.without_url())))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_run_has_one_uuid_by_its_name() {
        assert_eq!(run_uuid("night"), run_uuid("night"));
        assert_ne!(run_uuid("night"), run_uuid("day"));
        assert!(Uuid::parse_str(&run_uuid("night")).is_ok());
    }
}

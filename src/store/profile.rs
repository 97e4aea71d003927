//! AWS profiles: credentials, region and endpoint from the files that `aws configure` writes, where the environment does
//! not set them.
//!
//! As the AWS command line reads them ("Configuration and credential file settings in the AWS CLI"): the profile is
//! `AWS_PROFILE` or `default`, the files are `AWS_SHARED_CREDENTIALS_FILE` and `AWS_CONFIG_FILE` or those in `~/.aws`.

use std::env;
use std::path::PathBuf;

use configparser::ini::Ini;
use object_store::aws::AmazonS3ConfigKey as Key;

/// What can be taken from a profile.
const SETTINGS: [(&str, Key); 5] = [
    ("aws_access_key_id", Key::AccessKeyId),
    ("aws_secret_access_key", Key::SecretAccessKey),
    ("aws_session_token", Key::Token),
    ("region", Key::Region),
    ("endpoint_url", Key::Endpoint),
];
/// Settings of profiles whose credentials another program has to fetch.
const ELSEWHERE: [&str; 4] = ["sso_session", "sso_start_url", "credential_process", "role_arn"];

/// The settings of the profile that `is_set` does not have already. Credentials go together: with an access key in the
/// environment, none is taken.
///
/// # Errors
/// A profile that `AWS_PROFILE` names and no file has, or whose credentials another program has to fetch.
pub(super) fn settings(is_set: &dyn Fn(Key) -> bool) -> Result<Vec<(Key, String)>, String> {
    let named = env::var("AWS_PROFILE").ok().filter(|it| !it.is_empty());
    let name = named.clone().unwrap_or_else(|| "default".to_owned());
    let has_keys = is_set(Key::AccessKeyId);
    let of_config = if name == "default" { name.clone() } else { format!("profile {name}") };
    let files =
        [read("AWS_SHARED_CREDENTIALS_FILE", "credentials", &name)?, read("AWS_CONFIG_FILE", "config", &of_config)?];
    if named.is_some() && !has_keys && files.iter().all(Option::is_none) {
        return Err(format!("there is no AWS profile '{name}' (AWS_PROFILE) in ~/.aws/credentials or ~/.aws/config"));
    }
    let value = |key: &str| files.iter().flatten().find_map(|section| section.get(key).cloned());
    if !has_keys
        && value("aws_access_key_id").is_none()
        && let Some(how) = ELSEWHERE.into_iter().find(|it| value(it).is_some())
    {
        return Err(format!(
            "the AWS profile '{name}' gets its credentials by {how}; put them into the environment first: \
             `eval \"$(aws configure export-credentials --format env)\"`"
        ));
    }
    let of_keys = [Key::AccessKeyId, Key::SecretAccessKey, Key::Token];
    let wanted = SETTINGS.into_iter().filter(|(_, key)| if of_keys.contains(key) { !has_keys } else { !is_set(*key) });
    Ok(wanted.filter_map(|(name, key)| Some((key, value(name)?))).collect())
}

type Section = std::collections::HashMap<String, String>;

/// A section of a file; `None` if there is no such file or section.
fn read(variable: &str, file: &str, section: &str) -> Result<Option<Section>, String> {
    let by_default = || Some(env::home_dir()?.join(".aws").join(file));
    let Some(path) = env::var_os(variable).map(PathBuf::from).or_else(by_default) else { return Ok(None) };
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let sections = Ini::new_cs().read(text).map_err(|_| format!("{} is not a file of AWS profiles", path.display()))?;
    let values = sections.into_iter().find(|(name, _)| name == section).map(|(_, values)| values);
    Ok(values.map(|it| it.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()))
}

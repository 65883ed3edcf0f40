//! The files in `deploy`, and programs that read them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::programs;
use serde::Deserialize;
use serde_json::Value;

/// A path in the repository.
pub(crate) fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

/// A file of the repository.
pub(crate) fn read(file: &str) -> Result<String> {
    fs::read_to_string(path(file)).with_context(|| format!("cannot read {file}"))
}

/// An empty folder for a test.
pub(crate) fn scratch(name: &str) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("deploy").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// All documents of a YAML text.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>> {
    let documents = serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize);
    documents.filter(|document| !matches!(document, Ok(Value::Null))).map(|document| Ok(document?)).collect()
}

/// The one document of a kind.
pub(crate) fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Result<&'a Value> {
    let found = documents.iter().find(|document| document["kind"] == kind);
    found.with_context(|| format!("there is no {kind}"))
}

/// Runs a program; what it said is the error if it fails, else its standard output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(programs::find(program)?)
        .args(arguments)
        .current_dir(path("."))
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let (said, errors) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{program} {} failed:\n{said}{errors}", arguments.join(" "));
    Ok(said)
}

//! Container images of a few files, as an OCI archive that runtimes import.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Something in an image, by its path without the first slash.
pub struct File {
    path: String,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>, u32),
    Link(String),
    Folder,
}

impl File {
    /// An executable.
    pub fn program(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), content: Content::Bytes(bytes.into(), 0o755) }
    }

    /// Any other file.
    pub fn data(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), content: Content::Bytes(bytes.into(), 0o644) }
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(path: &str, to: &str) -> Self {
        Self { path: path.to_owned(), content: Content::Link(to.to_owned()) }
    }

    /// An empty folder.
    #[must_use]
    pub fn folder(path: &str) -> Self {
        Self { path: path.to_owned(), content: Content::Folder }
    }
}

/// An image with these files as its only layer, as a tar file.
///
/// # Errors
/// If a path is too long for a tar file.
pub fn archive(
    name: &str,
    files: &[File],
    entrypoint: &[&str],
    stop_signal: Option<&str>,
) -> Result<Vec<u8>> {
    let layer = tar(files)?;
    let mut process = json!({ "Entrypoint": entrypoint, "Env": ["PATH=/usr/sbin:/bin"] });
    if let Some(signal) = stop_signal {
        process["StopSignal"] = signal.into();
    }
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": process,
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] = json!({ "io.containerd.image.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    let blob = |bytes: Vec<u8>| File::data(&digest(&bytes).replacen("sha256:", "blobs/sha256/", 1), bytes);
    let layout = File::data("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    tar(&[layout, File::data("index.json", index), blob(manifest), blob(config), blob(layer)])
}

/// This machine's, by Go's name, which images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn tar(files: &[File]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for File { path, content } in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o755);
        let done = match content {
            Content::Bytes(bytes, mode) => {
                header.set_mode(*mode);
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, path, bytes.as_slice())
            }
            Content::Link(to) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, path, to)
            }
            Content::Folder => {
                header.set_entry_type(EntryType::Directory);
                header.set_size(0);
                tar.append_data(&mut header, format!("{path}/"), std::io::empty())
            }
        };
        done.with_context(|| format!("cannot add {path} to the image"))?;
    }
    tar.into_inner().context("cannot write the image")
}

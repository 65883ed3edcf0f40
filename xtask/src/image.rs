//! `cargo xtask image`: the container image as an OCI layout in a tar file, without a daemon.
//!
//! The same binary makes the same bytes: nothing in it tells when or where it was made.

use std::env::consts::ARCH;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::{build, shell};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The beginning of time, for whoever wants one.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What to make.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image's name and tag, as runtimes keep it
    #[arg(long, value_name = "NAME:TAG", default_value_t = format!("lastpacket:{VERSION}"))]
    name: String,
    /// Put this static binary in it instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where to write it [default: image/lastpacket-VERSION-ARCH.tar in the target folder]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Builds the release binary if none is given, writes the image and says where it is.
pub(crate) fn run(args: &Args) -> Result<()> {
    let binary = args.binary.clone().map_or_else(build::release, Ok)?;
    let program = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output()?,
    };
    let image = image(&program, &args.name, architecture()?)?;
    fs::write(&output, &image).with_context(|| format!("cannot write {}", output.display()))?;
    println!("{} ({:.1} MB), image {}", output.display(), image.len() as f64 / 1e6, args.name);
    Ok(())
}

fn default_output() -> Result<PathBuf> {
    let folder = tracer_build::target_dir(shell::workspace()?).join("image");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.join(format!("lastpacket-{VERSION}-{}.tar", architecture()?)))
}

/// This machine's architecture by Go's name, which images use.
fn architecture() -> Result<&'static str> {
    match ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("images are made for x86_64 and aarch64, not for {other}"),
    }
}

/// The whole layout as a tar file.
fn image(program: &[u8], name: &str, architecture: &str) -> Result<Vec<u8>> {
    let plain_layer = archive(&[("lastpacket", 0o755, program)])?;
    let layer = gzip(&plain_layer)?;
    let config = to_bytes(&config(architecture, &digest(&plain_layer)));
    let manifest = to_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer)],
    }));
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    // containerd keeps the image by the first name, other tools tell it by the second.
    entry["annotations"] =
        json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
    let index = to_bytes(&json!({ "schemaVersion": 2, "manifests": [entry] }));
    let layout = to_bytes(&json!({ "imageLayoutVersion": "1.0.0" }));
    let blob = |bytes: &[u8]| digest(bytes).replacen("sha256:", "blobs/sha256/", 1);
    archive(&[
        ("oci-layout", 0o644, &layout),
        ("index.json", 0o644, &index),
        (&blob(&manifest), 0o644, &manifest),
        (&blob(&config), 0o644, &config),
        (&blob(&layer), 0o644, &layer),
    ])
}

/// As `deploy/Dockerfile` says it.
fn config(architecture: &str, layer: &str) -> Value {
    json!({
        "created": CREATED,
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/lastpacket"],
            "Cmd": ["agent"],
            "Labels": {
                "org.opencontainers.image.title": "lastpacket",
                "org.opencontainers.image.version": VERSION,
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
        "history": [{ "created": CREATED, "created_by": "cargo xtask image" }],
    })
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

/// The digest of bytes, as images write it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn to_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes).context("cannot compress")?;
    encoder.finish().context("cannot compress")
}

/// A tar file whose entries belong to root and have no time.
fn archive(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for folder in folders(files) {
        append(&mut tar, folder, EntryType::Directory, 0o755, &[])?;
    }
    for (path, mode, bytes) in files {
        append(&mut tar, path, EntryType::Regular, *mode, bytes)?;
    }
    tar.into_inner().context("cannot write the archive")
}

/// Folders of these files, parents first.
fn folders<'a>(files: &[(&'a str, u32, &[u8])]) -> Vec<&'a str> {
    let parents = files.iter().flat_map(|(path, ..)| Path::new(*path).ancestors().skip(1));
    let mut folders: Vec<&str> = parents.filter_map(Path::to_str).filter(|path| !path.is_empty()).collect();
    folders.sort_unstable();
    folders.dedup();
    folders
}

fn append(tar: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("cannot add {path} to the archive"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn read(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(archive);
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
        });
        entries.collect()
    }

    /// The blob that a descriptor names, after checking size and digest.
    fn follow<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let name = descriptor["digest"].as_str().unwrap();
        let bytes = &files[&name.replacen("sha256:", "blobs/sha256/", 1)];
        assert_eq!(digest(bytes), name);
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    }

    #[test]
    fn the_same_binary_makes_the_same_image() {
        let make = || image(b"program", "lastpacket:0.1.0", "amd64").unwrap();
        assert_eq!(make(), make());
    }

    #[test]
    fn the_layout_leads_from_the_index_to_the_binary() {
        let files = read(&image(b"program", "lastpacket:0.1.0", "amd64").unwrap());
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "0.1.0");
        let manifest: Value = serde_json::from_slice(follow(&files, entry)).unwrap();
        let config: Value = serde_json::from_slice(follow(&files, &manifest["config"])).unwrap();
        let mut layer = Vec::new();
        let packed = follow(&files, &manifest["layers"][0]);
        flate2::read::GzDecoder::new(packed).read_to_end(&mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(read(&layer)["lastpacket"], b"program");
    }
}

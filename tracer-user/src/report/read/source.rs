//! Where lines come from: files or stdin, plain, gzip or zstd, told by their first bytes.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use flate2::bufread::MultiGzDecoder;
use tracer_core::output::Line;

use super::{Counts, LONGEST, PATIENCE, Reader, Stream};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BUFFER: usize = 1 << 18;

/// One input, opened.
struct Source {
    name: String,
    lines: Box<dyn BufRead>,
    /// Its first lines, read to see where it belongs.
    head: Vec<Vec<u8>>,
    /// The run and number of its first event.
    begin: Option<(i64, u64)>,
}

/// Lines read ahead to find an input's first event.
const HEAD: usize = 100;

/// Reads the events of all inputs, those of a run in order; `-` is stdin.
///
/// # Errors
/// If an input cannot be opened. One that breaks off is told in the counts.
pub fn read(paths: &[PathBuf], mut take: impl FnMut(Line) -> Result<()>) -> Result<Counts> {
    let mut sources = paths.iter().map(|path| Source::open(path)).collect::<Result<Vec<_>>>()?;
    // Rotated logs may be given in any order.
    sources.sort_by_key(|source| source.begin);
    let mut reader = Reader::new(PATIENCE);
    let mut events = Vec::new();
    for mut source in sources {
        let mut stream = Stream::default();
        let mut error = None;
        for line in std::mem::take(&mut source.head) {
            reader.line(&mut stream, &line, &mut events);
        }
        let mut line = Vec::new();
        loop {
            events.drain(..).try_for_each(&mut take)?;
            match next_line(&mut source.lines, &mut line) {
                Ok(true) => reader.line(&mut stream, &line, &mut events),
                Ok(false) => break,
                Err(failed) => {
                    reader.line(&mut stream, &line, &mut events);
                    error = Some(format!("{} breaks off: {failed}", source.name));
                    break;
                }
            }
        }
        reader.end_of(&stream, error);
    }
    reader.end(&mut events);
    events.drain(..).try_for_each(&mut take)?;
    Ok(reader.counts())
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let stdin = path == Path::new("-");
        let name = if stdin { "stdin".to_owned() } else { path.display().to_string() };
        let raw: Box<dyn Read> = if stdin {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).with_context(|| format!("cannot open {name}"))?)
        };
        let lines = decompressed(raw).with_context(|| format!("cannot read {name}"))?;
        let mut source = Self { name, lines, head: Vec::new(), begin: None };
        source.look();
        Ok(source)
    }

    /// Reads until the first event.
    fn look(&mut self) {
        let mut reader = Reader::new(0);
        let (mut stream, mut events) = (Stream::default(), Vec::new());
        while events.is_empty() && self.head.len() < HEAD {
            let mut line = Vec::new();
            // An error comes again when the rest is read.
            if !matches!(next_line(&mut self.lines, &mut line), Ok(true)) {
                self.head.extend((!line.is_empty()).then_some(line));
                break;
            }
            reader.line(&mut stream, &line, &mut events);
            self.head.push(line);
        }
        self.begin = events.first().map(|line| (line.time.0, line.seq));
    }
}

fn decompressed(raw: Box<dyn Read>) -> io::Result<Box<dyn BufRead>> {
    let mut raw = BufReader::with_capacity(BUFFER, raw);
    let begin = raw.fill_buf()?;
    if begin.starts_with(&GZIP) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw))));
    }
    if begin.starts_with(&ZSTD) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, zstd::Decoder::with_buffer(raw)?)));
    }
    Ok(Box::new(raw))
}

/// The next line without its end; false after the last. Of one that is too long only so much is kept
/// that it is seen to be.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = match from.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = memchr::memchr(b'\n', buffer);
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = (LONGEST + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let taken = part.len() + usize::from(end.is_some());
        from.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}

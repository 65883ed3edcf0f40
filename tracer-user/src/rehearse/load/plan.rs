//! What load to drive: the specification on the command line, and what a request looks like.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::protocol::Protocol;

const MAX_CLIENTS: u32 = 1000;
const DEFAULT_DURATION: Duration = Duration::from_secs(6);

/// How a client uses its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Short requests, one after the other, on one connection.
    KeepAlive,
    /// A new connection for each request.
    Fresh,
    /// Requests that the server works on for long.
    Long,
    /// A response that does not end.
    Stream,
    /// A request body that is sent slowly.
    Upload,
    /// One request, then the connection is only held.
    Idle,
}

impl Kind {
    const ALL: [Self; 6] = [Self::KeepAlive, Self::Fresh, Self::Long, Self::Stream, Self::Upload, Self::Idle];

    const fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Fresh => "fresh",
            Self::Long => "long",
            Self::Stream => "stream",
            Self::Upload => "upload",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Some clients that behave alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// What they do.
    pub kind: Kind,
    /// How many there are; of `fresh`: new connections per second.
    pub count: u32,
    /// How long one request of `long` and `upload` takes; zero for the others.
    pub duration: Duration,
}

/// The load's groups, read from text such as `keep-alive:4,fresh:50/s,long:2:6s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadSpec(pub Vec<Group>);

impl Default for LoadSpec {
    /// `keep-alive:4,fresh:50/s`
    fn default() -> Self {
        let group = |kind, count| Group { kind, count, duration: Duration::ZERO };
        Self(vec![group(Kind::KeepAlive, 4), group(Kind::Fresh, 50)])
    }
}

impl FromStr for LoadSpec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let groups = text.split(',').map(|part| {
            group(part.trim()).with_context(|| {
                format!(
                    "cannot read the load `{part}`; write e.g. keep-alive:4,fresh:50/s,long:2:6s,stream:1"
                )
            })
        });
        groups.collect::<Result<_>>().map(Self)
    }
}

fn group(text: &str) -> Result<Group> {
    let mut fields = text.split(':');
    let name = fields.next().unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let kind = kind.with_context(|| format!("there is no kind of client called `{name}`"))?;
    let count = fields.next().context("the number of clients is missing")?;
    let count = match kind {
        Kind::Fresh => count.strip_suffix("/s").context("fresh takes a rate such as 50/s")?,
        _ => count,
    };
    let count = count.parse().with_context(|| format!("`{count}` is no number"))?;
    ensure!((1..=MAX_CLIENTS).contains(&count), "the number must be between 1 and {MAX_CLIENTS}");
    let duration = match (kind, fields.next()) {
        (Kind::Long | Kind::Upload, Some(text)) => duration(text)?,
        (Kind::Long | Kind::Upload, None) => DEFAULT_DURATION,
        (_, None) => Duration::ZERO,
        (_, Some(text)) => bail!("{kind} takes no duration, but has `{text}`"),
    };
    ensure!(fields.next().is_none(), "too many colons");
    Ok(Group { kind, count, duration })
}

fn duration(text: &str) -> Result<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u32 =
        number.parse().with_context(|| format!("`{text}` is no duration such as 6s or 500ms"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number.into())),
        "s" => Ok(Duration::from_secs(number.into())),
        "m" => Ok(Duration::from_secs(u64::from(number) * 60)),
        _ => bail!("`{text}` has no unit of ms, s or m"),
    }
}

/// The whole load.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Who the clients are.
    pub spec: LoadSpec,
    /// The path of short requests.
    pub path: String,
    /// The path of long requests; `{ms}` stands for their duration in ms.
    pub long_path: String,
    /// What the clients' think times come from: the same seed gives the same ones.
    pub seed: u64,
    /// What they speak.
    pub protocol: Protocol,
}

impl Default for LoadPlan {
    fn default() -> Self {
        Self {
            spec: LoadSpec::default(),
            path: "/".to_owned(),
            long_path: "/slow?ms={ms}".to_owned(),
            seed: 1,
            protocol: Protocol::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind() {
        let text = "keep-alive:4,fresh:50/s,long:2:6s,stream:1, upload:1:500ms,idle:2";
        let LoadSpec(groups) = text.parse().unwrap();
        let read: Vec<_> =
            groups.iter().map(|group| (group.kind, group.count, group.duration.as_millis())).collect();
        assert_eq!(
            read,
            [
                (Kind::KeepAlive, 4, 0),
                (Kind::Fresh, 50, 0),
                (Kind::Long, 2, 6000),
                (Kind::Stream, 1, 0),
                (Kind::Upload, 1, 500),
                (Kind::Idle, 2, 0),
            ]
        );
        assert_eq!("keep-alive:4,fresh:50/s".parse::<LoadSpec>().unwrap(), LoadSpec::default());
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, reason) in [
            ("", "no kind of client"),
            ("slow:1", "no kind of client called `slow`"),
            ("long", "number of clients is missing"),
            ("fresh:50", "rate such as 50/s"),
            ("idle:0", "between 1 and"),
            ("idle:1:2s", "takes no duration"),
            ("long:1:6", "no unit"),
            ("long:1:6s:7", "too many colons"),
        ] {
            let error = format!("{:#}", text.parse::<LoadSpec>().unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}

//! What one rehearsal is: a server's behaviour and its clients', chosen by a seed.

use std::fmt::Write;

use anyhow::Result;

use crate::server::{Behaviour, PORT};

/// One rehearsal.
pub struct Plan {
    /// The row of the table that it counts for.
    pub server: String,
    /// The arguments of `lastpacket`.
    pub arguments: Vec<String>,
}

impl Plan {
    /// The rehearsal of this seed. Seeds in a row go through all servers.
    ///
    /// # Errors
    /// If this program's own file is not known.
    pub fn of(seed: u64) -> Result<Self> {
        let mut dice = Dice(seed);
        dice.roll();
        // The built-in server stands for TLS and HTTP/2: four ways to speak, two to stop.
        let kinds = Behaviour::ALL.len() as u64 + 4;
        let kind = seed % kinds;
        let mut words = vec!["rehearse", "--format", "json", "--warm-up", "800ms"];
        let grace = dice.one(&["1s", "1500ms", "2s"]);
        // That one stays deaf for longer than clients wait.
        let deaf =
            Behaviour::ALL.get(kind as usize).is_some_and(|(known, _)| *known == Behaviour::BacklogFull);
        words.extend(["--grace", if deaf { "6s" } else { grace }]);
        words.extend(["--lag", dice.one(&["0ms", "150ms", "300ms", "600ms"])]);
        match dice.one(&["", "", "0.2", "0.6"]) {
            "" => {}
            "0.2" => words.extend(["--pre-stop", "sleep 0.2"]),
            _ => words.extend(["--pre-stop", "sleep 0.6"]),
        }
        let mut arguments: Vec<String> = words.into_iter().map(ToOwned::to_owned).collect();
        arguments.extend(["--seed".to_owned(), seed.to_string()]);
        let server = match Behaviour::ALL.get(kind as usize) {
            Some((behaviour, name)) => {
                scripted(*behaviour, &mut arguments, &mut dice)?;
                (*name).to_owned()
            }
            None => demo(kind - Behaviour::ALL.len() as u64, &mut arguments, &mut dice),
        };
        Ok(Self { server, arguments })
    }

    /// The command line, to be pasted into a shell.
    pub fn command(&self) -> String {
        self.arguments.iter().fold("lastpacket".to_owned(), |mut text, word| {
            let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:,=".contains(&byte));
            let _ = if plain { write!(text, " {word}") } else { write!(text, " '{word}'") };
            text
        })
    }
}

/// A server of ours, with all that its clients can ask of it.
fn scripted(behaviour: Behaviour, arguments: &mut Vec<String>, dice: &mut Dice) -> Result<()> {
    let load = load(dice);
    let has_long = load.contains("long:");
    arguments.extend(["--load".to_owned(), load]);
    arguments.extend(["--path".to_owned(), dice.one(&["/", "/", "/large", "/slow?ms=30"]).to_owned()]);
    if has_long {
        let path = dice.one(&["/slow?ms={ms}", "/download?ms={ms}", "/chunked?ms={ms}"]);
        arguments.extend(["--long-path".to_owned(), path.to_owned()]);
    }
    arguments.extend(["--port".to_owned(), PORT.to_string(), "--".to_owned()]);
    let this = std::env::current_exe()?.to_string_lossy().into_owned();
    arguments.extend([this, "child".to_owned(), behaviour.name().to_owned()]);
    Ok(())
}

/// The built-in server, over TLS or HTTP/2 or both.
fn demo(kind: u64, arguments: &mut Vec<String>, dice: &mut Dice) -> String {
    let mut name = "demo".to_owned();
    let behaviour = dice.one(&["abrupt", "graceful"]);
    arguments.extend(["--demo".to_owned(), behaviour.to_owned(), "--load".to_owned(), load(dice)]);
    for (bit, option) in [(1, "--tls"), (2, "--http2")] {
        if kind & bit != 0 {
            arguments.push(option.to_owned());
            name.push_str(&option[1..]);
        }
    }
    name
}

/// At least two kinds of clients, so that something is answered from the start.
fn load(dice: &mut Dice) -> String {
    let short = dice.one(&["keep-alive:3", "fresh:30/s", "keep-alive:2,fresh:20/s"]);
    let others =
        ["long:2:300ms", "long:3:1s", "long:2:2s", "stream:2", "upload:2:1s", "upload:3:400ms", "idle:3"];
    let first = dice.one(&others);
    let second = dice.one(&others);
    // A group is named once.
    let both = first.split(':').next() != second.split(':').next();
    if both { format!("{short},{first},{second}") } else { format!("{short},{first}") }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn one(&mut self, of: &[&'static str]) -> &'static str {
        of[(self.roll() % of.len() as u64) as usize]
    }
}

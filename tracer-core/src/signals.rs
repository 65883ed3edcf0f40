//! Names of signals.

use std::borrow::Cow;

/// The first real-time signal that glibc leaves to programs.
const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The name of a signal on x86-64 and arm64, such as `SIGTERM` or `SIGRTMIN+3`.
#[must_use]
pub fn name(signal: u32) -> Cow<'static, str> {
    match signal {
        1..=31 => Cow::Borrowed(NAMES[signal as usize - 1]),
        RTMIN => Cow::Borrowed("SIGRTMIN"),
        35..=RTMAX => Cow::Owned(format!("SIGRTMIN+{}", signal - RTMIN)),
        _ => Cow::Owned(format!("signal {signal}")),
    }
}

/// The number of a signal, by its name with or without `SIG`, or as a number.
#[must_use]
pub fn number(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    (1..=RTMAX).find(|signal| name(*signal) == full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_go_both_ways() {
        assert_eq!(name(15), "SIGTERM");
        assert_eq!(name(37), "SIGRTMIN+3");
        for text in ["SIGQUIT", "quit", "3"] {
            assert_eq!(number(text), Some(3), "{text}");
        }
        assert_eq!(number("RTMIN+3"), Some(37));
        assert_eq!(number("SIGNONE"), None);
        assert_eq!(number("0"), None);
        assert_eq!(number("65"), None);
    }
}

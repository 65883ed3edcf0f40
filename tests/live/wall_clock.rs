//! A wall clock that a test steps while a program runs.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use lastpacket_tests::machine;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};

/// What is stepped, by what is known of the machine.
pub enum WallClock {
    /// The machine's own, where nothing else needs it.
    Machine { stepped: i64 },
    /// That of single programs, by libfaketime: the machine's own stays as it is. It preloads a library,
    /// so that the program must be linked dynamically.
    Faked { library: String, file: PathBuf },
}

impl WallClock {
    pub fn new() -> Result<Self> {
        if machine::is_throwaway() {
            return Ok(Self::Machine { stepped: 0 });
        }
        // The wrapper knows where its library is.
        let shown =
            Command::new("faketime").args(["-f", "+0", "env"]).output().context("cannot run faketime")?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let library = shown.lines().find_map(|line| line.strip_prefix("LD_PRELOAD="));
        let library = library.context("faketime preloads nothing")?.to_owned();
        let file = std::env::temp_dir().join(format!("lastpacket-clock-{}", std::process::id()));
        let mut clock = Self::Faked { library, file };
        clock.step_to(3600)?;
        let mut date = Command::new("date");
        clock.prepare(date.arg("+%s"));
        let told: i64 = String::from_utf8(date.output()?.stdout)?.trim().parse()?;
        let ahead = told - tracer_user::clock::now().wall / 1_000_000_000;
        ensure!((3590..3610).contains(&ahead), "the clock of a program is {ahead} s ahead, not an hour");
        clock.step_to(0)?;
        Ok(clock)
    }

    /// Sets it so many seconds ahead of the true time.
    pub fn step_to(&mut self, ahead: i64) -> Result<()> {
        match self {
            Self::Machine { stepped } => {
                let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
                let then = TimeSpec::new(now.tv_sec() + ahead - *stepped, now.tv_nsec());
                clock_settime(ClockId::CLOCK_REALTIME, then)?;
                *stepped = ahead;
            }
            Self::Faked { file, .. } => {
                let new = file.with_extension("new");
                fs::write(&new, format!("{ahead:+}\n"))?;
                fs::rename(new, file)?;
            }
        }
        Ok(())
    }

    /// Makes a program go by it.
    pub fn prepare(&self, command: &mut Command) {
        let Self::Faked { library, file } = self else { return };
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        let _ = self.step_to(0);
        if let Self::Faked { file, .. } = self {
            let _ = fs::remove_file(file);
        }
    }
}

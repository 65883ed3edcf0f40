//! Threads that live in namespaces of their own; when the last one ends, the namespaces are gone.

use std::{
    fs::File,
    sync::mpsc::{SyncSender, sync_channel},
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};

type Job = Box<dyn FnOnce() + Send>;

/// A thread in namespaces of its own that runs the jobs sent to it, one after the other.
///
/// It must live as long as the processes that it spawned: their `PR_SET_PDEATHSIG` watches the
/// spawning thread, not the process.
pub(crate) struct NamespaceThread {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl NamespaceThread {
    /// Starts the thread and moves it into `netns`, if there is one, and new namespaces. Errors:
    /// missing privilege.
    pub(super) async fn start(name: &str, netns: Option<File>, namespaces: CloneFlags) -> Result<Self> {
        let (jobs, inbox) = sync_channel::<Job>(16);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Ok(job) = inbox.recv() {
                job();
            }
        })?;
        let started = Self { jobs: Some(jobs), thread: Some(thread) };
        let enter = move || {
            if let Some(netns) = netns {
                setns(netns, CloneFlags::CLONE_NEWNET).context("cannot enter the server's netns")?;
            }
            enter_new(namespaces)
        };
        started.run(enter).await??;
        Ok(started)
    }

    /// Runs `job` on the thread and hands back its result. Errors: a job panicked before.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || drop(answer.send(job())));
        let ended = || anyhow!("a thread of the sandbox has ended; this is a bug, please report it");
        self.jobs.as_ref().ok_or_else(ended)?.send(job).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())
    }
}

impl Drop for NamespaceThread {
    fn drop(&mut self) {
        self.jobs = None;
        join(&mut self.thread);
    }
}

/// The clients' side: a network namespace with a single-threaded runtime inside.
pub struct ClientNet {
    handle: Handle,
    netns: File,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ClientNet {
    pub(super) async fn start() -> Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, started) = oneshot::channel();
        let thread = std::thread::Builder::new().name("lp-clients".to_owned()).spawn(move || {
            match enter_with_runtime() {
                Ok((runtime, netns)) => {
                    let _ = ready.send(Ok((runtime.handle().clone(), netns)));
                    let _ = runtime.block_on(stopped);
                }
                Err(error) => drop(ready.send(Err(error))),
            };
        })?;
        let (handle, netns) = started.await.context("the clients' thread has ended")??;
        Ok(Self { handle, netns, stop: Some(stop), thread: Some(thread) })
    }

    /// The runtime inside the clients' netns: a task spawned here opens its sockets there.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn netns(&self) -> &File {
        &self.netns
    }
}

impl Drop for ClientNet {
    fn drop(&mut self) {
        self.stop = None;
        join(&mut self.thread);
    }
}

fn enter_with_runtime() -> Result<(Runtime, File)> {
    enter_new(CloneFlags::CLONE_NEWNET)?;
    let netns = File::open("/proc/thread-self/ns/net").context("cannot open the clients' netns")?;
    Ok((local_runtime()?, netns))
}

/// A runtime that works on the calling thread only: netlink sockets belong to its netns.
pub(super) fn local_runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

fn enter_new(namespaces: CloneFlags) -> Result<()> {
    unshare(namespaces).map_err(|errno| match errno {
        Errno::EPERM => {
            anyhow!("rehearsing needs new namespaces and so root (CAP_SYS_ADMIN): run it with sudo")
        }
        errno => {
            anyhow!("cannot create namespaces: {errno}; check that the kernel has network and pid namespaces")
        }
    })
}

fn join(thread: &mut Option<JoinHandle<()>>) {
    if let Some(thread) = thread.take() {
        // A panic was already reported by the hook; nothing is left to do about it here.
        let _ = thread.join();
    }
}

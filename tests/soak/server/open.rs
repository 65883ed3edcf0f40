//! The connections of a server that are open, to be ended all at once.

use std::{
    collections::BTreeMap,
    net::{Shutdown, TcpStream},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use socket2::SockRef;

/// Descriptors of open connections. They are closed only while this is locked, so that none is
/// another connection's meanwhile.
#[derive(Default)]
pub(super) struct Open(Mutex<BTreeMap<RawFd, ()>>);

impl Open {
    pub(super) fn add(&self, stream: &TcpStream) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.as_raw_fd(), ());
    }

    pub(super) fn close(&self, stream: TcpStream) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&stream.as_raw_fd());
        drop(stream);
    }

    /// The next close of each, even by the exit, is a reset.
    pub(super) fn linger_0(&self) {
        self.each(|fd| {
            let _ = SockRef::from(&fd).set_linger(Some(Duration::ZERO));
        });
    }

    /// Sends a FIN on each.
    pub(super) fn shut_down(&self) {
        self.each(|fd| {
            let _ = SockRef::from(&fd).shutdown(Shutdown::Write);
        });
    }

    /// Resets each by the application's own act, with whoever may be reading: `connect(AF_UNSPEC)`.
    pub(super) fn disconnect(&self) {
        self.each(|fd| {
            let unspecified =
                libc::sockaddr { sa_family: libc::AF_UNSPEC.cast_unsigned() as u16, sa_data: [0; 14] };
            let length = size_of::<libc::sockaddr>() as libc::socklen_t;
            // SAFETY: the address outlives the call, and the length is its own.
            unsafe { libc::connect(fd.as_raw_fd(), &raw const unspecified, length) };
        });
    }

    fn each(&self, act: impl Fn(BorrowedFd<'_>)) {
        for fd in self.0.lock().unwrap_or_else(PoisonError::into_inner).keys() {
            // SAFETY: it is closed only while the lock is held.
            act(unsafe { BorrowedFd::borrow_raw(*fd) });
        }
    }
}

//! Records as they come out of the ring buffer.

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, RingBuf};
use bytes::{Bytes, BytesMut};
use tokio::io::unix::AsyncFd;

/// Bytes that one batch may take. One allocation serves a batch.
const BATCH: usize = 64 * 1024;

/// The reading end of the ring buffer.
pub struct Records {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Records {
    pub(super) fn new(map: Map) -> Result<Self> {
        let ring = RingBuf::try_from(map).context("RECORDS is no ring buffer")?;
        // SAFETY: the ring buffer owns its descriptor and keeps it open as long as it lives.
        let ring = unsafe { AsyncFd::register(ring) }.context("cannot poll the ring buffer")?;
        Ok(Self { ring })
    }

    /// Waits until there are records.
    ///
    /// # Errors
    /// If the ring buffer cannot be polled.
    pub async fn ready(&mut self) -> Result<()> {
        self.ring.readable_mut().await.context("cannot poll the ring buffer")?.clear_ready();
        Ok(())
    }

    /// Takes a batch of records that are there now; empty if there are none.
    pub fn take(&mut self, batch: &mut Vec<Bytes>) {
        let mut space = BytesMut::with_capacity(0);
        let mut taken = 0;
        while taken < BATCH {
            let Some(record) = self.ring.get_mut().next() else { return };
            if space.capacity() < record.len() {
                space.reserve(BATCH);
            }
            space.extend_from_slice(&record);
            taken += record.len();
            batch.push(space.split().freeze());
        }
    }
}

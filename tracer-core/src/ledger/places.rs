//! Where connections are kept: each in one place from its opening to its judgement. A place is a number,
//! and is used again. A live connection is found by the address of its socket.

use std::{
    hash::BuildHasher,
    ops::{Index, IndexMut},
};

use hashbrown::HashTable;
use slab::Slab;

use crate::{connection::Connection, tables::Seeded};

/// Number of a place: four bytes, because each live connection has one in the table of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Places {
    connections: Slab<Connection>,
    /// Places of live connections, by the address of their socket.
    live: HashTable<Place>,
    seed: Seeded,
}

impl Places {
    /// Keeps a connection whose socket is not known.
    pub(super) fn add(&mut self, connection: Connection) -> Place {
        Place(self.connections.insert(connection) as u32)
    }

    /// From now on it is found by the address of its socket. No other one may have the same.
    pub(super) fn enliven(&mut self, place: Place, key: u64) {
        let Self { connections, live, seed } = self;
        let key_of = |place: &Place| connections[place.0 as usize].socket.key;
        live.insert_unique(seed.hash_one(key), place, |place| seed.hash_one(key_of(place)));
        connections[place.0 as usize].socket.key = key;
    }

    /// The place of a live connection.
    pub(super) fn live(&self, key: u64) -> Option<Place> {
        self.live.find(self.seed.hash_one(key), |place| self[*place].socket.key == key).copied()
    }

    /// The place of a connection that is live no more; it stays where it is.
    pub(super) fn end(&mut self, key: u64) -> Option<Place> {
        let Self { connections, live, seed } = self;
        let is_it = |place: &Place| connections[place.0 as usize].socket.key == key;
        live.find_entry(seed.hash_one(key), is_it).ok().map(|entry| entry.remove().0)
    }

    /// Takes a connection that is not live away; its place is free.
    pub(super) fn take(&mut self, place: Place) -> Connection {
        self.connections.remove(place.0 as usize)
    }

    /// All live ones.
    pub(super) fn all_live(&self) -> impl ExactSizeIterator<Item = &Connection> {
        self.live.iter().map(|place| &self[*place])
    }

    /// Those live ones are live no more of which this is true.
    pub(super) fn end_all(&mut self, over: impl Fn(&Connection) -> bool) -> Vec<Place> {
        let Self { connections, live, .. } = self;
        live.extract_if(|place| over(&connections[place.0 as usize])).collect()
    }
}

impl Index<Place> for Places {
    type Output = Connection;

    fn index(&self, place: Place) -> &Connection {
        &self.connections[place.0 as usize]
    }
}

impl IndexMut<Place> for Places {
    fn index_mut(&mut self, place: Place) -> &mut Connection {
        &mut self.connections[place.0 as usize]
    }
}

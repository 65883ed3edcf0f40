//! Hash tables. Their keys come from the network, so that each table has a seed of its own; the hash is a
//! fast one, since a record asks several of them.

/// Hashes with a seed of its own.
pub(crate) type Seeded = foldhash::fast::RandomState;

/// A hash table with such a hash.
pub(crate) type Table<K, V> = std::collections::HashMap<K, V, Seeded>;

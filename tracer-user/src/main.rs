//! lastpacket
fn main() {}

//! Which ports a netns listens on, read from its `/proc/net/tcp` and `tcp6`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const LISTEN: &str = "0A";

/// The listening sockets in the text of `/proc/net/tcp` or `tcp6`; lines that do not parse are none.
#[must_use]
pub fn listeners(text: &str) -> Vec<SocketAddr> {
    text.lines().skip(1).filter_map(listener).collect()
}

fn listener(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == LISTEN).then_some(SocketAddr::new(ip(address)?, port))
}

/// The kernel prints addresses as 32-bit words in the machine's byte order.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let words = [word(0)?, word(8)?, word(16)?, word(24)?];
    let octets: [u8; 16] = words.concat().try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_listeners_of_both_families() {
        let v4 = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                  \x20  0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n\
                  \x20  1: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n\
                  \x20  2: 0200630A:1F90 0100630A:9C40 01 00000000:00000000 00:00000000 00000000     0\n";
        assert_eq!(listeners(v4), ["0.0.0.0:8080".parse().unwrap(), "127.0.0.1:80".parse().unwrap()]);
        let v6 = "  sl  local_address\n\
                  \x20  0: 00000000000000000000000000000000:1F90 0:0 0A 0\n\
                  \x20  1: 000099FD000000000000000002000000:1F91 0:0 0A 0\n";
        assert_eq!(listeners(v6), ["[::]:8080".parse().unwrap(), "[fd99::2]:8081".parse().unwrap()]);
    }

    #[test]
    fn skips_what_is_no_socket() {
        assert_eq!(listeners(""), []);
        assert_eq!(listeners("header\n garbage\n 0: 0000:1F90 0:0 0A\n"), []);
    }
}

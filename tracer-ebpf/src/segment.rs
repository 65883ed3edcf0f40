//! The segment that drew a reset: its addresses, flags and what its payload looks like.

use tracer_common::{ABSENT, Segment, SegmentClass, Tuple};

use crate::{
    offsets::{field, offset, read, settings},
    sock::mapped,
};

const TLS_ALERT: u8 = 21;
const TLS_APPLICATION_DATA: u8 = 23;
/// Length of a TLS 1.3 record that holds an encrypted alert: two bytes, the inner type, the tag.
const TLS13_ALERT_LENGTH: u16 = 19;
/// `SKB_DST_PTRMASK` of `include/linux/skbuff.h`: without `SKB_DST_NOREF`.
const ROUTE_POINTER: u64 = !1;
/// `include/uapi/linux/rtnetlink.h`.
const RTN_LOCAL: u16 = 2;
/// `include/uapi/linux/ipv6_route.h`.
const RTF_LOCAL: u32 = 0x8000_0000;
const SMALL: u32 = 64;
/// TLS records looked at in one segment.
const MAX_RECORDS: u32 = 3;
/// HTTP/2 frames looked at in one segment.
const MAX_FRAMES: u32 = 8;

/// Network namespace (`struct net *`) of the device that the segment came in on; right on veth and
/// loopback. NULL on paths that have a socket.
#[inline(always)]
pub fn net(skb: u64) -> u64 {
    let device: u64 = field!(skb, skb_dev);
    field!(device, dev_net)
}

/// Both ends from our side's view.
#[inline(always)]
pub fn tuple(skb: u64) -> Tuple {
    let head: u64 = field!(skb, skb_head);
    let ip = head + u64::from(field!(skb, skb_network_header: u16));
    let tcp = head + u64::from(field!(skb, skb_transport_header: u16));
    let (peer, local) = if read::<u8>(ip) >> 4 == 4 {
        (mapped(read(ip + 12)), mapped(read(ip + 16)))
    } else {
        (read(ip + 8), read(ip + 24))
    };
    Tuple { local, peer, local_port: u16::from_be(read(tcp + 2)), peer_port: u16::from_be(read(tcp)) }
}

/// Flags of the segment.
#[inline(always)]
pub fn flags(skb: u64) -> u8 {
    let head: u64 = field!(skb, skb_head);
    read(head + u64::from(field!(skb, skb_transport_header: u16)) + 13)
}

/// Whether the route of a received segment ends here: `skb_rtable(skb)->rt_type == RTN_LOCAL`, or
/// `ipv6_unicast_destination(skb)`.
#[inline(always)]
pub fn is_for_us(skb: u64) -> bool {
    let route: u64 = field!(skb, skb_route: u64) & ROUTE_POINTER;
    let head: u64 = field!(skb, skb_head);
    let ip = head + u64::from(field!(skb, skb_network_header: u16));
    if read::<u8>(ip) >> 4 == 4 {
        field!(route, route_type: u16) == RTN_LOCAL
    } else {
        field!(route, route6_flags: u32) & RTF_LOCAL != 0
    }
}

/// Flags, payload length and class of the segment; all 0 for none.
#[inline(always)]
pub fn describe(skb: u64) -> Segment {
    if skb == 0 {
        return Segment::default();
    }
    let head: u64 = field!(skb, skb_head);
    let tcp = head + u64::from(field!(skb, skb_transport_header: u16));
    let header_length = u64::from(read::<u8>(tcp + 12) >> 4) * 4;
    let data: u64 = field!(skb, skb_data);
    let length: u32 = field!(skb, skb_len);
    let payload_start = tcp + header_length;
    // skb->data points at the TCP header here, but behind it once the header was pulled.
    let header_in_length = payload_start.saturating_sub(data) as u32;
    let payload = length.saturating_sub(header_in_length);
    let linear = length.wrapping_sub(field!(skb, skb_data_len: u32));
    let address = if payload == 0 {
        0
    } else if linear > header_in_length {
        payload_start
    } else {
        first_fragment(skb, head)
    };
    Segment { payload, present: 1, flags: read(tcp + 13), class: class(address, payload), reserved: 0 }
}

/// Address of the payload when it lies in a page (`skb_shinfo(skb)->frags[0]`); 0 if unknown.
#[inline(always)]
fn first_fragment(skb: u64, head: u64) -> u64 {
    if settings!(page_offset) == 0 || offset!(shinfo_frags) == ABSENT {
        return 0;
    }
    let info = head + u64::from(field!(skb, skb_end: u32));
    if field!(info, shinfo_nr_frags: u8) == 0 {
        return 0;
    }
    let fragment = info + u64::from(offset!(shinfo_frags));
    let (page, start): (u64, u32) = if offset!(frag_page) == ABSENT {
        (field!(fragment, bvec_page), field!(fragment, bvec_offset))
    } else {
        (field!(fragment, frag_page), field!(fragment, frag_offset))
    };
    // page_to_virt() of a kernel whose struct pages are one array (SPARSEMEM_VMEMMAP).
    let index = page.wrapping_sub(base(settings!(vmemmap))) / u64::from(settings!(page_struct_size).max(1));
    base(settings!(page_offset)) + (index << (settings!(page_shift) & 63)) + u64::from(start)
}

#[inline(always)]
fn base(value: u64) -> u64 {
    if settings!(bases_are_variables) == 1 { read(value) } else { value }
}

/// The class of a payload, by its first bytes. What cannot be read is judged by its length.
#[inline(always)]
fn class(address: u64, payload: u32) -> u8 {
    if payload == 0 {
        return SegmentClass::NONE;
    }
    if address != 0 {
        if is_tls_alert(address, payload) {
            return SegmentClass::TLS_ALERT;
        }
        if is_h2_control(address, payload) {
            return SegmentClass::H2_CONTROL;
        }
    }
    if payload <= SMALL { SegmentClass::SMALL } else { SegmentClass::DATA }
}

/// Whether a few bytes of TLS records end with an alert: who says farewell waits for no answer, and before
/// that says at most what HTTP/2 needs. A record begins with its type, the version (3, x) and its length.
#[inline(always)]
fn is_tls_alert(address: u64, payload: u32) -> bool {
    let mut position = 0u32;
    for _ in 0..MAX_RECORDS {
        let [kind, major, _, length @ ..]: [u8; 5] = read(address + u64::from(position));
        let length = u16::from_be_bytes(length);
        if major != 3 || kind != TLS_ALERT && kind != TLS_APPLICATION_DATA {
            return false;
        }
        if kind == TLS_ALERT || length == TLS13_ALERT_LENGTH {
            return position <= SMALL;
        }
        position += 5 + u32::from(length);
        if position >= payload {
            return false;
        }
    }
    false
}

/// Whether all of the payload is HTTP/2 frames that carry no request (RFC 9113, section 6): a frame
/// begins with its length (3 bytes), type, flags and stream.
#[inline(always)]
fn is_h2_control(address: u64, payload: u32) -> bool {
    let mut position = 0u32;
    for _ in 0..MAX_FRAMES {
        let [high, middle, low, kind, _flags, ..]: [u8; 9] = read(address + u64::from(position));
        // RST_STREAM, PRIORITY, SETTINGS, PING, GOAWAY, WINDOW_UPDATE; none is ever longer than 16 KiB.
        if high != 0 || !matches!(kind, 2 | 3 | 4 | 6 | 7 | 8) {
            return false;
        }
        position += 9 + (u32::from(middle) << 8 | u32::from(low));
        if position >= payload {
            return position == payload;
        }
    }
    false
}

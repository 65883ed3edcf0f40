//! Reads the kernel's own type information (BTF): member offsets, sizes, tracepoint arguments, enums.
//!
//! aya reads BTF too, but has no public look-up of members. The format is
//! `Documentation/bpf/btf.rst` of the kernel.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

/// Where the running kernel keeps its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER_LENGTH: usize = 24;
/// Anonymous members inside anonymous members; the kernel has no deeper ones.
const MAX_DEPTH: u32 = 8;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const POINTER: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Parsed BTF; types are numbered from 1, 0 is void.
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Where each type begins in `types`.
    starts: Vec<usize>,
    names: HashMap<String, Vec<u32>>,
}

struct Type {
    kind: u32,
    entries: usize,
    bitfields: bool,
    size_or_type: u32,
    body: usize,
}

impl Btf {
    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    /// If there is none, or it cannot be parsed.
    pub fn of_running_kernel() -> Result<Self> {
        let bytes = std::fs::read(VMLINUX).with_context(|| format!("cannot read {VMLINUX}"))?;
        Self::parse(&bytes).with_context(|| format!("cannot parse {VMLINUX}"))
    }

    /// Parses BTF of this machine's byte order.
    ///
    /// # Errors
    /// If the bytes are not BTF, or end too early.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.len() >= HEADER_LENGTH, "too short");
        ensure!(u16::from_ne_bytes([bytes[0], bytes[1]]) == MAGIC, "no BTF magic");
        let word = |at: usize| word_at(bytes, at).map(|word| word as usize);
        let header = word(4)?;
        let section = |offset: usize, length: usize| {
            bytes
                .get(header + offset..header + offset + length)
                .context("a section lies outside")
                .map(<[u8]>::to_vec)
        };
        let mut btf = Self {
            types: section(word(8)?, word(12)?)?,
            strings: section(word(16)?, word(20)?)?,
            starts: vec![0],
            names: HashMap::new(),
        };
        btf.index()?;
        Ok(btf)
    }

    fn index(&mut self) -> Result<()> {
        let mut at = 0;
        while at < self.types.len() {
            let id = u32::try_from(self.starts.len())?;
            let ty = self.type_at(at)?;
            let name = self.string(word_at(&self.types, at)?)?;
            if !name.is_empty() && matches!(ty.kind, kind::STRUCT | kind::UNION | kind::TYPEDEF | kind::ENUM)
            {
                self.names.entry(name.to_owned()).or_default().push(id);
            }
            self.starts.push(at);
            let entry = match ty.kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * ty.entries,
                kind::ENUM | kind::FUNC_PROTO => 8 * ty.entries,
                0 | 20.. => bail!("unknown BTF kind {}", ty.kind),
                _ => 0,
            };
            at = ty.body + entry;
        }
        Ok(())
    }

    fn type_at(&self, at: usize) -> Result<Type> {
        let info = word_at(&self.types, at + 4)?;
        Ok(Type {
            kind: info >> 24 & 0x1f,
            entries: (info & 0xffff) as usize,
            bitfields: info >> 31 == 1,
            size_or_type: word_at(&self.types, at + 8)?,
            body: at + 12,
        })
    }

    fn get(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return None;
        }
        self.type_at(*self.starts.get(id as usize)?).ok()
    }

    fn string(&self, offset: u32) -> Result<&str> {
        let bytes = self.strings.get(offset as usize..).context("a name lies outside")?;
        let end = bytes.iter().position(|byte| *byte == 0).context("a name does not end")?;
        Ok(std::str::from_utf8(&bytes[..end])?)
    }

    fn named(&self, name: &str) -> impl Iterator<Item = u32> {
        self.names.get(name).into_iter().flatten().copied()
    }

    /// Strips typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        loop {
            let ty = self.get(id)?;
            match ty.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = ty.size_or_type;
                }
                _ => return Some(ty),
            }
        }
    }

    /// Offset in bytes of a member of a structure; the path may go through several members, joined
    /// by dots, and through anonymous ones. `None` if the kernel has no such member.
    #[must_use]
    pub fn offset_of(&self, structure: &str, path: &str) -> Option<u32> {
        self.named(structure).find_map(|id| {
            let mut ty = self.resolve(id)?;
            let mut bits = 0;
            for name in path.split('.') {
                let (offset, member) = self.member(&ty, name, MAX_DEPTH)?;
                bits += offset;
                // The last member of a path may be of any type.
                ty = self.resolve(member).unwrap_or(Type {
                    kind: 0,
                    entries: 0,
                    bitfields: false,
                    size_or_type: 0,
                    body: 0,
                });
            }
            Some(bits / 8)
        })
    }

    /// Offset in bits and type of a member.
    fn member(&self, ty: &Type, name: &str, depth: u32) -> Option<(u32, u32)> {
        if !matches!(ty.kind, kind::STRUCT | kind::UNION) || depth == 0 {
            return None;
        }
        (0..ty.entries).find_map(|entry| {
            let at = ty.body + entry * 12;
            let member = self.string(word_at(&self.types, at).ok()?).ok()?;
            let id = word_at(&self.types, at + 4).ok()?;
            let offset = word_at(&self.types, at + 8).ok()?;
            let offset = if ty.bitfields { offset & 0x00ff_ffff } else { offset };
            if member == name {
                Some((offset, id))
            } else if member.is_empty() {
                let (inner, id) = self.member(&self.resolve(id)?, name, depth - 1)?;
                Some((offset + inner, id))
            } else {
                None
            }
        })
    }

    /// Size of a structure in bytes.
    #[must_use]
    pub fn size_of(&self, structure: &str) -> Option<u32> {
        self.named(structure).find_map(|id| {
            let ty = self.resolve(id)?;
            matches!(ty.kind, kind::STRUCT | kind::UNION).then_some(ty.size_or_type)
        })
    }

    /// Number of arguments of a raw tracepoint, and whether the first is a pointer; `None` if the
    /// kernel has no such tracepoint.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Tracepoint> {
        self.named(&format!("btf_trace_{name}")).find_map(|id| {
            let pointer = self.resolve(id)?;
            let prototype = self.resolve(pointer.size_or_type)?;
            if pointer.kind != kind::POINTER || prototype.kind != kind::FUNC_PROTO {
                return None;
            }
            // The first parameter of the callback is its own data.
            let first = word_at(&self.types, prototype.body + 8 + 4).ok()?;
            Some(Tracepoint {
                arguments: prototype.entries.checked_sub(1)?,
                first_is_pointer: self.resolve(first).is_some_and(|ty| ty.kind == kind::POINTER),
            })
        })
    }

    /// Names and values of an enum.
    #[must_use]
    pub fn enumeration(&self, name: &str) -> Vec<(String, i32)> {
        let Some(ty) = self.named(name).find_map(|id| self.get(id).filter(|ty| ty.kind == kind::ENUM)) else {
            return Vec::new();
        };
        (0..ty.entries)
            .filter_map(|entry| {
                let at = ty.body + entry * 8;
                let name = self.string(word_at(&self.types, at).ok()?).ok()?;
                Some((name.to_owned(), word_at(&self.types, at + 4).ok()?.cast_signed()))
            })
            .collect()
    }
}

/// What BTF says of a raw tracepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracepoint {
    /// Number of arguments.
    pub arguments: usize,
    /// The first argument is a pointer.
    pub first_is_pointer: bool,
}

fn word_at(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes.get(at..at + 4).context("ends too early")?;
    Ok(u32::from_ne_bytes(word.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        assert!(Btf::parse(b"").is_err());
        assert!(Btf::parse(&[0; 64]).is_err());
        let mut truncated = MAGIC.to_ne_bytes().to_vec();
        truncated.extend([1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(Btf::parse(&truncated).is_err());
    }

    #[test]
    fn the_running_kernel_is_understood() {
        if !std::path::Path::new(VMLINUX).exists() {
            eprintln!("skipped: this kernel has no BTF");
            return;
        }
        let btf = Btf::of_running_kernel().unwrap();
        assert_eq!(btf.offset_of("list_head", "prev"), Some(8));
        assert_eq!(btf.size_of("list_head"), Some(16));
        assert!(btf.offset_of("inet_connection_sock", "icsk_ack.lrcvtime").is_some());
        assert_eq!(btf.offset_of("sock", "no_such_member"), None);
        assert_eq!(btf.tracepoint("no_such_tracepoint"), None);
        let state = btf.tracepoint("inet_sock_set_state").unwrap();
        assert_eq!((state.arguments, state.first_is_pointer), (3, true));
    }
}

//! Looks for OpenSSL's functions that read and write plaintext in a file of machine code, and decides where to probe them.
//!
//! Only what the file exports is found: the name of the file says nothing, and a library may be part of a program.
//! Does not depend on: processes, how probes are attached.

use std::fs::File;

use object::{
    Endianness,
    elf::{self, FileHeader64},
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader, ProgramHeader as _, Sym as _},
    },
};

use crate::openssl::prologue;

/// Largest table of symbols, or of their names, that is read, bytes.
const TABLE_CAP: u64 = 64 << 20;
/// Bytes of a function that are read to see how it begins.
const CODE_BYTES: u64 = 96;

/// What a function does with plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// It reads from the connection.
    Read,
    /// It writes to the connection.
    Write,
}

/// How a function says how many bytes it moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counts {
    /// It returns them.
    Returned,
    /// It returns whether it succeeded, and stores them where its fourth argument points.
    Stored,
}

/// What a probe costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cost {
    /// Its instruction is emulated: less than 1 µs.
    Emulated,
    /// Its instruction runs in a single step: 1 to 13 µs.
    Stepped,
}

/// A place at which a probe sees plaintext.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// What the function does.
    pub direction: Direction,
    /// How it counts.
    pub counts: Counts,
    /// Where the probe goes, in bytes from the start of the file.
    pub offset: u64,
    /// What it costs.
    pub cost: Cost,
    /// The exported functions that lead there.
    pub functions: Vec<&'static str>,
}

/// The exported functions of each direction: the one that passes its arguments on in most builds comes first.
const EXPORTED: [(Direction, [(&str, Counts); 2]); 2] = [
    (
        Direction::Read,
        [
            ("SSL_read_ex", Counts::Stored),
            ("SSL_read", Counts::Returned),
        ],
    ),
    (
        Direction::Write,
        [
            ("SSL_write_ex", Counts::Stored),
            ("SSL_write", Counts::Returned),
        ],
    ),
];

/// Returns where to probe `file`; empty if it exports no such functions, or is no 64-bit ELF file of this machine.
pub fn places(file: File) -> Vec<Place> {
    let cache = ReadCache::new(file);
    read(&cache).unwrap_or_default()
}

fn read<'data, R: ReadRef<'data>>(data: R) -> object::Result<Vec<Place>> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let machine = header.e_machine(endian);
    let is_of_this_machine = match machine {
        elf::EM_X86_64 => cfg!(target_arch = "x86_64"),
        elf::EM_AARCH64 => cfg!(target_arch = "aarch64"),
        _ => false,
    };
    if !is_of_this_machine {
        return Ok(Vec::new());
    }
    let sections = header.sections(endian, data)?;
    // Sparse files may claim anything.
    if sections.iter().any(|section| {
        let kind = section.sh_type.get(endian);
        let is_read = matches!(kind, elf::SHT_DYNSYM | elf::SHT_STRTAB | elf::SHT_GNU_HASH);
        is_read && section.sh_size.get(endian) > TABLE_CAP
    }) {
        return Ok(Vec::new());
    }
    let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
    let hashes = sections.gnu_hash(endian, data)?;
    let address_of = |name: &str| {
        let is_it = |symbol: &elf::Sym64<Endianness>| {
            symbol.st_value(endian) != 0
                && !symbol.is_undefined(endian)
                && symbol.st_type() == elf::STT_FUNC
        };
        let found = match &hashes {
            Some((hashes, _)) => {
                let hash = elf::gnu_hash(name.as_bytes());
                let versions = Default::default();
                hashes
                    .find(endian, name.as_bytes(), hash, None, &symbols, &versions)
                    .map(|(_, symbol)| symbol)
            }
            None => symbols
                .iter()
                .find(|symbol| symbols.symbol_name(endian, symbol) == Ok(name.as_bytes())),
        };
        found
            .filter(|symbol| is_it(symbol))
            .map(|symbol| symbol.st_value(endian))
    };
    let segments = header.program_headers(endian, data)?;
    let text = Text {
        offset_of: |address: u64| {
            segments.iter().find_map(|segment| {
                let within = address.checked_sub(segment.p_vaddr(endian))?;
                let is_code = segment.p_type(endian) == elf::PT_LOAD
                    && segment.p_flags(endian) & elf::PF_X != 0
                    && within < segment.p_filesz(endian);
                is_code.then(|| {
                    let left = segment.p_filesz(endian) - within;
                    (segment.p_offset(endian).saturating_add(within), left)
                })
            })
        },
        code_at: |offset: u64, bytes: u64| data.read_bytes_at(offset, bytes).ok(),
        is_x86: machine == elf::EM_X86_64,
    };
    Ok(EXPORTED
        .iter()
        .flat_map(|(direction, functions)| text.places(*direction, functions, address_of))
        .collect())
}

/// The machine code of a file.
struct Text<O, C> {
    /// Where an address is in the file, and how many bytes follow.
    offset_of: O,
    /// The bytes there.
    code_at: C,
    is_x86: bool,
}

impl<'data, O, C> Text<O, C>
where
    O: Fn(u64) -> Option<(u64, u64)>,
    C: Fn(u64, u64) -> Option<&'data [u8]>,
{
    fn code(&self, address: u64) -> Option<&'data [u8]> {
        let (offset, left) = (self.offset_of)(address)?;
        (self.code_at)(offset, left.min(CODE_BYTES))
    }

    /// Where to probe the exported functions of one direction.
    fn places(
        &self,
        direction: Direction,
        functions: &[(&'static str, Counts)],
        address_of: impl Fn(&str) -> Option<u64>,
    ) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        let mut inner = None;
        for &(name, counts) in functions {
            let Some(address) = address_of(name) else {
                continue;
            };
            let Some((entry, _)) = (self.offset_of)(address) else {
                continue;
            };
            let code = self.code(address).filter(|_| self.is_x86);
            if let Some(at) = code.and_then(prologue::emulated_at) {
                places.push(Place {
                    direction,
                    counts,
                    offset: entry + at,
                    cost: Cost::Emulated,
                    functions: vec![name],
                });
                continue;
            }
            let leads_to = code.and_then(|code| match counts {
                Counts::Stored => prologue::forwards_to(code, address),
                Counts::Returned => prologue::first_call(code, address),
            });
            if let (Some(leads_to), Some((known, at))) = (leads_to, inner)
                && leads_to == known
            {
                let place: &mut Place = &mut places[at];
                place.functions.push(name);
                continue;
            }
            let emulated = leads_to
                .filter(|_| counts == Counts::Stored)
                .and_then(|inner| {
                    let at = prologue::emulated_at(self.code(inner)?)?;
                    Some((inner, (self.offset_of)(inner)?.0 + at))
                });
            let (offset, cost) = match emulated {
                Some((target, offset)) => {
                    inner = Some((target, places.len()));
                    (offset, Cost::Emulated)
                }
                None => (entry, Cost::Stepped),
            };
            places.push(Place {
                direction,
                counts,
                offset,
                cost,
                functions: vec![name],
            });
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places in code at address 0x1000, at 0x40 in the file, with functions at these addresses.
    fn found(code: &'static [u8], exported: &[(&str, u64)]) -> Vec<(Counts, u64, Cost, usize)> {
        let text = Text {
            offset_of: |address: u64| {
                let within = address.checked_sub(0x1000)?;
                let left = (code.len() as u64).checked_sub(within)?;
                Some((0x40 + within, left))
            },
            code_at: |offset: u64, bytes: u64| {
                let at = offset as usize - 0x40;
                code.get(at..at + bytes as usize)
            },
            is_x86: true,
        };
        let address_of = |name: &str| {
            let mut exported = exported.iter();
            exported.find_map(|(known, at)| (*known == name).then_some(*at))
        };
        let places = text.places(Direction::Read, &EXPORTED[0].1, address_of);
        let shown = |place: &Place| {
            (
                place.counts,
                place.offset,
                place.cost,
                place.functions.len(),
            )
        };
        places.iter().map(shown).collect()
    }

    /// An inner function at 0x1000, one that forwards to it at 0x1010, and one that calls it with a fourth argument of its own
    /// at 0x1020.
    const CODE: &[u8] = &[
        0x41, 0x55, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
        0xcc, // 0x1010
        0x48, 0x83, 0xec, 0x08, 0xe8, 0xe7, 0xff, 0xff, 0xff, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
        0xcc, // 0x1020
        0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0xe1, 0xe8, 0xd4, 0xff, 0xff, 0xff, 0xc3, 0xcc, 0xcc,
        0xcc, // 0x1030
        0x55, 0xc3, 0xcc, 0xcc,
    ];

    #[test]
    fn functions_that_lead_to_one_place_share_a_probe() {
        let both = [("SSL_read_ex", 0x1010), ("SSL_read", 0x1020)];
        let expected = vec![(Counts::Stored, 0x40, Cost::Emulated, 2)];
        assert_eq!(found(CODE, &both), expected);
    }

    #[test]
    fn functions_without_a_shared_place_are_probed_at_their_entries() {
        let both = [("SSL_read_ex", 0x1000), ("SSL_read", 0x1030)];
        let expected = vec![
            (Counts::Stored, 0x40, Cost::Emulated, 1),
            (Counts::Returned, 0x70, Cost::Emulated, 1),
        ];
        assert_eq!(found(CODE, &both), expected);
        // The one that does not forward its arguments alone.
        let expected = vec![(Counts::Returned, 0x60, Cost::Stepped, 1)];
        assert_eq!(found(CODE, &[("SSL_read", 0x1020)]), expected);
        assert_eq!(found(CODE, &[("SSL_read", 0x9000)]), []);
        assert_eq!(found(CODE, &[]), []);
    }

    #[test]
    fn a_file_without_the_functions_has_no_places() {
        let own = File::open("/proc/self/exe").unwrap();
        assert_eq!(places(own), []);
        assert_eq!(places(File::open("/proc/self/maps").unwrap()), []);
        assert_eq!(places(File::open("/").unwrap()), []);
    }
}

//! Reads struct member offsets, enumerator values and function names from the kernel's type information (BTF).
//!
//! Parses only what `offsets` needs of the format (Documentation/bpf/btf.rst, v6.18), because aya's parser hides members.
//! Does not depend on: which members the agent reads.

/// Why an offset is unavailable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes are not BTF, or are truncated.
    #[error("malformed BTF at byte {0}")]
    Malformed(usize),
    /// No struct has that name.
    #[error("the kernel's BTF has no struct {0}")]
    NoStruct(String),
    /// The struct has no such member.
    #[error("the kernel's struct {0} has no member {1}")]
    NoMember(String, String),
}

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// An index of the types of a kernel.
#[derive(Debug)]
pub struct Types<'a> {
    data: &'a [u8],
    strings: usize,
    /// Byte position of each type, from id 1.
    positions: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Type {
    position: usize,
    name: u32,
    kind: u32,
    members: usize,
    /// Whether member offsets carry a bit-field size in their top byte.
    packed_offsets: bool,
    /// Size, or id of the type that it refers to.
    of: u32,
}

impl<'a> Types<'a> {
    /// Indexes `data`, the content of `/sys/kernel/btf/vmlinux`.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        if u16_at(data, 0)? != MAGIC {
            return Err(BtfError::Malformed(0));
        }
        let header = u32_at(data, 4)? as usize;
        let types = header + u32_at(data, 8)? as usize;
        let types_end = types + u32_at(data, 12)? as usize;
        let strings = header + u32_at(data, 16)? as usize;
        let mut this = Self {
            data,
            strings,
            positions: Vec::new(),
        };
        let mut position = types;
        while position < types_end {
            this.positions
                .push(u32::try_from(position).map_err(|_| BtfError::Malformed(position))?);
            let ty = this.type_at(position)?;
            position +=
                12 + trailer_bytes(ty.kind, ty.members).ok_or(BtfError::Malformed(position))?;
        }
        Ok(this)
    }

    /// Returns the offset in bytes of `path` (members joined by dots) in the struct called `name`.
    ///
    /// Looks into anonymous structs and unions as C does. An array counts as its first element.
    pub fn offset(&self, name: &str, path: &str) -> Result<u32, BtfError> {
        let mut ty = self.named_struct(name)?;
        let mut bits = 0;
        for (depth, member) in path.split('.').enumerate() {
            if depth > 0 && !matches!(ty.kind, KIND_STRUCT | KIND_UNION) {
                return Err(BtfError::NoMember(name.into(), path.into()));
            }
            let (offset, of) = self
                .member(ty, member)?
                .ok_or_else(|| BtfError::NoMember(name.into(), path.into()))?;
            bits += offset;
            ty = self.resolve(of)?;
        }
        Ok(bits / 8)
    }

    /// Returns the offset in bytes of the first of `paths` that the struct called `name` has.
    pub fn offset_of_any(&self, name: &str, paths: &[&str]) -> Result<u32, BtfError> {
        let mut missing = None;
        for path in paths {
            match self.offset(name, path) {
                Err(err @ BtfError::NoMember(..)) => missing = missing.or(Some(err)),
                found => return found,
            }
        }
        Err(missing.unwrap_or_else(|| BtfError::NoMember(name.into(), String::new())))
    }

    /// Returns the value of the enumerator called `name` of any `enum`; `None` if there is none.
    pub fn enumerator(&self, name: &str) -> Option<u32> {
        for &position in &self.positions {
            let ty = self.type_at(position as usize).ok()?;
            if ty.kind != KIND_ENUM {
                continue;
            }
            for index in 0..ty.members {
                let at = ty.position + 12 + index * 8;
                if self.string(u32_at(self.data, at).ok()?) == Some(name.as_bytes()) {
                    return u32_at(self.data, at + 4).ok();
                }
            }
        }
        None
    }

    /// Returns whether the kernel has a function called `name`.
    pub fn has_function(&self, name: &str) -> bool {
        self.has(KIND_FUNC, name)
    }

    /// Returns whether the kernel has a `typedef` called `name`.
    pub fn has_typedef(&self, name: &str) -> bool {
        self.has(KIND_TYPEDEF, name)
    }

    fn has(&self, kind: u32, name: &str) -> bool {
        self.positions.iter().any(|&position| {
            self.type_at(position as usize)
                .is_ok_and(|ty| ty.kind == kind && self.string(ty.name) == Some(name.as_bytes()))
        })
    }

    fn named_struct(&self, name: &str) -> Result<Type, BtfError> {
        for &position in &self.positions {
            let ty = self.type_at(position as usize)?;
            if ty.kind == KIND_STRUCT
                && ty.members > 0
                && self.string(ty.name) == Some(name.as_bytes())
            {
                return Ok(ty);
            }
        }
        Err(BtfError::NoStruct(name.into()))
    }

    /// Returns the bit offset and the type id of a member.
    fn member(&self, ty: Type, name: &str) -> Result<Option<(u32, u32)>, BtfError> {
        for index in 0..ty.members {
            let at = ty.position + 12 + index * 12;
            let member_name = u32_at(self.data, at)?;
            let of = u32_at(self.data, at + 4)?;
            let mut offset = u32_at(self.data, at + 8)?;
            if ty.packed_offsets {
                offset &= 0x00ff_ffff;
            }
            match self.string(member_name) {
                Some(found) if found == name.as_bytes() => return Ok(Some((offset, of))),
                Some([]) => {
                    let inner = self.resolve(of)?;
                    if matches!(inner.kind, KIND_STRUCT | KIND_UNION)
                        && let Some((inside, of)) = self.member(inner, name)?
                    {
                        return Ok(Some((offset + inside, of)));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Follows typedefs, qualifiers and arrays to the type itself.
    fn resolve(&self, id: u32) -> Result<Type, BtfError> {
        let mut id = id;
        for _ in 0..32 {
            let index = (id as usize).checked_sub(1).ok_or(BtfError::Malformed(0))?;
            let position = *self
                .positions
                .get(index)
                .ok_or(BtfError::Malformed(index))?;
            let ty = self.type_at(position as usize)?;
            match ty.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_TYPE_TAG => id = ty.of,
                KIND_ARRAY => id = u32_at(self.data, ty.position + 12)?,
                _ => return Ok(ty),
            }
        }
        Err(BtfError::Malformed(id as usize))
    }

    fn type_at(&self, position: usize) -> Result<Type, BtfError> {
        let info = u32_at(self.data, position + 4)?;
        Ok(Type {
            position,
            name: u32_at(self.data, position)?,
            kind: info >> 24 & 0x1f,
            members: (info & 0xffff) as usize,
            packed_offsets: info >> 31 == 1,
            of: u32_at(self.data, position + 8)?,
        })
    }

    fn string(&self, offset: u32) -> Option<&'a [u8]> {
        let tail = self.data.get(self.strings + offset as usize..)?;
        tail.split(|&byte| byte == 0).next()
    }
}

/// Returns the number of bytes after the twelve that every type has; `None` for an unknown kind.
fn trailer_bytes(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * members,
        KIND_ENUM | KIND_FUNC_PROTO => 8 * members,
        2 | 7..=12 | 16 | KIND_TYPE_TAG => 0,
        _ => return None,
    })
}

fn u32_at(data: &[u8], at: usize) -> Result<u32, BtfError> {
    let bytes = data.get(at..at + 4).ok_or(BtfError::Malformed(at))?;
    Ok(u32::from_ne_bytes(
        bytes.try_into().expect("a slice of four bytes"),
    ))
}

fn u16_at(data: &[u8], at: usize) -> Result<u16, BtfError> {
    let bytes = data.get(at..at + 2).ok_or(BtfError::Malformed(at))?;
    Ok(u16::from_ne_bytes(
        bytes.try_into().expect("a slice of two bytes"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BTF image: `struct outer { int a; struct { int b; inner c; }; }`, `typedef struct inner inner`,
    /// `struct inner { int d; int e; }`.
    fn image() -> Vec<u8> {
        let strings = b"\0int\0a\0b\0c\0outer\0d\0e\0inner\0FIRST\0SECOND\0call\0";
        let name = |needle: &str| {
            let needle = format!("{needle}\0");
            let at = strings
                .windows(needle.len())
                .position(|window| window == needle.as_bytes());
            u32::try_from(at.unwrap()).unwrap()
        };
        let of_struct = |members: u32| KIND_STRUCT << 24 | members;
        let words = [
            // 1: int
            name("int"),
            KIND_INT << 24,
            4,
            32,
            // 2: struct inner
            name("inner"),
            of_struct(2),
            8,
            name("d"),
            1,
            0,
            name("e"),
            1,
            32,
            // 3: typedef inner
            name("inner"),
            KIND_TYPEDEF << 24,
            2,
            // 4: anonymous struct
            0,
            of_struct(2),
            12,
            name("b"),
            1,
            0,
            name("c"),
            3,
            32,
            // 5: struct outer
            name("outer"),
            of_struct(2),
            16,
            name("a"),
            1,
            0,
            0,
            4,
            32,
            // 6: enum
            0,
            KIND_ENUM << 24 | 2,
            4,
            name("FIRST"),
            3,
            name("SECOND"),
            4,
            // 7: function
            name("call"),
            KIND_FUNC << 24,
            0,
        ];
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut data = Vec::new();
        data.extend(MAGIC.to_ne_bytes());
        data.extend([1, 0]);
        for word in [24, 0, types.len(), types.len(), strings.len()] {
            data.extend(u32::try_from(word).unwrap().to_ne_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn members_are_found_through_anonymous_structs_and_typedefs() {
        let data = image();
        let types = Types::parse(&data).unwrap();
        assert_eq!(types.offset("outer", "a"), Ok(0));
        assert_eq!(types.offset("outer", "b"), Ok(4));
        assert_eq!(types.offset("outer", "c.e"), Ok(12));
        assert_eq!(types.offset("inner", "e"), Ok(4));
    }

    #[test]
    fn enumerators_and_functions_are_found_by_name() {
        let data = image();
        let types = Types::parse(&data).unwrap();
        assert_eq!(types.enumerator("SECOND"), Some(4));
        assert_eq!(types.enumerator("call"), None);
        assert!(types.has_function("call"));
        assert!(!types.has_function("outer"));
    }

    #[test]
    fn offset_of_any_takes_the_first_path_that_exists() {
        let data = image();
        let types = Types::parse(&data).unwrap();
        assert_eq!(types.offset_of_any("outer", &["z", "b", "a"]), Ok(4));
        assert_eq!(
            types.offset_of_any("outer", &["y", "z"]),
            Err(BtfError::NoMember("outer".into(), "y".into()))
        );
    }

    #[test]
    fn errors_name_the_missing_struct_or_member() {
        let data = image();
        let types = Types::parse(&data).unwrap();
        assert_eq!(
            types.offset("nope", "a"),
            Err(BtfError::NoStruct("nope".into()))
        );
        assert_eq!(
            types.offset("outer", "c.z"),
            Err(BtfError::NoMember("outer".into(), "c.z".into()))
        );
        assert_eq!(
            types.offset("outer", "a.b"),
            Err(BtfError::NoMember("outer".into(), "a.b".into()))
        );
    }

    #[test]
    fn truncated_images_are_errors_not_panics() {
        let data = image();
        for len in 0..data.len() {
            if let Ok(types) = Types::parse(&data[..len]) {
                let _ = types.offset("outer", "c.e");
            }
        }
        assert_eq!(Types::parse(b"ELF!").unwrap_err(), BtfError::Malformed(0));
    }
}

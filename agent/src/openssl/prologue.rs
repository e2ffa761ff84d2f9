//! Reads how a function of x86-64 begins, to find the instruction on which a probe costs least.
//!
//! The kernel emulates a probed `push` (arch/x86/kernel/uprobes.c, `push_setup_xol_ops`, 4.17). What it does not emulate it runs
//! elsewhere in a single step, which takes an exception: in a virtual machine, 20 times as long.
//! Does not depend on: files, symbols.

/// `endbr64`: where an indirect branch may go to.
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// Most bytes of an instruction.
const LEN_CAP: usize = 15;
/// Registers that hold the first four arguments, by their numbers: rcx, rdx, rsi, rdi.
const ARGUMENTS: [u8; 4] = [1, 2, 6, 7];

/// An instruction, as far as a prologue is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    len: usize,
    does: Does,
}

/// What an instruction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Pushes a register.
    Push,
    /// Calls, or jumps to, what is so far from its end.
    Call(i32),
    Jump(i32),
    /// Jumps on a condition.
    Branch,
    /// Returns.
    Return,
    /// Writes no argument.
    KeepsArguments,
    /// May write an argument.
    Other,
}

/// Returns how many bytes after the start of `code`, a function, a probe is emulated, with arguments and return address where
/// the caller left them; `None`: nowhere.
pub fn emulated_at(code: &[u8]) -> Option<u64> {
    let at = match code.starts_with(&ENDBR) {
        true => ENDBR.len(),
        false => 0,
    };
    let first = decode(&code[at..])?;
    (first.does == Does::Push).then_some(at as u64)
}

/// Returns what `code`, a function at `address`, calls first, if the call gets the four arguments that the function got, and
/// every call of the function leads there.
pub fn forwards_to(code: &[u8], address: u64) -> Option<u64> {
    let mut at = 0;
    loop {
        let instruction = decode(code.get(at..)?)?;
        at += instruction.len;
        match instruction.does {
            Does::Push | Does::KeepsArguments => {}
            Does::Call(distance) | Does::Jump(distance) => {
                return target(address, at, distance);
            }
            Does::Branch | Does::Return | Does::Other => return None,
        }
    }
}

/// Returns what `code`, a function at `address`, calls first if it takes none of its branches.
pub fn first_call(code: &[u8], address: u64) -> Option<u64> {
    let mut at = 0;
    loop {
        let instruction = decode(code.get(at..)?)?;
        at += instruction.len;
        match instruction.does {
            Does::Call(distance) => return target(address, at, distance),
            Does::Jump(_) | Does::Return => return None,
            _ => {}
        }
    }
}

fn target(address: u64, end: usize, distance: i32) -> Option<u64> {
    address
        .checked_add(end as u64)?
        .checked_add_signed(distance.into())
}

/// Prefixes of an instruction that change its length or its registers.
#[derive(Default)]
struct Prefixes {
    /// Whether operands have 16 bits.
    short: bool,
    /// W, R and B of REX.
    wide: bool,
    reg: u8,
    base: u8,
}

/// Decodes the instruction that `code` begins with; `None` if it is cut, or none that prologues have.
fn decode(code: &[u8]) -> Option<Instruction> {
    if code.starts_with(&ENDBR) {
        return Some(Instruction {
            len: ENDBR.len(),
            does: Does::KeepsArguments,
        });
    }
    let mut prefixes = Prefixes::default();
    let mut at = 0;
    while let byte @ (0x64..=0x66) = *code.get(at)? {
        prefixes.short |= byte == 0x66;
        at += 1;
        if at == LEN_CAP {
            return None;
        }
    }
    if let rex @ 0x40..=0x4f = *code.get(at)? {
        prefixes.wide = rex & 8 != 0;
        prefixes.reg = (rex & 4) << 1;
        prefixes.base = (rex & 1) << 3;
        at += 1;
    }
    let opcode = *code.get(at)?;
    at += 1;
    let (more, does) = operands(opcode, &prefixes, &code[at..])?;
    let len = at + more;
    (len <= LEN_CAP && len <= code.len()).then_some(Instruction { len, does })
}

/// Returns the bytes after an opcode, and what the instruction does.
fn operands(opcode: u8, prefixes: &Prefixes, rest: &[u8]) -> Option<(usize, Does)> {
    let immediate = match prefixes.short {
        true => 2,
        false => 4,
    };
    let keeps = Does::KeepsArguments;
    let distance = || Some(i32::from_le_bytes(*rest.first_chunk()?));
    let simple = match opcode {
        0x50..=0x57 if !prefixes.short => (0, Does::Push),
        0x58..=0x5f => (0, written(opcode & 7 | prefixes.base)),
        0x70..=0x7f => (1, Does::Branch),
        0x90 => (0, keeps),
        0xb8..=0xbf => {
            let bytes = if prefixes.wide { 8 } else { immediate };
            (bytes, written(opcode & 7 | prefixes.base))
        }
        0xc3 => (0, Does::Return),
        0xe8 => (4, Does::Call(distance()?)),
        0xe9 => (4, Does::Jump(distance()?)),
        0xeb => (1, Does::Jump(rest.first()?.cast_signed().into())),
        0x0f => return two_bytes(prefixes, rest),
        _ => return with_operand(opcode, immediate, prefixes, rest),
    };
    Some(simple)
}

/// The same for an opcode that names a register and a place.
fn with_operand(
    opcode: u8,
    immediate: usize,
    prefixes: &Prefixes,
    rest: &[u8],
) -> Option<(usize, Does)> {
    let operand = Operand::parse(prefixes, rest)?;
    let len = operand.len;
    Some(match opcode {
        // add, or, and, sub, xor, mov: from a register.
        0x01 | 0x09 | 0x21 | 0x29 | 0x31 | 0x88 | 0x89 => (len, operand.place_written()),
        // The same to one, movslq and lea.
        0x03 | 0x0b | 0x23 | 0x2b | 0x33 | 0x63 | 0x8a | 0x8b | 0x8d => (len, written(operand.reg)),
        // cmp and test.
        0x38..=0x3b | 0x84 | 0x85 => (len, Does::KeepsArguments),
        0x80 | 0x83 if operand.reg & 7 == 7 => (len + 1, Does::KeepsArguments),
        0x80 | 0x83 => (len + 1, operand.place_written()),
        0x81 if operand.reg & 7 == 7 => (len + immediate, Does::KeepsArguments),
        0x81 => (len + immediate, operand.place_written()),
        0xc6 => (len + 1, operand.place_written()),
        0xc7 => (len + immediate, operand.place_written()),
        0xf6 if operand.reg & 7 == 0 => (len + 1, Does::KeepsArguments),
        0xf7 if operand.reg & 7 == 0 => (len + immediate, Does::KeepsArguments),
        _ => return None,
    })
}

/// The same for an opcode of two bytes, of which `rest` begins with the second.
fn two_bytes(prefixes: &Prefixes, rest: &[u8]) -> Option<(usize, Does)> {
    let (&opcode, rest) = rest.split_first()?;
    match opcode {
        0x80..=0x8f => (rest.len() >= 4).then_some((5, Does::Branch)),
        // nop
        0x1f => Some((
            1 + Operand::parse(prefixes, rest)?.len,
            Does::KeepsArguments,
        )),
        // cmov, movzx, movsx
        0x40..=0x4f | 0xb6 | 0xb7 | 0xbe | 0xbf => {
            let operand = Operand::parse(prefixes, rest)?;
            Some((1 + operand.len, written(operand.reg)))
        }
        _ => None,
    }
}

/// What an instruction does that writes this register.
fn written(register: u8) -> Does {
    match ARGUMENTS.contains(&register) {
        true => Does::Other,
        false => Does::KeepsArguments,
    }
}

/// The operands of an instruction: a register, and another one or a place in memory.
struct Operand {
    reg: u8,
    /// The other register; `None`: a place in memory.
    other: Option<u8>,
    /// Bytes that name them.
    len: usize,
}

impl Operand {
    fn parse(prefixes: &Prefixes, rest: &[u8]) -> Option<Self> {
        let names = *rest.first()?;
        let (mode, low) = (names >> 6, names & 7);
        let (index, displacement) = match (mode, low) {
            (3, _) => (0, 0),
            (0, 5) => (0, 4),
            (_, 4) => match (mode, rest.get(1)? & 7) {
                (0, 5) | (2, _) => (1, 4),
                (0, _) => (1, 0),
                _ => (1, 1),
            },
            (0, _) => (0, 0),
            (1, _) => (0, 1),
            _ => (0, 4),
        };
        Some(Self {
            reg: names >> 3 & 7 | prefixes.reg,
            other: (mode == 3).then_some(low | prefixes.base),
            len: 1 + index + displacement,
        })
    }

    /// What an instruction does that writes the other register, or the place.
    fn place_written(&self) -> Does {
        self.other.map_or(Does::KeepsArguments, written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function that keeps a canary, checks its third argument and gives a fourth of its own, as `SSL_read` does.
    const CHECKS: &[u8] = &[
        0x48, 0x83, 0xec, 0x18, // sub $0x18,%rsp
        0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0, // mov %fs:0x28,%rax
        0x48, 0x89, 0x44, 0x24, 0x08, // mov %rax,8(%rsp)
        0x31, 0xc0, // xor %eax,%eax
        0x85, 0xd2, // test %edx,%edx
        0x78, 0x2f, // js
        0x48, 0x89, 0xe1, // mov %rsp,%rcx
        0x48, 0x63, 0xd2, // movslq %edx,%rdx
        0xe8, 0x3d, 0xfe, 0xff, 0xff, // call
    ];
    /// One that passes its arguments on, as `SSL_read_ex` does.
    const FORWARDS: &[u8] = &[
        0x48, 0x83, 0xec, 0x08, // sub $8,%rsp
        0xe8, 0xc7, 0xfd, 0xff, 0xff, // call
    ];

    #[test]
    fn functions_that_pass_their_arguments_on_are_followed() {
        assert_eq!(forwards_to(FORWARDS, 0x354c0), Some(0x35290));
        assert_eq!(first_call(CHECKS, 0x35430), Some(0x35290));
        assert_eq!(forwards_to(CHECKS, 0x35430), None);
        let marked = [&ENDBR, FORWARDS].concat();
        assert_eq!(forwards_to(&marked, 0x354bc), Some(0x35290));
        // A jump ends the function, so every call leads there.
        assert_eq!(forwards_to(&[0xe9, 0x10, 0, 0, 0], 0x1000), Some(0x1015));
        assert_eq!(forwards_to(&[0xeb, 0xfe], 0x1000), Some(0x1000));
    }

    #[test]
    fn a_written_argument_or_a_branch_ends_the_following() {
        for before in [
            &[0x48, 0x89, 0xe1][..],   // mov %rsp,%rcx
            &[0x31, 0xff],             // xor %edi,%edi
            &[0xbe, 1, 0, 0, 0],       // mov $1,%esi
            &[0x5a],                   // pop %rdx
            &[0x48, 0x8d, 0x0c, 0x24], // lea (%rsp),%rcx
            &[0x74, 0x00],             // je
            &[0x0f, 0x84, 0, 0, 0, 0], // je
            &[0xc3],                   // ret
            &[0xcc],                   // int3
        ] {
            let code = [before, FORWARDS].concat();
            assert_eq!(forwards_to(&code, 0x1000), None, "{before:x?}");
        }
        for before in [
            &[0x49, 0x89, 0xf8][..],               // mov %rdi,%r8
            &[0x41, 0x54],                         // push %r12
            &[0x48, 0x89, 0x4c, 0x24, 8],          // mov %rcx,8(%rsp)
            &[0x83, 0xbf, 1, 0, 0, 0, 0],          // cmpl $0,1(%rdi)
            &[0x48, 0x81, 0xec, 0, 1, 0, 0],       // sub $0x100,%rsp
            &[0x66, 0x0f, 0x1f, 0x44, 0, 0],       // nop
            &[0x48, 0x8b, 0x05, 0, 0, 0, 0],       // mov 0(%rip),%rax
            &[0x49, 0xb9, 1, 2, 3, 4, 5, 6, 7, 8], // movabs %r9
        ] {
            let code = [before, FORWARDS].concat();
            let expected = 0x1000 + before.len() as u64 + 9 - 0x239;
            assert_eq!(forwards_to(&code, 0x1000), Some(expected), "{before:x?}");
        }
    }

    #[test]
    fn only_a_push_at_the_entry_is_emulated() {
        assert_eq!(emulated_at(&[0x55]), Some(0));
        assert_eq!(emulated_at(&[0x41, 0x57]), Some(0));
        assert_eq!(emulated_at(&[&ENDBR[..], &[0x53]].concat()), Some(4));
        for code in [FORWARDS, &ENDBR, &[], &[0x66, 0x55], &[0x31, 0xc0]] {
            assert_eq!(emulated_at(code), None, "{code:x?}");
        }
    }

    #[test]
    fn cut_code_leads_nowhere() {
        for end in 0..FORWARDS.len() {
            assert_eq!(forwards_to(&FORWARDS[..end], 0), None, "{end}");
        }
        for end in 0..CHECKS.len() {
            assert_eq!(first_call(&CHECKS[..end], 0), None, "{end}");
        }
        assert_eq!(forwards_to(&[0x66; 40], 0), None);
    }
}

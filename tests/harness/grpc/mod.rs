//! gRPC calls, their clients, and a gRPC server that stamps its own reads and writes.
//!
//! The `h2` crate does framing and header blocks; [`Call`] defines the messages.

pub mod client;
pub mod python;
pub mod server;
mod stamped;

/// The method of every call; its message names the model.
pub const METHOD: &str = "/inference.GRPCInferenceService/ModelInfer";

/// A call, as its message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// `grpc-status` with which the server must end it.
    pub code: u32,
    /// Time that the server must take, in microseconds.
    pub work_us: u32,
}

/// gRPC codes that calls of these tests end with, their models, and the corresponding HTTP codes.
pub const CODES: [(u32, &str, u16); 4] = [
    (0, "fine", 200),
    (3, "picky", 400),
    (5, "absent", 404),
    (14, "busy", 503),
];

impl Call {
    /// Returns call number `index` of a test: of ten, seven succeed, and one ends with each other code.
    pub fn nth(index: usize) -> Self {
        let (code, ..) = CODES[(index % 10).saturating_sub(6)];
        let work_us = [0, 300, 700][index % 3];
        Self { code, work_us }
    }

    /// Returns the model that its message names.
    pub fn model(self) -> &'static str {
        let named = CODES.iter().find(|(code, ..)| *code == self.code);
        named.expect("calls have codes of the table").1
    }

    /// Returns its message with the prefix: the model's name, and an input with the rest.
    fn message(self) -> Vec<u8> {
        let model = self.model().as_bytes();
        let input = [self.code.to_be_bytes(), self.work_us.to_be_bytes()].concat();
        let field = |tag: u8, value: &[u8]| {
            let len = u8::try_from(value.len()).expect("fields of these tests are short");
            [&[tag, len], value].concat()
        };
        let message = [field(0x0a, model), field(0x3a, &input)].concat();
        let len = u32::try_from(message.len()).expect("it is short");
        [&[0][..], &len.to_be_bytes(), &message].concat()
    }

    /// Reads what [`Call::message`] wrote.
    fn parse(message: &[u8]) -> Self {
        let (_, input) = message
            .split_at_checked(message.len().wrapping_sub(8))
            .expect("a message ends with its input");
        let number = |at: usize| {
            u32::from_be_bytes(input[at..at + 4].try_into().expect("four bytes are four"))
        };
        Self {
            code: number(0),
            work_us: number(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_the_call_is() {
        for index in 0..30 {
            let call = Call::nth(index);
            assert_eq!(Call::parse(&call.message()), call);
        }
        let fine = (0..10).filter(|index| Call::nth(*index).code == 0).count();
        assert_eq!(fine, 7);
    }
}

//! How much memory a protobuf message will take, told from its bytes before it is decoded.
//!
//! An empty message of two bytes becomes a struct of several hundred, so a file that is well below
//! the limit on its size can be one that no machine can decode. Only what is repeated or nested is
//! counted: the rest takes no more than in proportion.

use bytes::Buf;

use super::{LoadError, Payload};

/// A message type: what one takes, and those of its fields that take memory of their own.
#[derive(Debug)]
pub(in crate::load) struct Schema {
    /// `size_of` the decoded message.
    pub(in crate::load) bytes: usize,
    pub(in crate::load) fields: &'static [(u64, Field)],
}

/// What a field becomes.
#[derive(Debug)]
pub(in crate::load) enum Field {
    /// A message of this type.
    Message(&'static Schema),
    /// Text or bytes, with a header of the size of a `Vec`.
    Text,
    /// Numbers of this many bytes each, one of them in a byte of the file where they are packed.
    Numbers(usize),
}

/// How deep messages may lie in each other; prost ends there too.
const MAX_DEPTH: usize = 100;
/// A list grows by doubling, so that half of it may be room.
const ROOM: u64 = 2;

/// Refuses a message that would take more than the budget. Bytes that are no message at all pass:
/// the decoder says what is wrong with them, and gets no further than this has looked.
///
/// # Errors
/// [`LoadError::OverBudget`].
pub(in crate::load) fn check(
    payload: &Payload,
    schema: &'static Schema,
    budget: u64,
) -> Result<(), LoadError> {
    let needed = weigh(&mut Reader { at: 0, payload: payload.clone() }, schema, budget);
    if needed > budget {
        return Err(LoadError::OverBudget { what: "the decoded file".to_owned(), needed, budget });
    }
    Ok(())
}

/// The bytes that the message takes, or what there is of it until the budget is passed.
fn weigh(reader: &mut Reader, schema: &'static Schema, budget: u64) -> u64 {
    let mut needed = schema.bytes as u64;
    let mut open = vec![(schema, reader.payload.len())];
    while needed <= budget {
        let Some((schema, end)) = open.last().copied() else { break };
        if reader.at >= end {
            open.pop();
            continue;
        }
        let Some((number, wire_type)) = reader.varint().map(|key| (key >> 3, key & 7)) else { break };
        let field = schema.fields.iter().find(|(n, _)| *n == number).map(|(_, field)| field);
        let length = match wire_type {
            0 => reader.varint().map(|_| 0),
            1 => Some(8),
            2 => reader.varint().and_then(|length| usize::try_from(length).ok()),
            5 => Some(4),
            _ => None,
        };
        let Some(length) = length.filter(|length| *length <= end.saturating_sub(reader.at)) else { break };
        needed = needed.saturating_add(match (field, wire_type) {
            (Some(Field::Message(inner)), 2) => ROOM * inner.bytes as u64,
            (Some(Field::Text), 2) => ROOM * size_of::<Vec<u8>>() as u64 + length as u64,
            (Some(Field::Numbers(width)), 2) => (length * width) as u64,
            (Some(Field::Numbers(width)), _) => ROOM * *width as u64,
            _ => 0,
        });
        match field {
            Some(Field::Message(inner)) if wire_type == 2 => {
                if open.len() > MAX_DEPTH {
                    break;
                }
                open.push((inner, reader.at + length));
            }
            _ => reader.skip(length),
        }
    }
    needed
}

struct Reader {
    at: usize,
    payload: Payload,
}

impl Reader {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            if !self.payload.has_remaining() {
                return None;
            }
            let byte = self.payload.get_u8();
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn skip(&mut self, count: usize) {
        self.payload.advance(count);
        self.at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static LEAF: Schema = Schema { bytes: 100, fields: &[(1, Field::Text), (2, Field::Numbers(8))] };
    static TREE: Schema =
        Schema { bytes: 50, fields: &[(1, Field::Message(&LEAF)), (2, Field::Message(&TREE))] };

    fn weight(bytes: Vec<u8>) -> u64 {
        weigh(&mut Reader { at: 0, payload: bytes.into() }, &TREE, u64::MAX)
    }

    #[test]
    fn every_message_counts_wherever_it_lies() {
        assert_eq!(weight(vec![]), 50);
        assert_eq!(weight([0x0a, 0].repeat(10)), 50 + 10 * 2 * 100);
        // A tree in a tree in the root, with a leaf that has a text of one byte and three numbers.
        let leaf = [0x0a, 8, 0x0a, 1, b'x', 0x12, 3, 1, 2, 3];
        let bytes = [&[0x12, 12, 0x12, 10][..], &leaf].concat();
        assert_eq!(weight(bytes), 50 + 2 * 2 * 50 + 2 * 100 + 2 * 24 + 1 + 3 * 8);
        // What the type does not have is skipped.
        assert_eq!(weight(vec![0x1a, 4, 0x0a, 0, 0x0a, 0]), 50);
    }

    #[test]
    fn bytes_that_are_no_message_are_left_to_the_decoder() {
        for bytes in [&[0x0a][..], &[0x0a, 0xff, 0xff, 0xff, 0x7f], &[0xff; 20], &[0x0b, 0x0b]] {
            assert_eq!(weight(bytes.to_vec()), 50, "{bytes:?}");
        }
    }

    #[test]
    fn empty_messages_cannot_grow_past_the_budget() {
        let payload = Payload::from([0x0a, 0].repeat(1000));
        assert!(check(&payload, &TREE, 300_000).is_ok());
        let refused = check(&payload, &TREE, 100_000);
        assert!(matches!(refused, Err(LoadError::OverBudget { budget: 100_000, .. })), "{refused:?}");
    }
}

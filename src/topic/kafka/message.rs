//! librdkafka's messages as records.

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, OwnedHeaders};

use crate::memory;
use crate::release::Position;
use crate::wire::{Header, Record};

/// The record in a message; its bytes are copied out of the client's memory, those of a value only where
/// its key is not `omitted`.
pub(super) fn record(message: &BorrowedMessage<'_>, omitted: fn(&[u8]) -> bool) -> Record {
    let key = message.key().unwrap_or_default();
    let headers = message.headers().map(|headers| {
        let value = |v: Option<&[u8]>| v.map_or_else(Bytes::new, Bytes::copy_from_slice);
        headers.iter().map(|h| Header { name: h.key.to_owned(), value: value(h.value) }).collect()
    });
    Record {
        position: Position { partition: message.partition(), offset: message.offset() },
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: Bytes::copy_from_slice(key),
        value: message.payload().map(|v| if omitted(key) { Bytes::new() } else { memory::copied(v) }),
        headers: headers.unwrap_or_default(),
    }
}

/// Headers to send; `None` where there are none.
pub(super) fn headers(headers: &[Header]) -> Option<OwnedHeaders> {
    (!headers.is_empty()).then(|| {
        headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |all, header| {
            all.insert(rdkafka::message::Header { key: &header.name, value: Some(header.value.as_ref()) })
        })
    })
}

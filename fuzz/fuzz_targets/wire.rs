#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use modelswap::wire::{
    Announcement, FORMAT_HEADER, Header, Key, Record, SHA256_HEADER, VERSION_HEADER, announcement,
    decode_release, encode_release, partition_of,
};
use modelswap::{ModelName, Position};

/// The name that the release documents of the seeds have.
const MODEL: &str = "fraud";

const AT: Position = Position { partition: 0, offset: 0 };

fuzz_target!(|bytes: &[u8]| {
    let model: ModelName = MODEL.parse().expect("a model name");
    assert!((0..7).contains(&partition_of(bytes, 7)));
    if let Some(key) = Key::parse(bytes) {
        assert_eq!(key.to_string().as_bytes(), bytes, "a key has one form");
    }
    if let Ok(release) = decode_release(&model, bytes, AT) {
        let again = decode_release(&model, &encode_release(&release), AT);
        assert_eq!(again.as_ref(), Ok(&release), "a release reads what it writes");
    }
    // The same bytes as the headers and the value of a record.
    let pieces: Vec<&[u8]> = bytes.splitn(4, |b| *b == b'\n').collect();
    let headers = [SHA256_HEADER, VERSION_HEADER, FORMAT_HEADER].iter().zip(&pieces);
    let record = Record {
        position: AT,
        timestamp_ms: 0,
        key: Bytes::from_static(MODEL.as_bytes()),
        value: pieces.last().map(|value| Bytes::copy_from_slice(value)),
        headers: headers
            .map(|(name, value)| Header { name: (*name).to_owned(), value: Bytes::copy_from_slice(value) })
            .collect(),
    };
    if let Ok(Announcement::Release(release)) = announcement(&model, &record) {
        assert!((1..=200).contains(&release.version.len()));
    }
});

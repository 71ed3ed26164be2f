//! Formats records for listings. Answers to clients do not use this module.

use hickory_resolver::proto::{
    op::Message,
    serialize::binary::{BinDecodable, BinDecoder},
};

use dogwatch_dns_core::message::{name, wire};

/// The answer section in zone-file format, without owner and TTL: `A 192.0.2.1`. A record that
/// hickory cannot parse is shown as its type and size.
pub(crate) fn records(message: &[u8]) -> Vec<String> {
    if let Ok(message) = Message::read(&mut BinDecoder::new(message)) {
        return message
            .answers
            .iter()
            .map(|record| format!("{} {}", record.record_type(), record.data))
            .collect();
    }
    wire::answers(message)
        .map(|(kind, data)| format!("{} ({} bytes)", name::type_to_text(kind), data.len()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_shown_in_zone_file_format_and_invalid_messages_are_harmless() {
        // One question, one A record.
        let mut message = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 2, b'd', b'b', 0, 0, 1, 0, 1];
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 9]);
        assert_eq!(records(&message), ["A 192.0.2.9"]);
        message.truncate(message.len() - 2);
        assert_eq!(records(&message), Vec::<String>::new());
        assert_eq!(records(&[]), Vec::<String>::new());
    }
}

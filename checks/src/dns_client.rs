//! One question to one DNS server, over UDP, and over TCP if the answer is truncated. No cache, no
//! search list, no DNSSEC, no other attempt.

use std::{io, net::SocketAddr};

use hickory_resolver::proto::{
    op::{Edns, Message, MessageType, Query, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

/// Returns the answer, or an error for people. The caller sets the deadline.
pub(crate) async fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> Result<Message, String> {
    let question = question(name, kind);
    let packet = question.to_vec().map_err(|error| format!("cannot write the question: {error}"))?;
    let answer = over_udp(server, &packet, &question).await.map_err(|error| reason("UDP", &error))?;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    over_tcp(server, &packet, &question).await.map_err(|error| reason("TCP", &error))
}

fn question(name: &Name, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD_MAX);
    message.set_edns(edns);
    message
}

/// What passes through every network in one piece (dnsflagday.net 2020).
const PAYLOAD_MAX: u16 = 1_232;

fn reason(protocol: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{protocol}: connection refused"),
        _ => format!("{protocol}: {error}"),
    }
}

async fn over_udp(server: SocketAddr, packet: &[u8], question: &Message) -> io::Result<Message> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; 4_096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else may be forged, so the answer may still come.
        if let Some(answer) = answer_to(question, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, packet: &[u8], question: &Message) -> io::Result<Message> {
    let invalid = || io::Error::other("invalid answer");
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(packet.len()).map_err(|_| invalid())?;
    stream.write_all(&[&length.to_be_bytes(), packet].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    answer_to(question, &answer).ok_or_else(invalid)
}

/// The message, if it is a valid answer to this question. Servers may leave out the question in an
/// error.
fn answer_to(question: &Message, packet: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(packet).ok()?;
    let ours = answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && (answer.queries == question.queries
            || (answer.queries.is_empty() && answer.metadata.response_code != ResponseCode::NoError));
    ours.then_some(answer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_has_the_number_and_the_question_that_were_sent() {
        let asked = question(&Name::from_ascii("a.example.").unwrap(), RecordType::A);
        let is_answer = |message: &Message| answer_to(&asked, &message.to_vec().unwrap()).is_some();
        let answer = asked.clone().into_response();
        assert!(is_answer(&answer));
        assert!(!is_answer(&asked), "an echo of the question");
        let mut other = answer.clone();
        other.metadata.id = other.metadata.id.wrapping_add(1);
        assert!(!is_answer(&other));
        let mut other = answer.clone();
        other.queries[0].set_query_type(RecordType::AAAA);
        assert!(!is_answer(&other));
        let mut refused = answer;
        refused.queries.clear();
        assert!(!is_answer(&refused));
        refused.metadata.response_code = ResponseCode::Refused;
        assert!(is_answer(&refused));
    }

    proptest! {
        #[test]
        fn any_packet_is_an_answer_or_not(packet in proptest::collection::vec(any::<u8>(), 0..200)) {
            answer_to(&Message::query(), &packet);
        }
    }
}

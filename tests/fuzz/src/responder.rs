use nsh::{ETHERNET_LEN, Ethernet, NshView, QueryKind};
use service_vm::{Answer, Flow, Outcome, Responder};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 1, 1];

/// What a service VM receives. The first byte sets how it answers and what its service decides.
///
/// # Panics
/// If it answers what was not asked, twice, or with other bytes than it received.
pub fn responder(data: &[u8]) {
    let Some((&how, frame)) = data.split_first() else { return };
    let responder = Responder { mac: (how & 1 != 0).then_some(MAC), si_decrement: how & 2 != 0 };
    let outcome = [Outcome::Forward, Outcome::Drop, Outcome::Copy][usize::from(how >> 2) % 3];
    let mut buffer = frame.to_vec();
    let mut calls = 0;
    let answer = responder.answer(&mut buffer, |inner| {
        calls += 1;
        let _ = Flow::of(inner.next_protocol(), inner.bytes());
        assert!(inner.bytes().len() + ETHERNET_LEN < frame.len());
        outcome
    });
    let asked = query(frame);
    match answer {
        Answer::Ignored(_) => assert_eq!((calls, &buffer[..]), (0, frame), "an ignored frame was touched"),
        Answer::ProbeResponse { .. } => assert_eq!((calls, asked), (0, Some(QueryKind::Ping))),
        Answer::Forwarded { len, response } => {
            assert_eq!((calls, outcome, len), (1, Outcome::Forward, frame.len()));
            assert_eq!(response, asked == Some(QueryKind::Ping));
        }
        Answer::BareResponse { dropped, .. } => {
            assert_eq!((calls, asked, dropped), (1, Some(QueryKind::Ping), outcome == Outcome::Drop));
        }
        Answer::Silent { dropped } => {
            assert_eq!((calls, dropped), (1, outcome == Outcome::Drop));
            assert_ne!(asked, Some(QueryKind::Ping), "a query was not answered");
        }
    }
    let Some(len) = answer.len_to_send() else { return };
    let (sent, received) = (&buffer[..len], frame);
    let (Ok((to, _)), Ok((from, _))) = (Ethernet::parse(sent), Ethernet::parse(received)) else {
        panic!("an answer that is no frame")
    };
    assert_eq!((to.dst, to.src), (from.src, from.dst));
    assert_eq!(query(sent) == Some(QueryKind::Resp), answer.is_response() || asked == Some(QueryKind::Resp));
    let payload = |frame: &[u8]| NshView::parse(&frame[ETHERNET_LEN..]).map(|nsh| nsh.payload().to_vec());
    if matches!(answer, Answer::Forwarded { .. }) {
        assert_eq!(payload(sent), payload(received), "the packet is not the one received");
    } else {
        assert_eq!(payload(sent), Ok(Vec::new()));
    }
}

fn query(frame: &[u8]) -> Option<QueryKind> {
    let (_, packet) = Ethernet::parse(frame).ok()?;
    Some(NshView::parse(packet).ok()?.livepath().ok()??.query)
}

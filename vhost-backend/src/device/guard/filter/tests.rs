use super::*;
use crate::device::features;
use rstest::rstest;

const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7f00_0000_0000;
const MEMORY: u64 = 0x10_0000;
const FILE: Descriptor = Descriptor::File(Backing { len: MEMORY, writable: true, identity: (1, 2) });
const NEED_REPLY: bool = true;

fn offer() -> Offer {
    Offer {
        features: features::virtio(2),
        protocol: features::protocol(),
        rings: 4,
        max_ring_size: 1024,
        mtu: 9000,
    }
}

fn request(code: FrontendReq, words: &[u64]) -> Message {
    Message::request(code, words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn table() -> Message {
    request(FrontendReq::SET_MEM_TABLE, &[1, GUEST, MEMORY, USER, 0])
}

fn address(index: u32) -> Message {
    let at = USER + 0x1_0000 * u64::from(index);
    // index and flags, descriptors, used, avail, log
    request(FrontendReq::SET_VRING_ADDR, &[pair(index, 0), at, at + 0x6000, at + 0x4000, 0])
}

fn forwarded(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Forward { .. })
}

fn forward(reply: bool) -> Verdict {
    Verdict::Forward { reply, after: Vec::new() }
}

/// Judges a message that must pass.
#[track_caller]
fn pass(filter: &mut Filter, message: &Message, descriptors: &[Descriptor]) {
    let verdict = filter.judge(message, descriptors);
    assert!(forwarded(&verdict), "{message:?}: {verdict:?}");
}

/// Judges a message that must be refused and returns why.
#[track_caller]
fn refused(filter: &mut Filter, message: &Message, descriptors: &[Descriptor]) -> (Refusal, Consequence) {
    match filter.judge(message, descriptors) {
        Verdict::Refuse(why, consequence) => (why, consequence),
        verdict => panic!("{message:?}: {verdict:?}"),
    }
}

/// Features, owner and memory, as Cloud Hypervisor sets them.
fn negotiated() -> Filter {
    let mut filter = Filter::new(offer());
    for message in [
        request(FrontendReq::SET_OWNER, &[]),
        request(FrontendReq::GET_FEATURES, &[]),
        request(FrontendReq::GET_PROTOCOL_FEATURES, &[]),
        request(FrontendReq::SET_PROTOCOL_FEATURES, &[features::protocol().bits()]),
        request(FrontendReq::SET_FEATURES, &[features::virtio(2)]),
    ] {
        pass(&mut filter, &message, &[]);
    }
    pass(&mut filter, &table(), &[FILE]);
    filter
}

fn start(filter: &mut Filter, index: u32) {
    pass(filter, &request(FrontendReq::SET_VRING_NUM, &[pair(index, 256)]), &[]);
    pass(filter, &address(index), &[]);
    pass(filter, &request(FrontendReq::SET_VRING_BASE, &[pair(index, 0)]), &[]);
    pass(filter, &request(FrontendReq::SET_VRING_CALL, &[index.into()]), &[Descriptor::Event]);
    pass(filter, &request(FrontendReq::SET_VRING_KICK, &[index.into()]), &[Descriptor::Event]);
}

/// The order of QEMU 7.2: enable first and only once, no NEED_REPLY but for memory, base before address, call last.
#[test]
fn qemu_enables_before_it_sets_features_and_is_replayed() {
    let mut filter = Filter::new(offer());
    for message in [
        request(FrontendReq::GET_FEATURES, &[]),
        request(FrontendReq::GET_PROTOCOL_FEATURES, &[]),
        request(FrontendReq::SET_PROTOCOL_FEATURES, &[features::protocol().bits()]),
        request(FrontendReq::GET_QUEUE_NUM, &[]),
    ] {
        pass(&mut filter, &message, &[]);
    }
    let slots = request(FrontendReq::GET_MAX_MEM_SLOTS, &[]);
    assert_eq!(filter.judge(&slots, &[]), Verdict::Answer(Some(slots.answer(MAX_SLOTS as u64))));
    for message in [request(FrontendReq::SET_OWNER, &[]), request(FrontendReq::GET_FEATURES, &[])] {
        pass(&mut filter, &message, &[]);
    }
    for ring in 0..2 {
        pass(&mut filter, &request(FrontendReq::SET_VRING_CALL, &[ring]), &[Descriptor::Event]);
    }
    for ring in 0..2 {
        let enable = request(FrontendReq::SET_VRING_ENABLE, &[pair(ring, 1)]);
        assert_eq!(filter.judge(&enable, &[]), Verdict::Answer(None));
    }
    let after = vec![enable_message(0, true), enable_message(1, true)];
    let set_features = request(FrontendReq::SET_FEATURES, &[features::virtio(2)]);
    assert_eq!(filter.judge(&set_features, &[]), Verdict::Forward { reply: false, after });
    assert_eq!(filter.judge(&set_features, &[]), forward(false), "replayed once");
    let add = request(FrontendReq::ADD_MEM_REG, &[0, GUEST, MEMORY, USER, 0]).with_need_reply();
    assert_eq!(filter.judge(&add, &[FILE]), forward(true));
    for ring in 0..2 {
        pass(&mut filter, &request(FrontendReq::SET_VRING_NUM, &[pair(ring, 256)]), &[]);
        pass(&mut filter, &request(FrontendReq::SET_VRING_BASE, &[pair(ring, 0)]), &[]);
        pass(&mut filter, &address(ring), &[]);
        pass(&mut filter, &request(FrontendReq::SET_VRING_KICK, &[ring.into()]), &[Descriptor::Event]);
        pass(&mut filter, &request(FrontendReq::SET_VRING_CALL, &[ring.into()]), &[Descriptor::Event]);
    }
    for ring in 0..2 {
        let stop = request(FrontendReq::GET_VRING_BASE, &[pair(ring, 0)]);
        assert_eq!(filter.judge(&stop, &[]), forward(true));
    }
    pass(&mut filter, &request(FrontendReq::REM_MEM_REG, &[0, GUEST, MEMORY, USER, 0]), &[]);
}

#[test]
fn cloud_hypervisor_enables_last_and_wants_every_answer() {
    let mut filter = negotiated();
    for ring in 0..4 {
        start(&mut filter, ring);
    }
    for ring in 0..4 {
        let enable = request(FrontendReq::SET_VRING_ENABLE, &[pair(ring, 1)]).with_need_reply();
        assert_eq!(filter.judge(&enable, &[]), forward(true));
    }
    let config = request(FrontendReq::GET_CONFIG, &[pair(0, 17)]);
    let config = Message { body: [config.body, vec![0; 4 + 17]].concat(), ..config };
    assert_eq!(filter.judge(&config.with_need_reply(), &[]), forward(true));
}

#[test]
fn the_last_early_enable_of_a_ring_counts() {
    let mut filter = Filter::new(offer());
    for value in [1, 0] {
        filter.judge(&request(FrontendReq::SET_VRING_ENABLE, &[pair(3, value)]), &[]);
    }
    let verdict = filter.judge(&request(FrontendReq::SET_FEATURES, &[features::virtio(2)]), &[]);
    assert_eq!(verdict, Verdict::Forward { reply: false, after: vec![enable_message(3, false)] });
}

#[test]
fn an_early_enable_is_acknowledged_when_asked() {
    let mut filter = Filter::new(offer());
    pass(&mut filter, &request(FrontendReq::GET_FEATURES, &[]), &[]);
    pass(&mut filter, &request(FrontendReq::SET_PROTOCOL_FEATURES, &[features::protocol().bits()]), &[]);
    let enable = request(FrontendReq::SET_VRING_ENABLE, &[pair(0, 1)]).with_need_reply();
    assert_eq!(filter.judge(&enable, &[]), Verdict::Answer(Some(enable.answer(0))));
}

#[test]
fn without_protocol_features_nothing_is_replayed() {
    let mut filter = Filter::new(offer());
    filter.judge(&request(FrontendReq::SET_VRING_ENABLE, &[pair(0, 1)]), &[]);
    let plain = features::virtio(2) & !VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    assert_eq!(filter.judge(&request(FrontendReq::SET_FEATURES, &[plain]), &[]), forward(false));
    let enable = request(FrontendReq::SET_VRING_ENABLE, &[pair(0, 1)]);
    assert_eq!(refused(&mut filter, &enable, &[]).0, Refusal::EnableNotNegotiated);
}

#[rstest]
#[case::device(FrontendReq::RESET_DEVICE)]
#[case::owner(FrontendReq::RESET_OWNER)]
fn after_a_reset_an_enable_is_early_again(#[case] reset: FrontendReq) {
    let mut filter = negotiated();
    pass(&mut filter, &request(reset, &[]), &[]);
    let enable = request(FrontendReq::SET_VRING_ENABLE, &[pair(0, 1)]);
    assert_eq!(filter.judge(&enable, &[]), Verdict::Answer(None));
    let verdict = filter.judge(&request(FrontendReq::SET_FEATURES, &[features::virtio(2)]), &[]);
    assert_eq!(verdict, Verdict::Forward { reply: false, after: vec![enable_message(0, true)] });
}

/// The vhost crate acknowledges once REPLY_ACK is negotiated and GET_FEATURES was seen; a wrong guess here would wait for
/// an answer that never comes.
#[test]
fn answers_are_expected_exactly_when_the_crate_gives_them() {
    let mut filter = Filter::new(offer());
    let owner = request(FrontendReq::SET_OWNER, &[]).with_need_reply();
    assert_eq!(filter.judge(&owner, &[]), forward(false), "nothing negotiated");
    let protocol =
        request(FrontendReq::SET_PROTOCOL_FEATURES, &[features::protocol().bits()]).with_need_reply();
    assert_eq!(filter.judge(&protocol, &[]), forward(false), "GET_FEATURES not seen");
    assert_eq!(
        filter.judge(&request(FrontendReq::GET_FEATURES, &[]), &[]),
        forward(true),
        "has a reply of its own"
    );
    assert_eq!(filter.judge(&protocol, &[]), forward(true));
    let none = request(FrontendReq::SET_PROTOCOL_FEATURES, &[0]).with_need_reply();
    assert_eq!(filter.judge(&none, &[]), forward(false), "REPLY_ACK taken back by this very message");
}

#[rstest]
#[case(0)]
#[case(3)]
#[case(100)]
#[case(1023)]
#[case(2048)]
#[case(65536)]
#[case(0x8000_0000)]
fn a_bad_ring_size_is_refused_and_the_session_lives(#[case] size: u32) {
    let mut filter = negotiated();
    let message = request(FrontendReq::SET_VRING_NUM, &[pair(0, size)]).with_need_reply();
    let answer = Consequence::Answer(message.answer(1));
    assert_eq!(
        refused(&mut filter, &message, &[]),
        (Refusal::RingSize { index: 0, size, max: 1024 }, answer)
    );
    start(&mut filter, 0);
}

#[rstest]
#[case(FrontendReq::SET_VRING_NUM, &[pair(4, 256)], &[])]
#[case(FrontendReq::SET_VRING_ADDR, &[pair(4, 0), USER, USER, USER, 0], &[])]
#[case(FrontendReq::SET_VRING_BASE, &[pair(u32::MAX, 0)], &[])]
#[case(FrontendReq::SET_VRING_ENABLE, &[pair(4, 1)], &[])]
#[case(FrontendReq::SET_VRING_KICK, &[255], &[Descriptor::Event])]
#[case(FrontendReq::SET_VRING_CALL, &[4], &[Descriptor::Event])]
#[case(FrontendReq::SET_VRING_ERR, &[4 | NO_DESCRIPTOR], &[])]
fn a_ring_beyond_the_queues_is_refused(
    #[case] code: FrontendReq,
    #[case] words: &[u64],
    #[case] descriptors: &[Descriptor],
) {
    let mut filter = negotiated();
    let message = request(code, words);
    let (why, consequence) = refused(&mut filter, &message, descriptors);
    assert!(matches!(why, Refusal::RingIndex { rings: 4, .. }), "{why}");
    assert_eq!(consequence, Consequence::Close);
    let message = message.with_need_reply();
    let answer = Consequence::Answer(message.answer(1));
    assert_eq!(refused(&mut filter, &message, descriptors).1, answer);
}

#[test]
fn stopping_a_ring_beyond_the_queues_has_no_error_reply() {
    let message = request(FrontendReq::GET_VRING_BASE, &[pair(4, 0)]).with_need_reply();
    assert_eq!(refused(&mut negotiated(), &message, &[]).1, Consequence::Close);
}

#[rstest]
#[case::flags(&[pair(0, 2), USER, USER, USER, 0], "unknown address flags")]
#[case::outside(&[pair(0, 0), USER + MEMORY, USER, USER, 0], "address outside guest memory")]
#[case::before(&[pair(0, 0), USER, USER - 4, USER, 0], "address outside guest memory")]
#[case::descriptors(&[pair(0, 0), USER + 8, USER, USER, 0], "address not aligned")]
#[case::used(&[pair(0, 0), USER, USER + 2, USER, 0], "address not aligned")]
#[case::avail(&[pair(0, 0), USER, USER, USER + 1, 0], "address not aligned")]
#[case::end(&[pair(0, 0), USER + MEMORY - 16, USER, USER, 0], "ring reaches beyond guest memory")]
fn a_bad_ring_address_is_refused(#[case] words: &[u64], #[case] what: &'static str) {
    let mut filter = negotiated();
    pass(&mut filter, &request(FrontendReq::SET_VRING_NUM, &[pair(0, 256)]), &[]);
    let message = request(FrontendReq::SET_VRING_ADDR, words);
    assert_eq!(refused(&mut filter, &message, &[]).0, Refusal::RingAddress { index: 0, what });
}

#[test]
fn a_ring_starts_only_when_it_is_set_and_mapped() {
    let mut filter = negotiated();
    let kick = request(FrontendReq::SET_VRING_KICK, &[0]);
    assert_eq!(refused(&mut filter, &kick, &[Descriptor::Event]).0, Refusal::RingNotSet(0));
    pass(&mut filter, &address(0), &[]);
    assert_eq!(refused(&mut filter, &kick, &[Descriptor::Event]).0, Refusal::RingNotSet(0), "no size");
    pass(&mut filter, &request(FrontendReq::SET_VRING_NUM, &[pair(0, 256)]), &[]);
    pass(&mut filter, &request(FrontendReq::REM_MEM_REG, &[0, GUEST, MEMORY, USER, 0]), &[]);
    assert_eq!(refused(&mut filter, &kick, &[Descriptor::Event]).0, Refusal::RingNotSet(0), "memory gone");
    pass(&mut filter, &table(), &[FILE]);
    pass(&mut filter, &kick, &[Descriptor::Event]);
}

#[test]
fn a_ring_that_grows_past_its_memory_does_not_start() {
    let mut filter = negotiated();
    let end = USER + MEMORY;
    let words = [pair(0, 0), end - 16, end - 0x2000, end - 0x4000, 0];
    pass(&mut filter, &request(FrontendReq::SET_VRING_ADDR, &words), &[]);
    pass(&mut filter, &request(FrontendReq::SET_VRING_NUM, &[pair(0, 256)]), &[]);
    let kick = request(FrontendReq::SET_VRING_KICK, &[0]);
    assert_eq!(refused(&mut filter, &kick, &[Descriptor::Event]).0, Refusal::RingNotSet(0));
}

#[test]
fn a_running_ring_is_not_changed_under_the_worker() {
    let mut filter = negotiated();
    start(&mut filter, 0);
    let mut moved = address(1);
    moved.body[0] = 0;
    for message in [
        request(FrontendReq::SET_VRING_NUM, &[pair(0, 512)]),
        request(FrontendReq::SET_VRING_BASE, &[pair(0, 7)]),
        moved.clone(),
    ] {
        assert_eq!(refused(&mut filter, &message, &[]).0, Refusal::RingRuns(0));
    }
    pass(&mut filter, &address(0), &[]);
    pass(&mut filter, &request(FrontendReq::SET_VRING_KICK, &[0]), &[Descriptor::Event]);
    pass(&mut filter, &request(FrontendReq::GET_VRING_BASE, &[0]), &[]);
    pass(&mut filter, &request(FrontendReq::SET_VRING_NUM, &[pair(0, 512)]), &[]);
    pass(&mut filter, &moved, &[]);
}

#[test]
fn a_running_ring_keeps_its_memory_and_its_features() {
    let mut filter = negotiated();
    start(&mut filter, 0);
    let remove = request(FrontendReq::REM_MEM_REG, &[0, GUEST, MEMORY, USER, 0]);
    assert_eq!(refused(&mut filter, &remove, &[]).0, Refusal::RingMemory(0));
    let smaller = request(FrontendReq::SET_MEM_TABLE, &[1, GUEST, 0x5000, USER, 0]);
    assert_eq!(refused(&mut filter, &smaller, &[FILE]).0, Refusal::RingMemory(0));
    pass(&mut filter, &table(), &[FILE]);
    let fewer = request(FrontendReq::SET_FEATURES, &[features::virtio(1)]);
    assert_eq!(refused(&mut filter, &fewer, &[]).0, Refusal::FeaturesWhileRunning);
    let reset = request(FrontendReq::RESET_OWNER, &[]);
    assert_eq!(refused(&mut filter, &reset, &[]).0, Refusal::FeaturesWhileRunning);
    pass(&mut filter, &request(FrontendReq::SET_FEATURES, &[features::virtio(2)]), &[]);
}

#[rstest]
#[case(FrontendReq::SET_VRING_KICK, &[])]
#[case(FrontendReq::SET_VRING_KICK, &[Descriptor::Event, Descriptor::Event])]
#[case(FrontendReq::SET_VRING_CALL, &[Descriptor::Stream])]
#[case(FrontendReq::SET_VRING_ERR, &[FILE])]
#[case(FrontendReq::SET_VRING_CALL, &[Descriptor::Other])]
#[case(FrontendReq::SET_MEM_TABLE, &[])]
#[case(FrontendReq::SET_MEM_TABLE, &[FILE, FILE])]
#[case(FrontendReq::SET_MEM_TABLE, &[Descriptor::Event])]
#[case(FrontendReq::ADD_MEM_REG, &[])]
#[case(FrontendReq::ADD_MEM_REG, &[Descriptor::Stream])]
#[case(FrontendReq::REM_MEM_REG, &[FILE, FILE])]
#[case(FrontendReq::SET_OWNER, &[Descriptor::Event])]
#[case(FrontendReq::SET_DEVICE_STATE_FD, &[])]
#[case(FrontendReq::SET_DEVICE_STATE_FD, &[Descriptor::Event])]
fn wrong_descriptors_are_refused(#[case] code: FrontendReq, #[case] descriptors: &[Descriptor]) {
    let message = match code {
        FrontendReq::SET_MEM_TABLE => table(),
        FrontendReq::ADD_MEM_REG => request(code, &[0, GUEST + MEMORY, MEMORY, USER + MEMORY, 0]),
        FrontendReq::REM_MEM_REG => request(code, &[0, GUEST, MEMORY, USER, 0]),
        FrontendReq::SET_OWNER => request(code, &[]),
        _ => request(code, &[0]),
    };
    let (why, _) = refused(&mut negotiated(), &message, descriptors);
    assert!(matches!(why, Refusal::DescriptorCount { .. } | Refusal::DescriptorKind { .. }), "{why}");
}

#[test]
fn a_ring_without_call_is_served_and_one_without_kick_is_not() {
    let mut filter = negotiated();
    pass(&mut filter, &request(FrontendReq::SET_VRING_CALL, &[NO_DESCRIPTOR]), &[]);
    let kick = request(FrontendReq::SET_VRING_KICK, &[NO_DESCRIPTOR]);
    assert_eq!(refused(&mut filter, &kick, &[]).0, Refusal::NoKick(0));
}

#[test]
fn only_what_was_offered_is_acknowledged() {
    let mut filter = negotiated();
    let packed = 1 << 34;
    let message = request(FrontendReq::SET_FEATURES, &[features::virtio(2) | packed]);
    assert_eq!(refused(&mut filter, &message, &[]).0, Refusal::Features(packed));
    let log = VhostUserProtocolFeatures::LOG_SHMFD.bits();
    let message = request(FrontendReq::SET_PROTOCOL_FEATURES, &[log]);
    assert_eq!(refused(&mut filter, &message, &[]).0, Refusal::Features(log));
}

#[rstest]
#[case(FrontendReq::SET_LOG_BASE)]
#[case(FrontendReq::SET_LOG_FD)]
#[case(FrontendReq::SET_BACKEND_REQ_FD)]
#[case(FrontendReq::IOTLB_MSG)]
#[case(FrontendReq::GET_INFLIGHT_FD)]
#[case(FrontendReq::SET_STATUS)]
#[case(FrontendReq::POSTCOPY_ADVISE)]
#[case(FrontendReq::VRING_KICK)]
#[case(FrontendReq::GPU_SET_SOCKET)]
fn what_is_not_served_is_refused(#[case] code: FrontendReq) {
    let mut filter = negotiated();
    assert_eq!(
        refused(&mut filter, &request(code, &[0]), &[]),
        (Refusal::Unserved(code), Consequence::Close)
    );
    let message = request(code, &[0]).with_need_reply();
    assert_eq!(refused(&mut filter, &message, &[]).1, Consequence::Answer(message.answer(1)));
}

#[test]
fn an_unknown_request_is_refused() {
    let message = Message { request: 4711, ..request(FrontendReq::SET_OWNER, &[]) };
    let mut filter = negotiated();
    assert_eq!(refused(&mut filter, &message, &[]), (Refusal::UnknownRequest(4711), Consequence::Close));
    let message = message.with_need_reply();
    assert_eq!(refused(&mut filter, &message, &[]).1, Consequence::Answer(message.answer(1)));
}

#[rstest]
#[case(1500, true)]
#[case(9000, true)]
#[case(68, true)]
#[case(67, false)]
#[case(9001, false)]
#[case(u64::MAX, false)]
fn the_mtu_is_judged_by_the_guard(#[case] mtu: u64, #[case] taken: bool) {
    let mut filter = negotiated();
    let message = request(FrontendReq::NET_SET_MTU, &[mtu]).with_need_reply();
    match filter.judge(&message, &[]) {
        Verdict::Answer(answer) => assert_eq!((taken, answer), (true, Some(message.answer(0)))),
        verdict => assert_eq!(
            (taken, verdict),
            (false, Verdict::Refuse(Refusal::Mtu { mtu, max: 9000 }, Consequence::Answer(message.answer(1))))
        ),
    }
}

#[test]
fn an_announcement_is_answered_by_the_guard() {
    let mut filter = negotiated();
    let message = request(FrontendReq::SEND_RARP, &[0x5452_0000_0005]);
    assert_eq!(filter.judge(&message, &[]), Verdict::Answer(None));
    let message = message.with_need_reply();
    assert_eq!(filter.judge(&message, &[]), Verdict::Answer(Some(message.answer(0))));
}

#[test]
fn a_second_owner_is_refused_and_the_session_lives() {
    let mut filter = negotiated();
    let message = request(FrontendReq::SET_OWNER, &[]).with_need_reply();
    assert_eq!(refused(&mut filter, &message, &[]), (Refusal::Owned, Consequence::Answer(message.answer(1))));
}

#[test]
fn features_guard_their_requests() {
    let mut filter = Filter::new(offer());
    for code in [FrontendReq::GET_QUEUE_NUM, FrontendReq::RESET_DEVICE, FrontendReq::ADD_MEM_REG] {
        let (why, _) = refused(&mut filter, &request(code, &[]), &[]);
        assert!(matches!(why, Refusal::NotNegotiated(..)), "{why}");
    }
}

#[test]
fn a_refused_memory_table_leaves_the_old_one() {
    let mut filter = negotiated();
    let empty = request(FrontendReq::SET_MEM_TABLE, &[0]);
    assert_eq!(refused(&mut filter, &empty, &[]).0, Refusal::Body(FrontendReq::SET_MEM_TABLE));
    let huge = request(FrontendReq::SET_MEM_TABLE, &[1, GUEST, 1 << 46, USER, 0]).with_need_reply();
    let (why, consequence) = refused(&mut filter, &huge, &[FILE]);
    assert!(matches!(why, Refusal::Memory(_)), "{why}");
    assert_eq!(consequence, Consequence::Answer(huge.answer(1)));
    start(&mut filter, 0);
}

/// QEMU 7.2 with two queue pairs: each has its own view of the memory, and the second starts while the first runs.
#[test]
fn memory_announced_for_each_queue_pair_reaches_the_device_once() {
    let mut filter = negotiated();
    let add = request(FrontendReq::ADD_MEM_REG, &[0, GUEST, MEMORY, USER, 0]).with_need_reply();
    let remove = request(FrontendReq::REM_MEM_REG, &[0, GUEST, MEMORY, USER, 0]).with_need_reply();
    pass(&mut filter, &remove, &[]);
    assert_eq!(filter.judge(&add, &[FILE]), forward(true));
    start(&mut filter, 0);
    assert_eq!(filter.judge(&add, &[FILE]), Verdict::Answer(Some(add.answer(0))));
    assert_eq!(filter.judge(&remove, &[]), Verdict::Answer(Some(remove.answer(0))));
    assert_eq!(refused(&mut filter, &remove, &[]).0, Refusal::RingMemory(0));
    pass(&mut filter, &request(FrontendReq::GET_VRING_BASE, &[0]), &[]);
    assert_eq!(filter.judge(&remove, &[]), forward(true));
}

#[test]
fn endless_memory_regions_are_refused() {
    let mut filter = negotiated();
    for slot in 1..64 {
        let at = slot * MEMORY;
        let message = request(FrontendReq::ADD_MEM_REG, &[0, GUEST + at, MEMORY, USER + at, 0]);
        let verdict = filter.judge(&message, &[FILE]);
        assert_eq!(forwarded(&verdict), slot < MAX_SLOTS as u64, "{verdict:?}");
    }
}

#[rstest]
#[case::short(vec![0; 11])]
#[case::size_lies([pair(0, 20).to_le_bytes().to_vec(), vec![0; 4 + 16]].concat())]
#[case::nothing([pair(0, 0).to_le_bytes().to_vec(), vec![0; 4]].concat())]
#[case::beyond([pair(0x1000, 1).to_le_bytes().to_vec(), vec![0; 4 + 1]].concat())]
#[case::wraps([pair(u32::MAX, 1).to_le_bytes().to_vec(), vec![0; 4 + 1]].concat())]
#[case::flags([pair(0, 1).to_le_bytes().to_vec(), vec![0xff, 0, 0, 0, 0]].concat())]
fn a_bad_configuration_window_is_refused(#[case] body: Vec<u8>) {
    let message = Message::request(FrontendReq::GET_CONFIG, body);
    let refusal = (Refusal::Body(FrontendReq::GET_CONFIG), Consequence::Close);
    assert_eq!(refused(&mut negotiated(), &message, &[]), refusal);
}

#[test]
fn a_write_to_the_configuration_is_not_worth_a_link() {
    let message = request(FrontendReq::SET_CONFIG, &[0, 0]);
    let refusal = (Refusal::Unserved(FrontendReq::SET_CONFIG), Consequence::Ignore);
    assert_eq!(refused(&mut negotiated(), &message, &[]), refusal);
}

#[test]
fn device_state_errors_have_replies_of_their_own() {
    let mut filter = negotiated();
    let message = request(FrontendReq::SET_DEVICE_STATE_FD, &[pair(2, 0)]);
    let answer = Consequence::Answer(message.answer(0x101));
    assert_eq!(refused(&mut filter, &message, &[Descriptor::Stream]).1, answer);
    for direction in [0, 1] {
        let message = request(FrontendReq::SET_DEVICE_STATE_FD, &[pair(direction, 0)]);
        assert_eq!(filter.judge(&message, &[Descriptor::Stream]), forward(true));
    }
}

/// Whatever comes, there is a verdict, and no message changes what a later good one gets.
mod anything {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn descriptor() -> impl Strategy<Value = Descriptor> {
        prop_oneof![
            Just(Descriptor::Event),
            Just(FILE),
            Just(Descriptor::Stream),
            Just(Descriptor::Other),
            any::<u64>().prop_map(|len| Descriptor::File(Backing { len, writable: true, identity: (1, 2) })),
        ]
    }

    fn word() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..8u64,
            (0..8u32, 0..2048u32).prop_map(|(low, high)| pair(low, high)),
            (0..MEMORY).prop_map(|at| USER + at),
            (0..MEMORY / 4096).prop_map(|page| GUEST + page * 4096),
            any::<u64>(),
        ]
    }

    proptest! {
        #[test]
        fn is_judged(messages in vec((0..50u32, any::<bool>(), vec(word(), 0..12), vec(descriptor(), 0..3)), 0..60)) {
            let mut filter = negotiated();
            for (code, ask, words, descriptors) in messages {
                let mut message = Message { request: code, ..request(FrontendReq::SET_OWNER, &words) };
                if ask == NEED_REPLY {
                    message = message.with_need_reply();
                }
                filter.judge(&message, &descriptors);
                prop_assert!(filter.rings.len() == 4);
                for ring in filter.rings.iter().filter(|ring| ring.runs) {
                    let (parts, size) = (ring.parts.unwrap(), ring.size.unwrap());
                    prop_assert!(parts.are_in(&filter.slots, size), "a ring runs without its memory");
                }
            }
        }
    }
}

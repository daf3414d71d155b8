//! What happens to each message a front-end sends: a state machine without sockets.
//!
//! ```text
//! message + what its descriptors are ──► judge ──► Forward   the device serves it
//!                                                  Answer    the guard serves it
//!                                                  Refuse    it would hurt; the sender is told, or the connection closed
//! ```
//!
//! The vhost crate ends the connection at the first request that fails, and accepts some it should not. So everything
//! that can be wrong is found here first. What passes is remembered as the crate will hold it: features, memory, and
//! per ring its size, addresses and whether it runs.

mod rings;
#[cfg(test)]
mod tests;

use super::memory::{Backing, MAX_SLOTS, Slots};
use super::message::{Message, Region};
use super::refusal::{MIN_MTU, Refusal};
use rings::{NO_DESCRIPTOR, Ring, enable_message};
use vhost::vhost_user::message::{
    FrontendReq, VHOST_USER_CONFIG_SIZE, VhostUserConfigFlags, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};

/// Answer to SET_DEVICE_STATE_FD: failed, and no descriptor comes with the answer.
const DEVICE_STATE_FAILED: u64 = 0x101;

/// What the port offers; nothing else may be acknowledged or used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// Virtio features.
    pub(crate) features: u64,
    /// Protocol features.
    pub(crate) protocol: VhostUserProtocolFeatures,
    /// Rings, two for each queue pair.
    pub(crate) rings: u32,
    /// Largest ring, a power of two.
    pub(crate) max_ring_size: u16,
    /// Largest MTU, bytes.
    pub(crate) mtu: u16,
}

/// What a received descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Descriptor {
    /// An eventfd.
    Event,
    /// A regular file, a memfd among them.
    File(Backing),
    /// A pipe or a socket.
    Stream,
    /// Anything else.
    Other,
}

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Pass it to the device with its descriptors; if `reply`, wait for the device's reply and pass that back. Then send
    /// the device the messages of `after`, which have no reply.
    Forward { reply: bool, after: Vec<Message> },
    /// The device does not see it. `None`: the front-end wants no answer.
    Answer(Option<Message>),
    /// The device does not see it.
    Refuse(Refusal, Consequence),
}

/// How a refused front-end learns of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// By an answer; the session goes on.
    Answer(Message),
    /// Not at all, and it does not matter; the session goes on.
    Ignore,
    /// The protocol has no way to say so: by the end of the connection.
    Close,
}

/// The state machine; one per connection.
#[derive(Debug)]
pub(crate) struct Filter {
    offer: Offer,
    owned: bool,
    features_asked: bool,
    features: Option<u64>,
    protocol: VhostUserProtocolFeatures,
    slots: Slots,
    rings: Vec<Ring>,
}

type Judged = Result<Verdict, Refusal>;

impl Filter {
    pub(crate) fn new(offer: Offer) -> Filter {
        Filter {
            rings: (0..offer.rings).map(|_| Ring::default()).collect(),
            offer,
            owned: false,
            features_asked: false,
            features: None,
            protocol: VhostUserProtocolFeatures::empty(),
            slots: Slots::default(),
        }
    }

    /// Decides on one whole message. A message that is refused leaves no trace.
    pub(crate) fn judge(&mut self, message: &Message, descriptors: &[Descriptor]) -> Verdict {
        let Some(code) = message.code() else {
            let why = Refusal::UnknownRequest(message.request);
            return Verdict::Refuse(
                why,
                self.acknowledge(message, 1).map_or(Consequence::Close, Consequence::Answer),
            );
        };
        let judged = self
            .check_negotiated(code)
            .and_then(|()| self.check_descriptors(code, message, descriptors))
            .and_then(|()| self.judge_request(code, message, descriptors));
        judged.unwrap_or_else(|why| Verdict::Refuse(why, self.consequence(code, message)))
    }

    fn judge_request(&mut self, code: FrontendReq, message: &Message, descriptors: &[Descriptor]) -> Judged {
        use FrontendReq as R;
        match code {
            R::GET_FEATURES => {
                expect_empty(code, message)?;
                self.features_asked = true;
                Ok(forward_with_reply())
            }
            R::GET_PROTOCOL_FEATURES | R::GET_QUEUE_NUM | R::CHECK_DEVICE_STATE => {
                expect_empty(code, message)?;
                Ok(forward_with_reply())
            }
            R::GET_MAX_MEM_SLOTS => {
                expect_empty(code, message)?;
                Ok(Verdict::Answer(Some(message.answer(MAX_SLOTS as u64))))
            }
            R::SET_FEATURES => self.set_features(message),
            R::SET_PROTOCOL_FEATURES => self.set_protocol_features(message),
            R::SET_OWNER | R::RESET_OWNER | R::RESET_DEVICE => self.set_owner_or_reset(code, message),
            R::SET_MEM_TABLE => self.set_memory_table(message, descriptors),
            R::ADD_MEM_REG | R::REM_MEM_REG => self.change_memory(code, message, descriptors),
            R::SET_VRING_NUM => self.set_ring_size(message),
            R::SET_VRING_ADDR => self.set_ring_address(message),
            R::SET_VRING_BASE => self.set_ring_base(message),
            R::GET_VRING_BASE => self.stop_ring(message),
            R::SET_VRING_KICK => self.start_ring(message),
            R::SET_VRING_CALL | R::SET_VRING_ERR => {
                self.described_ring(code, message)?;
                Ok(self.forward(message))
            }
            R::SET_VRING_ENABLE => self.enable_ring(message),
            R::GET_CONFIG => get_config(message),
            R::SET_DEVICE_STATE_FD => {
                // direction save or load, phase stopped
                let (direction, phase) = message.ring_state().ok_or(Refusal::Body(code))?;
                if direction > 1 || phase != 0 {
                    return Err(Refusal::Body(code));
                }
                Ok(forward_with_reply())
            }
            R::NET_SET_MTU => {
                let mtu = message.u64().ok_or(Refusal::Body(code))?;
                if !(MIN_MTU..=u64::from(self.offer.mtu)).contains(&mtu) {
                    return Err(Refusal::Mtu { mtu, max: self.offer.mtu });
                }
                Ok(Verdict::Answer(self.acknowledge(message, 0)))
            }
            // The port knows its guest's address from the configuration: there is nothing to announce.
            R::SEND_RARP => {
                message.u64().ok_or(Refusal::Body(code))?;
                Ok(Verdict::Answer(self.acknowledge(message, 0)))
            }
            _ => Err(Refusal::Unserved(code)),
        }
    }

    fn set_features(&mut self, message: &Message) -> Judged {
        let features = message.u64().ok_or(Refusal::Body(FrontendReq::SET_FEATURES))?;
        let surplus = features & !self.offer.features;
        if surplus != 0 {
            return Err(Refusal::Features(surplus));
        }
        if self.features.is_some_and(|old| old != features) && self.rings.iter().any(|ring| ring.runs) {
            return Err(Refusal::FeaturesWhileRunning);
        }
        self.features = Some(features);
        // Without PROTOCOL_FEATURES every ring is enabled from the start, and SET_VRING_ENABLE means nothing.
        let replay = self.enable_negotiated();
        let early = self.rings.iter_mut().map(|ring| ring.early_enable.take()).enumerate();
        let after =
            early.filter_map(|(index, enable)| Some(enable_message(index, enable.filter(|_| replay)?)));
        let after = after.collect();
        Ok(Verdict::Forward { reply: self.wants_ack(message), after })
    }

    fn set_protocol_features(&mut self, message: &Message) -> Judged {
        let bits = message.u64().ok_or(Refusal::Body(FrontendReq::SET_PROTOCOL_FEATURES))?;
        let surplus = bits & !self.offer.protocol.bits();
        if surplus != 0 {
            return Err(Refusal::Features(surplus));
        }
        self.protocol = VhostUserProtocolFeatures::from_bits_truncate(bits);
        Ok(self.forward(message))
    }

    fn set_owner_or_reset(&mut self, code: FrontendReq, message: &Message) -> Judged {
        expect_empty(code, message)?;
        let reply = self.wants_ack(message);
        match code {
            FrontendReq::SET_OWNER if self.owned => return Err(Refusal::Owned),
            FrontendReq::SET_OWNER => self.owned = true,
            FrontendReq::RESET_OWNER => {
                if self.rings.iter().any(|ring| ring.runs) {
                    return Err(Refusal::FeaturesWhileRunning);
                }
                self.owned = false;
                self.features = None;
            }
            _ => {
                self.features = None;
                self.rings.fill(Ring::default());
            }
        }
        Ok(Verdict::Forward { reply, after: Vec::new() })
    }

    fn set_memory_table(&mut self, message: &Message, descriptors: &[Descriptor]) -> Judged {
        let code = FrontendReq::SET_MEM_TABLE;
        let regions =
            message.memory_table().filter(|regions| !regions.is_empty()).ok_or(Refusal::Body(code))?;
        expect_count(code, regions.len(), descriptors)?;
        let backed: Result<Vec<(Region, Backing)>, Refusal> = regions
            .into_iter()
            .zip(descriptors)
            .map(|(region, fd)| Ok((region, backing(code, *fd)?)))
            .collect();
        self.use_memory(Slots::table(&backed?)?)?;
        Ok(self.forward(message))
    }

    fn change_memory(&mut self, code: FrontendReq, message: &Message, descriptors: &[Descriptor]) -> Judged {
        let region = message.single_region().ok_or(Refusal::Body(code))?;
        let slots = match (code, descriptors) {
            (FrontendReq::ADD_MEM_REG, [fd]) => {
                let backing = backing(code, *fd)?;
                if self.slots.share(region, backing) {
                    return Ok(Verdict::Answer(self.acknowledge(message, 0)));
                }
                self.slots.with(region, backing)?
            }
            (FrontendReq::ADD_MEM_REG, _) => {
                return Err(Refusal::DescriptorCount { request: code, expected: 1, got: descriptors.len() });
            }
            _ if self.slots.unshare(region) => return Ok(Verdict::Answer(self.acknowledge(message, 0))),
            _ => self.slots.without(region)?,
        };
        self.use_memory(slots)?;
        Ok(self.forward(message))
    }

    /// A running ring keeps its memory.
    fn use_memory(&mut self, slots: Slots) -> Result<(), Refusal> {
        for (index, ring) in (0..).zip(&self.rings) {
            let lost = match (ring.runs, ring.parts, ring.size) {
                (true, Some(parts), Some(size)) => !parts.are_in(&slots, size),
                _ => false,
            };
            if lost {
                return Err(Refusal::RingMemory(index));
            }
        }
        self.slots = slots;
        Ok(())
    }

    fn check_negotiated(&self, code: FrontendReq) -> Result<(), Refusal> {
        use FrontendReq as R;
        use VhostUserProtocolFeatures as P;
        let needed = match code {
            R::GET_QUEUE_NUM => P::MQ,
            R::GET_CONFIG | R::SET_CONFIG => P::CONFIG,
            R::RESET_DEVICE => P::RESET_DEVICE,
            R::GET_MAX_MEM_SLOTS | R::ADD_MEM_REG | R::REM_MEM_REG => P::CONFIGURE_MEM_SLOTS,
            R::SET_DEVICE_STATE_FD | R::CHECK_DEVICE_STATE => P::DEVICE_STATE,
            _ => return Ok(()),
        };
        if self.protocol.contains(needed) { Ok(()) } else { Err(Refusal::NotNegotiated(code, needed)) }
    }

    /// Descriptors in the number and of the kind a request takes. Those of memory are counted against its body.
    fn check_descriptors(
        &self,
        code: FrontendReq,
        message: &Message,
        descriptors: &[Descriptor],
    ) -> Result<(), Refusal> {
        use FrontendReq as R;
        match code {
            R::SET_MEM_TABLE | R::ADD_MEM_REG => Ok(()),
            // "For compatibility with existing incorrect implementations, the back-end MAY accept messages with one
            // file descriptor."
            R::REM_MEM_REG if descriptors.len() <= 1 => Ok(()),
            R::SET_VRING_KICK | R::SET_VRING_CALL | R::SET_VRING_ERR => {
                let without = message.u64().is_some_and(|value| value & NO_DESCRIPTOR != 0);
                expect_count(code, usize::from(!without), descriptors)?;
                expect_kind(code, descriptors, |fd| fd == Descriptor::Event)
            }
            R::SET_DEVICE_STATE_FD => {
                expect_count(code, 1, descriptors)?;
                expect_kind(code, descriptors, |fd| matches!(fd, Descriptor::Stream | Descriptor::File(_)))
            }
            _ => expect_count(code, 0, descriptors),
        }
    }

    fn consequence(&self, code: FrontendReq, message: &Message) -> Consequence {
        use FrontendReq as R;
        match code {
            R::SET_DEVICE_STATE_FD => Consequence::Answer(message.answer(DEVICE_STATE_FAILED)),
            R::CHECK_DEVICE_STATE => Consequence::Answer(message.answer(1)),
            R::GET_FEATURES
            | R::GET_PROTOCOL_FEATURES
            | R::GET_QUEUE_NUM
            | R::GET_VRING_BASE
            | R::GET_CONFIG
            | R::GET_MAX_MEM_SLOTS => Consequence::Close,
            _ => match self.acknowledge(message, 1) {
                Some(answer) => Consequence::Answer(answer),
                // The guest's view stays as it was: no reason to take its link away.
                None if matches!(code, R::SET_CONFIG | R::NET_SET_MTU | R::SEND_RARP) => Consequence::Ignore,
                None => Consequence::Close,
            },
        }
    }

    fn forward(&self, message: &Message) -> Verdict {
        Verdict::Forward { reply: self.wants_ack(message), after: Vec::new() }
    }

    /// The answer to a message that has no reply of its own, if the front-end wants one.
    fn acknowledge(&self, message: &Message, value: u64) -> Option<Message> {
        self.wants_ack(message).then(|| message.answer(value))
    }

    /// As the vhost crate decides it, so that both agree on how many replies there are.
    fn wants_ack(&self, message: &Message) -> bool {
        message.needs_reply()
            && self.features_asked
            && self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK)
    }

    fn enable_negotiated(&self) -> bool {
        self.features.is_some_and(|bits| bits & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0)
    }
}

fn forward_with_reply() -> Verdict {
    Verdict::Forward { reply: true, after: Vec::new() }
}

/// A window of the configuration space: offset, size, flags, then `size` bytes.
fn get_config(message: &Message) -> Judged {
    let code = FrontendReq::GET_CONFIG;
    let (window, bytes) = message.body.split_first_chunk::<12>().ok_or(Refusal::Body(code))?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *window;
    let offset = u32::from_le_bytes([a, b, c, d]);
    let size = u32::from_le_bytes([e, f, g, h]);
    let flags = u32::from_le_bytes([i, j, k, l]);
    let inside = offset.checked_add(size).is_some_and(|end| end <= VHOST_USER_CONFIG_SIZE);
    let known = VhostUserConfigFlags::from_bits(flags).is_some();
    if size == 0 || size as usize != bytes.len() || !inside || !known {
        return Err(Refusal::Body(code));
    }
    Ok(forward_with_reply())
}

fn expect_empty(code: FrontendReq, message: &Message) -> Result<(), Refusal> {
    if message.body.is_empty() { Ok(()) } else { Err(Refusal::Body(code)) }
}

fn expect_count(request: FrontendReq, expected: usize, descriptors: &[Descriptor]) -> Result<(), Refusal> {
    let got = descriptors.len();
    if got == expected { Ok(()) } else { Err(Refusal::DescriptorCount { request, expected, got }) }
}

fn expect_kind(
    request: FrontendReq,
    descriptors: &[Descriptor],
    right: fn(Descriptor) -> bool,
) -> Result<(), Refusal> {
    match descriptors.iter().find(|fd| !right(**fd)) {
        Some(got) => Err(Refusal::DescriptorKind { request, got: *got }),
        None => Ok(()),
    }
}

fn backing(request: FrontendReq, fd: Descriptor) -> Result<Backing, Refusal> {
    match fd {
        Descriptor::File(backing) => Ok(backing),
        got => Err(Refusal::DescriptorKind { request, got }),
    }
}

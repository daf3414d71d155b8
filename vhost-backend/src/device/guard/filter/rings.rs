//! Messages about one ring.

use super::{Filter, Judged, Verdict, forward_with_reply};
use crate::device::guard::memory::Slots;
use crate::device::guard::message::{Message, RingAddress};
use crate::device::guard::refusal::Refusal;
use vhost::vhost_user::message::{FrontendReq, VhostUserVringAddrFlags};

/// Bits of a ring descriptor message: the ring's index and "there is no descriptor".
const RING_INDEX: u64 = 0xff;
pub(super) const NO_DESCRIPTOR: u64 = 0x100;

/// The addresses of a ring's parts, guest physical.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    desc: u64,
    avail: u64,
    used: u64,
}

impl Parts {
    /// Whether each part of a ring of `size` entries lies in one region (virtio 1.2, section 2.7).
    pub(super) fn are_in(&self, slots: &Slots, size: u16) -> bool {
        let size = u64::from(size);
        slots.holds(self.desc, 16 * size)
            && slots.holds(self.avail, 6 + 2 * size)
            && slots.holds(self.used, 6 + 8 * size)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    pub(super) size: Option<u16>,
    pub(super) parts: Option<Parts>,
    pub(super) runs: bool,
    /// SET_VRING_ENABLE that came before SET_FEATURES.
    pub(super) early_enable: Option<bool>,
}

impl Filter {
    pub(super) fn set_ring_size(&mut self, message: &Message) -> Judged {
        let (index, size) = message.ring_state().ok_or(Refusal::Body(FrontendReq::SET_VRING_NUM))?;
        let max = self.offer.max_ring_size;
        let ring = self.ring(index.into())?;
        let checked = u16::try_from(size).ok().filter(|size| size.is_power_of_two() && *size <= max);
        let size = checked.ok_or(Refusal::RingSize { index, size, max })?;
        if ring.runs && ring.size != Some(size) {
            return Err(Refusal::RingRuns(index));
        }
        ring.size = Some(size);
        Ok(self.forward(message))
    }

    pub(super) fn set_ring_address(&mut self, message: &Message) -> Judged {
        let code = FrontendReq::SET_VRING_ADDR;
        let RingAddress { index, flags, desc, used, avail } =
            message.ring_address().ok_or(Refusal::Body(code))?;
        let wrong = |what| Refusal::RingAddress { index, what };
        self.ring(index.into())?;
        if flags & !VhostUserVringAddrFlags::all().bits() != 0 {
            return Err(wrong("unknown address flags"));
        }
        let guest = |user| self.slots.to_guest(user).ok_or(wrong("address outside guest memory"));
        let parts = Parts { desc: guest(desc)?, avail: guest(avail)?, used: guest(used)? };
        let aligned = |value: u64, to: u64| value.is_multiple_of(to);
        let both_aligned = |user, guest, to| aligned(user, to) && aligned(guest, to);
        if !both_aligned(desc, parts.desc, 16)
            || !both_aligned(avail, parts.avail, 2)
            || !both_aligned(used, parts.used, 4)
        {
            return Err(wrong("address not aligned"));
        }
        let fits = |ring: &Ring| ring.size.is_none_or(|size| parts.are_in(&self.slots, size));
        if !self.rings.get(index as usize).is_some_and(fits) {
            return Err(wrong("ring reaches beyond guest memory"));
        }
        let ring = self.ring(index.into())?;
        if ring.runs && ring.parts != Some(parts) {
            return Err(Refusal::RingRuns(index));
        }
        ring.parts = Some(parts);
        Ok(self.forward(message))
    }

    pub(super) fn set_ring_base(&mut self, message: &Message) -> Judged {
        let (index, base) = message.ring_state().ok_or(Refusal::Body(FrontendReq::SET_VRING_BASE))?;
        if self.ring(index.into())?.runs {
            return Err(Refusal::RingRuns(index));
        }
        if base > u32::from(u16::MAX) {
            return Err(Refusal::RingBase { index, base });
        }
        Ok(self.forward(message))
    }

    pub(super) fn stop_ring(&mut self, message: &Message) -> Judged {
        let (index, _) = message.ring_state().ok_or(Refusal::Body(FrontendReq::GET_VRING_BASE))?;
        self.ring(index.into())?.runs = false;
        Ok(forward_with_reply())
    }

    /// The vhost crate starts a ring when it has a kick descriptor.
    pub(super) fn start_ring(&mut self, message: &Message) -> Judged {
        let (index, has_descriptor) = self.described_ring(FrontendReq::SET_VRING_KICK, message)?;
        if !has_descriptor {
            return Err(Refusal::NoKick(index));
        }
        let mapped = |ring: &Ring| match (ring.parts, ring.size) {
            (Some(parts), Some(size)) => parts.are_in(&self.slots, size),
            _ => false,
        };
        if !self.rings.get(index as usize).is_some_and(mapped) {
            return Err(Refusal::RingNotSet(index));
        }
        self.ring(index.into())?.runs = true;
        Ok(self.forward(message))
    }

    pub(super) fn enable_ring(&mut self, message: &Message) -> Judged {
        let code = FrontendReq::SET_VRING_ENABLE;
        let (index, value) = message.ring_state().ok_or(Refusal::Body(code))?;
        let enable = match value {
            0 => false,
            1 => true,
            _ => return Err(Refusal::Body(code)),
        };
        let negotiated = self.features.is_some().then(|| self.enable_negotiated());
        let ring = self.ring(index.into())?;
        match negotiated {
            Some(true) => Ok(self.forward(message)),
            Some(false) => Err(Refusal::EnableNotNegotiated),
            None => {
                ring.early_enable = Some(enable);
                Ok(Verdict::Answer(self.acknowledge(message, 0)))
            }
        }
    }

    /// The ring of a KICK, CALL or ERR message, and whether a descriptor comes with it.
    pub(super) fn described_ring(
        &mut self,
        code: FrontendReq,
        message: &Message,
    ) -> Result<(u32, bool), Refusal> {
        let value = message.u64().ok_or(Refusal::Body(code))?;
        if value & !(RING_INDEX | NO_DESCRIPTOR) != 0 {
            return Err(Refusal::Body(code));
        }
        let index = value & RING_INDEX;
        self.ring(index)?;
        Ok((index as u32, value & NO_DESCRIPTOR == 0))
    }

    fn ring(&mut self, index: u64) -> Result<&mut Ring, Refusal> {
        let rings = self.offer.rings;
        let ring = usize::try_from(index).ok().and_then(|index| self.rings.get_mut(index));
        ring.ok_or(Refusal::RingIndex { index, rings })
    }
}

/// What the device is told of an enable that came too early for it.
pub(super) fn enable_message(index: usize, enable: bool) -> Message {
    let value = index as u64 | u64::from(enable) << 32;
    Message::request(FrontendReq::SET_VRING_ENABLE, value.to_le_bytes().to_vec())
}

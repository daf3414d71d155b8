//! A frame between proxy and service VM, in bytes; but of the tenant's packet there is its number alone.

use nsh::{Context, ENCAP_LEN, ETHERNET_LEN, Header, NextProtocol, NshMut, NshView, Origin, Si, Spi, Ttl};

use crate::ledger::PacketId;

/// Bytes of a packet's number.
const NUMBER: usize = 8;
/// Bytes of a frame with a packet.
pub(crate) const FRAME: usize = ENCAP_LEN + NUMBER;

/// A packet on its path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) id: PacketId,
    pub(crate) spi: Spi,
    pub(crate) si: Si,
    pub(crate) ttl: Ttl,
}

/// A frame with a packet, a probe, or a response alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    bytes: [u8; FRAME],
    len: usize,
}

impl Wire {
    /// A packet with the header that a classifier pushes, or a proxy forwards.
    pub(crate) fn push(packet: &Packet, origin: Origin) -> Self {
        let header = Header {
            oam: false,
            ttl: packet.ttl,
            next_protocol: NextProtocol::ETHERNET,
            spi: packet.spi,
            si: packet.si,
            context: Context { origin, ..Context::default() }.to_bytes(),
        };
        let mut bytes = [0; FRAME];
        let (outer, number) = bytes.split_at_mut(ENCAP_LEN);
        outer.copy_from_slice(&nsh::encap([0; 6], [0; 6], &header));
        number.copy_from_slice(&(packet.id as u64).to_be_bytes());
        Self { bytes, len: FRAME }
    }

    /// Those bytes.
    pub(crate) fn new(frame: &[u8]) -> Self {
        let mut bytes = [0; FRAME];
        bytes[..frame.len()].copy_from_slice(frame);
        Self { bytes, len: frame.len() }
    }

    /// From the outer Ethernet header on.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// The packet in it, if there is one.
    pub(crate) fn packet(&self) -> Option<Packet> {
        let view = self.view();
        let number = view.payload().first_chunk()?;
        let id = u64::from_be_bytes(*number) as PacketId;
        Some(Packet { id, spi: view.spi(), si: view.si(), ttl: view.ttl() })
    }

    /// What the proxy wrote.
    pub(crate) fn context(&self) -> Context {
        self.view().livepath().expect("a good context").expect("a context of ours")
    }

    /// Turns a query that rides on it into the answer, as the service's responder does.
    pub(crate) fn answer(&mut self) {
        self.edit().answer();
    }

    /// Turns it into the answer alone.
    pub(crate) fn answer_bare(&mut self, dropped: bool) {
        self.edit().answer_bare(dropped);
        self.len = ENCAP_LEN;
    }

    fn view(&self) -> NshView<'_> {
        NshView::parse(&self.bytes()[ETHERNET_LEN..]).expect("an NSH of ours")
    }

    fn edit(&mut self) -> NshMut<'_> {
        NshMut::parse(&mut self.bytes_mut()[ETHERNET_LEN..]).expect("an NSH of ours")
    }
}

impl AsRef<[u8]> for Wire {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

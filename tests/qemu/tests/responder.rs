//! The responder on a stock kernel: the static binary runs in the initramfs and answers queries on `eth0`. The test holds
//! the other end of the guest's wire and plays the proxy, with the frames of `docs/wire-format.md`.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_guests::{Progress, poll};
use qemu_vm::{Guest, GuestPrograms, GuestSpec, Kit, Link, Role};

const SERVICE: [u8; 6] = [0x52, 0x54, 0, 0, 1, 2];
const PROXY: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_responder_in_a_guest_answers() {
    match Kit::find() {
        Ok(kit) => scenario(&kit).unwrap(),
        Err(missing) => skip::skip("a responder in a guest answers", &missing.to_string()),
    }
}

fn scenario(kit: &Kit) -> Result<()> {
    let responder = GuestPrograms::build()?.responder;
    let progress = Progress::start();
    let directory = tempfile::tempdir()?;
    let initramfs = kit.initramfs(directory.path(), &[&responder])?;
    let socket = directory.path().join("wire");
    let spec = GuestSpec {
        name: "svm2".into(),
        mac: "52:54:00:00:01:02".into(),
        role: Role::Service("--service forward".into()),
        link: Link::Listen(socket.clone()),
        queue_pairs: 1,
        properties: "",
    };
    let guest = Guest::start(kit, &initramfs, directory.path(), spec)?;
    let mut wire = Wire::connect(&socket)?;
    progress.step(&format!("svm2 booted, {:.2} s by its own clock", guest.await_boot()?));

    // The responder starts a moment after the guest takes commands.
    poll("an answer to a probe", MINUTE, || wire.exchange(&probe(1, Bit::Ping), &probe(1, Bit::Resp)))?;
    progress.step("a probe is answered");
    wire.exchange(&packet(6, Bit::Ping), &packet(6, Bit::Resp))?;
    progress.step("a packet comes back with the answer to its query");

    guest.stop_process("livepath-responder")?;
    ensure!(wire.exchange(&probe(7, Bit::Ping), &probe(7, Bit::Resp)).is_err(), "a stopped process answered");
    guest.continue_process("livepath-responder")?;
    poll("an answer after SIGCONT", MINUTE, || wire.exchange(&probe(8, Bit::Ping), &probe(8, Bit::Resp)))?;
    progress.step("stopped it is silent, continued it answers");
    Ok(())
}

/// What the context's flags say.
#[derive(Clone, Copy)]
enum Bit {
    Ping = 0x18,
    Resp = 0x14,
}

/// SPI 1, SI 3, TTL 63, a query of epoch 0xA7 pushed by host 1 port 5, serial 0x0102: no inner frame, O bit, active OAM.
fn probe(sequence: u8, bit: Bit) -> Vec<u8> {
    frame(bit, [0x2f, 0xc6, 0x01, 0x07], sequence, &[])
}

/// The same on a packet: next protocol Ethernet, and an inner frame of a made-up protocol.
fn packet(sequence: u8, bit: Bit) -> Vec<u8> {
    let inner: Vec<u8> =
        [0x52, 0x54, 0, 0, 0, 6, 0x52, 0x54, 0, 0, 0, 5, 0x88, 0xb5].into_iter().chain(0..=255).collect();
    frame(bit, [0x0f, 0xc6, 0x01, 0x03], sequence, &inner)
}

fn frame(bit: Bit, base: [u8; 4], sequence: u8, inner: &[u8]) -> Vec<u8> {
    let (destination, source) = match bit {
        Bit::Ping => (SERVICE, PROXY),
        Bit::Resp => (PROXY, SERVICE),
    };
    let context = [bit as u8, 0xa7, sequence, 0, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 1, 2];
    [&destination[..], &source, &[0x89, 0x4f], &base, &[0, 0, 1, 3], &context, inner].concat()
}

/// The end of QEMU's stream netdev: every frame behind its length, four bytes big-endian.
struct Wire {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Wire {
    fn connect(socket: &Path) -> Result<Wire> {
        let (stream, _) = poll("the guest's wire", MINUTE, || Ok(UnixStream::connect(socket)?))?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Wire { stream, received: Vec::new() })
    }

    /// Sends a frame and waits two seconds for exactly `answer`, among whatever else the guest sends.
    fn exchange(&mut self, frame: &[u8], answer: &[u8]) -> Result<()> {
        let length = u32::try_from(frame.len())?.to_be_bytes();
        self.stream.write_all(&[&length, frame].concat())?;
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut others = 0;
        while Instant::now() < deadline {
            match self.receive()? {
                Some(received) if received == answer => return Ok(()),
                Some(_) => others += 1,
                None => {}
            }
        }
        Err(anyhow::anyhow!("no answer, but {others} other frames"))
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let mut buffer = [0; 4096];
        let whole = |received: &[u8]| {
            let length = received.first_chunk().map(|length| u32::from_be_bytes(*length) as usize)?;
            (received.len() >= 4 + length).then_some(length)
        };
        loop {
            if let Some(length) = whole(&self.received) {
                let frame = self.received.drain(..4 + length).skip(4).collect();
                return Ok(Some(frame));
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(anyhow::anyhow!("QEMU hung up")),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) => return Err(error).context("the guest's wire"),
            }
        }
    }
}

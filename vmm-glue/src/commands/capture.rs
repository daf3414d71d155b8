//! `livepath capture`: frames of a port as pcapng.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};

use super::{Reach, Usage};
use crate::admin::{CaptureRecord, Direction};
use crate::sys::SignalFd;

/// Resolution of the times: 10 to the power of minus this, in seconds.
const NANOSECONDS: u8 = 9;
/// Direction of a frame in `epb_flags`, seen from the guest's vNIC.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  livepath capture svm2 -w svm2.pcapng\n  livepath capture svm2 --rx --count 100 -w queries.pcapng\n  livepath capture vm5 | tshark -r - -Y nsh\n\nRx and tx are seen from the guest. Ctrl-C ends the capture. A port has one capture at a time; a new one ends the old."
)]
pub(super) struct Arguments {
    /// The port's name
    port: String,

    /// Only frames handed to the guest
    #[arg(long, conflicts_with = "tx")]
    rx: bool,

    /// Only frames taken from the guest
    #[arg(long)]
    tx: bool,

    /// The file; standard output when left out
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    file: Option<PathBuf>,

    /// End after this many frames
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// End after this long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

pub(super) fn run(reach: &Reach, arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.file.is_none() && io::stdout().is_terminal() {
        return Err(Usage("a capture is no text for a terminal; name a file with -w".to_owned()).into());
    }
    let signals = SignalFd::new(&[libc::SIGINT, libc::SIGTERM]).context("cannot watch for signals")?;
    let direction = match (arguments.rx, arguments.tx) {
        (true, _) => Some(Direction::Rx),
        (_, true) => Some(Direction::Tx),
        _ => None,
    };
    let (snaplen, mut capture) = reach.daemon()?.capture(&arguments.port, direction)?;
    let out: Box<dyn Write> = match &arguments.file {
        Some(path) => {
            Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
        }
        None => Box::new(io::stdout().lock()),
    };
    let mut file = Pcapng::new(BufWriter::new(out), &arguments.port, snaplen)?;
    let connection = capture.connection().try_clone().context("cannot watch the capture")?;
    let ended = end_on_signal(signals, connection, arguments.duration)?;
    let mut count = 0;
    while arguments.count.is_none_or(|limit| count < limit) {
        match capture.next() {
            Ok(Some(record)) => file.add(&record)?,
            Ok(None) => break,
            // Our own end may cut a record in two.
            Err(_) if ended.load(Ordering::Acquire) => break,
            Err(error) => return Err(error.into()),
        }
        count += 1;
    }
    let missed = file.finish()?;
    if io::stderr().is_terminal() || missed > 0 {
        eprintln!("{count} frames of {}, {missed} missed", arguments.port);
    }
    Ok(())
}

/// Closes the connection on a signal or when the time is over; the flag says that it was us.
fn end_on_signal(
    signals: SignalFd,
    connection: UnixStream,
    limit: Option<Duration>,
) -> anyhow::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    let end = limit.map(|limit| Instant::now() + limit);
    let wait = move || {
        while signals.next().is_none() {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            signals.wait(left);
        }
        flag.store(true, Ordering::Release);
        let _ = connection.shutdown(Shutdown::Both);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("cannot watch for signals")?;
    Ok(ended)
}

/// A pcapng file of one interface.
pub(crate) struct Pcapng<W: Write> {
    writer: PcapNgWriter<W>,
    missed: u64,
}

impl<W: Write> Pcapng<W> {
    /// Begins the file, so that whoever waits for it sees a whole one.
    pub(crate) fn new(out: W, port: &str, snaplen: u32) -> anyhow::Result<Self> {
        let mut writer = PcapNgWriter::new(out)?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(port.to_owned())),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        writer.write_pcapng_block(interface)?;
        writer.get_mut().flush()?;
        Ok(Self { writer, missed: 0 })
    }

    pub(crate) fn add(&mut self, record: &CaptureRecord) -> anyhow::Result<()> {
        let way = if record.direction == Direction::Rx { INBOUND } else { OUTBOUND };
        let mut options = vec![EnhancedPacketOption::Flags(way)];
        if record.missed > self.missed {
            options.push(EnhancedPacketOption::DropCount(record.missed - self.missed));
            self.missed = record.missed;
        }
        self.writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id: 0,
            timestamp: record.at,
            original_len: record.len,
            data: Cow::Borrowed(&record.bytes),
            options,
        })?;
        Ok(())
    }

    /// Ends the file; gives the number of frames that are missing.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.writer.get_mut().flush()?;
        Ok(self.missed)
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::Block;
    use pcap_file::pcapng::PcapNgReader;

    use super::*;

    #[test]
    fn a_reader_finds_name_time_direction_and_gaps() {
        let mut bytes = Vec::new();
        let mut file = Pcapng::new(&mut bytes, "svm2", 2048).unwrap();
        let at = Duration::from_nanos(1_700_000_000_123_456_789);
        let record = CaptureRecord { at, missed: 0, direction: Direction::Rx, len: 60, bytes: vec![1; 60] };
        file.add(&record).unwrap();
        file.add(&CaptureRecord { missed: 4, direction: Direction::Tx, len: 9000, ..record }).unwrap();
        assert_eq!(file.finish().unwrap(), 4);

        let mut reader = PcapNgReader::new(bytes.as_slice()).unwrap();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::EnhancedPacket(packet) => packets.push(packet.into_owned()),
                Block::InterfaceDescription(interface) => {
                    assert!(interface.options.contains(&InterfaceDescriptionOption::IfName("svm2".into())));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(packets[0].timestamp, at);
        assert_eq!(packets[0].options, [EnhancedPacketOption::Flags(INBOUND)]);
        assert_eq!((packets[1].original_len, packets[1].data.len()), (9000, 60));
        let options = [EnhancedPacketOption::Flags(OUTBOUND), EnhancedPacketOption::DropCount(4)];
        assert_eq!(packets[1].options, options);
    }
}

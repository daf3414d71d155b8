//! Frames made by scapy, read by this crate, by scapy and by tshark: all three must agree.
//!
//! `vectors/make.py` makes the frames and records what scapy and tshark read in them. Where tshark is
//! installed, its record is made again and compared, so a stale record is noticed.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nsh::{ETHERNET_LEN, ETHERTYPE, Ethernet, NextProtocol, NshMut, NshView};

/// Field name to value; lists run from the outermost NSH inwards, separated by commas.
type Fields = BTreeMap<String, String>;

fn vectors() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut vectors: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "hex")).collect();
    vectors.sort();
    assert!(vectors.len() >= 19, "vectors are missing");
    vectors
}

fn frame(vector: &Path) -> Vec<u8> {
    let text = fs::read_to_string(vector).unwrap();
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn list<T, V: Display>(of: &[T], value: impl Fn(&T) -> V) -> String {
    of.iter().map(|item| value(item).to_string()).collect::<Vec<_>>().join(",")
}

fn as_we_read(frame: &[u8]) -> Fields {
    let (outer, packet) = Ethernet::parse(frame).unwrap();
    assert_eq!(outer.ethertype, ETHERTYPE);
    let layers: Vec<_> = NshView::parse(packet).unwrap().nested().map(Result::unwrap).collect();
    let contexts: Vec<_> = layers.iter().filter_map(NshView::context).collect();
    let tlvs: Vec<_> = layers.iter().flat_map(NshView::metadata).map(Result::unwrap).collect();
    let fields = [
        ("version", list(&layers, |_| 0)),
        ("oam", list(&layers, |nsh| u8::from(nsh.oam()))),
        ("ttl", list(&layers, NshView::ttl)),
        ("length", list(&layers, |nsh| nsh.length() / 4)),
        ("md_type", list(&layers, NshView::md_type)),
        ("next_protocol", list(&layers, NshView::next_protocol)),
        ("spi", list(&layers, NshView::spi)),
        ("si", list(&layers, NshView::si)),
        ("context", list(&contexts, |context| hex(*context))),
        ("tlv_class", list(&tlvs, |tlv| tlv.class)),
        ("tlv_type", list(&tlvs, |tlv| tlv.kind)),
        ("tlv_unassigned", list(&tlvs, |tlv| u8::from(tlv.unassigned))),
        ("tlv_length", list(&tlvs, |tlv| tlv.value.len())),
        ("tlv_value", list(&tlvs, |tlv| hex(tlv.value))),
        ("payload", hex(layers.last().unwrap().payload())),
    ];
    fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn as_scapy_read(vector: &Path) -> Fields {
    let text = fs::read_to_string(vector.with_extension("scapy.txt")).unwrap();
    text.lines()
        .map(|line| {
            let (name, value) = line.split_once(" =").unwrap();
            (name.to_string(), value.trim().to_string())
        })
        .collect()
}

/// tshark's names and notation turned into ours.
fn from_tshark(text: &str) -> Fields {
    const NAMES: [(&str, &str); 13] = [
        ("nsh.version", "version"),
        ("nsh.Obit", "oam"),
        ("nsh.ttl", "ttl"),
        ("nsh.length", "length"),
        ("nsh.mdtype", "md_type"),
        ("nsh.nextproto", "next_protocol"),
        ("nsh.spi", "spi"),
        ("nsh.si", "si"),
        ("nsh.contextheader", "context"),
        ("nsh.metadataclass", "tlv_class"),
        ("nsh.metadatatype", "tlv_type"),
        ("nsh.metadatalen", "tlv_length"),
        ("nsh.metadata", "tlv_value"),
    ];
    let mut lines = text.lines();
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    names
        .split('\t')
        .zip(values.split('\t'))
        .map(|(name, value)| {
            let ours = NAMES.iter().find(|(theirs, _)| *theirs == name).unwrap().1;
            let value = match ours {
                // Four words of four bytes each.
                "context" => value.replace(',', ""),
                "tlv_value" => value.to_string(),
                _ => value.split(',').map(decimal).collect::<Vec<_>>().join(","),
            };
            (ours.to_string(), value)
        })
        .collect()
}

fn decimal(value: &str) -> String {
    let hex = value.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16).unwrap());
    hex.map_or(value.to_string(), |number| number.to_string())
}

fn tshark_record(vector: &Path) -> Option<String> {
    fs::read_to_string(vector.with_extension("tshark.txt")).ok()
}

#[test]
fn scapy_reads_the_same() {
    for vector in vectors() {
        assert_eq!(as_we_read(&frame(&vector)), as_scapy_read(&vector), "{}", vector.display());
    }
}

#[test]
fn tshark_reads_the_same() {
    let mut compared = 0;
    for vector in vectors() {
        let Some(record) = tshark_record(&vector) else { continue };
        let mut ours = as_we_read(&frame(&vector));
        // tshark has no field for the one, and does not list empty values in the other.
        ours.remove("payload");
        ours.remove("tlv_unassigned");
        let values = ours.get_mut("tlv_value").unwrap();
        *values = values.split(',').filter(|value| !value.is_empty()).collect::<Vec<_>>().join(",");
        assert_eq!(ours, from_tshark(&record), "{}", vector.display());
        compared += 1;
    }
    assert!(compared >= 18, "tshark records are missing");
}

#[test]
fn the_tshark_records_are_what_tshark_says() {
    if !Command::new("tshark").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip::skip("the_tshark_records_are_what_tshark_says", "tshark is not installed");
    }
    let (frames, records): (Vec<_>, Vec<_>) =
        vectors().iter().filter_map(|vector| Some((frame(vector), tshark_record(vector)?))).unzip();
    let names = records[0].lines().next().unwrap();
    let now = run_tshark(&frames, names);
    assert_eq!(now.lines().count(), 1 + frames.len());
    for (record, values) in records.iter().zip(now.lines().skip(1)) {
        assert_eq!(from_tshark(record), from_tshark(&format!("{names}\n{values}\n")));
    }
}

/// A line of names, then a line of values for each frame.
fn run_tshark(frames: &[Vec<u8>], fields: &str) -> String {
    let pcap = std::env::temp_dir().join(format!("nsh-vectors-{}.pcap", std::process::id()));
    fs::write(&pcap, pcap_of(frames)).unwrap();
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&pcap).args(["-T", "fields", "-E", "header=y"]);
    let output = command.args(fields.split('\t').flat_map(|field| ["-e", field])).output().unwrap();
    fs::remove_file(&pcap).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A capture file, link type Ethernet.
fn pcap_of(frames: &[Vec<u8>]) -> Vec<u8> {
    let file_header = [0xA1B2_C3D4, 2 | 4 << 16, 0, 0, 0x4_0000, 1];
    let mut bytes: Vec<u8> = file_header.into_iter().flat_map(u32::to_le_bytes).collect();
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap();
        bytes.extend([0, 0, len, len].into_iter().flat_map(u32::to_le_bytes));
        bytes.extend(frame);
    }
    bytes
}

/// Each fenced block `hex NAME` of the document is the beginning of that vector: the headers, or all of it.
#[test]
fn the_document_shows_the_vectors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("../docs/wire-format.md")).unwrap();
    let mut shown = 0;
    for block in document.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let bytes: Vec<u8> =
            text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let vector = frame(&root.join("tests/vectors").join(format!("{name}.hex")));
        assert_eq!(hex(&bytes), hex(&vector[..nsh::ENCAP_LEN]), "{name}");
        shown += 1;
    }
    assert_eq!(shown, 5);
}

/// Emitting is editing in place: writing every field as it was read gives the same bytes, and changing a field
/// and changing it back leaves no trace in the others.
#[test]
fn edits_leave_no_trace() {
    for vector in vectors() {
        let original = frame(&vector);
        let mut edited = original.clone();
        let view = NshView::parse(&original[ETHERNET_LEN..]).unwrap();
        let mut nsh = NshMut::parse(&mut edited[ETHERNET_LEN..]).unwrap();
        nsh.set_oam(!view.oam());
        nsh.set_ttl(nsh::Ttl::new(!view.ttl().get() & 0x3F).unwrap());
        nsh.set_next_protocol(NextProtocol(!view.next_protocol().0));
        nsh.set_service_path(nsh::Spi::MAX, nsh::Si::TERMINAL);
        nsh.set_oam(view.oam());
        nsh.set_ttl(view.ttl());
        nsh.set_next_protocol(view.next_protocol());
        nsh.set_service_path(view.spi(), nsh::Si::TERMINAL);
        nsh.set_si(view.si());
        if let Some(context) = view.context() {
            nsh.set_context(context).unwrap();
        }
        assert_eq!(edited, original, "{}", vector.display());
    }
}

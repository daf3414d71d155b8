#!/usr/bin/env python3
"""Makes the NSH test vectors: pip install scapy, apt install tshark, then run this file.

For each vector, beside this file:
  NAME.hex         the whole frame, outer Ethernet header first, made by scapy
  NAME.scapy.txt   what scapy reads in these bytes, key = value; lists run from the outermost NSH inwards
  NAME.tshark.txt  what tshark reads in them: a line of field names, a line of values, tab-separated;
                   missing where tshark is wrong
"""

import pathlib
import subprocess
import tempfile

from scapy.contrib.nsh import NSH, NSHTLV
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import wrpcap

HERE = pathlib.Path(__file__).resolve().parent
SERVICE_VM, PROXY = "52:54:00:00:01:01", "52:54:00:00:00:fe"
TENANT = Ether(dst="52:54:00:00:00:06", src="52:54:00:00:00:05")
UDP_PACKET = IP(src="10.0.0.5", dst="10.0.0.6", id=1) / UDP(sport=1234, dport=53) / b"livepath"
ETHERNET, IPV4, IPV6, NESTED, ACTIVE_OAM = 3, 1, 2, 4, 7
TSHARK_FIELDS = [
    "nsh.version", "nsh.Obit", "nsh.ttl", "nsh.length", "nsh.mdtype", "nsh.nextproto", "nsh.spi", "nsh.si",
    "nsh.contextheader", "nsh.metadataclass", "nsh.metadatatype", "nsh.metadatalen", "nsh.metadata",
]


def context(flags, epoch=0xA7, seq=6, action=0, host=1, port=5, offload="00000000" "0000", serial=0x0102):
    """The livepath context of docs/wire-format.md; `offload` is word 2 and the first half of word 3."""
    head = bytes([flags, epoch, seq, action]) + host.to_bytes(2, "big") + port.to_bytes(2, "big")
    return head + bytes.fromhex(offload) + serial.to_bytes(2, "big")


def md1(flags=None, payload=TENANT / UDP_PACKET, **fields):
    fixed = bytes(16) if flags is None else context(flags)
    nsh = NSH(**{**dict(mdtype=1, nextproto=ETHERNET, spi=1, si=3, ttl=63, context_header=fixed), **fields})
    return nsh / payload if payload is not None else nsh


def md2(tlvs, payload=TENANT / UDP_PACKET, **fields):
    words = 2 + sum(len(bytes(tlv)) for tlv in tlvs) // 4
    return NSH(**{**dict(mdtype=2, nextproto=ETHERNET, spi=1, si=3, length=words, vlch=tlvs), **fields}) / payload


def tlv(class_, type_, value, unassigned=0):
    padded = value + bytes(-len(value) % 4)
    words = [int.from_bytes(padded[i : i + 4], "big") for i in range(0, len(padded), 4)]
    return NSHTLV(class_=class_, type=type_, reserved=unassigned, length=len(value), metadata=words)


OAM = dict(oam=1, nextproto=ACTIVE_OAM, payload=None)
VECTORS = {
    "worked-example": md1(0x18),
    "worked-example-response": md1(0x14),
    "probe": md1(0x18, **OAM),
    "bare-response": md1(0x14, **OAM),
    "bare-response-dropped": md1(0x16, **OAM),
    "no-metadata": md1(None),
    "no-query": md1(0x10),
    "offload-and-failed": md1(
        context_header=context(0x11, action=1, host=0xFFFE, port=0x8001, offload="0022 10 01 05B4")
    ),
    "unassigned-bit": md1(context_header=context(0x18, seq=0xC6), unused1=1),
    "unassigned-nibble": md1(context_header=context(0x18, seq=0xC6), unused1=1, unused2=0xF),
    "extremes": md1(0x18, ttl=0, spi=0xFFFFFF, si=255),
    "terminal": md1(0x18, ttl=1, si=0),
    "inner-vlan": md1(0x18, payload=TENANT / Dot1Q(vlan=42, prio=3) / UDP_PACKET),
    "ipv4": md1(0x18, nextproto=IPV4, payload=UDP_PACKET),
    "ipv6": md1(0x18, nextproto=IPV6, payload=IPv6(src="fd00::5", dst="fd00::6") / UDP(sport=1, dport=2) / b"v6"),
    "md2-without-tlv": md2([]),
    "md2-tlvs": md2([tlv(0x0103, 1, b"abcde"), tlv(0xFFF6, 0x7F, b""), tlv(0, 255, b"12345678", unassigned=1)]),
    "md2-longest": md2([tlv(0x0103, n, bytes(range(116))) for n in (1, 2)] + [tlv(0, 0, b"")]),
    "md2-nested-md1": md2([tlv(9, 9, b"word")], payload=md1(0x18, spi=2, si=1), nextproto=NESTED),
}
# tshark takes the four unassigned bits for a part of the MD type (RFC 8300 gives it the low four bits only).
TSHARK_MISREADS = {"unassigned-nibble"}


def as_scapy_reads(frame):
    layers, at = [], Ether(frame).getlayer(NSH)
    while at is not None:
        layers.append(at)
        at = at.payload.getlayer(NSH) if at.nextproto == NESTED else None
    assert layers, "scapy found no NSH"
    tlvs = [t for nsh in layers for t in (nsh.vlch or [] if nsh.mdtype == 2 else [])]
    value = lambda t: b"".join(word.to_bytes(4, "big") for word in t.metadata)[: t.length]
    each = lambda field: ",".join(str(getattr(nsh, field)) for nsh in layers)
    return {
        "version": each("ver"), "oam": each("oam"), "ttl": each("ttl"), "length": each("length"),
        "md_type": each("mdtype"), "next_protocol": each("nextproto"), "spi": each("spi"), "si": each("si"),
        "context": ",".join(nsh.context_header.hex() for nsh in layers if nsh.mdtype == 1),
        "tlv_class": ",".join(str(t.class_) for t in tlvs), "tlv_type": ",".join(str(t.type) for t in tlvs),
        "tlv_unassigned": ",".join(str(t.reserved) for t in tlvs),
        "tlv_length": ",".join(str(t.length) for t in tlvs),
        "tlv_value": ",".join(value(t).hex() for t in tlvs),
        "payload": bytes(layers[-1].payload).hex(),
    }


def as_tshark_reads(frame):
    with tempfile.NamedTemporaryFile(suffix=".pcap") as pcap:
        wrpcap(pcap.name, [Ether(frame)])
        command = ["tshark", "-r", pcap.name, "-T", "fields", "-E", "header=y"]
        command += [word for field in TSHARK_FIELDS for word in ("-e", field)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


for name, packet in VECTORS.items():
    dst, src = (PROXY, SERVICE_VM) if "response" in name else (SERVICE_VM, PROXY)
    frame = bytes(Ether(dst=dst, src=src, type=0x894F) / packet)
    rows = [frame[i : i + 16].hex(" ") for i in range(0, len(frame), 16)]
    (HERE / f"{name}.hex").write_text("\n".join(rows) + "\n")
    lines = [f"{key} = {value}".rstrip() for key, value in as_scapy_reads(frame).items()]
    (HERE / f"{name}.scapy.txt").write_text("\n".join(lines) + "\n")
    if name not in TSHARK_MISREADS:
        (HERE / f"{name}.tshark.txt").write_text(as_tshark_reads(frame))

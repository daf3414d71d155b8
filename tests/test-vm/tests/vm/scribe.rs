//! A backend that agrees to everything, does nothing and writes down the requests it gets.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;

const GET_FEATURES: u32 = 1;
const GET_VRING_BASE: u32 = 11;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;

/// What the backend offers.
#[derive(Clone, Copy)]
pub(crate) struct Offer {
    pub(crate) features: u64,
    pub(crate) protocol: u64,
    pub(crate) queues: u64,
}

/// Serves one connection; the requests by number, each with the first eight bytes of its body.
pub(crate) fn serve(socket: &Path, offer: Offer) -> JoinHandle<Vec<(u32, u64)>> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut requests = Vec::new();
        while let Some((request, flags, body)) = receive(&mut stream) {
            let mut first = [0; 8];
            let len = body.len().min(8);
            first[..len].copy_from_slice(&body[..len]);
            requests.push((request, u64::from_le_bytes(first)));
            let reply = match request {
                GET_FEATURES => offer.features,
                GET_PROTOCOL_FEATURES => offer.protocol,
                GET_QUEUE_NUM => offer.queues,
                GET_VRING_BASE => u64::from_le_bytes(first),
                _ if flags & 8 != 0 => 0,
                _ => continue,
            };
            let mut bytes = [request.to_le_bytes(), 5u32.to_le_bytes(), 8u32.to_le_bytes()].concat();
            bytes.extend_from_slice(&reply.to_le_bytes());
            stream.write_all(&bytes).unwrap();
        }
        requests
    })
}

fn receive(stream: &mut UnixStream) -> Option<(u32, u32, Vec<u8>)> {
    let mut header = [0; 12];
    stream.read_exact(&mut header).ok()?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let mut body = vec![0; word(8) as usize];
    stream.read_exact(&mut body).ok()?;
    Some((word(0), word(4), body))
}

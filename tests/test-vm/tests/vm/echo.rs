//! A minimal vhost-user-net backend on vhost-user-backend's framework that sends every frame back: the oracle's own queue
//! code, so that the driver under test is not checked against itself.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use vhost::vhost_user::Listener;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{ShutdownHandle, VhostUserBackendMut, VhostUserDaemon, VringMutex, VringT};
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Vring = VringMutex<Memory>;

const HEADER: usize = 12;

/// How the backend behaves beyond sending frames back.
#[derive(Clone, Copy, Default)]
pub(crate) struct Manners {
    /// Complete TX batches with one used element, as VIRTIO_F_IN_ORDER allows.
    pub(crate) batch_used: bool,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) kicks: AtomicU64,
    pub(crate) calls: AtomicU64,
    pub(crate) merged: AtomicU64,
    pub(crate) ended: AtomicU64,
}

struct Echo {
    memory: Memory,
    event_idx: bool,
    mergeable: bool,
    manners: Manners,
    waiting: VecDeque<Vec<u8>>,
    counts: Arc<Counts>,
}

impl VhostUserBackendMut for Echo {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_F_IN_ORDER
            | 1 << VIRTIO_NET_F_MRG_RXBUF
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&mut self, features: u64) {
        self.mergeable = features & 1 << VIRTIO_NET_F_MRG_RXBUF != 0;
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let space: Vec<u8> = (0..64).collect();
        space[offset as usize..][..size as usize].to_vec()
    }

    fn set_event_idx(&mut self, enabled: bool) {
        self.event_idx = enabled;
    }

    fn update_memory(&mut self, memory: Memory) -> io::Result<()> {
        self.memory = memory;
        Ok(())
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()
    }

    fn handle_event(&mut self, _: u16, _: EventSet, vrings: &[Vring], _: usize) -> io::Result<()> {
        self.counts.kicks.fetch_add(1, Ordering::Relaxed);
        let [rx, tx] = vrings else { panic!("two rings") };
        loop {
            self.take(tx);
            self.deliver(rx);
            let again = self.event_idx && (has_more(rx) && !self.waiting.is_empty() || has_more(tx));
            if !again {
                return Ok(());
            }
        }
    }
}

/// Asks for kicks; true if the driver was faster. A ring that was stopped meanwhile gives nothing, whatever lies in it.
fn has_more(vring: &Vring) -> bool {
    vring.get_ref().get_queue().ready() && vring.enable_notification().unwrap()
}

impl Echo {
    fn take(&mut self, tx: &Vring) {
        let memory = self.memory.memory();
        let mut heads = Vec::new();
        {
            let mut state = tx.get_mut();
            while let Some(chain) = state.get_queue_mut().pop_descriptor_chain(memory.clone()) {
                heads.push(chain.head_index());
                let mut frame = Vec::new();
                io::Read::read_to_end(&mut chain.reader(&*memory).unwrap(), &mut frame).unwrap();
                self.waiting.push_back(frame.split_off(HEADER));
            }
        }
        match heads.last() {
            None => return,
            Some(last) if self.manners.batch_used => {
                let mut state = tx.get_mut();
                let queue = state.get_queue_mut();
                let place = queue.next_used() % queue.size();
                let at = GuestAddress(queue.used_ring() + 4 + 8 * u64::from(place));
                memory.write_obj(u32::from(*last), at).unwrap();
                let next = queue.next_used().wrapping_add(heads.len() as u16);
                queue.set_next_used(next);
                let index = GuestAddress(queue.used_ring() + 2);
                memory.store(next, index, Ordering::Release).unwrap();
            }
            Some(_) => heads.iter().for_each(|head| tx.add_used(*head, 0).unwrap()),
        }
        self.call(tx);
    }

    fn deliver(&mut self, rx: &Vring) {
        let memory = self.memory.memory();
        let mut delivered = false;
        while let Some(frame) = self.waiting.front() {
            let mut rest = HEADER + frame.len();
            let mut chains = Vec::new();
            let mut state = rx.get_mut();
            while rest > 0 && (chains.is_empty() || self.mergeable) {
                let Some(chain) = state.get_queue_mut().pop_descriptor_chain(memory.clone()) else { break };
                let room = chain.clone().writer(&*memory).unwrap().available_bytes();
                rest = rest.saturating_sub(room);
                chains.push(chain);
            }
            if rest > 0 {
                chains.iter().for_each(|_| state.get_queue_mut().go_to_previous_position());
                break;
            }
            drop(state);
            let mut bytes = vec![0; HEADER];
            bytes[10..].copy_from_slice(&(chains.len() as u16).to_le_bytes());
            bytes.extend_from_slice(frame);
            self.counts.merged.fetch_add(u64::from(chains.len() > 1), Ordering::Relaxed);
            let mut left = &bytes[..];
            for chain in chains {
                let mut writer = chain.clone().writer(&*memory).unwrap();
                let count = writer.available_bytes().min(left.len());
                io::Write::write_all(&mut writer, &left[..count]).unwrap();
                left = &left[count..];
                rx.add_used(chain.head_index(), count as u32).unwrap();
            }
            self.waiting.pop_front();
            delivered = true;
        }
        if delivered {
            self.call(rx);
        }
    }

    fn call(&self, vring: &Vring) {
        // needs_notification() does not look at NO_INTERRUPT when EVENT_IDX is off.
        let silent = {
            let state = vring.get_ref();
            let avail = GuestAddress(state.get_queue().avail_ring());
            let flags: u16 = self.memory.memory().read_obj(avail).unwrap();
            !self.event_idx && flags & 1 != 0
        };
        if !silent && vring.needs_notification().unwrap() {
            self.counts.calls.fetch_add(1, Ordering::Relaxed);
            vring.signal_used_queue().unwrap();
        }
    }
}

/// The backend on a socket of its own, serving one connection after another until dropped.
pub(crate) struct Backend {
    directory: tempfile::TempDir,
    pub(crate) counts: Arc<Counts>,
    current: Arc<Mutex<Option<ShutdownHandle>>>,
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    pub(crate) fn start(manners: Manners) -> Backend {
        let directory = tempfile::tempdir().unwrap();
        let mut listener = Listener::new(directory.path().join("socket"), true).unwrap();
        let counts = Arc::new(Counts::default());
        let current = Arc::new(Mutex::new(None));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let thread = {
            let (counts, current, stop) = (counts.clone(), current.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    serve(&mut listener, manners, &counts, &current);
                }
            })
        };
        Backend { directory, counts, current, stop, thread: Some(thread) }
    }

    /// The other mode: connects to a VM that listens and serves it until it hangs up.
    pub(crate) fn connect(socket: &Path) {
        let mut daemon = daemon(Manners::default(), &Arc::default());
        daemon.start_client(socket.to_str().unwrap()).unwrap();
        finish(&mut daemon);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Ends the current connection from the backend's side and waits until nothing of it is at work any more.
    pub(crate) fn hang_up(&self) {
        let ended = self.counts.ended.load(Ordering::Acquire);
        loop {
            // The connection may be served already while its handle is still on its way here.
            if let Some(handle) = self.current.lock().unwrap().take() {
                handle.shutdown();
                break;
            }
            std::thread::yield_now();
        }
        while self.counts.ended.load(Ordering::Acquire) == ended {
            std::thread::yield_now();
        }
    }
}

fn serve(
    listener: &mut Listener,
    manners: Manners,
    counts: &Arc<Counts>,
    current: &Mutex<Option<ShutdownHandle>>,
) {
    let mut daemon = daemon(manners, counts);
    daemon.start(listener).unwrap();
    *current.lock().unwrap() = daemon.shutdown_handle();
    finish(&mut daemon);
    *current.lock().unwrap() = None;
    // Dropping it joins its workers.
    drop(daemon);
    counts.ended.fetch_add(1, Ordering::AcqRel);
}

fn daemon(manners: Manners, counts: &Arc<Counts>) -> VhostUserDaemon<Arc<Mutex<Echo>>> {
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let echo = Echo {
        memory: memory.clone(),
        event_idx: false,
        mergeable: false,
        manners,
        waiting: VecDeque::new(),
        counts: counts.clone(),
    };
    VhostUserDaemon::new("echo".into(), Arc::new(Mutex::new(echo)), memory).unwrap()
}

fn finish(daemon: &mut VhostUserDaemon<Arc<Mutex<Echo>>>) {
    let _ = daemon.wait();
    daemon.get_epoll_handlers().iter().for_each(|handler| handler.send_exit_event());
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Unblocks accept(), or is the connection after the one that is hung up on.
        let last = std::os::unix::net::UnixStream::connect(self.socket());
        if let Some(handle) = self.current.lock().unwrap().take() {
            handle.shutdown();
        }
        drop(last);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Attaches to a fresh backend.
pub(crate) fn attach(options: test_vm::Options) -> (Backend, test_vm::TestVm) {
    attach_to(Manners::default(), options)
}

/// Attaches to a fresh backend with manners.
pub(crate) fn attach_to(manners: Manners, options: test_vm::Options) -> (Backend, test_vm::TestVm) {
    let backend = Backend::start(manners);
    let vm = test_vm::TestVm::attach(Path::new(&backend.socket()), options).unwrap();
    (backend, vm)
}

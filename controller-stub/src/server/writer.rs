//! The one thread that changes the controller and stores it.
//!
//! ```text
//!  orders ──▶ up to GROUP at once ──▶ apply each ──▶ one transaction ──▶ publish the view ──▶ answer each
//!                                                        │ failed
//!                                                        └──▶ answer "not stored"; load what the file has before the next
//! ```
//!
//! After a failure every order is tried on its own merits, but the fault stands until as much was stored as could not be:
//! opening and reading a file says nothing about a disk that is full.

use super::metrics::{BUSY, Counts, NOT_STORED, REFUSED, STORED};
use super::view::View;
use super::{Failure, ServerError};
use crate::api::WallTime;
use crate::controller::{Controller, Refused};
use crate::store::{self, Store, StoreError};
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Orders that may wait. One more is told to come back.
const QUEUE: usize = 1024;

/// Orders stored in one transaction.
const GROUP: usize = 64;

/// The most room, in bytes, that is to be shown before a fault is over.
const MOST_ROOM: usize = 8 << 20;

type Outcome<T> = Result<T, Refused>;

/// An order and the one who waits for its answer.
trait Order: Send {
    fn apply(&mut self, controller: &mut Controller, now: WallTime);
    /// Counts what became of it and tells whoever asked, in this order: they may look at the counts next.
    fn answer(self: Box<Self>, stored: Result<(), Arc<StoreError>>, counts: &Counts);
}

struct Pending<T, F> {
    order: Option<F>,
    outcome: Option<Outcome<T>>,
    reply: oneshot::Sender<Result<T, Failure>>,
}

impl<T: Send, F: FnOnce(&mut Controller, WallTime) -> Outcome<T> + Send> Order for Pending<T, F> {
    fn apply(&mut self, controller: &mut Controller, now: WallTime) {
        self.outcome = self.order.take().map(|order| order(controller, now));
    }

    fn answer(self: Box<Self>, stored: Result<(), Arc<StoreError>>, counts: &Counts) {
        let (answer, counted) = match (stored, self.outcome) {
            (Err(error), _) => (Err(Failure::Store(error)), NOT_STORED),
            (Ok(()), Some(Ok(told))) => (Ok(told), STORED),
            (Ok(()), Some(Err(refused))) => (Err(Failure::Refused(refused)), REFUSED),
            (Ok(()), None) => (Err(Failure::Stopping), NOT_STORED),
        };
        counts.orders.get_or_create(&counted).inc();
        // Whoever asked may have hung up.
        _ = self.reply.send(answer);
    }
}

enum Message {
    Order(Box<dyn Order>),
    Stop,
}

/// The way to the writer.
#[derive(Clone)]
pub(super) struct Orders {
    writer: mpsc::Sender<Message>,
    counts: Counts,
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Orders")
    }
}

impl Orders {
    /// Has `order` carried out; the answer comes once it is stored.
    ///
    /// # Errors
    /// It was refused, or could not be stored.
    pub(super) async fn give<T, F>(&self, order: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut Controller, WallTime) -> Outcome<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let pending = Pending { order: Some(order), outcome: None, reply };
        match self.writer.try_send(Message::Order(Box::new(pending))) {
            Ok(()) => answer.await.unwrap_or(Err(Failure::Stopping)),
            Err(TrySendError::Full(_)) => {
                self.counts.orders.get_or_create(&BUSY).inc();
                Err(Failure::Busy)
            }
            Err(TrySendError::Closed(_)) => Err(Failure::Stopping),
        }
    }

    /// Lets the writer end after the orders that wait.
    pub(super) async fn stop(&self) {
        // It may have ended already.
        _ = self.writer.send(Message::Stop).await;
    }
}

/// Loads the store and starts the writer on a thread of its own.
///
/// # Errors
/// The store cannot be read or written.
#[expect(
    clippy::type_complexity,
    reason = "the three ends of the writer, taken apart at once by its only caller"
)]
pub(super) fn start(
    store: Arc<Store>,
    counts: Counts,
) -> Result<(Orders, watch::Receiver<Arc<View>>, JoinHandle<()>), ServerError> {
    let (view, seen) = watch::channel(Arc::default());
    let mut writer =
        Writer { store, controller: None, unproven: Some(0), fault: None, view, counts: counts.clone() };
    writer.begin()?;
    let (orders, waiting) = mpsc::channel(QUEUE);
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("controller".to_string())
        .spawn(move || {
            writer.run(waiting);
            drop(writer);
            _ = ended.send(());
        })
        .map_err(ServerError::Thread)?;
    // Ready when the thread has ended, however it did.
    let joined = tokio::spawn(async move { _ = end.await });
    Ok((Orders { writer: orders, counts }, seen, joined))
}

struct Writer {
    store: Arc<Store>,
    /// What the store holds; none after a failure, until it was loaded again.
    controller: Option<Controller>,
    /// So many bytes have to be stored before the disk is called good; none while it is.
    unproven: Option<usize>,
    /// Why it is not good.
    fault: Option<String>,
    view: watch::Sender<Arc<View>>,
    counts: Counts,
}

impl Writer {
    fn run(&mut self, mut waiting: mpsc::Receiver<Message>) {
        while let Some(Message::Order(first)) = waiting.blocking_recv() {
            let mut group = vec![first];
            let mut stop = false;
            while group.len() < GROUP {
                match waiting.try_recv() {
                    Ok(Message::Order(next)) => group.push(next),
                    Ok(Message::Stop) => {
                        stop = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            let stored = self.carry_out(&mut group).map_err(Arc::new);
            if let Err(error) = &stored {
                self.fault(error);
            }
            for order in group {
                order.answer(stored.clone(), &self.counts);
            }
            if stop {
                break;
            }
        }
        self.store.close();
    }

    /// The first start. What is there is served also where nothing can be written.
    fn begin(&mut self) -> Result<(), StoreError> {
        let controller = self.load()?;
        log::info!(generation = controller.table().generation; "controller resumes");
        if let Err(error) = self.keep(controller) {
            self.fault(&error);
        }
        Ok(())
    }

    fn carry_out(&mut self, group: &mut [Box<dyn Order>]) -> Result<(), StoreError> {
        // Taken out until it is stored again: after a failure the file decides, not what is in memory.
        let mut controller = match self.controller.take() {
            Some(controller) => controller,
            None => {
                self.store.reopen()?;
                self.load()?
            }
        };
        for order in group {
            order.apply(&mut controller, wall_time());
        }
        self.keep(controller)
    }

    /// Begins, or begins again, with what the store holds.
    fn load(&mut self) -> Result<Controller, StoreError> {
        let mut controller = self.store.load()?;
        self.publish(&controller);
        controller.resume(wall_time());
        Ok(controller)
    }

    /// Stores what changed. Where nothing did and the disk is in doubt, it is tried.
    fn keep(&mut self, mut controller: Controller) -> Result<(), StoreError> {
        let changes = controller.take_changes();
        if !changes.is_empty() {
            let began = Instant::now();
            if let Err(error) = self.store.commit(&controller, &changes) {
                let bytes = store::size(&controller, &changes).min(MOST_ROOM);
                self.unproven = self.unproven.max(Some(bytes));
                return Err(error);
            }
            self.counts.commits.observe(began.elapsed().as_secs_f64());
            self.prove(|| store::size(&controller, &changes));
            self.publish(&controller);
        } else if let Some(bytes) = self.unproven {
            self.store.prove_room(bytes)?;
            self.prove(|| bytes);
            self.publish(&controller);
        }
        self.controller = Some(controller);
        Ok(())
    }

    /// So many bytes were stored.
    fn prove(&mut self, bytes: impl FnOnce() -> usize) {
        if self.unproven.is_some_and(|least| bytes() >= least) {
            self.unproven = None;
            if self.fault.take().is_some() {
                log::info!("the store can be written again");
            }
        }
    }

    fn publish(&self, controller: &Controller) {
        let mut view = View::of(controller, &self.view.borrow());
        view.status.fault.clone_from(&self.fault);
        self.view.send_replace(Arc::new(view));
    }

    fn fault(&mut self, error: &StoreError) {
        let fault = chain_of(error);
        if self.fault.as_ref() != Some(&fault) {
            log::error!(error:% = fault; "the store cannot be written: changes are refused, reads go on");
        }
        let view = self.view.borrow().with_fault(fault.clone());
        self.view.send_replace(Arc::new(view));
        self.fault = Some(fault);
        _ = self.unproven.get_or_insert(0);
        // A failed commit closed the file; its history is still to be read, also where nothing can be written.
        if let Err(error) = self.store.reopen() {
            log::error!(error:% = chain_of(&error); "the store cannot be read either: its history is not served");
        }
    }
}

/// An error and what caused it, in one line.
pub(super) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The clock that is shown to people.
#[expect(clippy::disallowed_methods, reason = "shown to people")]
pub(super) fn wall_time() -> WallTime {
    WallTime::from(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::super::Failure;
    use super::{Counts, start};
    use crate::api::{Chain, Name};
    use crate::store::disk::Disk;
    use serde_json::json;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_full_disk_refuses_changes_serves_reads_and_recovers() {
        let disk = Disk::default();
        let (orders, view, ended) = start(Arc::new(disk.store().unwrap()), Counts::default()).unwrap();
        let name = Name::new("inspect").unwrap();
        let put = |spi: u32| {
            let chain: Chain =
                serde_json::from_value(json!({"paths": [{"spi": spi, "hops": ["a"]}]})).unwrap();
            let name = name.clone();
            orders.give(move |controller, now| controller.put_chain(&name, chain, now))
        };
        assert_eq!(put(1).await.unwrap().generation, 1);

        disk.limit(Some(0));
        assert!(matches!(put(2).await, Err(Failure::Store(_))));
        assert!(matches!(put(3).await, Err(Failure::Store(_))));
        let seen = Arc::clone(&view.borrow());
        assert!(seen.status.fault.as_ref().is_some_and(|fault| !fault.is_empty()));
        assert_eq!((seen.status.generation, seen.status.chains[0].paths[0].spi.get()), (1, 1));

        // What the server does by itself while there is a fault says nothing about the disk, whoever says otherwise.
        assert!(matches!(orders.give(|_, _| Ok(())).await, Err(Failure::Store(_))));
        assert!(view.borrow().status.fault.is_some());

        disk.limit(None);
        assert_eq!(put(4).await.unwrap().generation, 2);
        let seen = Arc::clone(&view.borrow());
        assert_eq!((&seen.status.fault, seen.status.chains[0].paths[0].spi.get()), (&None, 4));

        disk.limit(Some(0));
        assert!(matches!(put(5).await, Err(Failure::Store(_))));
        disk.limit(None);
        orders.give(|_, _| Ok(())).await.unwrap();
        assert_eq!(view.borrow().status.fault, None, "it was tried and is good");

        orders.stop().await;
        ended.await.unwrap();
        assert!(matches!(put(6).await, Err(Failure::Stopping)));
        let kept = disk.crash(|| false).store().unwrap().load().unwrap();
        assert_eq!(kept.status(), seen.status);
    }
}

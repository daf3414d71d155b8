//! What readers see.

use crate::api::{HostId, Status, TableLine};
use crate::controller::Controller;
use hyper::body::Bytes;

/// One durable moment of the controller, made once for all readers.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The whole view.
    pub(super) status: Status,
    /// The table as a line of the hosts' streams.
    pub(super) table_line: Bytes,
    /// Why nothing can be stored at the moment.
    pub(super) fault: Option<String>,
}

impl View {
    /// The controller as it is now; the line is taken from `before` if the table is the same.
    pub(super) fn of(controller: &Controller, before: &View) -> View {
        let status = controller.status();
        let same = !before.table_line.is_empty() && before.status.generation == status.generation;
        let table_line =
            if same { before.table_line.clone() } else { line(&TableLine::Table(controller.table())) };
        View { status, table_line, fault: None }
    }

    /// The same moment, with the store gone bad.
    pub(super) fn with_fault(&self, fault: String) -> View {
        View { status: self.status.clone(), table_line: self.table_line.clone(), fault: Some(fault) }
    }

    /// Whether this host registered.
    pub(super) fn knows(&self, host: HostId) -> bool {
        self.status.hosts.iter().any(|known| known.id == host)
    }
}

/// A line of a table stream.
pub(super) fn line(line: &TableLine) -> Bytes {
    // The types of the API have string keys and no failing serializer.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

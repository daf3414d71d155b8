//! Threads that the kernel does not run for a while.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vmm_sys_util::signal::register_signal_handler;

/// For how long the next thread that gets the signal stands still, in nanoseconds.
static NANOS: AtomicU64 = AtomicU64::new(0);

/// Lets the threads of this process that have this name stand still for `time`, wherever they are, as if the kernel had given
/// their cores to others. Returns at once. It takes SIGUSR2 for that.
///
/// # Errors
/// There is no such thread, or the system refuses.
pub fn stall(name: &str, time: Duration) -> io::Result<()> {
    register_signal_handler(libc::SIGUSR2, stand_still)?;
    NANOS.store(time.as_nanos() as u64, Ordering::SeqCst);
    let mut stalled = false;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        // A thread may end meanwhile.
        let is_meant = std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        let number = task.file_name().and_then(|number| number.to_str()?.parse::<libc::pid_t>().ok());
        if let Some(number) = number.filter(|_| is_meant) {
            let process = std::process::id();
            // SAFETY: tgkill takes three numbers and touches no memory; the handler was registered above.
            let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, number, libc::SIGUSR2) };
            if sent != 0 {
                return Err(io::Error::last_os_error());
            }
            stalled = true;
        }
    }
    if stalled {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("no thread is called {name}")))
    }
}

/// The handler: nothing but a load and a sleep.
extern "C" fn stand_still(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    std::thread::sleep(Duration::from_nanos(NANOS.load(Ordering::SeqCst)));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_stands_still_for_as_long_as_it_should() {
        const STILL: Duration = Duration::from_millis(60);
        let rounds = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&rounds);
        let thread = std::thread::Builder::new().name("still".into());
        let counting = thread.spawn(move || {
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            while longest < STILL {
                let now = Instant::now();
                longest = longest.max(now - last);
                last = now;
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let counting = counting.unwrap();
        while rounds.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        stall("still", STILL).unwrap();
        counting.join().unwrap();
        assert_eq!(stall("nobody", STILL).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

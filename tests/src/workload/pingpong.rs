//! Two threads on one CPU that send one byte to and fro through two pipes: each byte is a wake-up and a switch.

use std::{os::fd::OwnedFd, thread::spawn, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use rustix::pipe::pipe;

use super::{Outcome, Scheduling, Start, now_ns, pin, tid};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// For how long
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The CPU of both
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// other or fifo:PRIORITY, of both
    #[arg(long, default_value = "other")]
    policy: Scheduling,
    #[command(flatten)]
    start: Start,
}

pub(super) fn run(args: &Args) -> Result<Outcome> {
    let cpu = Some(args.cpu);
    let length_ns = u64::try_from(Duration::try_from_secs_f64(args.seconds).context("--seconds")?.as_nanos())?;
    let (there_in, there_out) = pipe().context("pipe")?;
    let (back_in, back_out) = pipe().context("pipe")?;
    args.start.ready(&[tid()])?;
    pin(cpu)?;
    let policy = args.policy;
    let echo = spawn(move || -> Result<()> {
        pin(cpu)?;
        policy.apply(0)?;
        let mut byte = [0];
        while receive(&there_in, &mut byte)? {
            send(&back_out, byte)?;
        }
        Ok(())
    });
    policy.apply(0)?;
    // Clock reads cost as much as a tenth of a round trip: one in a batch.
    let (mut round_trips, mut byte) = (0_u64, [0]);
    let begin_ns = now_ns();
    let end_ns = begin_ns + length_ns;
    let mut at_ns = begin_ns;
    while at_ns < end_ns {
        for _ in 0..256 {
            send(&there_out, byte)?;
            receive(&back_in, &mut byte)?;
        }
        round_trips += 256;
        at_ns = now_ns();
    }
    drop(there_out);
    echo.join().map_err(|_| anyhow!("the echo thread panicked"))??;
    let ns = at_ns - begin_ns;
    Ok(Outcome { cycles: round_trips, avg_ns: ns / round_trips, ..Outcome::default() }
        .with("total_ns", ns)
        .with("round_trip_ps", ns * 1000 / round_trips))
}

fn send(pipe: &OwnedFd, byte: [u8; 1]) -> Result<()> {
    rustix::io::write(pipe, &byte).context("write to a pipe")?;
    Ok(())
}

/// False at the end of the pipe.
fn receive(pipe: &OwnedFd, byte: &mut [u8; 1]) -> Result<bool> {
    Ok(rustix::io::read(pipe, byte).context("read from a pipe")? == 1)
}

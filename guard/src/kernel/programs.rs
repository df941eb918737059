//! The programs of the object: where each is attached, and how it gets there.

use aya::{
    Ebpf,
    programs::{BtfTracePoint, FEntry, FExit, Program, ProgramError},
};

use super::{
    pretence::{Pretence, Step},
    refusal::Refusal,
    sys,
};

/// A program and where it goes: the tracepoint or function whose name it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) program: &'static str,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Tracepoint,
    Entry,
    Exit,
}

impl Probe {
    /// Whether it is attached to a function by a trampoline.
    pub(super) fn is_trampoline(self) -> bool {
        self.at != At::Tracepoint
    }
}

pub(super) const fn tracepoint(program: &'static str) -> Probe {
    Probe { program, at: At::Tracepoint }
}

pub(super) const fn entry(program: &'static str) -> Probe {
    Probe { program, at: At::Entry }
}

pub(super) const fn exit(program: &'static str) -> Probe {
    Probe { program, at: At::Exit }
}

/// The object's programs on their way into the kernel.
pub(super) struct Programs<'a> {
    pub(super) ebpf: &'a mut Ebpf,
    pub(super) btf: &'a aya::Btf,
    pub(super) pretence: &'a Pretence,
    pub(super) attached: &'a mut Vec<&'static str>,
}

impl Programs<'_> {
    /// Loads and attaches all of these, or none.
    pub(super) fn attach(&mut self, probes: &[Probe]) -> Result<(), Refusal> {
        let before = self.attached.len();
        for probe in probes {
            if self.attached.contains(&probe.program) {
                continue;
            }
            if let Err(refusal) = self.load_and_attach(*probe) {
                for program in self.attached.drain(before..) {
                    detach(self.ebpf, program);
                }
                // It may have been loaded.
                detach(self.ebpf, probe.program);
                return Err(refusal);
            }
            self.attached.push(probe.program);
        }
        Ok(())
    }

    fn load_and_attach(&mut self, probe: Probe) -> Result<(), Refusal> {
        self.load(probe)?;
        self.pretence.admit(probe.program, Step::Attach).map_err(|error| Refusal::from((probe.program, error)))?;
        attach(self.ebpf, probe).map_err(|error| Refusal::new(probe.program, &error))
    }

    /// Of a loaded program: instructions that the verifier went through, and bytes that it left of it.
    pub(super) fn size(&self, probe: Probe) -> (u32, u32) {
        let fd = self.ebpf.program(probe.program).and_then(|program| program.fd().ok());
        fd.and_then(|fd| sys::run_info(fd).ok()).map_or((0, 0), |info| (info.verified, info.bytes))
    }

    /// Has the verifier take it.
    pub(super) fn load(&mut self, probe: Probe) -> Result<(), Refusal> {
        self.pretence.admit(probe.program, Step::Load).map_err(|error| Refusal::from((probe.program, error)))?;
        load(self.ebpf, probe, self.btf).map_err(|error| Refusal::new(probe.program, &error))
    }
}

fn load(ebpf: &mut Ebpf, probe: Probe, btf: &aya::Btf) -> Result<(), ProgramError> {
    let program = ebpf.program_mut(probe.program).ok_or(ProgramError::NotLoaded)?;
    match probe.at {
        At::Tracepoint => <&mut BtfTracePoint>::try_from(program)?.load(probe.program, btf),
        At::Entry => <&mut FEntry>::try_from(program)?.load(probe.program, btf),
        At::Exit => <&mut FExit>::try_from(program)?.load(probe.program, btf),
    }
}

fn attach(ebpf: &mut Ebpf, probe: Probe) -> Result<(), ProgramError> {
    let program = ebpf.program_mut(probe.program).ok_or(ProgramError::NotLoaded)?;
    match probe.at {
        At::Tracepoint => <&mut BtfTracePoint>::try_from(program)?.attach().map(|_| ()),
        At::Entry => <&mut FEntry>::try_from(program)?.attach().map(|_| ()),
        At::Exit => <&mut FExit>::try_from(program)?.attach().map(|_| ()),
    }
}

/// Takes a program out of the kernel again. One that is not there need not be taken out.
fn detach(ebpf: &mut Ebpf, program: &str) {
    let _ = match ebpf.program_mut(program) {
        Some(Program::BtfTracePoint(program)) => program.unload(),
        Some(Program::FEntry(program)) => program.unload(),
        Some(Program::FExit(program)) => program.unload(),
        _ => return,
    };
}
